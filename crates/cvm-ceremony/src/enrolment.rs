//! Why a key holder may enrol an image that is only presented to it (`enrolment.txt`).
//!
//! The builder's signature alone does not say enough: its key outlives the build, and who steals it
//! signs other reference values for an image that exists, or a new image. So a presented image
//! brings, for each of its parties:
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
use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use sha2::Sha256;

use crate::{
    error::CeremonyError,
    split_key::{EnrolmentKey, MAX_PARTIES},
    statement::role,
    text::{self, Document, Reader, TextError, Writer},
    transcript::Agreement,
    values::Date,
};

/// An Ed25519 signature.
pub type SignatureBytes = Bytes<64>;

const WHAT: &str = "enrolment";

/// What a party allows with its contribution. It signs this by itself too, because a presented
/// image shows the permit and not the sealed base key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Permit {
    /// T: the ceremony.
    pub transcript: Bytes32,
    /// Who allows it.
    pub party: Name,
    /// For which images.
    pub role: Role,
    /// For which build; a name that the builder chooses and uses once a site.
    pub build: Name,
    /// The last day on which an image of the build may be sealed, or enrolled by being presented.
    pub not_after: Date,
}

impl Permit {
    /// Refuses a day after the permit's last.
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
            role: r.field("role", "server or client", role)?,
            build: r.parse("build", "NAME")?,
            not_after: r.parse("not-after", "a day YYYY-MM-DD")?,
        })
    }
}

/// What one build marks its own documents with. Wiped on drop, as `e` is when it makes this.
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
        let entry = |mark: &Mark| Entry {
            party: mark.permit.party.clone(),
            not_after: mark.permit.not_after.clone(),
            permit: mark.signature,
            mac: Bytes(mac(&mark.key, reference).finalize().into_bytes().into()),
        };
        text::body(&Enrolment { parties: self.0.iter().map(entry).collect() })
    }
}

/// The document. Nothing in it is secret, and nothing is believed but by the party that it
/// concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Enrolment {
    parties: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
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
            parties.push(Entry {
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
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, CeremonyError> {
        let parsed = text::parse::<Self>(bytes, 0)
            .map_err(|source| CeremonyError::Text { what: WHAT, source });
        Ok(parsed?.0)
    }

    /// Whether the party with this identity permitted the image's build and its key `W_i` marked
    /// the reference values.
    pub(crate) fn check(
        &self,
        own: (&Name, &Bytes32, &EnrolmentKey),
        agreement: &Agreement,
        manifest: &Manifest,
        reference: &[u8],
        today: &Date,
    ) -> Result<(), CeremonyError> {
        let (name, identity, key) = own;
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
