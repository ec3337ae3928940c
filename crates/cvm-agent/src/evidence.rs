//! The kinds of evidence in a token. A new kind is a variant here.

use cvm_attest::{
    Phase, QuotedEvidence, Reference,
    ak_certificate::AkStatement,
    snp::{SnpEvidence, SnpExpected, SnpPolicy, SnpReport, SnpRoots},
    tdx::{DcapVerifier, TdxEvidence, TdxPolicy, intel_roots},
    verify_quoted,
    wire::Base64,
    x509::Certificate,
};
use cvm_base::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Refusal;

/// Certificates beside an SNP report: VCEK or VLEK, and those above.
const MAX_CERTIFICATES: usize = 8;

/// Evidence, as it arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Evidence {
    /// A TPM 2.0 quote.
    Tpm(Box<QuotedEvidence>),
    /// An SEV-SNP report.
    Snp(SnpBody),
    /// A TDX quote.
    Tdx(TdxBody),
}

/// An SEV-SNP report whose REPORT_DATA is the statement's digest, zeros behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnpBody {
    /// 1184 bytes.
    pub report: Base64,
    /// What the host added, each DER or PEM.
    pub certificates: Vec<Base64>,
}

/// A DCAP quote of the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TdxBody {
    /// The quote.
    pub quote: Base64,
}

/// What evidence is held against.
pub(crate) struct Against<'a> {
    /// The statement's digest.
    pub digest: &'a [u8; 48],
    /// The image's.
    pub reference: &'a Reference,
    /// Verified statements of attestation keys, of this image.
    pub certified: &'a [AkStatement],
    /// Whether an uncertified key is refused, or only said to be one.
    pub must_be_certified: bool,
    /// Seconds since 1970 UTC.
    pub now: u64,
}

impl Evidence {
    /// Reads the body of evidence of the kind `kind`.
    ///
    /// # Errors
    /// [`Refusal::Kind`] or [`Refusal::Malformed`].
    pub fn from_json(kind: &str, body: Value) -> Result<Self, Refusal> {
        match kind {
            "tpm" => serde_json::from_value(body).map(Box::new).map(Self::Tpm).map_err(Refusal::malformed),
            "snp" => serde_json::from_value(body).map(Self::Snp).map_err(Refusal::malformed),
            "tdx" => serde_json::from_value(body).map(Self::Tdx).map_err(Refusal::malformed),
            other => Err(Refusal::Kind { found: other.chars().take(40).collect() }),
        }
    }

    /// `tpm`, `snp`, `tdx`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Tpm(_) => "tpm",
            Self::Snp(_) => "snp",
            Self::Tdx(_) => "tdx",
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        match self {
            Self::Tpm(body) => json!(body),
            Self::Snp(body) => json!(body),
            Self::Tdx(body) => json!(body),
        }
    }

    /// Claims, as a policy reads them under the kind's name.
    pub(crate) fn verify(&self, against: &Against<'_>) -> Result<Value, Refusal> {
        match self {
            Self::Tpm(body) => tpm(body, against),
            Self::Snp(body) => body.verify(against),
            Self::Tdx(body) => body.verify(against),
        }
    }
}

fn tpm(body: &QuotedEvidence, against: &Against<'_>) -> Result<Value, Refusal> {
    let quoted = verify_quoted(body, against.digest).map_err(|e| Refusal::evidence(&e))?;
    let vouching: Vec<&AkStatement> =
        against.certified.iter().filter(|statement| statement.ak_name == quoted.ak_name).collect();
    let mut not_checked = Vec::new();
    if vouching.is_empty() {
        let problem = match against.certified.len() {
            0 => "no certificate that one of its parties signed for this image".to_owned(),
            n => format!("{n} certificates, all of other keys"),
        };
        if against.must_be_certified {
            return Err(Refusal::Uncertified { ak_name: quoted.ak_name.to_string(), problem });
        }
        not_checked.push(json!({ "check": "attestation-key-certificate", "reason": problem }));
    }
    let differences = quoted.differences(against.reference);
    if !differences.is_empty() {
        return Err(Refusal::State { differences: differences.iter().map(ToString::to_string).collect() });
    }
    let mut claims = quoted.to_json();
    claims["phase"] = json!(Phase::AfterHandoff.as_str());
    claims["handed_off"] = json!(true);
    claims["ek_root_sha256"] = json!(common(vouching.iter().map(|statement| statement.ek_root_sha256)).flatten());
    // Who vouch may judge differently; then the least is said, which is what a virtual TPM deserves.
    claims["trust"] = json!(common(vouching.iter().map(|s| s.trust.as_str())).unwrap_or("untrusted-host"));
    claims["endorsements"] = vouching
        .iter()
        .map(|s| json!({ "party": s.party, "ek_root_sha256": s.ek_root_sha256, "trust": s.trust, "issued_at": s.issued_at }))
        .collect();
    claims["not_checked"] = json!(not_checked);
    Ok(claims)
}

/// The one value that all have.
fn common<T: PartialEq>(mut values: impl Iterator<Item = T>) -> Option<T> {
    let first = values.next()?;
    values.all(|value| value == first).then_some(first)
}

/// REPORT_DATA: the digest, zeros behind.
pub fn report_data(digest: &[u8; 48]) -> [u8; 64] {
    let mut data = [0; 64];
    data[..48].copy_from_slice(digest);
    data
}

impl SnpBody {
    fn verify(&self, against: &Against<'_>) -> Result<Value, Refusal> {
        if self.certificates.len() > MAX_CERTIFICATES {
            return Err(Refusal::malformed(format!("more than {MAX_CERTIFICATES} certificates")));
        }
        let refuse = |e: &cvm_attest::snp::SnpError| Refusal::evidence(e);
        let certificates: Result<Vec<_>, _> = self.certificates.iter().map(|c| Certificate::read_all(&c.0)).collect();
        let certificates = certificates.map_err(Refusal::malformed)?.concat();
        let evidence = SnpEvidence { report: SnpReport::parse(&self.report.0).map_err(|e| refuse(&e))?, certificates };
        let data = report_data(against.digest);
        let expected = SnpExpected { report_data: Some(&data), host_data: None };
        let roots = SnpRoots::amd().map_err(|e| refuse(&e))?;
        let claims = cvm_attest::snp::verify(&evidence, roots, &[], &expected, against.now).map_err(|e| refuse(&e))?;
        SnpPolicy::default().check(&claims).map_err(|e| refuse(&e))?;
        serde_json::to_value(&claims).map_err(Refusal::malformed)
    }
}

impl TdxBody {
    fn verify(&self, against: &Against<'_>) -> Result<Value, Refusal> {
        let refuse = |e: &cvm_attest::tdx::TdxError| Refusal::evidence(e);
        let evidence = TdxEvidence::parse(&self.quote.0, None).map_err(|e| refuse(&e))?;
        let roots = intel_roots().map_err(|e| refuse(&e))?;
        let data = report_data(against.digest);
        let claims = DcapVerifier::new(roots, None, against.now)
            .and_then(|verifier| verifier.verify(&evidence, Some(&data), against.now))
            .map_err(|e| refuse(&e))?;
        TdxPolicy::default().check(&claims).map_err(|e| refuse(&e))?;
        serde_json::to_value(&claims).map_err(Refusal::malformed)
    }
}

/// A name's digits, for messages.
pub(crate) fn short(bytes: &Bytes<32>) -> String {
    bytes.to_string().chars().take(16).collect()
}
