//! What a site accepts of a device whose evidence is genuine.

use super::{Arch, ChainClaims, DeviceFacts, GpuClaims, GpuError, Measres, SwitchClaims};

/// What a site accepts of a GPU. The default wants all that can be checked offline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuPolicy {
    /// Measurements must have been compared with manifests.
    pub golden_values: bool,
    /// The report must answer the nonce of this session.
    pub nonce: bool,
    /// OCSP must call every certificate good.
    pub ocsp: bool,
    /// Opaque data of types that are not known here are accepted. NVIDIA's SDK accepts none.
    pub unknown_fields: bool,
    /// Only these architectures; empty for any that NVIDIA attests.
    pub arch: Vec<Arch>,
}

impl Default for GpuPolicy {
    fn default() -> Self {
        Self {
            golden_values: true,
            nonce: true,
            ocsp: false,
            unknown_fields: false,
            arch: Vec::new(),
        }
    }
}

impl GpuPolicy {
    /// Accepts or refuses a GPU.
    ///
    /// # Errors
    /// [`GpuError::Policy`] for the first rule that it breaks.
    pub fn check(&self, claims: &GpuClaims) -> Result<(), GpuError> {
        let chains = [
            Some(&claims.report.chain),
            claims.driver_rim.chain.as_ref(),
            claims.vbios_rim.chain.as_ref(),
        ];
        self.check_device(&claims.facts, claims.report.nonce_match, &chains)
    }

    /// Accepts or refuses a switch.
    ///
    /// # Errors
    /// [`GpuError::Policy`] for the first rule that it breaks.
    pub fn check_switch(&self, claims: &SwitchClaims) -> Result<(), GpuError> {
        let chains = [Some(&claims.report.chain), claims.bios_rim.chain.as_ref()];
        self.check_device(&claims.facts, claims.report.nonce_match, &chains)
    }

    fn check_device(
        &self,
        facts: &DeviceFacts,
        nonce: bool,
        chains: &[Option<&ChainClaims>],
    ) -> Result<(), GpuError> {
        let refuse = |problem: String| Err(GpuError::Policy { problem });
        if !self.arch.is_empty() && !self.arch.contains(&facts.arch) {
            return refuse(format!(
                "its architecture is {:?}, allowed are {:?}",
                facts.arch, self.arch
            ));
        }
        if !self.unknown_fields && !facts.unknown_fields.is_empty() {
            let fields = &facts.unknown_fields;
            return refuse(format!(
                "its report has opaque data of types that are not known here: {fields:?}"
            ));
        }
        if self.golden_values && facts.measres != Measres::Success {
            return refuse("its measurements were not compared with NVIDIA's golden values".into());
        }
        if self.nonce && !nonce {
            return refuse("no nonce was expected, so the report may be a replay".into());
        }
        if self.ocsp && !chains.iter().all(|chain| chain.is_some_and(ChainClaims::ocsp_good)) {
            return refuse("OCSP did not call every certificate good".into());
        }
        Ok(())
    }
}
