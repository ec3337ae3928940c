//! A TPM 2.0 quote alone, without flare-cvm's release protocol around it: message, signature,
//! attestation key, PCR values and an event log in, claims out.
//!
//! What such a quote proves hangs on the attestation key. [`crate::verify`] binds it to an endorsed
//! TPM by credential activation; here a certificate may, and otherwise the claims say `not_checked:
//! ak-endorsement`.

mod claims;
mod error;
mod key;
mod replay;
mod sign;
mod values;

use std::collections::{BTreeMap, BTreeSet};

use cvm_base::sha256;
use serde::Deserialize;

pub use self::{
    claims::{QuoteClaims, Registers},
    error::TpmError,
    key::AttestationKey,
    values::PcrValues,
};

pub(crate) use self::sign::is_ecdsa_signature;

use self::sign::QuoteSignature;
use crate::{
    NotChecked, acpi,
    x509::{self, Certificate},
};
use cvm_evidence::eventlog::{self, Log};
use cvm_evidence::tpm::{Digest, HashAlg, PcrSelection, Quote, parse_quote};

/// tcg-kp-AIKCertificate (TCG EK Credential Profile §3.2.16): what attestation keys' certificates
/// are for.
const AK_USAGE: &[u8] = &[0x67, 0x81, 0x05, 0x08, 0x03];

/// A quote and what was shown with it, read and not yet believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuoteEvidence<'a> {
    message: &'a [u8],
    quote: Quote,
    signature: QuoteSignature,
    ak: AttestationKey,
    pcrs: Option<PcrValues>,
    log: Option<(&'a [u8], Log<'a>)>,
}

impl<'a> QuoteEvidence<'a> {
    /// Reads TPMS_ATTEST and a signature of `ak`: TPMT_SIGNATURE, or the bare bytes of an RSA or
    /// ECDSA (DER, or r ‖ s) signature.
    ///
    /// # Errors
    /// [`TpmError::Structure`] for what is not a quote or a signature of that key's type, and for
    /// trailing bytes.
    pub fn parse(
        message: &'a [u8],
        signature: &[u8],
        ak: AttestationKey,
    ) -> Result<Self, TpmError> {
        let quote = parse_quote(message)?;
        let signature = QuoteSignature::parse(signature, ak.key())?;
        Ok(Self { message, quote, signature, ak, pcrs: None, log: None })
    }

    /// With the values of the quoted registers; others may be among them, and are not claimed.
    #[must_use]
    pub fn with_pcrs(self, pcrs: PcrValues) -> Self {
        Self { pcrs: Some(pcrs), ..self }
    }

    /// With the event log that explains the values.
    ///
    /// # Errors
    /// [`TpmError::Structure`] for what is no log.
    pub fn with_event_log(self, log: &'a [u8]) -> Result<Self, TpmError> {
        let parsed = Log::parse(log, eventlog::Registers::Pcrs)?;
        Ok(Self { log: Some((log, parsed)), ..self })
    }
}

/// The nonce that the verifier chose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nonce(Vec<Vec<u8>>);

impl Nonce {
    /// These bytes.
    pub fn exact(bytes: &[u8]) -> Self {
        Self(vec![bytes.to_vec()])
    }

    /// A nonce as people type it: hex, or the text's own bytes. A quote over either is fresh, as
    /// both are the verifier's.
    pub fn from_text(text: &str) -> Self {
        let bytes = hex::decode(text).ok().filter(|bytes| !bytes.is_empty());
        Self(bytes.into_iter().chain([text.as_bytes().to_vec()]).collect())
    }

    /// Any of these: one nonce in the forms in which it may have been asked. A refusal names the
    /// first.
    pub fn any_of(forms: Vec<Vec<u8>>) -> Self {
        Self(forms)
    }

    fn check(&self, found: &[u8]) -> Result<(), TpmError> {
        if self.0.iter().any(Vec::is_empty) {
            return Err(TpmError::EmptyNonce);
        }
        if self.0.iter().any(|form| form == found) {
            return Ok(());
        }
        let expected = self.0.first().map(hex::encode).unwrap_or_default();
        let found = if found.is_empty() { "of no bytes".into() } else { hex::encode(found) };
        Err(TpmError::Nonce { expected, found })
    }
}

/// What binds an attestation key to a TPM that somebody made: its certificate and the way to a
/// root.
#[derive(Debug, Clone, Copy)]
pub struct AkEndorsement<'a> {
    /// The attestation key's certificate.
    pub certificate: &'a Certificate,
    /// Intermediates, roots and revocation lists.
    pub path: x509::Path<'a>,
}

/// What is believed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TpmPolicy {
    /// Whether quotes over the SHA-1 bank are accepted. Default: no.
    pub allow_sha1: bool,
    /// Registers to whose quoted value a log must lead, when one is given. Default: 0 to 7, into
    /// which nothing measures after the firmware closed its log.
    pub must_replay: BTreeSet<u32>,
    /// Registers that a quote must cover, with their values shown. Default: none.
    pub required: BTreeSet<u32>,
}

impl Default for TpmPolicy {
    fn default() -> Self {
        Self { allow_sha1: false, must_replay: (0..=7).collect(), required: BTreeSet::new() }
    }
}

/// Verifies a quote: signature, nonce, that the values shown are those quoted, that the log leads
/// to them, and the attestation key's certificate. `now` is in seconds since 1970 UTC.
///
/// What was not given is not checked, and listed in [`QuoteClaims::not_checked`].
///
/// # Errors
/// [`TpmError`], for the first check that fails.
pub fn verify(
    evidence: &QuoteEvidence<'_>,
    nonce: Option<&Nonce>,
    endorsement: Option<&AkEndorsement<'_>>,
    policy: &TpmPolicy,
    now: u64,
) -> Result<QuoteClaims, TpmError> {
    let QuoteEvidence { quote, ak, .. } = evidence;
    let mut not_checked = Vec::new();

    let scheme = evidence.signature.verify(ak, evidence.message)?;
    match nonce {
        Some(nonce) => nonce.check(&quote.nonce)?,
        None => not_checked
            .push(NotChecked::new("nonce", "no nonce was given: the quote may be a replay")),
    }
    let selected = Selected::parse(&quote.selection, policy)?;
    let banks = match &evidence.pcrs {
        Some(values) => selected.check(values, scheme.hash(), &quote.pcr_digest)?,
        None => {
            not_checked.push(NotChecked::new(
                "pcr-values",
                "no PCR values were given: the quote's digest stands alone",
            ));
            BTreeMap::new()
        }
    };
    let shown = banks.get(&selected.bank);
    if let Some(register) =
        policy.required.iter().find(|r| shown.is_none_or(|shown| !shown.contains_key(r)))
    {
        let problem =
            format!("register {register} of bank {} must be quoted and shown", selected.bank);
        return Err(TpmError::Selection { found: selected.text, problem });
    }
    let replayed = match &evidence.log {
        Some((_, log)) => replay::check(log, selected.bank, &banks, policy, &mut not_checked)?,
        None => {
            not_checked.push(NotChecked::new(
                "event-log",
                "no event log was given: nothing explains the PCR values",
            ));
            replay::Replayed::default()
        }
    };
    let ak_root_sha256 = match endorsement {
        Some(endorsement) => Some(check_endorsement(ak, endorsement, now, &mut not_checked)?),
        None => {
            let reason = "no certificate binds the attestation key to an endorsed TPM: any \
                software could own it";
            not_checked.push(NotChecked::new("ak-endorsement", reason));
            None
        }
    };
    if ak.name().is_none() {
        let reason = "only the key's value was given: whether it signs nothing but TPM statements \
            is unknown";
        not_checked.push(NotChecked::new("ak-attributes", reason));
    }
    not_checked.push(acpi::in_pcr1());
    let mut banks = banks;
    Ok(QuoteClaims {
        bank: selected.bank,
        pcrs: banks.remove(&selected.bank).unwrap_or_default(),
        other_banks: banks,
        selection: selected.text,
        pcr_digest: quote.pcr_digest.clone(),
        nonce: quote.nonce.clone(),
        ak_sha256: ak.sha256(),
        ak_name: ak.name().map(hex::encode),
        ak_scheme: scheme.to_string(),
        ak_root_sha256,
        firmware_version: quote.firmware_version,
        clock: quote.clock,
        event_log: replayed.events,
        event_log_sha256: evidence.log.as_ref().map(|(bytes, _)| sha256(bytes)),
        not_replayed: replayed.not_replayed,
        not_checked,
    })
}

fn check_endorsement(
    ak: &AttestationKey,
    endorsement: &AkEndorsement<'_>,
    now: u64,
    not_checked: &mut Vec<NotChecked>,
) -> Result<cvm_base::Bytes32, TpmError> {
    if endorsement.certificate.public_key() != ak.public_key_bits() {
        return Err(TpmError::Endorsement { problem: "the certificate is another key's".into() });
    }
    let root = endorsement.path.verify_for(endorsement.certificate, AK_USAGE, now)?;
    if endorsement.path.crls.is_empty() {
        not_checked.push(NotChecked::new("certificate-revocation", "no revocation list was given"));
    }
    Ok(sha256(root.der()))
}

/// The registers that a quote covers.
struct Selected {
    text: String,
    /// The bank that claims name first.
    bank: HashAlg,
    /// In the quote's order.
    registers: Vec<(HashAlg, Vec<u32>)>,
}

impl Selected {
    fn parse(selection: &[PcrSelection], policy: &TpmPolicy) -> Result<Self, TpmError> {
        let text = selection.iter().map(ToString::to_string).collect::<Vec<_>>().join("+");
        let text = if text.is_empty() { "nothing".into() } else { text };
        let refuse =
            |problem: &str| TpmError::Selection { found: text.clone(), problem: problem.into() };
        let mut registers: Vec<(HashAlg, Vec<u32>)> = Vec::new();
        for bank in selection {
            // The digest alone does not say what it covers: only this list does.
            let of_bank: Vec<u32> = bank.registers().collect();
            if of_bank.is_empty() {
                continue;
            }
            let problem = match HashAlg::from_id(bank.hash) {
                Some(HashAlg::Sha1) if !policy.allow_sha1 => "the policy does not accept SHA-1",
                Some(alg) if registers.iter().any(|(known, _)| *known == alg) => {
                    return Err(refuse("one bank is named twice"));
                }
                Some(alg) => {
                    registers.push((alg, of_bank));
                    continue;
                }
                None => "that bank's algorithm is not known here",
            };
            return Err(TpmError::Bank { found: text, problem: problem.into() });
        }
        let preferred = [HashAlg::Sha256, HashAlg::Sha384, HashAlg::Sha512, HashAlg::Sha1];
        let bank =
            preferred.into_iter().find(|alg| registers.iter().any(|(known, _)| known == alg));
        match bank {
            Some(bank) => Ok(Self { text, bank, registers }),
            None => Err(refuse("that covers no register")),
        }
    }

    /// The values of the registers covered, in all banks, if they are those quoted (part 3 §18.4:
    /// one digest, with the signature's hash, in the order of the selection).
    fn check(
        &self,
        values: &PcrValues,
        hash: HashAlg,
        quoted: &[u8],
    ) -> Result<BTreeMap<HashAlg, Registers>, TpmError> {
        let mut banks: BTreeMap<HashAlg, Registers> = BTreeMap::new();
        let mut covered: Vec<u8> = Vec::new();
        for (bank, registers) in &self.registers {
            for register in registers {
                let value: &Digest =
                    values.get(*bank, *register).ok_or_else(|| TpmError::Selection {
                        found: self.text.clone(),
                        problem: format!(
                            "no value is shown for register {register} of bank {bank}"
                        ),
                    })?;
                covered.extend(value.as_bytes());
                banks.entry(*bank).or_default().insert(*register, *value);
            }
        }
        let found = hash.digest([&covered[..]]);
        if found.as_bytes() != quoted {
            return Err(TpmError::PcrDigest {
                found: found.to_string(),
                quoted: hex::encode(quoted),
                selection: self.text.clone(),
            });
        }
        Ok(banks)
    }
}
