//! p2 as a build makes it: Debian's `veritysetup` accepts it, and no changed byte of it.

use std::{path::Path, process::Command};

use cvm_base::{Bytes32, sha256};
use cvm_image::boot::{
    UKI_PATH,
    disk::{self, Content},
    fat,
};
use cvm_layout::{
    layout::{Contents, Layout, verity_data_room},
    manifest::Verity,
};

fn veritysetup_accepts(image: &Path, verity: &Verity) -> bool {
    let mut command = Command::new("/usr/sbin/veritysetup");
    command.arg("verify").arg(format!("--hash-offset={}", verity.data_bytes));
    command
        .arg(image)
        .arg(image)
        .arg(verity.root_hash.to_string())
        .output()
        .unwrap()
        .status
        .success()
}

#[test]
fn attack_a_changed_byte_of_p2_is_not_what_the_root_hash_names() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::parse(include_str!("../../../partitions/small.yaml")).unwrap();
    let room = layout.exact_size(2).unwrap();
    let data = verity_data_room(room);

    let uki: Vec<u8> = (0..20_000_000_u32).map(|i| (i / 7) as u8).collect();
    let p2 = dir.path().join("p2");
    std::fs::write(
        &p2,
        fat::make(data, "BOOT", &fat::Files::from([(UKI_PATH.to_owned(), uki.clone())])).unwrap(),
    )
    .unwrap();
    let salt: Bytes32 = sha256(b"salt");
    let verity = cvm_seal::verity::format(&p2, data, salt).unwrap();
    assert!(verity.total_bytes <= room, "data and tree fit");

    let placement =
        layout.place(&Contents { boot: verity.total_bytes, ..Contents::default() }).unwrap();
    let image = "000102030405060708090a0b0c0d0e0f".parse().unwrap();
    let mut contents = [Content::Nothing; 6];
    contents[1] = Content::File(&p2);
    let disk = dir.path().join("disk.qcow2");
    disk::build(&disk, &placement, &image, contents).unwrap();

    let back = dir.path().join("back");
    disk::extract(&disk, 2, &back).unwrap();
    assert!(veritysetup_accepts(&back, &verity));

    // In the kernel image; in free space; in the tree.
    let bytes = std::fs::read(&back).unwrap();
    let in_uki =
        bytes.windows(16).position(|window| window == &uki[10_000_000..10_000_016]).unwrap() as u64;
    for offset in [in_uki, data - 1, data + 8192] {
        let before = bytes[offset as usize];
        disk::patch(&disk, 2, offset, &[before ^ 1]).unwrap();
        disk::extract(&disk, 2, &back).unwrap();
        assert!(!veritysetup_accepts(&back, &verity), "byte {offset}");
        disk::patch(&disk, 2, offset, &[before]).unwrap();
    }
    disk::extract(&disk, 2, &back).unwrap();
    assert!(veritysetup_accepts(&back, &verity));
}
