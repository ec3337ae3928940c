//! Old firmware, and the floors that policies set for it.

use cvm_collateral::tee::Vendors;
use cvm_evidence::tcb::TcbFloor;
use cvm_release_server::Reason;
use cvm_verify::tdx::intel_roots;

use super::{POLICY, put, scene, scene_of, scene_under, scene_with_floor};

#[test]
fn attack_tcb_rollback() {
    let line = crate::mint::line("Milan");
    let old = crate::mint::Spec { tcb: [9, 3, 1, 19, 0xd5], ..crate::mint::vcek("Milan-B0") };
    let vcek = crate::mint::endorse(&line.ask.1, &old);
    let scene = scene_of(Vendors::new(line.roots(), intel_roots().unwrap()), vcek);
    // The chip is honest about its old firmware …
    let client = scene.attest(put(0x180, &[3, 1, 0, 0, 0, 0, 19, 0xd5])).unwrap();
    let (reason, detail) = scene.release(&client).unwrap_err();
    assert_eq!(reason, Reason::WrongMeasurement, "{detail}");
    assert!(detail.contains("the reported TCB's snp is 19, at least 20"), "{detail}");
    // … and cannot be made to say otherwise: its key belongs to that firmware.
    let (reason, detail) = scene.attest(|_| {}).err().unwrap();
    assert_eq!(reason, Reason::EvidenceInvalid, "{detail}");
}

/// Firmware that was updated under the guest: the old one had launched and measured it.
#[test]
fn attack_a_guest_that_old_firmware_launched() {
    let scene = scene();
    let client = scene.attest(put(0x1f0, &[3, 1, 0, 0, 0, 0, 19, 0xd5])).unwrap();
    let (reason, detail) = scene.release(&client).unwrap_err();
    assert_eq!(reason, Reason::WrongMeasurement, "{detail}");
    assert!(detail.contains("the launch TCB's snp is 19, at least 20"), "{detail}");
}

/// What a builder signed before floors named products, or `predict` wrote without one.
#[test]
fn attack_tcb_0_0_0_0_under_the_shipped_policy() {
    let line = crate::mint::line("Milan");
    let zeros = crate::mint::Spec { tcb: [0; 5], ..crate::mint::vcek("Milan-B0") };
    let vendors = || Vendors::new(line.roots(), intel_roots().unwrap());
    for floor in [
        TcbFloor::default(),
        "milan-b1=3.1.20.213".parse().unwrap(),
        "genoa=7.0.14.84".parse().unwrap(),
    ] {
        let named = floor.clone();
        let scene =
            scene_with_floor(floor, None, vendors(), crate::mint::endorse(&line.ask.1, &zeros));
        let client = scene.attest(|report| {
            [0x38, 0x180, 0x1e0, 0x1f0].into_iter().for_each(|at| report[at..at + 8].fill(0))
        });
        let (reason, detail) = scene.release(&client.unwrap()).unwrap_err();
        assert_eq!(reason, Reason::WrongMeasurement, "{named:?} {detail}");
        assert!(detail.contains("TCB"), "{detail}");
    }
    let scene = scene_with_floor(
        TcbFloor::default(),
        None,
        vendors(),
        crate::mint::endorse(&line.ask.1, &crate::mint::vcek("Milan-B0")),
    );
    let (_, detail) = scene.release(&scene.attest(|_| {}).unwrap()).unwrap_err();
    assert!(
        detail.contains("no TCB floor is stated for Milan-B1") && detail.contains("tcb_floor"),
        "{detail}"
    );
}

/// A policy that parties signed when floors named no product: the key holder itself asks for
/// today's.
#[test]
fn a_policy_of_an_earlier_ceremony_still_releases() {
    let rule = "\tevery part, least in object.get(platform, \"min_tcb\", {}) \
        {\n\t\tsnp[sprintf(\"reported_tcb_%s\", [part])] >= least\n\t}\n";
    let today = "\tsnp.measurement == platform.measurement\n\ttcb_suffices(snp, platform)\n";
    let earlier =
        POLICY.replace(today, &format!("\tsnp.measurement == platform.measurement\n{rule}"));
    assert_ne!(earlier, POLICY);
    let line = crate::mint::line("Milan");
    let scene = |floor: &str| {
        let vcek = crate::mint::endorse(&line.ask.1, &crate::mint::vcek("Milan-B0"));
        let vendors = Vendors::new(line.roots(), intel_roots().unwrap());
        scene_under(&earlier, floor.parse().unwrap(), None, vendors, vcek)
    };
    let good = scene("milan-b1=3.1.20.213");
    good.release(&good.attest(|_| {}).unwrap()).unwrap();
    let other = scene("siena=3.1.20.25");
    let (reason, detail) = other.release(&other.attest(|_| {}).unwrap()).unwrap_err();
    assert_eq!(reason, Reason::WrongMeasurement, "{detail}");
}

/// Siena's newest microcode has a lower number than Genoa's oldest.
#[test]
fn attack_sienas_floor_met_by_an_unpatched_genoa() {
    let line = crate::mint::line("Genoa");
    let floors = ["siena-a2=3.1.20.25", "genoa-b1=3.1.20.84"].map(|floor| floor.parse().unwrap());
    let released = |floor: TcbFloor, name: &'static str, cpuid: [u8; 3], microcode: u8| {
        let spec = crate::mint::Spec { tcb: [0, 3, 1, 20, microcode], ..crate::mint::vcek(name) };
        let vendors = Vendors::new(line.roots(), intel_roots().unwrap());
        let scene =
            scene_with_floor(floor, None, vendors, crate::mint::endorse(&line.ask.1, &spec));
        let tcb = [3, 1, 0, 0, 0, 0, 20, microcode];
        let client = scene.attest(|report| {
            [0x38, 0x180, 0x1e0, 0x1f0]
                .into_iter()
                .for_each(|at| report[at..at + 8].copy_from_slice(&tcb));
            report[0x188..0x18b].copy_from_slice(&cpuid);
        });
        scene.release(&client.unwrap()).map(drop).map_err(|(_, detail)| detail)
    };
    let [siena, genoa]: [TcbFloor; 2] = floors;
    let both = TcbFloor::merge([siena.clone(), genoa]).unwrap();
    released(siena.clone(), "Siena-A2", [0x19, 0xa0, 2], 25).unwrap();
    released(both.clone(), "Siena-A2", [0x19, 0xa0, 2], 25).unwrap();
    released(both.clone(), "Genoa-B1", [0x19, 0x11, 1], 84).unwrap();
    let unpatched = |floor| released(floor, "Genoa-B1", [0x19, 0x11, 1], 0x44).unwrap_err();
    assert!(unpatched(siena.clone()).contains("no TCB floor is stated for Genoa-B1"));
    assert!(unpatched(both).contains("microcode is 68, at least 84 is asked for of Genoa-B1"));
    // Genoa's other stepping counts its microcode anew.
    assert!(
        released(siena, "Genoa-B1", [0x19, 0x11, 2], 255).unwrap_err().contains("for Genoa-B2")
    );
}
