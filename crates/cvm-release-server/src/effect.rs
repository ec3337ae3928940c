//! What a decision changed. A key holder's memory is the sum of these changes, read from its signed
//! log.

use std::{fmt, str::FromStr};

use cvm_base::Bytes32;
use cvm_layout::{manifest::ImageId, names::Name};
use serde::{Deserialize, Serialize};

/// The longest reason of a withdrawal, in characters.
pub const MAX_REASON: usize = 500;

/// One change of the memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// The image is enrolled, by these documents.
    Enrolled {
        /// Of `manifest.json`.
        manifest_sha256: Bytes32,
        /// Of `reference.json`.
        reference_sha256: Bytes32,
    },
    /// The session showed evidence that was accepted.
    Attested {
        /// Of what the store keeps of it.
        attested_sha256: Bytes32,
        /// Unix seconds.
        expires: u64,
        /// Where it runs.
        chips: Vec<Chip>,
    },
    /// The session had its release, and so had the guest, where it has a name.
    Released {
        /// See [`crate::EvidenceVerifier::guest`].
        guest: Option<Bytes32>,
    },
    /// p5's header is registered for the image.
    Sealed {
        /// The header's.
        header_sha256: Bytes32,
        /// Of the sealed share of the machine's secret, where the image is bound to its machine.
        share_sha256: Option<Bytes32>,
    },
    /// The image may move to another machine.
    MayMove,
    /// It has moved.
    Moved,
    /// What was registered for the image is forgotten.
    SealForgotten,
    /// Nothing more is released to this.
    Withdrawn {
        /// To what.
        subject: Subject,
        /// The operator's words; may be empty.
        reason: String,
    },
    /// The withdrawal is taken back.
    Restored {
        /// Of what.
        subject: Subject,
    },
}

/// What a party may withdraw its consent from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// One image.
    Image(ImageId),
    /// Every image of a site, also those to come.
    Site(Name),
    /// Every image on a machine.
    Chip(Chip),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(image) => write!(f, "image {image}"),
            Self::Site(site) => write!(f, "site {site}"),
            Self::Chip(chip) => write!(f, "chip {chip}"),
        }
    }
}

/// What names a machine in evidence, in lowercase hex: AMD's CHIP_ID, Intel's PPID, the digest of a
/// TPM's endorsement certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Chip(String);

/// The text is not a chip's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a chip's name: expected 8 to 64 bytes in lowercase hex that are not all zero"
)]
pub struct ChipError(String);

impl FromStr for Chip {
    type Err = ChipError;

    fn from_str(text: &str) -> Result<Self, ChipError> {
        let fail = || ChipError(text.chars().take(140).collect());
        let mut bytes = hex::decode(text).map_err(|_| fail())?;
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) || !(8..=64).contains(&bytes.len()) {
            return Err(fail());
        }
        // A newer chip's name has eight bytes, which reports fill up to 64.
        let end = bytes.iter().rposition(|byte| *byte != 0).ok_or_else(fail)?;
        if bytes.len() == 64 {
            bytes.truncate(8.max(end + 1));
        }
        Ok(Self(hex::encode(bytes)))
    }
}

impl TryFrom<String> for Chip {
    type Error = ChipError;

    fn try_from(text: String) -> Result<Self, ChipError> {
        text.parse()
    }
}

impl From<Chip> for String {
    fn from(chip: Chip) -> Self {
        chip.0
    }
}

impl fmt::Display for Chip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chip_has_one_name() {
        let of = |text: &str| text.parse::<Chip>().map(String::from);
        let short = "0123456789abcdef";
        assert_eq!(of(&format!("{short}{}", "00".repeat(56))), of(short));
        assert_eq!(of(&"ab".repeat(64)), Ok("ab".repeat(64)));
        // Masked by the host, or nothing at all.
        for bad in [
            "00".repeat(64),
            "00".repeat(8),
            String::new(),
            "ab".into(),
            "AB".repeat(8),
            "x".repeat(16),
        ] {
            assert!(of(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_effect_survives_the_log() {
        let effect = Effect::Withdrawn {
            subject: Subject::Site("site-1".parse().unwrap()),
            reason: "sold".into(),
        };
        let text = serde_json::to_string(&effect).unwrap();
        assert_eq!(text, r#"{"withdrawn":{"subject":{"site":"site-1"},"reason":"sold"}}"#);
        assert_eq!(serde_json::from_str::<Effect>(&text).unwrap(), effect);
        assert_eq!(serde_json::to_string(&Effect::MayMove).unwrap(), r#""may-move""#);
    }
}
