//! GPUs beside the CPU, in a token.
//!
//! Their evidence is the text of the release protocol's `additional_evidence`. The GPUs answer the
//! statement ([`Statement::device_digest`]); the CPU answers the statement with the digest of that
//! text. So neither can be moved into another token.
//!
//! Where the image requires GPUs, a token without one is refused, whatever a policy says. With what
//! NVIDIA published for them at hand, a GPU whose measurements differ is refused too; without it
//! the claims say that nothing was compared, and the policy decides.
//!
//! [`Statement::device_digest`]: crate::token::Statement::device_digest

use cvm_base::sha256;
use cvm_collateral::tee::{Submodule, TeeError, Vendors};
use cvm_layout::manifest::Manifest;
use cvm_verify::gpu::GpuError;
use serde_json::{Map, Value, json};

use crate::{error::AgentRefusal, evidence::status, token::Token};

/// The devices as a policy reads them: `gpu0`, `gpu1`, `switch0`, each an attester's claims.
pub(crate) fn verify(
    token: &Token,
    manifest: &Manifest,
    vendors: &Vendors,
    now: u64,
) -> Result<Map<String, Value>, AgentRefusal> {
    let text = token.additional_evidence.as_deref();
    if text.map(|text| sha256(text.as_bytes())) != token.statement.additional_evidence_sha256 {
        return Err(AgentRefusal::malformed(
            "its additional evidence is not what the CPU's evidence is bound to",
        ));
    }
    let digest = token.statement.device_digest();
    let devices = text.map(|text| vendors.verify_devices(text, &digest, now)).transpose();
    let devices = devices.map_err(|e| AgentRefusal::evidence(&e))?.unwrap_or_default();
    let of_each = devices.into_iter().map(|Submodule { name, kind, claims }| {
        let status = status(claims.incomplete);
        let claims = json!({ kind: claims.claims });
        (name, json!({ "ear.status": status, "ear.veraison.annotated-evidence": claims }))
    });
    let submods: Map<_, _> = of_each.collect();
    if manifest.gpu.is_some() && !submods.keys().any(|name| name.starts_with("gpu")) {
        let none = GpuError::Topology {
            problem: "the image requires GPUs, and the token shows none".into(),
        };
        return Err(AgentRefusal::evidence(&TeeError::from(none)));
    }
    Ok(submods)
}
