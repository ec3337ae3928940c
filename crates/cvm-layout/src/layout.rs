//! `partitions/*.yaml`: the six partitions and how large each is.
//!
//! [`Layout::parse`] checks the text once; [`Layout::place`] puts the partitions on a disk, given
//! what the build made. Names, order and GPT types are fixed: the file chooses sizes only.

use std::fmt;

use cvm_base::Explain;
use serde::Deserialize;

use crate::{manifest::PlacedPartition, names::Name};

/// One mebibyte in bytes: the alignment of every partition and the unit of every size.
pub const MIB: u64 = 1024 * 1024;
/// The partitions' names, in the order of their numbers.
pub const NAMES: [&str; 6] = ["ESP", "boot", "root", "config", "jobs", "data"];
/// The most bytes of a layout file.
pub const MAX_BYTES: usize = 16 * 1024;
/// No partition may be larger than this (bytes).
const MAX_SIZE: u64 = 64 << 40;

/// A checked layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    sizes: [Size; 6],
    state: u64,
}

/// How large a partition is, in bytes; always whole mebibytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    Exactly(u64),
    AtLeast(u64),
}

/// Sizes in bytes that replace a layout's own; whole mebibytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resize {
    /// `state`, after p3's volumes.
    pub state: Option<u64>,
    /// p4, from now on exactly this.
    pub config: Option<u64>,
    /// p5.
    pub jobs: Option<u64>,
    /// p6.
    pub data: Option<u64>,
}

/// How many bytes the build has for the partitions whose content it makes; p5 has none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Contents {
    /// p1's FAT image.
    pub esp: u64,
    /// p2's FAT image and verity tree.
    pub boot: u64,
    /// p3's sealed area: header and ciphertext, without `state`.
    pub root: u64,
    /// p4's erofs and verity tree.
    pub config: u64,
    /// p6's file system.
    pub data: u64,
}

/// Where everything lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The six partitions in order; what the manifest records.
    pub partitions: Vec<PlacedPartition>,
    /// First byte of `state`'s area, counted from p3's start.
    pub state_offset: u64,
    /// Length of the whole disk in bytes, both partition tables included.
    pub disk_bytes: u64,
}

/// Why a layout is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Not YAML, or not of this shape.
    #[error("the partition layout is not readable: {0}")]
    Yaml(String),
    /// Another schema.
    #[error("version: expected 1, found {0}")]
    Version(u64),
    /// Names missing, doubled, or in another order.
    #[error(
        "partitions: expected the names ESP, boot, root, config, jobs, data in this order, found \
         {0}"
    )]
    Names(String),
    /// A value breaks a rule.
    #[error("partitions[{number}] ({name}).{key}: expected {expected}, found {found}")]
    Value {
        /// The partition's number, 1 to 6.
        number: usize,
        /// Its name.
        name: &'static str,
        /// The offending key.
        key: &'static str,
        /// What would be right.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// The content is larger than its partition.
    #[error("partition {number} ({name}) has {room} bytes of room, its content needs {needed}")]
    Full {
        /// The partition's number, 1 to 6.
        number: usize,
        /// Its name.
        name: &'static str,
        /// Its exact size in bytes.
        room: u64,
        /// The content's size in bytes.
        needed: u64,
    },
}

impl Explain for LayoutError {
    fn code(&self) -> &'static str {
        match self {
            Self::Yaml(_) => "LAY-001",
            Self::Version(_) => "LAY-002",
            Self::Names(_) => "LAY-003",
            Self::Value { .. } => "LAY-004",
            Self::Full { .. } => "LAY-005",
        }
    }

    fn help(&self) -> String {
        match self {
            Self::Yaml(_) => "start from a copy of partitions/default.yaml; its keys are version, \
                partitions, name, size, minimum, state"
                .into(),
            Self::Version(_) => {
                "this program reads version 1: use the layout files that came with it".into()
            }
            Self::Names(_) => "the boot chain relies on these six: start from a copy of \
                partitions/default.yaml and change sizes only"
                .into(),
            Self::Value { .. } => "write a size as 64MiB, 10GiB or 1TiB; give `size` for an exact \
                one or `minimum` for one that grows, not both"
                .into(),
            Self::Full { name, needed, .. } => {
                format!(
                    "set `size` of {name} in the layout file to at least {}MiB, or put less in",
                    needed.div_ceil(MIB)
                )
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u64,
    partitions: Vec<PartitionEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PartitionEntry {
    name: String,
    size: Option<String>,
    minimum: Option<String>,
    state: Option<String>,
}

impl Layout {
    /// Reads and checks the text of a layout file.
    pub fn parse(yaml: &str) -> Result<Self, LayoutError> {
        if yaml.len() > MAX_BYTES {
            return Err(LayoutError::Yaml(format!(
                "it has {} bytes, expected at most {MAX_BYTES}",
                yaml.len()
            )));
        }
        let file: File = crate::yaml::parse(yaml.as_bytes()).map_err(LayoutError::Yaml)?;
        if file.version != 1 {
            return Err(LayoutError::Version(file.version));
        }
        let names: Vec<&str> = file.partitions.iter().map(|p| p.name.as_str()).collect();
        if names != NAMES {
            return Err(LayoutError::Names(names.join(", ").chars().take(200).collect()));
        }
        let mut sizes = [Size::Exactly(0); 6];
        let mut state = 0;
        for (index, ((entry, name), slot)) in
            file.partitions.iter().zip(NAMES).zip(&mut sizes).enumerate()
        {
            let refuse = |key, expected, found: &str| LayoutError::Value {
                number: index + 1,
                name,
                key,
                expected,
                found: found.chars().take(80).collect(),
            };
            let bytes =
                |key, text: &str| parse_size(text).map_err(|expected| refuse(key, expected, text));
            *slot = match (&entry.size, &entry.minimum) {
                (Some(text), None) => Size::Exactly(bytes("size", text)?),
                (None, Some(text)) => Size::AtLeast(bytes("minimum", text)?),
                (Some(_), Some(text)) => {
                    return Err(refuse("minimum", "no `minimum` beside `size`", text));
                }
                (None, None) => return Err(refuse("size", "`size` or `minimum`", "neither")),
            };
            state = match (name, &entry.state) {
                ("root", Some(text)) => bytes("state", text)?,
                ("root", None) => {
                    return Err(refuse("state", "the size of the state area", "nothing"));
                }
                (_, Some(text)) => return Err(refuse("state", "`state` at root alone", text)),
                (_, None) => state,
            };
            // p2's content names the manifest that names p2's place: its size cannot follow its
            // content.
            if let ("ESP" | "boot" | "jobs", Size::AtLeast(_)) = (name, *slot) {
                return Err(refuse("minimum", "an exact `size` for this partition", "`minimum`"));
            }
            if let ("root", Size::Exactly(_)) = (name, *slot) {
                return Err(refuse(
                    "size",
                    "`minimum` for this partition, which grows with its volumes",
                    "`size`",
                ));
            }
        }
        Ok(Self { sizes, state })
    }

    /// The exact size of a partition in bytes, where the layout gives one.
    pub fn exact_size(&self, number: usize) -> Option<u64> {
        match self.sizes.get(number.checked_sub(1)?)? {
            Size::Exactly(bytes) => Some(*bytes),
            Size::AtLeast(_) => None,
        }
    }

    /// The size of `state` in bytes.
    pub fn state_bytes(&self) -> u64 {
        self.state
    }

    /// The same layout with some sizes replaced.
    pub fn resized(mut self, resize: &Resize) -> Result<Self, LayoutError> {
        let check = |index: usize, key, bytes: u64| match bytes {
            bytes if bytes > 0 && bytes <= MAX_SIZE && bytes % MIB == 0 => Ok(bytes),
            _ => Err(LayoutError::Value {
                number: index + 1,
                name: NAMES[index],
                key,
                expected: "whole mebibytes, at most 64TiB",
                found: bytes.to_string(),
            }),
        };
        if let Some(bytes) = resize.state {
            self.state = check(2, "state", bytes)?;
        }
        for (index, bytes) in [(3, resize.config), (4, resize.jobs), (5, resize.data)] {
            if let Some(bytes) = bytes {
                self.sizes[index] = Size::Exactly(check(index, "size", bytes)?);
            }
        }
        Ok(self)
    }

    /// Places the partitions one after another, the first at 1 MiB.
    pub fn place(&self, contents: &Contents) -> Result<Placement, LayoutError> {
        let needed =
            [contents.esp, contents.boot, contents.root, contents.config, 0, contents.data];
        let mut offset = MIB;
        let mut state_offset = 0;
        let mut partitions = Vec::with_capacity(6);
        for (((number, name), size), needed) in (1..).zip(NAMES).zip(self.sizes).zip(needed) {
            let full = |room| LayoutError::Full { number, name, room, needed };
            let mut length = match size {
                Size::Exactly(room) if needed > room => return Err(full(room)),
                Size::Exactly(room) => room,
                Size::AtLeast(_) if needed > MAX_SIZE => return Err(full(MAX_SIZE)),
                Size::AtLeast(least) => least.max(needed.next_multiple_of(MIB)),
            };
            if name == "root" {
                state_offset = length;
                length += self.state;
            }
            let name = Name::try_from(name.to_owned()).expect("the fixed names are names");
            partitions.push(PlacedPartition { number: number as u32, name, offset, length });
            offset += length;
        }
        // The backup table takes 33 sectors; a whole mebibyte keeps the disk's length round.
        Ok(Placement { partitions, state_offset, disk_bytes: offset + MIB })
    }
}

/// How many bytes of data leave room for their verity superblock and tree in a partition of
/// `length` bytes: all but a sixty-fourth, at least 1 MiB, a multiple of 1 MiB.
///
/// A SHA-256 tree of 4096-byte blocks takes 1/127 of its data, and one block for each level.
pub fn verity_data_room(length: u64) -> u64 {
    let reserve = (length / 64).next_multiple_of(MIB).max(MIB);
    length.saturating_sub(reserve) / MIB * MIB
}

/// Reads `64MiB`; the error says what was expected.
fn parse_size(text: &str) -> Result<u64, &'static str> {
    const FORM: &str = "a whole number with MiB, GiB or TiB, as 64MiB";
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match text.get(digits.len()..) {
        Some("MiB") => MIB,
        Some("GiB") => MIB << 10,
        Some("TiB") => MIB << 20,
        _ => return Err(FORM),
    };
    if digits.is_empty() || digits.starts_with('0') || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(FORM);
    }
    let count: u64 = digits.parse().map_err(|_| FORM)?;
    count.checked_mul(unit).filter(|bytes| *bytes <= MAX_SIZE).ok_or("at most 64TiB")
}

impl fmt::Display for Placement {
    /// One line per partition: number, name, offset and length in MiB.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for p in &self.partitions {
            writeln!(
                f,
                "p{} {:<7} at {:>6} MiB, {:>6} MiB",
                p.number,
                p.name.as_str(),
                p.offset / MIB,
                p.length / MIB
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: &str = include_str!("../../../partitions/default.yaml");
    const SMALL: &str = include_str!("../../../partitions/small.yaml");

    #[test]
    fn the_shipped_layouts_place_what_a_build_makes() {
        for (text, jobs) in [(DEFAULT, 10 << 30), (SMALL, 100 * MIB)] {
            let layout = Layout::parse(text).unwrap();
            let contents = Contents {
                esp: 16 * MIB,
                boot: 48 * MIB,
                root: 300 * MIB + 1,
                config: 5 * MIB,
                data: 16 * MIB,
            };
            let placed = layout.place(&contents).unwrap();
            assert_eq!(placed.state_offset, 301 * MIB);
            assert_eq!(placed.partitions[4].length, jobs);
            let mut end = MIB;
            for (partition, name) in placed.partitions.iter().zip(NAMES) {
                assert_eq!((partition.name.as_str(), partition.offset), (name, end));
                assert_eq!(partition.length % MIB, 0);
                end += partition.length;
            }
            assert_eq!(placed.disk_bytes, end + MIB);
            assert_eq!(layout.exact_size(2), Some(48 * MIB));
            assert_eq!(layout.exact_size(3), None);
        }
    }

    #[test]
    fn sizes_can_be_replaced_within_the_same_bounds() {
        let layout = || Layout::parse(DEFAULT).unwrap();
        let resize = Resize {
            state: Some(3 << 30),
            config: Some(MIB),
            jobs: Some(2 << 30),
            data: Some(1 << 30),
        };
        let resized = layout().resized(&resize).unwrap();
        let placed = resized.place(&Contents { data: 1 << 30, ..Contents::default() }).unwrap();
        let lengths: Vec<u64> = placed.partitions.iter().map(|p| p.length).collect();
        assert_eq!(lengths, [16 * MIB, 48 * MIB, (256 << 20) + (3 << 30), MIB, 2 << 30, 1 << 30]);
        assert_eq!(
            resized.place(&Contents { config: MIB + 1, ..Contents::default() }).unwrap_err().code(),
            "LAY-005"
        );
        assert_eq!(layout().resized(&Resize::default()).unwrap(), layout());
        for bytes in [0, 1, 65 << 40] {
            let error =
                layout().resized(&Resize { jobs: Some(bytes), ..Resize::default() }).unwrap_err();
            assert_eq!(error.code(), "LAY-004", "{error}");
        }
    }

    #[test]
    fn content_that_does_not_fit_is_refused_with_its_size() {
        let layout = Layout::parse(DEFAULT).unwrap();
        let error =
            layout.place(&Contents { boot: 48 * MIB + 1, ..Contents::default() }).unwrap_err();
        assert_eq!(error.code(), "LAY-005");
        assert!(error.help().contains("49MiB"), "{}", error.help());
    }

    #[test]
    fn a_wrong_layout_names_the_key_and_what_was_expected() {
        let changed =
            |from: &str, to: &str| Layout::parse(&DEFAULT.replacen(from, to, 1)).unwrap_err();
        for (error, code, part) in [
            (changed("version: 1", "version: 2"), "LAY-002", "expected 1, found 2"),
            (changed("name: root", "name: rot"), "LAY-003", "rot"),
            (changed("size: 10GiB", "size: 10GB"), "LAY-004", "partitions[5] (jobs).size"),
            (changed("size: 10GiB", "size: 010GiB"), "LAY-004", "whole number"),
            (changed("size: 10GiB", "size: 99999999999999999999GiB"), "LAY-004", "whole number"),
            (changed("size: 10GiB", "size: 65TiB"), "LAY-004", "at most 64TiB"),
            (changed("size: 10GiB", "minimum: 10GiB"), "LAY-004", "exact `size`"),
            (changed("    state: 8GiB\n", ""), "LAY-004", "state"),
            (changed("size: 48MiB", "size: 48MiB\n    state: 1MiB"), "LAY-004", "at root alone"),
            (changed("size: 48MiB", "sise: 48MiB"), "LAY-001", "sise"),
            (changed("size: 48MiB", "size: 48MiB\n    minimum: 1MiB"), "LAY-004", "beside"),
        ] {
            assert_eq!(error.code(), code, "{error}");
            assert!(error.to_string().contains(part), "{error}");
            assert!(!error.help().is_empty());
        }
    }

    #[test]
    fn a_verity_tree_fits_behind_its_data() {
        for mib in [2_u64, 3, 48, 64, 1000] {
            let data = verity_data_room(mib * MIB);
            let (mut blocks, mut tree) = (data / 4096, 1);
            while blocks > 1 {
                blocks = blocks.div_ceil(128);
                tree += blocks;
            }
            assert!(data > 0 && data + tree * 4096 <= mib * MIB, "{mib} MiB");
        }
    }
}
