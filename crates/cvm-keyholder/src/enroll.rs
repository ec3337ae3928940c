//! Whether an image is one that this party agreed to.

use cvm_attest::Reference;
use cvm_base::{Bytes32, sha256};
use cvm_ceremony::{Agreement, Card, Date};
use cvm_custody::Party;
use cvm_layout::{
    manifest::{self, Manifest},
    names::Name,
    signed::{self, Kind},
};
use cvm_release::server::{Effect, Enrolled};
use ed25519_dalek::VerifyingKey;

use crate::KeyHolderError;

/// Who we are, from the party's card.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The party's name.
    pub name: Name,
    /// Its Ed25519 identity.
    pub public: Bytes32,
}

impl From<&Card> for Identity {
    fn from(card: &Card) -> Self {
        Self { name: card.name.clone(), public: card.identity }
    }
}

impl Identity {
    /// An agreement that this party signed, with the keys that it has.
    pub fn agreement(&self, bytes: &[u8]) -> Result<Agreement, KeyHolderError> {
        let agreement = Agreement::parse(bytes)?;
        if agreement.party(&self.name)?.card.identity != self.public {
            return Err(KeyHolderError::NotOurs(self.name.clone()));
        }
        Ok(agreement)
    }
}

/// What the builder and the ceremony leave for enrolment. Nothing in it is believed before
/// [`Documents::check`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Documents {
    /// The agreement that all parties signed.
    pub agreement: Vec<u8>,
    /// `manifest.json`.
    pub manifest: Vec<u8>,
    /// `manifest.sig`: 64 bytes.
    pub manifest_signature: Vec<u8>,
    /// `reference.json`.
    pub reference: Vec<u8>,
    /// `reference.sig`: 64 bytes.
    pub reference_signature: Vec<u8>,
}

impl Documents {
    /// What their enrolment changes.
    pub(crate) fn effect(&self) -> Effect {
        Effect::Enrolled {
            manifest_sha256: sha256(&self.manifest),
            reference_sha256: sha256(&self.reference),
        }
    }

    /// The ladder: this party signed the agreement; the agreement's builder signed the manifest and
    /// the reference values; both are of one image of a site that the agreement names with this
    /// party; its key is made of exactly that site's parties.
    pub fn check(&self, identity: &Identity) -> Result<Enrolled, KeyHolderError> {
        let agreement = identity.agreement(&self.agreement)?;
        let builder = agreement.builder();
        let unsigned =
            |document| KeyHolderError::Signature { document, builder: builder.name.clone() };
        let key = VerifyingKey::from_bytes(&builder.identity.0)
            .map_err(|_| unsigned("the builder's key"))?;
        let verify = |document, kind, bytes: &[u8], signature: &[u8]| {
            let signature = signature.try_into().map_err(|_| unsigned(document))?;
            signed::verify(&key, kind, bytes, signature).map_err(|_| unsigned(document))
        };
        verify("manifest.json", Kind::Manifest, &self.manifest, &self.manifest_signature)?;
        verify("reference.json", Kind::Reference, &self.reference, &self.reference_signature)?;

        let manifest = parse_manifest(&self.manifest)?;
        let site = agreement.site(&manifest.site, manifest.role)?;
        site.check_party(&identity.name)?;
        agreement.check_split_key(site, &manifest.split_key)?;
        let malformed =
            |problem: String| KeyHolderError::Document { document: "reference.json", problem };
        let reference = Reference::parse(&self.reference).map_err(|e| malformed(e.to_string()))?;
        let other = |field, expected: String, found: String| KeyHolderError::OtherImage {
            field,
            expected,
            found,
        };
        if reference.image_id != manifest.image_id {
            return Err(other(
                "image",
                manifest.image_id.to_string(),
                reference.image_id.to_string(),
            ));
        }
        let digest = sha256(&self.manifest);
        if reference.manifest_sha256 != digest {
            return Err(other(
                "manifest",
                digest.to_string(),
                reference.manifest_sha256.to_string(),
            ));
        }
        let reference = serde_json::to_value(&reference).map_err(|e| malformed(e.to_string()))?;
        Ok(Enrolled { manifest, reference })
    }

    /// What a presented image must show beyond that: its build is one that this party permits at
    /// `now`, and the reference values were made in it. A signature of the builder's may have been
    /// made by whoever stole its key.
    pub fn check_presented(
        &self,
        party: &Party,
        manifest: &Manifest,
        enrolment: &[u8],
        now: u64,
    ) -> Result<(), KeyHolderError> {
        let agreement = Agreement::parse(&self.agreement)?;
        Ok(party.admit(
            &agreement,
            manifest,
            (&self.reference, enrolment),
            &Date::from_unix(now),
        )?)
    }
}

/// Whether both are images of one site in one build, which makes one.
pub(crate) fn are_twins(one: &Manifest, other: &Manifest) -> bool {
    let of = |manifest: &Manifest| {
        (manifest.split_key.transcript, manifest.site.clone(), manifest.build.clone())
    };
    of(one) == of(other)
}

fn parse_manifest(bytes: &[u8]) -> Result<Manifest, KeyHolderError> {
    let malformed =
        |problem: String| KeyHolderError::Document { document: "manifest.json", problem };
    if bytes.len() as u64 > manifest::MAX_BYTES {
        return Err(malformed(format!(
            "{} bytes, at most {} allowed",
            bytes.len(),
            manifest::MAX_BYTES
        )));
    }
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(|e| malformed(e.to_string()))?;
    manifest.check_version().map_err(malformed)?;
    Ok(manifest)
}

/// Entry point for the fuzzer: the parsers behind the signatures, as if the builder were hostile.
#[doc(hidden)]
pub fn fuzz_documents(bytes: &[u8]) {
    let _ = Agreement::parse(bytes);
    let _ = parse_manifest(bytes);
    let _ = Reference::parse(bytes);
    // The store's file is another's to write: so are its log's texts.
    let _ = serde_json::from_slice::<crate::log::Entry>(bytes);
}
