//! Inputs of users that were judged wrongly: `tests/vectors/cases`, and PROVENANCE.md there.

use std::{fs, path::PathBuf};

use cvm_verify::{
    appraise::{Appraisal, EvidenceSet, GpuRules},
    files::{Form, UnpackError, unpack},
};

use serde_json::Value;

use super::{
    NOW, claims, read, set,
    synthetic::{Device, World},
    terms,
};

fn case(name: &str) -> Vec<u8> {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/cases").join(name);
    fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn accepted(verdict: &Appraisal) {
    assert!(verdict.accepted(), "{:?}", verdict.refusals);
}

#[test]
fn certificate_tables_in_either_byte_order() {
    for name in ["vcek-be.extended", "vlek-be.extended"] {
        accepted(&set(&[case(&format!("snp-cert-table/{name}"))]).verify(&terms(None, NOW)));
    }
    let mut collected = EvidenceSet::default();
    for name in ["report.bin", "certs.bin"] {
        collected
            .add("cpu", name, case(&format!("snp-cert-table/collected-milan-virtee/{name}")))
            .unwrap();
    }
    accepted(&collected.verify(&terms(None, NOW)));
}

/// The security version of the guest is where an event log has its first event's type.
#[test]
fn an_extended_report_of_any_guest_svn_is_no_event_log() {
    for svn in 0..=0x20 {
        let mut extended = case("snp-cert-table/vcek-be.extended");
        extended[4] = svn;
        let forms: Vec<_> =
            unpack(&extended).unwrap().pieces.into_iter().map(|piece| piece.form).collect();
        assert_eq!(forms, [Form::SnpReport, Form::Certificates], "guest_svn {svn}");
    }
}

#[test]
fn a_report_of_a_later_version_says_which() {
    let refused = set(&[case("snp-version-6.bin"), read("snp/milan-virtee/vcek.der")])
        .verify(&terms(None, NOW));
    let reasons: Vec<_> = refused.refusals.iter().map(|refusal| refusal.reason.as_str()).collect();
    assert!(reasons.iter().any(|reason| reason.contains("version 6")), "{reasons:?}");
}

/// r and s lose their leading zeros: one signature in some 500 is shorter than usual.
#[test]
fn ecdsa_signatures_of_every_length() {
    let nonce = Some("0123456789abcdef0123456789abcdef");
    for length in [68, 69, 70, 72] {
        let signature = case(&format!("ecdsa-short-der/sig-{length}.der"));
        let files = ["quote.msg", "ak.pem", "pcrs.json"]
            .map(|name| case(&format!("ecdsa-short-der/{name}")));
        let verdict = set(&[&files[..], &[signature]].concat()).verify(&terms(nonce, NOW));
        accepted(&verdict);
        assert_eq!(claims(&verdict, "tpm")["ak_scheme"], "ecdsa-sha256");
    }
}

/// A TPM salts as long as its key allows, other signers as long as the digest.
#[test]
fn rsa_pss_signatures_of_every_salt() {
    let nonce = Some("0123456789abcdef0123456789abcdef");
    for salt in ["max", "digest"] {
        let [key, signature] = ["ak.pem".into(), format!("quote-{salt}.sig")]
            .map(|f| case(&format!("pss-max-salt/{f}")));
        let quote = case("ecdsa-short-der/quote.msg");
        let verdict =
            set(&[quote.clone(), key.clone(), signature.clone()]).verify(&terms(nonce, NOW));
        accepted(&verdict);
        assert_eq!(claims(&verdict, "tpm")["ak_scheme"], "rsapss-sha256");
        let mut changed = signature;
        changed[200] ^= 1;
        assert!(!set(&[quote, key, changed]).verify(&terms(nonce, NOW)).accepted());
    }
}

/// Eight SHA-256 values are as long as an RSA-2048 signature: the quote's digest tells.
#[test]
fn register_values_as_long_as_a_signature() {
    let values: Value = serde_json::from_slice(&case("ecdsa-short-der/pcrs.json")).unwrap();
    let registers = values.get("sha256").unwrap_or(&values).as_object().unwrap();
    let mut in_order: Vec<(u8, &str)> = registers
        .iter()
        .map(|(register, value)| (register.parse().unwrap(), value.as_str().unwrap()))
        .collect();
    in_order.sort_unstable();
    let bare: Vec<u8> =
        in_order.iter().flat_map(|(_, value)| hex::decode(value).unwrap()).collect();
    let files =
        ["quote.msg", "ak.pem", "sig-70.der"].map(|name| case(&format!("ecdsa-short-der/{name}")));
    let verdict = set(&[&files[..], &[bare]].concat())
        .verify(&terms(Some("0123456789abcdef0123456789abcdef"), NOW));
    accepted(&verdict);
    assert_eq!(claims(&verdict, "tpm")["pcrs"].as_object().unwrap().len(), in_order.len());
    assert!(!verdict.not_checked().iter().any(|(_, check, _)| *check == "pcr-values"));
}

/// Firmware lists every bank that it could use, and extends those that are active.
#[test]
fn an_event_log_that_lists_banks_which_no_event_carries() {
    let verdict = set(&[case("eventlog-inactive-banks/extra-banks.bin")]).verify(&terms(None, NOW));
    let log = claims(&verdict, "event-log");
    let banks = log["pcrs"].as_object().unwrap();
    assert!(
        banks.contains_key("sha256") && !banks["sha256"].as_object().unwrap().is_empty(),
        "{banks:?}"
    );
}

#[test]
fn byte_order_marks_are_read_or_named() {
    for (name, form) in [
        ("collateral-bom.json", Form::DcapCollateral),
        ("rim-bom.xml", Form::Rim),
        ("utf8-bom.jwks", Form::Jwks),
    ] {
        let pieces = unpack(&case(&format!("byte-order-mark/{name}"))).unwrap().pieces;
        assert_eq!(pieces.iter().map(|piece| piece.form).collect::<Vec<_>>(), [form], "{name}");
    }
    let refused = unpack(&case("byte-order-mark/utf16.jwks")).unwrap_err();
    assert!(
        matches!(refused, UnpackError::Unsupported(why) if why.contains("UTF-16")),
        "{refused:?}"
    );
    // XML may be UTF-16.
    let utf8 = String::from_utf8(case("byte-order-mark/rim-bom.xml")).unwrap();
    let utf16: Vec<u8> = utf8.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(unpack(&utf16).unwrap().pieces[0].form, Form::Rim);
    // The mark may be in front of PEM, hex and tokens as well; lines may end in CRLF.
    let marked = |text: &str| [b"\xef\xbb\xbf", text.as_bytes()].concat();
    let report = hex::encode(read("snp/milan-virtee/report.bin"));
    let lines: Vec<_> =
        report.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    assert_eq!(unpack(&marked(&lines.join("\r\n"))).unwrap().pieces[0].form, Form::SnpReport);
    let pem =
        String::from_utf8(read("snp/_amd-roots/ask_ark_milan.pem")).unwrap().replace('\n', "\r\n");
    assert_eq!(unpack(&marked(&pem)).unwrap().pieces[0].form, Form::Certificates);
}

/// A cache or a folder holds a fleet's certificates; the report says which chip it is of.
#[test]
fn vceks_of_several_machines_beside_a_report() {
    let [report, own] =
        ["report.bin", "vcek.der"].map(|name| read(&format!("snp/milan-virtee/{name}")));
    let others = ["trustee-vcek", "constellation-azure"]
        .map(|folder| read(&format!("snp/{folder}/vcek.der")));
    for order in [
        [&own, &others[0], &others[1]],
        [&others[0], &own, &others[1]],
        [&others[1], &others[0], &own],
    ] {
        let files: Vec<_> = [&report].into_iter().chain(order).cloned().collect();
        accepted(&set(&files).verify(&terms(None, NOW)));
    }
    let strangers = set(&[&[report.clone()][..], &others].concat()).verify(&terms(None, NOW));
    assert!(
        strangers.refusals[0].reason.contains("none of the 2 VCEKs is of chip"),
        "{:?}",
        strangers.refusals
    );
    // Of one stranger it is the chip that differs, not "the firmware was updated".
    let stranger = set(&[report, others[0].clone()]).verify(&terms(None, NOW));
    assert_eq!(stranger.refusals[0].code, "ATT-306", "{:?}", stranger.refusals);
}

/// Two chips' reports, each genuine, are not a machine with two processors.
#[test]
fn attack_two_machines_as_one() {
    let mut two = EvidenceSet::default();
    for folder in ["milan-virtee", "constellation-azure"] {
        for name in ["report.bin", "vcek.der"] {
            two.add(folder, name, read(&format!("snp/{folder}/{name}"))).unwrap();
        }
    }
    let verdict = two.verify(&terms(None, NOW));
    let reasons: Vec<_> = verdict.refusals.iter().map(|refusal| refusal.reason.as_str()).collect();
    assert!(reasons.iter().any(|reason| reason.contains("two machines")), "{reasons:?}");
}

/// Intel's answers as files: in the quote's own folder, and with older ones beside them in any
/// order.
#[test]
fn pieces_of_dcap_collateral_in_any_folder_and_order() {
    const THEN: u64 = 1_787_894_500;
    let pieces = |name: &str| -> Vec<(String, Vec<u8>)> {
        let whole: Value =
            serde_json::from_slice(&read(&format!("tdx/collateral/{name}.json"))).unwrap();
        let text = |member: &str| whole[member].as_str().unwrap().to_owned();
        let body = |member: &str, of: &str| {
            format!(
                "{{\"{member}\":{},\"signature\":\"{}\"}}",
                text(of),
                text(&format!("{of}_signature"))
            )
        };
        vec![
            ("root.crl".into(), hex::decode(text("root_ca_crl")).unwrap()),
            ("signer.pem".into(), text("tcb_info_issuer_chain").into_bytes()),
            ("tcb.json".into(), body("tcbInfo", "tcb_info").into_bytes()),
            ("qe.json".into(), body("enclaveIdentity", "qe_identity").into_bytes()),
            ("pck.crl".into(), hex::decode(text("pck_crl")).unwrap()),
        ]
    };
    let (own, old) = (pieces("near-mpc"), pieces("phala-tdx_quote"));
    assert_ne!(own[0].1, old[0].1, "another list of the root's");
    for (group, files) in [
        ("cpu", own.clone()),
        ("cpu", [&old[..1], &own].concat()),
        ("cpu", [&own[..], &old[..1]].concat()),
        ("", [&old[..], &own].concat()),
        ("", [&own[..], &old].concat()),
    ] {
        let mut set = EvidenceSet::default();
        set.add(group, "quote.bin", read("tdx/quotes/near-mpc.bin")).unwrap();
        files.into_iter().for_each(|(name, bytes)| set.add(group, &name, bytes).unwrap());
        let verdict = set.verify(&terms(None, THEN));
        accepted(&verdict);
        assert_eq!(claims(&verdict, "tdx")["tcb_status"], "UpToDate");
    }
}

/// dstack leaves out a digest that follows from type, name and payload.
#[test]
fn a_dstack_log_without_the_digests_of_its_own_events() {
    let mut log: Value = serde_json::from_slice(&read("ccel/near-mpc/tcb_info.json")).unwrap();
    let mut events: Value = match &log["event_log"] {
        Value::String(text) => serde_json::from_str(text).unwrap(),
        events => events.clone(),
    };
    let runtime: Vec<_> =
        events.as_array_mut().unwrap().iter_mut().filter(|event| event["imr"] == 3).collect();
    assert!(runtime.len() > 2);
    for (n, event) in runtime.into_iter().enumerate() {
        match n % 2 {
            0 => drop(event.as_object_mut().unwrap().remove("digest")),
            _ => event["digest"] = "".into(),
        }
    }
    log["event_log"] = events.clone();
    for log in [log, events] {
        let files = [
            read("tdx/quotes/near-mpc.bin"),
            read("tdx/collateral/near-mpc.json"),
            log.to_string().into_bytes(),
        ];
        accepted(&set(&files).verify(&terms(None, 1_787_894_500)));
    }
}

/// In PPCIE mode the links between GPUs are in clear: one alone, without its switches, is as wrong
/// as seven.
#[test]
fn attack_one_gpu_in_ppcie_mode_without_its_switches() {
    let world = World::new();
    for (device, good) in [(Device::blackwell(), true), (Device::ppcie_gpu(1), false)] {
        let chain = world.chain(&device);
        let root = chain.rfind("-----BEGIN").and_then(|at| chain.get(at..)).unwrap().to_owned();
        let mut terms = terms(None, 1_795_305_600);
        terms.roots = Some(root.into_bytes());
        terms.rules.gpu = GpuRules { golden_values: false, nonce: false, ..GpuRules::default() };
        let verdict = set(&[world.report(&device), chain.into_bytes()]).verify(&terms);
        assert_eq!(verdict.accepted(), good, "{:?}", verdict.refusals);
        assert!(good || verdict.refusals[0].reason.contains("PPCIE"), "{:?}", verdict.refusals);
    }
}
