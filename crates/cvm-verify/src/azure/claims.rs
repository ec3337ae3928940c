//! What Azure's evidence proved.

use serde_json::{Value, json};

use crate::quote::QuoteClaims;

/// Where Trustee's attesters extend the hash of the initialisation data.
const INIT_DATA_PCR: u32 = 8;

/// The claims of a hardware report (`H`) that was verified, and those of the vTPM that it binds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AzureClaims<H> {
    /// The hardware's.
    pub hardware: H,
    /// The vTPM's.
    pub vtpm: VtpmClaims,
}

/// What the vTPM and its paravisor say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VtpmClaims {
    /// The vTPM's quote.
    pub quote: QuoteClaims,
    /// What the guest wrote before it asked for the report, zero-padded to 64 bytes.
    pub user_data: Option<Vec<u8>>,
    /// The VM's configuration, as the paravisor states it.
    pub vm_configuration: Value,
}

impl VtpmClaims {
    /// The claims as Trustee lays them out: the hardware's (an object), with `tpm`, `report_data`
    /// (the nonce) and `init_data` (PCR 8) of the vTPM in place of the hardware's.
    pub fn beside(&self, hardware: Value) -> Value {
        let mut claims = if hardware.is_object() { hardware } else { json!({}) };
        let mut tpm = self.quote.members();
        // The paravisor runs this vTPM inside the confidential VM.
        tpm["trust"] = json!("hardware-bound");
        claims["tpm"] = tpm;
        claims["report_data"] = json!(hex::encode(&self.quote.nonce));
        if let Some(init_data) = self.quote.pcrs.get(&INIT_DATA_PCR) {
            claims["init_data"] = json!(init_data);
        }
        claims["runtime"] = json!({
            "user_data": self.user_data.as_ref().map(hex::encode),
            "vm_configuration": self.vm_configuration,
        });
        claims
    }
}
