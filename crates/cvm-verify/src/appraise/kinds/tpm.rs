//! TPM quotes, and event logs alone.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    NotChecked,
    appraise::{
        CcEventLogClaims, EventLogClaims, EvidenceClaims, Refusal, Terms,
        set::Group,
        stage::first_good,
        submodule::{Submodule, Verified},
        trust::Shared,
    },
    files::Form,
    quote::{
        self, AkEndorsement, AttestationKey, Nonce, PcrValues, QuoteClaims, QuoteEvidence, TpmError,
    },
    tdx::CcEventLog,
    x509::{Certificate, Path},
};
use cvm_evidence::{
    eventlog::{Log, Registers},
    tpm::{HashAlg, Quote, parse_quote},
};

/// Every quote of a TPM. Where several banks were quoted, a quote of a bank that the policy does
/// not accept is listed, not refused. A signature that belongs to no quote is `unread`.
pub(super) fn quotes(
    group: &Group,
    shared: &Shared,
    terms: &Terms,
    unread: &mut Vec<Refusal>,
) -> Result<Vec<Submodule>, Refusal> {
    let keys = keys(group, shared)?;
    let pcrs = shown_values(group)?;
    let log = group.one(Form::EventLog)?;
    if !group.has(Form::TpmSignature) {
        group.needed(Form::TpmSignature, "a TPM quote")?;
    }
    let (mut found, mut left_out, mut used) = (Vec::new(), None, BTreeSet::new());
    for (name, message) in group.all(Form::TpmQuote) {
        match quote(group, message, &keys, &pcrs, log, shared, terms, &mut used) {
            Ok(claims) => found.push(claims),
            Err(error @ TpmError::Bank { .. }) => left_out = Some((name, error)),
            Err(error) => return Err(Refusal::new(name, &error)),
        }
    }
    if let Some((name, error)) = left_out {
        let Some(first) = found.first_mut() else { return Err(Refusal::new(name, &error)) };
        first.not_checked.push(NotChecked::new("other-banks", &error.to_string()));
    }
    let values = |bytes: &[u8]| {
        group.all(Form::TpmQuote).iter().any(|(_, quote)| are_values_of(quote, bytes))
    };
    let signatures = group.all(Form::TpmSignature).iter().enumerate();
    unread.extend(signatures.filter(|(at, (_, bytes))| !used.contains(at) && !values(bytes)).map(
        |(_, (name, _))| {
            let help = "leave it out, or give the quote that it signs in the same folder";
            Refusal::input(
                name,
                "it is as long as a signature, and signs no quote that was given",
                help,
            )
        },
    ));
    let submodule = |claims| Submodule::from(EvidenceClaims::Tpm(Box::new(claims)));
    Ok(found.into_iter().map(submodule).collect())
}

/// The register values that are shown. Bare ones have no mark, and may be as long as a signature:
/// what hashes to a quote's digest are the values that it covers.
fn shown_values(group: &Group) -> Result<PcrValues, Refusal> {
    let quotes: Vec<_> =
        group.all(Form::TpmQuote).iter().filter_map(|(_, bytes)| parse_quote(bytes).ok()).collect();
    let covered = |bytes: &[u8]| quotes.iter().find_map(|quote| PcrValues::of_quote(quote, bytes));
    let mut shown = PcrValues::default();
    for (name, bytes) in group.all(Form::PcrValues) {
        let values = covered(bytes).map_or_else(|| PcrValues::parse(bytes), Ok);
        values.and_then(|values| shown.add(values)).map_err(|e| Refusal::new(name, &e))?;
    }
    for (name, bytes) in group.all(Form::TpmSignature) {
        let values = covered(bytes).map_or(Ok(()), |values| shown.add(values));
        values.map_err(|e| Refusal::new(name, &e))?;
    }
    Ok(shown)
}

/// Whether these bytes are the register values that a quote covers: bare ones may be as long as a
/// signature.
fn are_values_of(quote: &[u8], bytes: &[u8]) -> bool {
    let digest = |quote: &Quote| {
        HashAlg::ALL.into_iter().any(|alg| alg.digest([bytes]).as_bytes() == quote.pcr_digest)
    };
    parse_quote(quote).is_ok_and(|quote| digest(&quote))
}

/// One quote, with the signature and the key at hand that fit it; the signature is then `used`.
#[expect(clippy::too_many_arguments, reason = "what is at hand for a quote, listed once")]
fn quote(
    group: &Group,
    message: &[u8],
    keys: &[(AttestationKey, Option<Certificate>)],
    pcrs: &PcrValues,
    log: Option<&[u8]>,
    shared: &Shared,
    terms: &Terms,
    used: &mut BTreeSet<usize>,
) -> Result<QuoteClaims, TpmError> {
    let nonce = (!shared.nonces.is_empty()).then(|| Nonce::any_of(shared.quoted_nonces()));
    let path = Path {
        intermediates: &shared.certificates,
        roots: shared.roots.as_deref().unwrap_or_default(),
        crls: &shared.crls,
    };
    // A log that cannot be read is refused, whichever signature is the quote's.
    log.map(|log| Log::parse(log, Registers::Pcrs)).transpose()?;
    let verify = |signature: &[u8], key: &AttestationKey, certificate: Option<&Certificate>| {
        let mut evidence = QuoteEvidence::parse(message, signature, key.clone())?;
        if !pcrs.is_empty() {
            evidence = evidence.with_pcrs(pcrs.clone());
        }
        if let Some(log) = log {
            evidence = evidence.with_event_log(log)?;
        }
        let certificate = certificate.filter(|_| shared.roots.is_some());
        let endorsement = certificate.map(|certificate| AkEndorsement { certificate, path });
        quote::verify(&evidence, nonce.as_ref(), endorsement.as_ref(), &terms.rules.tpm, terms.now)
    };
    let signatures = group.all(Form::TpmSignature).iter().enumerate();
    let candidates = signatures
        .flat_map(|(at, (_, signature))| keys.iter().map(move |key| (at, signature, key)));
    let verified = first_good(candidates, |(at, signature, (key, certificate))| {
        let attempted = verify(signature, key, certificate.as_ref());
        if !matches!(attempted, Err(TpmError::Signature { .. } | TpmError::Structure(_))) {
            used.insert(at);
        }
        attempted
    });
    verified.unwrap_or_else(|| Err(TpmError::Signature { scheme: "none".into() }))
}

/// The attestation keys that may have signed, each with its certificate, where one is at hand.
fn keys(
    group: &Group,
    shared: &Shared,
) -> Result<Vec<(AttestationKey, Option<Certificate>)>, Refusal> {
    let mut certificates = shared.certificates.clone();
    for (name, bytes) in group.all(Form::Certificates) {
        certificates.extend(Certificate::read_all(bytes).map_err(|e| Refusal::new(name, &e))?);
    }
    let mut found = Vec::new();
    for (name, bytes) in group.all(Form::TpmPublic).iter().chain(group.all(Form::PublicKey)) {
        let key = AttestationKey::parse(bytes).map_err(|e| Refusal::new(name, &e))?;
        let certificate =
            certificates.iter().find(|certificate| certificate.spki() == key.spki()).cloned();
        found.push((key, certificate));
    }
    // A public area says more of a key than its bare value.
    let named: Vec<_> =
        found.iter().filter(|(key, _)| key.name().is_some()).map(|(key, _)| key.spki()).collect();
    found.retain(|(key, _)| key.name().is_some() || !named.contains(&key.spki()));
    if found.is_empty() {
        let of = |certificate: Certificate| {
            Some((AttestationKey::parse(&certificate.spki()).ok()?, Some(certificate)))
        };
        found.extend(certificates.into_iter().filter_map(of));
    }
    if found.is_empty() {
        group.needed(Form::TpmPublic, "a TPM quote")?;
    }
    Ok(found)
}

const LOG: &str = "the event log";

/// A log without a quote: what it leads to, and whether that is what the given register values say.
pub(super) fn event_log(group: &Group) -> Verified {
    let fail = |reason: String| {
        Refusal::input(
            "the event log",
            reason,
            "the log or the values were changed, or belong to two boots",
        )
    };
    let bytes = group.needed(Form::EventLog, "an event log")?;
    let log = match Log::parse(bytes, Registers::Pcrs) {
        // A TD's log has no bank but SHA-384, and its first register is not PCR 0.
        Ok(log) if log.banks() != [HashAlg::Sha384] => log,
        other => {
            let log = CcEventLog::parse(bytes);
            let log = log.map_err(|e| {
                other.err().map_or_else(|| Refusal::new(LOG, &e), |e| Refusal::new(LOG, &e))
            })?;
            return cc_event_log(group, &log);
        }
    };
    let given = group.one(Form::PcrValues)?.map(PcrValues::parse).transpose();
    let given = given.map_err(|e| Refusal::new("the PCR values", &e))?;
    let mut banks = BTreeMap::new();
    let mut compared = false;
    for bank in log.banks() {
        let values = log.replay(*bank).unwrap_or_default();
        for (register, value) in &values {
            let shown = given.as_ref().and_then(|given| given.get(*bank, *register));
            compared |= shown.is_some();
            if shown.is_some_and(|shown| shown != value) {
                let shown = shown.map(ToString::to_string).unwrap_or_default();
                return Err(fail(format!(
                    "it replays {} PCR {register} to {value}, but the values say {shown}",
                    bank.name()
                )));
            }
        }
        banks.insert(*bank, values);
    }
    if given.is_some() && !compared {
        return Err(fail("the values given are of no bank and no register that it has".into()));
    }
    let mut not_checked = vec![unsigned()];
    if given.is_none() {
        not_checked
            .push(NotChecked::new("pcr-values", "no register values were given to compare with"));
    }
    let claims = EventLogClaims { events: log.records().len(), pcrs: banks, not_checked };
    Ok(EvidenceClaims::EventLog(claims).into())
}

/// A TD's log without a quote.
fn cc_event_log(group: &Group, log: &CcEventLog) -> Verified {
    if let [(name, _), ..] = group.all(Form::PcrValues) {
        let help = "give a TPM's values with the log of that TPM";
        return Err(Refusal::input(
            name,
            "a TPM's register values beside a TD's log: they were compared with nothing",
            help,
        ));
    }
    let claims = CcEventLogClaims {
        events: log.events().iter().map(Into::into).collect(),
        rtmrs: log.replay(),
        not_checked: vec![unsigned()],
    };
    Ok(EvidenceClaims::CcEventLog(Box::new(claims)).into())
}

fn unsigned() -> NotChecked {
    NotChecked::new("quote", "no quote was given: nobody vouches for this log")
}
