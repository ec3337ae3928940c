//! The party's secrets, as the protocol uses them.

use std::sync::Arc;

use cvm_custody::Party;
use cvm_layout::manifest::{Manifest, Stage};
use cvm_release_server::{Fault, Halves};
use cvm_verify::ak_certificate::AkCertificate;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::evidence::attestation_key;

/// The party's secrets, as the protocol uses them.
pub(super) struct PartyHalves(pub(super) Arc<Party>);

impl Halves for PartyHalves {
    fn half(&self, manifest: &Manifest, stage: Stage) -> Result<Zeroizing<[u8; 32]>, Fault> {
        let half = self.0.half(&manifest.split_key, manifest.role, &manifest.image_id, stage);
        half.map(|half| Zeroizing::new(*half.as_bytes()))
            .map_err(|e| Fault::new("computing the half", e))
    }

    fn certify(
        &self,
        manifest: &Manifest,
        claims: &Value,
        now: u64,
    ) -> Result<Option<Value>, Fault> {
        let party = &self.0.card().name;
        let Some(statement) = attestation_key(party, manifest, claims, now)? else {
            return Ok(None);
        };
        let certificate = serde_json::to_value(AkCertificate::sign(&statement, self.0.identity()));
        certificate.map(Some).map_err(|e| Fault::new("writing an attestation key's certificate", e))
    }
}
