//! Evidence of a TEE in the release protocol: SEV-SNP, TDX, and both behind Azure's vTPM.
//!
//! [`Vendors`] knows whom to believe and what they published; [`Vendors::verify`] takes a stock attester's evidence
//! body and the session's digest to [`TeeClaims`], laid out as Trustee does. [`phase`] compares claims with an
//! image's [`crate::Reference`]. Whatever collateral neither the evidence nor the local cache holds stands in the
//! claims' `not_checked`; nothing is fetched.
//!
//! Some guests are nobody's secret keepers, whatever a policy says: those that the host may read (debug mode), that
//! may move to another platform, or whose report was asked for from another VMPL than the boot's 0. They are
//! refused here.

mod error;
mod measured;

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Value, json};

pub use self::{error::TeeError, measured::phase};

#[cfg(feature = "collateral")]
use crate::collateral::{Cache, Key};
use crate::{
    azure::{AzureBound, AzureEvidence, HardwareKind},
    snp::{self, SnpEvidence, SnpExpected, SnpPolicy, SnpRoots},
    tdx::{self, Collateral, DcapVerifier, TcbStatus, TdxEvidence, TdxPolicy},
    tpm::quote::TpmPolicy,
    trustee::{TdxBody, report_data},
    x509::Certificate,
};

/// The kinds of evidence that are verified here, as the protocol names them.
pub const KINDS: [&str; 4] = ["snp", "tdx", "az-snp-vtpm", "az-tdx-vtpm"];

/// Whom to believe, and what they published.
#[derive(Debug, Clone)]
pub struct Vendors {
    snp: SnpRoots,
    intel: Vec<Certificate>,
    #[cfg(feature = "collateral")]
    collateral: Option<Cache>,
}

/// What genuine evidence says.
#[derive(Debug, Clone, PartialEq)]
pub struct TeeClaims {
    /// The content of the kind's member in the annotated evidence.
    pub claims: Value,
    /// Checks were left out: see the claims' `not_checked`.
    pub incomplete: bool,
}

/// What vouches for evidence of one platform.
#[derive(Default)]
struct Published {
    certificates: Vec<Certificate>,
    crls: Vec<Vec<u8>>,
}

impl Vendors {
    /// AMD and Intel, by the roots that are built in.
    ///
    /// # Errors
    /// Never in a sound build; a test reads them.
    pub fn genuine() -> Result<Self, TeeError> {
        Ok(Self::new(SnpRoots::amd()?.clone(), tdx::intel_roots()?))
    }

    /// Others: for tests, and for who runs an authority of their own.
    pub fn new(snp: SnpRoots, intel: Vec<Certificate>) -> Self {
        Self {
            snp,
            intel,
            #[cfg(feature = "collateral")]
            collateral: None,
        }
    }

    /// With a cache of what they published.
    #[cfg(feature = "collateral")]
    #[must_use]
    pub fn with_collateral(self, cache: Cache) -> Self {
        Self { collateral: Some(cache), ..self }
    }

    /// Verifies the protocol's `primary_evidence` of the kind that `auth` named as `tee`, bound to `binding`, at
    /// `now` (seconds since 1970 UTC).
    ///
    /// # Errors
    /// [`TeeError`], for the first check that fails.
    pub fn verify(&self, tee: &str, body: &Value, binding: &[u8; 48], now: u64) -> Result<TeeClaims, TeeError> {
        match tee {
            "snp" => self.snp(body, binding, now),
            "tdx" => self.tdx(body, binding, now),
            "az-snp-vtpm" => self.azure(HardwareKind::Snp, body, binding, now),
            "az-tdx-vtpm" => self.azure(HardwareKind::Tdx, body, binding, now),
            other => Err(TeeError::Kind { found: other.chars().take(40).collect() }),
        }
    }

    fn snp(&self, body: &Value, binding: &[u8; 48], now: u64) -> Result<TeeClaims, TeeError> {
        let mut evidence = SnpEvidence::from_kbs(body)?;
        let published = self.published_by_amd(evidence.report.signed(), evidence.is_endorsed(), now);
        evidence.certificates.extend(published.certificates);
        let report_data = report_data(binding);
        let expected = SnpExpected { report_data: Some(&report_data), host_data: None };
        let claims = snp::verify(&evidence, &self.snp, &published.crls, &expected, now)?;
        snp_floor().check(&claims)?;
        TeeClaims::new(serde_json::to_value(&claims))
    }

    fn tdx(&self, body: &Value, binding: &[u8; 48], now: u64) -> Result<TeeClaims, TeeError> {
        let TdxBody { cc_eventlog, quote } =
            TdxBody::deserialize(body).map_err(|e| TeeError::Body { tee: "tdx", problem: e.to_string() })?;
        let evidence = TdxEvidence::parse(quote.as_ref(), cc_eventlog.as_ref().map(AsRef::as_ref))?;
        let verifier = self.dcap(quote.as_ref(), now)?;
        let claims = verifier.verify(&evidence, Some(&report_data(binding)), now)?;
        tdx_floor().check(&claims)?;
        TeeClaims::new(serde_json::to_value(&claims))
    }

    fn azure(&self, kind: HardwareKind, body: &Value, binding: &[u8; 48], now: u64) -> Result<TeeClaims, TeeError> {
        let evidence = AzureEvidence::from_json(kind, body)?;
        let bound = evidence.check_binding(binding, &TpmPolicy::default())?;
        let hardware = match kind {
            HardwareKind::Snp => self.azure_snp(&bound, now)?,
            HardwareKind::Tdx => self.azure_tdx(&bound, now)?,
        };
        TeeClaims::new(Ok(bound.claims(hardware)))
    }

    fn azure_snp(&self, bound: &AzureBound<'_>, now: u64) -> Result<Value, TeeError> {
        let published = self.published_by_amd(bound.hardware_report, bound.vcek.is_some(), now);
        let claims = bound.verify_snp(&published.certificates, &self.snp, &published.crls, now)?;
        snp_floor().check(&claims)?;
        json(serde_json::to_value(&claims))
    }

    fn azure_tdx(&self, bound: &AzureBound<'_>, now: u64) -> Result<Value, TeeError> {
        let evidence = TdxEvidence::parse(bound.hardware_report, None)?;
        let verifier = self.dcap(bound.hardware_report, now)?;
        let claims = verifier.verify(&evidence, Some(&bound.expected_report_data()), now)?;
        // Azure's paravisor handles #VE itself.
        TdxPolicy { require_septve_disable: false, ..tdx_floor() }.check(&claims)?;
        json(serde_json::to_value(&claims))
    }

    /// What the cache holds for a report: revocation lists, and the chip's certificate where none came with it.
    #[cfg(feature = "collateral")]
    fn published_by_amd(&self, report: &[u8], endorsed: bool, now: u64) -> Published {
        let mut found = Published::default();
        for piece in self.collateral.iter().flat_map(|cache| cache.for_snp_report(report, now)) {
            match piece.entry.key {
                Key::Vcek { .. } | Key::Vlek { .. } if !endorsed => {
                    found.certificates.extend(Certificate::from_der(piece.bytes).ok());
                }
                Key::AmdCrl(..) => found.crls.push(piece.bytes.to_vec()),
                _ => {}
            }
        }
        found
    }

    #[cfg(not(feature = "collateral"))]
    fn published_by_amd(&self, _: &[u8], _: bool, _: u64) -> Published {
        Published::default()
    }

    /// Intel's roots, and the collateral for the quote's platform if there is any.
    fn dcap(&self, quote: &[u8], now: u64) -> Result<DcapVerifier, TeeError> {
        let collateral = self.published_by_intel(quote, now).map(|json| Collateral::parse(&json)).transpose()?;
        Ok(DcapVerifier::new(self.intel.clone(), collateral.as_ref(), now)?)
    }

    #[cfg(feature = "collateral")]
    fn published_by_intel(&self, quote: &[u8], now: u64) -> Option<Vec<u8>> {
        Some(self.collateral.as_ref()?.for_quote(quote, now)?.bytes.to_vec())
    }

    #[cfg(not(feature = "collateral"))]
    fn published_by_intel(&self, _: &[u8], _: u64) -> Option<Vec<u8>> {
        None
    }
}

impl TeeClaims {
    fn new(claims: Result<Value, serde_json::Error>) -> Result<Self, TeeError> {
        let mut claims = json(claims)?;
        let missing = |claims: &Value| claims.get("not_checked").is_some_and(|list| *list != json!([]));
        let incomplete = missing(&claims) || claims.get("tpm").is_some_and(missing);
        // In contrast to a TPM that the host runs: the vendor of the processor stands for it.
        claims["trust"] = json!("tee");
        Ok(Self { claims, incomplete })
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
