//! What of a genuine quote is acceptable.

use std::collections::BTreeSet;

use cvm_base::Bytes;
use serde::{Deserialize, Serialize};

use super::{PlatformClaims, SgxClaims, TcbStatus, TdxClaims, TdxError};
use cvm_evidence::rtmr::Bytes48;

/// Extended CPU state that a TD may use: everything the architecture defines (XCR0 and IA32_XSS
/// bits 0 to 2, 5 to 9, 11, 12, 14, 15, 17 to 19).
const KNOWN_XFAM: u64 = 0x000e_dbe7;
/// x87 and SSE: always on.
const FIXED_XFAM: u64 = 0x3;

/// A policy about TDs. The default accepts what is safe for everybody: no debugging, profiling or
/// migration, no service TDs, an up-to-date platform, `SEPT_VE_DISABLE` set; it demands no
/// measurements, which it cannot know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TdxPolicy {
    /// A TD that the host can read. Never for secrets.
    pub allow_debug: bool,
    /// A TD that the host may profile.
    pub allow_profiling: bool,
    /// A TD that may move to another platform.
    pub allow_migration: bool,
    /// A TD to which service TDs are bound.
    pub allow_service_td: bool,
    /// `SEPT_VE_DISABLE` must be set; without it, a guest must be hardened against the host's #VE
    /// injection. A paravisor is (Azure's has it clear).
    pub require_septve_disable: bool,
    /// A TD with attributes, or CPU state in its XFAM, that the ABI known here reserves.
    pub allow_unknown_features: bool,
    /// Statuses that are acceptable. `SWHardeningNeeded` is not among the default ones: only who
    /// knows the software can say that it holds the mitigations.
    pub tcb_statuses: BTreeSet<TcbStatus>,
    /// Accept a quote without collateral, whose status nobody knows.
    pub allow_unknown_tcb: bool,
    /// If given, no other advisory may apply.
    pub accepted_advisories: Option<BTreeSet<String>>,
    /// Advisories that may not apply.
    pub rejected_advisories: BTreeSet<String>,
    /// The least TCB evaluation data number: how recent a TCB recovery the collateral must know.
    pub min_tcb_evaluation_data_number: Option<u32>,
    /// The TDX module's signer; zero is Intel.
    pub mr_signer_seam: Bytes48,
    /// Every byte of TEE_TCB_SVN (and of TEE_TCB_SVN2) must be at least this.
    pub min_tee_tcb_svn: Option<Bytes<16>>,
    /// Acceptable MRTDs.
    pub mr_td: Option<BTreeSet<Bytes48>>,
    /// Acceptable values of RTMR0 to RTMR3.
    pub rtmrs: [Option<BTreeSet<Bytes48>>; 4],
    /// Acceptable MRCONFIGIDs.
    pub mr_config_id: Option<BTreeSet<Bytes48>>,
    /// Acceptable MROWNERs.
    pub mr_owner: Option<BTreeSet<Bytes48>>,
    /// Acceptable MROWNERCONFIGs.
    pub mr_owner_config: Option<BTreeSet<Bytes48>>,
}

impl Default for TdxPolicy {
    fn default() -> Self {
        Self {
            allow_debug: false,
            allow_profiling: false,
            allow_migration: false,
            allow_service_td: false,
            require_septve_disable: true,
            allow_unknown_features: false,
            tcb_statuses: BTreeSet::from([TcbStatus::UpToDate]),
            allow_unknown_tcb: false,
            accepted_advisories: None,
            rejected_advisories: BTreeSet::new(),
            min_tcb_evaluation_data_number: None,
            mr_signer_seam: Bytes([0; 48]),
            min_tee_tcb_svn: None,
            mr_td: None,
            rtmrs: [const { None }; 4],
            mr_config_id: None,
            mr_owner: None,
            mr_owner_config: None,
        }
    }
}

impl TdxPolicy {
    /// Holds claims against the policy.
    ///
    /// # Errors
    /// [`TdxError::Status`], [`TdxError::NoCollateral`], [`TdxError::Policy`], for the first rule
    /// that refuses.
    pub fn check(&self, claims: &TdxClaims) -> Result<(), TdxError> {
        self.check_attributes(claims)?;
        self.check_tcb(claims)?;
        self.check_measurements(claims)
    }

    fn check_attributes(&self, claims: &TdxClaims) -> Result<(), TdxError> {
        let (attributes, body) = (&claims.td_attributes, &claims.quote.body);
        let bound = body.mr_servicetd.is_some_and(|hash| hash != Bytes([0; 48]));
        let rules = [
            (
                attributes.debug && !self.allow_debug,
                "debug mode is enabled: the host can read the TD",
            ),
            (attributes.profiling && !self.allow_profiling, "the host may profile the TD"),
            (attributes.migratable && !self.allow_migration, "the TD may move to another platform"),
            (
                (attributes.servtd_ext || bound) && !self.allow_service_td,
                "service TDs are bound to the TD",
            ),
            (
                !attributes.septve_disable && self.require_septve_disable,
                "SEPT_VE_DISABLE is not set",
            ),
        ];
        if let Some((_, problem)) = rules.iter().find(|(broken, _)| *broken) {
            return Err(refuse(*problem));
        }
        if let Some(unknown) = attributes.unknown.filter(|_| !self.allow_unknown_features) {
            let whole = body.td_attributes;
            return Err(refuse(format!(
                "the attributes are {whole}; the bits {unknown} are not known here"
            )));
        }
        let xfam = u64::from_le_bytes(body.xfam.0);
        if xfam & FIXED_XFAM != FIXED_XFAM {
            return Err(refuse(format!(
                "XFAM is {}, which no TD can have: x87 and SSE are always on",
                body.xfam
            )));
        }
        if xfam & !KNOWN_XFAM != 0 && !self.allow_unknown_features {
            return Err(refuse(format!(
                "XFAM is {}, with CPU state that is not known here",
                body.xfam
            )));
        }
        Ok(())
    }

    fn check_tcb(&self, claims: &TdxClaims) -> Result<(), TdxError> {
        let (platform, body) = (&claims.platform, &claims.quote.body);
        PlatformRules::from(self).check(platform)?;
        if body.mrsigner_seam != self.mr_signer_seam {
            return Err(refuse(format!(
                "TDX module signed by {}, expected {}",
                body.mrsigner_seam, self.mr_signer_seam
            )));
        }
        if let Some(least) = self.min_tee_tcb_svn {
            for svn in [Some(body.tcb_svn), body.tee_tcb_svn2].into_iter().flatten() {
                if svn.0.iter().zip(least.0).any(|(have, need)| *have < need) {
                    return Err(refuse(format!(
                        "TEE TCB security version {svn}, at least {least} demanded"
                    )));
                }
            }
        }
        Ok(())
    }

    fn check_measurements(&self, claims: &TdxClaims) -> Result<(), TdxError> {
        let body = &claims.quote.body;
        let [rtmr0, rtmr1, rtmr2, rtmr3] = &self.rtmrs;
        for (name, found, accepted) in [
            ("MRTD", body.mr_td, &self.mr_td),
            ("RTMR0", body.rtmr_0, rtmr0),
            ("RTMR1", body.rtmr_1, rtmr1),
            ("RTMR2", body.rtmr_2, rtmr2),
            ("RTMR3", body.rtmr_3, rtmr3),
            ("MRCONFIGID", body.mr_config_id, &self.mr_config_id),
            ("MROWNER", body.mr_owner, &self.mr_owner),
            ("MROWNERCONFIG", body.mr_owner_config, &self.mr_owner_config),
        ] {
            if accepted.as_ref().is_some_and(|accepted| !accepted.contains(&found)) {
                return Err(refuse(format!(
                    "{name} is {found}, which is not among the accepted values"
                )));
            }
        }
        Ok(())
    }
}

/// A policy about SGX enclaves: Intel's word on their platform.
/// [`super::DcapVerifier::verify_sgx`] refuses an enclave in debug mode; the caller compares which
/// enclave it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SgxPolicy {
    /// As in [`TdxPolicy`].
    pub tcb_statuses: BTreeSet<TcbStatus>,
    /// As in [`TdxPolicy`].
    pub allow_unknown_tcb: bool,
    /// As in [`TdxPolicy`].
    pub accepted_advisories: Option<BTreeSet<String>>,
    /// As in [`TdxPolicy`].
    pub rejected_advisories: BTreeSet<String>,
    /// As in [`TdxPolicy`].
    pub min_tcb_evaluation_data_number: Option<u32>,
}

impl Default for SgxPolicy {
    fn default() -> Self {
        let TdxPolicy {
            tcb_statuses,
            allow_unknown_tcb,
            accepted_advisories,
            rejected_advisories,
            min_tcb_evaluation_data_number,
            ..
        } = TdxPolicy::default();
        Self {
            tcb_statuses,
            allow_unknown_tcb,
            accepted_advisories,
            rejected_advisories,
            min_tcb_evaluation_data_number,
        }
    }
}

impl SgxPolicy {
    /// Holds claims against the policy.
    ///
    /// # Errors
    /// [`TdxError::Status`], [`TdxError::Policy`], for the first rule that refuses.
    pub fn check(&self, claims: &SgxClaims) -> Result<(), TdxError> {
        PlatformRules::from(self).check(&claims.platform)
    }
}

/// What TDX and SGX have in common: Intel's word on the platform.
struct PlatformRules<'a> {
    statuses: &'a BTreeSet<TcbStatus>,
    allow_unknown: bool,
    accepted_advisories: Option<&'a BTreeSet<String>>,
    rejected_advisories: &'a BTreeSet<String>,
    min_evaluation: Option<u32>,
}

impl<'a> From<&'a TdxPolicy> for PlatformRules<'a> {
    fn from(policy: &'a TdxPolicy) -> Self {
        Self {
            statuses: &policy.tcb_statuses,
            allow_unknown: policy.allow_unknown_tcb,
            accepted_advisories: policy.accepted_advisories.as_ref(),
            rejected_advisories: &policy.rejected_advisories,
            min_evaluation: policy.min_tcb_evaluation_data_number,
        }
    }
}

impl<'a> From<&'a SgxPolicy> for PlatformRules<'a> {
    fn from(policy: &'a SgxPolicy) -> Self {
        Self {
            statuses: &policy.tcb_statuses,
            allow_unknown: policy.allow_unknown_tcb,
            accepted_advisories: policy.accepted_advisories.as_ref(),
            rejected_advisories: &policy.rejected_advisories,
            min_evaluation: policy.min_tcb_evaluation_data_number,
        }
    }
}

impl PlatformRules<'_> {
    fn check(&self, platform: &PlatformClaims) -> Result<(), TdxError> {
        match platform.tcb_status {
            Some(found) if !self.statuses.contains(&found) || found == TcbStatus::Revoked => {
                let advisories = match platform.advisory_ids.join(", ") {
                    none if none.is_empty() => "no advisories".into(),
                    some => some,
                };
                return Err(TdxError::Status { found, advisories });
            }
            None if !self.allow_unknown => {
                return Err(TdxError::NoCollateral { missing: "no collateral was given" });
            }
            _ => {}
        }
        let accepted = |id: &String| {
            !self.rejected_advisories.contains(id)
                && self.accepted_advisories.is_none_or(|set| set.contains(id))
        };
        if let Some(id) = platform.advisory_ids.iter().find(|id| !accepted(id)) {
            return Err(refuse(format!("advisory {id} applies to the platform")));
        }
        if let Some(least) = self.min_evaluation {
            match platform.tcb_eval_num {
                Some(found) if found >= least => {}
                found => {
                    let found = found.map_or("none".into(), |number| number.to_string());
                    return Err(refuse(format!(
                        "TCB evaluation data number {found}, at least {least} demanded"
                    )));
                }
            }
        }
        Ok(())
    }
}

fn refuse(problem: impl Into<String>) -> TdxError {
    TdxError::Policy { problem: problem.into() }
}
