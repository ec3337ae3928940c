//! What users read where evidence is refused: the reason that is so, in one encoding, once.

use base64::{Engine, engine::general_purpose as b64};
use cvm_verify::appraise::{Appraisal, EvidenceSet, Terms};
use serde_json::json;

use super::{NOW, appraise, claims, code, ear, machine, mint, read, set, terms, token_terms};

/// The only reason.
fn reason(verdict: &Appraisal) -> &str {
    let [refusal] = &verdict.refusals[..] else { panic!("{:?}", verdict.refusals) };
    &refusal.reason
}

#[test]
fn another_nonce_is_shown_in_hex_beside_the_one_that_was_given() {
    let given = "0bb0000000000000000000000000000000000000000000000000000000000bb0";
    let of_its_digits = hex::encode(given);
    let h100 = |file: &str| format!("gpu/h100-545.00-e2e/{file}");
    let gpu = ["report.bin", "chain.pem", "driver-rim.xml", "vbios-rim.xml"].map(h100);
    let gpu = gpu.each_ref().map(String::as_str);
    let swtpm = ["ak.pub", "quote.msg", "quote.sig"]
        .map(|file| format!("tpm/own-swtpm-ecdsa-quote/{file}"));
    let azure = ["hcl.bin", "quote.msg", "quote.sig", "pcrs.bin", "vcek.der"]
        .map(|file| format!("azure/snp-trustee-evidence-v1/{file}"));
    for (files, now) in [
        (&["snp/milan-virtee/report.bin", "snp/milan-virtee/vcek.der"][..], NOW),
        (&swtpm.each_ref().map(String::as_str), NOW),
        (&azure.each_ref().map(String::as_str), NOW),
        (&gpu, 1_700_000_000),
        (&["tdx/quotes/near-mpc.bin", "tdx/collateral/near-mpc.json"], 1_787_894_500),
    ] {
        let verdict = appraise(files, Some(given), now);
        let reason = reason(&verdict);
        assert!(reason.contains(given) && !reason.contains(&of_its_digits), "{files:?}: {reason}");
    }
    // A device answers 32 bytes, and 16 were given in hex.
    assert!(reason(&appraise(&gpu, Some(&given[..32]), 1_700_000_000)).contains("is shorter"));
    // Given as text: which bytes that is.
    let verdict = appraise(&swtpm.each_ref().map(String::as_str), Some("monday"), NOW);
    assert!(
        reason(&verdict)
            .contains("6d6f6e646179 (\"monday\", the nonce given, is 6d6f6e646179 in hex)")
    );
    // A token's nonce is in base64 there.
    let key = ear::key();
    let token = ear::token(
        &appraise(&["snp/milan-virtee/report.bin", "snp/milan-virtee/vcek.der"], None, NOW),
        &key,
    );
    let keys = key.jwks().to_string().into_bytes();
    let verdict = set(&[token]).verify(&token_terms(&[&keys], "flare-cvm", Some(given), NOW));
    assert!(
        reason(&verdict).contains(given) && reason(&verdict).contains(ear::NONCE),
        "{}",
        reason(&verdict)
    );
}

/// A folder with several signatures, keys and collections of collateral: whatever their order, the
/// reason is of the own one.
#[test]
fn the_reason_is_that_of_the_candidate_which_got_furthest() {
    let gce = |file: &str| read(&format!("tpm/gce-cos-85-nonce9009/{file}"));
    let others = read("tpm/own-swtpm-ecdsa-quote/ak.pub");
    for files in [
        [gce("ak.tpmt_public"), gce("quote-sha384.sig"), gce("quote-sha256.sig"), others.clone()],
        [others, gce("quote-sha256.sig"), gce("quote-sha384.sig"), gce("ak.tpmt_public")],
    ] {
        let files = [&files[..], &[gce("quote-sha256.msg")]].concat();
        let verdict = set(&files).verify(&terms(Some("9010"), NOW));
        assert!(code(&verdict).contains(&"ATT-332"), "{:?}", verdict.refusals);
    }
    // Of two issuers' key sets the one that signed, in either order: the token is late, its
    // signature good.
    let (key, other) = (ear::key(), ear::key());
    let token = ear::token(
        &appraise(&["snp/milan-virtee/report.bin", "snp/milan-virtee/vcek.der"], None, NOW),
        &key,
    );
    let [key, other] = [key, other].map(|key| key.jwks().to_string().into_bytes());
    for keys in [[&key[..], &other], [&other, &key]] {
        let verdict = set(std::slice::from_ref(&token)).verify(&token_terms(
            &keys,
            "flare-cvm",
            Some(ear::NONCE),
            NOW + 4000,
        ));
        assert_eq!(code(&verdict), ["ATT-355"]);
        assert!(reason(&verdict).contains("2025-10-09T"), "{}", reason(&verdict));
    }
}

/// Beside other chips' certificates, the chip's own for an older TCB says what happened: the
/// firmware was updated.
#[test]
fn a_fleets_certificates_beside_the_own_one_of_an_older_firmware() {
    let (line, spec) = (mint::line("Milan"), mint::vcek("Milan-B0"));
    let (_, key) = mint::endorse(&line.ask.1, &spec);
    let report = mint::sign(mint::report(2, [0; 3], &spec), &key);
    let older = mint::Spec { tcb: [9, 3, 1, 19, 0xd5], ..mint::vcek("Milan-B0") };
    let another =
        |n| mint::Spec { hw_id: Some(vec![n; 64]), tcb: older.tcb, ..mint::vcek("Milan-B0") };
    let [own, second, third] =
        [&older, &another(1), &another(2)].map(|spec| mint::endorse(&line.ask.1, spec).0);
    let roots = mint::pem(&[&line.ark.0, &line.ask.0, &line.asvk.0]).into_bytes();
    let judged = |certificates: &[&Vec<u8>]| {
        let files: Vec<_> =
            [&report].into_iter().chain(certificates.iter().copied()).cloned().collect();
        set(&files).verify(&Terms { roots: Some(roots.clone()), ..terms(None, NOW) })
    };
    for certificates in [[&own, &second, &third], [&second, &third, &own]] {
        assert_eq!(code(&judged(&certificates)), ["ATT-305"], "its own TCB differs");
    }
    assert_eq!(code(&judged(&[&second])), ["ATT-306"], "another chip's, of another TCB too");
    assert_eq!(code(&judged(&[&second, &third])), ["ATT-303"], "none is the chip's");
}

/// Another platform's collateral is that, whatever its dates; the own one's dates are what matters.
#[test]
fn collateral_of_several_platforms_none_of_which_is_valid() {
    const BEFORE: u64 = 1_780_272_000; // 2026-06-01
    let [quote, own, foreign, other] = [
        "quotes/near-mpc.bin",
        "collateral/near-mpc.json",
        "collateral/confai-50806f000000-2026-03.json",
        "collateral/phala-sgx_quote.json",
    ]
    .map(|name| read(&format!("tdx/{name}")));
    let judged = |files: &[&Vec<u8>]| {
        let files: Vec<_> = [&quote].into_iter().chain(files.iter().copied()).cloned().collect();
        set(&files).verify(&terms(None, BEFORE))
    };
    let alone = judged(&[&own]);
    assert_eq!(code(&alone), ["ATT-412"]);
    for files in [[&own, &foreign, &other], [&foreign, &other, &own]] {
        assert_eq!(judged(&files).refusals, alone.refusals);
    }
    for files in [&[&foreign][..], &[&other], &[&other, &foreign]] {
        assert_eq!(code(&judged(files)), ["ATT-413"]);
    }
}

#[test]
fn missing_collateral_is_what_is_said_to_be_missing() {
    let verdict = appraise(&["tdx/quotes/near-mpc.bin"], None, 1_787_894_500);
    assert_eq!(code(&verdict), ["ATT-416"]);
    assert!(verdict.refusals[0].help.contains("collateral"), "{:?}", verdict.refusals);
    // Late, it is the collateral's date, as dates are written.
    let verdict =
        appraise(&["tdx/quotes/near-mpc.bin", "tdx/collateral/near-mpc.json"], None, 1_887_894_500);
    assert_eq!(code(&verdict), ["ATT-412"]);
    assert!(reason(&verdict).ends_with("not at 2029-10-28T15:08:20Z"), "{}", reason(&verdict));
    assert_eq!(verdict.refusals[0].of, "the DCAP collateral");
}

#[test]
fn a_certificate_out_of_date_is_said_in_words() {
    let verdict = appraise(
        &["snp/trustee-vlek/report.bin", "snp/trustee-vlek/vlek.der"],
        None,
        1_887_894_500,
    );
    let reason = reason(&verdict);
    assert!(
        reason.contains("it was valid until 202") && reason.contains("not at 2029-10-28T15:08:20Z"),
        "{reason}"
    );
    assert!(!reason.contains("CertExpired") && !reason.contains("1887894500"), "{reason}");
}

#[test]
fn a_key_that_is_named_with_sha1_is_called_that() {
    let gce = |file: &str| read(&format!("tpm/gce-cos-85-nonce9009/{file}"));
    let mut key = gce("ak.tpmt_public");
    key[2..4].copy_from_slice(&[0, 4]);
    let verdict = set(&[key, gce("quote-sha256.msg"), gce("quote-sha256.sig")])
        .verify(&terms(Some("9009"), NOW));
    assert!(reason(&verdict).contains("SHA-1"), "{:?}", verdict.refusals);
}

/// As attestation-rs writes it: the report in base64 where Trustee has its fields.
#[test]
fn a_report_in_base64_under_trustees_name_is_read() {
    let (report, vcek, roots) = machine(|_| {});
    let [report, vcek] = [report, vcek].map(|bytes| b64::STANDARD.encode(bytes));
    let terms = Terms { roots: Some(roots), ..terms(None, NOW) };
    let body = json!({ "attestation_report": report, "cert_chain": { "vcek": vcek } });
    let verdict = set(&[body.to_string().into_bytes()]).verify(&terms);
    assert!(verdict.accepted(), "{:?}", verdict.refusals);
    claims(&verdict, "snp");
    // What cannot be read is not quoted whole.
    let body = json!({ "attestation_report": { "version": report } });
    let verdict = set(&[body.to_string().into_bytes()]).verify(&terms);
    assert!(
        reason(&verdict).len() < 400 && reason(&verdict).contains("characters)"),
        "{}",
        reason(&verdict)
    );
}

#[test]
fn a_token_of_a_service_that_nobody_here_reads_is_called_that() {
    let part = |value: serde_json::Value| b64::URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({ "iss": "https://confidentialcomputing.googleapis.com", "eat_nonce": "x",
        "hwmodel": "INTEL_TDX" });
    let token =
        [part(json!({ "alg": "RS256", "kid": "1" })), part(claims), "AAAA".into()].join(".");
    let keys = ear::key().jwks().to_string().into_bytes();
    let verdict = set(&[token.into_bytes()]).verify(&token_terms(&[&keys], "google", None, NOW));
    assert!(
        reason(&verdict).contains("googleapis.com, which is of no service that is known here"),
        "{}",
        reason(&verdict)
    );
}

#[test]
fn three_hundred_files_are_refused_in_a_few_lines() {
    let mut files = EvidenceSet::default();
    for n in 0..300_u32 {
        files.present("m", &format!("m/{n}.bin"), vec![0; 1001 + 2 * n as usize]);
    }
    let verdict = files.verify(&terms(None, NOW));
    assert!(!verdict.accepted());
    assert!(verdict.refusals.len() < 16, "{}", verdict.refusals.len());
    let more = verdict.refusals.iter().find(|refusal| refusal.of == "248 more");
    assert!(more.is_some(), "{:?}", verdict.refusals);
    assert!(
        verdict.refusals.iter().any(|refusal| refusal.of == "m/256.bin"),
        "{:?}",
        verdict.refusals
    );
}
