//! Making LUKS2 areas: the parameters, and on the build machine the whole of p3's first area.
//!
//! libcryptsetup makes the header. The ciphertext is written by the `aes` and `xts-mode` crates and
//! not by libcryptsetup's offline re-encryption, for three reasons. Re-encryption stretches the
//! header's keyslots area up to the data, over the place of our seal record. It leaves traces in
//! the header, so that p3's header would need another whitelist than p5's. And it works in place,
//! so that the plain text, with private keys in it, would be in the image first.
//! `tests/it/interop.rs` lets Debian's `cryptsetup` decrypt the result and compares.

use std::{fs::OpenOptions, io::Read, os::unix::fs::FileExt, path::Path};

use aes::{
    Aes256,
    cipher::{
        Array, KeyInit,
        consts::{U16, U32},
    },
};
use cvm_base::Bytes32;
use libcryptsetup_rs::{
    CryptInit, CryptParamsLuks2, CryptParamsLuks2Ref, CryptPbkdfType, Either,
    consts::{
        flags::{CryptPbkdf, CryptVolumeKey},
        vals::{CryptKdf, EncryptionFormat, KeyslotsSize, MetadataSize},
    },
};
use xts_mode::Xts128;
use zeroize::Zeroizing;

use crate::{
    error::SealError,
    format::{BLOCK, HEADER_BYTES, KEYSLOTS_BYTES, METADATA_BYTES, PBKDF2_ITERATIONS, Protection},
    guard::{self, Expected, GuardedHeader, record},
    keys::{DiskKey, MacKey},
    ram::RamFile,
};

/// 512-byte units of the tweak in one 4096-byte sector: `plain64` counts those.
const TWEAK_STEP: u128 = 8;
/// Bytes read and written at once.
const CHUNK: usize = 4 * PART;
/// Bytes that one thread encrypts at once: `xts-mode` does 200 MB/s on one core here.
const PART: usize = 2 * 1024 * 1024;

/// What [`seal`] made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Bytes of the area: [`HEADER_BYTES`] and the ciphertext. The manifest's `sealed_bytes`.
    pub total_bytes: u64,
    /// SHA-256 of the header area.
    pub header_sha256: Bytes32,
}

/// Seals `plain_bytes` bytes (a multiple of 4096) of `plain` into `area`, from byte `offset` on.
///
/// `area` is created if missing and otherwise overwritten in that range only. The header goes last:
/// an interrupted seal leaves no area that opens. The file is not synced: that is for whoever
/// finishes the disk image. The volume key is fresh, so that two seals of the same content have
/// nothing in common.
pub fn seal(
    plain: &mut dyn Read,
    plain_bytes: u64,
    area: &Path,
    offset: u64,
    key: &DiskKey,
    mac_key: &MacKey,
) -> Result<Sealed, SealError> {
    SealError::multiple_of("the length of the content to seal", plain_bytes, BLOCK)?;
    let volume_key = random_volume_key(Protection::Encrypted)?;
    // libcryptsetup wants to see room for data after the header.
    let ram = RamFile::zeroed(2 * HEADER_BYTES as u64)?;
    format_header(&ram, None, Protection::Encrypted, key, &volume_key)?;
    let header = finish_header(&ram, Protection::Encrypted, mac_key)?;

    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(area)
        .map_err(SealError::io("open for sealing", area))?;
    let xts = xts(&volume_key);
    let mut buffer = Zeroizing::new(vec![0; CHUNK]);
    let mut done = 0;
    while done < plain_bytes {
        let length = CHUNK.min((plain_bytes - done) as usize);
        let chunk = &mut buffer[..length];
        plain.read_exact(chunk).map_err(SealError::io("read the content to seal into", area))?;
        std::thread::scope(|scope| {
            for (part, first) in chunk.chunks_mut(PART).zip((done..).step_by(PART)) {
                let xts = &xts;
                scope.spawn(move || {
                    xts.encrypt_area(part, BLOCK as usize, u128::from(first / BLOCK), tweak)
                });
            }
        });
        file.write_all_at(chunk, offset + HEADER_BYTES as u64 + done)
            .map_err(SealError::io("write", area))?;
        done += length as u64;
    }
    file.write_all_at(header.as_bytes(), offset)
        .map_err(SealError::io("write the header of", area))?;
    Ok(Sealed { total_bytes: total_bytes(plain_bytes), header_sha256: header.digest() })
}

/// Bytes of an area that holds `plain_bytes` bytes.
pub fn total_bytes(plain_bytes: u64) -> u64 {
    HEADER_BYTES as u64 + plain_bytes
}

/// A fresh volume key from the kernel's generator: 64 bytes, or 96 with integrity.
pub(crate) fn random_volume_key(protection: Protection) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let mut key = Zeroizing::new(vec![0; protection.volume_key_bytes()]);
    getrandom::fill(&mut key).map_err(|e| SealError::io("draw", "random bytes")(e.into()))?;
    Ok(key)
}

/// Lets libcryptsetup write a header into `ram`: parameters of [`guard`]'s whitelist, one keyslot.
///
/// With a `device` and integrity, libcryptsetup also formats dm-integrity there (from 1 MiB on):
/// that needs device-mapper.
pub(crate) fn format_header(
    ram: &RamFile,
    device: Option<&Path>,
    protection: Protection,
    key: &DiskKey,
    volume_key: &[u8],
) -> Result<(), SealError> {
    SealError::cryptsetup("format", device.unwrap_or(ram.path()), || {
        let mut crypt = match device {
            Some(device) => CryptInit::init_with_data_device(Either::Right((ram.path(), device)))?,
            None => CryptInit::init(ram.path())?,
        };
        crypt.set_data_offset(HEADER_BYTES as u64 / 512)?;
        let keyslots = KeyslotsSize::try_from(KEYSLOTS_BYTES)?;
        crypt
            .settings_handle()
            .set_metadata_size(MetadataSize::try_from(METADATA_BYTES)?, keyslots)?;
        let parameters = CryptParamsLuks2 {
            pbkdf: Some(CryptPbkdfType {
                type_: CryptKdf::Pbkdf2,
                hash: Some("sha256".into()),
                time_ms: 0,
                iterations: PBKDF2_ITERATIONS,
                max_memory_kb: 0,
                parallel_threads: 0,
                flags: CryptPbkdf::NO_BENCHMARK,
            }),
            integrity: protection.integrity().map(Into::into),
            integrity_params: None,
            data_alignment: 0,
            data_device: None,
            sector_size: BLOCK as u32,
            label: None,
            subsystem: None,
        };
        let mut parameters: CryptParamsLuks2Ref<'_> = (&parameters).try_into()?;
        crypt.context_handle().format(
            EncryptionFormat::Luks2,
            ("aes", "xts-plain64"),
            None,
            Either::Left(volume_key),
            Some(&mut parameters),
        )?;
        crypt.keyslot_handle().add_by_key(
            Some(0),
            Some(Either::Left(volume_key)),
            key.expose(),
            CryptVolumeKey::empty(),
        )?;
        Ok(())
    })
}

/// Appends the seal record to the header in `ram`, and passes it through the guard: what we make
/// must be what we accept.
pub(crate) fn finish_header(
    ram: &RamFile,
    protection: Protection,
    mac_key: &MacKey,
) -> Result<GuardedHeader, SealError> {
    let mut bytes = ram.read(HEADER_BYTES)?;
    record::write(&mut bytes, mac_key)?;
    Ok(guard::check(&bytes, &Expected::new(protection), mac_key)?)
}

fn xts(volume_key: &[u8]) -> Xts128<Aes256> {
    let mut halves = [Zeroizing::new([0; 32]), Zeroizing::new([0; 32])];
    for (half, bytes) in halves.iter_mut().zip(volume_key.chunks_exact(32)) {
        half.copy_from_slice(bytes);
    }
    let [data, tweak] = halves.map(|half| Aes256::new(&Array::<u8, U32>::from(*half)));
    Xts128::new(data, tweak)
}

fn tweak(sector: u128) -> Array<u8, U16> {
    (sector * TWEAK_STEP).to_le_bytes().into()
}
