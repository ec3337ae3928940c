//! `make bench`: verifications a second of one core's time, ours and others' on the same evidence
//! in one run.

use std::{
    fs,
    hint::black_box,
    path::{Path, PathBuf},
    process::Command,
};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ParsedPublicKey};
use cvm_evidence::tpm::Key;
use cvm_verify::{
    gpu,
    quote::{self, AttestationKey, Nonce, PcrValues, QuoteEvidence, TpmPolicy},
    snp, tdx,
    token::{self, KeySet, MaaPolicy, Token},
};

/// When the evidence was valid: SNP, TDX, GPU, Azure's token.
const TIMES: [u64; 4] = [1_760_000_000, 1_787_894_500, 1_717_200_000, 1_625_180_000];

fn main() {
    println!(
        "\n| verification | ours, 1/s | compared with | its, 1/s | ours ÷ its | its process start, \
         apart |"
    );
    println!("|---|---|---|---|---|---|");
    sev_snp();
    intel_tdx();
    nvidia_gpu();
    tpm_quote();
    azure_token();
}

/// What ours is compared with.
struct Peer {
    name: String,
    per_second: f64,
    /// Processor time of a process that does nothing, where a verification is a process or several.
    start: String,
}

impl Peer {
    fn here(name: &str, run: impl FnMut()) -> Result<Self, String> {
        Ok(Self { name: name.into(), per_second: rate(run), start: String::new() })
    }
}

fn row(kind: &str, ours: f64, peer: Option<Result<Peer, String>>) {
    match peer {
        None => println!("| {kind} | {ours:.0} | | | | |"),
        Some(Err(reason)) => {
            println!("| {kind} | {ours:.0} | {} | | | |", reason.replace('|', "/"))
        }
        Some(Ok(Peer { name, per_second: its, start })) => {
            println!("| {kind} | {ours:.0} | {name} | {its:.0} | {:.1} | {start} |", ours / its);
        }
    }
}

fn sev_snp() {
    let [now, ..] = TIMES;
    let (report, vcek) =
        (evidence("snp/milan-virtee/report.bin"), evidence("snp/milan-virtee/vcek.der"));
    let expected = snp::SnpExpected::default();
    let read = || snp::SnpEvidence::parse(black_box(&report), &vcek).unwrap();
    let certificates = read().certificates;
    let roots = snp::SnpRoots::amd().unwrap();
    let chain =
        snp::VerifiedChain::verify(&certificates, snp::SigningKey::Vcek, roots, &[], now).unwrap();
    let cached = rate(|| {
        let report = snp::SnpReport::parse(black_box(&report)).unwrap();
        black_box(chain.check(&report, &expected, now).unwrap());
    });
    let key = ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, certificates[0].public_key()).unwrap();
    let number = |at: usize| report[at..at + 48].iter().rev().copied().collect::<Vec<_>>();
    let signature = [number(0x2a0), number(0x2a0 + 72)].concat();
    let bare = Peer::here("aws-lc-rs: one P-384 signature", || {
        key.verify_sig(black_box(&report[..0x2a0]), &signature).unwrap();
    });
    row("SEV-SNP, chain verified before", cached, Some(bare));
    let whole = rate(|| drop(black_box(snp::verify(&read(), roots, &[], &expected, now).unwrap())));
    row("SEV-SNP, report and chain", whole, Some(snpguest()));
}

/// A verification is two processes, as NVFLARE's authorizer runs them.
fn snpguest() -> Result<Peer, String> {
    const RUNS: u32 = 100;
    let program = installed("snpguest", "bin/snpguest")?;
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let authorities = String::from_utf8(evidence("snp/_amd-roots/ask_ark_milan.pem")).unwrap();
    let (ask, ark) = authorities.split_at(authorities.rfind("-----BEGIN").unwrap());
    let vcek = evidence("snp/milan-virtee/vcek.der");
    for (name, bytes) in
        [("ask.pem", ask.as_bytes()), ("ark.pem", ark.as_bytes()), ("vcek.der", &vcek)]
    {
        fs::write(folder.path().join(name), bytes).map_err(|error| error.to_string())?;
    }
    let (certificates, report) =
        (folder.path().to_str().unwrap(), path("snp/milan-virtee/report.bin"));
    let seconds = |arguments: &[&str]| -> Result<f64, String> {
        let before = children_cpu();
        for _ in 0..RUNS {
            output(Command::new(&program).args(arguments))?;
        }
        Ok((children_cpu() - before) / f64::from(RUNS))
    };
    let start = seconds(&["--version"])?;
    // The report is of version 2, which does not name its product.
    let report = [
        "verify",
        "attestation",
        "--processor-model",
        "milan",
        certificates,
        report.to_str().unwrap(),
    ];
    let verification =
        seconds(&["verify", "certs", certificates])? + seconds(&report)? - 2.0 * start;
    let name = output(Command::new(&program).arg("--version"))?.trim().to_owned();
    if verification <= 0.0 {
        return Err(format!(
            "{name}: verifying is lost in its {:.1} ms of process start",
            start * 1e3
        ));
    }
    let name = format!("{name}: `verify certs`, `verify attestation`");
    Ok(Peer { name, per_second: 1.0 / verification, start: format!("2 × {:.1} ms", start * 1e3) })
}

fn intel_tdx() {
    let [_, now, ..] = TIMES;
    let (bytes, json) =
        (evidence("tdx/quotes/near-mpc.bin"), evidence("tdx/collateral/near-mpc.json"));
    let read = || tdx::TdxEvidence::parse(black_box(&bytes), None).unwrap();
    let roots = tdx::intel_roots().unwrap();
    let collateral = tdx::Collateral::parse(&json).unwrap();
    let verifier = tdx::DcapVerifier::new(roots.clone(), Some(&collateral), now).unwrap();
    let cached = rate(|| drop(black_box(verifier.verify(&read(), None, now).unwrap())));
    row("TDX, collateral verified before", cached, None);
    let whole =
        rate(|| drop(tdx::verify(&read(), roots.clone(), Some(&collateral), None, now).unwrap()));
    let theirs = serde_json::from_slice(&json).unwrap();
    let peer = Peer::here("dcap-qvl (ring)", || {
        drop(dcap_qvl::verify::ring::verify(black_box(&bytes), &theirs, now).unwrap());
    });
    row("TDX, quote and collateral", whole, Some(peer));
}

fn nvidia_gpu() {
    let [_, _, now, _] = TIMES;
    let name = |file: &str| format!("gpu/h100-545.00-e2e/{file}");
    let (report, chain) = (evidence(&name("report.bin")), evidence(&name("chain.pem")));
    let manifests = [evidence(&name("driver-rim.xml")), evidence(&name("vbios-rim.xml"))];
    let nonce: [u8; 32] =
        hex::decode(evidence(&name("nonce.hex")).trim_ascii()).unwrap().try_into().unwrap();
    let roots = gpu::Roots::nvidia().unwrap();
    let read = || gpu::DeviceEvidence::parse(black_box(&report), &chain).unwrap();
    let parse =
        || manifests.each_ref().map(|manifest| gpu::Rim::parse(black_box(manifest), None).unwrap());
    let rims = parse();
    let collateral = gpu::Collateral { rims: &rims, ..Default::default() };
    let mut verifier = gpu::Verifier::new(&roots, collateral);
    let cached = rate(|| drop(black_box(verifier.verify(&read(), Some(&nonce), now).unwrap())));
    row("GPU, chain and manifests verified before", cached, None);
    let whole = rate(|| {
        let rims = parse();
        let collateral = gpu::Collateral { rims: &rims, ..Default::default() };
        drop(black_box(gpu::verify(&read(), &roots, collateral, Some(&nonce), now).unwrap()));
    });
    row("GPU, report, chain and manifests, no OCSP", whole, Some(nvidia(&path(&name("")), now)));
}

fn nvidia(folder: &Path, now: u64) -> Result<Peer, String> {
    let python = installed("nvidia", "bin/python3")?;
    // It writes a log where it is started.
    let place = tempfile::tempdir().map_err(|error| error.to_string())?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/nvidia.py");
    let mut command = Command::new(python);
    command.arg(script).arg(folder).args([now.to_string(), "3".into()]).current_dir(&place);
    let text = output(&mut command)?;
    let [version, per_second, start] = text.split_whitespace().collect::<Vec<_>>()[..] else {
        return Err(format!("nv-local-gpu-verifier answered {text:?}"));
    };
    let number = |text: &str| {
        text.parse::<f64>().map_err(|error| format!("nv-local-gpu-verifier: {text}: {error}"))
    };
    let name = format!("nv-local-gpu-verifier {version} (Python)");
    Ok(Peer {
        name,
        per_second: number(per_second)?,
        start: format!("{:.0} ms", number(start)? * 1e3),
    })
}

fn tpm_quote() {
    let file = |name: &str| {
        fs::read(
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../../tests/vectors/own-swtpm-quotes")
                .join(name),
        )
        .unwrap()
    };
    let name = |ending: &str| file(&format!("ecdsa-p256-sha256.{ending}"));
    let (message, signature, ak, pcrs) =
        (name("msg"), name("sig"), name("ak.tpm2b"), file("pcrs.json"));
    let (nonce, policy) = (
        Nonce::exact(&hex::decode("00112233445566778899aabbccddeeff").unwrap()),
        TpmPolicy::default(),
    );
    let ours = rate(|| {
        let key = AttestationKey::parse(black_box(&ak)).unwrap();
        let evidence = QuoteEvidence::parse(&message, &signature, key).unwrap();
        let evidence = evidence.with_pcrs(PcrValues::parse(&pcrs).unwrap());
        drop(black_box(
            quote::verify(&evidence, Some(&nonce), None, &policy, 1_800_000_000).unwrap(),
        ));
    });
    let key = AttestationKey::parse(&ak).unwrap();
    let Key::P256 { point } = key.key() else { panic!("a P-256 key") };
    let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, [&[4], &point[..]].concat()).unwrap();
    let fixed = [&signature[6..38], &signature[40..]].concat();
    let bare = Peer::here("aws-lc-rs: one P-256 signature", || {
        key.verify_sig(black_box(&message), &fixed).unwrap()
    });
    row("TPM quote, P-256", ours, Some(bare));
}

fn azure_token() {
    let [.., now] = TIMES;
    let keys = KeySet::parse(&evidence("maa/maa-1-sgx.jwks.json")).unwrap();
    let types = vec!["sgx".into()];
    let policy = MaaPolicy {
        types,
        ..MaaPolicy::new("https://pylarryoattestationaad.wus.attest.azure.net")
    };
    let text = evidence("maa/maa-1-sgx.jwt");
    let ours = rate(|| {
        let token = Token::parse(black_box(&text)).unwrap();
        drop(black_box(
            token::verify_maa(&token, &keys, &policy, &token::Expected::default(), now).unwrap(),
        ));
    });
    row("Azure's token, RS256", ours, None);
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/evidence").join(name)
}

fn evidence(name: &str) -> Vec<u8> {
    fs::read(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A program of a peer, or why it is not there: what its installation said last.
fn installed(peer: &str, program: &str) -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/peers").join(peer);
    if folder.join(".ready").exists() {
        return Ok(folder.join(program));
    }
    let log = fs::read_to_string(folder.join("install.log")).unwrap_or_default();
    let reason =
        log.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("`make bench` installs it");
    Err(format!("{peer} not installed: {}", reason.trim()))
}

fn output(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output =
        command.env("RUST_BACKTRACE", "0").output().map_err(|error| format!("{name}: {error}"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!(
            "{name} failed: {}",
            error.trim().lines().last().unwrap_or("without a word")
        ));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Times a second of this thread's own processor time: other work on the machine does not count.
fn rate(mut run: impl FnMut()) -> f64 {
    run();
    let (begun, mut count) = (thread_cpu(), 0);
    loop {
        (0..20).for_each(|_| run());
        count += 20;
        let spent = thread_cpu() - begun;
        if spent >= 2.0 {
            return f64::from(count) / spent;
        }
    }
}

/// proc(5): nanoseconds on a processor come first.
fn thread_cpu() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

/// proc(5): `cutime` and `cstime`, fields 16 and 17 of `stat` in 1/100 s; the name before field 3
/// ends in `)`.
fn children_cpu() -> f64 {
    let text = fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = text.rsplit_once(") ").unwrap();
    fields.split(' ').skip(13).take(2).map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>()
        / 100.0
}
