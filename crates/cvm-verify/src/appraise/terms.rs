//! What evidence is judged by.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::{
    gpu::GpuPolicy,
    quote::TpmPolicy,
    snp::SnpPolicy,
    tdx::{SgxPolicy, TdxPolicy},
};

/// What evidence is judged by.
#[derive(Debug, Default)]
pub struct Terms {
    /// What every piece must be bound to, as people type it: hex, or a text's own bytes.
    pub nonce: Option<String>,
    /// PEM or DER certificates to trust instead of the vendors' own.
    pub roots: Option<Vec<u8>>,
    /// Files of token keys to trust: JWKS, or PEM public keys.
    pub keys: Vec<Vec<u8>>,
    /// Whose tokens are believed.
    pub issuer: Option<String>,
    /// What may come with the evidence, where it is not given here.
    pub enclosed: Enclosed,
    /// Whom tokens must be meant for.
    pub audience: Option<String>,
    /// Each kind's own rules.
    pub rules: Rules,
    /// Seconds since 1970 UTC.
    pub now: u64,
}

/// What judges evidence, and may yet come with the evidence. By default nothing may:
/// whoever made it may have made that too. The claims' `not_checked` lists what is allowed here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Enclosed {
    /// A nonce, which then binds the pieces to each other and proves no freshness.
    pub nonce: bool,
    /// Token keys.
    pub keys: bool,
    /// The issuer that a token names.
    pub issuer: bool,
}

/// Each kind's own rules; what is not given has its safe default. JSON with unknown members is
/// refused.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// SEV-SNP.
    pub snp: SnpPolicy,
    /// TDX.
    pub tdx: TdxPolicy,
    /// SGX.
    pub sgx: SgxPolicy,
    /// TPM quotes; of Azure's vTPM as well.
    pub tpm: TpmPolicy,
    /// NVIDIA: whether golden values, a nonce and OCSP are required.
    pub gpu: GpuRules,
    /// Pieces that need not be understood, by name: a file's, or `FILE: MEMBER`. They are in
    /// `not_checked`.
    pub accept_unread: BTreeSet<String>,
}

impl Rules {
    /// Whether a piece may stay unread: by its whole name, or its last part.
    pub(super) fn accepts_unread(&self, of: &str) -> bool {
        let last = of.rsplit_once('/').map_or(of, |(_, last)| last);
        self.accept_unread.contains(of) || self.accept_unread.contains(last)
    }
}

/// [`GpuPolicy`] as a file gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GpuRules {
    /// Measurements must have been compared with NVIDIA's golden values.
    pub golden_values: bool,
    /// A nonce must have been expected.
    pub nonce: bool,
    /// Every certificate must have a good OCSP response.
    pub ocsp: bool,
    /// Opaque data of types that are not known here are accepted.
    pub unknown_fields: bool,
}

impl Default for GpuRules {
    fn default() -> Self {
        let GpuPolicy { golden_values, nonce, ocsp, unknown_fields, .. } = GpuPolicy::default();
        Self { golden_values, nonce, ocsp, unknown_fields }
    }
}

impl From<GpuRules> for GpuPolicy {
    fn from(rules: GpuRules) -> Self {
        let GpuRules { golden_values, nonce, ocsp, unknown_fields } = rules;
        Self { golden_values, nonce, ocsp, unknown_fields, ..Self::default() }
    }
}
