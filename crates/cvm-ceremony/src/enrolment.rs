//! Why a key holder may enrol an image that is only presented to it (`enrolment.txt`).
//!
//! The builder's signature alone does not say enough. Its key outlives the build, and whoever steals
//! it can sign other reference values for an image that exists, or a new image. So a presented
//! image brings, for each of its parties:
//!
//! - the [`Permit`] that the party signed with its contribution: images of this build, presented
//!   until that day;
//! - a MAC over `reference.json` under `W_i` ([`split_key`](crate::split_key)). Only the build,
//!   while it knew `e`, and the party itself can compute it. The reference names the manifest, so
//!   both are the build's own.

use cvm_base::{Bytes, Bytes32};
use cvm_layout::{
    manifest::Manifest,
    names::{Name, Role},
};
use ed25519_dalek::SigningKey;
use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use sha2::Sha256;

use crate::{
    error::CeremonyError,
    split_key::{EnrolmentKey, MAX_PARTIES},
    text::{self, Document, Reader, TextError, Writer},
    transcript::Agreement,
    values::Date,
};

/// An Ed25519 signature.
pub type SignatureBytes = Bytes<64>;

const WHAT: &str = "enrolment";

/// What a party allows with its contribution. It carries a signature of its own, because a
/// presented image shows the permit and not the sealed base key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Permit {
    /// T: the ceremony.
    pub transcript: Bytes32,
    /// Who allows it.
    pub party: Name,
    /// For which images.
    pub role: Role,
    /// For which build: a name that the builder chooses, and uses once for each site.
    pub build: Name,
    /// The last day on which an image of the build may be sealed, or enrolled by being presented.
    pub not_after: Date,
}

impl Permit {
    /// The party's signature on the permit alone.
    pub fn sign(&self, identity: &SigningKey) -> SignatureBytes {
        Bytes(text::sign(identity, &text::body(self)))
    }

    /// Refuses a day after the permit's last day.
    pub fn check_day(&self, today: &Date) -> Result<(), CeremonyError> {
        if *today <= self.not_after {
            return Ok(());
        }
        Err(CeremonyError::Expired {
            party: self.party.clone(),
            build: self.build.clone(),
            not_after: self.not_after.clone(),
            today: today.clone(),
        })
    }
}

impl Document for Permit {
    const KIND: &'static str = "permit";

    fn write(&self, w: &mut Writer) {
        w.field("transcript", self.transcript);
        w.field("party", &self.party);
        w.field("role", self.role);
        w.field("build", &self.build);
        w.field("not-after", &self.not_after);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, TextError> {
        Ok(Self {
            transcript: r.parse("transcript", "64 hex digits")?,
            party: r.parse("party", "NAME")?,
            role: r.parse("role", "server or client")?,
            build: r.parse("build", "NAME")?,
            not_after: r.parse("not-after", "a day YYYY-MM-DD")?,
        })
    }
}

/// What one build marks its own documents with. Wiped on drop.
#[derive(Debug)]
pub struct Marks(pub(crate) Vec<Mark>);

#[derive(Debug)]
pub(crate) struct Mark {
    pub(crate) permit: Permit,
    pub(crate) signature: SignatureBytes,
    pub(crate) key: EnrolmentKey,
}

impl Marks {
    /// `enrolment.txt` for these reference values.
    pub fn enrolment(&self, reference: &[u8]) -> String {
        let entry = |mark: &Mark| EnrolmentEntry {
            party: mark.permit.party.clone(),
            not_after: mark.permit.not_after.clone(),
            permit: mark.signature,
            mac: Bytes(mac(&mark.key, reference).finalize().into_bytes().into()),
        };
        text::body(&Enrolment { parties: self.0.iter().map(entry).collect() })
    }
}

/// `enrolment.txt`. Nothing in it is secret. Each party believes only its own entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolment {
    parties: Vec<EnrolmentEntry>,
}

/// The party to which an image is presented, and its key `W_i` of that image.
#[derive(Debug, Clone, Copy)]
pub struct Permitter<'a> {
    /// Its name.
    pub name: &'a Name,
    /// Its Ed25519 public key.
    pub identity: &'a Bytes32,
    /// `W_i`.
    pub key: &'a EnrolmentKey,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct EnrolmentEntry {
    party: Name,
    not_after: Date,
    permit: SignatureBytes,
    mac: Bytes32,
}

impl Document for Enrolment {
    const KIND: &'static str = WHAT;

    fn write(&self, w: &mut Writer) {
        for entry in &self.parties {
            w.field("party", &entry.party);
            w.field("  not-after", &entry.not_after);
            w.field("  permit", entry.permit);
            w.field("  mac", entry.mac);
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, TextError> {
        let mut parties = Vec::new();
        while r.at("party") && parties.len() < MAX_PARTIES {
            parties.push(EnrolmentEntry {
                party: r.parse("party", "NAME")?,
                not_after: r.parse("  not-after", "a day YYYY-MM-DD")?,
                permit: r.parse("  permit", "128 hex digits")?,
                mac: r.parse("  mac", "64 hex digits")?,
            });
        }
        Ok(Self { parties })
    }
}

impl Enrolment {
    /// Reads the document. Nothing in it is verified here.
    pub fn parse(bytes: &[u8]) -> Result<Self, CeremonyError> {
        let parsed = text::parse::<Self>(bytes, 0)
            .map_err(|source| CeremonyError::Text { what: WHAT, source });
        Ok(parsed?.0)
    }

    /// Refuses an image whose build the party did not permit, or no longer permits at `today`, and
    /// reference values that its key `W_i` did not mark.
    pub fn check(
        &self,
        party: &Permitter<'_>,
        agreement: &Agreement,
        manifest: &Manifest,
        reference: &[u8],
        today: &Date,
    ) -> Result<(), CeremonyError> {
        let Permitter { name, identity, key } = *party;
        let refuse = |problem| CeremonyError::NotAdmitted { party: name.clone(), problem };
        let build =
            manifest.build.clone().ok_or_else(|| refuse("the image's manifest names no build"))?;
        let entry = self.parties.iter().find(|entry| entry.party == *name);
        let entry = entry.ok_or_else(|| refuse("no permit of its own came with the image"))?;
        let permit = Permit {
            transcript: agreement.digest(),
            party: name.clone(),
            role: manifest.role,
            build,
            not_after: entry.not_after.clone(),
        };
        if !text::verifies(identity, &text::body(&permit), &entry.permit.0) {
            return Err(refuse(
                "it signed no permit for the build that the image names, with that last day",
            ));
        }
        permit.check_day(today)?;
        mac(key, reference).verify_slice(&entry.mac.0).map_err(|_| {
            refuse("the reference values were not made in the build that made the image")
        })
    }
}

fn mac(key: &EnrolmentKey, reference: &[u8]) -> Hmac<Sha256> {
    // HMAC pads a short key with zeros up to the hash's block.
    let mut block = zeroize::Zeroizing::new([0; 64]);
    block.iter_mut().zip(key.as_bytes()).for_each(|(to, from)| *to = *from);
    <Hmac<Sha256> as KeyInit>::new((&*block).into()).chain_update(reference)
}
