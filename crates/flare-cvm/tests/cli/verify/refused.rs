//! Evidence of every kind that is refused, and with which code.

use super::h100_nonce;
use crate::{EVIDENCE, NOW, read, verify};

/// Evidence that is refused: the code, and whether it is genuine all the same.
fn refused() -> Vec<(String, &'static str, bool)> {
    let h100 = format!("{EVIDENCE}/gpu/h100-545.00-e2e");
    let gce = format!("{EVIDENCE}/tpm/gce-cos-85-nonce9009");
    let nonce = h100_nonce();
    let asked = |folder: &str| {
        let nonce = String::from_utf8(read(&format!("{EVIDENCE}/{folder}/nonce.hex"))).unwrap();
        format!("{folder} --nonce {}", nonce.trim())
    };
    let no_key = "maa/azurevm-token-nokey.jwt";
    vec![
        ("snp/trustee-vcek-invalid-new --at 1760000000".into(), "ATT-202", false),
        ("snp/trustee-vlek --at 1766000000".into(), "ATT-202", false),
        ("snp/milan-virtee/report.bin --at 1760000000".into(), "ATT-303", false),
        ("snp/google-vcek --at 1760000000".into(), "ATT-309", true),
        (format!("snp/milan-virtee --at {NOW} --nonce 00"), "ATT-308", false),
        (
            format!(
                "tdx/quotes/phala-tdx_quote.bin {EVIDENCE}/tdx/collateral/phala-tdx_quote.json \
                --at 1756376163"
            ),
            "ATT-412",
            false,
        ),
        (
            format!(
                "tdx/quotes/phala-tdx_quote.bin {EVIDENCE}/tdx/collateral/near-mpc-nopck.json \
                --at 1787894500"
            ),
            "ATT-414",
            true,
        ),
        (
            format!(
                "tdx/quotes/trustee-tdx_quote_4.bin \
                 {EVIDENCE}/tdx/collateral/confai-50806f000000-2026-03.json --at 1774995526"
            ),
            "ATT-415",
            true,
        ),
        // Downgrades: without collateral nothing is known of a platform that Intel calls out of
        // date with it.
        ("azure/tdx-trustee-evidence-v0 --nonce challenge --at 1760000000".into(), "ATT-416", true),
        ("tdx/quotes/phala-sgx_quote.bin --at 1751624924".into(), "ATT-416", true),
        (
            format!(
                "tdx/quotes/phala-sgx_quote.bin {EVIDENCE}/tdx/collateral/phala-sgx_quote.json \
                --at 1751624924"
            ),
            "ATT-414",
            true,
        ),
        ("azure/snp-trustee-evidence-v0 --nonce other --at 1760000000".into(), "ATT-332", false),
        ("azure/snp-trustee-evidence-v0 --at 1760000000".into(), "ATT-360", false),
        (
            format!(
                "tpm/gce-cos-85-nonce9009/ak.tpmt_public {gce}/quote-sha256.msg \
                 {gce}/quote-sha256.sig --nonce 9008"
            ),
            "ATT-332",
            false,
        ),
        (
            format!(
                "tpm/gce-cos-85-nonce9009/ak.tpmt_public {gce}/quote-sha1.msg {gce}/quote-sha1.sig \
                 {gce}/pcrs-sha1.json --nonce 9009"
            ),
            "ATT-334",
            false,
        ),
        (
            format!(
                "tpm/eventlogs/rhel8-uefi.bin \
                {EVIDENCE}/tpm/eventlogs/cos-85-amd-sev.bin.pcrs.json"
            ),
            "ATT-360",
            false,
        ),
        (asked("gpu/h100-560.00-BADSIG") + " --at 1760000000", "ATT-343", false),
        (asked("gpu/h100-550.90.07") + " --at 1760000000", "ATT-387", true),
        (
            format!(
                "gpu/h100-545.00-e2e/report.bin {h100}/chain.pem {h100}/driver-rim.xml \
                 {h100}/vbios-rim.mismatch-1-2-3-9.xml --nonce {nonce} --at 1700000000"
            ),
            "ATT-348",
            false,
        ),
        (
            "maa/maa-1-sgx.jwt --jwks tests/vectors/evidence/maa/maa-1-sgx.jwks.json --at \
             1760000000"
                .into(),
            "ATT-355",
            false,
        ),
        (no_key.into(), "ATT-360", false),
        (
            format!(
                "nras/hopperClaimsv3_detached_eat.json --jwks \
                {EVIDENCE}/maa/maa-1-sgx.jwks.json --at 1749601918"
            ),
            "ATT-352",
            false,
        ),
    ]
}

/// A refusal by a verifier leaves no claims to believe; a refusal by policy shows them beside its
/// reason.
#[test]
fn each_kind_of_evidence_is_refused_with_the_check_that_failed() {
    for (arguments, code, genuine) in refused() {
        let arguments = format!("{EVIDENCE}/{arguments}");
        let text = verify(&arguments).failed("ATT-362");
        text.says(&format!("refused[{code}]: ")).says("  help: ").says("\nverdict: refused\n");
        assert_eq!(text.out.contains(", genuine"), genuine, "{}", text.out);

        let verdict = verify(&format!("{arguments} --json")).failed("ATT-362").json();
        assert_eq!(verdict["verdict"], "refused");
        let refusals = verdict["refusals"].as_array().unwrap();
        assert!(
            refusals.iter().all(|refusal| refusal["code"] == code && refusal["help"] != ""),
            "{refusals:?}"
        );
        let submodules = verdict["submods"].as_object().unwrap();
        assert_eq!(submodules.len(), usize::from(genuine), "{arguments}");
        assert!(
            submodules.values().all(|entry| entry["ear.status"] == "contraindicated"),
            "{arguments}"
        );
    }
}
