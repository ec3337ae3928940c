//! The data's disk: a second one that the host attached under the serial number `user_data`, or p6.

use std::{fs, path::Path};

use nix::mount::{MsFlags, mount};

use crate::{
    error::DataError,
    mounts::{HOSTS_FLAGS, USER_DATA},
};

const SERIAL: &[u8] = b"user_data";
const BLOCK: &str = "/sys/block";
/// p6, where cvm-init put it.
const P6: &str = "/opt/nvflare/data";
/// More disks than any machine has.
const MAX_DISKS: usize = 256;
/// A disk's serial number is at most 20 bytes (virtio) or 40 (NVMe), padded.
const MAX_SERIAL: u64 = 64;

/// Mounts the data's disk, or else p6, at `/user_data`, and returns which.
pub fn attach() -> Result<String, DataError> {
    let (source, kind, flags, options) = match find(Path::new(BLOCK))? {
        // No journal replay: the disk is the host's, and nothing is written to it.
        Some(name) => (format!("/dev/{name}"), Some("ext4"), HOSTS_FLAGS, Some("noload")),
        None => (P6.to_owned(), None, MsFlags::MS_BIND, None),
    };
    match mount(Some(source.as_str()), USER_DATA, kind, flags, options) {
        Ok(()) => Ok(source),
        Err(e) => Err(DataError::Mount {
            source_name: source,
            target: USER_DATA.into(),
            problem: e.to_string(),
        }),
    }
}

/// The name of the one disk with that serial number below `block`, sysfs' folder of disks.
pub fn find(block: &Path) -> Result<Option<String>, DataError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(block).into_iter().flatten().flatten().take(MAX_DISKS) {
        let serial = ["serial", "device/serial"]
            .iter()
            .find_map(|file| cvm_base::read_bounded(&entry.path().join(file), MAX_SERIAL).ok());
        let name = entry.file_name().to_string_lossy().into_owned();
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric());
        if plain && serial.is_some_and(|serial| serial.trim_ascii() == SERIAL) {
            found.push(name);
        }
    }
    found.sort();
    match found.len() {
        0 | 1 => Ok(found.pop()),
        _ => Err(DataError::SeveralDisks(found.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_disk_has_the_serial_number() {
        let dir = tempfile::tempdir().unwrap();
        let disk = |name: &str, file: &str, serial: &str| {
            let path = dir.path().join(name).join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, serial).unwrap();
        };
        assert_eq!(find(&dir.path().join("none")).unwrap(), None);
        disk("vda", "serial", "");
        disk("vdb", "serial", "user_data_2");
        disk("vdc", "serial", &"user_data ".repeat(20));
        assert_eq!(find(dir.path()).unwrap(), None);
        disk("nvme1n1", "device/serial", "user_data           \n");
        assert_eq!(find(dir.path()).unwrap().as_deref(), Some("nvme1n1"));
        disk("vdd", "serial", "user_data");
        let Err(DataError::SeveralDisks(names)) = find(dir.path()) else { panic!("one disk") };
        assert_eq!(names, "nvme1n1, vdd");
    }
}
