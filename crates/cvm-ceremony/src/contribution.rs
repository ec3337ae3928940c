//! Contributions: a party's base key for one role, sealed to the builder, for one build.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use cvm_base::Bytes32;
use cvm_layout::names::{Name, Role};
use ed25519_dalek::SigningKey;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::{
    enrolment::{Permit, SignatureBytes},
    error::CeremonyError,
    split_key::BaseKey,
    statement::{Signed, verify_one},
    text::{self, Document, Reader, SignatureLine, TextError, Writer},
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
    /// Makes a party's contribution to one build and signs it with the party's identity. `seal`
    /// encrypts the secret bytes that it is given to the agreement's builder.
    ///
    /// # Errors
    /// What `seal` returns.
    pub fn sign<E>(
        permit: Permit,
        base_key: &BaseKey,
        identity: &SigningKey,
        seal: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
    ) -> Result<Signed<Self>, E> {
        let permit_signature = permit.sign(identity);
        let mut this = Self { permit, permit_signature, sealed: Vec::new() };
        let mut secret = Zeroizing::new(Vec::with_capacity(64));
        secret.extend_from_slice(&this.binding().0);
        secret.extend_from_slice(base_key.as_bytes());
        this.sealed = seal(&secret)?;
        let body = text::body(&this);
        let signer = this.permit.party.clone();
        let line = SignatureLine { signer, bytes: text::sign(identity, &body) };
        Ok(Signed::verified(this, &body, &[line]))
    }

    /// Takes the base key out of `unsealed`, which the builder decrypted from [`Self::sealed`].
    ///
    /// # Errors
    /// [`CeremonyError::Sealed`] where it was sealed for another envelope.
    pub fn open(&self, unsealed: &[u8]) -> Result<OpenedContribution, CeremonyError> {
        let base_key = unsealed.split_first_chunk::<32>().and_then(|(binding, base_key)| {
            let base_key: &[u8; 32] = base_key.try_into().ok()?;
            (*binding == self.binding().0).then_some(base_key)
        });
        let Some(base_key) = base_key else {
            let party = self.permit.party.clone();
            let reason = "it was sealed for another envelope".into();
            return Err(CeremonyError::Sealed { party, reason });
        };
        Ok(OpenedContribution {
            permit: self.permit.clone(),
            permit_signature: self.permit_signature,
            base_key: BaseKey::from_bytes(self.permit.role, base_key),
        })
    }

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
    /// that nobody can put the ciphertext into another envelope.
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
