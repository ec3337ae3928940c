//! Opening a key holder, and serving until it is told to end.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use cvm_base::{Bytes32, time};
use cvm_ceremony::Card;
use cvm_custody::{Party, SECRETS_FILE, Unlock};
use cvm_release_server::{Decision, Fault, ReleasePolicy as _, ReleaseServer, SessionKeys};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use super::{
    folder::{private_folder, secret_is_private, tls_acceptor},
    halves::PartyHalves,
    http::connection,
    shared::Shared,
};

use crate::{
    console::Console,
    documents::Identity,
    error::KeyHolderError,
    evidence::Verifier,
    limit::{Limiter, Limits, Seats},
    log,
    policy::PolicyFolder,
    protect, refusals,
    refusals::Refusals,
    store::{Listed, SqliteStore},
};

/// Serves until SIGINT or SIGTERM. Prints `ready URL certificate=SHA256`, then one line per
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
    /// The store's folder: the party's own, unless that cannot be written. Made if missing.
    pub state: PathBuf,
    /// Where to listen; port 0 takes a free one.
    pub listen: String,
    /// The folder with `policy.rego`, `ek-roots/` and `collateral/`.
    pub policy: PathBuf,
    /// The agreement whose images may enrol themselves by the documents that they present.
    pub enrol_presented: Option<Vec<u8>>,
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

impl Service {
    /// Opens the party's secrets, its store and its policy, and binds the address. `report` gets
    /// every decision but the challenges, once it is in the log. Of many refusals it gets what the
    /// log holds of them.
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
        let (tls, certificate_sha256) = tls_acceptor(&party)?;
        let card = party.card();
        private_folder(&config.state)?;
        let store =
            SqliteStore::open(&config.state, Identity::from(card), Some(party.identity().clone()))?
                .enrolling(config.enrol_presented.as_deref(), &party)?;
        store.check_clock(time::now())?;
        let warnings = warnings(&store, &policy, card)?;
        let internal = |doing| move |problem: String| KeyHolderError::Internal { doing, problem };
        // Every process of this party derives the same keys, so that any may finish what another
        // began.
        let seed = Zeroizing::new(party.identity().to_bytes());
        let keys = SessionKeys::derive(&seed)
            .map_err(|e| internal("deriving session keys")(e.to_string()))?;
        let server = ReleaseServer {
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

    /// What will make releases fail, or does not belong in production.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Serves until SIGINT, SIGTERM, or the end of `stop`; then finishes what is under way, for 5 s
    /// at most.
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
                let seat = opening.admits(peer).then(|| seats.take(peer)).flatten();
                let Some(seat) = seat.map(Arc::new) else { continue };
                let (shared, tls, closed) = (shared.clone(), tls.clone(), closing.subscribe());
                tokio::spawn(async move {
                    let limit = shared.limits.connection;
                    let served = connection(shared, tls, stream, peer, seat.clone(), closed);
                    tokio::select! {
                        _ = timeout(limit, served) => {}
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
