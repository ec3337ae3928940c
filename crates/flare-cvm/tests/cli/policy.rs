//! `policy new`: three policies that judge what `attest verify` finds.

use std::{fs, path::PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use cvm_base::Bytes;
use cvm_evidence::{
    Reference, ReferenceSet,
    platform::{SnpReference, SnpVariant},
    reference::TpmReference,
};

use crate::{NOW, VECTORS, ak::Ak, explain::machine, flare_cvm, folder, read, verify, write};

const POLICIES: [&str; 3] = ["boot.rego", "self.rego", "cross.rego"];

const TCB: &str = "milan=3.1.20.213";

/// An SNP machine, and policies that are made from predictions for it.
struct Scene {
    folder: PathBuf,
    /// Its launch digest.
    launched: String,
    /// Its evidence, as arguments.
    machine: String,
}

impl Scene {
    fn new(test: &str) -> Self {
        let (folder, launched) = (folder(test), "3e".repeat(48));
        let machine = machine(&folder, &launched, &"5a".repeat(32)) + " --at " + NOW;
        Self { folder, launched, machine }
    }

    /// The three policies from one prediction: a launch digest, and the least firmware.
    fn policies(&self, name: &str, measurement: &str, least: &str) -> [String; 3] {
        let snp = SnpReference {
            platform: "here".into(),
            measurement: measurement.parse().unwrap(),
            tcb_floor: least.parse().unwrap(),
            variants: vec![SnpVariant {
                change: "another vCPU count".into(),
                measurement: Bytes([0x99; 48]),
            }],
        };
        let set = ReferenceSet { snp: vec![snp], ..ReferenceSet::new(Bytes([7; 16])) };
        let set = write(self.folder.join(format!("{name}.json")), set.to_bytes());
        let output = self.folder.join(name).display().to_string();
        let run = flare_cvm(&["policy", "new", &set, "-o", &output]).good();
        POLICIES.map(|policy| {
            run.says(&format!("written: {output}/{policy}\n"));
            format!("{output}/{policy}")
        })
    }
}

#[test]
fn policies_from_predictions_judge_a_machine() {
    let scene = Scene::new("policy");
    for policy in scene.policies("right", &scene.launched, TCB) {
        // As written, they refuse every check that was left out, each by its name.
        let run = verify(&format!("{} --policy {policy}", scene.machine)).failed("ATT-362");
        let refused = run.out.lines().filter(|line| line.starts_with("refused[ATT-364]: "));
        let reasons: Vec<_> = refused.map(|line| line.rsplit_once(": ").unwrap().1).collect();
        let left_out = "was not checked, and accepted_not_checked does not list it";
        let expected = ["acpi", "certificate-revocation", "host-data"]
            .map(|check| format!("{check} {left_out}"));
        assert_eq!(reasons, expected, "{policy}");
        // Their owner edits them.
        let text = fs::read_to_string(&policy).unwrap();
        assert!(
            !text.contains(&"99".repeat(48)),
            "what explains a digest is not in what accepts one"
        );
        let list = r#"accepted_not_checked := {"acpi", "certificate-revocation", "host-data"}"#;
        let edited = text.replace("accepted_not_checked := set()", list);
        assert_ne!(edited, text);
        fs::write(&policy, edited).unwrap();
        verify(&format!("{} --policy {policy}", scene.machine)).good().says("verdict: accepted");
    }
}

#[test]
fn policies_from_other_predictions_refuse_the_machine() {
    let scene = Scene::new("policy-others");
    let other = "77".repeat(48);
    for (name, measurement, least) in [
        ("measurement", &other, TCB),
        ("firmware", &scene.launched, "milan=3.1.21.213"),
        ("product", &scene.launched, "siena=3.1.20.25"),
        ("stepping", &scene.launched, "milan-b1=3.1.20.213"),
    ] {
        for policy in scene.policies(name, measurement, least) {
            let machine = &scene.machine;
            let run = verify(&format!("{machine} --policy {policy}")).failed("ATT-362");
            run.says("refused[ATT-364]: ")
                .says("snp: its measurements are not this image's on any platform named here");
        }
    }
}

/// Reference values of an earlier version state no floor, or one without a product.
#[test]
fn a_floor_is_asked_for_where_the_reference_states_none() {
    let folder = folder("policy-floor");
    let set = |name: &str, floor: &str| {
        let snp = format!(r#"{{"platform": "here", "measurement": "{}"{floor}}}"#, "3e".repeat(48));
        let text =
            format!(r#"{{"version": 1, "image_id": "{}", "snp": [{snp}]}}"#, "07".repeat(16));
        write(folder.join(name), text)
    };
    let earlier = r#", "min_tcb": {"bootloader": 3, "tee": 1, "snp": 20, "microcode": 213}"#;
    for set in [set("none.json", ""), set("earlier.json", earlier)] {
        let output = folder.join("policies").display().to_string();
        let run = flare_cvm(&["policy", "new", &set, "-o", &output]).failed("ATT-386");
        assert!(
            run.err.contains("no tcb_floor of \"here\"") && run.err.contains("--min-tcb"),
            "{}",
            run.err
        );
        assert!(!fs::exists(&output).unwrap());
        flare_cvm(&["policy", "new", &set, "-o", &output, "--min-tcb", "milan-b1=4.0.24.219"])
            .good();
        for policy in POLICIES {
            let text = fs::read_to_string(format!("{output}/{policy}")).unwrap();
            assert!(text.contains("\"Milan-B1\""), "{text}");
        }
        fs::remove_dir_all(&output).unwrap();
    }
}

#[test]
fn only_reference_values_make_policies() {
    let folder = folder("policy-input");
    let output = folder.join("policies").display().to_string();
    let words = write(folder.join("words.json"), "{}");
    flare_cvm(&["policy", "new", &words, "-o", &output]).failed("ATT-001");
    flare_cvm(&["policy", "new", "nowhere.json", "-o", &output]).failed("FILE-001");
    assert!(!fs::exists(&output).unwrap());
    let reference = format!("{VECTORS}/session-swtpm/reference.json");
    flare_cvm(&["policy", "new", &reference, "-o", &output]).good().says("next: read them");
    for name in POLICIES {
        let text = fs::read_to_string(format!("{output}/{name}")).unwrap();
        assert!(text.contains("default allow := false"), "{name}");
        // Whoever may endorse TPMs was not named: no TPM is believed.
        let now = String::from_utf8(crate::read(&format!("{VECTORS}/session-swtpm/now"))).unwrap();
        let evidence =
            format!("{VECTORS}/session-swtpm/evidence.json --at {now} --policy {output}/{name}");
        verify(&evidence).failed("ATT-362").says("refused[ATT-364]: ");
    }
}

/// A machine that has nothing but a TPM, endorsed by a root of the test's own.
struct TpmMachine {
    folder: PathBuf,
    /// The root's certificate (DER).
    root: Vec<u8>,
    /// Its evidence, as arguments.
    evidence: String,
}

/// A file of the vector that a TPM answered.
fn session(name: &str) -> String {
    format!("{VECTORS}/session-swtpm/{name}")
}

impl TpmMachine {
    fn new(test: &str) -> Self {
        let folder = folder(test);
        let body: serde_json::Value =
            serde_json::from_slice(&read(&session("evidence.json"))).unwrap();
        let spki = STANDARD.decode(body["ak_public"].as_str().unwrap()).unwrap();
        let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let root = params.clone().self_signed(&key).unwrap();
        let mut leaf = rcgen::CertificateParams::new(vec![]).unwrap();
        // tcg-kp-AIKCertificate.
        let purpose = rcgen::ExtendedKeyUsagePurpose::Other(vec![2, 23, 133, 8, 3]);
        leaf.extended_key_usages = vec![purpose];
        let ak = Ak(spki[spki.len() - 65..].to_vec());
        let leaf = leaf.signed_by(&ak, &rcgen::Issuer::new(params, key)).unwrap();
        let root_file = write(folder.join("root.pem"), root.pem());
        let leaf = write(folder.join("ak.pem"), leaf.pem());
        let evidence =
            session("evidence.json") + &format!(" {leaf} --roots {root_file} --at {NOW}");
        Self { folder, root: root.der().to_vec(), evidence }
    }

    fn policies(&self, reference: &str, root: &[u8]) -> [String; 3] {
        let output = self.folder.join("policies").display().to_string();
        let root = cvm_base::sha256(root).to_string();
        flare_cvm(&["policy", "new", reference, "--ek-root", &root, "-o", &output]).good();
        POLICIES.map(|policy| format!("{output}/{policy}"))
    }

    fn reasons(&self, policy: &str) -> Vec<String> {
        let run = verify(&format!("{} --policy {policy}", self.evidence)).failed("ATT-362");
        let refused = run.out.lines().filter_map(|line| line.strip_prefix("refused[ATT-364]: "));
        refused.map(|line| line.split_once(": ").unwrap().1.to_owned()).collect()
    }

    #[track_caller]
    fn refuses(&self, policy: &str, start: &str) {
        let reasons = self.reasons(policy);
        assert!(reasons.iter().any(|reason| reason.starts_with(start)), "{reasons:#?}");
    }
}

#[test]
fn a_tpm_alone_is_judged_by_its_registers_and_its_root() {
    let machine = TpmMachine::new("policy-tpm");
    let left_out = ["acpi", "ak-attributes", "certificate-revocation", "nonce"]
        .map(|check| format!("{check} was not checked, and accepted_not_checked does not list it"));
    let reference = session("reference.json");
    let [boot, own, cross] = machine.policies(&reference, &machine.root);
    assert_eq!(machine.reasons(&boot), left_out);
    let edited = fs::read_to_string(&boot).unwrap();
    let list =
        r#"accepted_not_checked := {"acpi", "ak-attributes", "certificate-revocation", "nonce"}"#;
    fs::write(&boot, edited.replace("accepted_not_checked := set()", list)).unwrap();
    verify(&format!("{} --policy {boot}", machine.evidence)).good().says("tpm0: tpm, genuine");
    // It has not handed off yet.
    for policy in [own, cross] {
        machine.refuses(&policy, "tpm: pcr11 is ");
    }
    // Another root, and another image.
    let [boot, ..] = machine.policies(&reference, b"another");
    let root = cvm_base::sha256(&machine.root);
    machine.refuses(&boot, &format!("tpm: it is endorsed by the root {root}, which"));
    let built = Reference::parse(&read(&reference)).unwrap();
    let mut events = built.tpm.explain.clone();
    events.iter_mut().find(|event| event.pcr == 4).unwrap().digest = Bytes([0x44; 32]);
    let other = Reference { tpm: TpmReference::from_events(events, &[12, 13]), ..built };
    let other = write(machine.folder.join("other.json"), other.to_bytes());
    let [boot, ..] = machine.policies(&other, &machine.root);
    machine.refuses(&boot, "tpm: pcr04 is ");
}

/// PCR 0 and 1 are worth naming where the firmware measures the host's ACPI tables.
#[test]
fn firmware_is_named_by_the_log_of_an_honest_machine() {
    let folder = folder("policy-firmware");
    let logs = format!("{VECTORS}/host-acpi");
    let named =
        flare_cvm(&["policy", "firmware", &format!("{logs}/debian13-honest.bin")]).good().json();
    let attacked =
        flare_cvm(&["policy", "firmware", &format!("{logs}/debian13-attacked.bin")]).good().json();
    assert!(
        named["pcr0"] == attacked["pcr0"] && named["pcr1"] != attacked["pcr1"],
        "{named} {attacked}"
    );
    let nothing = format!("{logs}/debian12-honest.bin");
    flare_cvm(&["policy", "firmware", &nothing]).failed("ATT-001");

    let (reference, output) =
        (format!("{VECTORS}/session-swtpm/reference.json"), folder.display().to_string());
    flare_cvm(&["policy", "new", &reference, "--firmware", &nothing, "-o", &output])
        .failed("ATT-001");
    let log = format!("{logs}/debian13-honest.bin");
    flare_cvm(&["policy", "new", &reference, "--firmware", &log, "-o", &output]).good();
    let text = fs::read_to_string(folder.join("boot.rego")).unwrap();
    assert!(text.contains(&format!("tpm_firmware := {{{named}}}")), "{text}");
}
