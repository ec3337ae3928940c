//! The image manifest and the boot statement: what `cvm-init` believes about a disk.
//!
//! The manifest's SHA-256 stands in the measured kernel command line, and the builder's Ed25519
//! key signs it. It cannot name p2's verity root, because p2 holds the kernel whose command line
//! names the manifest; the [`BootStatement`] does.

use cvm_base::{Bytes16, Bytes32};
use serde::{Deserialize, Serialize};

use crate::names::{Name, Role};

/// The one schema version this program reads and writes.
pub const VERSION: u32 = 1;
/// More than any manifest needs; longer input is refused unread.
pub const MAX_BYTES: u64 = 64 * 1024;
/// Bytes of each LUKS2 area before its data: two LUKS2 headers, keyslots, and in the last
/// 4096 bytes the seal record (`cvm_seal::guard`).
pub const LUKS_HEADER_BYTES: u64 = 1024 * 1024;

/// Identifies one built image; random, and public.
pub type ImageId = Bytes16;

/// Everything `cvm-init` needs to know of one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`VERSION`].
    pub version: u32,
    /// This image.
    pub image_id: ImageId,
    /// The federation's project.
    pub project: Name,
    /// The site's (participant's) name, as NVFLARE knows it.
    pub site: Name,
    /// What the site does.
    pub role: Role,
    /// The six partitions, in order of their number.
    pub partitions: Vec<PlacedPartition>,
    /// p4's erofs.
    pub config: Verity,
    /// p3.
    pub root: RootPartition,
    /// The public components of the key, and who holds its halves.
    pub split_key: SplitKey,
    /// SHA-256 of `cvm-init`'s executable (`PF_X`) load segment as it lies in the file.
    pub init_code_sha256: Bytes32,
}

/// One partition as the build placed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlacedPartition {
    /// 1 to 6.
    pub number: u32,
    /// Its GPT name: `ESP`, `boot`, `root`, `config`, `jobs`, `data`.
    pub name: Name,
    /// First byte on the disk, a multiple of 1 MiB.
    pub offset: u64,
    /// Length in bytes, a multiple of 4096.
    pub length: u64,
}

/// A dm-verity tree behind its data: SHA-256, format 1, 4096-byte data and hash blocks.
///
/// A superblock lies at `data_bytes` (so that Debian's `veritysetup` finds it); the tree starts one
/// block later. `cvm-init` takes its parameters from here and never reads the superblock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verity {
    /// Bytes of data, a multiple of 4096; also the superblock's offset.
    pub data_bytes: u64,
    /// Bytes of data, superblock and tree.
    pub total_bytes: u64,
    /// The tree's salt.
    pub salt: Bytes32,
    /// The root hash.
    pub root_hash: Bytes32,
}

/// p3: a LUKS2 area that holds `system` and `site`, and behind it the area for `state`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootPartition {
    /// Bytes of the first LUKS2 area (header and ciphertext), counted from the partition's start.
    pub sealed_bytes: u64,
    /// The operating system, the Python environment and NVFLARE: erofs.
    pub system: Volume,
    /// What belongs to this site alone, the kit's private keys among it: erofs.
    pub site: Volume,
    /// Where `state`'s authenticated LUKS2 area starts, in bytes from the partition's start; it
    /// reaches to the partition's end.
    pub state_offset: u64,
}

/// A verity-protected volume inside p3's opened first area.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// First byte within the opened area, a multiple of 4096.
    pub offset: u64,
    /// Its tree.
    pub verity: Verity,
}

/// The public components of the split key (DESIGN §5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitKey {
    /// E: the build's ephemeral X25519 public key.
    pub ephemeral: Bytes32,
    /// T: SHA-256 of the transcript that all parties signed.
    pub transcript: Bytes32,
    /// The parties, in the transcript's order: halves are joined in this order.
    pub parties: Vec<PartyShare>,
}

/// One party's public part of the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartyShare {
    /// The party's name in the transcript.
    pub name: Name,
    /// S: the party's X25519 public key.
    pub public: Bytes32,
    /// Which keys need this party's half.
    pub purposes: Vec<KeyPurpose>,
    /// Where its half is asked for.
    pub keyholder: KeyHolder,
    /// SHA-256 of the release policy that the transcript names.
    pub policy_sha256: Bytes32,
}

/// What a combined key opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyPurpose {
    /// p3, both of its areas.
    System,
    /// p5.
    Jobs,
}

/// A key holder: its identity is pinned, its address may be overridden by `endpoints.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyHolder {
    /// `https://HOST:PORT`, no path.
    pub url: String,
    /// SHA-256 of the DER of its TLS certificate.
    pub certificate_sha256: Bytes32,
}

/// The second signed document on p1: p2's verity root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootStatement {
    /// [`VERSION`].
    pub version: u32,
    /// The image it belongs to.
    pub image_id: ImageId,
    /// The manifest it belongs to.
    pub manifest_sha256: Bytes32,
    /// p2's tree.
    pub boot: Verity,
}
