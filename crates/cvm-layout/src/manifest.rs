//! The image manifest and the boot statement: what `cvm-init` believes about a disk.
//!
//! The manifest's SHA-256 is in the measured kernel command line, and the builder's Ed25519 key
//! signs it. It cannot name p2's verity root, because p2 holds the kernel whose command line
//! names the manifest; the [`BootStatement`] does.

use cvm_base::{Bytes16, Bytes32};
use serde::{Deserialize, Serialize};

use crate::names::{Name, Role};

/// The schema's version of manifests whose `state` opens with the halves of all parties, as p5
/// does.
pub const VERSION: u32 = 3;
/// The schema's version of older manifests, without and with GPUs: their `state` opens with
/// `system`'s halves alone. Key holders and peers read them; an image of such a manifest is booted
/// by the `cvm-init` inside it.
pub const VERSIONS_BEFORE: [u32; 2] = [1, 2];
/// The schema's version of boot statements.
pub const BOOT_VERSION: u32 = 1;
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
    /// [`VERSION`], or one of [`VERSIONS_BEFORE`].
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
    /// The site has GPUs that attest by this mechanism, and p5 and `state` open only once they did:
    /// see [`Stage`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuMechanism>,
    /// The build's name, as the parties' contributions state it; absent in older images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<Name>,
}

/// How a site's GPUs attest; `cc_gpu_mechanism` of a `cc_config`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GpuMechanism {
    /// NVIDIA's confidential computing.
    NvidiaCc,
}

/// When a party's half is released: the two-stage release.
///
/// A driver that makes GPUs attest runs in the running system, not in the initramfs. So where an
/// image requires GPUs, what opens `system` and `site` is released to its boot, and what opens p5
/// and `state` to its running system; the halves of the two stages are different values, and
/// neither follows from the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// To `cvm-init`, before the handoff.
    Boot,
    /// To the running system, with evidence of its GPUs.
    Running,
}

impl Manifest {
    /// Whether version and members belong together.
    ///
    /// # Errors
    /// For people: expected and found.
    pub fn check_version(&self) -> Result<(), String> {
        let [without, with] = VERSIONS_BEFORE;
        match (self.version, self.gpu) {
            (VERSION, _) => Ok(()),
            (found, None) if found == without => Ok(()),
            (found, Some(_)) if found == with => Ok(()),
            (found, gpu) if VERSIONS_BEFORE.contains(&found) => {
                Err(format!("version {found} and gpu {gpu:?} do not belong together"))
            }
            (found, _) => {
                Err(format!("version {found}, this program reads {without}, {with} and {VERSION}"))
            }
        }
    }

    /// The stage in which the halves of a key are released.
    pub fn stage_of(&self, purpose: KeyPurpose) -> Stage {
        match (self.gpu, purpose) {
            (Some(_), KeyPurpose::Jobs) => Stage::Running,
            _ => Stage::Boot,
        }
    }

    /// The parties that release a half in this stage, in the transcript's order.
    pub fn asked(&self, stage: Stage) -> impl Iterator<Item = &PartyShare> {
        let released = move |purpose: &KeyPurpose| self.stage_of(*purpose) == stage;
        self.split_key.parties.iter().filter(move |party| party.purposes.iter().any(released))
    }
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

/// A dm-verity tree after its data: SHA-256, format 1, 4096-byte data and hash blocks.
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

/// p3: a LUKS2 area that holds `system` and `site`, and after it the area for `state`.
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

/// The public components of the split key (`cvm_ceremony::split_key`).
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
    /// p3's first area, `system` and `site`.
    System,
    /// p5 and p3's second area, `state`: what a site's work leaves behind. All parties of the site
    /// take part.
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
    /// [`BOOT_VERSION`].
    pub version: u32,
    /// The image it belongs to.
    pub image_id: ImageId,
    /// The manifest it belongs to.
    pub manifest_sha256: Bytes32,
    /// p2's tree.
    pub boot: Verity,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Model owner and data owner of an image with or without GPUs.
    fn manifest(gpu: Option<GpuMechanism>) -> Manifest {
        let zeros = "00".repeat(32);
        let verity = serde_json::json!({"data_bytes": 0, "total_bytes": 0, "salt": zeros, "root_hash": zeros});
        let volume = serde_json::json!({"offset": 0, "verity": verity});
        let party = |name: &str, purposes: &[&str]| {
            serde_json::json!({
                "name": name, "public": zeros, "purposes": purposes, "policy_sha256": zeros,
                "keyholder": {"url": "https://localhost:1", "certificate_sha256": zeros},
            })
        };
        let mut manifest: Manifest = serde_json::from_value(serde_json::json!({
            "version": VERSION, "image_id": "00".repeat(16), "project": "p", "site": "s", "role": "client", "partitions": [],
            "config": verity,
            "root": {"sealed_bytes": 0, "system": volume, "site": volume, "state_offset": 0},
            "split_key": {"ephemeral": zeros, "transcript": zeros, "parties": [
                party("model-owner", &["system", "jobs"]), party("data-owner", &["jobs"]),
            ]},
            "init_code_sha256": zeros,
        }))
        .unwrap();
        manifest.gpu = gpu;
        manifest
    }

    fn asked(manifest: &Manifest, stage: Stage) -> Vec<&str> {
        manifest.asked(stage).map(|party| party.name.as_str()).collect()
    }

    #[test]
    fn with_gpus_the_halves_of_p5_and_state_belong_to_the_running_system() {
        let plain = manifest(None);
        assert_eq!(asked(&plain, Stage::Boot), ["model-owner", "data-owner"]);
        assert!(asked(&plain, Stage::Running).is_empty());
        let gpu = manifest(Some(GpuMechanism::NvidiaCc));
        assert_eq!(asked(&gpu, Stage::Boot), ["model-owner"]);
        assert_eq!(asked(&gpu, Stage::Running), ["model-owner", "data-owner"]);
    }

    #[test]
    fn a_manifest_says_its_gpus_and_versions_do_not_mix() {
        let (plain, gpu) = (manifest(None), manifest(Some(GpuMechanism::NvidiaCc)));
        assert!(!serde_json::to_string(&plain).unwrap().contains("gpu"));
        let text = serde_json::to_string(&gpu).unwrap();
        assert!(
            text.starts_with(r#"{"version":3,"#) && text.contains(r#""gpu":"nvidia_cc""#),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<Manifest>(&text).unwrap(), gpu);
        assert!(serde_json::from_str::<Manifest>(&text.replace("nvidia_cc", "none")).is_err());

        let checked = |of: &Manifest, version| Manifest { version, ..of.clone() }.check_version();
        for good in [checked(&plain, 3), checked(&gpu, 3), checked(&plain, 1), checked(&gpu, 2)] {
            good.unwrap();
        }
        for wrong in [checked(&gpu, 1), checked(&plain, 2)] {
            assert!(wrong.unwrap_err().contains("belong together"));
        }
        assert!(checked(&plain, 4).unwrap_err().contains("version 4"));
    }
}
