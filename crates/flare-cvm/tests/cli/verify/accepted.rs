//! Evidence of every kind that is accepted: claims, and what was not checked.

use serde_json::Value;

use super::{h100_nonce, switch_nonce};
use crate::{EVIDENCE, NOW, VECTORS, claims, folder, verify, write};

/// Evidence that is accepted: its submodule and kind, one claim, and the checks that were left out.
struct Accepted {
    arguments: String,
    submodule: &'static str,
    kind: &'static str,
    claim: (&'static str, &'static str),
    not_checked: &'static [&'static str],
}

/// `rules` accept a weakness of two platforms.
fn accepted(rules: &str) -> Vec<Accepted> {
    let case = |arguments: String, submodule, kind, claim, not_checked| Accepted {
        arguments,
        submodule,
        kind,
        claim,
        not_checked,
    };
    let h100 = format!("{EVIDENCE}/gpu/h100-545.00-e2e");
    let nonce = h100_nonce();
    let files = |folder: &str, names: &str| -> String {
        names.split_whitespace().map(|name| format!("{EVIDENCE}/{folder}/{name} ")).collect()
    };
    vec![
        case(
            files("snp/milan-virtee", "report.bin vcek.der") + "--at 2025-10-09T00:00:00Z",
            "cpu0",
            "snp",
            ("/product", "Milan"),
            &["certificate-revocation", "report-data", "host-data", "acpi", "nonce", "tcb-floor"],
        ),
        case(
            files("snp/trustee-vlek", "report.bin vlek.der") + "--at 2025-10-09T00:00:00Z",
            "cpu0",
            "snp",
            ("/signing_key", "VLEK"),
            &["certificate-revocation", "report-data", "host-data", "acpi", "nonce", "tcb-floor"],
        ),
        case(
            files("tdx", "quotes/near-mpc.bin collateral/near-mpc.json")
                + &files("ccel/near-mpc", "tcb_info.json")
                + "--at 1787894500",
            "cpu0",
            "tdx",
            ("/tcb_status", "UpToDate"),
            &["report-data", "acpi", "nonce"],
        ),
        case(
            files("tdx", "quotes/phala-sgx_quote.bin collateral/phala-sgx_quote.json")
                + &format!("--at 1751624924 --policy {rules}"),
            "cpu0",
            "sgx",
            ("/tcb_status", "ConfigurationAndSWHardeningNeeded"),
            &["report-data", "nonce"],
        ),
        case(
            files("azure/snp-trustee-evidence-v1", "hcl.bin quote.msg quote.sig pcrs.bin vcek.der")
                + &format!("--nonce challenge --at {NOW}"),
            "cpu0",
            "az-snp-vtpm",
            ("/tpm/report_data", "6368616c6c656e6765"),
            &["certificate-revocation", "host-data", "acpi", "tcb-floor"],
        ),
        case(
            format!(
                "{EVIDENCE}/azure/tdx-trustee-evidence-v0 --nonce challenge --at {NOW} --policy \
                 {rules}"
            ),
            "cpu0",
            "az-tdx-vtpm",
            ("/tpm/report_data", "6368616c6c656e6765"),
            &["certificate-revocation", "tcb-status", "qe-identity", "event-log", "acpi"],
        ),
        case(
            files(
                "tpm/gce-cos-85-nonce9009",
                "ak.tpmt_public quote-sha384.msg quote-sha384.sig pcrs-sha384.json",
            ) + "--nonce 9009",
            "tpm0",
            "tpm",
            ("/bank", "sha384"),
            &["event-log", "ak-endorsement", "acpi"],
        ),
        case(
            files("tpm/own-swtpm-ecdsa-quote", "ak.pub quote.msg quote.sig"),
            "tpm0",
            "tpm",
            ("/ak_scheme", "ecdsa-sha256"),
            &["nonce", "pcr-values", "event-log", "ak-endorsement", "acpi"],
        ),
        case(
            format!(
                "{h100}/report.bin {h100}/chain.pem {h100}/driver-rim.xml {h100}/vbios-rim.xml \
                 --nonce {nonce} --at 1700000000"
            ),
            "gpu0",
            "nvidia",
            ("/measres", "success"),
            &["fwid", "ocsp", "ocsp", "ocsp"],
        ),
        case(
            format!(
                "{VECTORS}/forms/ls10.evidence.json {VECTORS}/forms/ls10.bios-rim.xml --nonce {} \
                 --at 1780000000",
                switch_nonce()
            ),
            "switch0",
            "nvswitch",
            ("/measres", "success"),
            &["fwid", "ocsp", "ocsp"],
        ),
        case(
            format!(
                "{EVIDENCE}/maa/maa-1-sgx.jwt --jwks {EVIDENCE}/maa/maa-1-sgx.jwks.json \
                 --issuer-from-evidence --at 1625170400"
            ),
            "token0",
            "maa",
            ("/attestation_type", "sgx"),
            &["audience", "nonce", "attestation-policy", "tcb-status", "issuer"],
        ),
        case(
            files("nras", "hopperClaimsv3_detached_eat.json")
                + &format!("--jwks {EVIDENCE}/nras/nras-prod-20250609.recovered.pub.pem ")
                + "--issuer https://nras.attestation.nvidia.com --at 1749601918",
            "token0",
            "nras",
            ("/issuer", "https://nras.attestation.nvidia.com"),
            &["audience", "nonce"],
        ),
    ]
}

#[test]
fn each_kind_of_evidence_is_accepted_and_says_what_was_not_checked() {
    let rules = r#"{
        "tdx": {"allow_unknown_tcb": true},
        "sgx": {"tcb_statuses": ["ConfigurationAndSWHardeningNeeded"]}
    }"#;
    let rules = write(folder("good").join("rules.json"), rules);
    for Accepted { arguments, submodule, kind, claim, not_checked } in accepted(&rules) {
        let expected: Vec<_> = not_checked.iter().map(|check| (submodule, *check)).collect();
        let text = verify(&arguments).good();
        text.says(&format!("{submodule}: {kind}, genuine")).not_checked(&expected);
        assert!(text.out.ends_with("\nverdict: accepted\n"), "{}", text.out);

        let verdict = verify(&format!("{arguments} --json")).good().json();
        assert_eq!(
            (&verdict["verdict"], &verdict["refusals"]),
            (&"accepted".into(), &Value::Array(vec![]))
        );
        assert_eq!(
            claims(&verdict, submodule, kind).pointer(claim.0),
            Some(&claim.1.into()),
            "{arguments}"
        );
        assert_eq!(verdict["submods"][submodule]["ear.status"], "warning", "{arguments}");
        let listed = verdict["not_checked"].as_array().unwrap();
        let listed = listed
            .iter()
            .map(|entry| (entry["of"].as_str().unwrap(), entry["check"].as_str().unwrap()));
        assert_eq!(listed.collect::<Vec<_>>(), expected, "{arguments}");
    }
}

/// Collateral without evidence: nothing was attested, and nobody vouches for a log.
#[test]
fn what_attests_nothing_says_so() {
    for (arguments, line, left_out) in [
        (
            format!(
                "{EVIDENCE}/tpm/eventlogs/rhel8-uefi.bin \
                 {EVIDENCE}/tpm/eventlogs/rhel8-uefi.bin.pcrs.json"
            ),
            "collateral0: event-log, consistent",
            &["quote"][..],
        ),
        (
            format!("{EVIDENCE}/tpm/eventlogs/rhel8-uefi.bin"),
            "collateral0: event-log, consistent",
            &["quote", "pcr-values"],
        ),
        (
            format!("{VECTORS}/forms/cos-113.ccel"),
            "collateral0: cc-event-log, consistent",
            &["quote"],
        ),
        (
            format!("{EVIDENCE}/gpu/rims/Driver_RIM_test_no_gpu.swidtag --at 1717200000"),
            "collateral0: nvidia-rim, genuine",
            &["report"],
        ),
        (
            format!("{EVIDENCE}/snp/turin-virtee-vcek-only/vcek.der --at {NOW}"),
            "collateral0: snp-certificates, genuine",
            &["report"],
        ),
    ] {
        let expected: Vec<_> = left_out.iter().map(|check| ("collateral0", *check)).collect();
        verify(&arguments).good().says(line).not_checked(&expected);
    }
}
