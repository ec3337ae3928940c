//! Debian's `cryptsetup` and `veritysetup` accept what this crate makes, and read back what went
//! in.

use std::{
    fs::{self, File},
    path::Path,
    process::Command,
};

use cvm_base::sha256;
use cvm_seal::{
    DiskKey, HEADER_BYTES, MacKey,
    guard::{self, Expected, Protection},
    luks, verity,
};

const KEY: [u8; 32] = [7; 32];
/// More than the sealer takes at once, and no whole number of its parts.
const PLAIN_BYTES: u64 = 11 * 1024 * 1024 + 4096;

fn run(command: &mut Command) -> (bool, String) {
    let output = command.output().expect("cryptsetup-bin is installed");
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr),
    )
}

/// Content that repeats nowhere, so that a swapped sector shows.
fn content(bytes: u64) -> Vec<u8> {
    (0..bytes / 32).flat_map(|n| sha256(&n.to_le_bytes()).0).collect()
}

fn seal(dir: &Path, offset: u64) -> (std::path::PathBuf, Vec<u8>) {
    let (area, plain) = (dir.join("area"), content(PLAIN_BYTES));
    let keys = (DiskKey::new(&KEY), MacKey::new(&[8; 32]));
    let sealed =
        luks::seal(&mut plain.as_slice(), PLAIN_BYTES, &area, offset, &keys.0, &keys.1).unwrap();
    assert_eq!(sealed.total_bytes, fs::metadata(&area).unwrap().len() - offset);
    let header = &fs::read(&area).unwrap()[offset as usize..][..HEADER_BYTES];
    let guarded = guard::check(header, &Expected::new(Protection::Encrypted), &keys.1).unwrap();
    assert_eq!(guarded.digest(), sealed.header_sha256);
    (area, plain)
}

#[test]
fn cryptsetup_opens_and_decrypts_a_sealed_area() {
    let dir = tempfile::tempdir().unwrap();
    let (area, plain) = seal(dir.path(), 0);
    let key_file = dir.path().join("key");
    fs::write(&key_file, KEY).unwrap();
    fs::write(dir.path().join("wrong"), [9; 32]).unwrap();

    let (good, dump) = run(Command::new("cryptsetup").arg("luksDump").arg(&area));
    assert!(
        good && dump.contains("aes-xts-plain64") && dump.contains("Iterations: 1000"),
        "{dump}"
    );
    let open = |key: &str| {
        let key = dir.path().join(key);
        run(Command::new("cryptsetup")
            .args(["luksOpen", "--test-passphrase", "--key-file"])
            .arg(key)
            .arg(&area))
    };
    let (good, said) = open("key");
    assert!(good, "{said}");
    assert!(!open("wrong").0, "another key opens the area");

    // Offline decryption in place, with the header in a file of its own.
    let header = dir.path().join("header");
    let (good, said) = run(Command::new("cryptsetup")
        .args(["reencrypt", "--decrypt", "--batch-mode", "--force-offline-reencrypt", "--key-file"])
        .arg(&key_file)
        .arg("--header")
        .arg(&header)
        .arg(&area));
    assert!(good, "{said}");
    assert!(
        fs::read(&area).unwrap()[..PLAIN_BYTES as usize] == plain[..],
        "cryptsetup reads another content"
    );
}

#[test]
fn an_area_inside_a_disk_image_leaves_its_neighbours_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("area"), vec![0x55; 4096]).unwrap();
    let (area, _) = seal(dir.path(), 4096);
    assert!(fs::read(area).unwrap()[..4096].iter().all(|b| *b == 0x55));
}

#[test]
fn veritysetup_verifies_a_tree_and_finds_a_changed_byte() {
    for blocks in [1, 2, 128, 129, 128 * 128 + 1] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("volume");
        let data = content(blocks * 4096);
        fs::write(&file, &data).unwrap();
        let tree = verity::format(&file, data.len() as u64, sha256(b"salt")).unwrap();
        assert_eq!(tree.total_bytes, fs::metadata(&file).unwrap().len(), "{blocks} blocks");

        let verify = || {
            run(Command::new("veritysetup")
                .arg("verify")
                .arg(format!("--hash-offset={}", data.len()))
                .args([&file, &file])
                .arg(tree.root_hash.to_string()))
        };
        let (good, said) = verify();
        assert!(good, "{blocks} blocks: {said}");

        let made = fs::read(&file).unwrap();
        assert_eq!(verity::format(&file, data.len() as u64, tree.salt).unwrap(), tree);
        assert!(fs::read(&file).unwrap() == made, "the same data and salt give other bytes");
        let other = verity::format(&file, data.len() as u64, sha256(b"other")).unwrap();
        assert_ne!(other.root_hash, tree.root_hash);

        fs::write(&file, &made).unwrap();
        let mut changed = made;
        changed[data.len() - 1] ^= 1;
        fs::write(&file, changed).unwrap();
        assert!(!verify().0, "{blocks} blocks: a changed byte passes");
    }
}

#[test]
fn a_short_source_is_refused_and_leaves_no_header() {
    let dir = tempfile::tempdir().unwrap();
    let area = dir.path().join("area");
    let keys = (DiskKey::new(&KEY), MacKey::new(&[8; 32]));
    assert!(luks::seal(&mut [0; 4096].as_slice(), 8192, &area, 0, &keys.0, &keys.1).is_err());
    assert!(luks::seal(&mut [0; 4097].as_slice(), 4097, &area, 0, &keys.0, &keys.1).is_err());
    let mut header = vec![0; HEADER_BYTES];
    use std::io::Read;
    let read = File::open(&area).unwrap().read(&mut header).unwrap();
    assert!(header[..read].iter().all(|b| *b == 0));
}
