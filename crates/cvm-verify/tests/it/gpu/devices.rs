//! What is read of devices that do not exist.

use cvm_verify::gpu::{
    Arch, Collateral, DeviceClaims, Feature, GpuError, GpuPolicy, Measres, Pdi, Report, Rim,
    SwitchClaims, verify,
};

use serde_json::json;

use super::{
    LATER,
    synthetic::{Device, World},
};

#[test]
fn a_blackwell_gpu() {
    let (world, mut device) = (World::new(), Device::blackwell());
    let claims = world.gpu(&device);
    assert_eq!(
        (claims.facts.arch, claims.facts.hwmodel.as_str()),
        (Arch::Blackwell, "GB100 A01 GSP BROM")
    );
    assert_eq!(claims.vbios_version, "97.00.88.00.0F");
    assert_eq!(
        claims.facts.rim_ids,
        ["NV_GPU_CC_DRIVER_GB100_575.32", "NV_GPU_VBIOS_G525_0220_886_970088000F"]
    );
    assert_eq!((claims.feature, claims.facts.ueid.as_str()), (Some(Feature::Spt), "4660"));
    assert_eq!(claims.pdi, Some(Pdi(device.pdi)));
    assert!(!claims.facts.not_checked.iter().any(|check| check.check == "fwid"));
    // Before version 1 of the opaque data neither mode nor chip are stated.
    device.opaque.retain(|(field, _)| *field < 34);
    let claims = world.gpu(&device);
    assert_eq!(
        (claims.feature, claims.facts.rim_ids[0].as_str()),
        (None, "NV_GPU_CC_DRIVER_GB100_575.32")
    );
    // The second digest in its certificate is not the firmware's.
    device.set(20, vec![0; 48]);
    assert!(matches!(world.verify(&device), Err(GpuError::Identity { .. })));
}

#[test]
fn a_switch() {
    let world = World::new();
    let claims = world.switch(&Device::ppcie_switch(3));
    assert_eq!((claims.facts.arch, claims.bios_version.as_str()), (Arch::Ls10, "96.10.55.00.01"));
    assert_eq!(claims.facts.rim_ids, ["NV_SWITCH_BIOS_5612_0002_890_9610550001"]);
    let value = serde_json::to_value(&claims).unwrap();
    assert_eq!(value["x-nvidia-switch-pdi"], "5A00000000000003");
    assert_eq!(value["x-nvidia-switch-gpu-pdis"].as_array().unwrap().len(), 8);
    assert_eq!(value["x-nvidia-switch-bios-rim-fetched"], false);
    assert_eq!(serde_json::from_value::<SwitchClaims>(value).unwrap(), claims);
    let golden: Vec<[u8; 48]> = (0..31).map(|index| [index; 48]).collect();
    let golden: Vec<(u8, &[u8], bool)> =
        (0..).zip(&golden).map(|(index, value)| (index, &value[..], true)).collect();
    let rims = [Rim::parse(world.rim("LS10", "96.10.55.00.01", &golden).as_bytes(), None).unwrap()];
    let evidence = world.evidence(&Device::ppcie_switch(3)).unwrap();
    let collateral = Collateral { rims: &rims, ..Collateral::default() };
    let DeviceClaims::Switch(claims) =
        verify(&evidence, &world.roots(), collateral, None, LATER).unwrap()
    else {
        panic!("a GPU")
    };
    assert_eq!(claims.facts.measres, Measres::Success);
    assert!(claims.bios_rim.signature_verified && !claims.report.nonce_match);
}

#[test]
fn what_is_no_report() {
    let (world, device) = (World::new(), Device::blackwell());
    let good = [device.unsigned(), vec![1; 96]].concat();
    Report::parse(&good).unwrap();
    let broken = |at: usize, byte: u8| {
        let mut report = good.clone();
        report[at] = byte;
        Report::parse(&report)
    };
    for (at, byte) in [
        (0, 0x10),
        (1, 0xe1),
        (2, 0),
        (3, 1),
        (37, 0x12),
        (38, 0x61),
        (41, 63),
        (41, 0),
        (42, 0),
        (45, 0),
        (45, 2),
        (46, 2),
        (47, 50),
        (50, 47),
    ] {
        assert!(broken(at, byte).is_err(), "{at} {byte}");
    }
    for length in 0..good.len() {
        assert!(Report::parse(&good[..length]).is_err());
    }
    assert!(Report::parse(&[good.clone(), vec![0]].concat()).is_err());
    assert!(Report::parse(&vec![0x11; 70_000]).is_err());
    let refused = |change: fn(&mut Device)| {
        let mut device = device.clone();
        change(&mut device);
        world
            .evidence(&device)
            .and_then(|evidence| {
                verify(&evidence, &world.roots(), Collateral::default(), None, LATER)
            })
            .unwrap_err()
    };
    for (change, expected) in [
        ((|device| device.opaque.push((3, b"1.0".to_vec()))) as fn(&mut Device), "twice"),
        (|device| device.set(34, vec![2, 0]), "version 2"),
        (|device| device.set(36, vec![3, 0]), "feature flag 3"),
        (|device| device.set(3, b"../x".to_vec()), "not a name"),
        (|device| device.set(3, vec![0; 4]), "not a name"),
        (|device| device.set(6, vec![1; 7]), "7 bytes"),
        (|device| device.set(22, vec![1; 7]), "8 bytes"),
        (|device| device.opaque.retain(|(field, _)| *field != 17), "no Project"),
        (|device| device.chip = "GA100", "not one that NVIDIA attests"),
    ] {
        let error = refused(change).to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// A later firmware's field is signed like the others: a claim, which the policy judges.
#[test]
fn opaque_data_of_a_type_that_is_not_known_is_the_policys_to_judge() {
    let world = World::new();
    let mut device = Device::blackwell();
    device.set(37, vec![1, 2]);
    let claims = world.gpu(&device);
    assert_eq!(
        (&claims.facts.unknown_fields[..], &claims.facts.config["field_37"]),
        (&[37][..], &json!("0102"))
    );
    let lenient = GpuPolicy { golden_values: false, nonce: false, ..GpuPolicy::default() };
    let refused = lenient.check(&claims).unwrap_err();
    assert!(refused.to_string().contains("[37]"), "{refused}");
    GpuPolicy { unknown_fields: true, ..lenient }.check(&claims).unwrap();
}
