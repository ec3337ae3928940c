//! The checks of a quote, in their order.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use aws_lc_rs::{
    digest,
    signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey},
};
use cvm_base::Bytes;

use super::{
    Body, Collateral, EventClaim, Header, PlatformClaims, Quote, QuoteClaims, SgxClaims, SgxHeader,
    TdAttributes, TdReport, TdxClaims, TdxError, TdxEvidence,
    collateral::VerifiedCollateral,
    pck::{Pck, read_chain},
    qe::EnclaveIdentity,
    quote::SignatureData,
    tcb::Verdict,
};
use crate::{NotChecked, acpi, x509::Certificate};

/// Platforms whose chain is remembered; a fleet has fewer.
const MAX_CACHED_PLATFORMS: usize = 1024;

/// Verifies one quote. Who verifies many keeps a [`DcapVerifier`].
///
/// `roots` are trusted ([`intel_roots`] in production), `report_data` is what REPORT_DATA must be
/// (up to 64 bytes, then zeros), `now` is in seconds since 1970 UTC.
///
/// # Errors
/// [`TdxError`], for the first check that fails.
pub fn verify(
    evidence: &TdxEvidence,
    roots: Vec<Certificate>,
    collateral: Option<&Collateral>,
    report_data: Option<&[u8]>,
    now: u64,
) -> Result<TdxClaims, TdxError> {
    DcapVerifier::new(roots, collateral, now)?.verify(evidence, report_data, now)
}

/// Roots and collateral, verified once; each platform's chain is verified once. Dates are checked
/// against `now` with every quote.
#[derive(Debug)]
pub struct DcapVerifier {
    roots: Vec<Certificate>,
    collateral: Option<VerifiedCollateral>,
    /// Chains that were verified, by their SHA-256.
    platforms: Mutex<HashMap<[u8; 32], Arc<Pck>>>,
}

impl DcapVerifier {
    /// Verifies the collateral. Without any, quotes are held against Intel's known quoting
    /// enclaves, and the claims list what could not be checked.
    ///
    /// # Errors
    /// [`TdxError`] for collateral that is not signed below one of the roots or not valid at `now`.
    pub fn new(
        roots: Vec<Certificate>,
        collateral: Option<&Collateral>,
        now: u64,
    ) -> Result<Self, TdxError> {
        let collateral = collateral
            .map(|collateral| VerifiedCollateral::verify(collateral, &roots, now))
            .transpose()?;
        Ok(Self { roots, collateral, platforms: Mutex::default() })
    }

    /// Verifies a TD's quote, and replays its event log.
    ///
    /// # Errors
    /// [`TdxError`], for the first check that fails.
    pub fn verify(
        &self,
        evidence: &TdxEvidence,
        report_data: Option<&[u8]>,
        now: u64,
    ) -> Result<TdxClaims, TdxError> {
        let quote = &evidence.quote;
        let Body::Td(body) = &quote.body else {
            return Err(other_tee(&quote.header, "81000000 (TDX)"));
        };
        let (pck, verdict) = self.verify_quote(quote, now)?;
        let td_attributes = TdAttributes::new(body.td_attributes);
        check_report_data(&body.report_data, report_data)?;
        if let Some(log) = &evidence.event_log {
            log.check(&body.rtmrs())?;
        }

        let mut not_checked = self.not_checked(report_data);
        if evidence.event_log.is_none() {
            not_checked.push(NotChecked::new(
                "event-log",
                "no event log was given: nothing explains the RTMRs",
            ));
        }
        not_checked.push(acpi::in_rtmr0());
        Ok(TdxClaims {
            quote: QuoteClaims {
                header: quote.header.clone(),
                body_type: quote.body_type.map(|(kind, _)| kind),
                size: quote.body_type.map(|(_, size)| size),
                body: (**body).clone(),
            },
            td_attributes,
            report_data: body.report_data,
            init_data: body.mr_config_id,
            platform: self.platform_claims(&pck, verdict),
            uefi_event_logs: evidence
                .event_log
                .as_ref()
                .map(|log| log.events().iter().map(EventClaim::from).collect()),
            not_checked,
        })
    }

    /// Verifies an SGX enclave's quote (version 3). An enclave in debug mode is refused.
    ///
    /// # Errors
    /// [`TdxError`], for the first check that fails.
    pub fn verify_sgx(
        &self,
        quote: &Quote,
        report_data: Option<&[u8]>,
        now: u64,
    ) -> Result<SgxClaims, TdxError> {
        let Body::Sgx(body) = &quote.body else {
            return Err(other_tee(&quote.header, "00000000 (SGX)"));
        };
        let (pck, verdict) = self.verify_quote(quote, now)?;
        if body.is_debug() {
            return Err(TdxError::Policy {
                problem: "debug mode is enabled: the host can read the enclave".into(),
            });
        }
        check_report_data(&body.report_data, report_data)?;
        Ok(SgxClaims {
            header: SgxHeader::from(&quote.header),
            body: (**body).clone(),
            report_data: body.report_data,
            init_data: body.config_id,
            platform: self.platform_claims(&pck, verdict),
            not_checked: self.not_checked(report_data),
        })
    }

    /// From the root to the quote's signature, and what collateral says about the platform.
    fn verify_quote(
        &self,
        quote: &Quote,
        now: u64,
    ) -> Result<(Arc<Pck>, Option<Verdict>), TdxError> {
        let signature = &quote.signature;
        if let Some(collateral) = &self.collateral {
            collateral.check_dates(now)?;
        }
        let pck = self.platform(signature, now)?;
        pck.check_signature(&signature.qe_report_bytes, &signature.qe_report_signature)?;
        check_attestation_key(signature)?;
        let is_td = matches!(quote.body, Body::Td(_));
        let known;
        let identity = match &self.collateral {
            Some(collateral) if collateral.qe_identity.is_tdx() != is_td => {
                let [expected, found] =
                    [!is_td, is_td].map(|td| if td { "TDX" } else { "SGX" }.to_owned());
                return Err(TdxError::OtherPlatform { field: "quoting enclave", expected, found });
            }
            Some(collateral) => &collateral.qe_identity.enclave,
            None => {
                known = EnclaveIdentity::intel(is_td);
                &known
            }
        };
        identity.check(&signature.qe_report)?;
        let key = [&[0x04], &signature.attestation_key[..]].concat();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key)
            .verify(&quote.signed, &signature.signature)
            .map_err(|_| TdxError::Signature { what: "the quote", key: "the attestation key" })?;

        let Some(collateral) = &self.collateral else {
            if let Body::Td(td) = &quote.body {
                check_intel_module(td)?;
            }
            return Ok((pck, None));
        };
        let platform = match &quote.body {
            Body::Td(td) => collateral.tcb_info.td(&pck.extension, td)?,
            Body::Sgx(_) => collateral.tcb_info.sgx(&pck.extension)?,
        };
        let verdict = collateral.qe_identity.judge(&signature.qe_report, platform)?;
        Ok((pck, Some(verdict)))
    }

    /// The platform's certificate: from the quote, or from the collateral where the quote has none.
    fn platform(&self, signature: &SignatureData, now: u64) -> Result<Arc<Pck>, TdxError> {
        let from_collateral =
            self.collateral.as_ref().and_then(|collateral| collateral.pck_chain.as_deref());
        let chain = match (&signature.pck_chain, from_collateral) {
            (Some(own), None) => own,
            (Some(own), Some(other)) => {
                let read = || Some((read_chain(own).ok()?, read_chain(other).ok()?));
                let same = own == other || read().is_some_and(|(own, other)| own == other);
                if !same {
                    return Err(TdxError::pck("the collateral holds another chain than the quote"));
                }
                own
            }
            (None, Some(other)) => other,
            (None, None) => {
                return Err(TdxError::pck("neither the quote nor the collateral holds its chain"));
            }
        };
        let mut id = [0; 32];
        id.copy_from_slice(digest::digest(&digest::SHA256, chain).as_ref());
        let known = self.platforms.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        if let Some(pck) = known.filter(|pck| (pck.validity.0..=pck.validity.1).contains(&now)) {
            return Ok(pck);
        }
        let crls =
            self.collateral.as_ref().map(|collateral| &collateral.crls[..]).unwrap_or_default();
        let pck = Arc::new(Pck::verify(chain, &self.roots, crls, now)?);
        let mut platforms = self.platforms.lock().unwrap_or_else(PoisonError::into_inner);
        if platforms.len() >= MAX_CACHED_PLATFORMS {
            platforms.clear();
        }
        platforms.insert(id, Arc::clone(&pck));
        Ok(pck)
    }

    fn platform_claims(&self, pck: &Pck, verdict: Option<Verdict>) -> PlatformClaims {
        PlatformClaims::new(pck, self.collateral.as_ref().zip(verdict))
    }

    fn not_checked(&self, report_data: Option<&[u8]>) -> Vec<NotChecked> {
        let mut not_checked = Vec::new();
        if report_data.is_none() {
            not_checked.push(NotChecked::new(
                "report-data",
                "no expected value was given: the quote may be a replay",
            ));
        }
        if self.collateral.is_none() {
            not_checked.push(NotChecked::new("certificate-revocation", "no collateral was given"));
            not_checked.push(NotChecked::new(
                "tcb-status",
                "no collateral was given: security updates may be missing",
            ));
            not_checked.push(NotChecked::new(
                "qe-identity",
                "no collateral was given; held against the built-in one",
            ));
        }
        not_checked
    }
}

fn other_tee(header: &Header, expected: &'static str) -> TdxError {
    TdxError::Unsupported { field: "TEE type", found: header.tee_type.to_string(), expected }
}

/// The quoting enclave vouches for the attestation key: its REPORT_DATA starts with the key's hash.
fn check_attestation_key(signature: &SignatureData) -> Result<(), TdxError> {
    let hashed = [&signature.attestation_key[..], &signature.qe_authentication].concat();
    let mut expected = [0; 64];
    expected[..32].copy_from_slice(digest::digest(&digest::SHA256, &hashed).as_ref());
    let found = signature.qe_report.report_data;
    if found.0 != expected {
        let (expected, found) = (Bytes(expected).to_string(), found.to_string());
        return Err(TdxError::AttestationKey { expected, found });
    }
    Ok(())
}

/// Without TCB info: Intel's TDX module, as every TCB info published so far describes it.
fn check_intel_module(td: &TdReport) -> Result<(), TdxError> {
    if td.mrsigner_seam != Bytes([0; 48]) || td.seam_attributes != Bytes([0; 8]) {
        let found = format!("signer {}, attributes {}", td.mrsigner_seam, td.seam_attributes);
        return Err(TdxError::tcb(format!(
            "the TDX module is not Intel's production one: {found}"
        )));
    }
    Ok(())
}

fn check_report_data(found: &Bytes<64>, expected: Option<&[u8]>) -> Result<(), TdxError> {
    let Some(given) = expected else { return Ok(()) };
    let mut expected = [0; 64];
    match expected.get_mut(..given.len()) {
        // An empty expectation would be met by a quote that binds nothing.
        Some(head) if !given.is_empty() => head.copy_from_slice(given),
        _ => {
            let expected = format!("{} bytes, 1 to 64 allowed", given.len());
            return Err(TdxError::ReportData { expected, found: found.to_string() });
        }
    }
    if found.0 != expected {
        return Err(TdxError::ReportData {
            expected: Bytes(expected).to_string(),
            found: found.to_string(),
        });
    }
    Ok(())
}
