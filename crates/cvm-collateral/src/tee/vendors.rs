//! Whom to believe about a CPU, and their verdict on its evidence.

use std::collections::BTreeSet;

use cvm_base::sha256;
use ed25519_dalek::VerifyingKey;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{error::TeeError, published::Published};
use crate::cache::Cache;
use cvm_evidence::trustee::{TdxBody, report_data};
use cvm_verify::{
    acpi,
    azure::{AzureBound, AzureEvidence, HardwareKind},
    gpu,
    quote::TpmPolicy,
    snp::{self, SnpClaims, SnpEvidence, SnpExpected, SnpPolicy, SnpRoots},
    tdx::{self, Collateral, DcapVerifier, TcbStatus, TdxEvidence, TdxPolicy},
    x509::Certificate,
};

/// Whom to believe, and what they published.
#[derive(Debug, Clone)]
pub struct Vendors {
    snp: SnpRoots,
    intel: Vec<Certificate>,
    pub(super) gpu: gpu::Roots,
    /// The local cache.
    pub(super) collateral: Option<Cache>,
    /// Whose caches are believed, where they travel in evidence.
    collectors: Vec<VerifyingKey>,
}

/// The claims of genuine evidence.
#[derive(Debug, Clone, PartialEq)]
pub struct TeeClaims {
    /// The content of the kind's member in the annotated evidence.
    pub claims: Value,
    /// Whether checks were left out: see the claims' `not_checked`.
    pub incomplete: bool,
}

impl Vendors {
    /// AMD, Intel and NVIDIA, by the roots that are built in.
    ///
    /// # Errors
    /// Never in a sound build; a test reads them.
    pub fn genuine() -> Result<Self, TeeError> {
        Ok(Self::new(SnpRoots::amd()?.clone(), tdx::intel_roots()?)
            .with_gpus(gpu::Roots::nvidia()?))
    }

    /// Other roots, and none for GPUs: for tests, and for an authority of one's own.
    pub fn new(snp: SnpRoots, intel: Vec<Certificate>) -> Self {
        Self { snp, intel, gpu: gpu::Roots::default(), collateral: None, collectors: Vec::new() }
    }

    /// Adds whom to believe about GPUs.
    #[must_use]
    pub fn with_gpus(self, gpu: gpu::Roots) -> Self {
        Self { gpu, ..self }
    }

    /// Adds a cache of what they published.
    #[must_use]
    pub fn with_collateral(self, cache: Cache) -> Self {
        Self { collateral: Some(cache), ..self }
    }

    /// Believes caches of these collectors that travel in evidence, as its member `collateral`.
    #[must_use]
    pub fn with_collectors(self, collectors: Vec<VerifyingKey>) -> Self {
        Self { collectors, ..self }
    }

    /// Verifies the protocol's `primary_evidence` of the kind that `auth` named as `tee`, bound to
    /// `binding`, at `now` (seconds since 1970 UTC).
    ///
    /// # Errors
    /// [`TeeError`], for the first check that fails.
    pub fn verify(
        &self,
        tee: &str,
        body: &Value,
        binding: &[u8; 48],
        now: u64,
    ) -> Result<TeeClaims, TeeError> {
        let published = Published::new(self.collateral.as_ref(), &self.collectors, body);
        let claims = match tee {
            "snp" => self.snp(body, binding, &published, now),
            "tdx" => self.tdx(body, binding, &published, now),
            "az-snp-vtpm" => self.azure(HardwareKind::Snp, body, binding, &published, now),
            "az-tdx-vtpm" => self.azure(HardwareKind::Tdx, body, binding, &published, now),
            other => return Err(TeeError::Kind { found: other.chars().take(40).collect() }),
        };
        let mut claims = claims?;
        published.note_in(&mut claims);
        Ok(TeeClaims::new(claims))
    }

    fn snp(
        &self,
        body: &Value,
        binding: &[u8; 48],
        published: &Published<'_>,
        now: u64,
    ) -> Result<Value, TeeError> {
        let report_data = report_data(binding);
        let (claims, _) =
            self.snp_report(SnpEvidence::from_kbs(body)?, Some(&report_data), published, now)?;
        snp_floor().check(&claims)?;
        json(serde_json::to_value(&claims))
    }

    /// Verifies a bare SEV-SNP report. The caller must judge its report data; `policy` says which
    /// guests are good enough. Also returns the certificate (DER) of the VCEK or VLEK that vouches
    /// for it.
    ///
    /// # Errors
    /// [`TeeError`], for the first check that fails.
    pub fn verify_report(
        &self,
        evidence: SnpEvidence,
        policy: &SnpPolicy,
        now: u64,
    ) -> Result<(TeeClaims, Vec<u8>), TeeError> {
        let (claims, endorsement) = self.snp_report(
            evidence,
            None,
            &Published::new(self.collateral.as_ref(), &[], &Value::Null),
            now,
        )?;
        policy.check(&claims)?;
        Ok((TeeClaims::new(json(serde_json::to_value(&claims))?), endorsement))
    }

    fn snp_report(
        &self,
        mut evidence: SnpEvidence,
        report_data: Option<&[u8; 64]>,
        published: &Published<'_>,
        now: u64,
    ) -> Result<(SnpClaims, Vec<u8>), TeeError> {
        let found = published.by_amd(evidence.report.signed(), evidence.is_endorsed(), now);
        evidence.certificates.extend(found.certificates);
        let expected = SnpExpected { report_data, host_data: None };
        let claims = snp::verify(&evidence, &self.snp, &found.crls, &expected, now)?;
        let vouches =
            |certificate: &&Certificate| sha256(certificate.der()) == claims.certificate_sha256;
        let endorsement = evidence
            .certificates
            .iter()
            .find(vouches)
            .map(|certificate| certificate.der().to_vec());
        Ok((claims, endorsement.unwrap_or_default()))
    }

    fn tdx(
        &self,
        body: &Value,
        binding: &[u8; 48],
        published: &Published<'_>,
        now: u64,
    ) -> Result<Value, TeeError> {
        let TdxBody { cc_eventlog, quote } = TdxBody::deserialize(body)
            .map_err(|e| TeeError::Body { tee: "tdx", problem: e.to_string() })?;
        let evidence = TdxEvidence::parse(quote.as_ref(), cc_eventlog.as_ref().map(AsRef::as_ref))?;
        let verifier = self.dcap(quote.as_ref(), published, now)?;
        let mut claims = verifier.verify(&evidence, Some(&report_data(binding)), now)?;
        tdx_floor().check(&claims)?;
        // Callers compare RTMR0, which covers the tables: `cvm_verify::measured::phase`.
        acpi::compared(&mut claims.not_checked);
        json(serde_json::to_value(&claims))
    }

    fn azure(
        &self,
        kind: HardwareKind,
        body: &Value,
        binding: &[u8; 48],
        published: &Published<'_>,
        now: u64,
    ) -> Result<Value, TeeError> {
        let evidence = AzureEvidence::from_json(kind, body)?;
        let bound = evidence.check_binding(binding, &TpmPolicy::default())?;
        let hardware = match kind {
            HardwareKind::Snp => self.azure_snp(&bound, published, now)?,
            HardwareKind::Tdx => self.azure_tdx(&bound, published, now)?,
        };
        Ok(bound.claims(hardware))
    }

    fn azure_snp(
        &self,
        bound: &AzureBound<'_>,
        published: &Published<'_>,
        now: u64,
    ) -> Result<Value, TeeError> {
        let found = published.by_amd(bound.hardware_report, bound.vcek.is_some(), now);
        let claims = bound.verify_snp(&found.certificates, &self.snp, &found.crls, now)?;
        snp_floor().check(&claims)?;
        json(serde_json::to_value(&claims))
    }

    fn azure_tdx(
        &self,
        bound: &AzureBound<'_>,
        published: &Published<'_>,
        now: u64,
    ) -> Result<Value, TeeError> {
        let evidence = TdxEvidence::parse(bound.hardware_report, None)?;
        let verifier = self.dcap(bound.hardware_report, published, now)?;
        let claims = verifier.verify(&evidence, Some(&bound.expected_report_data()), now)?;
        // Azure's paravisor handles #VE itself.
        TdxPolicy { require_septve_disable: false, ..tdx_floor() }.check(&claims)?;
        json(serde_json::to_value(&claims))
    }

    /// Intel's roots, and the collateral for the quote's platform if there is any.
    fn dcap(
        &self,
        quote: &[u8],
        published: &Published<'_>,
        now: u64,
    ) -> Result<DcapVerifier, TeeError> {
        let collateral = published
            .by_intel(quote, now)
            .map(|found| Collateral::parse(found.bytes))
            .transpose()?;
        Ok(DcapVerifier::new(self.intel.clone(), collateral.as_ref(), now)?)
    }
}

impl TeeClaims {
    pub(super) fn new(mut claims: Value) -> Self {
        let missing =
            |claims: &Value| claims.get("not_checked").is_some_and(|list| *list != json!([]));
        let incomplete = missing(&claims) || claims.get("tpm").is_some_and(missing);
        // In contrast to a TPM that the host runs: the processor's vendor vouches for it.
        claims["trust"] = json!("tee");
        Self { claims, incomplete }
    }
}

/// What every SNP guest must be, whatever else a policy accepts.
fn snp_floor() -> SnpPolicy {
    SnpPolicy { max_vmpl: 0, ..SnpPolicy::default() }
}

/// The same for a TD. The policy judges Intel's status of a platform, except for a revoked one.
fn tdx_floor() -> TdxPolicy {
    use TcbStatus::*;
    TdxPolicy {
        tcb_statuses: BTreeSet::from([
            UpToDate,
            SWHardeningNeeded,
            ConfigurationNeeded,
            ConfigurationAndSWHardeningNeeded,
            OutOfDate,
            OutOfDateConfigurationNeeded,
            TDRelaunchAdvised,
            TDRelaunchAdvisedConfigurationNeeded,
        ]),
        allow_unknown_tcb: true,
        ..TdxPolicy::default()
    }
}

/// A claim as JSON.
pub(super) fn json(value: Result<Value, serde_json::Error>) -> Result<Value, TeeError> {
    value.map_err(|e| TeeError::Body { tee: "claims", problem: e.to_string() })
}
