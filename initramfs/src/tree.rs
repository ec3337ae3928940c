//! dm-verity's root hash, computed in user space (SHA-256, format 1, 4096-byte blocks).
//!
//! p2 is needed no more once it was checked, so no mapping is made for it: hashing its blocks here
//! uses every processor, where the kernel's worker hashes on the one that got the disk's interrupt.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path, thread};

use cvm_base::{Bytes32, sha256};

const BLOCK: usize = 4096;
/// Digests in one block of the tree.
const FAN_OUT: usize = BLOCK / 32;
/// Blocks of one read.
const RUN: usize = 256;

/// The root hash over the first `data_bytes` bytes of `device`, a multiple of 4096 above zero.
pub fn root_hash(device: &Path, data_bytes: u64, salt: &Bytes32) -> io::Result<Bytes32> {
    let blocks = data_bytes / BLOCK as u64;
    let threads = thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let share = blocks.div_ceil(threads);
    let mut level = thread::scope(|scope| {
        let hash = |part: u64| {
            move || hash_range(device, part * share, ((part + 1) * share).min(blocks), salt)
        };
        let parts: Vec<_> = (0..threads).map(|part| scope.spawn(hash(part))).collect();
        let mut digests = Vec::with_capacity(blocks as usize);
        for part in parts {
            digests
                .extend(part.join().map_err(|_| io::Error::other("a hashing thread panicked"))??);
        }
        Ok::<_, io::Error>(digests)
    })?;
    while level.len() > 1 {
        level = level.chunks(FAN_OUT).map(|digests| salted(salt, &tree_block(digests))).collect();
    }
    level.pop().ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

fn hash_range(device: &Path, start: u64, end: u64, salt: &Bytes32) -> io::Result<Vec<Bytes32>> {
    let file = File::open(device)?;
    let mut run = vec![0; RUN * BLOCK];
    let mut digests = Vec::new();
    for first in (start..end).step_by(RUN) {
        let length = RUN.min((end - first) as usize) * BLOCK;
        let (bytes, _) = run.split_at_mut(length);
        file.read_exact_at(bytes, first * BLOCK as u64)?;
        digests.extend(bytes.chunks_exact(BLOCK).map(|block| salted(salt, block)));
    }
    Ok(digests)
}

/// Format 1 puts the salt before the block.
fn salted(salt: &Bytes32, block: &[u8]) -> Bytes32 {
    sha256(&[&salt.0, block].concat())
}

fn tree_block(digests: &[Bytes32]) -> Vec<u8> {
    let mut block: Vec<u8> = digests.iter().flat_map(|digest| digest.0).collect();
    block.resize(BLOCK, 0);
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_libcryptsetups_and_every_byte_counts() {
        let salt = Bytes32 { 0: [7; 32] };
        for blocks in [1, 2, 127, 128, 129, 300, 16_385] {
            let file = tempfile::NamedTempFile::new().unwrap();
            let bytes = blocks * BLOCK as u64;
            let content: Vec<u8> = (0..bytes).map(|i| (i % 251) as u8).collect();
            file.as_file().write_all_at(&content, 0).unwrap();
            let verity = cvm_seal::verity::format(file.path(), bytes, salt).unwrap();
            assert_eq!(
                root_hash(file.path(), bytes, &salt).unwrap(),
                verity.root_hash,
                "{blocks} blocks"
            );
            for at in [0, bytes / 2, bytes - 1] {
                file.as_file().write_all_at(&[content[at as usize] ^ 1], at).unwrap();
                assert_ne!(
                    root_hash(file.path(), bytes, &salt).unwrap(),
                    verity.root_hash,
                    "byte {at} of {bytes}"
                );
                file.as_file().write_all_at(&content[at as usize..=at as usize], at).unwrap();
            }
            assert!(
                root_hash(file.path(), bytes + (1 << 30), &salt).is_err(),
                "a short device is an error"
            );
        }
    }
}
