//! Microsoft Azure Attestation: JWTs over SGX, SEV-SNP, TDX and Azure VM evidence.
//!
//! Layout: Azure Attestation, "Claim sets" and "Trust domain extensions EAT profile". A
//! confidential VM attested through its vTPM is of type `azurevm` and carries the TEE's verdict in
//! `x-ms-isolation-tee`.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use cvm_base::sha256;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    Expected, KeySet, Registered, Rules, Token, TokenError,
    rules::{boolean, list, map, mismatch, text, unjudged_tcb},
};
use crate::NotChecked;

/// What of Azure's verdict is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaaPolicy {
    /// Issuer (the provider's address), audience, time.
    pub rules: Rules,
    /// TEEs: `sevsnpvm`, `tdxvm`, `sgx`; plain `azurevm` (Trusted Launch, no TEE) only if named
    /// here.
    pub types: Vec<String>,
    /// `x-ms-compliance-status` of a confidential VM, unless `None`.
    pub compliance: Option<String>,
    /// Azure's own policy that the provider evaluated (`x-ms-policy-hash`).
    pub policy_hash: Option<String>,
    /// Accept TEEs whose memory a debugger reads, and guests whose kernel one does.
    pub allow_debug: bool,
    /// Accept an Azure VM that booted without Secure Boot.
    pub allow_insecure_boot: bool,
    /// Accepted `attester_tcb_status` of TDX, where the token has one.
    pub tcb_statuses: Vec<String>,
}

impl MaaPolicy {
    /// Confidential VMs of this issuer, compliant, not debuggable, booted with Secure Boot.
    pub fn new(issuer: impl Into<String>) -> Self {
        Self {
            rules: Rules::new(issuer),
            types: vec!["sevsnpvm".into(), "tdxvm".into()],
            compliance: Some("azure-compliant-cvm".into()),
            policy_hash: None,
            allow_debug: false,
            allow_insecure_boot: false,
            tcb_statuses: vec!["UpToDate".into()],
        }
    }
}

/// What Azure says, normalized.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaaClaims {
    /// Issuer and times.
    #[serde(flatten)]
    pub registered: Registered,
    /// The TEE: `sgx`, `sevsnpvm`, `tdxvm`; `azurevm` where there is none.
    pub attestation_type: String,
    /// The TEE's verdict came inside one over the vTPM's evidence (`x-ms-isolation-tee`).
    pub through_vtpm: bool,
    /// `x-ms-compliance-status`.
    pub compliance_status: Option<String>,
    /// The TEE, or the guest as far as Azure looks into it, is debuggable.
    pub debuggable: bool,
    /// MRENCLAVE, the SNP launch measurement or MRTD; hex.
    pub measurement: Option<String>,
    /// The TEE's report data; hex.
    pub report_data: Option<String>,
    /// `attester_tcb_status` of TDX.
    pub tcb_status: Option<String>,
    /// Secure Boot of an Azure VM.
    pub secure_boot: Option<bool>,
    /// Keys that the TEE's runtime data bind (`x-ms-runtime`, and what SGX enclaves hold): JWKs.
    pub runtime_keys: Vec<Value>,
    /// `x-ms-policy-hash`, base64url of SHA-256.
    pub policy_hash: Option<String>,
    /// The TEE's claims as Azure wrote them.
    pub tee: Map<String, Value>,
    /// The VM's claims as Azure wrote them, less the TEE's.
    pub vm: Map<String, Value>,
    /// What was not checked, and why.
    pub not_checked: Vec<NotChecked>,
}

impl MaaClaims {
    /// The member of `ear.veraison.annotated-evidence`: `{"maa": …}`.
    pub fn to_json(&self) -> Value {
        json!({ "maa": self })
    }

    /// Normalizes claims whose signature is somebody else's to check.
    ///
    /// # Errors
    /// [`TokenError::Claims`] for another layout.
    pub fn read(registered: Registered, claims: &Map<String, Value>) -> Result<Self, TokenError> {
        let outer = text(claims, "x-ms-attestation-type")?.ok_or_else(|| {
            TokenError::claims("no x-ms-attestation-type: not a token of Azure Attestation")
        })?;
        let nested = map(claims, "x-ms-isolation-tee")?;
        let (tee, vm) = match (outer, nested) {
            ("azurevm", Some(tee)) => (tee.clone(), without_tee(claims)),
            ("azurevm", None) => (Map::new(), claims.clone()),
            (_, Some(_)) => {
                return Err(TokenError::claims(
                    "x-ms-isolation-tee in a token that is not of an Azure VM",
                ));
            }
            (_, None) => (claims.clone(), Map::new()),
        };
        let own = if tee.is_empty() {
            outer
        } else {
            text(&tee, "x-ms-attestation-type")?.unwrap_or_default()
        };
        let [measurement, report_data] = match own {
            "sgx" => ["x-ms-sgx-mrenclave", "x-ms-sgx-report-data"],
            "sevsnpvm" => ["x-ms-sevsnpvm-launchmeasurement", "x-ms-sevsnpvm-reportdata"],
            "tdxvm" => ["tdx_mrtd", "tdx_report_data"],
            "azurevm" if tee.is_empty() => ["", ""],
            other => {
                return Err(TokenError::claims(format!(
                    "attestation type {:?} is not known",
                    super::json::short(other)
                )));
            }
        };
        let owned = |name: &str| text(&tee, name).map(|value| value.map(str::to_owned));
        let compliance =
            text(&tee, "x-ms-compliance-status")?.or(text(&vm, "x-ms-compliance-status")?);
        Ok(Self {
            attestation_type: own.to_owned(),
            through_vtpm: outer == "azurevm",
            compliance_status: compliance.map(str::to_owned),
            debuggable: tee_debuggable(own, &tee)? || vm_debuggable(&vm)?,
            measurement: owned(measurement)?,
            report_data: owned(report_data)?,
            tcb_status: owned("attester_tcb_status")?,
            secure_boot: boolean(&vm, "secureboot")?,
            runtime_keys: runtime_keys(&tee, own)?,
            policy_hash: text(claims, "x-ms-policy-hash")?.map(str::to_owned),
            registered,
            tee,
            vm,
            not_checked: Vec::new(),
        })
    }
}

/// Verifies a token of Azure Attestation against the provider's keys, as given.
///
/// # Errors
/// [`TokenError`], for the first check that fails.
pub fn verify_maa(
    token: &Token,
    keys: &KeySet,
    policy: &MaaPolicy,
    expected: &Expected<'_>,
    now: u64,
) -> Result<MaaClaims, TokenError> {
    let claims = token.verify(keys, now)?;
    let mut not_checked = Vec::new();
    let registered = policy.rules.check(&claims, now, &mut not_checked)?;
    let mut maa = MaaClaims::read(registered, &claims)?;
    if let Some(nonce) = expected.nonce {
        check_nonce(&claims, nonce)?;
    }
    expected.check_report_data("report data", maa.report_data.as_deref())?;
    expected.note_unchecked(&mut not_checked);
    if policy.policy_hash.is_none() {
        let reason =
            "the policy names none: what the provider's own policy lets pass is taken as it is";
        not_checked.push(NotChecked::new("attestation-policy", reason));
    }
    policy.accept(&maa)?;
    // A plain virtual machine has none.
    if maa.tcb_status.is_none() && maa.attestation_type != "azurevm" {
        not_checked.push(unjudged_tcb());
    }
    maa.not_checked = not_checked;
    Ok(maa)
}

impl MaaPolicy {
    fn accept(&self, maa: &MaaClaims) -> Result<(), TokenError> {
        let refused = |claim: &str, expected: &str, found: Option<&str>| {
            Err(TokenError::refused(claim, expected, found.unwrap_or("absent")))
        };
        if !self.types.contains(&maa.attestation_type) {
            return refused(
                "x-ms-attestation-type",
                &self.types.join(" or "),
                Some(&maa.attestation_type),
            );
        }
        if maa.debuggable && !self.allow_debug {
            return refused("debuggable", "false", Some("true"));
        }
        let virtual_machine = matches!(maa.attestation_type.as_str(), "sevsnpvm" | "tdxvm");
        if let Some(wanted) = self.compliance.as_ref().filter(|_| virtual_machine)
            && maa.compliance_status.as_ref() != Some(wanted)
        {
            return refused("x-ms-compliance-status", wanted, maa.compliance_status.as_deref());
        }
        if maa.through_vtpm && maa.secure_boot != Some(true) && !self.allow_insecure_boot {
            return refused("secureboot", "true", maa.secure_boot.map(|_| "false"));
        }
        if let Some(status) =
            maa.tcb_status.as_ref().filter(|status| !self.tcb_statuses.contains(status))
        {
            return refused("attester_tcb_status", &self.tcb_statuses.join(" or "), Some(status));
        }
        match &self.policy_hash {
            Some(wanted) if maa.policy_hash.as_ref() != Some(wanted) => {
                refused("x-ms-policy-hash", wanted, maa.policy_hash.as_deref())
            }
            _ => Ok(()),
        }
    }
}

fn without_tee(claims: &Map<String, Value>) -> Map<String, Value> {
    claims
        .iter()
        .filter(|(name, _)| *name != "x-ms-isolation-tee")
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect()
}

/// The TEE's own word; where it has none, nothing shows that it is not debuggable.
fn tee_debuggable(kind: &str, tee: &Map<String, Value>) -> Result<bool, TokenError> {
    let flags: &[&str] = match kind {
        "sgx" => &["x-ms-sgx-is-debuggable", "is-debuggable"],
        "sevsnpvm" => &["x-ms-sevsnpvm-is-debuggable"],
        "tdxvm" => &["tdx_td_attributes_debug"],
        _ => return Ok(false),
    };
    let mut said = text(tee, "dbgstat")?.map(|status| !status.starts_with("disabled"));
    for flag in flags {
        said = match (boolean(tee, flag)?, said) {
            (Some(now), before) => Some(now || before.unwrap_or(false)),
            (None, before) => before,
        };
    }
    said.ok_or_else(|| {
        TokenError::claims(format!("nothing says whether this {kind} is debuggable"))
    })
}

/// Debuggers in the boot chain, the hypervisor or the kernel, and unsigned code in the kernel.
fn vm_debuggable(vm: &Map<String, Value>) -> Result<bool, TokenError> {
    for flag in ["bootdebug", "hypervisordebug", "kerneldebug", "testsigning"] {
        if boolean(vm, &format!("x-ms-azurevm-{flag}-enabled"))? == Some(true) {
            return Ok(true);
        }
    }
    Ok(boolean(vm, "x-ms-azurevm-debuggersdisabled")? == Some(false))
}

/// Keys of the runtime data, and what an SGX enclave holds, as far as the report data bind it.
fn runtime_keys(tee: &Map<String, Value>, kind: &str) -> Result<Vec<Value>, TokenError> {
    let mut keys = match map(tee, "x-ms-runtime")? {
        Some(runtime) => list(runtime, "keys")?.to_vec(),
        None => Vec::new(),
    };
    if let (true, Some(held)) = (kind == "sgx", text(tee, "x-ms-sgx-ehd")?) {
        let held = URL_SAFE_NO_PAD
            .decode(held)
            .map_err(|e| TokenError::claims(format!("x-ms-sgx-ehd is not base64url: {e}")))?;
        let digest = hex::encode(sha256(&held).0);
        let bound =
            text(tee, "x-ms-sgx-report-data")?.is_some_and(|data| data.starts_with(&digest));
        if !bound {
            return Err(TokenError::claims(
                "the report data do not bind the enclave's held data (x-ms-sgx-ehd)",
            ));
        }
        keys.extend(
            super::json::object("held data", &held).ok().and_then(|mut held| held.remove("jwk")),
        );
    }
    Ok(keys)
}

/// Where callers put a nonce: the request's `nonce`, or a vTPM's client payload (base64 of it).
fn check_nonce(claims: &Map<String, Value>, nonce: &[u8]) -> Result<(), TokenError> {
    let payload = map(claims, "x-ms-runtime")?.and_then(|runtime| runtime.get("client-payload"));
    let places = [
        ("nonce", text(claims, "nonce")?),
        (
            "x-ms-runtime client-payload nonce",
            payload.and_then(|p| p.get("nonce")).and_then(Value::as_str),
        ),
    ];
    let is_ours = |text: &str| {
        text.as_bytes() == nonce
            || STANDARD.decode(text).is_ok_and(|bytes| bytes == nonce)
            || URL_SAFE_NO_PAD.decode(text).is_ok_and(|bytes| bytes == nonce)
    };
    let mut found =
        places.iter().filter_map(|(place, text)| text.map(|text| (*place, text))).peekable();
    if nonce.is_empty() || found.peek().is_none() {
        return Err(mismatch("nonce", nonce, "absent"));
    }
    // All that are there: a token with two nonces answers one challenge only.
    match found.find(|(_, text)| !is_ours(text)) {
        Some((place, text)) => {
            // In the encoding of the nonce that was given, where the length tells which one that is.
            let decoded = [STANDARD.decode(text).ok(), URL_SAFE_NO_PAD.decode(text).ok()];
            let decoded = decoded.into_iter().flatten().find(|bytes| bytes.len() == nonce.len());
            Err(mismatch(
                place,
                nonce,
                &hex::encode(decoded.unwrap_or_else(|| text.as_bytes().to_vec())),
            ))
        }
        None => Ok(()),
    }
}
