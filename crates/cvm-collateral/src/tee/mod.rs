//! Evidence of a TEE in the release protocol: SEV-SNP, TDX, and both behind Azure's vTPM.
//!
//! [`Vendors`] knows whom to believe and what they published; [`Vendors::verify`] takes a stock
//! attester's evidence body and the session's digest to [`TeeClaims`], laid out as Trustee does.
//! [`phase`] compares claims with an image's [`cvm_evidence::Reference`]. Whatever collateral neither the
//! evidence nor the local cache holds stands in the claims' `not_checked`; nothing is fetched.
//! Evidence may bring a whole cache along (its member `collateral`, which a site puts on its p1):
//! one that a collector signed who is trusted here.
//!
//! [`Vendors::verify_devices`] does the same for the GPUs beside a CPU.
//!
//! Some guests are nobody's secret keepers, whatever a policy says: those that the host may read
//! (debug mode), that may move to another platform, or whose report was asked for from another VMPL
//! than the boot's 0. They are refused here.

mod devices;
mod error;
mod published;

use std::collections::BTreeSet;

use cvm_base::sha256;
use serde::Deserialize;
use serde_json::{Value, json};

pub use self::{
    devices::{MAX_ADDITIONAL_BYTES, Submodule, check_gpus},
    error::TeeError,
};

use ed25519_dalek::VerifyingKey;
use published::Published;

use crate::Cache;
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

/// The kinds of evidence that are verified here, as the protocol names them.
pub const KINDS: [&str; 4] = ["snp", "tdx", "az-snp-vtpm", "az-tdx-vtpm"];

/// Whom to believe, and what they published.
#[derive(Debug, Clone)]
pub struct Vendors {
    snp: SnpRoots,
    intel: Vec<Certificate>,
    gpu: gpu::Roots,
    /// What is at hand here.
    collateral: Option<Cache>,
    /// Whose caches are believed, where they travel in evidence.
    collectors: Vec<VerifyingKey>,
}

/// What genuine evidence says.
#[derive(Debug, Clone, PartialEq)]
pub struct TeeClaims {
    /// The content of the kind's member in the annotated evidence.
    pub claims: Value,
    /// Checks were left out: see the claims' `not_checked`.
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

    /// Others, and nobody who makes GPUs: for tests, and for who runs an authority of their own.
    pub fn new(snp: SnpRoots, intel: Vec<Certificate>) -> Self {
        Self { snp, intel, gpu: gpu::Roots::default(), collateral: None, collectors: Vec::new() }
    }

    /// With who makes GPUs.
    #[must_use]
    pub fn with_gpus(self, gpu: gpu::Roots) -> Self {
        Self { gpu, ..self }
    }

    /// With a cache of what they published.
    #[must_use]
    pub fn with_collateral(self, cache: Cache) -> Self {
        Self { collateral: Some(cache), ..self }
    }

    /// And with the caches of these collectors that travel in evidence, its member `collateral`.
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
        let published = self.published(body);
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

    /// Verifies a bare SEV-SNP report, which answers nothing that is known here: its data are the
    /// caller's to judge, and `policy` says which guests will do. Also gives the certificate (DER)
    /// of the VCEK or VLEK that vouches for it.
    ///
    /// # Errors
    /// [`TeeError`], for the first check that fails.
    pub fn verify_report(
        &self,
        evidence: SnpEvidence,
        policy: &SnpPolicy,
        now: u64,
    ) -> Result<(TeeClaims, Vec<u8>), TeeError> {
        let (claims, endorsement) =
            self.snp_report(evidence, None, &self.published(&Value::Null), now)?;
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
        // Who asks here compares RTMR0, which covers the tables, by [`phase`].
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
    fn new(mut claims: Value) -> Self {
        let missing =
            |claims: &Value| claims.get("not_checked").is_some_and(|list| *list != json!([]));
        let incomplete = missing(&claims) || claims.get("tpm").is_some_and(missing);
        // In contrast to a TPM that the host runs: the vendor of the processor stands for it.
        claims["trust"] = json!("tee");
        Self { claims, incomplete }
    }
}

/// Whatever else a policy accepts.
fn snp_floor() -> SnpPolicy {
    SnpPolicy { max_vmpl: 0, ..SnpPolicy::default() }
}

/// As above. What Intel's status of a platform means is the policy's to say, but for a revoked one.
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

fn json(value: Result<Value, serde_json::Error>) -> Result<Value, TeeError> {
    value.map_err(|e| TeeError::Body { tee: "claims", problem: e.to_string() })
}
