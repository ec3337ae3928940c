//! Intel Trust Authority: JWTs over TDX, SGX and SEV-SNP evidence, in claim versions 1 and 2.
//!
//! Layout: Intel Trust Authority EAT profile. Version 1 has the TEE's claims at the top; version 2
//! nests them in `tdx`, `sgx` or `sevsnp`, and a GPU's in `nvgpu`. A token is issued even when the
//! customer's policies did not match: `policy_ids_unmatched` says so, and is refused here.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    Expected, KeySet, Registered, Rules, Token, TokenError,
    rules::{boolean, list, map, mismatch, text, unjudged_tcb},
};
use crate::NotChecked;

/// What of Intel's verdict is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItaPolicy {
    /// Issuer (`https://portal.trustauthority.intel.com`, `Intel Trust Authority`), audience, time.
    pub rules: Rules,
    /// TEEs: `tdx`, `sevsnp`, `sgx`.
    pub types: Vec<String>,
    /// Accepted `attester_tcb_status`.
    pub tcb_statuses: Vec<String>,
    /// Advisories that may be open; an `UpToDate` platform has none.
    pub accepted_advisories: Vec<String>,
    /// Policies of the tenant's that must have matched, by id.
    pub required_policies: Vec<String>,
    /// Accept a token although policies of the tenant's did not match.
    pub allow_unmatched_policies: bool,
    /// Accept TEEs whose memory a debugger reads.
    pub allow_debug: bool,
}

impl ItaPolicy {
    /// TDX, SEV-SNP and SGX of this issuer, up to date, not debuggable, with no unmatched policy.
    pub fn new(issuer: impl Into<String>) -> Self {
        Self {
            rules: Rules::new(issuer),
            types: vec!["tdx".into(), "sevsnp".into(), "sgx".into()],
            tcb_statuses: vec!["UpToDate".into()],
            accepted_advisories: Vec::new(),
            required_policies: Vec::new(),
            allow_unmatched_policies: false,
            allow_debug: false,
        }
    }
}

/// What Intel says, normalized.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItaClaims {
    /// Issuer and times.
    #[serde(flatten)]
    pub registered: Registered,
    /// `ver`.
    pub version: Option<String>,
    /// `tdx`, `sevsnp` or `sgx`.
    pub attester_type: String,
    /// MRTD, the SNP launch measurement or MRENCLAVE; hex.
    pub measurement: Option<String>,
    /// The TEE's report data; hex.
    pub report_data: Option<String>,
    /// `attester_tcb_status`; SEV-SNP has none.
    pub tcb_status: Option<String>,
    /// `attester_advisory_ids`.
    pub advisory_ids: Vec<String>,
    /// The TEE is debuggable.
    pub debuggable: bool,
    /// `attester_held_data`, base64: what the attester added in binary.
    pub held_data: Option<String>,
    /// `attester_runtime_data`: what it added as JSON.
    pub runtime_data: Option<Value>,
    /// The tenant's policies that matched, by id.
    pub policies_matched: Vec<String>,
    /// … and that did not.
    pub policies_unmatched: Vec<String>,
    /// The TEE's claims as Intel wrote them (`tdx_*`, `sevsnp_*`, `sgx_*`, `attester_*`).
    pub tee: Map<String, Value>,
    /// The GPU's claims of a composite token, as Intel wrote them.
    pub nvgpu: Option<Map<String, Value>>,
    /// What was not checked, and why.
    pub not_checked: Vec<NotChecked>,
}

impl ItaClaims {
    /// Whether claims are laid out as Intel's, genuine or not.
    pub(crate) fn are_in(claims: &Map<String, Value>) -> bool {
        const NAMES: [&str; 6] = ["tdx", "sevsnp", "sgx", "nvgpu", "attester", "policy_ids"];
        claims.keys().any(|name| {
            let rest = NAMES.iter().find_map(|prefix| name.strip_prefix(prefix));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
        })
    }

    /// The member of `ear.veraison.annotated-evidence`: `{"ita": …}`.
    pub fn to_json(&self) -> Value {
        json!({ "ita": self })
    }

    /// Normalizes claims whose signature is somebody else's to check.
    ///
    /// # Errors
    /// [`TokenError::Claims`] for another layout.
    pub fn read(registered: Registered, claims: &Map<String, Value>) -> Result<Self, TokenError> {
        let (kind, tee) = tee(claims)?;
        let [measurement, report_data, debuggable] = match kind {
            "tdx" => ["tdx_mrtd", "tdx_report_data", "tdx_is_debuggable"],
            "sevsnp" => ["sevsnp_launchmeasurement", "sevsnp_reportdata", "sevsnp_is_debuggable"],
            _ => ["sgx_mrenclave", "sgx_report_data", "sgx_is_debuggable"],
        };
        let owned = |name: &str| text(&tee, name).map(|value| value.map(str::to_owned));
        let ids = |name: &str| -> Result<Vec<String>, TokenError> {
            let id = |policy: &Value| policy.get("id").and_then(Value::as_str).map(str::to_owned);
            let wrong = || TokenError::claims(format!("{name} holds a policy without an id"));
            list(claims, name)?.iter().map(|policy| id(policy).ok_or_else(wrong)).collect()
        };
        let advisory = |id: &Value| id.as_str().map(str::to_owned);
        let advisory_ids =
            list(&tee, "attester_advisory_ids")?.iter().map(advisory).collect::<Option<_>>();
        let nvgpu = map(claims, "nvgpu")?.cloned();
        Ok(Self {
            registered,
            version: text(claims, "ver")?.map(str::to_owned),
            attester_type: kind.to_owned(),
            measurement: owned(measurement)?,
            report_data: owned(report_data)?,
            tcb_status: owned("attester_tcb_status")?,
            advisory_ids: advisory_ids
                .ok_or_else(|| TokenError::claims("an advisory's id is not a string"))?,
            debuggable: is_debuggable(claims, &tee, kind, debuggable)?,
            held_data: owned("attester_held_data")?,
            runtime_data: tee.get("attester_runtime_data").filter(|data| !data.is_null()).cloned(),
            policies_matched: ids("policy_ids_matched")?,
            policies_unmatched: ids("policy_ids_unmatched")?,
            tee,
            nvgpu,
            not_checked: Vec::new(),
        })
    }
}

/// Verifies a token of Intel Trust Authority against its keys, as given.
///
/// # Errors
/// [`TokenError`], for the first check that fails.
pub fn verify_ita(
    token: &Token,
    keys: &KeySet,
    policy: &ItaPolicy,
    expected: &Expected<'_>,
    now: u64,
) -> Result<ItaClaims, TokenError> {
    let claims = token.verify(keys, now)?;
    let mut not_checked = Vec::new();
    let registered = policy.rules.check(&claims, now, &mut not_checked)?;
    let mut ita = ItaClaims::read(registered, &claims)?;
    if let Some(nonce) = expected.nonce {
        check_nonce(&claims, &ita.tee, nonce)?;
    }
    expected.check_report_data("report data", ita.report_data.as_deref())?;
    expected.note_unchecked(&mut not_checked);
    if policy.required_policies.is_empty() {
        let reason = "no policy of the tenant's is required: the token says that the evidence is \
            genuine, no more";
        not_checked.push(NotChecked::new("attestation-policy", reason));
    }
    policy.accept(&ita)?;
    if ita.tcb_status.is_none() {
        not_checked.push(unjudged_tcb());
    }
    ita.not_checked = not_checked;
    Ok(ita)
}

impl ItaPolicy {
    fn accept(&self, ita: &ItaClaims) -> Result<(), TokenError> {
        let refused = |claim: &str, expected: String, found: &str| {
            Err(TokenError::refused(claim, expected, found))
        };
        if !self.types.contains(&ita.attester_type) {
            return refused("attester type", self.types.join(" or "), &ita.attester_type);
        }
        if ita.debuggable && !self.allow_debug {
            return refused("debuggable", "false".into(), "true");
        }
        // SEV-SNP's TCB is numbers, for the caller's policy; all of Intel's platforms have a status.
        let status = ita.tcb_status.as_deref();
        if ita.attester_type != "sevsnp" || status.is_some() {
            let status = status.unwrap_or("absent");
            if !self.tcb_statuses.iter().any(|accepted| accepted == status) {
                return refused("attester_tcb_status", self.tcb_statuses.join(" or "), status);
            }
        }
        if let Some(open) =
            ita.advisory_ids.iter().find(|id| !self.accepted_advisories.contains(id))
        {
            return refused("attester_advisory_ids", self.accepted_advisories.join(", "), open);
        }
        if let Some(id) = ita.policies_unmatched.first().filter(|_| !self.allow_unmatched_policies)
        {
            return refused("policy_ids_unmatched", "none".into(), id);
        }
        if let Some(id) =
            self.required_policies.iter().find(|id| !ita.policies_matched.contains(id))
        {
            return refused("policy_ids_matched", id.clone(), &ita.policies_matched.join(", "));
        }
        match &ita.nvgpu {
            Some(gpu) => accept_gpu(gpu, self.allow_debug),
            None => Ok(()),
        }
    }
}

/// A composite token whose GPU did not pass is not a good token of its CPU.
fn accept_gpu(gpu: &Map<String, Value>, allow_debug: bool) -> Result<(), TokenError> {
    let result = text(gpu, "measres")?.unwrap_or("absent");
    let overall = boolean(gpu, "x-nvidia-overall-att-result")?;
    let good = matches!(result, "success" | "comparison-successful")
        || (result == "absent" && overall == Some(true));
    if !good || overall == Some(false) {
        return Err(TokenError::refused("nvgpu measres", "success", result));
    }
    match text(gpu, "dbgstat")? {
        Some(status) if !status.starts_with("disabled") && !allow_debug => {
            Err(TokenError::refused("nvgpu dbgstat", "disabled", status))
        }
        _ => Ok(()),
    }
}

/// The one TEE that a token is about.
fn tee(claims: &Map<String, Value>) -> Result<(&'static str, Map<String, Value>), TokenError> {
    let mut found = Vec::new();
    for kind in ["tdx", "sevsnp", "sgx"] {
        if let Some(nested) = map(claims, kind)? {
            found.push((kind, nested.clone()));
        } else if claims
            .keys()
            .any(|name| name.strip_prefix(kind).is_some_and(|rest| rest.starts_with('_')))
        {
            found.push((kind, claims.clone()));
        }
    }
    match (found.pop(), found.is_empty()) {
        (Some(only), true) => Ok(only),
        (None, _) => Err(TokenError::claims("no claims of a TEE: expected tdx, sevsnp or sgx")),
        (Some(_), false) => Err(TokenError::claims("claims of more than one TEE")),
    }
}

/// Any sign of it counts; the absence of every sign does not show that it is not.
fn is_debuggable(
    claims: &Map<String, Value>,
    tee: &Map<String, Value>,
    kind: &str,
    flag: &str,
) -> Result<bool, TokenError> {
    let status = |claims| {
        text(claims, "dbgstat").map(|status| status.map(|status| !status.starts_with("disabled")))
    };
    let said = [
        boolean(tee, flag)?,
        boolean(tee, "tdx_td_attributes_debug")?,
        status(tee)?,
        status(claims)?,
    ];
    if said.iter().all(Option::is_none) {
        return Err(TokenError::claims(format!("nothing says whether this {kind} is debuggable")));
    }
    Ok(said.contains(&Some(true)))
}

/// `verifier_nonce.val` is base64 of the nonce as the service gave it out, which is base64 itself.
fn check_nonce(
    claims: &Map<String, Value>,
    tee: &Map<String, Value>,
    nonce: &[u8],
) -> Result<(), TokenError> {
    let place = map(claims, "verifier_nonce")?.or(map(tee, "verifier_nonce")?);
    let value = match place {
        Some(place) => text(place, "val")?,
        None => None,
    };
    let once = value.and_then(|value| STANDARD.decode(value).ok());
    let twice = once.as_ref().and_then(|value| STANDARD.decode(value).ok());
    if !nonce.is_empty() && [&once, &twice].into_iter().flatten().any(|value| value == nonce) {
        return Ok(());
    }
    let found = twice.or(once).map_or_else(|| value.unwrap_or("absent").to_owned(), hex::encode);
    Err(mismatch("verifier_nonce", nonce, &found))
}
