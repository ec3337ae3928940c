//! On recorded devices.

use std::{fs, path::PathBuf};

use cvm_collect::Recorded;

use super::*;

/// A folder with a real report, or a real quote, and what makes an SNP machine's key.
fn recording(name: &str, derived_key: Option<[u8; 32]>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let vectors = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/evidence");
    let file = name.rsplit('/').next().unwrap();
    fs::copy(vectors.join(name), folder.path().join(file)).unwrap();
    if let Some(key) = derived_key {
        fs::write(folder.path().join("derived-key.bin"), key).unwrap();
    }
    folder
}

fn guest(folder: &tempfile::TempDir, rtmr3: &Path) -> Result<GuestDevice, Failure> {
    GuestDevice::new(Box::new(Recorded::open(folder.path()).unwrap().replaying()), rtmr3)
}

fn platform(folder: &tempfile::TempDir, rtmr3: &Path) -> Platform {
    Platform { tee: Some(guest(folder, rtmr3).unwrap()), tpm: None }
}

#[test]
fn an_snp_guest_sends_what_a_stock_attester_sends() {
    let folder = recording("snp/milan-virtee/report.bin", None);
    let mut platform = platform(&folder, Path::new("/nowhere"));
    assert_eq!(platform.describe(), "SEV-SNP");
    let attester = platform.attester(None).unwrap();
    assert_eq!((attester.tee(), attester.auth_params().unwrap().as_str()), (Tee::Snp, ""));
    let body = attester.evidence("", &Binding([1; 48])).unwrap();
    let report = fs::read(folder.path().join("report.bin")).unwrap();
    assert_eq!(body["attestation_report"]["version"], u32::from(report[0]));
    assert_eq!(body["attestation_report"]["measurement"], serde_json::json!(report[0x90..0xc0]));
    assert!(body["cert_chain"].is_null());
}

#[test]
fn a_report_is_asked_for_with_the_sessions_digest_and_zeros_after_it() {
    let folder = recording("snp/milan-virtee/report.bin", None);
    let device = Box::new(Recorded::open(folder.path()).unwrap());
    let mut platform =
        Platform { tee: Some(GuestDevice::new(device, Path::new("/nowhere")).unwrap()), tpm: None };
    let refused = platform
        .attester(None)
        .unwrap()
        .evidence("", &Binding([0xab; 48]))
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains(&format!("not for {}{}", "ab".repeat(48), "00".repeat(16))),
        "{refused}"
    );
}

#[test]
fn what_the_site_collected_travels_in_the_evidence() {
    let folder = recording("snp/milan-virtee/report.bin", None);
    let mut platform = platform(&folder, Path::new("/nowhere"));
    let packed = serde_json::json!({ "index": "…", "files": {} });
    let body = platform.attester(Some(&packed)).unwrap().evidence("", &Binding([1; 48])).unwrap();
    assert_eq!(body["collateral"], packed);
}

#[test]
fn a_td_whose_kernel_cannot_measure_the_handoff_does_not_boot() {
    let folder = recording("ccel/near-mpc/quote.bin", None);
    let failure = guest(&folder, Path::new("/nowhere/rtmr3:sha384")).err().unwrap();
    assert_eq!(failure.code, Code::HandoffMeasure);
}

#[test]
fn attack_a_kernel_that_only_says_that_it_extended_rtmr3() {
    let folder = recording("ccel/near-mpc/quote.bin", None);
    let rtmr3 = folder.path().join("rtmr3:sha384");
    fs::write(&rtmr3, [0; 48]).unwrap();
    // A file keeps what is written; a register would have hashed it.
    let failure = platform(&folder, &rtmr3).measure_handoff().unwrap_err();
    assert_eq!(failure.code, Code::HandoffMeasure);
    assert_eq!(fs::read(&rtmr3).unwrap(), td_handoff_digest().0);
}

#[test]
fn a_tee_keeps_the_machines_secret_and_the_hosts_tpm_does_not() {
    let folder = recording("snp/milan-virtee/report.bin", Some([7; 32]));
    let mut platform = platform(&folder, Path::new("/nowhere"));
    let Keeper::Tee(device) = platform.keeper().unwrap() else { panic!("the TPM") };
    assert_eq!(*device.derived_key().unwrap().unwrap(), [7; 32]);
}
