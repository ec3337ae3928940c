//! Whatever is presented and not understood is in the verdict.

use base64::{Engine, engine::general_purpose::STANDARD};
use cvm_verify::{
    appraise::{Appraisal, EvidenceSet, Rules, Terms},
    token::{EarToken, Registered, Tier, VerifierId},
};
use serde_json::{Value, json};

use super::{NOW, claims, code, machine, read, set, terms};

fn dropped(name: &str) -> Vec<u8> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/vectors/dropped-evidence");
    std::fs::read(folder.join(name)).unwrap()
}

/// A folder with a genuine quote, and one file more.
fn beside_a_quote(name: &str, bytes: &[u8]) -> EvidenceSet {
    let mut files = EvidenceSet::default();
    for file in ["ak.pub", "quote.msg", "quote.sig"] {
        files.present(
            "m",
            &format!("m/{file}"),
            read(&format!("tpm/own-swtpm-ecdsa-quote/{file}")),
        );
    }
    files.present("m", &format!("m/{name}"), bytes.to_vec());
    files
}

fn ear(verdict: &Appraisal) -> EarToken {
    let registered = Registered {
        issuer: "flare-cvm".into(),
        audience: vec![],
        token_id: None,
        issued_at: NOW,
        not_before: None,
        expires_at: NOW + 60,
    };
    verdict.to_ear(VerifierId { developer: "test".into(), build: "test".into() }, registered, None)
}

fn accepting(name: &str) -> Terms {
    let rules = Rules { accept_unread: [name.to_owned()].into(), ..Rules::default() };
    Terms { rules, ..terms(None, NOW) }
}

#[test]
fn attack_an_unreadable_report_beside_a_genuine_quote() {
    let report = read("snp/milan-virtee/report.bin");
    let text = STANDARD.encode(&report[..1100]);
    for (name, bytes) in [
        ("snp.bin", &report[..1183]),
        ("snp.bin", &[&report[..], b"a table of another kind"].concat()[..]),
        ("snp.bin", &[0; 1184]),
        ("snp.txt", text.as_bytes()),
        ("snp.txt", hex::encode(&report[..1100]).as_bytes()),
        ("snp.json", json!({ "snp": text }).to_string().as_bytes()),
        (
            "snp.json",
            json!({ "report_of_a_new_tee": [1, 2, 3], "version": 9 }).to_string().as_bytes(),
        ),
        ("empty", b""),
        ("pcrs.bin", &[7; 100]),
    ] {
        let files = beside_a_quote(name, bytes);
        let verdict = files.verify(&terms(None, NOW));
        assert_eq!(code(&verdict), ["ATT-360"], "{name}: {:?}", verdict.refusals);
        assert!(verdict.refusals[0].of.starts_with(&format!("m/{name}")), "{:?}", verdict.refusals);
        assert_eq!(verdict.to_json(NOW)["verdict"], "refused");
        // The signed verdict says it too.
        let submods = ear(&verdict).submods;
        assert_eq!(submods["tpm0"].status, Tier::Contraindicated);
        let refused = &submods["refused0"].annotated_evidence["refused"];
        assert_eq!(refused["of"].as_str(), Some(verdict.refusals[0].of.as_str()));

        // A policy accepts it by its name, and by no other.
        let verdict = files.verify(&accepting(name));
        assert!(verdict.accepted(), "{name}: {:?}", verdict.refusals);
        let not_checked = verdict.not_checked();
        let unread = not_checked.iter().find(|(_, check, _)| *check == "unread-evidence").unwrap();
        assert!(unread.0.ends_with(name));
        assert_eq!(ear(&verdict).submods["unread0"].status, Tier::Warning);
        let input = verdict.input();
        let shown = &input["submods"]["unread0"]["ear.veraison.annotated-evidence"]["unread"];
        assert_eq!(shown["not_checked"][0]["check"], "unread-evidence", "{input:#}");
        assert_eq!(code(&files.verify(&accepting("other.bin"))), ["ATT-360"]);
    }
    let mut loose = set(&["ak.pub", "quote.msg", "quote.sig"]
        .map(|f| read(&format!("tpm/own-swtpm-ecdsa-quote/{f}"))));
    loose.present("", "README.md", b"# What was named must be something".to_vec());
    assert_eq!(code(&loose.verify(&terms(None, NOW))), ["ATT-360"]);
    // Nothing but what is accepted unread attests nothing.
    let mut alone = EvidenceSet::default();
    alone.present("", "snp.bin", vec![0; 1184]);
    assert!(!alone.verify(&accepting("snp.bin")).accepted());
}

/// As it was found: with the table unread it is unread; with the table read, two reports answer no
/// common nonce.
#[test]
fn attack_the_case_of_a_quote_beside_an_snp_report() {
    let mut files = EvidenceSet::default();
    for name in ["ak.pub", "quote.msg", "quote.sig", "snp.bin"] {
        files.present(
            "case",
            &format!("case/{name}"),
            dropped(&format!("tpm-quote-and-unread-snp/{name}")),
        );
    }
    let verdict = files.verify(&terms(None, NOW));
    assert!(!verdict.accepted());
    assert!(
        ear(&verdict).submods.values().all(|submodule| submodule.status == Tier::Contraindicated)
    );
}

/// `tpm2_pcrread`'s own form, right and wrong.
#[test]
fn attack_a_log_beside_the_values_of_another_boot() {
    let judged = |values: &str| {
        let mut files = EvidenceSet::default();
        files.present("m", "m/eventlog.bin", dropped("log-and-wrong-pcrs/eventlog.bin"));
        files.present("m", "m/pcrs.yaml", dropped(values));
        files.verify(&terms(None, NOW))
    };
    let right = judged("pcrs.yaml");
    assert!(right.accepted(), "{:?}", right.refusals);
    assert!(!right.not_checked().iter().any(|(_, check, _)| *check == "pcr-values"));
    let wrong = judged("log-and-wrong-pcrs/pcrs-wrong.yaml");
    assert_eq!(code(&wrong), ["ATT-360"]);
    assert!(wrong.refusals[0].reason.contains("PCR 0 to"), "{:?}", wrong.refusals);

    // Values that could be compared with nothing: of another bank, and of a TPM beside a TD's log.
    let judged = |log: Vec<u8>, values: &str| set(&[log, read(values)]).verify(&terms(None, NOW));
    let (log, sha384) =
        (dropped("log-and-wrong-pcrs/eventlog.bin"), "tpm/gce-cos-85-nonce9009/pcrs-sha384.json");
    let verdict = judged(log, sha384);
    assert!(verdict.refusals[0].reason.contains("no bank"), "{:?}", verdict.refusals);
    let verdict = judged(read("forms/cos-113.ccel"), sha384);
    assert!(verdict.refusals[0].reason.contains("compared with nothing"), "{:?}", verdict.refusals);
}

/// What a wrapper holds beside what is known of it is looked at by its content.
#[test]
fn attack_a_member_that_nobody_reads() {
    let tpm = |file: &str| STANDARD.encode(read(&format!("tpm/own-swtpm-ecdsa-quote/{file}")));
    let quote = json!({ "message": tpm("quote.msg"), "signature": tpm("quote.sig") });
    let judged = |member: &str, value: Value, terms: &Terms| {
        let mut body = json!({ "tpm_quote": quote, "ak_public": tpm("ak.pub") });
        body[member] = value;
        let mut files = EvidenceSet::default();
        files.present("", "tpm.json", body.to_string().into_bytes());
        files.verify(terms)
    };
    let report = read("snp/milan-virtee/report.bin");
    let damaged = STANDARD.encode(&report[..1183]);
    let numbers = json!(report[..1183]);
    for (member, value, of) in [
        ("snp", json!(damaged), "tpm.json: snp"),
        ("a_new_tee", json!({ "report": damaged }), "tpm.json: a_new_tee"),
        ("a_new_tee", json!([{ "report": damaged }]), "tpm.json: a_new_tee"),
        ("a_new_tee", numbers, "tpm.json: a_new_tee"),
        ("eventlog", json!("cut off"), "tpm.json: eventlog"),
    ] {
        let verdict = judged(member, value.clone(), &terms(None, NOW));
        assert_eq!(code(&verdict), ["ATT-360"], "{member}: {:?}", verdict.refusals);
        assert_eq!(verdict.refusals[0].of, of);
        claims(&verdict, "tpm");
        let accepted = judged(member, value, &accepting(of));
        assert!(accepted.accepted(), "{member}: {:?}", accepted.refusals);
    }
    // A good one under a name that nobody knows is evidence all the same.
    let verdict = judged("a_new_name", json!(STANDARD.encode(&report)), &terms(None, NOW));
    assert_eq!(code(&verdict), ["ATT-303"], "its VCEK is missing: {:?}", verdict.refusals);
    // In a list, and after another of its name.
    let genuine = json!({ "tpm_quote": quote, "ak_public": tpm("ak.pub") });
    let judged_text = |text: String| {
        let mut files = EvidenceSet::default();
        files.present("", "tpm.json", text.into_bytes());
        files.verify(&terms(None, NOW))
    };
    assert!(judged_text(json!([genuine]).to_string()).accepted());
    for parts in [
        json!([{ "snp": damaged }, genuine]),
        json!([genuine, { "snp": damaged }]),
        json!([genuine, damaged]),
    ] {
        let verdict = judged_text(parts.to_string());
        assert_eq!(code(&verdict), ["ATT-360"], "{:?}", verdict.refusals);
        claims(&verdict, "tpm");
    }
    let twice = format!(r#"{{"snp": "{damaged}", "snp": "", {}"#, &genuine.to_string()[1..]);
    let verdict = judged_text(twice);
    assert_eq!(code(&verdict)[0], "ATT-360");
    assert!(verdict.refusals[0].reason.contains("twice"), "{:?}", verdict.refusals);
    // Labels say nothing.
    for (member, value) in [
        ("version", json!(1)),
        ("hash", json!("ab".repeat(32))),
        ("user_data", json!(damaged)),
        ("runtime-data", json!({ "tee-pubkey": { "n": damaged } })),
        ("note", json!(null)),
        ("extra", json!({})),
    ] {
        let verdict = judged(member, value, &terms(None, NOW));
        assert!(verdict.accepted(), "{member}: {:?}", verdict.refusals);
    }
}

/// Two kinds in one body of the KBS protocol, and what Google's tools write beside a quote.
#[test]
fn attack_wrappers_that_hold_more_than_one_verifier_reads() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/vectors/snp-trustee-e2e");
    let alone: Value =
        serde_json::from_slice(&std::fs::read(folder.join("evidence.json")).unwrap()).unwrap();
    let mut both = alone.clone();
    both["hcl_report"] = json!("SENMQQEAAAA");
    let refusals =
        |body: &Value| code(&set(&[body.to_string().into_bytes()]).verify(&terms(None, NOW))).len();
    assert_eq!(refusals(&both), refusals(&alone) + 1);

    // A message with what the TEE under the TPM reported: field 8, as fields and not as the signed
    // bytes.
    let plain = read("forms/gce-nonce9009.pb");
    let more = [&plain[..], &[8 << 3 | 2, 4, 1, 2, 3, 4]].concat();
    assert!(set(&[plain]).verify(&terms(Some("9009"), NOW)).accepted());
    let verdict = set(&[more]).verify(&terms(Some("9009"), NOW));
    assert_eq!(code(&verdict), ["ATT-360"]);
    assert!(verdict.refusals[0].of.ends_with("sev_snp_attestation"), "{:?}", verdict.refusals);
}

/// Halves of evidence whose other half is not there.
#[test]
fn attack_pieces_that_belong_to_nothing() {
    let (report, vcek, roots) = machine(|_| {});
    let terms = Terms { roots: Some(roots), ..terms(None, NOW) };
    for name in [
        "tpm/own-swtpm-ecdsa-quote/quote.sig",
        "tpm/own-swtpm-ecdsa-quote/ak.pub",
        "tpm/gce-cos-85-nonce9009/pcrs-sha256.json",
        "ccel/near-mpc/tcb_info.json",
    ] {
        let verdict = set(&[report.clone(), vcek.clone(), read(name)]).verify(&terms);
        assert_eq!(code(&verdict), ["ATT-360"], "{name}");
        assert!(verdict.refusals[0].reason.contains(" without "), "{:?}", verdict.refusals);
    }
    // A signature more than there are quotes, or what is as long as one.
    let gce = |file: &str| read(&format!("tpm/gce-cos-85-nonce9009/{file}"));
    let quote = ["ak.tpmt_public", "quote-sha256.msg", "quote-sha256.sig"].map(gce);
    let judged = |more: &[Vec<u8>]| {
        set(&[&quote[..], more].concat()).verify(&super::terms(Some("9009"), NOW))
    };
    assert!(judged(&[]).accepted());
    for more in [gce("quote-sha384.sig"), vec![0xa5; 256]] {
        let verdict = judged(&[more]);
        assert_eq!(code(&verdict), ["ATT-360"]);
        assert_eq!(verdict.refusals[0].of, "file 3");
    }
    // Another machine's report beside the one in Azure's is verified as well.
    let azure = ["hcl.bin", "pcrs.bin", "quote.msg", "quote.sig", "vcek.der"];
    let mut azure =
        azure.map(|file| read(&format!("azure/snp-trustee-evidence-v0/{file}"))).to_vec();
    azure.push(read("snp/trustee-vcek-invalid-new/report.bin"));
    let verdict = set(&azure).verify(&super::terms(Some("challenge"), NOW));
    assert!(
        verdict.refusals.iter().any(|refusal| refusal.of == "the SNP report"),
        "{:?}",
        verdict.refusals
    );
}

/// Notes, signatures over files, and collateral of other machines are not evidence.
#[test]
fn innocent_companions_are_left_out() {
    let mut files = EvidenceSet::default();
    for (name, bytes) in [
        ("report.bin", read("snp/milan-virtee/report.bin")),
        ("vcek.der", read("snp/milan-virtee/vcek.der")),
        ("README.md", format!("# Monday\nreport.bin: {}\n", "ab".repeat(32)).into_bytes()),
        ("notes.txt", b"asked on Monday".to_vec()),
        (".gitignore", b"*.tmp".to_vec()),
        ("report.bin.sig", vec![0xa5; 256]),
        ("vcek.der.asc", b"-----BEGIN PGP SIGNATURE-----\n".to_vec()),
        ("ask.pem", read("snp/_amd-roots/ask_ark_genoa.pem")),
        ("collateral.json", read("tdx/collateral/near-mpc.json")),
        ("rim.xml", read("gpu/h100-545.00-e2e/driver-rim.xml")),
    ] {
        files.present("m", &format!("m/{name}"), bytes);
    }
    let verdict = files.verify(&terms(None, NOW));
    assert!(verdict.accepted(), "{:?}", verdict.refusals);
    assert_eq!(verdict.claims().count(), 1);
    let mut left_out: Vec<_> = verdict.left_out.iter().map(|note| note.of.as_str()).collect();
    left_out.sort_unstable();
    assert_eq!(
        left_out,
        ["m/.gitignore", "m/README.md", "m/notes.txt", "m/report.bin.sig", "m/vcek.der.asc"]
    );
}

/// Hundreds of files are refused once.
#[test]
fn attack_more_files_than_any_machine_has() {
    let mut files = EvidenceSet::default();
    for n in 0..300 {
        files.present("", &format!("vcek {n}"), read("snp/milan-virtee/vcek.der"));
    }
    let verdict = files.verify(&terms(None, NOW));
    assert_eq!(
        verdict.refusals.iter().filter(|refusal| refusal.reason.contains("more than 256")).count(),
        1
    );
}
