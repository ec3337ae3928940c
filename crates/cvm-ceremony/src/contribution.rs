//! Contributions: a party's base key for one role, sealed to the builder, for one build.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use cvm_base::Bytes32;
use cvm_layout::names::{Name, Role};
use serde::Serialize;

use crate::{
    error::CeremonyError,
    split_key::BaseKey,
    statement::{Signed, role, verify_one},
    text::{self, Document, Reader, TextError, Writer},
    transcript::Agreement,
};

pub(crate) const WHAT: &str = "contribution";
/// The most bytes of a sealed base key: an age file of 64 bytes is about 300.
const MAX_SEALED: usize = 2048;

/// The envelope of a sealed base key. The party signs all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Contribution {
    /// T: the ceremony.
    pub transcript: Bytes32,
    /// Whose base key.
    pub party: Name,
    /// For which images.
    pub role: Role,
    /// For which build; a name that the builder chooses and uses once.
    pub build: Name,
    /// An age file for the builder: [`Contribution::binding`], then the 32 bytes of `b_i,role`.
    #[serde(skip)]
    pub sealed: Vec<u8>,
}

impl Contribution {
    /// Reads a contribution and verifies that a party of `agreement` made and signed it for this ceremony.
    pub fn parse(bytes: &[u8], agreement: &Agreement) -> Result<Signed<Self>, CeremonyError> {
        let (this, body, signatures) =
            text::parse::<Self>(bytes, 1).map_err(|source| CeremonyError::Text { what: WHAT, source })?;
        let (expected, found) = (agreement.digest(), this.transcript);
        if expected != found {
            return Err(CeremonyError::OtherTranscript { what: WHAT, expected, found });
        }
        let party = agreement.party(&this.party)?;
        verify_one(WHAT, &this.party, &party.card.identity, &body, &signatures)?;
        Ok(Signed::verified(this, &body, &signatures))
    }

    /// Refuses a contribution for another role or build.
    pub fn check_use(&self, role: Role, build: &Name) -> Result<(), CeremonyError> {
        if self.role != role {
            return Err(CeremonyError::OtherRole { party: self.party.clone(), expected: role, found: self.role });
        }
        if self.build != *build {
            let (expected, found) = (build.clone(), self.build.clone());
            return Err(CeremonyError::OtherBuild { party: self.party.clone(), expected, found });
        }
        Ok(())
    }

    /// SHA-256 of the envelope without what is sealed. It is sealed together with the base key, so
    /// that nobody can put a ciphertext into an envelope of his own.
    pub fn binding(&self) -> Bytes32 {
        text::digest(&text::body(&Self { sealed: Vec::new(), ..self.clone() }))
    }
}

impl Document for Contribution {
    const KIND: &'static str = "contribution";

    fn write(&self, w: &mut Writer) {
        w.field("transcript", self.transcript);
        w.field("party", &self.party);
        w.field("role", self.role);
        w.field("build", &self.build);
        w.field("sealed", STANDARD.encode(&self.sealed));
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, TextError> {
        Ok(Self {
            transcript: r.parse("transcript", "64 hex digits")?,
            party: r.parse("party", "NAME")?,
            role: r.field("role", "server or client", role)?,
            build: r.parse("build", "NAME")?,
            sealed: r.field("sealed", "base64 of an age file", |value| {
                STANDARD.decode(value).ok().filter(|bytes| bytes.len() <= MAX_SEALED)
            })?,
        })
    }
}

/// A base key that the builder has opened.
#[derive(Debug)]
pub struct OpenedContribution {
    pub(crate) transcript: Bytes32,
    pub(crate) party: Name,
    pub(crate) base_key: BaseKey,
}

impl OpenedContribution {
    /// Whose it is.
    pub fn party(&self) -> &Name {
        &self.party
    }
}
