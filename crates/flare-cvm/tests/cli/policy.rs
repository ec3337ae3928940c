//! `policy new`: three policies that judge what `attest verify` finds.

use std::fs;

use cvm_attest::{
    ReferenceSet,
    reference_set::{SnpReference, SnpTcb, SnpVariant},
};
use cvm_base::Bytes;

use crate::{NOW, VECTORS, explain::machine, flare_cvm, folder, verify, write};

const POLICIES: [&str; 3] = ["boot.rego", "self.rego", "cross.rego"];

#[test]
fn policies_from_predictions_judge_a_machine() {
    let folder = folder("policy");
    let tcb = SnpTcb { bootloader: 3, tee: 1, snp: 20, microcode: 0xd5 };
    let snp = |measurement: &str, least: SnpTcb| SnpReference {
        platform: "here".into(),
        measurement: measurement.parse().unwrap(),
        min_tcb: Some(least),
        variants: vec![SnpVariant { change: "another vCPU count".into(), measurement: Bytes([0x99; 48]) }],
    };
    let nonce = "5a".repeat(32);
    let [launched, other] = ["3e", "77"].map(|byte| byte.repeat(48));
    let machine = machine(&folder, &launched, &nonce) + " --at " + NOW;
    let policies = |name: &str, snp: SnpReference| {
        let set = ReferenceSet { snp: vec![snp], ..ReferenceSet::new(Bytes([7; 16])) };
        let set = write(folder.join(format!("{name}.json")), set.to_bytes());
        let output = folder.join(name).display().to_string();
        let run = flare_cvm(&["policy", "new", &set, "-o", &output]).good();
        POLICIES.map(|policy| {
            run.says(&format!("written: {output}/{policy}\n"));
            format!("{output}/{policy}")
        })
    };

    for policy in policies("right", snp(&launched, tcb)) {
        // As written, they refuse every check that was left out, each by its name.
        let run = verify(&format!("{machine} --policy {policy}")).failed("ATT-362");
        let refused = run.out.lines().filter(|line| line.starts_with("refused[ATT-364]: "));
        let reasons: Vec<_> = refused.map(|line| line.rsplit_once(": ").unwrap().1).collect();
        let left_out = "was not checked, and accepted_not_checked does not list it";
        let expected = ["certificate-revocation", "host-data"].map(|check| format!("{check} {left_out}"));
        assert_eq!(reasons, expected, "{policy}");
        // Their owner edits them.
        let text = fs::read_to_string(&policy).unwrap();
        assert!(!text.contains(&"99".repeat(48)), "what explains a digest is not in what accepts one");
        let list = r#"accepted_not_checked := {"certificate-revocation", "host-data"}"#;
        let edited = text.replace("accepted_not_checked := set()", list);
        assert_ne!(edited, text);
        fs::write(&policy, edited).unwrap();
        verify(&format!("{machine} --policy {policy}")).good().says("verdict: accepted");
    }
    let newer = SnpTcb { snp: 21, ..tcb };
    for (name, reference) in [("measurement", snp(&other, tcb)), ("firmware", snp(&launched, newer))] {
        for policy in policies(name, reference) {
            let run = verify(&format!("{machine} --policy {policy}")).failed("ATT-362");
            run.says("refused[ATT-364]: ")
                .says("snp: its measurements are not this image's on any platform named here");
        }
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
        let evidence = format!("{VECTORS}/session-swtpm/evidence.json --at {now} --policy {output}/{name}");
        verify(&evidence).failed("ATT-362").says("refused[ATT-364]: ");
    }
}
