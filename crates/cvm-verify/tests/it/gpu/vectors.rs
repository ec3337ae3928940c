//! Real evidence, with the verdicts of PROVENANCE.md.

use base64::{Engine, engine::general_purpose::STANDARD};
use cvm_base::Explain;
use cvm_verify::gpu::{
    Collateral, DeviceClaims, DeviceEvidence, GpuClaims, GpuError, GpuPolicy, Measres, Report, Rim,
    Roots, Source, verify,
};
use serde_json::json;

use super::{IN_2024, LATER, complete, evidence, gpu, nonce, read, rim, rims};

#[test]
fn h100_545_is_complete() {
    let rims = rims();
    assert_eq!(rims.iter().map(Rim::golden_values).sum::<usize>(), 33);
    let claims = complete(&rims, IN_2024).unwrap();
    assert_eq!(claims.facts.measres, Measres::Success);
    assert_eq!(
        (claims.driver_version.as_str(), claims.vbios_version.as_str()),
        ("545.00", "96.00.5E.00.01")
    );
    assert_eq!(claims.facts.hwmodel, "GH100 A01 GSP BROM");
    assert_eq!(claims.oemid.as_deref(), Some("5703"));
    assert_eq!(
        claims.facts.rim_ids,
        ["NV_GPU_DRIVER_GH100_545.00", "NV_GPU_VBIOS_1010_0200_882_96005E0001"]
    );
    let checks: Vec<&str> =
        claims.facts.not_checked.iter().map(|check| check.check.as_str()).collect();
    assert_eq!(
        checks,
        ["fwid", "ocsp", "ocsp", "ocsp"],
        "firmware of then names no digest; no OCSP was given"
    );
    GpuPolicy::default().check(&claims).unwrap();
    let strict = GpuPolicy { ocsp: true, ..GpuPolicy::default() };
    assert_eq!(strict.check(&claims).unwrap_err().code(), "ATT-387");
}

#[test]
fn claims_have_the_names_of_nvidia_and_of_trustee() {
    let claims = complete(&rims(), IN_2024).unwrap();
    let value = serde_json::to_value(&claims).unwrap();
    for (pointer, expected) in [
        ("/arch", json!("Hopper")),
        ("/config/driver_version", json!("545.00")),
        ("/config/vbios_version", json!("96.00.5e.00.01")),
        ("/config/project", json!("1010")),
        ("/config/measurement_count/3", json!(4)),
        ("/measres", json!("success")),
        ("/secboot", json!(true)),
        ("/dbgstat", json!("disabled")),
        ("/x-nvidia-device-type", json!("gpu")),
        ("/x-nvidia-gpu-attestation-report-cert-chain/x-nvidia-cert-status", json!("valid")),
        (
            "/x-nvidia-gpu-attestation-report-cert-chain/x-nvidia-cert-ocsp-status",
            json!("undefined"),
        ),
        ("/x-nvidia-gpu-driver-rim-version-match", json!(true)),
        (
            "/x-nvidia-gpu-driver-rim-cert-chain/x-nvidia-cert-expiration-date",
            json!("2025-06-26T06:10:12Z"),
        ),
        (
            "/x-nvidia-gpu-vbios-rim-cert-chain/x-nvidia-cert-expiration-date",
            json!("2025-06-22T09:38:54Z"),
        ),
        ("/x-nvidia-gpu-vbios-index-no-conflict", json!(true)),
        ("/x-nv-gpu-measurements-match", json!(true)),
        ("/x-nv-gpu-cert-check-complete", json!(false)),
    ] {
        assert_eq!(value.pointer(pointer), Some(&expected), "{pointer}");
    }
    let legacy =
        value.as_object().unwrap().keys().filter(|name| name.starts_with("x-nv-gpu-")).count();
    assert_eq!(legacy, 28);
    assert_eq!(serde_json::from_value::<GpuClaims>(value).unwrap(), claims);
}

#[test]
fn the_mismatching_manifest_mismatches_at_1_2_3_9() {
    let rims = [
        rim("h100-545.00-e2e/driver-rim.xml"),
        rim("h100-545.00-e2e/vbios-rim.mismatch-1-2-3-9.xml"),
    ];
    let Err(GpuError::Measurements { mismatches }) = complete(&rims, IN_2024) else { panic!() };
    assert_eq!(mismatches.iter().map(|mismatch| mismatch.index).collect::<Vec<_>>(), [1, 2, 3, 9]);
    assert!(mismatches.iter().all(|mismatch| mismatch.measurement_source == Source::Firmware));
    let record = serde_json::to_value(&mismatches[0]).unwrap();
    assert_eq!(record["goldenSize"], 48);
    assert_eq!(record["measurementSource"], "Firmware");
    let error = GpuError::Measurements { mismatches }.to_string();
    assert!(
        error.contains("1 (HashedMeasurement_1_FSP, Firmware): expected c3f65ef79a19c029"),
        "{error}"
    );
}

#[test]
fn h100_550_is_genuine_and_without_a_manifest() {
    let (roots, name) = (Roots::nvidia().unwrap(), "h100-550.90.07");
    let claims =
        gpu(verify(&evidence(name), &roots, Collateral::default(), Some(&nonce(name)), LATER))
            .unwrap();
    // As NVIDIA's own service said of this GPU (vectors/nras).
    assert_eq!(claims.facts.ueid, "478176379286082186618948445787393647364802107249");
    assert_eq!(claims.vbios_version, "96.00.9F.00.01");
    assert_eq!(claims.report.chain.expiration_date, "9999-12-31T23:59:59Z");
    assert_eq!(claims.facts.measres, Measres::NotRun);
    assert_eq!(claims.facts.secboot, None);
    assert!(!claims.driver_rim.fetched && !claims.legacy.x_nv_gpu_measurements_match);
    let checks: Vec<&str> =
        claims.facts.not_checked.iter().map(|check| check.check.as_str()).collect();
    assert_eq!(checks, ["ocsp", "rim", "rim"]);
    let refused = GpuPolicy::default().check(&claims).unwrap_err();
    assert!(refused.to_string().contains("golden values"), "{refused}");
    // Another driver's manifests do not help.
    let given = rims();
    let collateral = Collateral { rims: &given, ..Collateral::default() };
    let error = verify(&evidence(name), &roots, collateral, None, IN_2024).unwrap_err();
    let GpuError::RimMismatch { expected, found } = &error else { panic!("{error}") };
    assert_eq!(expected, "NV_GPU_DRIVER_GH100_550.90.07");
    assert_eq!(found, "GH100 545.00, GH100 96.00.5E.00.01");
}

#[test]
fn h100_560_has_a_bad_signature() {
    let (roots, name) = (Roots::nvidia().unwrap(), "h100-560.00-BADSIG");
    let verify = |nonce| verify(&evidence(name), &roots, Collateral::default(), nonce, LATER);
    let nonce = nonce(name);
    assert_eq!(verify(Some(&nonce)), Err(GpuError::Signature));
    assert_eq!(verify(None), Err(GpuError::Signature));
}

#[test]
fn the_nonce_is_compared_and_its_absence_is_said() {
    let (roots, name) = (Roots::nvidia().unwrap(), "h100-545.00-e2e");
    let verify = |nonce| gpu(verify(&evidence(name), &roots, Collateral::default(), nonce, LATER));
    let claims = verify(None).unwrap();
    assert!(!claims.report.nonce_match && !claims.legacy.x_nv_gpu_nonce_match);
    assert_eq!(claims.facts.not_checked[0].check, "nonce");
    assert_eq!(claims.facts.eat_nonce, hex::encode(nonce(name)));
    let mut other = nonce(name);
    other[31] ^= 1;
    assert!(matches!(verify(Some(&other)), Err(GpuError::Nonce { .. })));
}

#[test]
fn manifests_are_believed_while_their_signers_are_valid() {
    let roots = Roots::nvidia().unwrap();
    for (name, version) in [
        ("rims/Driver_RIM_test_no_gpu.swidtag", "545.00"),
        ("rims/1010_0200_882_96005E0001_test_no_gpu.swidtag", "96.00.5E.00.01"),
        ("rims/g520_0200_885_9600740001_PROD.swidtag", "96.00.74.00.01"),
    ] {
        let rim = rim(name);
        assert_eq!(
            (rim.version(), rim.product(), rim.manufacturer_id()),
            (version, "GH100", "5703")
        );
        rim.check(&roots, IN_2024).unwrap();
        for at in [LATER, 1_600_000_000] {
            let error = rim.check(&roots, at).unwrap_err();
            assert!(matches!(error, GpuError::Chain { .. }), "{name} at {at}: {error}");
        }
    }
    // The expired one was also edited after it was signed, as its neighbour was.
    for name in ["NV_GPU_DRIVER_GH100_570.124.03_expired.xml", "incorrect_signature_driver_rim.xml"]
    {
        let rim = rim(&format!("rims/{name}"));
        for at in [1_680_000_000, IN_2024, 1_740_000_000, LATER] {
            let error = rim.check(&roots, at).unwrap_err();
            assert!(matches!(error, GpuError::RimSignature { .. }), "{name} at {at}: {error}");
        }
    }
}

#[test]
fn evidence_in_each_form_that_is_sent() {
    let name = "h100-550.90.07";
    let (report, chain) = (read(&format!("{name}/report.bin")), read(&format!("{name}/chain.pem")));
    let (e, c) = (STANDARD.encode(&report), STANDARD.encode(&chain));
    let nonce = hex::encode(nonce(name));
    let device = json!({"arch": "HOPPER", "uuid": "GPU-1", "evidence": e, "certificate": c});
    for set in [
        json!({ "device_evidence_list": [device] }),
        json!([{"arch": "HOPPER", "nonce": nonce, "evidence": e, "certificate": c}]),
        json!({"nonce": nonce, "arch": "HOPPER", "claims_version": "3.0",
            "evidence_list": [{"evidence": e, "certificate": c}]}),
        json!([{"arch": "Hopper", "evidence": hex::encode(&report), "certificate": c}]),
    ] {
        let parsed = DeviceEvidence::parse_set(set.to_string().as_bytes()).unwrap();
        assert_eq!(parsed.len(), 1);
        assert_eq!(parsed[0].report(), &Report::parse(&report).unwrap());
    }
    let claims = DeviceEvidence::parse_set(
        json!({ "device_evidence_list": [device] }).to_string().as_bytes(),
    );
    let roots = Roots::nvidia().unwrap();
    let claims = verify(&claims.unwrap()[0], &roots, Collateral::default(), None, LATER).unwrap();
    assert!(matches!(claims, DeviceClaims::Gpu(gpu) if gpu.facts.uuid.as_deref() == Some("GPU-1")));
    for bad in [
        json!([]),
        json!({ "device_evidence_list": [] }),
        json!([{"arch": "BLACKWELL", "evidence": e, "certificate": c}]),
        json!([{"arch": "AMPERE", "evidence": e, "certificate": c}]),
        json!([{"nonce": "00", "evidence": e, "certificate": c}]),
        json!([{"evidence": "?", "certificate": c}]),
        json!([{"evidence": e}]),
        json!(vec![device; 65]),
    ] {
        assert!(DeviceEvidence::parse_set(bad.to_string().as_bytes()).is_err());
    }
    assert!(DeviceEvidence::parse_set(&vec![b' '; 5 * 1024 * 1024]).is_err());
    let unknown = json!([{"arch": "AMPERE", "evidence": e, "certificate": c}]).to_string();
    let error = DeviceEvidence::parse_set(unknown.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("unknown variant `AMPERE`"), "{error}");
}
