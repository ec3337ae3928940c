//! Whose documents and certificates are believed: the agreement's builder and its parties.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use cvm_base::{Bytes32, sha256};
use cvm_ceremony::{Agreement, CeremonyError};
use cvm_collateral::tee::{TeeError, Vendors};
use cvm_evidence::Reference;
use cvm_layout::{
    manifest::{self, Manifest},
    signed::{self, Kind},
};
use cvm_verify::ak_certificate::{AkCertificate, AkStatement};
use ed25519_dalek::VerifyingKey;

use crate::{error::AgentRefusal, token::ImageDocuments};

/// Verified documents and certificates that are kept: some for each site of the largest federation.
const MAX_KEPT: usize = 1024;

/// An image that this federation's builder signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedImage {
    /// What it is.
    pub manifest: Manifest,
    /// What it measures.
    pub reference: Reference,
}

/// A federation's agreement, and what was verified under it.
pub struct Trust {
    agreement: Agreement,
    transcript: Bytes32,
    builder: VerifyingKey,
    vendors: Result<Vendors, TeeError>,
    images: Kept<Arc<SignedImage>>,
    certificates: Kept<Arc<AkStatement>>,
}

impl Trust {
    /// Reads the agreement that all parties signed.
    ///
    /// # Errors
    /// [`CeremonyError`] when it is not an agreement, or not signed by all.
    pub fn new(agreement: &[u8]) -> Result<Self, CeremonyError> {
        let agreement = Agreement::parse(agreement)?;
        let (transcript, named) = (agreement.digest(), agreement.builder());
        let builder = VerifyingKey::from_bytes(&named.identity.0).map_err(|_| {
            CeremonyError::Signature { signer: named.name.clone(), what: "agreement" }
        })?;
        let vendors = Vendors::genuine();
        Ok(Self {
            agreement,
            transcript,
            builder,
            vendors,
            images: Kept::default(),
            certificates: Kept::default(),
        })
    }

    /// With other vendors of TEEs than the genuine ones, or with what they published.
    #[must_use]
    pub fn with_vendors(self, vendors: Vendors) -> Self {
        Self { vendors: Ok(vendors), ..self }
    }

    /// Who vouches for TEEs.
    ///
    /// # Errors
    /// [`AgentRefusal::Evidence`] where the built-in roots cannot be read: never in a sound build.
    pub fn vendors(&self) -> Result<&Vendors, AgentRefusal> {
        self.vendors.as_ref().map_err(AgentRefusal::evidence)
    }

    /// The agreement.
    pub fn agreement(&self) -> &Agreement {
        &self.agreement
    }

    /// T.
    pub fn transcript(&self) -> Bytes32 {
        self.transcript
    }

    /// Who signs images.
    pub fn builder(&self) -> &VerifyingKey {
        &self.builder
    }

    /// Verifies an image's documents: signed by the builder, of this ceremony and project,
    /// belonging together, of a site that the agreement names.
    ///
    /// # Errors
    /// [`AgentRefusal`], for the first check that fails.
    pub fn image(&self, documents: &ImageDocuments) -> Result<Arc<SignedImage>, AgentRefusal> {
        let parts = [
            &documents.manifest,
            &documents.manifest_sig,
            &documents.reference,
            &documents.reference_sig,
        ];
        let key = sha256(parts.map(|part| sha256(&part.0).0).as_flattened());
        self.images.get_or(key, || self.check_image(documents).map(Arc::new))
    }

    fn check_image(&self, documents: &ImageDocuments) -> Result<SignedImage, AgentRefusal> {
        self.check_signature(
            "manifest",
            Kind::Manifest,
            &documents.manifest.0,
            &documents.manifest_sig.0,
        )?;
        self.check_signature(
            "reference",
            Kind::Reference,
            &documents.reference.0,
            &documents.reference_sig.0,
        )?;
        let inconsistent =
            |document, problem: String| AgentRefusal::Inconsistent { document, problem };
        let manifest = &documents.manifest.0;
        if manifest.len() as u64 > manifest::MAX_BYTES {
            return Err(inconsistent(
                "manifest",
                format!("{} bytes, at most {}", manifest.len(), manifest::MAX_BYTES),
            ));
        }
        let digest = sha256(manifest);
        let manifest: Manifest = serde_json::from_slice(manifest)
            .map_err(|e| inconsistent("manifest", e.to_string()))?;
        manifest.check_version().map_err(|problem| inconsistent("manifest", problem))?;
        let reference = Reference::parse(&documents.reference.0)
            .map_err(|e| inconsistent("reference", e.to_string()))?;
        if reference.manifest_sha256 != digest || reference.image_id != manifest.image_id {
            return Err(inconsistent("reference", "it belongs to another manifest".into()));
        }
        let other = |what, expected: String, found: String| AgentRefusal::OtherFederation {
            what,
            expected,
            found,
        };
        if manifest.split_key.transcript != self.transcript {
            return Err(other(
                "ceremony",
                self.transcript.to_string(),
                manifest.split_key.transcript.to_string(),
            ));
        }
        let terms = &self.agreement.transcript().terms;
        if manifest.project != terms.project {
            return Err(other("project", terms.project.to_string(), manifest.project.to_string()));
        }
        if !terms.sites.iter().any(|site| site.name == manifest.site && site.role == manifest.role)
        {
            return Err(AgentRefusal::UnknownSite {
                site: manifest.site,
                role: manifest.role.to_string(),
            });
        }
        Ok(SignedImage { manifest, reference })
    }

    fn check_signature(
        &self,
        document: &'static str,
        kind: Kind,
        bytes: &[u8],
        signature: &[u8],
    ) -> Result<(), AgentRefusal> {
        let unsigned =
            || AgentRefusal::Document { document, builder: self.agreement.builder().name.clone() };
        let signature = signature.try_into().map_err(|_| unsigned())?;
        signed::verify(&self.builder, kind, bytes, signature).map_err(|_| unsigned())
    }

    /// Those of the certificates that a party of the agreement signed for this image. Others say
    /// nothing: who shows a token may add as many as fit.
    pub fn certified(&self, certificates: &[AkCertificate], image: &Manifest) -> Vec<AkStatement> {
        let of_this_image = |statement: &Arc<AkStatement>| {
            statement.image_id == image.image_id && statement.transcript == self.transcript
        };
        let verified = certificates.iter().filter_map(|certificate| self.certificate(certificate));
        verified.filter(of_this_image).map(|statement| (*statement).clone()).collect()
    }

    fn certificate(&self, certificate: &AkCertificate) -> Option<Arc<AkStatement>> {
        let check = || {
            let party = certificate.claimed().ok()?.party;
            let identity = self.agreement.party(&party).ok()?.card.identity;
            let identity = VerifyingKey::from_bytes(&identity.0).ok()?;
            certificate.verify(&party, &identity).ok().map(Arc::new)
        };
        self.certificates.get_or(certificate.digest(), || check().ok_or(())).ok()
    }
}

/// What was verified, by the digest of all its bytes. What failed is not kept, so that strangers
/// cannot fill it.
struct Kept<T>(Mutex<HashMap<Bytes32, T>>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Kept<T> {
    fn get_or<E>(&self, key: Bytes32, check: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = known().get(&key) {
            return Ok(value.clone());
        }
        let value = check()?;
        let mut kept = known();
        if kept.len() >= MAX_KEPT {
            // A federation fits; beyond it, verifying again is cheap enough.
            kept.clear();
        }
        kept.insert(key, value.clone());
        Ok(value)
    }
}
