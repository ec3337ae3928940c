//! Prediction against a real boot's log, and against real signed images.

use std::{fs, path::PathBuf, process::Command};

use cvm_base::{Bytes, Explain, sha256};
use cvm_evidence::{
    eventlog::EventLog,
    reference::{Platforms, Reference, TpmReference},
    rtmr::sha384,
};
use cvm_predict::{Inputs, PredictError, tdx};

fn vector(name: &str) -> Vec<u8> {
    fs::read(
        PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/vectors/boot-debian12")
            .join(name),
    )
    .unwrap()
}

/// A PE32+ image: its bytes without and with a certificate table that holds the digest and
/// `certificate`.
fn pe(sections: &[(&str, &[u8])], certificate: &[u8]) -> (Vec<u8>, Vec<u8>) {
    const HEADERS: usize = 1024;
    let mut image = vec![0; HEADERS];
    image[..2].copy_from_slice(b"MZ");
    image[0x3c] = 0x80;
    image[0x80..0x84].copy_from_slice(b"PE\0\0");
    image[0x86] = sections.len() as u8;
    image[0x94] = 240; // size of the optional header
    let optional = 0x98;
    image[optional..optional + 2].copy_from_slice(&[0x0b, 0x02]);
    image[optional + 60..optional + 64].copy_from_slice(&(HEADERS as u32).to_le_bytes());
    let (checksum, security) = (optional + 64, optional + 144);
    for (index, (name, content)) in sections.iter().enumerate() {
        let header = optional + 240 + 40 * index;
        let start = image.len() as u32;
        image[header..header + name.len()].copy_from_slice(name.as_bytes());
        image.extend(*content);
        image.resize(image.len().next_multiple_of(512), 0xcc);
        let raw = image.len() as u32 - start;
        for (at, value) in [(8, content.len() as u32), (16, raw), (20, start)] {
            image[header + at..header + at + 4].copy_from_slice(&value.to_le_bytes());
        }
    }
    // Authenticode: everything but the checksum, the security directory's entry and the table
    // itself.
    let digest = sha256(
        &[&image[..checksum], &image[checksum + 4..security], &image[security + 8..]].concat(),
    );
    let table = [&digest.0[..], certificate].concat();
    let mut signed = image.clone();
    signed[checksum] = 0x77;
    signed[security..security + 4].copy_from_slice(&(image.len() as u32).to_le_bytes());
    signed[security + 4..security + 8].copy_from_slice(&(table.len() as u32).to_le_bytes());
    signed.extend(table);
    (image, signed)
}

/// The variables of the recorded boot, out of its log, and the event that authorised the loader.
struct Variables {
    pk: Vec<u8>,
    kek: Vec<u8>,
    db: Vec<u8>,
    dbx: Vec<u8>,
    authority: Vec<u8>,
}

fn recorded_variables(log: &EventLog<'_>) -> Variables {
    let content = |name: &str| {
        let event = log.events().iter().find(|event| event.describe() == name).unwrap();
        let characters = usize::from(event.data[16]);
        event.data[32 + 2 * characters..].to_vec()
    };
    Variables {
        pk: content("variable PK"),
        kek: content("variable KEK"),
        db: content("variable db"),
        dbx: content("variable dbx"),
        authority: content("authority db"),
    }
}

const COMMAND_LINE: &[u8] = b"console=ttyS0 panic=-1 loglevel=3";
const OS_RELEASE: &[u8] = b"ID=lab\nNAME=lab\n";

fn predicted(v: &Variables, loader: &[u8], uki: &[u8]) -> Result<TpmReference, PredictError> {
    let (pk, kek, db, dbx, authority) = (&v.pk, &v.kek, &v.db, &v.dbx, &v.authority);
    cvm_predict::tpm(&Inputs { loader, uki, pk, kek, db, dbx, authority })
}

fn images(v: &Variables) -> (Vec<u8>, Vec<u8>) {
    let der = &v.authority[16..];
    let (_, loader) = pe(&[(".text", b"loader")], der);
    let sections: [(&str, &[u8]); 5] = [
        (".text", b"stub"),
        (".osrel", OS_RELEASE),
        (".cmdline", COMMAND_LINE),
        (".linux", b"kernel"),
        (".initrd", b"initramfs"),
    ];
    let (_, uki) = pe(&sections, der);
    (loader, uki)
}

/// All that does not hang on the kernel's own bytes: PCR 7 and 12 whole, the fixed events of 4 and
/// 11.
#[test]
fn a_real_boot_measured_what_is_predicted() {
    let bytes = vector("eventlog.bin");
    let log = EventLog::parse(&bytes).unwrap();
    let variables = recorded_variables(&log);
    let (loader, uki) = images(&variables);
    let prediction = predicted(&variables, &loader, &uki).unwrap();
    let replayed = log.replay();
    for pcr in [7, 12] {
        assert_eq!(prediction.pcrs[&pcr], replayed[&pcr], "PCR {pcr}");
    }
    assert_eq!(prediction.pcrs[&13], Bytes([0; 32]));
    assert!(!replayed.contains_key(&13));
    for pcr in [4, 9, 11] {
        let measured: Vec<_> =
            log.events().iter().filter(|e| e.pcr == pcr).map(|e| e.digest).collect();
        let expected: Vec<_> = prediction.explain.iter().filter(|e| e.pcr == pcr).collect();
        assert_eq!(expected.len(), measured.len(), "PCR {pcr}");
        for (expected, measured) in expected.iter().zip(measured) {
            let varies = ["boot loader", "UKI", "initramfs", "section .linux", "section .initrd"];
            assert_eq!(
                expected.digest == measured,
                !varies.contains(&&*expected.event),
                "{}",
                expected.event
            );
        }
    }
    let reference = Reference::new(
        "ab".repeat(16).parse().unwrap(),
        sha256(b""),
        prediction,
        Platforms::default(),
    );
    assert_eq!(Reference::parse(&reference.to_bytes()).unwrap(), reference);
}

/// sbsign's signature states the digest it computed: ours must be the same.
#[test]
fn sbsign_computes_the_same_authenticode_digests() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let run = |command: &mut Command| {
        assert!(command.output().expect("the tool is installed").status.success())
    };
    run(Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=db", "-keyout"])
        .arg(at("key"))
        .arg("-out")
        .arg(at("pem")));
    run(Command::new("openssl")
        .args(["x509", "-outform", "DER", "-in"])
        .arg(at("pem"))
        .arg("-out")
        .arg(at("der")));
    let sign = |from: PathBuf, to: &str| {
        run(Command::new("sbsign")
            .arg("--key")
            .arg(at("key"))
            .arg("--cert")
            .arg(at("pem"))
            .arg("--output")
            .arg(at(to))
            .arg(from));
        fs::read(at(to)).unwrap()
    };
    let loader = sign("/usr/lib/systemd/boot/efi/systemd-bootx64.efi".into(), "loader");
    let mut uki = Command::new("objcopy");
    for (index, (name, content)) in [
        ("linux", &b"kernel"[..]),
        ("osrel", OS_RELEASE),
        ("cmdline", COMMAND_LINE),
        ("initrd", &[9; 5000]),
    ]
    .into_iter()
    .enumerate()
    {
        fs::write(at(name), content).unwrap();
        uki.arg("--add-section").arg(format!(".{name}={}", at(name).display()));
        uki.arg("--change-section-vma").arg(format!(".{name}={:#x}", 0x10_0000 * (index + 1)));
    }
    run(uki.arg("/usr/lib/systemd/boot/efi/linuxx64.efi.stub").arg(at("unsigned")));
    let uki = sign(at("unsigned"), "uki");

    let entry = [vec![0xab; 16], fs::read(at("der")).unwrap()].concat();
    let db = list(&entry);
    let variables =
        Variables { pk: vec![], kek: vec![], db: db.clone(), dbx: vec![], authority: entry };
    let prediction = predicted(&variables, &loader, &uki).unwrap();
    let section = prediction.explain.iter().find(|e| e.event == "section .initrd").unwrap();
    assert_eq!(section.digest, sha256(&[9; 5000]), "a section is measured without its padding");

    // One bit in the kernel, after signing.
    let mut changed = uki.clone();
    let kernel = changed.windows(6).rposition(|window| window == b"kernel").unwrap();
    changed[kernel] ^= 1;
    let refused = predicted(&variables, &loader, &changed).unwrap_err();
    assert_eq!((refused.code(), refused), ("ATT-403", PredictError::Changed { image: "UKI" }));
    // Unsigned, and signed by a key that db does not hold.
    let unsigned = fs::read(at("unsigned")).unwrap();
    assert_eq!(
        predicted(&variables, &loader, &unsigned).unwrap_err(),
        PredictError::Unsigned { image: "UKI" }
    );
    let other = [vec![0xab; 16], vec![0x30; 500]].concat();
    let variables = Variables { db: list(&other), authority: other, ..variables };
    let refused = predicted(&variables, &loader, &uki).unwrap_err();
    assert_eq!(refused, PredictError::NotAuthorised { image: "boot loader" });
}

/// One EFI_SIGNATURE_LIST of one X.509 certificate.
fn list(entry: &[u8]) -> Vec<u8> {
    let x509 = [
        0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0,
        0x72,
    ];
    let size = |n: usize| (n as u32).to_le_bytes();
    [&x509[..], &size(28 + entry.len()), &size(0), &size(entry.len()), entry].concat()
}

/// RTMR1 of the same files in a TD; the rules of PCRs 4 and 5, with SHA-384.
#[test]
fn a_td_that_boots_from_disk_measures_what_starts() {
    let bytes = vector("eventlog.bin");
    let log = EventLog::parse(&bytes).unwrap();
    let v = recorded_variables(&log);
    let (loader, uki) = images(&v);
    let (pk, kek, db, dbx, authority) = (&*v.pk, &*v.kek, &*v.db, &*v.dbx, &*v.authority);
    let inputs = Inputs { loader: &loader, uki: &uki, pk, kek, db, dbx, authority };
    // The disk of the recorded boot, out of its EV_EFI_GPT_EVENT: header, count, entries in use.
    let event = log.events().iter().find(|event| event.kind == 0x8000_0006).unwrap();
    assert_eq!(sha256(event.data), event.digest);
    let mut disk = vec![0; 34 * 512];
    disk[512..512 + 92].copy_from_slice(&event.data[..92]);
    disk[1024..1024 + event.data.len() - 100].copy_from_slice(&event.data[100..]);
    let firmware = fs::read("/usr/share/ovmf/OVMF.fd").expect("Debian's ovmf is installed");
    let predict = |gpt| {
        let boot = tdx::Boot::Disk { inputs: &inputs, gpt };
        let pages = tdx::PageOrder::PageByPage;
        tdx::tdx(&tdx::TdxInputs {
            firmware: &firmware,
            pages,
            memory: Some(4 << 30),
            acpi: None,
            boot,
        })
        .unwrap()
    };
    let prediction = predict(Some(&disk));
    let events: Vec<_> = prediction.explain.iter().filter(|event| event.rtmr == 1).collect();
    let names: Vec<_> = events.iter().map(|event| &*event.event).collect();
    let calls = ["Exit Boot Services Invocation", "Exit Boot Services Returned with Success"];
    let expected = [
        "Calling EFI Application from Boot Option",
        "separator",
        "partition table",
        "boot loader",
        "UKI",
    ];
    assert_eq!(names, [&expected[..], &calls].concat());
    assert_eq!(events[2].digest, sha384(event.data));
    assert!(prediction.rtmrs[1].is_some());
    // Neither Debian 12's stub nor its kernel measures in a TD: RTMR2 stays zero.
    assert_eq!(prediction.rtmrs[2], Some(Bytes([0; 48])));
    let secure_boot =
        prediction.explain.iter().filter(|event| event.event.starts_with("variable")).count();
    assert_eq!(secure_boot, 5);
    let missing: Vec<_> = prediction.not_predicted.iter().map(|missing| missing.rtmr).collect();
    assert_eq!((missing, prediction.rtmrs[0]), (vec![0, 0], None), "ACPI tables and boot options");
    assert_eq!(predict(None).rtmrs[1], None);
    for bad in [&disk[..1000], &vec![0; 34 * 512]] {
        assert_eq!(predict(Some(bad)).rtmrs[1], None);
    }
}

#[test]
fn files_that_firmware_would_not_start_are_refused() {
    let bytes = vector("eventlog.bin");
    let variables = recorded_variables(&EventLog::parse(&bytes).unwrap());
    let (loader, uki) = images(&variables);
    let refused =
        |loader: &[u8], uki: &[u8]| predicted(&variables, loader, uki).unwrap_err().code();
    assert_eq!(refused(b"", &uki), "ATT-401");
    assert_eq!(refused(&loader, &uki[..uki.len() - 1]), "ATT-401");
    // The loader has none of a UKI's sections.
    assert_eq!(refused(&loader, &loader), "ATT-405");
    for end in 0..loader.len() {
        assert!(predicted(&variables, &loader[..end], &uki).is_err(), "cut at {end}");
    }
    let der = &variables.authority[16..];
    let sections: [(&str, &[u8]); 4] = [
        (".osrel", b"x"),
        (".cmdline", b"quiet\n"),
        (".linux", b"kernel"),
        (".initrd", b"initramfs"),
    ];
    assert_eq!(refused(&loader, &pe(&sections, der).1), "ATT-407");
    let damaged = Variables {
        db: variables.db[1..].to_vec(),
        ..recorded_variables(&EventLog::parse(&bytes).unwrap())
    };
    assert_eq!(predicted(&damaged, &loader, &uki).unwrap_err().code(), "ATT-406");
}

#[test]
fn a_reference_whose_values_do_not_follow_from_its_events_is_refused() {
    let bytes = vector("eventlog.bin");
    let variables = recorded_variables(&EventLog::parse(&bytes).unwrap());
    let (loader, uki) = images(&variables);
    let tpm = predicted(&variables, &loader, &uki).unwrap();
    let good =
        Reference::new("ab".repeat(16).parse().unwrap(), sha256(b""), tpm, Platforms::default());
    let refused = |change: fn(&mut Reference)| {
        let mut bad = good.clone();
        change(&mut bad);
        Reference::parse(&bad.to_bytes()).unwrap_err().code()
    };
    assert_eq!(refused(|r| r.version = 2), "ATT-001");
    assert_eq!(refused(|r| r.tpm.pcrs.get_mut(&4).unwrap().0[0] ^= 1), "ATT-001");
    assert_eq!(refused(|r| assert!(r.tpm.pcrs.remove(&11).is_some())), "ATT-001");
    assert_eq!(refused(|r| assert!(r.tpm.pcrs.insert(16, Bytes([0; 32])).is_none())), "ATT-001");
    assert_eq!(refused(|r| assert!(r.tpm.explain.pop().is_some())), "ATT-001");
    let unknown = String::from_utf8(good.to_bytes()).unwrap().replacen('{', "{\"extra\": 1,", 1);
    assert!(Reference::parse(unknown.as_bytes()).is_err());
}
