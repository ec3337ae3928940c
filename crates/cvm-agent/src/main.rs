//! `cvm-agent`: serves attestation inside the CVM; gates NVFLARE's start; locks the machine down.

use std::{net::TcpListener, path::PathBuf, process::ExitCode, sync::Arc, thread, time::Duration};

use anyhow::{Context, Result};
use clap::{Args, Parser};
use cvm_agent::{
    agent::Agent,
    attester::{self, GpuAttester},
    gate,
    image::{CONFIG, Folders, IMAGE, OwnImage, not_before},
    journal::{self, Journal},
    lockdown, serve,
    serve::SOCKET,
};
use cvm_base::Explain;
use cvm_collect::{nvml::Nvml, tpm::DEFAULT_TCTI};
use cvm_peer::clock;
use nix::unistd::{User, geteuid};

/// The exit status when this machine is not what was built; systemd answers with the lockdown.
const FAILED: u8 = 70;
/// How long the state `failing` can still be asked for.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// After how many seconds a TPM that does not answer is asked again.
const RETRIES_S: [u64; 2] = [1, 3];

/// The in-guest attestation agent of flare-cvm.
#[derive(Parser)]
#[command(version)]
enum Command {
    Serve(Serve),
    Gate(Gate),
    /// Stop NVFLARE, close job store and workspace, power off: what systemd runs after a failed
    /// self-verification
    Lockdown,
}

#[derive(Args)]
struct Places {
    /// The image's documents, as cvm-init left them
    #[arg(long, default_value = IMAGE)]
    image: PathBuf,
    /// p4
    #[arg(long, default_value = CONFIG)]
    config: PathBuf,
    /// The agent's socket
    #[arg(long, default_value = SOCKET)]
    socket: PathBuf,
}

impl Places {
    fn own_image(&self) -> Result<OwnImage> {
        Ok(OwnImage::read(&Folders { image: self.image.clone(), config: self.config.clone() })?)
    }
}

/// Verify this machine, then serve the socket and keep verifying; ends with 70 when a verification
/// fails
#[derive(Args)]
struct Serve {
    #[command(flatten)]
    places: Places,
    /// Who verified whom, when, with what result
    #[arg(long, default_value = journal::PATH)]
    journal: PathBuf,
    /// The TPM, as libtss2 names it
    #[arg(long, default_value = DEFAULT_TCTI)]
    tcti: String,
    /// Who may ask besides root
    #[arg(long, default_value = "nvflare")]
    user: String,
}

/// Wait for a sane clock and a verified machine; anything but 0 must keep NVFLARE from starting
#[derive(Args)]
struct Gate {
    #[command(flatten)]
    places: Places,
    /// Seconds to wait
    #[arg(long, default_value_t = 180)]
    deadline: u64,
}

fn main() -> ExitCode {
    let outcome = match Command::parse() {
        Command::Serve(args) => run(&args),
        Command::Gate(args) => wait(&args),
        Command::Lockdown => {
            eprintln!("cvm-agent: error: {}", lockdown::run());
            return ExitCode::FAILURE;
        }
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cvm-agent: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Serve) -> Result<ExitCode> {
    let own = args.places.own_image().map_err(explained)?;
    let manifest = &own.image.manifest;
    eprintln!("cvm-agent: site {} ({}), image {}", manifest.site, manifest.role, manifest.image_id);
    // The socket first, so that callers learn that the agent is starting.
    let listener = serve::bind(&args.places.socket)?;
    let port = own.config.attest_port;
    let audits = port.map(|port| {
        TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port)))
    });
    let audits = audits.transpose().with_context(|| format!("cannot listen on port {port:?}"))?;
    let attester = match attester::choose(&args.tcti, &own.event_log, &own.collateral) {
        Ok(attester) => attester,
        Err(refusal) => return Ok(failed(&refusal)),
    };
    let users = users(&args.user)?;
    let pause = Duration::from_secs(own.config.check_frequency_s);
    let requires_gpus = own.image.manifest.gpu.is_some();
    if let Some(problem) = &own.collateral_unused {
        eprintln!("cvm-agent: p1's collateral.json does not count: {problem}");
    }
    let mut agent = Agent::new(own, attester, Journal::open(&args.journal), Box::new(clock::now));
    if requires_gpus {
        agent = agent.with_gpus(GpuAttester::new(Box::new(|| Ok(Box::new(Nvml::open(None)?)))));
    }
    let agent = Arc::new(agent);

    let local = agent.clone();
    thread::Builder::new()
        .name("socket".into())
        .spawn(move || serve::local(&local, &listener, &users))?;
    if let Some(listener) = audits {
        let node = agent.clone();
        thread::Builder::new()
            .name("port".into())
            .spawn(move || serve::audits(&node, &listener))?;
    }
    eprintln!("cvm-agent: listening on {}", args.places.socket.display());
    loop {
        // A busy TPM is not a reason to end; a TPM that says something else is.
        if let Err(refusal) = agent.verify_self(&RETRIES_S.map(Duration::from_secs)) {
            thread::sleep(LAST_WORDS);
            return Ok(failed(&refusal));
        }
        thread::sleep(pause);
    }
}

fn failed(refusal: &cvm_peer::error::AgentRefusal) -> ExitCode {
    eprintln!("cvm-agent: SELF-VERIFICATION FAILED: {}: {refusal}", refusal.code());
    ExitCode::from(FAILED)
}

/// root, the agent's own user, and NVFLARE's, if there is one.
fn users(name: &str) -> Result<Vec<u32>> {
    let named = User::from_name(name).with_context(|| format!("cannot look up the user {name}"))?;
    if named.is_none() {
        eprintln!("cvm-agent: no user {name} here: only root may ask");
    }
    Ok([0, geteuid().as_raw()].into_iter().chain(named.map(|user| user.uid.as_raw())).collect())
}

fn wait(args: &Gate) -> Result<ExitCode> {
    let own = args.places.own_image().map_err(explained)?;
    let earliest = not_before(&own).saturating_sub(own.config.clocks.leeway_s);
    match gate::wait(&args.places.socket, earliest, Duration::from_secs(args.deadline), clock::now)
    {
        Ok(()) => {
            eprintln!("cvm-agent: gate: open");
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Err(explained(error.into())),
    }
}

/// The error with its code and its help, where it has them.
fn explained(error: anyhow::Error) -> anyhow::Error {
    let explain = error
        .downcast_ref::<cvm_agent::error::SetupError>()
        .map(|e| (e.code(), e.help()))
        .or_else(|| error.downcast_ref::<gate::GateError>().map(|e| (e.code(), e.help())));
    match explain {
        Some((code, help)) => anyhow::anyhow!("{code}: {error:#} (help: {help})"),
        None => error,
    }
}
