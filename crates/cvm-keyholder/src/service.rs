//! The network side: TLS, HTTP/1.1, bounds on everything, and a clean end.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use cvm_attest::ak_certificate::AkCertificate;
use cvm_base::{Bytes32, sha256, time};
use cvm_ceremony::Card;
use cvm_custody::{Party, SECRETS_FILE, Unlock};
use cvm_layout::manifest::{Manifest, Stage};
use cvm_release::{
    paths,
    server::{
        Decision, Fault, Halves, Outcome, Policy as _, Reply, Request, Server, SessionKeys, Verdict,
    },
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Response, StatusCode,
    body::{Body, Bytes},
    header,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use crate::{
    KeyHolderError,
    console::Console,
    enroll::Identity,
    evidence::{self, Verifier},
    limit::{Limiter, Seat, Seats, lock},
    log,
    policy::PolicyFolder,
    protect,
    refusals::{self, Refusals},
    store::{Listed, SqliteStore},
};

pub use crate::limit::Limits;

/// Serves until SIGINT or SIGTERM: a line `ready URL certificate=SHA256` on stdout, then a line a
/// decision.
pub fn serve(config: &Config, unlock: &Unlock) -> Result<(), KeyHolderError> {
    let console = Console::on(std::io::stdout());
    let (console, written) = console.map_err(|e| KeyHolderError::Internal {
        doing: "starting the console's thread",
        problem: e.to_string(),
    })?;
    if let Err(warning) = protect::lock_memory() {
        console.say(format!("warning: {warning}"));
    }
    let decisions = console.clone();
    let service =
        Service::open(config, unlock, move |decision| decisions.say(log::line(decision)))?;
    for warning in service.warnings() {
        console.say(format!("warning: {warning}"));
    }
    console.say(format!(
        "ready https://{} certificate={}",
        service.address(),
        service.certificate_sha256()
    ));
    service.run(std::future::pending())?;
    console.say("stopped".into());
    drop(console);
    written.wait();
    Ok(())
}

/// What a key holder runs with.
#[derive(Debug, Clone)]
pub struct Config {
    /// The party's folder; it is only read.
    pub folder: PathBuf,
    /// Where the store lies: the party's folder, unless that cannot be written. Made when missing.
    pub state: PathBuf,
    /// Where to listen; port 0 takes a free one.
    pub listen: String,
    /// The folder with `policy.rego`, `ek-roots/` and `collateral/`.
    pub policy: PathBuf,
    /// The agreement whose images may enrol themselves by the documents that they present.
    pub enroll_presented: Option<Vec<u8>>,
    /// Bounds.
    pub limits: Limits,
}

/// A key holder that listens.
pub struct Service {
    listener: TcpListener,
    runtime: tokio::runtime::Runtime,
    shared: Arc<Shared>,
    tls: TlsAcceptor,
    address: SocketAddr,
    certificate_sha256: Bytes32,
    warnings: Vec<String>,
}

struct Shared {
    server: Server,
    limits: Limits,
    requests: Limiter,
    bodies: Arc<Seats>,
    workers: Arc<Semaphore>,
    refusals: Mutex<Refusals>,
    report: Box<dyn Fn(&Decision) + Send + Sync>,
}

impl Service {
    /// Opens the party's secrets, its store and its policy, and binds the address. `report` gets
    /// every decision but the challenges, after it is in the log; of many refusals, what the log
    /// has of them.
    pub fn open(
        config: &Config,
        unlock: &Unlock,
        report: impl Fn(&Decision) + Send + Sync + 'static,
    ) -> Result<Self, KeyHolderError> {
        secret_is_private(&config.folder.join(SECRETS_FILE))?;
        if let Unlock::KeyFile(path) = unlock {
            secret_is_private(path)?;
        }
        let party = Arc::new(Party::load(&config.folder, unlock)?);
        let policy = PolicyFolder::read(&config.policy)?;
        let (tls, certificate_sha256) = tls(&party)?;
        let card = party.card();
        private_folder(&config.state)?;
        let store =
            SqliteStore::open(&config.state, Identity::from(card), Some(party.identity().clone()))?
                .enrolling(config.enroll_presented.as_deref(), &party)?;
        store.check_clock(time::now())?;
        let warnings = warnings(&store, &policy, card)?;
        let internal = |doing| move |problem: String| KeyHolderError::Internal { doing, problem };
        // Every process of this party derives the same keys, so that any may finish what another
        // began.
        let seed = Zeroizing::new(party.identity().to_bytes());
        let keys = SessionKeys::derive(&seed)
            .map_err(|e| internal("deriving session keys")(e.to_string()))?;
        let server = Server {
            party: card.name.clone(),
            keys,
            evidence: Box::new(Verifier {
                roots: policy.roots,
                vendors: policy.vendors,
                allow_sample: policy.allow_sample,
            }),
            store: Box::new(store),
            policy: Box::new(policy.policy),
            halves: Box::new(PartyHalves(Arc::clone(&party))),
            random: Box::new(|bytes| {
                getrandom::fill(bytes).map_err(|e| Fault::new("drawing randomness", e))
            }),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|e| internal("starting the runtime")(e.to_string()))?;
        let listen = |source| KeyHolderError::Listen { address: config.listen.clone(), source };
        let listener = runtime.block_on(TcpListener::bind(&config.listen)).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let limits = config.limits;
        let shared = Arc::new(Shared {
            server,
            limits,
            requests: Limiter::new(limits.rate),
            bodies: Seats::new(limits.bodies, limits.bodies_per_peer),
            workers: Arc::new(Semaphore::new(limits.workers)),
            refusals: Mutex::new(Refusals::new()),
            report: Box::new(report),
        });
        Ok(Self { listener, runtime, shared, tls, address, certificate_sha256, warnings })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What manifests pin: SHA-256 of the certificate's DER.
    pub fn certificate_sha256(&self) -> Bytes32 {
        self.certificate_sha256
    }

    /// What will make every release fail, or should never be in production.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Serves until SIGINT or SIGTERM, or until `stop` is done; then finishes what is under way,
    /// for 5 s at most.
    pub fn run(self, stop: impl Future<Output = ()>) -> Result<(), KeyHolderError> {
        use tokio::signal::unix::{SignalKind, signal};
        let Self { listener, runtime, shared, tls, .. } = self;
        let internal = |e: std::io::Error| KeyHolderError::Internal {
            doing: "waiting for signals",
            problem: e.to_string(),
        };
        runtime.block_on(async {
            let mut interrupt = signal(SignalKind::interrupt()).map_err(internal)?;
            let mut terminate = signal(SignalKind::terminate()).map_err(internal)?;
            let (opening, seats) = (Limiter::new(shared.limits.opening), {
                let Limits { connections, connections_per_peer, .. } = shared.limits;
                Seats::new(connections, connections_per_peer)
            });
            let mut summaries = tokio::time::interval(refusals::EVERY);
            let (closing, _) = watch::channel(false);
            tokio::pin!(stop);
            loop {
                let accepted = tokio::select! {
                    _ = interrupt.recv() => break,
                    _ = terminate.recv() => break,
                    () = &mut stop => break,
                    _ = summaries.tick() => {
                        let shared = shared.clone();
                        tokio::task::spawn_blocking(move || shared.summarize());
                        continue;
                    }
                    accepted = listener.accept() => accepted,
                };
                let Ok((stream, peer)) = accepted else {
                    // Out of file descriptors, most likely: connections must end before one can
                    // begin.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let peer = peer.ip();
                // Before TLS costs anything.
                let Some(seat) = opening.admits(peer).then(|| seats.take(peer)).flatten().map(Arc::new) else {
                    continue;
                };
                let (shared, tls, closed) = (shared.clone(), tls.clone(), closing.subscribe());
                tokio::spawn(async move {
                    let limit = shared.limits.connection;
                    tokio::select! {
                        _ = timeout(limit, connection(shared, tls, stream, peer, seat.clone(), closed)) => {}
                        () = seat.lost() => {}
                    }
                });
            }
            drop(listener);
            closing.send_replace(true);
            let _ = timeout(Duration::from_secs(5), closing.closed()).await;
            Ok::<(), KeyHolderError>(())
        })?;
        shared.summarize();
        Ok(())
    }
}

/// One connection, from its handshake to its end. Errors are the peer's own business.
async fn connection(
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
        let request = Request {
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

impl Shared {
    fn answer(&self, request: &Request<'_>, peer: IpAddr) -> Reply {
        let Outcome { reply, decision, attested } = self.server.handle(request, time::now());
        match decision.verdict {
            Verdict::Challenged => {}
            Verdict::Refused => self.refused(peer, decision, attested),
            _ => (self.report)(&decision),
        }
        reply
    }

    fn refused(&self, peer: IpAddr, decision: Decision, attested: bool) {
        {
            let mut refusals = lock(&self.refusals);
            if !refusals.has_room(peer, attested, Instant::now()) {
                return refusals.count(peer, &decision);
            }
        }
        // Strangers who never held a challenge decide nothing and fill no log.
        match decision.session.as_ref().map(|_| self.server.store.record(&decision)) {
            Some(Err(fault)) => {
                (self.report)(&Decision {
                    detail: format!("{} (not logged: {fault})", decision.detail),
                    ..decision
                });
            }
            _ => (self.report)(&decision),
        }
    }

    /// Writes down how many refusals have no entry of their own. What cannot be written now is
    /// kept.
    fn summarize(&self) {
        let counts = lock(&self.refusals).take();
        for count in counts {
            let decision = count.decision(time::now());
            match self.server.store.record(&decision) {
                Ok(()) => (self.report)(&decision),
                Err(_) => lock(&self.refusals).keep(count),
            }
        }
    }
}

fn response(reply: Reply) -> Response<Full<Bytes>> {
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

fn warnings(
    store: &SqliteStore,
    policy: &PolicyFolder,
    card: &Card,
) -> Result<Vec<String>, KeyHolderError> {
    let mut warnings = Vec::new();
    if policy.allow_sample {
        warnings
            .push("sample evidence, which anybody can make, is accepted: for tests only".into());
    }
    if policy.roots.ek_roots().next().is_none() {
        warnings.push("no endorsement roots: every TPM is refused".into());
    }
    let (images, odd) = store.images()?;
    warnings.extend(odd.iter().map(ToString::to_string));
    for Listed { enrolled, .. } in images {
        let manifest = enrolled.manifest;
        let share = manifest.split_key.parties.iter().find(|share| share.name == card.name);
        if share.map(|share| share.policy_sha256) != Some(policy.policy.digest()) {
            let (image, site) = (manifest.image_id, manifest.site);
            warnings.push(format!(
                "image {image} of site {site} will be refused: its parties agreed on another policy"
            ));
        }
    }
    Ok(warnings)
}

struct PartyHalves(Arc<Party>);

impl Halves for PartyHalves {
    fn half(&self, manifest: &Manifest, stage: Stage) -> Result<Zeroizing<[u8; 32]>, Fault> {
        let half = self.0.half(&manifest.split_key, manifest.role, &manifest.image_id, stage);
        half.map(|half| Zeroizing::new(*half.as_bytes()))
            .map_err(|e| Fault::new("computing the half", e))
    }

    fn certify(
        &self,
        manifest: &Manifest,
        claims: &Value,
        now: u64,
    ) -> Result<Option<Value>, Fault> {
        let party = &self.0.card().name;
        let Some(statement) = evidence::attestation_key(party, manifest, claims, now)? else {
            return Ok(None);
        };
        let certificate = serde_json::to_value(AkCertificate::sign(&statement, self.0.identity()));
        certificate.map(Some).map_err(|e| Fault::new("writing an attestation key's certificate", e))
    }
}

fn tls(party: &Party) -> Result<(TlsAcceptor, Bytes32), KeyHolderError> {
    let fail = |e: String| KeyHolderError::Tls(e);
    let certificate = CertificateDer::from_pem_slice(party.certificate_pem().as_bytes())
        .map_err(|e| fail(e.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(party.tls_key_pem().as_bytes())
        .map_err(|e| fail(e.to_string()))?;
    let digest = sha256(&certificate);
    let config =
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                builder.with_no_client_auth().with_single_cert(vec![certificate], key)
            })
            .map_err(|e| fail(e.to_string()))?;
    Ok((TlsAcceptor::from(Arc::new(config)), digest))
}

/// Makes the store's folder, for its owner alone.
fn private_folder(path: &Path) -> Result<(), KeyHolderError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| {
        cvm_base::FileError::Io { action: "make the folder", path: path.to_owned(), source }.into()
    })
}

fn secret_is_private(path: &Path) -> Result<(), KeyHolderError> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = std::fs::metadata(path).map_err(|source| cvm_base::FileError::Io {
        action: "look at",
        path: path.to_owned(),
        source,
    })?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyHolderError::Permissions { path: path.to_owned(), mode });
    }
    Ok(())
}
