//! The kinds of evidence in a token. A new kind is a variant here.

use cvm_base::Bytes;
use cvm_collateral::tee::{TeeClaims, Vendors};
use cvm_evidence::Reference;
use cvm_verify::{
    Phase, QuotedEvidence, acpi, ak_certificate::AkStatement, measured, verify_quoted,
};
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};

use crate::error::AgentRefusal;

/// The phase of an SEV-SNP guest, which has no register for it: the report shows the image, in
/// whatever phase.
///
/// That is enough for a token. Before the handoff only `cvm-init` runs, which makes no statements;
/// its own reports carry the digests of the release protocol. After it, the system runs that the
/// same launch measured, and its agent has statements signed for nobody else: what it has signed
/// for NVFLARE's own authorizer cannot be a statement (`reports` in cvm-agent).
pub const NOT_SHOWN: &str = "not-shown";

/// Evidence, as it arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Evidence {
    /// A TPM 2.0 quote.
    Tpm(Box<QuotedEvidence>),
    /// A TEE's, bound to the statement's digest followed by zeros.
    Tee(TeeBody),
}

/// What a stock attester of the release protocol would send, and how it calls the kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TeeBody {
    kind: &'static str,
    /// JSON, unchanged: another spelling of a number would be another text.
    body: String,
}

/// Those of the protocol's kinds that a token carries.
const TEES: [&str; 2] = ["snp", "tdx"];

/// What evidence is held against.
pub(crate) struct EvidenceContext<'a> {
    /// The statement's digest.
    pub digest: &'a [u8; 48],
    /// The image's.
    pub reference: &'a Reference,
    /// Verified statements of attestation keys, of this image.
    pub certified: &'a [AkStatement],
    /// Whether an uncertified key is refused, or only said to be one.
    pub must_be_certified: bool,
    /// Who vouches for TEEs.
    pub vendors: &'a Vendors,
    /// Seconds since 1970 UTC.
    pub now: u64,
}

/// What evidence says.
pub(crate) struct JudgedEvidence {
    /// As a policy reads them under the kind's name.
    pub claims: Value,
    /// The EAR's status. A TPM's evidence is genuine, but who runs its host could have made it; a
    /// TEE's with a check left out is not better.
    pub status: &'static str,
}

impl Evidence {
    /// Reads the body of evidence of the kind `kind`.
    ///
    /// # Errors
    /// [`AgentRefusal::Kind`] or [`AgentRefusal::Malformed`].
    pub fn from_json(kind: &str, body: &RawValue) -> Result<Self, AgentRefusal> {
        if kind == "tpm" {
            return serde_json::from_str(body.get())
                .map(Box::new)
                .map(Self::Tpm)
                .map_err(AgentRefusal::malformed);
        }
        match TEES.into_iter().find(|known| *known == kind) {
            Some(kind) => Ok(Self::Tee(TeeBody { kind, body: body.get().to_owned() })),
            None => Err(AgentRefusal::Kind { found: kind.chars().take(40).collect() }),
        }
    }

    /// A TEE's body.
    ///
    /// # Errors
    /// [`AgentRefusal::Kind`] for one that tokens do not carry.
    pub fn tee(kind: &str, body: &Value) -> Result<Self, AgentRefusal> {
        Self::from_json(kind, &to_raw_value(body).map_err(AgentRefusal::malformed)?)
    }

    /// `tpm`, `snp`, `tdx`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Tpm(_) => "tpm",
            Self::Tee(body) => body.kind,
        }
    }

    pub(crate) fn to_json(&self) -> Result<Box<RawValue>, serde_json::Error> {
        match self {
            Self::Tpm(body) => to_raw_value(body),
            Self::Tee(TeeBody { body, .. }) => RawValue::from_string(body.clone()),
        }
    }

    pub(crate) fn verify(
        &self,
        against: &EvidenceContext<'_>,
    ) -> Result<JudgedEvidence, AgentRefusal> {
        match self {
            Self::Tpm(body) => {
                Ok(JudgedEvidence { claims: tpm(body, against)?, status: "warning" })
            }
            Self::Tee(body) => body.verify(against),
        }
    }
}

impl TeeBody {
    fn verify(&self, against: &EvidenceContext<'_>) -> Result<JudgedEvidence, AgentRefusal> {
        let Self { kind, body } = self;
        let body = serde_json::from_str(body).map_err(AgentRefusal::malformed)?;
        let verified = against.vendors.verify(kind, &body, against.digest, against.now);
        let TeeClaims { mut claims, incomplete } =
            verified.map_err(|e| AgentRefusal::evidence(&e))?;
        let phase = self.phase(&claims, against.reference)?;
        if phase == Phase::Other.as_str()
            && self.kind == "tdx"
            && let Some(list) = claims["not_checked"].as_array_mut()
        {
            list.push(json!(acpi::in_rtmr0()));
        }
        claims["phase"] = json!(phase);
        Ok(JudgedEvidence { claims, status: status(incomplete) })
    }

    /// The phase's name in claims. A machine that differs from the image's reference values is
    /// refused here, whatever a policy says; without any, the policy must know what the image
    /// measures.
    fn phase(&self, claims: &Value, reference: &Reference) -> Result<&'static str, AgentRefusal> {
        let Some((phase, problem)) = measured::phase(&json!({ self.kind: claims }), reference)
        else {
            return Err(AgentRefusal::Kind { found: self.kind.into() });
        };
        let known =
            if self.kind == "snp" { !reference.snp.is_empty() } else { !reference.tdx.is_empty() };
        let refuse = |problem: String| Err(AgentRefusal::State { differences: vec![problem] });
        match phase {
            Phase::Boot if self.kind == "snp" => Ok(NOT_SHOWN),
            Phase::Boot => refuse("RTMR3 shows the boot, before the handoff".into()),
            // The running system, whether its job store opens late or not.
            Phase::AfterHandoff | Phase::JobsOpened => Ok(Phase::AfterHandoff.as_str()),
            Phase::Other if known => refuse(problem),
            Phase::Other => Ok(phase.as_str()),
        }
    }
}

fn tpm(body: &QuotedEvidence, against: &EvidenceContext<'_>) -> Result<Value, AgentRefusal> {
    let quoted = verify_quoted(body, against.digest).map_err(|e| AgentRefusal::evidence(&e))?;
    let vouching: Vec<&AkStatement> =
        against.certified.iter().filter(|statement| statement.ak_name == quoted.ak_name).collect();
    let mut not_checked = vec![json!(acpi::in_pcr1())];
    if vouching.is_empty() {
        let problem = match against.certified.len() {
            0 => "no certificate that one of its parties signed for this image".to_owned(),
            n => format!("{n} certificates, all of other keys"),
        };
        if against.must_be_certified {
            return Err(AgentRefusal::Uncertified { ak_name: quoted.ak_name.to_string(), problem });
        }
        not_checked.push(json!({ "check": "attestation-key-certificate", "reason": problem }));
    }
    let differences = quoted.differences(against.reference);
    if !differences.is_empty() {
        return Err(AgentRefusal::State {
            differences: differences.iter().map(ToString::to_string).collect(),
        });
    }
    let mut claims = quoted.to_json();
    claims["phase"] = json!(Phase::AfterHandoff.as_str());
    claims["handed_off"] = json!(true);
    claims["ek_root_sha256"] =
        json!(common(vouching.iter().map(|statement| statement.ek_root_sha256)).flatten());
    // Those that vouch may judge differently. Then the least is said, which is what a virtual TPM
    // deserves.
    claims["trust"] =
        json!(common(vouching.iter().map(|s| s.trust.as_str())).unwrap_or("untrusted-host"));
    claims["endorsements"] = vouching
        .iter()
        .map(|s| {
            json!({
                "party": s.party, "ek_root_sha256": s.ek_root_sha256,
                "trust": s.trust, "issued_at": s.issued_at,
            })
        })
        .collect();
    claims["not_checked"] = json!(not_checked);
    Ok(claims)
}

/// The one value that all have.
fn common<T: PartialEq>(mut values: impl Iterator<Item = T>) -> Option<T> {
    let first = values.next()?;
    values.all(|value| value == first).then_some(first)
}

/// The EAR's status of what its maker vouches for.
pub(crate) fn status(incomplete: bool) -> &'static str {
    if incomplete { "warning" } else { "affirming" }
}

/// A name's digits, for messages.
pub(crate) fn short(bytes: &Bytes<32>) -> String {
    bytes.to_string().chars().take(16).collect()
}
