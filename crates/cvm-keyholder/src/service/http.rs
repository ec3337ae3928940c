//! One connection: TLS, HTTP/1.1, and bounds on everything that it may take.

use std::{convert::Infallible, net::IpAddr, sync::Arc};

use cvm_release::paths;
use cvm_release_server::{HttpReply, HttpRequest};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Response, StatusCode,
    body::{Body, Bytes},
    header,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpStream, sync::watch, time::timeout};
use tokio_rustls::TlsAcceptor;

use super::shared::Shared;

use crate::limit::Seat;

/// One connection, from its handshake to its end. Errors are the peer's own business.
pub(super) async fn connection(
    shared: Arc<Shared>,
    tls: TlsAcceptor,
    stream: TcpStream,
    peer: IpAddr,
    seat: Arc<Seat>,
    mut closed: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = timeout(shared.limits.handshake, tls.accept(stream)).await else { return };
    let limit = shared.limits.request;
    let service = service_fn(move |request| {
        let (shared, seat) = (shared.clone(), seat.clone());
        async move { Ok::<_, Infallible>(exchange(shared, request, peer, &seat).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limit)
        .max_headers(64)
        // The one large header is the token, some 10 KiB.
        .max_buf_size(128 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        _ = &mut connection => return,
        _ = closed.changed() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

async fn exchange(
    shared: Arc<Shared>,
    request: hyper::Request<hyper::body::Incoming>,
    peer: IpAddr,
    seat: &Seat,
) -> Response<Full<Bytes>> {
    if !shared.requests.admits(peer) {
        return unread(StatusCode::TOO_MANY_REQUESTS);
    }
    let (head, body) = request.into_parts();
    let most = paths::max_body(head.method.as_str(), head.uri.path());
    let length = body.size_hint();
    // A length that is only promised is refused before it is sent.
    if length.lower() > most as u64 {
        return unread(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let is_large = length.upper().is_none_or(|length| length > paths::MAX_AUTH_BYTES as u64);
    let large = match is_large.then(|| shared.bodies.take(peer)) {
        Some(None) => return unread(StatusCode::SERVICE_UNAVAILABLE),
        place => place.flatten(),
    };
    let read = timeout(shared.limits.request, Limited::new(body, most).collect());
    let lost = async {
        match &large {
            Some(place) => place.lost().await,
            None => std::future::pending().await,
        }
    };
    let body = tokio::select! {
        read = read => read,
        () = lost => return unread(StatusCode::SERVICE_UNAVAILABLE),
    };
    let body = match body {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(e)) if e.is::<http_body_util::LengthLimitError>() => {
            return unread(StatusCode::PAYLOAD_TOO_LARGE);
        }
        Ok(Err(_)) => return unread(StatusCode::BAD_REQUEST),
        Err(_) => return unread(StatusCode::REQUEST_TIMEOUT),
    };
    seat.works();
    if let Some(place) = &large {
        place.works();
    }
    // First come, first served; the semaphore is never closed.
    let Ok(worker) = shared.workers.clone().acquire_owned().await else {
        return plain(StatusCode::SERVICE_UNAVAILABLE);
    };
    // Signatures and SQLite block.
    let answer = tokio::task::spawn_blocking(move || {
        // Held until the body is gone, whether or not the peer still waits.
        let _held = (worker, large);
        let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
        let request = HttpRequest {
            method: head.method.as_str(),
            path: head.uri.path(),
            cookie: text(header::COOKIE),
            authorization: text(header::AUTHORIZATION),
            peer: &peer.to_canonical().to_string(),
            body: &body,
        };
        shared.answer(&request, peer)
    });
    let answer = answer.await.map_or_else(|_| plain(StatusCode::INTERNAL_SERVER_ERROR), response);
    seat.waits();
    answer
}

fn response(reply: HttpReply) -> Response<Full<Bytes>> {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = plain(status);
    if !reply.body.is_empty() {
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    }
    if let Some(cookie) = reply.set_cookie.and_then(|cookie| cookie.try_into().ok()) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    *response.body_mut() = Full::new(reply.body.into());
    response
}

/// An answer to a request whose body was not read to its end. Hyper then ends the connection: a
/// client that was not told would send its next request on it.
fn unread(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = plain(status);
    response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    response
}

fn plain(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}
