//! What the exchange asks of a key holder: traits, so that tests need no network.

use cvm_base::Bytes32;
use cvm_layout::manifest::{ImageId, Stage};
use cvm_release::client::{ReleaseError, SealState};
use cvm_release_https::{Attester, Holder, Session};
use serde_json::Value;

/// A key holder that can be asked for its half.
pub trait KeyHolder: Send + Sync {
    /// The whole exchange, each wait bounded.
    fn release(
        &self,
        image: &ImageId,
        stage: Stage,
        attester: &dyn Attester,
    ) -> Result<Box<dyn Attested>, ReleaseError>;
}

/// A key holder that accepted the evidence.
pub trait Attested: Send {
    /// Its half: secret.
    fn half(&self) -> &[u8; 32];
    /// What it remembers of p5.
    fn seal_state(&self) -> Result<Option<SealState>, ReleaseError>;
    /// Tells it p5's header, and its share of the machine's secret if there is one.
    fn register_seal(
        &self,
        header_sha256: Bytes32,
        share: Option<&[u8; 32]>,
    ) -> Result<(), ReleaseError>;
    /// Its statement about this CVM's attestation key, JSON; `None` if it makes none.
    fn attestation_key(&self) -> Result<Option<Value>, ReleaseError>;
}

impl KeyHolder for Holder {
    fn release(
        &self,
        image: &ImageId,
        stage: Stage,
        attester: &dyn Attester,
    ) -> Result<Box<dyn Attested>, ReleaseError> {
        Holder::release(self, image, stage, attester)
            .map(|session| Box::new(session) as Box<dyn Attested>)
    }
}

impl Attested for Session {
    fn half(&self) -> &[u8; 32] {
        Session::half(self)
    }

    fn seal_state(&self) -> Result<Option<SealState>, ReleaseError> {
        Session::seal_state(self)
    }

    fn register_seal(
        &self,
        header_sha256: Bytes32,
        share: Option<&[u8; 32]>,
    ) -> Result<(), ReleaseError> {
        Session::register_seal(self, header_sha256, share)
    }

    fn attestation_key(&self) -> Result<Option<Value>, ReleaseError> {
        Session::attestation_key(self)
    }
}
