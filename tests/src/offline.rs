//! p5 and `state` of a disk whose machine is off, as whoever holds the disk can read them: with
//! Debian's cryptsetup, and without a device-mapper.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

use aes::{
    Aes256,
    cipher::{Array, KeyInit},
};
use anyhow::{Context, Result, ensure};
use cvm_ceremony::split_key::{Half, Purpose, combine};
use cvm_custody::Party;
use cvm_image::boot::disk;
use cvm_layout::manifest::{LUKS_HEADER_BYTES, Manifest};
use xts_mode::Xts128;

use crate::{run, vm::Machine};

const SECTOR: u64 = 512;
/// Sectors of one of dm-crypt's here.
const BLOCK_SECTORS: u64 = 8;
const BLOCK: usize = 4096;

/// Everything that one party could try without the other's secrets: its half in every place of a
/// key, and what it has.
pub fn keys_of_one(
    party: &Party,
    own: &Half,
    manifest: &Manifest,
    purpose: Purpose,
) -> Result<Vec<Vec<u8>>> {
    let zero = Half::from_bytes(&[0; 32]);
    let public = Half::from_bytes(&manifest.split_key.ephemeral.0);
    let tries =
        [&[own][..], &[own, own], &[own, &zero], &[&zero, own], &[own, &public], &[&public, own]];
    let key = |halves: &&[&Half]| {
        combine(&manifest.split_key.transcript, halves, purpose, &manifest.image_id)
    };
    let made = tries.iter().map(|halves| Ok(key(halves)?.as_bytes().to_vec()));
    let mut keys = made.collect::<Result<Vec<_>>>()?;
    keys.extend([own.as_bytes().to_vec(), party.base_key(manifest.role).as_bytes().to_vec()]);
    Ok(keys)
}

/// The sealed partitions, p1 to p5, in which `needle` can be read as it is.
pub fn read_in_clear(machine: &Machine, needle: &[u8], folder: &Path) -> Result<Vec<u32>> {
    const CHUNK: usize = 1 << 20;
    let copy = folder.join("partition");
    let mut found = vec![];
    for number in 1..=5 {
        disk::extract(&machine.disk(), number, &copy)?;
        let file = File::open(&copy)?;
        let length = file.metadata()?.len();
        let mut chunk = vec![0; CHUNK + needle.len()];
        for at in (0..length).step_by(CHUNK) {
            let count = chunk.len().min((length - at) as usize);
            let part = chunk.get_mut(..count).context("a chunk")?;
            file.read_exact_at(part, at)?;
            if part.windows(needle.len()).any(|window| window == needle) {
                found.push(number);
                break;
            }
        }
    }
    fs::remove_file(copy)?;
    Ok(found)
}

/// One of the two areas, taken out of a disk.
pub struct Area {
    folder: PathBuf,
}

impl Area {
    /// Takes p5 ([`Purpose::Jobs`]) or `state` out of a machine's disk; `folder` gets what is made
    /// of it.
    pub fn of(
        machine: &Machine,
        manifest: &Manifest,
        purpose: Purpose,
        folder: &Path,
    ) -> Result<Self> {
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder)?;
        let area = Self { folder: folder.to_owned() };
        match purpose {
            Purpose::Jobs => disk::extract(&machine.disk(), 5, &area.file())?,
            Purpose::State => {
                let p3 = folder.join("p3");
                disk::extract(&machine.disk(), 3, &p3)?;
                let skip = format!("skip={}", manifest.root.state_offset);
                let mut dd = Command::new("dd");
                dd.args(["bs=1M", "conv=sparse", "iflag=skip_bytes", "status=none", &skip]);
                run(dd.arg(argument("if", &p3)).arg(argument("of", &area.file())))?;
                fs::remove_file(p3)?;
            }
            other => anyhow::bail!("{other} is no area"),
        }
        Ok(area)
    }

    fn file(&self) -> PathBuf {
        self.folder.join("area")
    }

    /// Whether `key` opens a keyslot, as Debian's cryptsetup judges.
    pub fn opens(&self, key: &[u8]) -> Result<bool> {
        let key_file = self.key_file(key)?;
        let mut command = Command::new("cryptsetup");
        command
            .args(["luksOpen", "--test-passphrase", "--key-file"])
            .arg(key_file)
            .arg(self.file());
        Ok(command.status().context("cryptsetup")?.success())
    }

    /// Every file in it by its path, and every folder by its path with a slash, opened with `key`.
    pub fn files(&self, key: &[u8]) -> Result<BTreeMap<String, Vec<u8>>> {
        let (key_file, volume_key) = (self.key_file(key)?, self.folder.join("volume-key"));
        let mut command = Command::new("cryptsetup");
        command
            .args(["luksDump", "--batch-mode", "--dump-volume-key", "--volume-key-file"])
            .arg(&volume_key);
        run(command.arg("--key-file").arg(key_file).arg(self.file()))?;
        let (image, tree) = (self.folder.join("ext4"), self.folder.join("tree"));
        decrypt(&self.file(), &fs::read(&volume_key)?, &image)?;
        fs::create_dir_all(&tree)?;
        run(Command::new("debugfs")
            .arg("-R")
            .arg(format!("rdump / {}", tree.display()))
            .arg(&image))?;
        let mut files = BTreeMap::new();
        collect(&tree, &tree, &mut files)?;
        Ok(files)
    }

    fn key_file(&self, key: &[u8]) -> Result<PathBuf> {
        let file = self.folder.join("key");
        fs::write(&file, key)?;
        Ok(file)
    }
}

fn argument(name: &str, path: &Path) -> String {
    format!("{name}={}", path.display())
}

fn collect(folder: &Path, top: &Path, files: &mut BTreeMap<String, Vec<u8>>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let (path, kind) = entry.map(|entry| (entry.path(), entry.file_type()))?;
        let name = path.strip_prefix(top)?.display().to_string();
        if kind?.is_dir() {
            files.insert(name + "/", vec![]);
            collect(&path, top, files)?;
        } else {
            // A socket or a dangling link has no content.
            files.insert(name, fs::read(&path).unwrap_or_default());
        }
    }
    Ok(())
}

/// Where dm-integrity keeps a data sector (`drivers/md/dm-integrity.c`), read from its superblock.
struct Integrity {
    start: u64,
    interleave: u32,
    metadata_run: u64,
    sectors: u64,
}

impl Integrity {
    fn read(area: &File) -> Result<Self> {
        let mut superblock = [0; 64];
        area.read_exact_at(&mut superblock, LUKS_HEADER_BYTES)?;
        ensure!(superblock.starts_with(b"integrt\0"), "no superblock of dm-integrity");
        let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| superblock[at + i]));
        let (interleave, tag) = (u32::from(superblock[9]), u64::from(word(8) >> 16));
        let (journal_sections, flags, block_log2) =
            (u64::from(word(12)), word(24), u32::from(superblock[28]));
        ensure!(
            block_log2 == 3 && interleave < 32,
            "blocks of 2^{block_log2} sectors, runs of 2^{interleave}"
        );
        // A journal section: entries of a sector number, a commit id a sector and the tag, in eight
        // sectors; their data.
        let (have_mac, fixed_padding) = (flags & 1 != 0, flags & 8 != 0);
        let room = if have_mac { 496 } else { 504 };
        let entries = room / (8 + 8 * BLOCK_SECTORS + tag).next_multiple_of(8) * 8;
        let journal = journal_sections * (entries * BLOCK_SECTORS + 8);
        let padding = if fixed_padding { 8 * SECTOR } else { SECTOR << 8 };
        Ok(Self {
            start: LUKS_HEADER_BYTES / SECTOR + 8 + journal,
            interleave,
            metadata_run: (tag << (interleave - block_log2)).next_multiple_of(padding) / SECTOR,
            sectors: u64::from(word(16)) | u64::from(word(20)) << 32,
        })
    }

    /// The first sectors of each run: as the file system counts, and on the device.
    fn runs(&self) -> impl Iterator<Item = (u64, u64)> {
        let runs = self.sectors.div_ceil(1 << self.interleave);
        (0..runs).map(|run| {
            (
                run << self.interleave,
                self.start + (run << self.interleave) + (run + 1) * self.metadata_run,
            )
        })
    }
}

/// Decrypts every block that was ever written; the others stay holes.
fn decrypt(area: &Path, volume_key: &[u8], to: &Path) -> Result<()> {
    let (area, image) = (File::open(area)?, File::create(to)?);
    // 32 bytes more authenticate.
    ensure!(volume_key.len() == 96, "a volume key of {} bytes", volume_key.len());
    let cipher =
        |at: usize| Aes256::new_from_slice(&volume_key[at..at + 32]).context("an AES-256 key");
    let xts = Xts128::new(cipher(0)?, cipher(32)?);
    let integrity = Integrity::read(&area)?;
    image.set_len(integrity.sectors * SECTOR)?;
    for (logical, physical) in integrity.runs() {
        let sectors = (1 << integrity.interleave).min(integrity.sectors - logical);
        let mut run = vec![0; (sectors * SECTOR) as usize];
        area.read_exact_at(&mut run, physical * SECTOR)?;
        for (number, block) in (0..).zip(run.chunks_exact_mut(BLOCK)) {
            if block.iter().any(|byte| *byte != 0) {
                let sector = logical + number * BLOCK_SECTORS;
                xts.decrypt_sector(block, Array::from(u128::from(sector).to_le_bytes()));
                image.write_all_at(block, sector * SECTOR)?;
            }
        }
    }
    Ok(())
}
