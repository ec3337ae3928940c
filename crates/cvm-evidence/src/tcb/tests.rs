use serde_json::json;

use super::*;

fn tcb([bootloader, tee, snp, microcode]: [u8; 4]) -> Tcb {
    Tcb { fmc: None, bootloader, tee, snp, microcode }
}

fn shown(chip: &str, reported: [u8; 4], launch: [u8; 4]) -> ShownTcb {
    ShownTcb { chip: chip.parse().unwrap(), reported: tcb(reported), launch: tcb(launch) }
}

fn floor(entries: &[&str]) -> TcbFloor {
    TcbFloor::merge(entries.iter().map(|entry| entry.parse().unwrap())).unwrap()
}

/// Siena's newest microcode has a lower number than Genoa's oldest.
#[test]
fn attack_sienas_floor_met_by_an_unpatched_genoa() {
    let genoa = shown("Genoa-B1", [7, 0, 14, 0x44], [7, 0, 14, 0x44]);
    for entry in ["siena-a2=7.0.14.25", "siena=7.0.14.25", "milan=7.0.14.25", "genoa-b2=7.0.14.25"]
    {
        assert_eq!(
            floor(&[entry]).check(&genoa),
            Err(Shortfall::Unnamed { chip: genoa.chip }),
            "{entry}"
        );
    }
    let own = floor(&["siena-a2=7.0.14.25", "genoa-b1=7.0.14.84"]);
    let below = own.check(&genoa).unwrap_err();
    assert_eq!(
        below.to_string(),
        "the reported TCB's microcode is 68, at least 84 is asked for of Genoa-B1"
    );
    own.check(&shown("Genoa-B1", [7, 0, 14, 84], [7, 0, 14, 84])).unwrap();
    own.check(&shown("Siena-A2", [7, 0, 14, 25], [7, 0, 14, 25])).unwrap();
    assert!(
        own.check(&shown("Genoa", [255; 4], [255; 4])).is_err(),
        "a stepping that nobody knows"
    );
}

#[test]
fn a_steppings_own_floor_goes_before_its_products() {
    let both = floor(&["milan=4.0.24.219", "milan-b2=4.0.24.68"]);
    both.check(&shown("Milan-B2", [4, 0, 24, 68], [4, 0, 24, 68])).unwrap();
    both.check(&shown("Milan-B1", [4, 0, 24, 219], [4, 0, 24, 219])).unwrap();
    both.check(&shown("Milan", [4, 0, 24, 219], [4, 0, 24, 219])).unwrap();
    assert!(both.check(&shown("Milan-B1", [4, 0, 24, 68], [4, 0, 24, 219])).is_err());
    assert!(both.check(&shown("Milan", [4, 0, 24, 68], [4, 0, 24, 219])).is_err());
}

#[test]
fn attack_a_guest_that_old_firmware_launched() {
    let floor = floor(&["milan-b1=4.0.24.219"]);
    let good = [4, 0, 24, 219];
    floor.check(&shown("Milan-B1", good, good)).unwrap();
    for at in 0..4 {
        let mut low = good;
        low[at] = low[at].saturating_sub(1);
        for (reported, launch, version) in [(low, good, "reported"), (good, low, "launch")] {
            match floor.check(&shown("Milan-B1", reported, launch)) {
                Ok(()) => assert_eq!(good[at], 0),
                Err(Shortfall::Below { version: found, .. }) => assert_eq!(found, version),
                Err(other) => panic!("{other}"),
            }
        }
    }
    assert_eq!(floor.shortfalls(&shown("Milan-B1", [0; 4], [0; 4])).len(), 6);
    let turin = TcbFloor::merge(["turin-c1=1.1.1.1.33".parse().unwrap()]).unwrap();
    let with_fmc = |fmc| Tcb { fmc: Some(fmc), ..tcb([1, 1, 1, 33]) };
    let shown = |reported, launch| ShownTcb { chip: "Turin-C1".parse().unwrap(), reported, launch };
    turin.check(&shown(with_fmc(1), with_fmc(1))).unwrap();
    assert!(turin.check(&shown(with_fmc(0), with_fmc(1))).is_err());
    assert!(turin.check(&shown(with_fmc(1), with_fmc(0))).is_err());
}

#[test]
fn attack_no_floor_at_all() {
    let zero = shown("Milan-B1", [0; 4], [0; 4]);
    assert_eq!(TcbFloor::default().check(&zero), Err(Shortfall::Unnamed { chip: zero.chip }));
    assert_eq!(
        TcbFloor::default().check(&shown("Turin", [255; 4], [255; 4])).unwrap_err().to_string(),
        "no TCB floor is stated for Turin"
    );
    for zeros in ["milan=0.0.0.0", "turin=0.0.0.0.0"] {
        assert!(zeros.parse::<TcbFloor>().unwrap_err().to_string().contains("zeros"), "{zeros}");
    }
}

#[test]
fn floors_are_written_in_one_way() {
    let text = json!({ "Milan-B1": {"bootloader": 4, "tee": 0, "snp": 24, "microcode": 219},
        "Turin": {"fmc": 1, "bootloader": 1, "tee": 1, "snp": 4, "microcode": 51} });
    let read: TcbFloor = serde_json::from_value(text.clone()).unwrap();
    assert_eq!(serde_json::to_value(&read).unwrap(), text);
    assert_eq!(read, floor(&["Turin=1.1.1.4.51", "milan-b1=4.0.24.219"]));
    let milan = &text["Milan-B1"];
    for bad in [
        json!({ "Rome": milan }),
        json!({ "milan-B1": milan }),
        json!({ "Bergamo": milan }),
        json!({ "Milan-1": milan }),
        json!({ "Milan-": milan }),
        json!({ "Turin": milan }),
        json!({ "Milan": text["Turin"] }),
        json!({ "Milan": {"snp": 1} }),
        json!({ "Milan": {"bootloader": 0, "tee": 0, "snp": 0, "microcode": 0} }),
        milan.clone(),
    ] {
        assert!(serde_json::from_value::<TcbFloor>(bad.clone()).is_err(), "{bad}");
    }
    for bad in [
        "",
        "milan",
        "milan=",
        "milan=1.2.3",
        "milan=1.2.3.4.5",
        "turin=1.2.3.4",
        "milan=1.2.3.256",
        "milan=1.2.3.+4",
        "milan=1.2.3.04",
        "milan=1.2.3.0x4",
        "=1.2.3.4",
        "rome=1.2.3.4",
        "milan-q1=1.2.3.4",
        "milan-b=1.2.3.4",
        "milan-é1=1.2.3.4",
    ] {
        assert!(bad.parse::<TcbFloor>().is_err(), "{bad}");
    }
    let twice = ["milan=4.0.24.219", "Milan=4.0.24.68"].map(|entry| entry.parse().unwrap());
    assert!(TcbFloor::merge(twice).is_err());
}

#[test]
fn steppings_are_named_as_amd_names_them() {
    // The titles of AMD's Processor Programming References.
    for (model, stepping, name) in
        [(0x01, 1, "B1"), (0x11, 1, "B1"), (0xa0, 2, "A2"), (0x02, 1, "C1"), (0x11, 0, "B0")]
    {
        assert_eq!(Stepping::from_cpuid(model, stepping).to_string(), name);
        assert_eq!(name.parse::<Stepping>().unwrap(), Stepping::from_cpuid(model, stepping));
    }
}
