//! The checks of a quote, in their order.

use std::collections::BTreeMap;

use cvm_base::sha256;

use super::{
    AkEndorsement, Nonce, QuoteClaims, QuoteEvidence, Registers, TpmError, TpmPolicy, endorsement,
    replay, selection::Selected,
};
use crate::{NotChecked, acpi};
use cvm_evidence::tpm::HashAlg;

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
    let mut banks = values(evidence, &selected, scheme.hash(), &mut not_checked)?;
    check_required(&selected, &banks, policy)?;
    let replayed = match &evidence.log {
        Some((_, log)) => replay::check(log, selected.bank, &banks, policy, &mut not_checked)?,
        None => {
            let reason = "no event log was given: nothing explains the PCR values";
            not_checked.push(NotChecked::new("event-log", reason));
            replay::Replayed::default()
        }
    };
    let ak_root_sha256 = match endorsement {
        Some(own) => Some(endorsement::check(ak, own, now, &mut not_checked)?),
        None => {
            not_checked.push(unendorsed());
            None
        }
    };
    not_checked.extend(ak.name().is_none().then(unknown_attributes));
    not_checked.push(acpi::in_pcr1());
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

fn unendorsed() -> NotChecked {
    let reason = "no certificate binds the attestation key to an endorsed TPM: any software could \
        own it";
    NotChecked::new("ak-endorsement", reason)
}

fn unknown_attributes() -> NotChecked {
    let reason = "only the key's value was given: whether it signs nothing but TPM statements is \
        unknown";
    NotChecked::new("ak-attributes", reason)
}

/// The values of the registers covered, in all banks; none where none were shown.
fn values(
    evidence: &QuoteEvidence<'_>,
    selected: &Selected,
    hash: HashAlg,
    not_checked: &mut Vec<NotChecked>,
) -> Result<BTreeMap<HashAlg, Registers>, TpmError> {
    let Some(values) = &evidence.pcrs else {
        let reason = "no PCR values were given: nothing shows what the quote's digest covers";
        not_checked.push(NotChecked::new("pcr-values", reason));
        return Ok(BTreeMap::new());
    };
    selected.check(values, hash, &evidence.quote.pcr_digest)
}

fn check_required(
    selected: &Selected,
    banks: &BTreeMap<HashAlg, Registers>,
    policy: &TpmPolicy,
) -> Result<(), TpmError> {
    let shown = banks.get(&selected.bank);
    let is_shown = |register: &u32| shown.is_some_and(|shown| shown.contains_key(register));
    match policy.required.iter().find(|register| !is_shown(register)) {
        None => Ok(()),
        Some(register) => {
            let bank = selected.bank;
            let problem = format!("register {register} of bank {bank} must be quoted and shown");
            Err(TpmError::Selection { found: selected.text.clone(), problem })
        }
    }
}
