//! FAT images for p1 and p2, the same bytes for the same files.
//!
//! Made with mtools: the `fatfs` crate, which reads them, writes directories that `fsck.fat`
//! refuses.

use std::collections::{BTreeMap, BTreeSet};

use cvm_base::{read_bounded, write_atomic};

use super::BootError;
use crate::{
    WorkError,
    tool::{self, Scratch},
};

/// Path (`EFI/BOOT/BOOTX64.EFI`) → content.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Makes a FAT16 image of exactly `bytes` bytes, a multiple of 4096 from 8 MiB to 256 MiB.
///
/// FAT16 and not FAT32, which needs 33 MiB at least: every EDK2 firmware reads it as an ESP. Dates
/// are 1980-01-01, and the volume's id follows from its label (at most 11 of `A-Z 0-9 _ -`).
pub fn make(bytes: u64, label: &str, files: &Files) -> Result<Vec<u8>, BootError> {
    let scratch = Scratch::new()?;
    let image = scratch.join("image");
    std::fs::File::create(&image)
        .and_then(|f| f.set_len(bytes))
        .map_err(WorkError::io("make", image.clone()))?;

    // FAT16 has 4085 to 65524 clusters.
    let cluster_sectors = (bytes / 512 / 16_384).next_power_of_two().clamp(2, 64);
    let id = cvm_base::sha256(label.as_bytes()).0;
    let mut command = tool::command("mformat");
    command.arg("-i").arg(&image).args([
        "-T",
        &(bytes / 512).to_string(),
        "-h",
        "64",
        "-s",
        "32",
        "-m",
        "0xf8",
    ]);
    command.args(["-c", &cluster_sectors.to_string(), "-N", &hex(&id[..4]), "-v", label, "::"]);
    tool::run("mformat", "making a FAT image", command)?;

    let folders: BTreeSet<&str> =
        files.keys().flat_map(|path| path.match_indices('/').map(|(at, _)| &path[..at])).collect();
    for folder in folders {
        let mut command = tool::command("mmd");
        command.arg("-i").arg(&image).arg(format!("::{folder}"));
        tool::run("mmd", "making a folder in a FAT image", command)?;
    }
    let content = scratch.join("content");
    for (path, bytes) in files {
        write_atomic(&content, bytes, 0o600)?;
        let mut command = tool::command("mcopy");
        command.arg("-i").arg(&image).arg(&content).arg(format!("::{path}"));
        tool::run("mcopy", "copying into a FAT image", command).map_err(|e| match e {
            WorkError::Tool { output, .. } => {
                BootError::Fat { file: path.clone(), problem: output }
            }
            other => other.into(),
        })?;
    }
    Ok(read_bounded(&image, bytes)?)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use cvm_layout::esp;

    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn files() -> Files {
        [
            ("EFI/BOOT/BOOTX64.EFI", vec![1; 100_000]),
            ("loader/loader.conf", b"timeout 0\n".to_vec()),
            ("flare-cvm/manifest.json", b"{}".to_vec()),
        ]
        .map(|(path, content)| (path.to_owned(), content))
        .into()
    }

    #[test]
    fn files_come_back_and_the_image_is_the_same_each_time() {
        for bytes in [8 * MIB, 16 * MIB, 47 * MIB, 200 * MIB] {
            let image = make(bytes, "ESP", &files()).unwrap();
            assert_eq!(image.len() as u64, bytes);
            assert!(make(bytes, "ESP", &files()).unwrap() == image, "deterministic");
            if bytes <= esp::MAX_IMAGE_BYTES as u64 {
                for (path, content) in files() {
                    assert_eq!(esp::read_file(&image, &path, 1 << 20).unwrap().unwrap(), content);
                }
            }
        }
    }

    #[test]
    fn fsck_finds_nothing_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fat");
        std::fs::write(&path, make(16 * MIB, "ESP", &files()).unwrap()).unwrap();
        let check = std::process::Command::new("/usr/sbin/fsck.fat")
            .args(["-n", "-v"])
            .arg(&path)
            .output()
            .unwrap();
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
    }

    #[test]
    fn a_file_that_does_not_fit_is_named() {
        let files = [("EFI/big".to_owned(), vec![0; 9 << 20])].into();
        let error = make(8 * MIB, "ESP", &files).unwrap_err();
        assert!(error.to_string().contains("EFI/big"), "{error}");
    }
}
