//! `attest verify` on evidence of every kind: verdict, exit status, claims, and what was not
//! checked.

use serde_json::Value;

use crate::{
    EVIDENCE, NOW, VECTORS, claims, explain::machine, flare_cvm, folder, read, verify, write,
};

/// Evidence that is accepted: its submodule and kind, one claim, and the checks that were left out.
struct Good {
    arguments: String,
    submodule: &'static str,
    kind: &'static str,
    claim: (&'static str, &'static str),
    not_checked: &'static [&'static str],
}

/// `rules` accept what two of the platforms are, knowingly.
fn good(rules: &str) -> Vec<Good> {
    let case = |arguments: String, submodule, kind, claim, not_checked| Good {
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

/// What the H100 of the vector was asked with.
pub fn h100_nonce() -> String {
    let nonce =
        String::from_utf8(read(&format!("{EVIDENCE}/gpu/h100-545.00-e2e/nonce.hex"))).unwrap();
    nonce.trim().to_owned()
}

/// What the switch of the vector was asked with: bytes 4 to 36 of the request in front of its
/// report.
fn switch_nonce() -> String {
    String::from_utf8(read(&format!("{VECTORS}/forms/ls10.report.txt")).split_off(8)[..64].to_vec())
        .unwrap()
}

#[test]
fn each_kind_of_evidence_is_accepted_and_says_what_was_not_checked() {
    let rules = r#"{"tdx": {"allow_unknown_tcb": true}, "sgx": {"tcb_statuses": ["ConfigurationAndSWHardeningNeeded"]}}"#;
    let rules = write(folder("good").join("rules.json"), rules);
    for Good { arguments, submodule, kind, claim, not_checked } in good(&rules) {
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

/// What vouches for evidence, alone: nothing was attested, and nobody vouches for a log.
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

/// Where a verifier says no, there are no claims to believe; where a policy does, they stand beside
/// the reason.
#[test]
fn each_kind_of_evidence_is_refused_with_the_check_that_failed() {
    let h100 = format!("{EVIDENCE}/gpu/h100-545.00-e2e");
    let gce = format!("{EVIDENCE}/tpm/gce-cos-85-nonce9009");
    let nonce = h100_nonce();
    let asked = |folder: &str| {
        let nonce = String::from_utf8(read(&format!("{EVIDENCE}/{folder}/nonce.hex"))).unwrap();
        format!("{folder} --nonce {}", nonce.trim())
    };
    let no_key = "maa/azurevm-token-nokey.jwt";
    for (arguments, code, genuine) in [
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
    ] {
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

#[test]
fn mistakes_on_the_command_line_end_before_any_verdict() {
    let folder = folder("mistakes");
    let rules = write(folder.join("rules.json"), r#"{"snp": {"allow_debug": true}}"#);
    let unknown = write(folder.join("unknown.json"), r#"{"snp": {"allow_anything": true}}"#);
    let words = write(folder.join("words.txt"), "no reference");
    let other = write(folder.join("other.json"), r#"{"mine": 1}"#);
    let debug = format!("{EVIDENCE}/snp/google-vcek --at {NOW}");
    for (arguments, code, text) in [
        (format!("{debug} --at tomorrow"), "", "--at"),
        (format!("{EVIDENCE}/snp/google-vcek --at tomorrow"), "CLI-020", "tomorrow"),
        ("nowhere.bin".into(), "FILE-001", "nowhere.bin"),
        (format!("{debug} --policy {rules} --policy {rules}"), "CLI-027", "both give rules"),
        (format!("{debug} --policy {unknown}"), "CLI-000", "allow_anything"),
        (format!("{debug} --reference {words}"), "CLI-000", "is no JSON"),
        (
            format!("{debug} --reference {other}"),
            "ATT-001",
            "neither a bundle's reference.json nor a reference set",
        ),
        (format!("{debug} --explain"), "", "--reference"),
        (format!("{debug} -o verdict.jwt"), "", "--ear"),
    ] {
        let run = verify(&arguments);
        assert_eq!(run.out, "", "{arguments}");
        assert!(run.err.contains(text), "{arguments}: {}", run.err);
        match code {
            "" => assert_eq!(run.status, Some(2), "{arguments}"),
            code => drop(run.failed(code)),
        }
    }
    // Rules do what they say.
    let run = verify(&format!("{debug} --policy {rules}")).good();
    run.says("verdict: accepted").not_checked(&[
        ("cpu0", "certificate-revocation"),
        ("cpu0", "report-data"),
        ("cpu0", "host-data"),
        ("cpu0", "acpi"),
        ("cpu0", "nonce"),
        ("cpu0", "tcb-floor"),
    ]);
    let floor = |chip: &str| {
        format!(
            r#"{{"snp": {{"allow_debug": true, "min_tcb": {{"{chip}": {{"bootloader": 2, "tee": 0, "snp": 5, "microcode": 68}}}}}}}}"#
        )
    };
    for (chip, accepted) in [("Milan", true), ("Siena", false), ("Milan-B1", false)] {
        let rules = write(folder.join(format!("{chip}.json")), floor(chip));
        let run = verify(&format!("{debug} --policy {rules}"));
        assert!(!run.out.contains("tcb-floor"), "{}", run.out);
        match accepted {
            true => drop(run.good()),
            false => drop(run.failed("ATT-362").says("refused[ATT-309]: ")),
        }
    }
}

/// Files that were named must be something; a folder may hold others, and says which were left out.
#[test]
fn what_is_no_evidence_is_named() {
    let run = verify("README.md").failed("ATT-362");
    run.says("refused[ATT-360]: README.md: ")
        .says("refused[ATT-360]: the files: there is no evidence among them");

    let folder = folder("notes");
    for name in ["report.bin", "vcek.der"] {
        write(folder.join(name), read(&format!("{EVIDENCE}/snp/milan-virtee/{name}")));
    }
    write(folder.join("notes.txt"), "asked on Monday");
    let arguments = format!("{} --at {NOW}", folder.display());
    verify(&arguments)
        .good()
        .says("left out: ")
        .says("notes.txt: it is no evidence")
        .says("(15 bytes)");
    let verdict = verify(&format!("{arguments} --json")).good().json();
    assert!(verdict["left_out"][0]["of"].as_str().unwrap().ends_with("notes.txt"), "{verdict:#}");
    // The report, damaged: its folder attests nothing, and is not accepted for the certificate in
    // it.
    write(
        folder.join("report.bin"),
        &read(&format!("{EVIDENCE}/snp/milan-virtee/report.bin"))[..1000],
    );
    verify(&arguments)
        .failed("ATT-362")
        .says("refused[ATT-360]: ")
        .says("report.bin: it is no evidence")
        .says("(1000 bytes)");
}

/// What is no file, lies too deep, or is there twice by a link: named, refused, read once.
#[test]
fn folders_are_read_whole_and_once() {
    let folder = folder("whole");
    for name in ["report.bin", "vcek.der"] {
        write(folder.join(name), read(&format!("{EVIDENCE}/snp/milan-virtee/{name}")));
    }
    std::os::unix::fs::symlink(&folder, folder.join("loop")).unwrap();
    let arguments = format!("{} --at {NOW}", folder.display());
    let run = verify(&arguments).good();
    assert_eq!(run.out.matches("snp, genuine").count(), 1, "{}", run.out);

    let deep = folder.join("a/b/c/d");
    std::fs::create_dir_all(&deep).unwrap();
    write(deep.join("report.bin"), "hidden");
    verify(&arguments)
        .failed("ATT-362")
        .says("refused[ATT-360]: ")
        .says("a/b/c/d: folders in folders");
    let rules = write(folder.with_extension("rules.json"), r#"{"accept_unread": ["d"]}"#);
    let run = verify(&format!("{arguments} --policy {rules}")).good();
    run.says("a/b/c/d: not checked: unread-evidence: folders in folders");
    std::fs::remove_dir_all(folder.join("a")).unwrap();

    std::os::unix::fs::symlink("/nonexistent", folder.join("quote.msg")).unwrap();
    verify(&arguments).failed("ATT-362").says("quote.msg: it is neither a file nor a folder");
}

/// The case as it was found: a genuine quote, and a report that nobody could read, in one folder.
#[test]
fn attack_an_unread_report_beside_a_genuine_quote() {
    let folder = folder("dropped");
    let jwt = folder.join("verdict.jwt").display().to_string();
    let [key, public] = ["ear.key", "ear.pub"].map(|name| folder.join(name).display().to_string());
    crate::token::make_key(&key, &public);
    let case = format!("{VECTORS}/dropped-evidence/tpm-quote-and-unread-snp --at {NOW}");
    verify(&format!("{case} --ear {key} -o {jwt}")).failed("ATT-362").says("verdict: refused");
    let run =
        verify(&format!("{jwt} --jwks {public} --issuer flare-cvm --at {NOW}")).failed("ATT-362");
    run.says("the verifier's verdict on tpm0 is \"contraindicated\"")
        .says("verdict on refused0 is");
    verify(&format!("{VECTORS}/cases/snp-version-6.bin")).failed("ATT-362").says("version 6");
    // Also where a signed verdict has nothing genuine in it.
    verify(&format!("{VECTORS}/cases/snp-version-6.bin --ear {key} -o {jwt} --at {NOW}"))
        .failed("ATT-362");
    verify(&format!("{jwt} --jwks {public} --issuer flare-cvm --at {NOW}"))
        .failed("ATT-362")
        .says("refused0");
}

/// Whose word counts is said on the command line, and the evidence's own only where that is wanted.
#[test]
fn what_judges_does_not_come_with_the_evidence() {
    let h100 = format!("{EVIDENCE}/gpu/h100-545.00-e2e");
    let gpu: String = ["report.bin", "chain.pem", "driver-rim.xml", "vbios-rim.xml"]
        .map(|file| format!("{h100}/{file} "))
        .concat();
    let gpu = format!("{gpu} {h100}/nonce.hex --at 1700000000");
    let run = verify(&gpu).failed("ATT-362");
    run.says("refused[ATT-420]: the nonce: ").says("--nonce-from-evidence");
    let run = verify(&format!("{gpu} --nonce-from-evidence")).good();
    run.says("gpu0: not checked: nonce: the nonce came with the evidence");
    let run = verify(&format!("{gpu} --nonce {}", "11".repeat(32))).failed("ATT-362");
    run.says("refused[ATT-342]").says("left out: ").says("another nonce than the one given");

    let maa = format!("{EVIDENCE}/maa/maa-1-sgx.jwt --at 1625170400");
    let keys = format!("{EVIDENCE}/maa/maa-1-sgx.jwks.json");
    verify(&format!("{maa} {keys}"))
        .failed("ATT-362")
        .says("refused[ATT-421]: ")
        .says("--jwks-from-evidence");
    verify(&format!("{maa} --jwks {keys}")).failed("ATT-362").says("refused[ATT-422]: ");
    let run = verify(&format!("{maa} {keys} --jwks-from-evidence --issuer-from-evidence")).good();
    run.says("token0: not checked: token-keys: ").says("token0: not checked: issuer: ");
    let others = format!("{EVIDENCE}/nras/nras-prod-20250609.recovered.pub.pem");
    verify(&format!("{maa} {keys} --jwks {others} --issuer-from-evidence"))
        .failed("ATT-362")
        .says("refused[ATT-35");
    for both in [
        "--nonce 00 --nonce-from-evidence",
        "--jwks x --jwks-from-evidence",
        "--issuer x --issuer-from-evidence",
    ] {
        assert_eq!(verify(&format!("{maa} {both}")).status, Some(2), "{both}");
    }
}

/// NVIDIA's own policies ask for OCSP responses, which are not at hand; what else they ask for,
/// holds.
#[test]
fn nvidias_policies_say_which_check_was_not_made() {
    let h100 = format!("{EVIDENCE}/gpu/h100-545.00-e2e");
    let files = ["report.bin", "chain.pem", "driver-rim.xml", "vbios-rim.xml"];
    let files: String =
        files.map(|file| format!("{h100}/{file} ")).concat() + "--nonce " + &h100_nonce();
    let folder = folder("nvidia");
    let policy = |name: &str, overall: &str, detached: &str| {
        let text = format!(
            r#"{{"version": "4.0", "authorization-rules": {{"type": "JWT", "overall-claims": {overall}, "detached-claims": {detached}}}}}"#
        );
        write(folder.join(name), text)
    };
    let measured = policy(
        "measured.json",
        r#"{"x-nvidia-ver": "3.0"}"#,
        r#"{"measres": "success", "x-nvidia-gpu-arch-check": true}"#,
    );
    verify(&format!("{files} --at 1700000000 --policy {measured}"))
        .good()
        .says("verdict: accepted");
    let asked = policy(
        "ocsp.json",
        r#"{"x-nvidia-ver": "3.0"}"#,
        r#"{"x-nvidia-gpu-driver-rim-cert-chain": {"x-nvidia-cert-ocsp-status": "good"}}"#,
    );
    let run = verify(&format!("{files} --at 1700000000 --policy {asked}")).failed("ATT-362");
    run.says("refused[ATT-363]: ").says("x-nvidia-cert-ocsp-status").says("(not checked: ocsp: ");
    assert_eq!(run.out.matches("refused[").count(), 1, "{}", run.out);
    // A policy for devices that are not there accepts nothing.
    let snp = format!("{EVIDENCE}/snp/milan-virtee --at {NOW}");
    verify(&format!("{snp} --policy {measured}"))
        .failed("ATT-362")
        .says("refused[ATT-363]: ")
        .says("devices is 0");

    let switch = format!(
        "{VECTORS}/forms/ls10.evidence.json {VECTORS}/forms/ls10.bios-rim.xml --nonce {} --at \
         1780000000",
        switch_nonce()
    );
    let switches = policy(
        "switch.json",
        "{}",
        r#"{"measres": "success", "x-nvidia-switch-arch-check": true}"#,
    );
    verify(&format!("{switch} --policy {switches}")).good();
    verify(&format!("{switch} --policy {measured}")).failed("ATT-362").says("devices is 0");
    // The verdict of NVIDIA's service is judged by the same rules, and there OCSP was asked.
    let nras = format!(
        "{EVIDENCE}/nras/hopperClaimsv3_detached_eat.json --jwks {EVIDENCE}/nras/nras-prod-20250609.recovered.pub.pem \
         --issuer https://nras.attestation.nvidia.com --at 1749601918"
    );
    for good in [&measured, &asked] {
        verify(&format!("{nras} --policy {good}")).good();
    }
    let older = policy(
        "older.json",
        r#"{"x-nvidia-ver": "2.0"}"#,
        r#"{"x-nvidia-gpu-driver-version": "550.90.08"}"#,
    );
    let run = verify(&format!("{nras} --policy {older}")).failed("ATT-362");
    run.says("overall: x-nvidia-ver is \"3.0\"")
        .says("GPU-0: x-nvidia-gpu-driver-version is \"550.90.07\"");

    let both = policy("both.json", "{}", r#"{"measres": "fail"}"#);
    verify(&format!("{switch} --policy {both}")).failed("ATT-362").says("SWITCH-0: measres is");
}

/// CPU and GPU answer one nonce, and are good or refused together.
#[test]
fn a_composite_is_bound_together() {
    let folder = folder("composite");
    let h100 = format!("{EVIDENCE}/gpu/h100-545.00-e2e");
    let nonce = h100_nonce();
    let gpu = ["report.bin", "chain.pem", "driver-rim.xml", "vbios-rim.xml"]
        .map(|file| format!("{h100}/{file} "));
    let gpu = gpu.concat() + "--at 1700000000";
    let cpu = machine(&folder, &"3e".repeat(48), &nonce);
    let run = verify(&format!("{cpu} {gpu}")).good();
    run.says("cpu0: snp, genuine").says("gpu0: nvidia, genuine").says("verdict: accepted");

    // Without the nonce, they may be of two machines.
    let asked = format!(" --nonce {nonce}");
    let run = verify(&format!("{} {gpu}", cpu.replace(&asked, ""))).failed("ATT-362");
    run.says("refused[ATT-361]: the composite: ");
    // The CPU answered another one; then the GPU did.
    let other = machine(&folder, &"3e".repeat(48), &"77".repeat(32));
    let run =
        verify(&format!("{} {gpu}", other.replace(&"77".repeat(32), &nonce))).failed("ATT-362");
    run.says("refused[ATT-308]: ");
    verify(&format!("{other} {gpu}")).failed("ATT-362").says("refused[ATT-342]: ");
}

#[test]
fn help_teaches() {
    let help = flare_cvm(&["attest", "verify", "--help"]).good();
    help.says("openssl genpkey").says("--ear").says("What could not be checked is listed");
    help.says("--nonce-from-evidence")
        .says("--jwks-from-evidence")
        .says("--issuer-from-evidence")
        .says("accept_unread");
}
