//! A signed cache of collateral, filled with `collateral import`, instead of loose files.

use crate::{EVIDENCE, NOW, VECTORS, flare_cvm, folder, verify, verify::h100_nonce};

#[test]
fn evidence_of_every_form_finds_its_collateral_in_a_signed_cache() {
    let folder = folder("cache");
    let [cache, key] = ["cache", "my.key"].map(|name| folder.join(name).display().to_string());
    let evidence = |name: &str| format!("{EVIDENCE}/{name}");
    let rim = |name: &str, file: &str| format!("{name}={EVIDENCE}/gpu/h100-545.00-e2e/{file}");
    let files = [
        evidence("snp/milan-virtee/vcek.der"),
        evidence("snp/trustee-vcek/vcek.der"),
        evidence("snp/trustee-vlek/vlek.der"),
        evidence("azure/snp-trustee-evidence-v1/vcek.der"),
        evidence("tdx/collateral/near-mpc.json"),
        rim("NV_GPU_DRIVER_GH100_545.00", "driver-rim.xml"),
        rim("NV_GPU_VBIOS_1010_0200_882_96005E0001", "vbios-rim.xml"),
    ];
    let mut import = vec!["collateral", "import", "--cache", &cache, "--key", &key];
    import.extend(files.iter().map(String::as_str));
    flare_cvm(&import).good().says("7 imported");

    let with = format!("--collateral {cache} --collateral-signer {key}.pub");
    for (arguments, line) in [
        // Of version 2, which does not name its product, and version 3.
        (format!("{EVIDENCE}/snp/milan-virtee/report.bin --at {NOW}"), "cpu0: snp, genuine"),
        (format!("{EVIDENCE}/snp/trustee-vcek/report.bin --at {NOW}"), "cpu0: snp, genuine"),
        // Signed with a provider's key, which the report does not name.
        (format!("{EVIDENCE}/snp/trustee-vlek/report.bin --at {NOW}"), "cpu0: snp, genuine"),
        // The certificate twice, from a file and from the cache.
        (format!("{EVIDENCE}/snp/milan-virtee --at {NOW}"), "cpu0: snp, genuine"),
        (format!("{EVIDENCE}/tdx/quotes/near-mpc.bin --at 1787894500"), "tcb_status=UpToDate"),
        // A report inside Azure's, in files and in JSON.
        (
            ["hcl.bin", "quote.msg", "quote.sig", "pcrs.bin"]
                .map(|name| format!("{EVIDENCE}/azure/snp-trustee-evidence-v1/{name} "))
                .concat()
                + &format!("--nonce challenge --at {NOW}"),
            "cpu0: az-snp-vtpm, genuine",
        ),
        (format!("{VECTORS}/snp-trustee-e2e/evidence.json --at {NOW}"), "cpu0: snp, genuine"),
        (
            ["report.bin", "chain.pem"]
                .map(|name| format!("{EVIDENCE}/gpu/h100-545.00-e2e/{name} "))
                .concat()
                + &format!("--nonce {} --at 1700000000", h100_nonce()),
            "measres=success",
        ),
    ] {
        verify(&format!("{arguments} {with}")).good().says(line);
    }
    let report = format!("{EVIDENCE}/snp/milan-virtee/report.bin --at {NOW}");
    verify(&format!("{report} --collateral {cache}")).failed("CLI-021");
    // Of another machine there is nothing in it.
    let other = format!("{EVIDENCE}/snp/google-vcek/report.bin --at {NOW} {with}");
    verify(&other).failed("ATT-362").says("refused[ATT-303]: ");
    // Somebody else's cache.
    let [theirs, other] =
        ["theirs", "other.key"].map(|name| folder.join(name).display().to_string());
    flare_cvm(&["collateral", "import", "--cache", &theirs, "--key", &other, &files[0]]).good();
    let run = verify(&format!("{report} --collateral {cache} --collateral-signer {other}.pub"));
    assert_eq!((run.status, run.out.as_str()), (Some(1), ""), "{}", run.err);
    assert!(run.err.starts_with("error[ATT-3"), "{}", run.err);
}
