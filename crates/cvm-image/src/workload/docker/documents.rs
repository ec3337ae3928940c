//! What an archive says about itself: `manifest.json` of `docker save`, or `index.json` of an OCI
//! image layout, and the image's configuration. Every key of the configuration that changes how the
//! workload runs is read; the others describe the image to people.

use std::collections::BTreeMap;

use serde::{Deserialize, de::DeserializeOwned};

use super::ArchiveError;

/// More than any document of an archive needs.
pub(super) const MAX_BYTES: u64 = 4 << 20;
/// Docker's own limit.
pub(super) const MAX_LAYERS: usize = 127;

/// An entry of `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct SavedImage {
    pub(super) config: String,
    pub(super) layers: Vec<String>,
}

/// An OCI index, or an OCI image manifest.
#[derive(Debug, Deserialize)]
pub(super) struct OciDocument {
    #[serde(default)]
    pub(super) manifests: Vec<Descriptor>,
    pub(super) config: Option<Descriptor>,
    #[serde(default)]
    pub(super) layers: Vec<Descriptor>,
}

/// What names a blob.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Descriptor {
    pub(super) digest: String,
    pub(super) platform: Option<Platform>,
}

/// Whose programs an image holds.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Platform {
    pub(super) architecture: String,
    pub(super) os: String,
}

impl Platform {
    pub(super) fn fits(&self) -> bool {
        self.architecture == "amd64" && self.os == "linux"
    }
}

/// An image's configuration.
#[derive(Debug, Deserialize)]
pub(super) struct ImageConfig {
    #[serde(flatten)]
    pub(super) platform: Platform,
    #[serde(default)]
    pub(super) config: Option<RunConfig>,
    pub(super) rootfs: RootFs,
}

/// The layers' digests, unpacked.
#[derive(Debug, Deserialize)]
pub(super) struct RootFs {
    #[serde(default)]
    pub(super) diff_ids: Vec<String>,
}

/// How its program runs.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct RunConfig {
    #[serde(default)]
    pub(super) entrypoint: Option<Vec<String>>,
    #[serde(default)]
    pub(super) cmd: Option<Vec<String>>,
    #[serde(default)]
    pub(super) env: Option<Vec<String>>,
    #[serde(default)]
    pub(super) working_dir: Option<String>,
    #[serde(default)]
    pub(super) volumes: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    #[serde(default)]
    pub(super) stop_signal: Option<String>,
}

pub(super) fn parse<T: DeserializeOwned>(part: &str, json: &[u8]) -> Result<T, ArchiveError> {
    serde_json::from_slice(json)
        .map_err(|e| ArchiveError::Corrupt { part: part.into(), problem: e.to_string() })
}

/// The 64 digits of a `sha256:` digest.
pub(super) fn sha256_of<'a>(part: &str, digest: &'a str) -> Result<&'a str, ArchiveError> {
    match digest.strip_prefix("sha256:").filter(|hex| is_sha256(hex)) {
        Some(hex) => Ok(hex),
        None => Err(ArchiveError::Corrupt {
            part: part.into(),
            problem: format!(
                "{:?} is not a sha256 digest",
                digest.chars().take(80).collect::<String>()
            ),
        }),
    }
}

pub(super) fn is_sha256(hex: &str) -> bool {
    hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}
