//! TDX and SGX quotes.

use super::nonce::{check_nonce_fits, report_data};
use crate::{
    appraise::{
        EvidenceClaims, Refusal, Terms,
        set::Group,
        stage::first_good,
        submodule::{Submodule, Verified},
        trust::Shared,
    },
    files::Form,
    tdx::{self, DcapVerifier, Quote, TdxError, TdxEvidence},
    x509::Certificate,
};

/// Runs `verify` on a quote, by the name that a refusal gives it, with the collateral that is at
/// hand: the group's own, or whichever of the shared ones fits. Without any, the claims say so.
pub(super) fn with_collateral<T>(
    group: &Group,
    shared: &Shared,
    now: u64,
    (of, quote): (&str, &Quote),
    verify: impl Fn(&DcapVerifier) -> Result<T, TdxError>,
) -> Result<T, Refusal> {
    let fail = |e: &_| Refusal::new(COLLATERAL, e);
    let roots = match &shared.roots {
        Some(roots) => roots.clone(),
        None => tdx::intel_roots().map_err(|e| fail(&e))?,
    };
    let documents: Vec<&[u8]> = match group.all(Form::DcapCollateral) {
        [] => shared.dcap.iter().map(Vec::as_slice).collect(),
        own => own.iter().map(|(_, bytes)| bytes.as_slice()).collect(),
    };
    let mut certificates = shared.certificates.clone();
    for (name, bytes) in group.all(Form::Certificates) {
        certificates.extend(Certificate::read_all(bytes).map_err(|e| Refusal::new(name, &e))?);
    }
    let Shared {
        tcb_infos,
        qe_identities,
        crls,
        given: [given, given_infos, given_identities],
        ..
    } = shared;
    let assemble =
        |infos, identities| tdx::Collateral::assemble(infos, identities, crls, &certificates);
    // Intel signed them all; of two lists that are valid, who presents the evidence may not choose
    // the older one.
    let mut candidates =
        given.iter().map(|bytes| tdx::Collateral::parse(bytes)).collect::<Vec<_>>();
    if !given_infos.is_empty() && !given_identities.is_empty() {
        candidates.extend(assemble(given_infos, given_identities));
    }
    candidates.extend(documents.into_iter().map(tdx::Collateral::parse));
    if !(tcb_infos.is_empty() && qe_identities.is_empty()) {
        candidates.extend(assemble(tcb_infos, qe_identities));
    }
    // A folder may hold collateral of several platforms.
    let with = first_good(candidates, |collateral| {
        let collateral = collateral?;
        let verifier = DcapVerifier::new(roots.clone(), Some(&collateral), now);
        let verified = verifier.and_then(|verifier| verify(&verifier));
        verified.map_err(|error| quote.differs_from(&collateral).unwrap_or(error))
    });
    match with {
        Some(Ok(verified)) => Ok(verified),
        Some(Err(error)) => {
            Err(Refusal::new(if error.is_of_collateral() { COLLATERAL } else { of }, &error))
        }
        None => {
            let verifier = DcapVerifier::new(roots, None, now).map_err(|e| fail(&e))?;
            verify(&verifier).map_err(|e| Refusal::new(of, &e))
        }
    }
}

const COLLATERAL: &str = "the DCAP collateral";

pub(super) fn tdx(quote: &[u8], group: &Group, shared: &Shared, terms: &Terms) -> Verified {
    let fail = |e: &_| Refusal::new("the TDX quote", e);
    let log = match group.one(Form::EventLog)? {
        Some(log) => Some(log),
        None => group.one(Form::DstackLog)?,
    };
    let evidence = TdxEvidence::parse(quote, log).map_err(|e| fail(&e))?;
    check_nonce_fits(shared)?;
    let claims = with_collateral(
        group,
        shared,
        terms.now,
        ("the TDX quote", evidence.quote()),
        |verifier| {
            let unbound = verifier.verify(&evidence, None, terms.now)?;
            match report_data(shared, &unbound.report_data.0) {
                None => Ok(unbound),
                Some(data) => verifier.verify(&evidence, Some(&data), terms.now),
            }
        },
    )?;
    let verdict = terms.rules.tdx.check(&claims);
    Ok(Submodule::judged(EvidenceClaims::Tdx(Box::new(claims)), verdict))
}

pub(super) fn sgx(quote: &[u8], group: &Group, shared: &Shared, terms: &Terms) -> Verified {
    let fail = |e: &_| Refusal::new("the SGX quote", e);
    let quote = Quote::parse(quote).map_err(|e| fail(&e))?;
    check_nonce_fits(shared)?;
    let claims =
        with_collateral(group, shared, terms.now, ("the SGX quote", &quote), |verifier| {
            let unbound = verifier.verify_sgx(&quote, None, terms.now)?;
            match report_data(shared, &unbound.report_data.0) {
                None => Ok(unbound),
                Some(data) => verifier.verify_sgx(&quote, Some(&data), terms.now),
            }
        })?;
    let verdict = terms.rules.sgx.check(&claims);
    Ok(Submodule::judged(EvidenceClaims::Sgx(Box::new(claims)), verdict))
}
