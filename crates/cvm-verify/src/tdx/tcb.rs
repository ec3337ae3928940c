//! TCB info, and how a platform is matched against it (Intel PCS API v4; DCAP Quote Verification
//! Library, "TCB level selection"; Intel TDX DCAP, §4.1 on TDX module identities).

use cvm_base::Bytes;
use serde::Deserialize;

use super::{TcbStatus, TdxError, pck::PckExtension, quote::TdReport, time::Timestamp};
use cvm_evidence::rtmr::Bytes48;

/// What collateral says about one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) status: TcbStatus,
    /// TDX 1.5: the status of the TCB that runs now; `status` is that of the TD's launch.
    pub(super) current: Option<TcbStatus>,
    pub(super) advisory_ids: Vec<String>,
    pub(super) tcb_date: Timestamp,
}

/// TCB info, version 3.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TcbInfo {
    pub(super) id: String,
    version: u32,
    pub(super) issue_date: Timestamp,
    pub(super) next_update: Timestamp,
    #[serde(with = "any_hex")]
    fmspc: Bytes<6>,
    #[serde(with = "any_hex")]
    pce_id: Bytes<2>,
    tcb_type: u32,
    pub(super) tcb_evaluation_data_number: u32,
    tdx_module: Option<TdxModule>,
    #[serde(default)]
    tdx_module_identities: Vec<TdxModuleIdentity>,
    tcb_levels: Vec<Level<Tcb>>,
}

/// A set of security versions, and what it means to have at least these.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Level<T> {
    tcb: T,
    tcb_date: Timestamp,
    pub(super) tcb_status: TcbStatus,
    #[serde(rename = "advisoryIDs", default)]
    advisory_ids: Vec<String>,
}

// The order of the fields is the order in which levels are compared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct Tcb {
    sgxtcbcomponents: [Component; 16],
    pcesvn: u16,
    tdxtcbcomponents: Option<[Component; 16]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct Component {
    svn: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TdxModule {
    #[serde(with = "any_hex")]
    mrsigner: Bytes48,
    #[serde(with = "any_hex")]
    attributes: Bytes<8>,
    #[serde(with = "any_hex")]
    attributes_mask: Bytes<8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TdxModuleIdentity {
    id: String,
    #[serde(flatten)]
    module: TdxModule,
    tcb_levels: Vec<Level<Isvsvn>>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) struct Isvsvn {
    isvsvn: u16,
}

impl TcbInfo {
    /// Reads TCB info whose signature was checked.
    pub(super) fn parse(json: &str) -> Result<Self, TdxError> {
        let fail = |problem: String| TdxError::collateral(format!("TCB info: {problem}"));
        let mut info: Self = serde_json::from_str(json).map_err(|e| fail(e.to_string()))?;
        if info.version != 3 || info.tcb_type != 0 || !matches!(&*info.id, "TDX" | "SGX") {
            let found = format!("{:?} version {} type {}", info.id, info.version, info.tcb_type);
            return Err(fail(format!("{found}, expected TDX or SGX version 3 type 0")));
        }
        let without_components = |level: &Level<Tcb>| level.tcb.tdxtcbcomponents.is_none();
        if info.id == "TDX"
            && (info.tdx_module.is_none() || info.tcb_levels.iter().any(without_components))
        {
            return Err(fail("no TDX module, or a level without TDX components".into()));
        }
        use TcbStatus::{TDRelaunchAdvised, TDRelaunchAdvisedConfigurationNeeded};
        let computed =
            |status| matches!(status, TDRelaunchAdvised | TDRelaunchAdvisedConfigurationNeeded);
        if info.tcb_levels.iter().any(|level| computed(level.tcb_status)) {
            return Err(fail("a status that only a verifier computes".into()));
        }
        // The first level that a platform reaches is its level; Intel's library sorts them too.
        info.tcb_levels.sort_by(|a, b| b.tcb.cmp(&a.tcb));
        for identity in &mut info.tdx_module_identities {
            check_component_levels(&mut identity.tcb_levels, &fail)?;
        }
        Ok(info)
    }

    /// What it says about a TD: at launch, and for TDX 1.5 now.
    pub(super) fn td(&self, pck: &PckExtension, td: &TdReport) -> Result<Verdict, TdxError> {
        self.check_platform(pck, "TDX")?;
        let launch = self.td_level(pck, &td.tcb_svn.0)?;
        self.check_module(td)?;
        let current = td.tee_tcb_svn2.map(|svn| self.td_level(pck, &svn.0)).transpose()?;
        Ok(Verdict { current: current.map(|verdict| verdict.status), ..launch })
    }

    /// What it says about an SGX platform.
    pub(super) fn sgx(&self, pck: &PckExtension) -> Result<Verdict, TdxError> {
        self.check_platform(pck, "SGX")?;
        self.platform_level(pck, None).map(Verdict::from)
    }

    pub(super) fn check_platform(&self, pck: &PckExtension, kind: &str) -> Result<(), TdxError> {
        let other = |field, expected: &dyn ToString, found: &dyn ToString| {
            Err(TdxError::OtherPlatform {
                field,
                expected: expected.to_string(),
                found: found.to_string(),
            })
        };
        if self.id != kind {
            return other("TEE", &self.id, &kind);
        }
        if self.fmspc != pck.fmspc {
            return other("FMSPC", &self.fmspc, &pck.fmspc);
        }
        if self.pce_id != pck.pce_id {
            return other("PCE id", &self.pce_id, &pck.pce_id);
        }
        Ok(())
    }

    fn platform_level(
        &self,
        pck: &PckExtension,
        tee_tcb_svn: Option<&[u8; 16]>,
    ) -> Result<&Level<Tcb>, TdxError> {
        let reaches = |have: &[u8], need: &[Component]| {
            have.iter().zip(need).all(|(have, need)| *have >= need.svn)
        };
        let reached = |level: &&Level<Tcb>| {
            let tdx = match (tee_tcb_svn, &level.tcb.tdxtcbcomponents) {
                (None, _) => true,
                (Some(_), None) => false,
                // With a module version, bytes 0 and 1 are judged by the module's identity.
                (Some([_, version, have @ ..]), Some([_, _, need @ ..])) if *version > 0 => {
                    reaches(have, need)
                }
                (Some(have), Some(need)) => reaches(have, need),
            };
            tdx && pck.pce_svn >= level.tcb.pcesvn
                && reaches(&pck.components, &level.tcb.sgxtcbcomponents)
        };
        self.tcb_levels.iter().find(reached).ok_or_else(|| {
            let found = hex::encode(pck.components);
            TdxError::tcb(format!(
                "no TCB level is reached by components {found} and PCE version {}",
                pck.pce_svn
            ))
        })
    }

    fn td_level(&self, pck: &PckExtension, tee_tcb_svn: &[u8; 16]) -> Result<Verdict, TdxError> {
        let mut verdict = Verdict::from(self.platform_level(pck, Some(tee_tcb_svn))?);
        if let Some(identity) = self.module_identity(tee_tcb_svn)? {
            let [isvsvn, ..] = tee_tcb_svn;
            let level = reached_by(&identity.tcb_levels, u16::from(*isvsvn)).ok_or_else(|| {
                TdxError::tcb(format!("no level of module {} is reached by {isvsvn}", identity.id))
            })?;
            verdict.join(level);
            // The date is that of the oldest part.
            verdict.tcb_date = verdict.tcb_date.min(level.tcb_date);
        }
        Ok(verdict)
    }

    /// The identity of the module's major version, TEE_TCB_SVN[1]; version 0 has none.
    fn module_identity(
        &self,
        tee_tcb_svn: &[u8; 16],
    ) -> Result<Option<&TdxModuleIdentity>, TdxError> {
        let [_, version, ..] = tee_tcb_svn;
        if *version == 0 {
            return Ok(None);
        }
        let id = format!("TDX_{version:02X}");
        let found = self
            .tdx_module_identities
            .iter()
            .find(|identity| identity.id.eq_ignore_ascii_case(&id));
        found.map(Some).ok_or_else(|| TdxError::tcb(format!("no identity for the TDX module {id}")))
    }

    /// The TDX module's signer and attributes.
    fn check_module(&self, td: &TdReport) -> Result<(), TdxError> {
        let module = match self.module_identity(&td.tcb_svn.0)? {
            Some(identity) => &identity.module,
            None => self
                .tdx_module
                .as_ref()
                .ok_or_else(|| TdxError::tcb("no identity of the TDX module"))?,
        };
        if td.mrsigner_seam != module.mrsigner {
            return Err(TdxError::tcb(format!(
                "TDX module signed by {}, not {}",
                td.mrsigner_seam, module.mrsigner
            )));
        }
        let found = u64::from_le_bytes(td.seam_attributes.0);
        let [expected, mask] =
            [module.attributes, module.attributes_mask].map(|bytes| u64::from_le_bytes(bytes.0));
        if found & mask != expected & mask || found & !mask != 0 {
            return Err(TdxError::tcb(format!(
                "TDX module attributes {}, expected {}",
                td.seam_attributes, module.attributes
            )));
        }
        Ok(())
    }
}

impl Verdict {
    pub(super) fn join<T>(&mut self, component: &Level<T>) {
        self.status = self.status.with_component(component.tcb_status);
        for advisory in &component.advisory_ids {
            if !self.advisory_ids.contains(advisory) {
                self.advisory_ids.push(advisory.clone());
            }
        }
    }
}

impl From<&Level<Tcb>> for Verdict {
    fn from(level: &Level<Tcb>) -> Self {
        let advisory_ids = level.advisory_ids.clone();
        Self { status: level.tcb_status, current: None, advisory_ids, tcb_date: level.tcb_date }
    }
}

pub(super) fn reached_by(levels: &[Level<Isvsvn>], isvsvn: u16) -> Option<&Level<Isvsvn>> {
    levels.iter().find(|level| isvsvn >= level.tcb.isvsvn)
}

/// A component knows fewer statuses than a platform.
pub(super) fn check_component_levels(
    levels: &mut [Level<Isvsvn>],
    fail: &dyn Fn(String) -> TdxError,
) -> Result<(), TdxError> {
    use TcbStatus::{
        ConfigurationNeeded, OutOfDate, OutOfDateConfigurationNeeded, Revoked, UpToDate,
    };
    let known = [UpToDate, OutOfDate, ConfigurationNeeded, OutOfDateConfigurationNeeded, Revoked];
    if let Some(level) = levels.iter().find(|level| !known.contains(&level.tcb_status)) {
        return Err(fail(format!("a component's status is {}", level.tcb_status)));
    }
    levels.sort_by(|a, b| b.tcb.cmp(&a.tcb));
    Ok(())
}

/// Hex in either case, as Intel writes it.
pub(super) mod any_hex {
    use cvm_base::Bytes;
    use serde::{Deserialize, Deserializer, de::Error};

    pub(in crate::tdx) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        d: D,
    ) -> Result<Bytes<N>, D::Error> {
        String::deserialize(d)?.to_ascii_lowercase().parse().map_err(D::Error::custom)
    }
}
