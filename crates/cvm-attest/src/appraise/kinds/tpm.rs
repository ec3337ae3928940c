//! TPM quotes, and event logs alone.

use serde_json::{Value, json};

use super::{Group, Refusal, Shared, Submodule, Terms, Verified};
use crate::{
    NotChecked,
    eventlog::{Log, Registers},
    files::Form,
    tpm::quote::{self, AkEndorsement, AttestationKey, Nonce, PcrValues, QuoteEvidence, TpmError, TpmPolicy},
    x509::{Certificate, Path},
};

pub(super) fn quotes(group: &Group, shared: &Shared, terms: &Terms) -> Result<Vec<Submodule>, Refusal> {
    let keys = keys(group, shared)?;
    let mut pcrs = PcrValues::default();
    for (name, bytes) in group.all(Form::PcrValues) {
        pcrs.add(PcrValues::parse(bytes).map_err(|e| Refusal::new(name, &e))?).map_err(|e| Refusal::new(name, &e))?;
    }
    let log = group.one(Form::EventLog)?;
    let nonce = (!shared.nonces.is_empty()).then(|| Nonce::any_of(shared.nonces.clone()));
    group
        .all(Form::TpmQuote)
        .iter()
        .map(|(name, message)| {
            // One TPM's quotes of several banks may lie together: the signature that fits is a quote's own.
            let mut last = group.needed(Form::TpmSignature, "a TPM quote").err();
            for (_, signature) in group.all(Form::TpmSignature) {
                for (key, certificate) in &keys {
                    let attempt = || {
                        let mut evidence = QuoteEvidence::parse(message, signature, key.clone())?;
                        if !pcrs.is_empty() {
                            evidence = evidence.with_pcrs(pcrs.clone());
                        }
                        if let Some(log) = log {
                            evidence = evidence.with_event_log(log)?;
                        }
                        let path = Path {
                            intermediates: &shared.certificates,
                            roots: shared.roots.as_deref().unwrap_or_default(),
                            crls: &shared.crls,
                        };
                        let endorsement = certificate.as_ref().filter(|_| shared.roots.is_some());
                        let endorsement = endorsement.map(|certificate| AkEndorsement { certificate, path });
                        quote::verify(&evidence, nonce.as_ref(), endorsement.as_ref(), &TpmPolicy::default(), terms.now)
                    };
                    match attempt() {
                        Ok(claims) => {
                            return Ok(Submodule {
                                prefix: "tpm",
                                kind: "tpm",
                                claims: claims.members(),
                                refusals: vec![],
                            });
                        }
                        // Another quote's signature says nothing about this one, where there is a better reason.
                        Err(TpmError::Signature { .. }) if last.as_ref().is_some_and(|r| r.code != "ATT-360") => {}
                        Err(error) => last = Some(Refusal::new(name, &error)),
                    }
                }
            }
            Err(last.unwrap_or_else(|| Refusal::input(name, "no signature fits", "give the quote's own signature")))
        })
        .collect()
}

/// The attestation keys that may have signed, each with its certificate, where one is at hand.
fn keys(group: &Group, shared: &Shared) -> Result<Vec<(AttestationKey, Option<Certificate>)>, Refusal> {
    let mut certificates = shared.certificates.clone();
    for (name, bytes) in group.all(Form::Certificates) {
        certificates.extend(Certificate::read_all(bytes).map_err(|e| Refusal::new(name, &e))?);
    }
    let mut found = Vec::new();
    for (name, bytes) in group.all(Form::TpmPublic).iter().chain(group.all(Form::PublicKey)) {
        let key = AttestationKey::parse(bytes).map_err(|e| Refusal::new(name, &e))?;
        let certificate = certificates.iter().find(|certificate| certificate.spki() == key.spki()).cloned();
        found.push((key, certificate));
    }
    // A public area says more of a key than its bare value.
    let named: Vec<_> = found.iter().filter(|(key, _)| key.name().is_some()).map(|(key, _)| key.spki()).collect();
    found.retain(|(key, _)| key.name().is_some() || !named.contains(&key.spki()));
    if found.is_empty() {
        let of = |certificate: Certificate| Some((AttestationKey::parse(&certificate.spki()).ok()?, Some(certificate)));
        found.extend(certificates.into_iter().filter_map(of));
    }
    if found.is_empty() {
        group.needed(Form::TpmPublic, "a TPM quote")?;
    }
    Ok(found)
}

/// A log without a quote: what it leads to, and whether that is what the given register values say.
pub(super) fn event_log(group: &Group) -> Verified {
    let fail = |reason: String| {
        Refusal::input("the event log", reason, "the log or the values were changed, or belong to two boots")
    };
    let bytes = group.needed(Form::EventLog, "an event log")?;
    let log = Log::parse(bytes, Registers::Pcrs).map_err(|e| Refusal::new("the event log", &e))?;
    let given = group.one(Form::PcrValues)?.map(PcrValues::parse).transpose();
    let given = given.map_err(|e| Refusal::new("the PCR values", &e))?;
    let mut banks = serde_json::Map::new();
    for bank in log.banks() {
        let values = log.replay(*bank).unwrap_or_default();
        for (register, value) in &values {
            let shown = given.as_ref().and_then(|given| given.get(*bank, *register));
            if shown.is_some_and(|shown| shown != value) {
                let shown = shown.map(ToString::to_string).unwrap_or_default();
                return Err(fail(format!(
                    "it replays {} PCR {register} to {value}, but the values say {shown}",
                    bank.name()
                )));
            }
        }
        let values = values.iter().map(|(register, value)| (register.to_string(), json!(value.to_string())));
        banks.insert(bank.name().into(), Value::Object(values.collect()));
    }
    let mut not_checked = vec![NotChecked::new("quote", "no quote was given: nobody vouches for this log")];
    if given.is_none() {
        not_checked.push(NotChecked::new("pcr-values", "no register values were given to compare with"));
    }
    let claims = json!({ "events": log.records().len(), "pcrs": banks, "not_checked": not_checked });
    Ok(Submodule { prefix: "collateral", kind: "event-log", claims, refusals: vec![] })
}
