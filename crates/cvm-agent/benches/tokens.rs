//! `make bench`: tokens made and verified per second by an agent on SEV-SNP, and by NVFLARE's own
//! SNP authorizer with virtee's `snpguest` and with ours, on reports of one minted chip in one run.
//! Processor time, of all processes that take part.

// The tests use the rest of these.
#[allow(dead_code)]
#[path = "../tests/it/chip.rs"]
mod chip;
#[allow(dead_code)]
#[path = "../tests/it/common.rs"]
mod common;
// cvm-verify's own tests use the rest of it.
#[allow(dead_code)]
#[path = "../../cvm-verify/tests/snp/mint.rs"]
mod snp_mint;

use std::{
    fs,
    hint::black_box,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    thread,
};

use chip::{Chip, MEASUREMENT, Maker, device, platforms};
use common::{Federation, Site, token};
use cvm_agent::{attester::TeeAttester, serve};
use cvm_layout::names::Role;
use cvm_peer::{
    clock,
    token::{Token, Use},
    trust::Trust,
    verify::{Clocks, ExpectedToken, cross_policy, verify},
};

/// Verifications by processes.
const RUNS: u32 = 40;

/// Prints the processor time of a verification and of a process that does nothing, in seconds.
const AUTHORIZER: &str = r#"
import base64, os, resource, subprocess, sys
from nvflare.app_opt.confidential_computing.snp_authorizer import SNPAuthorizer
from nvflare.app_opt.confidential_computing.utils import NonceHistory

guest, certs, report, runs = *sys.argv[1:4], int(sys.argv[4])
token = base64.b64encode(open(report, "rb").read())
authorizer = SNPAuthorizer(amd_certs_dir=certs, snpguest_binary=guest, max_retries=1)

def spent():
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    own, children = (resource.getrusage(who) for who in whose)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime

def per_run(work):
    before = spent()
    for _ in range(runs):
        work()
    return (spent() - before) / runs

def verify():
    # Each time the first: a nonce counts once.
    authorizer.seen_nonce_history = NonceHistory(1)
    if not authorizer.verify(token):
        raise SystemExit("the token is refused")

verify()
nothing = [guest, "--version"]
print(per_run(verify), per_run(lambda: subprocess.run(nothing, capture_output=True, check=True)))
"#;

fn main() {
    let (federation, maker) = (Federation::hold(), Maker::new());
    let chip = maker.chip();
    let site = federation.tee_site("site-1", Role::Client, platforms(MEASUREMENT));
    site.write("config/agent.yaml", b"version: 1\nsnp_reports: alone\n");
    let agent = || {
        let mut own = site.own_image();
        own.trust = own.trust.with_vendors(maker.vendors());
        let agent = site.agent_with(own, Box::new(TeeAttester::new(device(&chip), b"").unwrap()));
        let agent = agent.with_device(device(&chip));
        agent.verify_self(&[]).unwrap();
        agent
    };
    let at_site = agent();
    let sign = rate(|| drop(black_box(chip.report(&[7; 64]))));
    let make = rate(|| drop(black_box(token(&at_site, None))));
    let text = token(&at_site, None);
    let policy = cross_policy(None).unwrap();
    let expected =
        ExpectedToken { use_: Use::Peer, peer: None, challenge: None, report_sha256: None };
    let clocks = Clocks { leeway_s: 3600, max_wait_s: 0 };
    let trust =
        Trust::new(federation.agreement.text().as_bytes()).unwrap().with_vendors(maker.vendors());
    let judge = rate(|| {
        let token = Token::parse(black_box(&text)).unwrap();
        drop(black_box(verify(&token, &expected, &trust, &policy, clocks, clock::now()).unwrap()));
    });

    println!("\n| tokens of SEV-SNP | 1/s | its process start, apart |\n|---|---|---|");
    println!("| agent: generation, of which the chip's double signs {sign:.0}/s | {make:.0} | |");
    println!(
        "| agent: verification of a known peer: statement, documents, report, chain, policy | \
         {judge:.0} | |"
    );
    let virtee = installed().and_then(|program| processes(&site, &chip, &program));
    let name = "NVFLARE's SNPAuthorizer, verification: 3 processes of";
    row(
        &format!("{name} virtee's snpguest 0.11.0 (report against a VCEK that nothing checks)"),
        virtee,
        0.0,
    );

    let socket = site.at("agent.sock");
    let (listener, served) = (serve::bind(&socket).unwrap(), Arc::new(agent()));
    thread::spawn(move || serve::local(&served, &listener, &[nix::unistd::geteuid().as_raw()]));
    let program = site.at("snpguest");
    let ours = env!("CARGO_BIN_EXE_cvm-snpguest");
    fs::write(&program, format!("#!/bin/sh\nexec {ours} --socket {} \"$@\"\n", socket.display()))
        .unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let before = own_cpu();
    let with_ours = processes(&site, &chip, &program);
    let in_the_agent = (own_cpu() - before) / f64::from(RUNS + 1);
    row(
        &format!("{name} our snpguest, the agent's verification included (report and chain)"),
        with_ours,
        in_the_agent,
    );
}

/// Seconds of a verification and of a process's start.
type Spent = Result<(f64, f64), String>;

fn row(what: &str, spent: Spent, more: f64) {
    match spent {
        Err(reason) => println!("| {what} | {} | |", reason.replace('|', "/")),
        Ok((verification, start)) => {
            let per_second = 1.0 / (verification - 3.0 * start + more);
            println!("| {what} | {per_second:.0} | 3 × {:.1} ms |", start * 1e3);
        }
    }
}

/// NVFLARE's class with that program, on a report that the chip made for it.
fn processes(site: &Site, chip: &Arc<Chip>, program: &Path) -> Spent {
    let python = std::env::var("FLARE_CVM_PYTHON").map(PathBuf::from);
    let python = python.unwrap_or_else(|_| root().join("target/tools/nvflare/bin/python3"));
    let (report, certificates) = (site.at("report.bin"), site.at("certs"));
    site.write("report.bin", &chip.report(&[0x5a; 64]));
    // What a first verification would fetch: chip, microcode, SNP, TEE, boot loader of
    // `snp_mint::vcek`.
    let cached = format!("{}-213-20-1-3", "c5".repeat(64));
    for name in ["ark.pem", "ask.pem", "vcek.pem", &cached] {
        site.write(&format!("certs/{name}"), snp_mint::pem(&[chip.vcek()]).as_bytes());
    }
    let mut command = Command::new(python);
    command.args(["-c", AUTHORIZER]).args([program, &certificates, &report]).arg(RUNS.to_string());
    let output = command.current_dir(site.folder.path()).env("RUST_BACKTRACE", "0").output();
    let output = output.map_err(|e| format!("NVFLARE's Python: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut numbers = text.split_whitespace().filter_map(|number| number.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(verification), Some(start)) => Ok((verification, start)),
        _ => {
            let errors = String::from_utf8_lossy(&output.stderr);
            Err(errors.trim().lines().last().unwrap_or("NVFLARE's Python said nothing").to_owned())
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// virtee's program, or why it is not there.
fn installed() -> Result<PathBuf, String> {
    let program = std::env::var("FLARE_CVM_SNPGUEST").map(PathBuf::from);
    let program =
        program.unwrap_or_else(|_| root().join("target/tools/peers/snpguest/bin/snpguest"));
    if program.is_file() {
        Ok(program)
    } else {
        Err(format!("{} is not installed", program.display()))
    }
}

/// How often per second of this process's own processor time: a policy decides on a thread of its
/// own.
fn rate(mut run: impl FnMut()) -> f64 {
    run();
    let (begun, mut count) = (own_cpu(), 0);
    loop {
        (0..20).for_each(|_| run());
        count += 20;
        let spent = own_cpu() - begun;
        if spent >= 2.0 {
            return f64::from(count) / spent;
        }
    }
}

/// proc(5): `utime` and `stime`, fields 14 and 15 of `stat` in 1/100 s; the name before field 3
/// ends in `)`.
fn own_cpu() -> f64 {
    let text = fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = text.rsplit_once(") ").unwrap();
    fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>()
        / 100.0
}
