//! From files to a verdict, on every row of `tests/vectors/evidence/PROVENANCE.md`.

use std::fs;

use cvm_verify::appraise::{Enclosed, EvidenceSet, Terms};
use serde_json::Value;

use super::{NOW, appraise, claims, code, evidence, read, set, terms};

#[test]
fn snp_rows() {
    let amd = "snp/_amd-roots/ask_ark_milan.pem";
    for (folder, leaf, chain) in [
        ("milan-virtee", "vcek.der", amd),
        ("trustee-vcek", "vcek.der", amd),
        ("constellation-azure", "vcek.der", amd),
        ("trustee-vlek", "vlek.der", "snp/_amd-roots/ask_ark_milan_vlek.pem"),
    ] {
        let files = [&*format!("snp/{folder}/report.bin"), &*format!("snp/{folder}/{leaf}"), chain];
        for files in [&files[..], &files[..2]] {
            let appraisal = appraise(files, None, NOW);
            assert!(appraisal.accepted(), "{folder}: {:?}", appraisal.refusals);
            assert!(claims(&appraisal, "snp")["measurement"].is_string());
            assert!(appraisal.not_checked().iter().any(|(_, check, _)| *check == "report-data"));
        }
    }
    let vlek = ["snp/trustee-vlek/report.bin", "snp/trustee-vlek/vlek.der"];
    assert!(!appraise(&vlek, None, 1_766_000_000).accepted(), "a VLEK lives one year");
    for folder in ["trustee-vcek-invalid-legacy", "trustee-vcek-invalid-new"] {
        let files = [format!("snp/{folder}/report.bin"), format!("snp/{folder}/vcek.der")];
        let appraisal = appraise(&[&files[0], &files[1]], None, NOW);
        assert!(!appraisal.accepted() && appraisal.claims().count() == 0, "{folder}");
    }
    // Genuine, but debuggable: the claims are there, and the rules refuse them.
    let debug = appraise(&["snp/google-vcek/report.bin", "snp/google-vcek/vcek.der"], None, NOW);
    assert!(!debug.accepted());
    assert_eq!(debug.claims().count(), 1);
    let alone = appraise(&["snp/turin-virtee-vcek-only/vcek.der"], None, NOW);
    assert_eq!(claims(&alone, "snp-certificates")["signing_key"], "VCEK");
    assert!(
        !appraise(&["snp/milan-virtee/report.bin"], None, NOW).accepted(),
        "no certificate, no verdict"
    );
}

#[test]
fn tdx_rows() {
    for (quote, collateral, now, status) in [
        ("phala-tdx_quote", "phala-tdx_quote", 1_751_624_655, Some("UpToDate")),
        ("phala-tdx_quote", "phala-tdx_quote", 1_756_376_163, None),
        ("phala-tdx_quote", "phala-tdx_quote", 1_746_873_147, None),
        ("phala-tdx_quote", "near-mpc-nopck", 1_787_894_500, Some("OutOfDate")),
        ("near-mpc", "near-mpc", 1_787_894_500, Some("UpToDate")),
        ("near-mpc", "phala-tdx_quote", 1_751_624_655, None),
    ] {
        let files =
            [format!("tdx/quotes/{quote}.bin"), format!("tdx/collateral/{collateral}.json")];
        let appraisal = appraise(&[&files[0], &files[1]], None, now);
        assert_eq!(
            appraisal.accepted(),
            status == Some("UpToDate"),
            "{quote} {now}: {:?}",
            appraisal.refusals
        );
        match status {
            Some(status) => assert_eq!(claims(&appraisal, "tdx")["tcb_status"], status),
            None => assert_eq!(appraisal.claims().count(), 0),
        }
    }
    // A folder of collateral: the one that fits is found.
    let many = ["phala-tdx_quote", "near-mpc", "confai-50806f000000-2026-03"]
        .map(|n| format!("tdx/collateral/{n}.json"));
    let mut files = vec!["tdx/quotes/near-mpc.bin"];
    files.extend(many.iter().map(String::as_str));
    assert!(appraise(&files, None, 1_787_894_500).accepted());
    let debug = appraise(
        &["tdx/quotes/trustee-tdx_quote_4.bin", "tdx/collateral/confai-50806f000000-2026-03.json"],
        None,
        1_774_995_526,
    );
    assert!(
        !debug.accepted() && debug.refusals.iter().any(|r| r.reason.contains("debug")),
        "{:?}",
        debug.refusals
    );
    let log =
        ["ccel/near-mpc/quote.bin", "ccel/near-mpc/tcb_info.json", "tdx/collateral/near-mpc.json"];
    let logged = appraise(&log, None, 1_787_894_500);
    assert!(logged.accepted(), "{:?}", logged.refusals);
    let sgx = appraise(
        &["tdx/quotes/phala-sgx_quote.bin", "tdx/collateral/phala-sgx_quote.json"],
        None,
        1_751_624_924,
    );
    assert_eq!(claims(&sgx, "sgx")["tcb_status"], "ConfigurationAndSWHardeningNeeded");
    assert_eq!(code(&sgx), ["ATT-414"]);
}

#[test]
fn azure_rows() {
    for folder in ["snp-trustee-evidence-v0", "snp-trustee-evidence-v1", "tdx-trustee-evidence-v0"]
    {
        let vouches = if folder.starts_with("snp") { "vcek.der" } else { "td_quote.bin" };
        let files = ["hcl.bin", "pcrs.bin", "quote.msg", "quote.sig", vouches]
            .map(|f| format!("azure/{folder}/{f}"));
        let files = files.each_ref().map(String::as_str);
        let appraisal = appraise(&files, Some("challenge"), NOW);
        // Genuine either way; of a TD's platform nothing is known without Intel's collateral.
        assert_eq!(appraisal.claims().count(), 1, "{folder}: {:?}", appraisal.refusals);
        assert_eq!(
            code(&appraisal),
            if folder.starts_with("tdx") { vec!["ATT-416"] } else { vec![] }
        );
        for nonce in [None, Some(""), Some("another")] {
            assert!(!appraise(&files, nonce, NOW).accepted(), "{folder} {nonce:?}");
        }
        assert!(
            !appraise(&files[..4], Some("challenge"), NOW).accepted(),
            "{folder} without its {vouches}"
        );
    }
}

#[test]
fn tpm_rows() {
    let gce = |bank: &str| {
        [
            "ak.tpmt_public",
            &format!("quote-{bank}.msg"),
            &format!("quote-{bank}.sig"),
            &format!("pcrs-{bank}.json"),
        ]
        .map(|file| format!("tpm/gce-cos-85-nonce9009/{file}"))
    };
    for (bank, accepted) in [("sha256", true), ("sha384", true), ("sha1", false)] {
        let files = gce(bank);
        let mut files: Vec<&str> = files.iter().map(String::as_str).collect();
        files.push("tpm/gce-cos-85-nonce9009/eventlog.bin");
        let appraisal = appraise(&files, Some("9009"), NOW);
        assert_eq!(appraisal.accepted(), accepted, "{bank}: {:?}", appraisal.refusals);
        assert!(!appraise(&files, Some("9008"), NOW).accepted(), "{bank}");
    }
    let own = ["ak.pub", "quote.msg", "quote.sig"]
        .map(|file| format!("tpm/own-swtpm-ecdsa-quote/{file}"));
    let appraisal = appraise(&own.each_ref().map(String::as_str), None, NOW);
    assert!(appraisal.accepted(), "{:?}", appraisal.refusals);
    for log in ["cos-85-amd-sev", "cos-93-amd-sev", "rhel8-uefi", "ubuntu-1804-amd-sev"] {
        let files =
            [format!("tpm/eventlogs/{log}.bin"), format!("tpm/eventlogs/{log}.bin.pcrs.json")];
        let appraisal = appraise(&[&files[0], &files[1]], None, NOW);
        assert!(appraisal.accepted(), "{log}: {:?}", appraisal.refusals);
    }
    let crossed = ["tpm/eventlogs/rhel8-uefi.bin", "tpm/eventlogs/cos-85-amd-sev.bin.pcrs.json"];
    assert!(!appraise(&crossed, None, NOW).accepted());
}

#[test]
fn gpu_rows() {
    let nonce = |folder: &str| {
        fs::read_to_string(evidence().join(format!("gpu/{folder}/nonce.hex"))).unwrap()
    };
    let whole = ["report.bin", "chain.pem", "driver-rim.xml", "vbios-rim.xml"]
        .map(|f| format!("gpu/h100-545.00-e2e/{f}"));
    let whole = whole.each_ref().map(String::as_str);
    // The manifests' signers live about two years.
    let at = (1_680_000_000..1_790_000_000)
        .step_by(5_000_000)
        .find(|now| appraise(&whole, Some(&nonce("h100-545.00-e2e")), *now).accepted())
        .expect("some time at which all is valid");
    assert_eq!(
        claims(&appraise(&whole, Some(&nonce("h100-545.00-e2e")), at), "nvidia")["measres"],
        "success"
    );
    assert!(!appraise(&whole, Some(&"00".repeat(32)), at).accepted());
    assert!(!appraise(&whole, None, at).accepted(), "without a nonce it may be a replay");
    let mut other = whole;
    other[3] = "gpu/h100-545.00-e2e/vbios-rim.mismatch-1-2-3-9.xml";
    assert!(!appraise(&other, Some(&nonce("h100-545.00-e2e")), at).accepted());

    let bare = [
        "gpu/h100-550.90.07/report.bin",
        "gpu/h100-550.90.07/chain.pem",
        "gpu/h100-550.90.07/nonce.hex",
    ];
    let bare = appraise(&bare, None, NOW);
    assert_eq!(
        claims(&bare, "nvidia")["measres"],
        "not-run",
        "genuine, and nothing to compare it with"
    );
    assert!(!bare.accepted());
    let bad = ["gpu/h100-560.00-BADSIG/report.bin", "gpu/h100-560.00-BADSIG/chain.pem"];
    assert_eq!(appraise(&bad, None, NOW).claims().count(), 0);
}

/// Each manifest alone: schema, signature, chain and dates.
#[test]
fn rim_rows() {
    let at = 1_717_200_000; // 2024-06-01
    for name in [
        "1010_0200_882_96005E0001_test_no_gpu",
        "Driver_RIM_test_no_gpu",
        "g520_0200_885_9600740001_PROD",
    ] {
        let file = format!("gpu/rims/{name}.swidtag");
        let valid = appraise(&[&file], None, at);
        assert!(valid.accepted(), "{name}: {:?}", valid.refusals);
        let claims = claims(&valid, "nvidia-rim");
        assert!(
            claims["golden_values"].as_u64().unwrap() > 0 && claims["version"].is_string(),
            "{claims}"
        );
        assert!(valid.not_checked().iter().any(|(_, check, _)| *check == "report"), "{name}");
        // Signers live two years.
        assert_eq!(code(&appraise(&[&file], None, 1_900_000_000)), ["ATT-341"], "{name}, expired");
        assert_eq!(
            code(&appraise(&[&file], None, 1_500_000_000)),
            ["ATT-341"],
            "{name}, not yet valid"
        );
    }
    for whole in ["driver-rim.xml", "vbios-rim.xml"] {
        assert!(
            appraise(&[&format!("gpu/h100-545.00-e2e/{whole}")], None, at).accepted(),
            "{whole}"
        );
    }
    for bad in ["incorrect_signature_driver_rim", "NV_GPU_DRIVER_GH100_570.124.03_expired"] {
        for now in [at, NOW, 1_775_000_000] {
            let refused = appraise(&[&format!("gpu/rims/{bad}.xml")], None, now);
            assert!(!refused.accepted() && refused.claims().count() == 0, "{bad} at {now}");
        }
    }
    // Some other document that says it is one.
    let mut set = EvidenceSet::default();
    set.add("", "rim", b"<SoftwareIdentity name='x'></SoftwareIdentity>".to_vec()).unwrap();
    let refused = set.verify(&Terms { now: at, ..Terms::default() });
    assert!(
        !refused.accepted() && refused.refusals[0].code.starts_with("ATT-34"),
        "{:?}",
        refused.refusals
    );
}

/// The overall token's claims, for its date.
fn unverified(bundle: &[u8]) -> serde_json::Map<String, Value> {
    cvm_verify::token::DetachedEat::parse(bundle).unwrap().overall.unverified_claims().unwrap()
}

#[test]
fn token_rows() {
    let judged = |file: &str, keys: &str, terms: Terms| {
        set(&[read(file)]).verify(&Terms { keys: vec![read(keys)], ..terms })
    };
    let by_its_word = |now| Terms {
        enclosed: Enclosed { issuer: true, ..Enclosed::default() },
        ..terms(None, now)
    };
    let maa = |terms| judged("maa/maa-1-sgx.jwt", "maa/maa-1-sgx.jwks.json", terms);
    let valid = maa(by_its_word(1_625_170_400));
    assert!(valid.accepted(), "{:?}", valid.refusals);
    assert!(valid.not_checked().iter().any(|(_, check, _)| *check == "issuer"));
    assert_eq!(code(&maa(by_its_word(NOW))), ["ATT-355"], "expired");
    let unnamed = maa(terms(None, 1_625_170_400));
    assert_eq!(code(&unnamed), ["ATT-422"], "a token's own word for its issuer");
    claims(&unnamed, "maa");

    let nras = |now| {
        let issuer = Some("https://nras.attestation.nvidia.com".into());
        let keys = "nras/nras-prod-20250609.recovered.pub.pem";
        judged("nras/hopperClaimsv3_detached_eat.json", keys, Terms { issuer, ..terms(None, now) })
    };
    let issued =
        unverified(&read("nras/hopperClaimsv3_detached_eat.json"))["iat"].as_u64().unwrap();
    let valid = nras(issued + 60);
    assert!(valid.accepted(), "{:?}", valid.refusals);
    assert!(!nras(issued + 100_000_000).accepted(), "expired");
    let no_key = appraise(&["nras/hopperClaimsv3_detached_eat.json"], None, issued + 60);
    assert_eq!(code(&no_key), ["ATT-360"], "no key, no verdict");
    assert!(
        !appraise(&["maa/azurevm-token-nokey.jwt"], None, NOW).accepted(),
        "no key, no verdict"
    );
}

#[test]
fn attack_cpu_and_gpu_of_two_machines() {
    let files = [
        "snp/milan-virtee/report.bin",
        "snp/milan-virtee/vcek.der",
        "gpu/h100-550.90.07/report.bin",
        "gpu/h100-550.90.07/chain.pem",
    ];
    assert!(code(&appraise(&files, None, NOW)).contains(&"ATT-361"));
}

#[test]
fn what_is_no_evidence_is_named() {
    let mut set = EvidenceSet::default();
    let refusal = set.add("", "notes.txt", b"hello".to_vec()).unwrap_err();
    assert_eq!(
        (refusal.of.as_str(), refusal.code.as_str()),
        ("notes.txt", "ATT-360"),
        "{refusal:?}"
    );
    assert!(!set.verify(&Terms::default()).accepted());
    let two = ["snp/milan-virtee/report.bin", "snp/trustee-vcek/report.bin"];
    assert_eq!(code(&appraise(&two, None, NOW)), ["ATT-360"]);
}
