//! `attest verify --reference … --explain`: one deliberately changed input of each kind, and what
//! is said about it.

use std::{fs, path::Path};

use cvm_base::{Bytes, sha256};
use cvm_evidence::{
    Reference, ReferenceSet,
    platform::TdxReference,
    reference::TpmReference,
    reference_set::FirmwareReference,
    rtmr::{replay, sha384},
};
use cvm_verify::tdx::TdxClaims;
use serde_json::json;

use crate::{
    EVIDENCE, NOW, VECTORS, bundle::Bundle, claims, folder, mint, predict, read, verify, write,
};

/// What a wrong value leads to, as text and as JSON. The right value is accepted.
fn explained(
    arguments: &str,
    reference: &str,
    right: &str,
    expected: (&str, &str, Option<&str>, &str),
) {
    let (of, register, event, likely) = expected;
    let good = verify(&format!("{arguments} --reference {right} --explain")).good();
    assert!(
        !good.out.contains("explained: ") && good.out.ends_with("verdict: accepted\n"),
        "{}",
        good.out
    );

    let wrong = format!("{arguments} --reference {reference} --explain");
    let text = verify(&wrong).failed("ATT-362");
    let at = event.map_or(String::new(), |event| format!(", at \"{event}\""));
    text.says(&format!("explained: {of} {register}{at}: expected "))
        .says(&format!("; likely: {likely}"));
    text.says(&format!(
        "refused[ATT-397]: {of}: {register} is not what the reference values say: expected "
    ));
    let json = verify(&format!("{wrong} --json")).failed("ATT-362").json();
    let [found] = &json["explained"].as_array().unwrap()[..] else { panic!("{json:#}") };
    assert_eq!(
        (&found["of"], &found["register"], &found["likely"]),
        (&json!(of), &json!(register), &json!(likely))
    );
    assert_eq!(found.get("event"), event.map(|event| json!(event)).as_ref());
    assert_eq!(json["submods"][of]["ear.status"], "contraindicated");
    // A difference is refused whether or not somebody asks why.
    let silent = verify(&format!("{arguments} --reference {reference}")).failed("ATT-362");
    assert!(!silent.out.contains("explained: "), "{}", silent.out);
    silent.says("refused[ATT-397]: ").says(&format!("help: most likely: {likely}"));
}

#[test]
fn a_tpms_register() {
    let folder = folder("explain-tpm");
    let session = format!("{VECTORS}/session-swtpm");
    let right = format!("{session}/reference.json");
    let reference = Reference::parse(&read(&right)).unwrap();
    // The image was predicted with another command line.
    let mut events = reference.tpm.explain.clone();
    let event = events.iter_mut().find(|event| event.pcr == 12).unwrap();
    (event.event, event.digest) = ("command line from the loader".into(), sha256(b"quiet"));
    let wrong = Reference { tpm: TpmReference::from_events(events, &[13]), ..reference };
    let wrong = write(folder.join("reference.json"), wrong.to_bytes());
    let now = String::from_utf8(read(&format!("{session}/now"))).unwrap();
    let event = Some("command line from the loader");
    let expected = ("tpm0", "PCR 12", event, "the command line changed");
    explained(&format!("{session}/evidence.json --at {now}"), &wrong, &right, expected);
}

/// Reference values are for the SHA-256 bank: the quote of another bank is not compared, and the
/// verdict says so.
#[test]
fn another_banks_quote_is_not_compared() {
    let gce = format!("{EVIDENCE}/tpm/gce-cos-85-nonce9009");
    let quote = |bank: &str| {
        let files = [
            "ak.tpmt_public",
            &format!("quote-{bank}.msg"),
            &format!("quote-{bank}.sig"),
            &format!("pcrs-{bank}.json"),
        ];
        let files: String = files.map(|file| format!("{gce}/{file} ")).concat();
        verify(&format!("{files} --nonce 9009 --reference {VECTORS}/session-swtpm/reference.json"))
    };
    let run = quote("sha384").good();
    run.says(
        "tpm0: not checked: reference-values: the reference values have none of this kind of \
        evidence",
    );
    quote("sha256").failed("ATT-362").says("refused[ATT-397]: tpm0: PCR ");
}

#[test]
fn a_tds_register() {
    let folder = folder("explain-tdx");
    let files = format!(
        "{EVIDENCE}/tdx/quotes/near-mpc.bin {EVIDENCE}/tdx/collateral/near-mpc.json \
         {EVIDENCE}/ccel/near-mpc/tcb_info.json \
         --at 1787894500"
    );
    let verdict = verify(&format!("{files} --json")).good().json();
    let claims: TdxClaims =
        serde_json::from_value(claims(&verdict, "cpu0", "tdx").clone()).unwrap();
    let [rtmr0, rtmr1, rtmr2, rtmr3] = claims.rtmrs();
    let (mrtd, events) = (claims.quote.body.mr_td, claims.measurements());
    let right = TdxReference { platform: "here".into(), mrtd, rtmr0, rtmr1, rtmr2, rtmr3, events };
    let set = |name: &str, tdx: TdxReference| {
        let set = ReferenceSet { tdx: vec![tdx], ..ReferenceSet::new(Bytes([0; 16])) };
        write(folder.join(name), set.to_bytes())
    };
    let mut wrong = right.clone();
    let options =
        wrong.events.iter_mut().find(|event| event.event == "LOADED_IMAGE::LoadOptions").unwrap();
    options.digest = sha384(b"quiet");
    wrong.rtmr2 = replay(wrong.events.iter().map(|event| (event.rtmr, &event.digest)))[2];
    let (wrong, right) = (set("wrong.json", wrong), set("right.json", right));
    let event = Some("LOADED_IMAGE::LoadOptions");
    explained(&files, &wrong, &right, ("cpu0", "RTMR2", event, "the command line changed"));

    // Values of other kinds of machines alone: then nothing was compared, and that is said.
    let tpm = format!("{VECTORS}/session-swtpm/reference.json");
    let run = verify(&format!("{files} --reference {tpm} --explain")).good();
    run.not_checked(&[
        ("cpu0", "report-data"),
        ("cpu0", "acpi"),
        ("cpu0", "nonce"),
        ("cpu0", "reference-values"),
    ]);
    // Of those that match, RTMR0 covers the host's ACPI tables.
    verify(&format!("{files} --reference {right}"))
        .good()
        .not_checked(&[("cpu0", "report-data"), ("cpu0", "nonce")]);
}

/// A set that names firmware compares PCR 0 and 1, and then the host's ACPI tables count as
/// checked.
#[test]
fn firmware_of_a_tpm() {
    let folder = folder("explain-firmware");
    let session = format!("{VECTORS}/session-swtpm");
    let now = String::from_utf8(read(&format!("{session}/now"))).unwrap();
    let machine = format!("{session}/evidence.json --at {}", now.trim());
    let verdict = verify(&format!("{machine} --json")).good().json();
    let pcrs = &claims(&verdict, "tpm0", "tpm")["pcrs"];
    let value = |pcr: &str| pcrs[pcr].as_str().unwrap().parse().unwrap();
    let right = FirmwareReference { pcr0: value("0"), pcr1: value("1") };
    let built = Reference::parse(&read(&format!("{session}/reference.json"))).unwrap();
    let set = |name: &str, firmware| {
        write(
            folder.join(name),
            ReferenceSet { firmware: vec![firmware], ..ReferenceSet::from(&built) }.to_bytes(),
        )
    };
    let acpi = "not checked: acpi";
    assert!(verify(&machine).good().out.contains(acpi));
    let good = verify(&format!("{machine} --reference {}", set("right.json", right))).good();
    assert!(!good.out.contains(acpi), "{}", good.out);
    let other = FirmwareReference { pcr1: Bytes([1; 32]), ..right };
    let run =
        verify(&format!("{machine} --reference {}", set("other.json", other))).failed("ATT-362");
    run.says("refused[ATT-397]: ")
        .says("PCR 0 and 1 is not what")
        .says("ACPI tables that the host changed")
        .says(acpi);
}

/// The whole way: predicted from a bundle, launched by a host that gives other vCPUs, verified.
#[test]
fn an_snp_launch_digest() {
    let folder = folder("explain-snp");
    let bundle = Bundle::new(&folder);
    let set = folder.join("set.json").display().to_string();
    let firmware = "tests/vectors/evidence/measurement/ovmf_AmdSev_suffix.bin";
    let snp = format!(
        "--platform snp --firmware {firmware} --direct --set {set} --min-tcb milan=3.1.20.213"
    );
    bundle.predict(&format!("{snp} --vcpus 8")).good();
    let right = write(folder.join("right.json"), fs::read(&set).unwrap());
    fs::remove_file(&set).unwrap();
    bundle.predict(&format!("{snp} --vcpus 4")).good();

    let nonce = "5a".repeat(32);
    let machine = machine(&folder, &predict::launched(&bundle, 8), &nonce) + " --at " + NOW;
    let likely = "the host gave 8 vCPUs, predicted are 4";
    explained(&machine, &set, &right, ("cpu0", "launch digest", None, likely));
}

/// A machine of our own chip maker's that launched what has this digest: the arguments that verify
/// its report. Its roots are trusted beside NVIDIA's.
pub fn machine(folder: &Path, measurement: &str, nonce: &str) -> String {
    let (line, spec) = (mint::line("Milan"), mint::vcek("Milan-B0"));
    let (vcek, key) = mint::endorse(&line.ask.1, &spec);
    let mut report = mint::report(2, [0; 3], &spec);
    report[0x50..0x90].fill(0);
    report[0x50..0x70].copy_from_slice(&hex::decode(nonce).unwrap());
    report[0x90..0xc0].copy_from_slice(&hex::decode(measurement).unwrap());
    let report = write(folder.join("report.bin"), mint::sign(report, &key));
    let vcek = write(folder.join("vcek.der"), vcek);
    let of_nvidia =
        ["device", "RIM"].map(|of| read(&format!("keys/roots/nvidia/verifier_{of}_root.pem")));
    let [device, rim] = of_nvidia;
    let roots = [mint::pem(&[&line.ark.0, &line.ask.0]).into_bytes(), device, rim].join(&b'\n');
    let roots = write(folder.join("roots.pem"), roots);
    format!("{report} {vcek} --roots {roots} --nonce {nonce}")
}
