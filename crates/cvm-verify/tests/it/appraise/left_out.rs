//! A downgrade by leaving something out: whatever is missing, the verdict is "refused", or names
//! what was not checked.

use std::collections::BTreeSet;

use cvm_verify::appraise::{Appraisal, Enclosed, Rules, Terms, note_unjudged_tcb};
use serde_json::{Value, json};

use super::{NOW, code, read, set};

const SGX: u64 = 1_751_624_924;
const NEAR: u64 = 1_787_894_500;
/// The quote brings these certificates itself.
const OPTIONAL: [&str; 2] = ["pck_certificate_chain", "pck_crl_issuer_chain"];

/// One kind's evidence with all that belongs to it.
struct Case {
    kind: &'static str,
    files: Vec<String>,
    nonce: Option<String>,
    now: u64,
    rules: Value,
    issuer: Option<&'static str>,
}

impl Case {
    fn new(kind: &'static str, folder: &str, files: &str, now: u64) -> Self {
        let files = files.split(' ').map(|file| format!("{folder}/{file}")).collect();
        Self { kind, files, nonce: None, now, rules: json!({}), issuer: None }
    }

    fn nonce(self, nonce: &str) -> Self {
        Self { nonce: Some(nonce.into()), ..self }
    }

    fn rules(self, rules: Value) -> Self {
        Self { rules, ..self }
    }

    fn verdict(&self, files: &[Vec<u8>], nonce: Option<String>, issuer: Option<&str>) -> Appraisal {
        let rules: Rules = serde_json::from_value(self.rules.clone()).unwrap();
        let issuer = issuer.map(str::to_owned);
        // Here a token's keys lie among its files, so that leaving them out is a case too.
        let enclosed = Enclosed { keys: true, issuer: true, ..Enclosed::default() };
        let terms = Terms { nonce, issuer, now: self.now, rules, enclosed, ..Terms::default() };
        let mut appraisal = set(files).verify(&terms);
        note_unjudged_tcb(&mut appraisal, &terms.rules.snp, None);
        appraisal
    }

    fn bytes(&self) -> Vec<Vec<u8>> {
        self.files.iter().map(|file| read(file)).collect()
    }
}

fn named(appraisal: &Appraisal) -> BTreeSet<String> {
    appraisal.not_checked().into_iter().map(|(_, check, _)| check.to_owned()).collect()
}

fn reasons(appraisal: &Appraisal) -> BTreeSet<String> {
    appraisal
        .not_checked()
        .into_iter()
        .map(|(_, check, reason)| format!("{check}: {reason}"))
        .collect()
}

fn cases() -> Vec<Case> {
    let gpu = "gpu/h100-545.00-e2e";
    let gpu_nonce = String::from_utf8(read(&format!("{gpu}/nonce.hex"))).unwrap();
    let accepted_here = json!({ "sgx": { "tcb_statuses": ["ConfigurationAndSWHardeningNeeded"] } });
    vec![
        Case::new("SEV-SNP, VCEK", "snp/milan-virtee", "report.bin vcek.der", NOW),
        Case::new("SEV-SNP, VLEK", "snp/trustee-vlek", "report.bin vlek.der", NOW),
        Case::new("TDX", "tdx", "quotes/near-mpc.bin collateral/near-mpc.json", NEAR),
        Case::new(
            "TDX with a log",
            ".",
            "ccel/near-mpc/quote.bin ccel/near-mpc/tcb_info.json tdx/collateral/near-mpc.json",
            NEAR,
        ),
        Case::new("SGX", "tdx", "quotes/phala-sgx_quote.bin collateral/phala-sgx_quote.json", SGX)
            .rules(accepted_here),
        Case::new(
            "Azure, SEV-SNP",
            "azure/snp-trustee-evidence-v1",
            "hcl.bin quote.msg quote.sig pcrs.bin vcek.der",
            NOW,
        )
        .nonce("challenge"),
        Case::new(
            "Azure, TDX",
            "azure/tdx-trustee-evidence-v0",
            "hcl.bin quote.msg quote.sig pcrs.bin td_quote.bin",
            NOW,
        )
        .nonce("challenge")
        .rules(json!({ "tdx": { "allow_unknown_tcb": true } })),
        Case::new(
            "TPM",
            "tpm/gce-cos-85-nonce9009",
            "ak.tpmt_public quote-sha256.msg quote-sha256.sig pcrs-sha256.json eventlog.bin",
            NOW,
        )
        .nonce("9009"),
        Case::new("GPU", gpu, "report.bin chain.pem driver-rim.xml vbios-rim.xml", 1_700_000_000)
            .nonce(&gpu_nonce),
        Case::new("Azure's token", "maa", "maa-1-sgx.jwt maa-1-sgx.jwks.json", 1_625_170_400),
        Case::new(
            "NVIDIA's token",
            "nras",
            "hopperClaimsv3_detached_eat.json nras-prod-20250609.recovered.pub.pem",
            1_749_601_918,
        ),
    ]
}

#[test]
fn each_piece_left_out_is_refused_or_named() {
    for case in cases() {
        let (kind, files) = (case.kind, case.bytes());
        let whole = case.verdict(&files, case.nonce.clone(), case.issuer);
        assert!(whole.accepted(), "{kind}: {:?}", whole.refusals);
        let before = reasons(&whole);
        for (n, file) in case.files.iter().enumerate() {
            let rest: Vec<Vec<u8>> = files
                .iter()
                .enumerate()
                .filter(|(at, _)| *at != n)
                .map(|(_, f)| f.clone())
                .collect();
            let verdict = case.verdict(&rest, case.nonce.clone(), case.issuer);
            let now = reasons(&verdict);
            assert!(
                !verdict.accepted() || now.difference(&before).next().is_some(),
                "{kind} without {file}: {now:?}"
            );
        }
        if case.nonce.is_some() {
            let verdict = case.verdict(&files, None, case.issuer);
            assert!(
                !verdict.accepted() || named(&verdict).contains("nonce"),
                "{kind} without a nonce"
            );
        }
    }
}

/// What every verdict without a list, a floor, a nonce or an issuer names.
#[test]
fn what_was_not_given_is_named() {
    let expected: [(&str, &[&str]); 5] = [
        ("SEV-SNP, VCEK", &["certificate-revocation", "host-data", "report-data", "tcb-floor"]),
        ("TDX", &["event-log", "report-data"]),
        ("Azure, TDX", &["certificate-revocation", "event-log", "qe-identity", "tcb-status"]),
        ("Azure, SEV-SNP", &["certificate-revocation", "tcb-floor"]),
        ("Azure's token", &["attestation-policy", "issuer", "nonce", "tcb-status"]),
    ];
    for (kind, checks) in expected {
        let case = cases().into_iter().find(|case| case.kind == kind).unwrap();
        let found = named(&case.verdict(&case.bytes(), case.nonce.clone(), None));
        for check in checks {
            assert!(found.contains(*check), "{kind}: {found:?}");
        }
    }
    let floor = json!({ "snp": { "min_tcb": { "Milan": { "bootloader": 3, "tee": 0, "snp": 8,
        "microcode": 115 } } } });
    let judged = Case::new("SEV-SNP", "snp/milan-virtee", "report.bin vcek.der", NOW).rules(floor);
    let verdict = judged.verdict(&judged.bytes(), None, None);
    assert!(verdict.accepted() && !named(&verdict).contains("tcb-floor"), "{:?}", verdict.refusals);
    let floor = json!({ "snp": { "min_tcb": { "Siena": { "bootloader": 3, "tee": 0, "snp": 8,
        "microcode": 25 } } } });
    let other = Case { rules: floor, ..judged };
    assert_eq!(code(&other.verdict(&other.bytes(), None, None)), ["ATT-309"]);
}

#[test]
fn attack_azure_tdx_without_collateral() {
    let azure = |rules: Value| {
        let files = "hcl.bin quote.msg quote.sig pcrs.bin td_quote.bin";
        let case = Case::new("Azure, TDX", "azure/tdx-trustee-evidence-v0", files, NOW)
            .nonce("challenge")
            .rules(rules);
        case.verdict(&case.bytes(), case.nonce.clone(), None)
    };
    for rules in [json!({}), json!({ "tdx": {} }), json!({ "tdx": { "allow_unknown_tcb": false } })]
    {
        let refused = azure(rules.clone());
        assert_eq!(code(&refused), ["ATT-416"], "{rules}");
        assert!(
            refused.refusals[0].reason.contains("TCB status is unknown"),
            "{:?}",
            refused.refusals
        );
    }
    let knowingly = azure(json!({ "tdx": { "allow_unknown_tcb": true } }));
    assert!(
        knowingly.accepted() && named(&knowingly).contains("tcb-status"),
        "{:?}",
        knowingly.refusals
    );
}

#[test]
fn attack_a_bare_sgx_quote_without_collateral() {
    let sgx = |files: &str, rules: Value| {
        let case = Case::new("SGX", "tdx", files, SGX).rules(rules);
        case.verdict(&case.bytes(), None, None)
    };
    let (bare, whole) = (
        "quotes/phala-sgx_quote.bin",
        "quotes/phala-sgx_quote.bin collateral/phala-sgx_quote.json",
    );
    for rules in [
        json!({}),
        json!({ "sgx": { "allow_unknown_tcb": false } }),
        json!({ "tdx": { "allow_unknown_tcb": true } }),
    ] {
        assert_eq!(code(&sgx(bare, rules.clone())), ["ATT-416"], "{rules}");
        // With it, Intel says that the platform needs to be configured, which its owner may accept.
        assert_eq!(code(&sgx(whole, rules.clone())), ["ATT-414"], "{rules}");
    }
    let status = json!({ "sgx": { "tcb_statuses": ["ConfigurationAndSWHardeningNeeded"] } });
    assert!(sgx(whole, status.clone()).accepted());
    assert_eq!(code(&sgx(bare, status)), ["ATT-416"]);
    let none = json!({ "sgx": { "tcb_statuses": ["ConfigurationAndSWHardeningNeeded"],
        "accepted_advisories": [] } });
    assert_eq!(code(&sgx(whole, none)), ["ATT-415"], "its advisories are open");
    let knowingly = sgx(bare, json!({ "sgx": { "allow_unknown_tcb": true } }));
    assert!(
        knowingly.accepted() && named(&knowingly).contains("tcb-status"),
        "{:?}",
        knowingly.refusals
    );
}

/// Intel's document with each of its members left out.
#[test]
fn a_part_of_the_collateral_is_none() {
    for (quote, collateral, now) in
        [("near-mpc", "near-mpc", NEAR), ("phala-sgx_quote", "phala-sgx_quote", SGX)]
    {
        let whole: Value =
            serde_json::from_slice(&read(&format!("tdx/collateral/{collateral}.json"))).unwrap();
        let case = Case::new("DCAP", "tdx", &format!("quotes/{quote}.bin"), now)
            .rules(json!({ "sgx": { "tcb_statuses": ["ConfigurationAndSWHardeningNeeded"] } }));
        let verdict = |document: &Value| {
            let files = [case.bytes().remove(0), document.to_string().into_bytes()];
            // What is not collateral any more is not a file that is known.
            let mut all = cvm_verify::appraise::EvidenceSet::default();
            all.add("", "quote", files[0].clone()).unwrap();
            all.add("", "collateral", files[1].clone()).ok()?;
            let rules = serde_json::from_value(case.rules.clone()).unwrap();
            Some(all.verify(&Terms { now, rules, ..Terms::default() }))
        };
        assert!(verdict(&whole).unwrap().accepted());
        for member in whole.as_object().unwrap().keys() {
            let mut less = whole.clone();
            less.as_object_mut().unwrap().remove(member);
            let accepted = verdict(&less).is_some_and(|verdict| verdict.accepted());
            assert_eq!(accepted, OPTIONAL.contains(&member.as_str()), "{quote} without {member}");
        }
    }
}
