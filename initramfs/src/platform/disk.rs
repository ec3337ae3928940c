//! The disk and its six partitions, as the kernel read them from the host's GPT.
//!
//! The kernel parses the table; sysfs tells the outcome. Nothing here trusts it: the places must
//! equal the signed manifest's, and everything read from them is verified.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use cvm_layout::manifest::{Manifest, PlacedPartition};

use super::wait;
use crate::{
    codes::{Code, Coded, Failure},
    console::step,
};

const BLOCK: &str = "/sys/class/block";
/// sysfs counts in these, whatever the disk's sector size.
const SECTOR: u64 = 512;
/// The partitions' numbers and the name of the first tell a sealed disk from others.
const NUMBERS: [u32; 6] = [1, 2, 3, 4, 5, 6];
const FIRST_NAME: &str = "ESP";
/// sysfs attributes are at most one page.
const ATTRIBUTE_BYTES: u64 = 4096;

/// One partition as the kernel sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its number in the GPT.
    pub number: u32,
    /// Its GPT name.
    pub name: String,
    /// Its device node's name below `/dev`.
    pub device: String,
    /// First byte on the disk.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
}

impl Partition {
    /// Its device node.
    pub fn path(&self) -> PathBuf {
        Path::new("/dev").join(&self.device)
    }
}

/// The sealed disk: its six partitions, in the order of their number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    partitions: [Partition; 6],
}

/// Which of the six.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// p1.
    Esp,
    /// p2.
    Boot,
    /// p3.
    Root,
    /// p4.
    Config,
    /// p5.
    Jobs,
    /// p6.
    Data,
}

impl Disk {
    /// Waits for the one disk that carries the six partitions.
    pub fn find() -> Result<Self, Failure> {
        let disk = wait::until(wait::DEVICES, || pick(scan().code(Code::Disk)?).code(Code::Disk))?;
        // sysfs announces a partition a moment before devtmpfs makes its node.
        for partition in &disk.partitions {
            let path = partition.path();
            wait::until(wait::DEVICES, || fs::metadata(&path).map(drop))
                .code_at(Code::Disk, path.display())?;
        }
        Ok(disk)
    }

    /// One partition.
    pub fn partition(&self, which: Which) -> &Partition {
        let [esp, boot, root, config, jobs, data] = &self.partitions;
        match which {
            Which::Esp => esp,
            Which::Boot => boot,
            Which::Root => root,
            Which::Config => config,
            Which::Jobs => jobs,
            Which::Data => data,
        }
    }

    /// Every partition must lie where the manifest says; the failure names the first that does not.
    pub fn equals(&self, manifest: &Manifest) -> Result<(), Failure> {
        let placed = &manifest.partitions;
        let fail = |detail: String| Failure::new(Code::Partitions, detail);
        if placed.len() != self.partitions.len() {
            return Err(fail(format!(
                "the manifest names {} partitions, expected 6",
                placed.len()
            )));
        }
        for (found, expected) in self.partitions.iter().zip(placed) {
            let PlacedPartition { number, name, offset, length } = expected;
            let same = found.number == *number
                && found.name == name.as_str()
                && (found.offset, found.length) == (*offset, *length);
            if !same {
                let Partition { number: n, name: other, offset: o, length: l, .. } = found;
                let found = format!("found {n} {other} at {o} + {l}");
                return Err(fail(format!(
                    "expected {number} {name} at {offset} + {length}, {found}"
                )));
            }
        }
        step("partitions", "as in the manifest");
        Ok(())
    }
}

/// Every partition of every disk, by the disk's name.
fn scan() -> Result<BTreeMap<String, Vec<Partition>>, String> {
    let mut disks = BTreeMap::<_, Vec<_>>::new();
    for entry in fs::read_dir(BLOCK).map_err(|e| format!("{BLOCK}: {e}"))?.flatten() {
        let read = |name| cvm_base::read_bounded(&entry.path().join(name), ATTRIBUTE_BYTES).ok();
        let (Some(uevent), Some(start), Some(size)) = (read("uevent"), read("start"), read("size"))
        else {
            continue; // whole disks have no `start`
        };
        // /sys/class/block/vda1 → ../../devices/…/block/vda/vda1
        let target = fs::read_link(entry.path()).ok();
        let disk = target.as_deref().and_then(Path::parent).and_then(Path::file_name);
        if let (Some(disk), Some(partition)) = (disk, parse_partition(&uevent, &start, &size)) {
            disks.entry(disk.to_string_lossy().into_owned()).or_default().push(partition);
        }
    }
    Ok(disks)
}

/// A partition from its three sysfs attributes; `None` where they do not describe one of the six.
///
/// The name comes from the host's GPT: at most 36 UTF-16 units by the format, and only ever
/// compared.
pub fn parse_partition(uevent: &[u8], start: &[u8], size: &[u8]) -> Option<Partition> {
    let uevent = std::str::from_utf8(uevent).ok()?;
    let field =
        |name: &str| uevent.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let bytes = |text| {
        std::str::from_utf8(text).ok()?.trim_ascii_end().parse::<u64>().ok()?.checked_mul(SECTOR)
    };
    let device = field("DEVNAME").filter(|name| name.bytes().all(|b| b.is_ascii_alphanumeric()))?;
    (field("DEVTYPE")? == "partition").then_some(())?;
    Some(Partition {
        number: field("PARTN")?.parse().ok()?,
        name: field("PARTNAME")?.into(),
        device: device.into(),
        offset: bytes(start)?,
        length: bytes(size)?,
    })
}

/// What the fuzz target runs: three attributes, separated by NUL.
pub fn fuzz(bytes: &[u8]) {
    let mut parts = bytes.splitn(3, |byte| *byte == 0);
    let (uevent, start, size) = (parts.next(), parts.next(), parts.next());
    let found = parse_partition(
        uevent.unwrap_or_default(),
        start.unwrap_or_default(),
        size.unwrap_or_default(),
    );
    if let Some(partition) = found {
        assert!(partition.path().starts_with("/dev") && !partition.device.contains(['/', '.']));
        assert!(partition.offset.is_multiple_of(SECTOR) && partition.length.is_multiple_of(SECTOR));
    }
}

/// The one disk with the six partitions; a second such disk is an error, not a choice.
fn pick(disks: BTreeMap<String, Vec<Partition>>) -> Result<Disk, String> {
    let mut found = Vec::new();
    let mut seen = Vec::new();
    for (name, mut partitions) in disks {
        partitions.sort_by_key(|p| p.number);
        seen.push(format!("{name} ({} partitions)", partitions.len()));
        if let Ok(partitions) = <[Partition; 6]>::try_from(partitions)
            && partitions.each_ref().map(|p| p.number) == NUMBERS
            && partitions.first().is_some_and(|p| p.name == FIRST_NAME)
        {
            found.push(Disk { partitions });
        }
    }
    let seen = if seen.is_empty() { "none".into() } else { seen.join(", ") };
    match found.len() {
        1 => found.pop().ok_or_else(String::new),
        n => Err(format!(
            "expected one disk with the six partitions, found {n}; partitioned disks: {seen}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UEVENT: &[u8] =
        b"MAJOR=254\nMINOR=1\nDEVNAME=vda1\nDEVTYPE=partition\nPARTN=1\nPARTNAME=ESP\n";

    fn partitions() -> Vec<Partition> {
        let names = ["ESP", "boot", "root", "config", "jobs", "data"];
        let make = |(i, name): (usize, &&str)| Partition {
            number: i as u32 + 1,
            name: (*name).into(),
            device: format!("vda{}", i + 1),
            offset: (i as u64 + 1) << 20,
            length: 1 << 20,
        };
        names.iter().enumerate().map(make).collect()
    }

    fn placed() -> Vec<PlacedPartition> {
        let place = |p: Partition| PlacedPartition {
            number: p.number,
            name: p.name.parse().unwrap(),
            offset: p.offset,
            length: p.length,
        };
        partitions().into_iter().map(place).collect()
    }

    #[test]
    fn a_partition_is_read_from_sysfs() {
        let partition = parse_partition(UEVENT, b"2048\n", b"1024\n").unwrap();
        assert_eq!(
            partition,
            Partition {
                number: 1,
                name: "ESP".into(),
                device: "vda1".into(),
                offset: 1 << 20,
                length: 512 << 10
            }
        );
        assert_eq!(partition.path(), Path::new("/dev/vda1"));
    }

    #[test]
    fn fuzz_seeds_and_their_mutations() {
        crate::seeds::run("sysfs_partition", fuzz);
    }

    #[test]
    fn hostile_attributes_are_no_partition() {
        for (uevent, start, size) in [
            (
                &b"DEVNAME=../vda1\nDEVTYPE=partition\nPARTN=1\nPARTNAME=ESP\n"[..],
                &b"1"[..],
                &b"1"[..],
            ),
            (UEVENT, b"18446744073709551615", b"1"),
            (UEVENT, b"-1", b"1"),
            (UEVENT, b"", b""),
            (b"DEVNAME=vda\nDEVTYPE=disk\nPARTN=1\nPARTNAME=ESP\n", b"1", b"1"),
            (b"\xff", b"1", b"1"),
        ] {
            assert_eq!(parse_partition(uevent, start, size), None);
        }
    }

    #[test]
    fn a_second_disk_with_the_same_table_is_not_chosen_between() {
        let one = BTreeMap::from([("vda".to_owned(), partitions()), ("vdb".to_owned(), vec![])]);
        pick(one).unwrap();
        let two =
            BTreeMap::from([("vda".to_owned(), partitions()), ("vdb".to_owned(), partitions())]);
        assert!(pick(two).unwrap_err().contains("found 2"));
        assert!(pick(BTreeMap::new()).unwrap_err().contains("found 0; partitioned disks: none"));
    }

    #[test]
    fn a_moved_resized_or_renamed_partition_is_named() {
        let disk = pick(BTreeMap::from([("vda".to_owned(), partitions())])).unwrap();
        let with = |partitions| Manifest { partitions, ..crate::fixtures::manifest() };
        disk.equals(&with(placed())).unwrap();
        assert_eq!(disk.partition(Which::Jobs).name, "jobs");
        let spoil: [fn(&mut PlacedPartition); 4] = [
            |p| p.offset += 1 << 20,
            |p| p.length += 4096,
            |p| p.name = "other".parse().unwrap(),
            |p| p.number = 9,
        ];
        for change in spoil {
            let mut other = placed();
            change(&mut other[4]);
            let failure = disk.equals(&with(other)).unwrap_err();
            assert_eq!(failure.code, Code::Partitions);
            assert!(failure.detail.contains("found 5 jobs at"), "{failure}");
        }
        assert!(disk.equals(&with(placed()[..5].into())).is_err());
    }
}
