//! TDX and SGX quotes on real evidence, against the verdicts of PROVENANCE.md and against dcap-qvl, a second
//! implementation: what we accept, it accepts with the same status and advisories.

use std::{fs, path::PathBuf};

use cvm_attest::{
    rtmr::{RtmrEvent, explain},
    tdx::{
        CcEventLog, Collateral, DcapVerifier, INTEL_ROOT_PEM, Quote, TcbStatus, TdxClaims, TdxError, TdxEvidence,
        TdxPolicy, intel_roots,
    },
    x509::Certificate,
};
use cvm_base::Explain as _;
use serde_json::{Value, json};

fn evidence(name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/evidence");
    fs::read(folder.join(name)).unwrap()
}

fn quote(name: &str) -> Vec<u8> {
    evidence(&format!("tdx/quotes/{name}.bin"))
}

fn collateral_json(name: &str) -> Vec<u8> {
    evidence(&format!("tdx/collateral/{name}.json"))
}

fn collateral(name: &str) -> Collateral {
    Collateral::parse(&collateral_json(name)).unwrap()
}

fn verifier(name: &str, now: u64) -> Result<DcapVerifier, TdxError> {
    DcapVerifier::new(intel_roots().unwrap(), Some(&collateral(name)), now)
}

fn td(quote: &[u8], collateral: &str, now: u64) -> Result<TdxClaims, TdxError> {
    verifier(collateral, now)?.verify(&TdxEvidence::parse(quote, None)?, None, now)
}

/// Status and advisories of ours, in dcap-qvl's words.
fn ours(verifier: &DcapVerifier, quote: &[u8], now: u64) -> Result<(String, Vec<String>), TdxError> {
    let parsed = Quote::parse(quote)?;
    let platform = if parsed.header.version.0[0] == 3 {
        verifier.verify_sgx(&parsed, None, now)?.platform
    } else {
        let claims = verifier.verify(&TdxEvidence::parse(quote, None)?, None, now)?;
        // dcap-qvl holds attributes against a policy of its own.
        let policy = TdxPolicy { tcb_statuses: ALL.into(), ..TdxPolicy::default() };
        policy.check(&claims)?;
        claims.platform
    };
    Ok((platform.tcb_status.unwrap().to_string(), platform.advisory_ids))
}

const ALL: [TcbStatus; 8] = [
    TcbStatus::UpToDate,
    TcbStatus::SWHardeningNeeded,
    TcbStatus::ConfigurationNeeded,
    TcbStatus::ConfigurationAndSWHardeningNeeded,
    TcbStatus::OutOfDate,
    TcbStatus::OutOfDateConfigurationNeeded,
    TcbStatus::TDRelaunchAdvised,
    TcbStatus::TDRelaunchAdvisedConfigurationNeeded,
];

fn theirs(collateral: &dcap_qvl::QuoteCollateralV3, quote: &[u8], now: u64) -> Option<(String, Vec<String>)> {
    let report = dcap_qvl::verify::ring::verify(quote, collateral, now).ok()?;
    Some((report.status, report.advisory_ids))
}

const NEAR: u64 = 1_787_894_500;
const PHALA: u64 = 1_751_624_655;
const SGX: u64 = 1_751_624_924;
const CONFAI: u64 = 1_774_995_526;

/// Every row of PROVENANCE.md, and whether status and advisories are those stated.
#[test]
fn verdicts_of_provenance() {
    type Expected = Result<(&'static str, &'static [&'static str]), &'static str>;
    let rows: [(&str, &str, u64, Expected); 9] = [
        ("phala-tdx_quote", "phala-tdx_quote", PHALA, Ok(("UpToDate", &[]))),
        ("phala-tdx_quote", "phala-tdx_quote", 1_756_376_163, Err("ATT-412")),
        ("phala-tdx_quote", "phala-tdx_quote", 1_746_873_147, Err("ATT-412")),
        (
            "phala-tdx_quote",
            "near-mpc-nopck",
            NEAR,
            Ok(("OutOfDate", &["INTEL-SA-01192", "INTEL-SA-01245", "INTEL-SA-01312", "INTEL-SA-01313"])),
        ),
        ("near-mpc", "near-mpc", NEAR, Ok(("UpToDate", &[]))),
        ("near-mpc", "near-mpc-nopck", NEAR, Ok(("UpToDate", &[]))),
        ("near-mpc", "phala-tdx_quote", PHALA, Err("ATT-312")),
        ("trustee-tdx_quote_4", "confai-50806f000000-2026-03", CONFAI, Err("ATT-415")),
        (
            "phala-sgx_quote",
            "phala-sgx_quote",
            SGX,
            Ok(("ConfigurationAndSWHardeningNeeded", &["INTEL-SA-00289", "INTEL-SA-00615"])),
        ),
    ];
    for (name, with, now, expected) in rows {
        let bytes = quote(name);
        let found = verifier(with, now).and_then(|verifier| ours(&verifier, &bytes, now));
        let oracle = theirs(&serde_json::from_slice(&collateral_json(with)).unwrap(), &bytes, now);
        match (expected, found) {
            (Ok((status, advisories)), Ok(mut found)) => {
                found.1.sort();
                assert_eq!((&*found.0, &found.1[..]), (status, &advisories.map_strings()[..]), "{name} {with}");
                let mut oracle = oracle.unwrap();
                oracle.1.sort();
                assert_eq!(found, oracle, "{name} {with}");
            }
            (Err(code), Err(error)) => {
                assert_eq!(error.code(), code, "{name} {with}: {error}");
                assert_eq!(oracle, None, "{name} {with}");
            }
            (expected, found) => panic!("{name} {with}: expected {expected:?}, found {found:?}"),
        }
    }
}

trait MapStrings {
    fn map_strings(&self) -> Vec<String>;
}

impl MapStrings for [&str] {
    fn map_strings(&self) -> Vec<String> {
        self.iter().map(ToString::to_string).collect()
    }
}

#[test]
fn the_root_is_intels() {
    let embedded = &intel_roots().unwrap()[0];
    assert!(embedded.subject().contains("Intel SGX Root CA"));
    for name in ["near-mpc", "phala-tdx_quote", "phala-sgx_quote", "confai-50806f000000-2026-03"] {
        let document: Value = serde_json::from_slice(&collateral_json(name)).unwrap();
        let chain = Certificate::read_all(document["tcb_info_issuer_chain"].as_str().unwrap().as_bytes()).unwrap();
        assert_eq!(chain.last().unwrap(), embedded);
    }
    assert!(INTEL_ROOT_PEM.starts_with(b"-----BEGIN CERTIFICATE-----"));
}

#[test]
fn claims_are_laid_out_like_trustees() {
    let evidence = TdxEvidence::parse(&quote("near-mpc"), Some(&evidence("ccel/near-mpc/tcb_info.json"))).unwrap();
    let claims = verifier("near-mpc", NEAR).unwrap().verify(&evidence, None, NEAR).unwrap();
    TdxPolicy::default().check(&claims).unwrap();
    let value = serde_json::to_value(&claims).unwrap();
    for (pointer, expected) in [
        ("/quote/header/version", json!("0400")),
        ("/quote/header/tee_type", json!("81000000")),
        ("/quote/header/vendor_id", json!("939a7233f79c4ca9940a0db3957f0607")),
        ("/quote/body/tcb_svn", json!("0b010400000000000000000000000000")),
        ("/quote/body/xfam", json!("e702060000000000")),
        ("/td_attributes/debug", json!(false)),
        ("/td_attributes/septve_disable", json!(true)),
        ("/tcb_status", json!("UpToDate")),
        ("/advisory_ids", json!([])),
        ("/collateral_expiration_status", json!("0")),
        ("/tcb_date", json!("2025-08-13T00:00:00Z")),
        ("/earliest_issue_date", json!("2018-05-21T10:45:10Z")),
        ("/fmspc", json!("b0c06f000000")),
        ("/sgx_type", json!("Scalable")),
        ("/tcb_eval_num", json!(19)),
        ("/uefi_event_logs/0/index", json!(1)),
        ("/uefi_event_logs/11/type_name", json!("EV_EFI_BOOT_SERVICES_APPLICATION")),
        ("/uefi_event_logs/11/details/device_paths/0", json!("File(kernel)")),
        ("/uefi_event_logs/11/digests/0/alg", json!("SHA-384")),
        ("/uefi_event_logs/16/details/string", json!("LOADED_IMAGE::LoadOptions")),
        ("/not_checked/0/check", json!("report-data")),
    ] {
        assert_eq!(value.pointer(pointer), Some(&expected), "{pointer}");
    }
    assert_eq!(value["quote"]["body"]["mr_td"].as_str().unwrap().len(), 96);
    assert_eq!(value["init_data"], value["quote"]["body"]["mr_config_id"]);
    assert_eq!(serde_json::from_value::<TdxClaims>(value).unwrap(), claims);
    // What dcap-qvl computes from the same collateral.
    let key = claims.platform.root_key_id.unwrap().to_string();
    assert!(key.starts_with("46e403bd34f05a3f2817ab9badcaacc7ffc98e0f261008cd30dae936cace18d5"), "{key}");
}

#[test]
fn sgx_claims_are_laid_out_like_trustees() {
    let quote = Quote::parse(&quote("phala-sgx_quote")).unwrap();
    let claims = verifier("phala-sgx_quote", SGX).unwrap().verify_sgx(&quote, None, SGX).unwrap();
    let value = serde_json::to_value(&claims).unwrap();
    assert_eq!(value["header"]["version"], "0300");
    assert_eq!(value["body"]["mr_enclave"].as_str().unwrap().len(), 64);
    assert_eq!(value["tcb_status"], "ConfigurationAndSWHardeningNeeded");
    // A TD's verifier takes no enclave, and the other way round.
    let error = verifier("phala-sgx_quote", SGX)
        .unwrap()
        .verify(&TdxEvidence::parse(&self::quote("phala-sgx_quote"), None).unwrap(), None, SGX)
        .unwrap_err();
    assert_eq!(error.code(), "ATT-310");
}

#[test]
fn what_was_not_checked_is_said() {
    let bytes = evidence("azure/tdx-trustee-evidence-v0/td_quote.bin");
    let evidence = TdxEvidence::parse(&bytes, None).unwrap();
    let verifier = DcapVerifier::new(intel_roots().unwrap(), None, NEAR).unwrap();
    let claims = verifier.verify(&evidence, None, NEAR).unwrap();
    let checks: Vec<_> = claims.not_checked.iter().map(|check| &*check.check).collect();
    assert_eq!(checks, ["report-data", "certificate-revocation", "tcb-status", "qe-identity", "event-log"]);
    assert_eq!(claims.platform.tcb_status, None);
    assert_eq!(claims.platform.fmspc.to_string(), "00806f050000");
    // Azure's paravisor runs without SEPT_VE_DISABLE.
    let strict = TdxPolicy::default();
    assert!(strict.check(&claims).unwrap_err().to_string().contains("SEPT_VE_DISABLE"));
    let azure = TdxPolicy { require_septve_disable: false, ..strict };
    assert!(azure.check(&claims).unwrap_err().to_string().contains("no collateral"));
    TdxPolicy { allow_unknown_tcb: true, ..azure }.check(&claims).unwrap();
    // REPORT_DATA starts with the runtime JSON's digest.
    let expected = claims.report_data.0;
    let claims = verifier.verify(&evidence, Some(&expected), NEAR).unwrap();
    assert!(claims.not_checked.iter().all(|check| check.check != "report-data"));
}

#[test]
fn attack_report_data_of_another_session() {
    let verifier = verifier("near-mpc", NEAR).unwrap();
    let evidence = TdxEvidence::parse(&quote("near-mpc"), None).unwrap();
    let right = verifier.verify(&evidence, None, NEAR).unwrap().report_data.0;
    verifier.verify(&evidence, Some(&right), NEAR).unwrap();
    for wrong in [&right[..32], &[0; 64], &[], &[right.as_slice(), &[0]].concat()] {
        assert_eq!(verifier.verify(&evidence, Some(wrong), NEAR).unwrap_err().code(), "ATT-317");
    }
}

/// All bits of header and report; then of what vouches for them, up to the PCK chain (in debug builds, which are
/// slow, every fifth).
#[test]
fn attack_one_bit_changed_in_what_is_signed() {
    let good = quote("near-mpc");
    let verifier = verifier("near-mpc", NEAR).unwrap();
    assert!(ours(&verifier, &good, NEAR).is_ok());
    // Header and body 632, size 4, signature and key 128, type and size 6, QE report and signature 448,
    // authentication data 34, type and size 6.
    let vouching =
        (632 * 8..(632 + 4 + 128 + 6 + 448 + 34 + 6) * 8).step_by(if cfg!(debug_assertions) { 5 } else { 1 });
    for bit in (0..632 * 8).chain(vouching) {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let verdict = TdxEvidence::parse(&bad, None).and_then(|bad| verifier.verify(&bad, None, NEAR));
        assert!(verdict.is_err(), "byte {}, bit {}", bit / 8, bit % 8);
    }
}

/// Ours accepts nothing that dcap-qvl refuses; where it is stricter, the reason is one of these.
#[test]
fn damaged_quotes_get_the_verdict_of_dcap_qvl() {
    for (name, with, now) in [("near-mpc", "near-mpc-nopck", NEAR), ("phala-sgx_quote", "phala-sgx_quote", SGX)] {
        let good = quote(name);
        let verifier = verifier(with, now).unwrap();
        let oracle = serde_json::from_slice(&collateral_json(with)).unwrap();
        // A step that shares no factor with 8 meets every bit, header, report, chain and padding.
        for bit in (0..good.len() * 8).step_by(173) {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            match (ours(&verifier, &bad, now), theirs(&oracle, &bad, now)) {
                (Ok(ours), Some(theirs)) => assert_eq!(ours, theirs, "{name} bit {bit}"),
                // The bits that base64 leaves over before its padding are in no certificate.
                (Ok(_), None) => assert_eq!(bad[bit / 8 + 1], b'=', "{name} bit {bit}: only dcap-qvl refuses"),
                (Err(error), Some(_)) => {
                    let text = error.to_string();
                    let known = ["not zero", "certification data", "(PCK)", "bytes too many"];
                    assert!(known.iter().any(|reason| text.contains(reason)), "{name} bit {bit}: {text}");
                }
                (Err(_), None) => {}
            }
        }
    }
}

#[test]
fn damaged_collateral_gets_the_verdict_of_dcap_qvl() {
    let good: Value = serde_json::from_slice(&collateral_json("near-mpc-nopck")).unwrap();
    let bytes = quote("near-mpc");
    for member in good.as_object().unwrap().keys() {
        let text = good[member].as_str().unwrap();
        for position in (0..text.len()).step_by(1 + text.len() / 15) {
            let mut changed = text.as_bytes().to_vec();
            changed[position] = if changed[position] == b'1' { b'2' } else { b'1' };
            let mut bad = good.clone();
            bad[member] = json!(String::from_utf8(changed).unwrap());
            let json = serde_json::to_vec(&bad).unwrap();
            let found = Collateral::parse(&json)
                .and_then(|collateral| DcapVerifier::new(intel_roots().unwrap(), Some(&collateral), NEAR))
                .and_then(|verifier| ours(&verifier, &bytes, NEAR));
            let oracle = serde_json::from_slice(&json).ok().and_then(|oracle| theirs(&oracle, &bytes, NEAR));
            match (&found, &oracle) {
                // The chains' root, which neither needs, must at least be a certificate.
                (Err(error), Some(_)) => assert!(error.to_string().contains("cannot be read"), "{member}: {error}"),
                _ => assert_eq!(found.as_ref().ok(), oracle.as_ref(), "{member} {position}: {found:?}"),
            }
        }
    }
}

#[test]
fn damaged_inputs_never_panic_and_never_verify() {
    let verifier = verifier("near-mpc", NEAR).unwrap();
    let good = quote("near-mpc");
    for end in (0..4936).step_by(7).chain(4900..4936) {
        assert!(ours(&verifier, &good[..end], NEAR).is_err(), "cut at {end}");
    }
    assert!(ours(&verifier, &good[..4936], NEAR).is_ok(), "padding is not needed");
    assert_eq!(Quote::parse(&vec![0; 64 * 1024 + 1]).unwrap_err().code(), "ATT-310");
    assert_eq!(Collateral::parse(&vec![b' '; 4 * 1024 * 1024 + 1]).unwrap_err().code(), "ATT-411");
    // Sizes of 4 GiB are read and refused, not allocated.
    for at in [632, 766, 1252] {
        let mut bad = good.clone();
        bad[at..at + 4].fill(0xff);
        assert_eq!(Quote::parse(&bad).unwrap_err().code(), "ATT-310");
    }
}

#[test]
fn attack_collateral_of_another_platform_or_tee() {
    let debug = quote("trustee-tdx_quote_4"); // FMSPC 50806f000000
    assert_eq!(td(&debug, "near-mpc-nopck", NEAR).unwrap_err().code(), "ATT-413");
    // SGX's lists are of another CA.
    assert_eq!(td(&quote("phala-tdx_quote"), "phala-sgx_quote", SGX).unwrap_err().code(), "ATT-312");
    // TDX's QE identity beside SGX's TCB info, both genuine.
    let mut mixed: Value = serde_json::from_slice(&collateral_json("phala-tdx_quote")).unwrap();
    let sgx: Value = serde_json::from_slice(&collateral_json("phala-sgx_quote")).unwrap();
    for member in ["tcb_info", "tcb_info_signature"] {
        mixed[member] = sgx[member].clone();
    }
    let mixed = Collateral::parse(&serde_json::to_vec(&mixed).unwrap()).unwrap();
    let verifier = DcapVerifier::new(intel_roots().unwrap(), Some(&mixed), PHALA).unwrap();
    let evidence = TdxEvidence::parse(&quote("phala-tdx_quote"), None).unwrap();
    assert_eq!(verifier.verify(&evidence, None, PHALA).unwrap_err().code(), "ATT-413");
}

#[test]
fn attack_collateral_that_expired_after_it_was_verified() {
    let verifier = verifier("phala-tdx_quote", PHALA).unwrap();
    let evidence = TdxEvidence::parse(&quote("phala-tdx_quote"), None).unwrap();
    assert!(verifier.verify(&evidence, None, PHALA).is_ok());
    for now in [0, 1_746_873_147, 1_756_376_163, u64::MAX] {
        assert_eq!(verifier.verify(&evidence, None, now).unwrap_err().code(), "ATT-412", "{now}");
    }
    // A remembered chain is no longer valid: without collateral only its own dates count.
    let verifier = DcapVerifier::new(intel_roots().unwrap(), None, PHALA).unwrap();
    assert!(verifier.verify(&evidence, None, PHALA).is_ok());
    assert_eq!(verifier.verify(&evidence, None, 2_000_000_000).unwrap_err().code(), "ATT-312");
}

/// dcap-qvl takes the collateral's chain instead of the quote's.
#[test]
fn attack_collateral_replaces_the_pck_chain() {
    let evidence = TdxEvidence::parse(&quote("near-mpc"), None).unwrap();
    let own = quote("near-mpc");
    let pem = |bytes: &[u8]| {
        let start = bytes.windows(11).position(|window| window == b"-----BEGIN ").unwrap();
        String::from_utf8(bytes[start..].to_vec()).unwrap().trim_end_matches('\0').to_owned()
    };
    let with = |chain: String| {
        let mut document: Value = serde_json::from_slice(&collateral_json("near-mpc-nopck")).unwrap();
        document["pck_certificate_chain"] = json!(chain);
        let collateral = Collateral::parse(&serde_json::to_vec(&document).unwrap()).unwrap();
        let verifier = DcapVerifier::new(intel_roots().unwrap(), Some(&collateral), NEAR).unwrap();
        verifier.verify(&evidence, None, NEAR).map(|claims| claims.platform.tcb_status)
    };
    assert_eq!(with(pem(&own)), Ok(Some(TcbStatus::UpToDate)));
    // The same certificates, written in another way.
    assert_eq!(with(pem(&own).replace('\n', "\r\n")), Ok(Some(TcbStatus::UpToDate)));
    for other in
        [pem(&quote("phala-tdx_quote")), String::new(), "x".into(), pem(&own).replacen("-----END", "A\n-----END", 1)]
    {
        assert_eq!(with(other).unwrap_err().code(), "ATT-311");
    }
}

#[test]
fn attack_chains_in_wrong_order_or_without_their_root() {
    let document: Value = serde_json::from_slice(&collateral_json("near-mpc-nopck")).unwrap();
    let chain = document["tcb_info_issuer_chain"].as_str().unwrap();
    let split = chain.rfind("-----BEGIN").unwrap();
    let (signer, root) = chain.split_at(split);
    let bytes = quote("near-mpc");
    let platform = String::from_utf8_lossy(&bytes[1258..4936]).into_owned();
    let platform = platform.trim_end_matches('\0').trim_end().to_owned() + "\n";
    let verify = |member: &str, chain: String| {
        let mut document = document.clone();
        document[member] = json!(chain);
        let collateral = Collateral::parse(&serde_json::to_vec(&document).unwrap()).unwrap();
        DcapVerifier::new(intel_roots().unwrap(), Some(&collateral), NEAR).map(drop)
    };
    for member in ["tcb_info_issuer_chain", "qe_identity_issuer_chain"] {
        assert_eq!(verify(member, format!("{root}\n{signer}")).unwrap_err().code(), "ATT-312");
        assert_eq!(verify(member, root.into()).unwrap_err().code(), "ATT-312");
        assert!(verify(member, String::new()).is_err());
        // A platform's certificate is below the same root, and must sign no TCB info.
        assert_eq!(verify(member, platform.clone()).unwrap_err().code(), "ATT-312");
        // The root in the chain is not needed: the trusted one is the verifier's.
        verify(member, signer.into()).unwrap();
    }
    let no_roots = DcapVerifier::new(vec![], Some(&collateral("near-mpc")), NEAR).unwrap_err();
    assert_eq!(no_roots.code(), "ATT-312");
}

#[test]
fn attack_revocation_lists_left_out_or_of_another_ca() {
    let evidence = TdxEvidence::parse(&quote("near-mpc"), None).unwrap();
    let sgx: Value = serde_json::from_slice(&collateral_json("phala-sgx_quote")).unwrap();
    let verify = |change: &dyn Fn(&mut Value), now| {
        let mut document: Value = serde_json::from_slice(&collateral_json("near-mpc-nopck")).unwrap();
        change(&mut document);
        let collateral = Collateral::parse(&serde_json::to_vec(&document).unwrap())?;
        DcapVerifier::new(intel_roots().unwrap(), Some(&collateral), now)?.verify(&evidence, None, now).map(drop)
    };
    assert_eq!(verify(&|_| {}, NEAR), Ok(()));
    // The root's list twice: nothing covers the platform. The platform's twice: nothing covers the signer.
    let refused = verify(&|d| d["pck_crl"] = d["root_ca_crl"].clone(), NEAR).unwrap_err();
    assert_eq!(refused.code(), "ATT-312", "{refused}");
    let refused = verify(&|d| d["root_ca_crl"] = d["pck_crl"].clone(), NEAR).unwrap_err();
    assert_eq!(refused.code(), "ATT-312", "{refused}");
    assert_eq!(verify(&|d| d["pck_crl"] = json!(""), NEAR).unwrap_err().code(), "ATT-411");
    // An old list of the other CA (processor).
    assert!(verify(&|d| d["pck_crl"] = sgx["pck_crl"].clone(), NEAR).is_err());
    let without = |d: &mut Value| drop(d.as_object_mut().unwrap().remove("pck_crl"));
    assert_eq!(verify(&without, NEAR).unwrap_err().code(), "ATT-411");
}

#[test]
fn policy_decides_what_is_acceptable() {
    let outdated = td(&quote("phala-tdx_quote"), "near-mpc-nopck", NEAR).unwrap();
    let strict = TdxPolicy::default();
    let refused = strict.check(&outdated).unwrap_err();
    assert_eq!(refused.code(), "ATT-414");
    assert!(refused.to_string().contains("OutOfDate (INTEL-SA-01192, INTEL-SA-01245"), "{refused}");
    let lax = TdxPolicy { tcb_statuses: [TcbStatus::OutOfDate].into(), ..strict.clone() };
    lax.check(&outdated).unwrap();
    let code = |policy: TdxPolicy, claims: &TdxClaims| policy.check(claims).unwrap_err().code();
    let rejected = TdxPolicy { rejected_advisories: ["INTEL-SA-01313".into()].into(), ..lax.clone() };
    assert_eq!(code(rejected, &outdated), "ATT-415");
    assert_eq!(code(TdxPolicy { accepted_advisories: Some([].into()), ..lax.clone() }, &outdated), "ATT-415");
    let revoked = TdxPolicy { tcb_statuses: [TcbStatus::Revoked].into(), ..strict.clone() };
    assert_eq!(code(revoked.clone(), &outdated), "ATT-414");
    let mut claims = outdated.clone();
    claims.platform.tcb_status = Some(TcbStatus::Revoked);
    assert_eq!(code(revoked, &claims), "ATT-414");

    let good = td(&quote("near-mpc"), "near-mpc", NEAR).unwrap();
    strict.check(&good).unwrap();
    let mrtd = good.quote.body.mr_td;
    TdxPolicy { mr_td: Some([mrtd].into()), ..strict.clone() }.check(&good).unwrap();
    assert_eq!(code(TdxPolicy { mr_td: Some([].into()), ..strict.clone() }, &good), "ATT-415");
    assert_eq!(code(TdxPolicy { rtmrs: [None, None, Some([mrtd].into()), None], ..strict.clone() }, &good), "ATT-415");
    assert_eq!(code(TdxPolicy { mr_signer_seam: mrtd, ..strict.clone() }, &good), "ATT-415");
    assert_eq!(code(TdxPolicy { min_tcb_evaluation_data_number: Some(20), ..strict.clone() }, &good), "ATT-415");
    let mut svn = good.quote.body.tcb_svn;
    TdxPolicy { min_tee_tcb_svn: Some(svn), ..strict.clone() }.check(&good).unwrap();
    svn.0[2] += 1;
    assert_eq!(code(TdxPolicy { min_tee_tcb_svn: Some(svn), ..strict.clone() }, &good), "ATT-415");

    let debug = td(&quote("trustee-tdx_quote_4"), "confai-50806f000000-2026-03", CONFAI).unwrap();
    assert!(debug.td_attributes.debug);
    assert!(
        TdxPolicy { tcb_statuses: ALL.into(), ..strict.clone() }
            .check(&debug)
            .unwrap_err()
            .to_string()
            .contains("debug")
    );
    for change in [
        (|c: &mut TdxClaims| c.td_attributes.profiling = true) as fn(&mut TdxClaims),
        |c| c.td_attributes.migratable = true,
        |c| c.td_attributes.servtd_ext = true,
        |c| c.quote.body.mr_servicetd = Some(cvm_base::Bytes([1; 48])),
        |c| c.quote.body.xfam.0[7] = 0x80,
        |c| c.quote.body.xfam.0[0] = 0,
        |c| c.platform.tcb_status = None,
    ] {
        let mut claims = good.clone();
        change(&mut claims);
        assert_eq!(code(strict.clone(), &claims), "ATT-415");
    }
}

#[test]
fn the_event_log_replays_all_four_registers() {
    let log = evidence("ccel/near-mpc/tcb_info.json");
    let verifier = verifier("near-mpc", NEAR).unwrap();
    let parsed = TdxEvidence::parse(&quote("near-mpc"), Some(&log)).unwrap();
    let claims = verifier.verify(&parsed, None, NEAR).unwrap();
    assert_eq!(CcEventLog::parse(&log).unwrap().replay(), claims.rtmrs());
    let document: Value = serde_json::from_slice(&log).unwrap();
    for (rtmr, value) in claims.rtmrs().iter().enumerate() {
        assert_eq!(document[format!("rtmr{rtmr}")], value.to_string());
    }
    assert!(claims.not_checked.iter().all(|check| check.check != "event-log"));
    // The array alone, and as a string within an object, are the same log.
    let array = serde_json::to_vec(&document["event_log"]).unwrap();
    let text = json!({ "event_log": String::from_utf8(array.clone()).unwrap() }).to_string();
    for form in [&array[..], text.as_bytes()] {
        assert_eq!(CcEventLog::parse(form).unwrap(), CcEventLog::parse(&log).unwrap());
    }
    // Names that the digests prove.
    let measurements = claims.measurements();
    let named = |name: &str| measurements.iter().any(|event| event.event == name);
    for name in ["variable SecureBoot", "separator", "Calling EFI Application from Boot Option", "dstack compose-hash"]
    {
        assert!(named(name), "{name}");
    }
    assert!(measurements.iter().any(|event| event.event == "LOADED_IMAGE::LoadOptions" && event.rtmr == 2));
}

#[test]
fn a_mismatch_names_the_register_and_the_first_event() {
    let verifier = verifier("near-mpc", NEAR).unwrap();
    let log = evidence("ccel/near-mpc/tcb_info.json");
    let parsed = TdxEvidence::parse(&quote("near-mpc"), Some(&log)).unwrap();
    let found = verifier.verify(&parsed, None, NEAR).unwrap().measurements();
    assert_eq!(explain(&found, &found), []);
    let mut expected = found.clone();
    let changed = |event: &mut RtmrEvent| event.digest.0[0] ^= 1;
    let options = expected.iter().position(|event| event.event == "LOADED_IMAGE::LoadOptions").unwrap();
    changed(&mut expected[options]);
    let [mismatch] = &explain(&expected, &found)[..] else { panic!() };
    assert_eq!((mismatch.rtmr, mismatch.position, &*mismatch.likely), (2, 0, "the command line changed"));
    changed(&mut expected[1]);
    changed(&mut expected[0]);
    let [memory, _] = &explain(&expected, &found)[..] else { panic!() };
    assert_eq!((memory.rtmr, memory.position), (0, 0));
    assert!(memory.likely.contains("memory size"), "{memory}");
}

#[test]
fn attack_event_log_changed() {
    let verifier = verifier("near-mpc", NEAR).unwrap();
    let quote = quote("near-mpc");
    let log: Value = serde_json::from_slice(&evidence("ccel/near-mpc/tcb_info.json")).unwrap();
    let events = log["event_log"].as_array().unwrap();
    let verify = |events: &[Value]| {
        let log = serde_json::to_vec(events).unwrap();
        verifier.verify(&TdxEvidence::parse(&quote, Some(&log))?, None, NEAR).map(drop)
    };
    assert_eq!(verify(events), Ok(()));
    for left_out in 0..events.len() {
        let mut fewer = events.clone();
        let event = fewer.remove(left_out);
        let refused = verify(&fewer).unwrap_err();
        let rtmr = event["imr"].as_u64().unwrap();
        assert!(matches!(&refused, TdxError::Replay { rtmr: found, .. } if u64::from(*found) == rtmr), "{refused}");
    }
    // A payload that its digest does not cover: dstack's policies read it.
    let compose = events.iter().position(|event| event["event"] == "compose-hash").unwrap();
    for (member, value) in [("event_payload", "00"), ("event", "app-id")] {
        let mut lie = events.clone();
        lie[compose][member] = json!(value);
        assert_eq!(verify(&lie).unwrap_err().code(), "ATT-318");
    }
    for (member, value) in [("imr", json!(4)), ("digest", json!("00")), ("event_payload", json!("0"))] {
        let mut bad = events.clone();
        bad[0][member] = value;
        assert_eq!(verify(&bad).unwrap_err().code(), "ATT-318", "{member}");
    }
    assert_eq!(verify(&[]).unwrap_err().code(), "ATT-319");
}

/// A CCEL area written from the same measurements, with the padding that firmware leaves.
#[test]
fn a_ccel_area_replays_like_dstacks_log() {
    let json = evidence("ccel/near-mpc/tcb_info.json");
    let log = CcEventLog::parse(&json).unwrap();
    let area = ccel(&log);
    for padding in [&[][..], &[0; 1000], &[0xff; 1000]] {
        let padded = [&area[..], padding].concat();
        let parsed = CcEventLog::parse(&padded).unwrap();
        assert_eq!(parsed.replay(), log.replay());
        assert_eq!(parsed.events().len(), log.events().len());
        let evidence = TdxEvidence::parse(&quote("near-mpc"), Some(&padded)).unwrap();
        verifier("near-mpc", NEAR).unwrap().verify(&evidence, None, NEAR).unwrap();
    }
    for end in 0..area.len() {
        if let Ok(cut) = CcEventLog::parse(&area[..end]) {
            assert_ne!(cut.replay(), log.replay(), "cut at {end}");
        }
    }
    for bad in [&[0xff; 500][..], b"", b"{", b"[{}]", &[0; 2_000_000], &[&area[..], &[1; 40]].concat()] {
        assert_eq!(CcEventLog::parse(bad).unwrap_err().code(), "ATT-318");
    }
    // A size of 4 GiB is refused, not allocated.
    let mut huge = area.clone();
    huge[65 + 12 + 50..65 + 12 + 54].fill(0xff);
    assert!(CcEventLog::parse(&huge).is_err());
}

fn ccel(log: &CcEventLog) -> Vec<u8> {
    // TCG_PCR_EVENT: register 1, EV_NO_ACTION, zeros; Spec ID with one bank, SHA-384.
    let mut area = [&[1, 0, 0, 0, 3, 0, 0, 0][..], &[0; 20], &[33, 0, 0, 0], b"Spec ID Event03\0"].concat();
    area.extend([0, 0, 0, 0, 0, 2, 0, 2, 1, 0, 0, 0, 0x0c, 0, 48, 0, 0]);
    let mut event = |index: u32, kind: u32, digest: &[u8], data: &[u8]| {
        area.extend([&index.to_le_bytes()[..], &kind.to_le_bytes(), &[1, 0, 0, 0, 0x0c, 0], digest].concat());
        area.extend([&(data.len() as u32).to_le_bytes()[..], data].concat());
    };
    event(1, 3, &[0; 48], b"informs, extends nothing");
    for e in log.events() {
        event(u32::from(e.rtmr) + 1, e.kind, &e.digest.0, &e.data);
    }
    area
}
