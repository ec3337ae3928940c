//! Prediction for TDs, against an independent tool's MRTDs and a production TD's event log.

use std::{fs, path::PathBuf};

use cvm_base::{Bytes, Explain as _, sha256};
use cvm_evidence::rtmr::{self, Bytes48, RtmrEvent, explain};
use cvm_predict::{
    PredictError,
    tdx::{Acpi, Boot, PageOrder, TdxInputs, tdx},
};
use serde_json::Value;

/// Section: offset and size in the image, address and size in memory, type, attributes.
type Section = (u32, u32, u64, u64, u32, u32);

/// TDX metadata 2 KiB before the end, and OVMF's table of GUIDs that leads there.
fn with_metadata(mut image: Vec<u8>, sections: &[Section]) -> Vec<u8> {
    let hex = |text: &str| -> Vec<u8> {
        (0..16).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
    };
    let count = sections.len() as u32;
    let mut metadata = [hex("f3f9eae98e16d544a8eb7f4d8738f6ae"), b"TDVF".to_vec()].concat();
    metadata.extend([16 + 32 * count, 1, count].into_iter().flat_map(u32::to_le_bytes));
    for (offset, raw, address, size, kind, attributes) in sections {
        metadata.extend([offset.to_le_bytes(), raw.to_le_bytes()].concat());
        metadata.extend([address.to_le_bytes(), size.to_le_bytes()].concat());
        metadata.extend([kind.to_le_bytes(), attributes.to_le_bytes()].concat());
    }
    let end = image.len();
    image[end - 0x800 - 16..][..metadata.len()].copy_from_slice(&metadata);
    let entry = |data: u32, guid: &str| [&data.to_le_bytes()[..], &[22, 0], &hex(guid)].concat();
    let mut table = entry(0x800, "35657ae44a989847865e4685a7bf8ec2");
    table.extend(entry(0, "de71f7007e1acb4f890e68c77e2fb44e"));
    let length = table.len() as u16 + 18;
    table.extend([&length.to_le_bytes()[..], &hex("de82b596b21ff745baeaa366c55a082d")].concat());
    image[end - 0x20 - table.len()..end - 0x20].copy_from_slice(&table);
    image
}

const MEMORY: [Section; 4] = [
    (0, 0, 0x81_0000, 0x1_0000, 3, 0),
    (0, 0, 0x80_b000, 0x2000, 3, 0),
    (0, 0, 0x80_9000, 0x2000, 2, 0),
    (0, 0, 0x80_0000, 0x6000, 3, 0),
];

/// The image of which td-shim's tool computed the MRTD.
fn firmware() -> Vec<u8> {
    let image = (0..0x1_0000)
        .map(|i| (i % 251) as u8)
        .chain((0..0x3_0000).map(|i| (i % 253) as u8))
        .collect();
    let [code, variables] = [
        (0x1_0000, 0x3_0000, 0xfffd_0000, 0x3_0000, 0, 1),
        (0, 0x1_0000, 0xfffc_0000, 0x1_0000, 1, 0),
    ];
    let augmented = (0, 0, 0x90_0000, 0x3000, 3, 2);
    with_metadata(image, &[&[code, variables], &MEMORY[..], &[augmented]].concat())
}

const KERNEL: &[u8] = b"not yet";

fn inputs(firmware: &[u8]) -> TdxInputs<'_> {
    let boot = Boot::Direct { kernel: KERNEL, command_line: "", initrd: &[] };
    TdxInputs { firmware, pages: PageOrder::PageByPage, memory: None, acpi: None, boot }
}

/// The smallest PE32+ image that firmware would load; `content` is in its one section.
fn pe(content: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 1024];
    image[..2].copy_from_slice(b"MZ");
    image[0x3c] = 0x80;
    image[0x80..0x84].copy_from_slice(b"PE\0\0");
    (image[0x86], image[0x94]) = (1, 240);
    image[0x98..0x9a].copy_from_slice(&[0x0b, 0x02]);
    image[0x98 + 60..0x98 + 64].copy_from_slice(&1024u32.to_le_bytes());
    for (at, value) in [(8, content.len() as u32), (16, 512), (20, 1024)] {
        image[0x98 + 240 + at..][..4].copy_from_slice(&value.to_le_bytes());
    }
    image.extend(content);
    image.resize(1536, 0);
    image
}

/// td-shim 125eeab5, `td_shim_tee_info_hash.py` (Alibaba Cloud), on the same images.
#[test]
fn mrtd_is_what_an_independent_tool_computes() {
    let kernel = pe(b"kernel");
    let mrtd = |firmware: &[u8]| {
        let boot = Boot::Direct { kernel: &kernel, command_line: "", initrd: &[] };
        tdx(&TdxInputs { boot, ..inputs(firmware) }).unwrap().mrtd.to_string()
    };
    assert_eq!(
        mrtd(&firmware()),
        "617dcdda5ef2fa4b9430db337290d98f075726946345415a\
         bbd792080747f02413adda7efe18ce2809740782fbddd064"
    );
    let debian = fs::read("/usr/share/ovmf/OVMF.fd").expect("Debian's ovmf is installed");
    let known = "7b456907dd0786d415999e801a1ac4637b8ed4d7cf5378cfc6edbe5e574dd773";
    if sha256(&debian).to_string() == known {
        assert_eq!(
            mrtd(&debian),
            "4c7206f0f483c524f12c366c711e9049030a8d47c471ee5a\
             a9c4999a08de4057fb887fed0744d5631a212967fb231c47"
        );
    } else {
        println!("another ovmf than 2022.11-6+deb12u2: not compared");
    }
    // The other order of adding pages is another value.
    let image = firmware();
    let boot = Boot::Direct { kernel: &kernel, command_line: "", initrd: &[] };
    let other = TdxInputs { pages: PageOrder::SectionBySection, boot, ..inputs(&image) };
    assert_ne!(tdx(&other).unwrap().mrtd.to_string(), mrtd(&image));
    // What the image holds of the configuration volume is not in MRTD; of the code it is.
    let mut changed = firmware();
    changed[0] ^= 1;
    assert_eq!(mrtd(&changed), mrtd(&firmware()));
    changed[0x1_0000] ^= 1;
    assert_ne!(mrtd(&changed), mrtd(&firmware()));
}

/// A TD of 64 GiB with OVMF's 4 MiB build whose variable store is as Debian ships it, booted with
/// `-kernel`.
#[test]
fn a_production_td_measured_what_is_predicted() {
    let log = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/vectors/evidence/ccel/near-mpc/tcb_info.json");
    let log: Value = serde_json::from_slice(&fs::read(log).unwrap()).unwrap();
    let digests = |rtmr: u64| -> Vec<Bytes48> {
        let events =
            log["event_log"].as_array().unwrap().iter().filter(|event| event["imr"] == rtmr);
        events.map(|event| event["digest"].as_str().unwrap().parse().unwrap()).collect()
    };
    let measured = digests(0);
    let [loader, rsdp, tables] = [measured[8], measured[9], measured[10]];

    let mut image =
        fs::read("/usr/share/OVMF/OVMF_VARS_4M.fd").expect("Debian's ovmf is installed");
    let variables = image.len() as u32;
    image.extend(vec![0; 0x1000]);
    let volumes = [
        (variables, 0x1000, 0xffff_f000, 0x1000, 0, 1),
        (0, variables, 0xffc0_0000, u64::from(variables), 1, 0),
    ];
    let firmware = with_metadata(image, &[&volumes[..], &MEMORY].concat());
    let cc = [
        b"kernel".as_slice(),
        &[
            0x3d, 0x1a, 0x75, 0x96, 0xf4, 0x72, 0xa6, 0x41, 0xa7, 0x94, 0xed, 0x5d, 0x0e, 0x67,
            0xae, 0x6b,
        ],
    ];
    let kernel = pe(&cc.concat());
    let boot =
        Boot::Direct { kernel: &kernel, command_line: "console=ttyS0", initrd: b"initramfs" };
    let full = TdxInputs {
        memory: Some(64 << 30),
        acpi: Some(Acpi { loader, rsdp, tables }),
        boot,
        ..inputs(&firmware)
    };
    let prediction = tdx(&full).unwrap();
    assert_eq!(prediction.not_predicted, []);
    assert_eq!(prediction.rtmrs[0].unwrap().to_string(), log["rtmr0"]);
    assert_eq!(prediction.rtmrs[3], Some(Bytes([0; 48])));
    let predicted = |rtmr: u8| prediction.explain.iter().filter(move |event| event.rtmr == rtmr);
    assert!(predicted(0).map(|event| event.digest).eq(measured));
    // All of RTMR1 but the kernel itself; as many events in RTMR2.
    let found = digests(1);
    assert_eq!(predicted(1).count(), found.len());
    for (event, found) in predicted(1).zip(&found) {
        assert_eq!(event.digest == *found, event.event != "kernel", "{}", event.event);
    }
    assert_eq!(predicted(2).count(), digests(2).len());

    // One input changed, and what it is blamed on.
    let differs = |changed: TdxInputs<'_>| -> (u8, String) {
        let [mismatch] = &explain(&prediction.explain, &tdx(&changed).unwrap().explain)[..] else {
            panic!()
        };
        (mismatch.rtmr, mismatch.likely.clone())
    };
    let memory = TdxInputs { memory: Some(32 << 30), ..full };
    assert_eq!(differs(memory), (0, "the host gave another memory size or layout".into()));
    let acpi = TdxInputs { acpi: Some(Acpi { tables: rsdp, loader, rsdp }), ..full };
    assert!(differs(acpi).1.contains("vCPU count"));
    let line = Boot::Direct { kernel: &kernel, command_line: "init=/bin/sh", initrd: b"initramfs" };
    assert_eq!(differs(TdxInputs { boot: line, ..full }), (2, "the command line changed".into()));
    let initrd = Boot::Direct { kernel: &kernel, command_line: "console=ttyS0", initrd: b"other" };
    assert_eq!(differs(TdxInputs { boot: initrd, ..full }), (2, "another initramfs".into()));
    let other = pe(&[cc[1], b"other"].concat());
    let kernel =
        Boot::Direct { kernel: &other, command_line: "console=ttyS0", initrd: b"initramfs" };
    assert_eq!(differs(TdxInputs { boot: kernel, ..full }), (1, "another loader or kernel".into()));
}

#[test]
fn what_is_not_known_is_not_predicted() {
    let image = firmware();
    let kernel = pe(b"a kernel that does not know TDs");
    let boot = Boot::Direct { kernel: &kernel, command_line: "quiet", initrd: b"initramfs" };
    let prediction = tdx(&TdxInputs { boot, ..inputs(&image) }).unwrap();
    let reasons: Vec<_> =
        prediction.not_predicted.iter().map(|missing| (missing.rtmr, missing.reason)).collect();
    assert!(matches!(
        &reasons[..],
        [(0, hob), (0, acpi)] if hob.contains("memory size") && acpi.contains("ACPI")
    ));
    assert_eq!(prediction.rtmrs[0], None);
    assert!(prediction.rtmrs[1].is_some());
    // Such a kernel measures neither its command line nor its initramfs.
    assert_eq!(prediction.rtmrs[2], Some(Bytes([0; 48])));
    let replayed = rtmr::replay(
        prediction.explain.iter().map(|RtmrEvent { rtmr, digest, .. }| (*rtmr, digest)),
    );
    assert_eq!(prediction.rtmrs[1], Some(replayed[1]));
}

#[test]
fn firmware_that_starts_no_td_is_refused() {
    let kernel = pe(b"kernel");
    let boot = Boot::Direct { kernel: &kernel, command_line: "", initrd: &[] };
    let refused = |image: &[u8]| tdx(&TdxInputs { boot, ..inputs(image) }).unwrap_err();
    let good = firmware();
    for image in [&b""[..], &[0; 31], &[0; 100], &good[..good.len() - 1], &good[1..]] {
        let error = refused(image);
        assert!(matches!(error, PredictError::Firmware { .. }), "{error}");
        assert_eq!(error.code(), "ATT-408");
    }
    // Debian's 4 MiB build has no metadata, and the code alone lacks what the metadata names.
    let error = refused(&fs::read("/usr/share/OVMF/OVMF_CODE_4M.fd").unwrap());
    assert!(error.to_string().contains("no TDX metadata"), "{error}");
    let error = refused(&fs::read("/usr/share/OVMF/OVMF_CODE.fd").unwrap());
    assert!(error.to_string().contains("without its variables"), "{error}");
    // Every byte of metadata and table set to its extremes: refused or predicted, never a panic.
    let small = [
        (0x1000, 0x1000, 0xffff_f000, 0x1000, 0, 1),
        (0, 0x1000, 0xffff_e000, 0x1000, 1, 0),
        MEMORY[1],
        MEMORY[2],
    ];
    let good = with_metadata(vec![7; 0x2000], &small);
    tdx(&TdxInputs { boot, ..inputs(&good) }).unwrap();
    let end = good.len();
    for at in (end - 0x810..end - 0x810 + 16 + 32 * 4).chain(end - 0x20 - 62..end - 0x20) {
        for value in [0, 1, 0x80, 0xff] {
            let mut bad = good.clone();
            bad[at] = value;
            let _ = tdx(&TdxInputs { boot, memory: Some(4 << 30), ..inputs(&bad) });
        }
    }
    let few = TdxInputs { boot, memory: Some(1 << 20), ..inputs(&good) };
    assert_eq!(tdx(&few).unwrap_err().code(), "ATT-408");
    let most = TdxInputs { boot, memory: Some(u64::MAX), ..inputs(&good) };
    assert_eq!(tdx(&most).unwrap_err().code(), "ATT-408");
}
