//! Contributions: a party's base key for one role, sealed to the builder, for one build.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use cvm_base::Bytes32;
use cvm_layout::names::{Name, Role};
use serde::Serialize;

use crate::{
    enrolment::{Permit, SignatureBytes},
    error::CeremonyError,
    split_key::BaseKey,
    statement::{Signed, verify_one},
    text::{self, Document, Reader, TextError, Writer},
    transcript::Agreement,
};

pub(crate) const WHAT: &str = "contribution";
/// The most bytes of a sealed base key: an age file of 64 bytes is about 300.
const MAX_SEALED: usize = 2048;

/// The envelope of a sealed base key. The party signs all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Contribution {
    /// Whose base key, and what for.
    #[serde(flatten)]
    pub permit: Permit,
    /// The party's signature on the permit alone.
    pub permit_signature: SignatureBytes,
    /// An age file for the builder: [`Contribution::binding`], then the 32 bytes of `b_i,role`.
    #[serde(skip)]
    pub sealed: Vec<u8>,
}

impl Contribution {
    /// Reads a contribution and verifies that a party of `agreement` made and signed it for this
    /// ceremony.
    pub fn parse(bytes: &[u8], agreement: &Agreement) -> Result<Signed<Self>, CeremonyError> {
        let (this, body, signatures) = text::parse::<Self>(bytes, 1)
            .map_err(|source| CeremonyError::Text { what: WHAT, source })?;
        let (expected, found) = (agreement.digest(), this.permit.transcript);
        if expected != found {
            return Err(CeremonyError::OtherTranscript { what: WHAT, expected, found });
        }
        let name = &this.permit.party;
        let identity = &agreement.party(name)?.card.identity;
        verify_one(WHAT, name, identity, &body, &signatures)?;
        if !text::verifies(identity, &text::body(&this.permit), &this.permit_signature.0) {
            return Err(CeremonyError::Signature { signer: name.clone(), what: "permit" });
        }
        Ok(Signed::verified(this, &body, &signatures))
    }

    /// Refuses a contribution for another role or build.
    pub fn check_use(&self, role: Role, build: &Name) -> Result<(), CeremonyError> {
        let permit = &self.permit;
        if permit.role != role {
            return Err(CeremonyError::OtherRole {
                party: permit.party.clone(),
                expected: role,
                found: permit.role,
            });
        }
        if permit.build != *build {
            let (expected, found) = (build.clone(), permit.build.clone());
            return Err(CeremonyError::OtherBuild { party: permit.party.clone(), expected, found });
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
        self.permit.write(w);
        w.field("permit", self.permit_signature);
        w.field("sealed", STANDARD.encode(&self.sealed));
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, TextError> {
        Ok(Self {
            permit: Permit::read(r)?,
            permit_signature: r.parse("permit", "128 hex digits")?,
            sealed: r.field("sealed", "base64 of an age file", |value| {
                STANDARD.decode(value).ok().filter(|bytes| bytes.len() <= MAX_SEALED)
            })?,
        })
    }
}

/// A base key that the builder has opened.
#[derive(Debug)]
pub struct OpenedContribution {
    pub(crate) permit: Permit,
    pub(crate) permit_signature: SignatureBytes,
    pub(crate) base_key: BaseKey,
}

impl OpenedContribution {
    /// Whose it is.
    pub fn party(&self) -> &Name {
        &self.permit.party
    }
}
