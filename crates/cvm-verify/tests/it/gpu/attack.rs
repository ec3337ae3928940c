//! What must never pass.

use cvm_verify::gpu::{Collateral, DeviceEvidence, GpuError, Rim, Roots, Source, Verifier, verify};

use super::{
    IN_2024, LATER, complete, evidence, nonce, read, rims,
    synthetic::{Device, World, authority, key, params},
};

const NAME: &str = "h100-545.00-e2e";

/// All bits; in debug builds, which are slow, those of the request, of the heads and of the end of
/// the opaque data, and a stride between.
#[test]
fn attack_every_bit_of_the_signed_part() {
    let (report, chain) = (read(&format!("{NAME}/report.bin")), read(&format!("{NAME}/chain.pem")));
    let roots = Roots::nvidia().unwrap();
    let mut verifier = Verifier::new(&roots, Collateral::default());
    let signed = report.len() - 96;
    let stride = if cfg!(debug_assertions) { 41 } else { 1 };
    let bits = (0..8 * signed)
        .filter(|bit| !(8 * 60..8 * (signed - 64)).contains(bit) || bit % stride == 0);
    let mut flipped = 0;
    for bit in bits.chain(8 * signed..8 * report.len()) {
        let mut report = report.clone();
        report[bit / 8] ^= 1 << (bit % 8);
        let verdict = DeviceEvidence::parse(&report, &chain)
            .and_then(|evidence| verifier.verify(&evidence, None, IN_2024));
        assert!(verdict.is_err(), "bit {bit}");
        flipped += 1;
    }
    assert!(flipped > 2000, "{flipped}");
}

#[test]
fn attack_chains_that_are_wrong() {
    let (report, pem) = (read(&format!("{NAME}/report.bin")), read(&format!("{NAME}/chain.pem")));
    let pems: Vec<String> = String::from_utf8(pem)
        .unwrap()
        .split_inclusive("-----END CERTIFICATE-----")
        .filter(|pem| pem.contains("BEGIN"))
        .map(|pem| format!("{pem}\n"))
        .collect();
    let roots = Roots::nvidia().unwrap();
    let verify_with = |chain: &[&str], roots: &Roots| {
        let evidence = DeviceEvidence::parse(&report, chain.concat().as_bytes())?;
        verify(&evidence, roots, Collateral::default(), None, LATER).map(drop)
    };
    let verify = |chain: &[&str]| verify_with(chain, &roots);
    let [leaf, identity, family_ca, family, root] =
        pems.iter().map(String::as_str).collect::<Vec<_>>().try_into().unwrap();
    verify(&[leaf, identity, family_ca, family, root]).unwrap();
    // The order does not count: the path is found in whatever order it is sent. A root need not be
    // sent.
    verify(&[root, family, family_ca, identity, leaf]).unwrap();
    verify(&[leaf, family_ca, identity, family]).unwrap();
    // Missing links, a missing or a second leaf, the root alone.
    let other = String::from_utf8(read("h100-550.90.07/chain.pem")).unwrap();
    let other = other.split_inclusive("-----END CERTIFICATE-----").next().unwrap();
    for chain in [
        &[leaf, family_ca, family, root][..],
        &[leaf, identity, family, root],
        &[leaf, identity],
        &[identity, family_ca, family, root],
        &[root],
        &[leaf],
        &[leaf, other, identity, family_ca, family, root],
        &[leaf, identity, identity, family_ca, family, root],
        &[],
    ] {
        assert!(verify(chain).is_err());
    }
    // Under somebody's own roots, and NVIDIA's device root for manifests.
    let own = World::new();
    assert!(matches!(
        verify_with(&[leaf, identity, family_ca, family, root], &own.roots()),
        Err(GpuError::Chain { .. })
    ));
    assert!(own.verify(&Device::blackwell()).is_ok());
    let evidence = own.evidence(&Device::blackwell()).unwrap();
    let error =
        cvm_verify::gpu::verify(&evidence, &roots, Collateral::default(), None, LATER).unwrap_err();
    assert!(matches!(error, GpuError::Chain { .. }), "{error}");
    let swapped = Roots::from_pem(
        &read("roots/verifier_RIM_root.pem"),
        &read("roots/verifier_device_root.pem"),
    )
    .unwrap();
    assert!(verify_with(&[leaf, identity, family_ca, family, root], &swapped).is_err());
    assert!(rims()[0].check(&swapped, IN_2024).is_err());
}

#[test]
fn attack_expired_looping_and_self_signed_certificates() {
    let world = World::new();
    let device = Device::blackwell();
    let mut report = device.unsigned();
    report.extend(world.sign(&report));
    let verdict = |chain: &str| {
        DeviceEvidence::parse(&report, chain.as_bytes()).and_then(|evidence| {
            verify(&evidence, &world.roots(), Collateral::default(), None, LATER)
        })
    };
    verdict(&world.chain(&device)).unwrap();
    let evidence = DeviceEvidence::parse(&report, world.chain(&device).as_bytes()).unwrap();
    for at in [1_500_000_000, 2_300_000_000] {
        let error = verify(&evidence, &world.roots(), Collateral::default(), None, at).unwrap_err();
        assert!(matches!(error, GpuError::Chain { .. }), "{error}");
    }
    // A loop: each of two authorities issued the other.
    let (a, b) = (authority("GH100 A", None, None), authority("GH100 B", None, None));
    let mut crossed = params("GH100 A", None);
    crossed.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let crossed_a = crossed.signed_by(a.key(), &b).unwrap();
    let mut crossed = params("GH100 B", None);
    crossed.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let crossed_b = crossed.signed_by(b.key(), &a).unwrap();
    let leaf = params("GH100 leaf", None).signed_by(&key(), &a).unwrap();
    assert!(verdict(&[leaf.pem(), crossed_a.pem(), crossed_b.pem()].concat()).is_err());
    assert!(verdict(&[crossed_a.pem(), crossed_b.pem()].concat()).is_err());
    let alone = params("GH100 A01 GSP BROM", None).self_signed(&key()).unwrap();
    assert!(verdict(&alone.pem()).is_err());
}

#[test]
fn attack_another_devices_chain_or_firmware() {
    let roots = Roots::nvidia().unwrap();
    let mixed = DeviceEvidence::parse(
        &read("h100-550.90.07/report.bin"),
        &read(&format!("{NAME}/chain.pem")),
    )
    .unwrap();
    assert_eq!(
        verify(&mixed, &roots, Collateral::default(), None, LATER),
        Err(GpuError::Signature)
    );
    // The key signs, but was certified for other firmware.
    let world = World::new();
    let device = Device { fwid: [0xf2; 48], ..Device::blackwell() };
    let error = world.verify(&device).unwrap_err();
    let GpuError::Identity { expected, found, .. } = &error else { panic!("{error}") };
    assert!(expected.starts_with("f2f2") && found.starts_with("f1f1"));
}

#[test]
fn attack_another_version_s_or_product_s_manifest() {
    let [driver, vbios] = rims();
    let other_vbios =
        Rim::parse(&read("rims/g520_0200_885_9600740001_PROD.swidtag"), None).unwrap();
    for given in [vec![driver.clone()], vec![vbios.clone()], vec![driver.clone(), other_vbios]] {
        assert!(matches!(complete(&given, IN_2024), Err(GpuError::RimMismatch { .. })));
    }
    // Named as another product's: NVIDIA's service gave it out for that one.
    let name = format!("{NAME}/vbios-rim.xml");
    let named = |id| Rim::parse(&read(&name), Some(id)).unwrap();
    let foreign = named("NV_GPU_VBIOS_G520_0200_885_96005E0001");
    assert!(matches!(
        complete(&[driver.clone(), foreign], IN_2024),
        Err(GpuError::RimMismatch { .. })
    ));
    complete(&[driver.clone(), named("NV_GPU_VBIOS_1010_0200_882_96005e0001")], IN_2024).unwrap();
    // Two different ones that fit: which one counts must not be chance.
    let second =
        Rim::parse(&read(&format!("{NAME}/vbios-rim.mismatch-1-2-3-9.xml")), None).unwrap();
    assert!(matches!(
        complete(&[driver.clone(), vbios.clone(), second], IN_2024),
        Err(GpuError::RimMismatch { .. })
    ));
    complete(&[driver.clone(), vbios.clone(), vbios.clone()], IN_2024).unwrap();
    // A chip of another name.
    let world = World::new();
    let golden: &[(u8, &[u8], bool)] = &[(0, &[0; 48], true)];
    let rim = |product: &str, version: &str| {
        Rim::parse(world.rim(product, version, golden).as_bytes(), None).unwrap()
    };
    let evidence = world.evidence(&Device::blackwell()).unwrap();
    let given = [rim("GH100", "575.32"), rim("GB100", "97.00.88.00.0F")];
    let collateral = Collateral { rims: &given, ..Collateral::default() };
    let error = verify(&evidence, &world.roots(), collateral, None, LATER).unwrap_err();
    assert!(matches!(error, GpuError::RimMismatch { .. }), "{error}");
}

#[test]
fn attack_two_manifests_for_one_measurement_and_fewer_measurements_than_golden_values() {
    let world = World::new();
    let both =
        |driver: &[(u8, &[u8], bool)], vbios: &[(u8, &[u8], bool)], change: fn(&mut Device)| {
            let given = [("575.32", driver), ("97.00.88.00.0F", vbios)].map(|(version, golden)| {
                Rim::parse(world.rim("GB100", version, golden).as_bytes(), None).unwrap()
            });
            let collateral = Collateral { rims: &given, ..Collateral::default() };
            let mut device = Device::blackwell();
            change(&mut device);
            verify(&world.evidence(&device).unwrap(), &world.roots(), collateral, None, LATER)
        };
    let value = |index: u8| [index; 48];
    let [one, two, thirty_five, wrong] = [value(1), value(2), value(35), value(99)];
    both(&[(1, &one, true)], &[(2, &two, true), (1, &wrong, false)], |_| {}).unwrap();
    assert_eq!(
        both(&[(1, &one, true)], &[(1, &one, true)], |_| {}),
        Err(GpuError::IndexConflict { index: 1 })
    );
    let mismatch = |verdict| match verdict {
        Err(GpuError::Measurements { mismatches }) => mismatches
            .into_iter()
            .map(|m: cvm_verify::gpu::Mismatch| (m.index, m.runtime_size, m.measurement_source))
            .collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    let found = both(&[(1, &wrong, true)], &[(2, &two, true)], |_| {});
    assert_eq!(mismatch(found), [(1, 48, Source::Driver)]);
    let found =
        both(&[(1, &one, true)], &[(2, &two, true)], |device| device.measurements.truncate(2));
    assert_eq!(mismatch(found), [(2, 0, Source::Firmware)]);
    // 35 counts only where decoder 0 exists.
    both(&[(1, &one, true)], &[(35, &wrong, true)], |_| {}).unwrap();
    let found =
        both(&[(1, &one, true)], &[(35, &wrong, true)], |device| device.set(11, vec![0xaa]));
    assert_eq!(mismatch(found), [(35, 48, Source::Firmware)]);
    both(&[(1, &one, true)], &[(35, &thirty_five, true)], |device| device.set(11, vec![0xaa]))
        .unwrap();
    assert!(
        both(&[(1, &one, true)], &[(2, &two, true)], |device| device.set(11, vec![0])).is_err()
    );
}

#[test]
fn attack_what_was_verified_once_is_not_believed_for_ever() {
    let (roots, rims) = (Roots::nvidia().unwrap(), rims());
    let collateral = Collateral { rims: &rims, ..Collateral::default() };
    let mut verifier = Verifier::new(&roots, collateral);
    let (evidence, nonce) = (evidence(NAME), nonce(NAME));
    for _ in 0..2 {
        verifier.verify(&evidence, Some(&nonce), IN_2024).unwrap();
        let error = verifier.verify(&evidence, Some(&nonce), LATER).unwrap_err();
        assert!(
            matches!(error, GpuError::Chain { .. }),
            "the manifests' signers have expired: {error}"
        );
        assert!(verifier.verify(&evidence, Some(&[0; 32]), IN_2024).is_err());
        assert!(verifier.verify(&evidence, Some(&nonce), 1_600_000_000).is_err());
    }
    // A chain that is remembered does not vouch for another report.
    let mut report = read(&format!("{NAME}/report.bin"));
    report[110] ^= 1;
    let forged = DeviceEvidence::parse(&report, &read(&format!("{NAME}/chain.pem"))).unwrap();
    assert_eq!(verifier.verify(&forged, Some(&nonce), IN_2024), Err(GpuError::Signature));
}

#[test]
fn attack_a_revoked_family() {
    let world = World::new();
    let crl = world.revoke_family();
    let crls = [crl];
    let evidence = world.evidence(&Device::blackwell()).unwrap();
    let collateral = Collateral { crls: &crls, ..Collateral::default() };
    let error = verify(&evidence, &world.roots(), collateral, None, LATER).unwrap_err();
    assert!(
        matches!(&error, GpuError::Chain { problem, .. } if problem.contains("evoked")),
        "{error}"
    );
}
