//! dm-verity trees after their data: SHA-256, format 1, 4096-byte blocks.

use std::path::Path;

use cvm_base::Bytes32;
use cvm_layout::manifest::Verity;
use libcryptsetup_rs::{
    CryptInit, CryptParamsVerity, CryptParamsVerityRef, Either,
    consts::{flags::CryptVerity, vals::EncryptionFormat},
};
use uuid::Uuid;

use crate::{error::SealError, format::BLOCK};

/// Digests in one block of the tree.
const FAN_OUT: u64 = BLOCK / 32;

/// Puts a superblock and a hash tree after the first `data_bytes` bytes of `file`.
///
/// `data_bytes` is a multiple of 4096; whatever was after it is overwritten. The same data and
/// salt give the same bytes: the superblock's UUID is made of the salt. Debian's
/// `veritysetup verify --hash-offset=data_bytes FILE FILE ROOT` accepts the result.
pub fn format(file: &Path, data_bytes: u64, salt: Bytes32) -> Result<Verity, SealError> {
    SealError::multiple_of("the length of the volume under verity", data_bytes, BLOCK)?;
    let mut root_hash = [0; 32];
    SealError::cryptsetup("make a hash tree in", file, || {
        let parameters = CryptParamsVerity {
            hash_name: "sha256".into(),
            data_device: file.to_owned(),
            hash_device: None,
            fec_device: None,
            salt: salt.0.to_vec(),
            hash_type: 1,
            data_block_size: BLOCK as u32,
            hash_block_size: BLOCK as u32,
            data_size: data_bytes / BLOCK,
            hash_area_offset: data_bytes,
            fec_area_offset: 0,
            fec_roots: 0,
            flags: CryptVerity::CREATE_HASH,
        };
        let mut parameters: CryptParamsVerityRef<'_> = (&parameters).try_into()?;
        let uuid = salt.0.first_chunk().copied().unwrap_or_default();
        let mut crypt = CryptInit::init(file)?;
        crypt.context_handle().format(
            EncryptionFormat::Verity,
            ("", ""),
            Some(Uuid::from_bytes(uuid)),
            Either::Right(0),
            Some(&mut parameters),
        )?;
        // For verity, libcryptsetup's volume key is the root hash.
        crypt.volume_key_handle().get(None, &mut root_hash, None)?;
        Ok(())
    })?;
    Ok(Verity {
        data_bytes,
        total_bytes: total_bytes(data_bytes),
        salt,
        root_hash: Bytes32 { 0: root_hash },
    })
}

/// Bytes of data, superblock and tree.
pub fn total_bytes(data_bytes: u64) -> u64 {
    let mut blocks = data_bytes / BLOCK;
    let mut tree = 0;
    while blocks > 1 {
        blocks = blocks.div_ceil(FAN_OUT);
        tree += blocks;
    }
    // A single block has no tree: its digest is the root.
    data_bytes + BLOCK + tree * BLOCK
}
