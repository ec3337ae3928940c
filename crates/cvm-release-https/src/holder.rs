//! HTTPS to one key holder: a pinned certificate, every wait bounded, bounded replies.

use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use cvm_base::{Bytes32, printable};
use cvm_layout::manifest::{ImageId, Stage};
use cvm_release::{
    binding::Binding,
    client::{Attested, Client, Failure, Incoming, Method, Outgoing, ReleaseError, SealState},
    messages::{PresentImage, Tee},
    paths,
};
use serde_json::Value;
use ureq::{
    Agent, Proxy, Timeout,
    config::Config,
    http::Uri,
    typestate::WithBody,
    unversioned::{
        resolver::{ResolvedSocketAddrs, Resolver},
        transport::{ConnectProxyConnector, Connector, NextTimeout, TcpConnector},
    },
};
use zeroize::Zeroizing;

use crate::pinned::PinnedTls;

/// The key holder to ask, and how it is recognised.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The party's name, for messages.
    pub party: String,
    /// `https://HOST:PORT`, no path.
    pub url: String,
    /// SHA-256 of the DER of the server's certificate. Names and dates in it are ignored: the
    /// guest's clock is the host's, and the digest says more than any name.
    pub certificate_sha256: Bytes32,
    /// `http://HOST:PORT` of a proxy, spoken to with CONNECT.
    pub proxy: Option<String>,
}

/// How long each step may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Name resolution.
    pub resolve: Duration,
    /// TCP, proxy and TLS handshakes, each.
    pub connect: Duration,
    /// One request, everything included.
    pub request: Duration,
    /// From the first attempt to the beginning of the last.
    pub total: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { resolve: seconds(5), connect: seconds(10), request: seconds(30), total: seconds(90) }
    }
}

/// Turns a host name into addresses. Numeric addresses never come here.
pub trait Resolve: Send + Sync + 'static {
    /// Answers within `limit`.
    fn resolve(&self, host: &str, port: u16, limit: Duration) -> io::Result<Vec<SocketAddr>>;
}

impl<F: Fn(&str, u16, Duration) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static> Resolve
    for F
{
    fn resolve(&self, host: &str, port: u16, limit: Duration) -> io::Result<Vec<SocketAddr>> {
        self(host, port, limit)
    }
}

/// The C library's resolver, in a thread that is abandoned when it takes too long.
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, host: &str, port: u16, limit: Duration) -> io::Result<Vec<SocketAddr>> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let host = host.to_owned();
        thread::Builder::new().spawn(move || {
            let answer = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
            let _ = sender.send(answer);
        })?;
        receiver.recv_timeout(limit).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Makes evidence; implemented by the program that has the TEE's devices.
pub trait Attester {
    /// What kind of evidence this is.
    fn tee(&self) -> Tee;
    /// What `auth` carries in its `extra-params`; `""` if nothing.
    fn auth_params(&self) -> Result<String, Box<dyn std::error::Error + Send + Sync>>;
    /// Evidence of devices beside this one, bound to `binding`: the text of the protocol's
    /// additional evidence, `""` if there are none.
    fn additional(
        &self,
        binding: &Binding,
    ) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
        let _ = binding;
        Ok(String::new())
    }
    /// Evidence bound to `binding`. `challenge_params` is the key holder's answer to
    /// [`Self::auth_params`], a string from the network.
    fn evidence(
        &self,
        challenge_params: &str,
        binding: &Binding,
    ) -> Result<Value, Box<dyn std::error::Error + Send + Sync>>;
}

/// One key holder, ready to be asked. Clones share their connections.
#[derive(Clone)]
pub struct Holder {
    name: String,
    base: String,
    agent: Agent,
    limits: Limits,
    documents: Option<Arc<PresentImage>>,
}

impl Holder {
    /// Prepares a connection; nothing is sent yet.
    pub fn new(
        endpoint: &Endpoint,
        limits: Limits,
        resolver: impl Resolve,
    ) -> Result<Self, ReleaseError> {
        let name = format!("{} ({})", endpoint.party, endpoint.url);
        let fail = |failure| ReleaseError { holder: name.clone(), failure };
        let base = endpoint.url.trim_end_matches('/').to_owned();
        let uri: Uri =
            base.parse().map_err(|e| fail(Failure::Address(format!("{base:?}: {e}"))))?;
        if uri.scheme_str() != Some("https")
            || uri.host().is_none_or(str::is_empty)
            || !matches!(uri.path(), "" | "/")
        {
            return Err(fail(Failure::Address(format!("{base:?} is not https://HOST:PORT"))));
        }
        let proxy = endpoint.proxy.as_deref().map(proxy).transpose().map_err(fail)?;
        let config = Config::builder()
            .https_only(true)
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(proxy)
            .user_agent("flare-cvm")
            .max_response_header_size(16 * 1024)
            .max_idle_age(Duration::from_secs(5))
            .timeout_resolve(Some(limits.resolve))
            .timeout_connect(Some(limits.connect))
            .timeout_per_call(Some(limits.request))
            .timeout_global(Some(limits.request))
            .build();
        let tls = PinnedTls::new(endpoint.certificate_sha256)
            .map_err(|e| fail(Failure::Local(e.to_string())))?;
        let connector =
            ().chain(ConnectProxyConnector::default()).chain(TcpConnector::default()).chain(tls);
        let agent = Agent::with_parts(config, connector, Names(Arc::new(resolver)));
        Ok(Self { name, base, agent, limits, documents: None })
    }

    /// Presents the image's documents, once, to a key holder that does not know the image.
    pub fn presenting(self, documents: Arc<PresentImage>) -> Self {
        Self { documents: Some(documents), ..self }
    }

    /// The whole exchange: challenge, evidence, half. Failures of the network are tried again, with
    /// growing pauses, until [`Limits::total`]; a refusal is final.
    pub fn release(
        &self,
        image: &ImageId,
        stage: Stage,
        attester: &dyn Attester,
    ) -> Result<Session, ReleaseError> {
        self.persist(|| self.release_once(image, stage, attester))
    }

    fn release_once(
        &self,
        image: &ImageId,
        stage: Stage,
        attester: &dyn Attester,
    ) -> Result<Session, Failure> {
        let start = Client::new(attester.tee())?;
        let params = attester.auth_params().map_err(Failure::Evidence)?;
        let reply = self.send(&start.auth_request(&params)?)?;
        let challenged = start.challenged(&reply)?;
        if !params.is_empty() && challenged.extra_params().is_empty() {
            return Err(Failure::NoChallenge);
        }
        let additional =
            attester.additional(&challenged.device_binding()).map_err(Failure::Evidence)?;
        let binding = challenged.binding(&additional);
        let evidence =
            attester.evidence(challenged.extra_params(), &binding).map_err(Failure::Evidence)?;
        let reply = self.send(&challenged.attest_request(evidence, &additional)?)?;
        let attested = challenged.attested(&reply)?;
        let ask = || attested.half(&self.send(&attested.half_request(image, stage))?);
        let half = match (ask(), &self.documents) {
            (Err(failure), Some(documents)) if failure.is_not_enrolled() => {
                attested.presented(&self.send(&attested.present_request(image, documents)?)?)?;
                ask()?
            }
            (half, _) => half?,
        };
        Ok(Session { holder: self.clone(), image: *image, client: attested, half })
    }

    /// Sends one request and returns its reply.
    pub fn send(&self, request: &Outgoing) -> Result<Incoming, Failure> {
        let url = format!("{}{}", self.base, request.path);
        let cookie = request.cookie.as_deref();
        let answer = match request.method {
            Method::Get => with_cookie(self.agent.get(url), cookie).call(),
            Method::Post => with_body(self.agent.post(url), cookie, &request.body),
            Method::Put => with_body(self.agent.put(url), cookie, &request.body),
        };
        let mut response = answer.map_err(failure)?;
        let set_cookie = response.headers().get_all("set-cookie").iter();
        let set_cookie = set_cookie.filter_map(|v| v.to_str().ok()).map(str::to_owned).collect();
        let limit = paths::MAX_REPLY_BYTES as u64;
        let body = response.body_mut().with_config().limit(limit).read_to_vec().map_err(failure)?;
        Ok(Incoming { status: response.status().as_u16(), set_cookie, body })
    }

    /// Repeats `attempt` while it fails transiently. The pauses begin at 0.25 s and double up to 8
    /// s; each is shortened at random, by half at most, so that sites that lost power together do
    /// not come back together.
    fn persist<T>(
        &self,
        mut attempt: impl FnMut() -> Result<T, Failure>,
    ) -> Result<T, ReleaseError> {
        let began = Instant::now();
        let mut pause = Duration::from_millis(250);
        let mut tries = 0;
        let failure = loop {
            tries += 1;
            let failure = match attempt() {
                Ok(value) => return Ok(value),
                Err(failure) => failure,
            };
            if !failure.is_transient() {
                break failure;
            }
            let left = self.limits.total.saturating_sub(began.elapsed());
            if left.is_zero() {
                break Failure::Deadline { tries, after: began.elapsed(), last: Box::new(failure) };
            }
            thread::sleep((pause / 2 + (pause / 2).mul_f64(fraction())).min(left));
            pause = (pause * 2).min(Duration::from_secs(8));
        };
        Err(ReleaseError { holder: self.name.clone(), failure })
    }
}

/// An attested session with one key holder, and the half it released.
pub struct Session {
    holder: Holder,
    image: ImageId,
    client: Client<Attested>,
    half: Zeroizing<[u8; 32]>,
}

impl Session {
    /// The party's half Q of the image's key: secret.
    pub fn half(&self) -> &[u8; 32] {
        &self.half
    }

    /// What the key holder remembers of p5's header; `None` if it has no such memory (stock
    /// Trustee).
    pub fn seal_state(&self) -> Result<Option<SealState>, ReleaseError> {
        let request = self.client.seal_request(&self.image);
        self.holder.persist(|| self.client.seal_state(&self.holder.send(&request)?))
    }

    /// The party's statement about this CVM's attestation key; `None` if it makes none (stock
    /// Trustee, or evidence without such a key).
    pub fn attestation_key(&self) -> Result<Option<Value>, ReleaseError> {
        let request = self.client.attestation_key_request(&self.image);
        self.holder.persist(|| self.client.attestation_key(&self.holder.send(&request)?))
    }

    /// Tells the key holder which header this boot made. Telling the same one twice is fine.
    pub fn register_seal(
        &self,
        header_sha256: Bytes32,
        share: Option<&[u8; 32]>,
    ) -> Result<(), ReleaseError> {
        self.holder.persist(|| {
            let request = self.client.register_seal_request(&self.image, header_sha256, share)?;
            self.client.seal_registered(&self.holder.send(&request)?)
        })
    }
}

fn with_body(
    builder: ureq::RequestBuilder<WithBody>,
    cookie: Option<&str>,
    body: &[u8],
) -> Result<ureq::http::Response<ureq::Body>, ureq::Error> {
    with_cookie(builder, cookie).header("content-type", "application/json").send(body)
}

fn with_cookie<B>(
    builder: ureq::RequestBuilder<B>,
    cookie: Option<&str>,
) -> ureq::RequestBuilder<B> {
    match cookie {
        Some(cookie) => builder.header("cookie", cookie),
        None => builder,
    }
}

fn proxy(url: &str) -> Result<Proxy, Failure> {
    let bad = || Failure::Address(format!("the proxy {url:?} is not http://HOST:PORT"));
    if !url.starts_with("http://") {
        return Err(bad());
    }
    Proxy::new(url).map_err(|_| bad())
}

/// A number in 0..1. If there is no randomness, any number will do.
fn fraction() -> f64 {
    getrandom::u32().map_or(0.5, |n| f64::from(n) / f64::from(u32::MAX))
}

fn failure(error: ureq::Error) -> Failure {
    use ureq::Error;
    match error {
        Error::Timeout(Timeout::Resolve) => Failure::Timeout("looking up its name".into()),
        Error::Timeout(Timeout::Connect) => Failure::Timeout("connecting".into()),
        Error::Timeout(_) => Failure::Timeout("waiting for its answer".into()),
        Error::HostNotFound => Failure::Unreachable("its name is not known here".into()),
        Error::ConnectProxyFailed(reason) => {
            Failure::Unreachable(format!("the proxy said: {}", printable(&reason, 300)))
        }
        Error::Io(e) => io_failure(e),
        Error::BodyExceedsLimit(limit) => {
            Failure::Protocol(format!("an answer is longer than {limit} bytes"))
        }
        Error::Protocol(e) => Failure::Protocol(e.to_string()),
        Error::LargeResponseHeader(..) => {
            Failure::Protocol("an answer's header is too long".into())
        }
        Error::Other(e) => match e.downcast::<Failure>() {
            Ok(failure) => *failure,
            Err(e) => Failure::Unreachable(e.to_string()),
        },
        other => Failure::Unreachable(other.to_string()),
    }
}

fn io_failure(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            Failure::Timeout("on the network".into())
        }
        // Below TLS, ureq's own errors travel inside I/O errors.
        _ => match error.downcast::<ureq::Error>() {
            Ok(inner) => failure(inner),
            Err(error) => Failure::Unreachable(error.to_string()),
        },
    }
}

/// Lets ureq ask a [`Resolve`].
struct Names(Arc<dyn Resolve>);

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Names")
    }
}

impl Resolver for Names {
    fn resolve(
        &self,
        uri: &Uri,
        _: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().ok_or(ureq::Error::HostNotFound)?.trim_matches(['[', ']']);
        let port =
            uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
        let found = match host.parse::<IpAddr>() {
            Ok(ip) => vec![SocketAddr::new(ip, port)],
            Err(_) => self.0.resolve(host, port, *timeout.after).map_err(|e| match e.kind() {
                io::ErrorKind::TimedOut => ureq::Error::Timeout(Timeout::Resolve),
                _ => ureq::Error::Other(Box::new(Failure::Unreachable(format!(
                    "looking up {host:?}: {e}"
                )))),
            })?,
        };
        let mut addresses = self.empty();
        found.into_iter().take(8).for_each(|address| addresses.push(address));
        if addresses.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(addresses) }
    }
}
