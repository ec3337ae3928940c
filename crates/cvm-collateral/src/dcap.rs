//! Intel's DCAP collateral: one JSON document out of what four URLs of Intel answer.

use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use x509_cert::der::DateTime;

use crate::{
    certificates::{self, earliest},
    error::CollateralError,
    key::{DcapTee, Key, PckCa},
};
use cvm_verify::{
    files::signed_member,
    tdx,
    x509::{Certificate, crl_due},
};

/// The longest issuer chain in a header that is read, in bytes. Intel's have some 4 KiB.
const MAX_CHAIN_BYTES: usize = 32 * 1024;

/// Everything that the verification of a quote needs from Intel: the layout of the dcap-qvl crate's
/// `QuoteCollateralV3`, so that either program reads the other's file.
///
/// A `pck_certificate_chain` is never stored: it would replace the chain in the quote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuoteCollateral {
    /// PEM: the PCK authority, then Intel's root.
    pub pck_crl_issuer_chain: String,
    /// DER in hex: what Intel's root revoked.
    pub root_ca_crl: String,
    /// DER in hex: what the PCK authority revoked.
    pub pck_crl: String,
    /// PEM: Intel's TCB signer, then the root.
    pub tcb_info_issuer_chain: String,
    /// The member `tcbInfo` of Intel's answer, byte for byte.
    pub tcb_info: String,
    /// Hex: ECDSA signature over `tcb_info`.
    pub tcb_info_signature: String,
    /// PEM: Intel's TCB signer, then the root.
    pub qe_identity_issuer_chain: String,
    /// The member `enclaveIdentity` of Intel's answer, byte for byte.
    pub qe_identity: String,
    /// Hex: ECDSA signature over `qe_identity`.
    pub qe_identity_signature: String,
    /// Found in other programs' files; refused or dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pck_certificate_chain: Option<String>,
}

/// One answer of Intel's service.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// The body.
    pub body: &'a [u8],
    /// The header with the issuer's chain, as it came: PEM, percent-encoded. Empty for the root's
    /// CRL.
    pub issuer_chain: &'a str,
}

impl QuoteCollateral {
    /// Puts the four answers together: TCB info, QE identity, the PCK authority's CRL, the root's
    /// CRL.
    ///
    /// # Errors
    /// What is wrong, and with which answer.
    pub fn assemble(
        tcb: Answer<'_>,
        qe: Answer<'_>,
        pck_crl: Answer<'_>,
        root_crl: Answer<'_>,
    ) -> Result<Self, String> {
        let (tcb_info, tcb_info_signature) =
            signed(tcb.body, "tcbInfo").map_err(|e| format!("TCB info: {e}"))?;
        let (qe_identity, qe_identity_signature) =
            signed(qe.body, "enclaveIdentity").map_err(|e| format!("QE identity: {e}"))?;
        Ok(Self {
            pck_crl_issuer_chain: chain(pck_crl.issuer_chain)
                .map_err(|e| format!("PCK CRL: {e}"))?,
            root_ca_crl: crl_der(root_crl.body).map_err(|e| format!("root CRL: {e}"))?,
            pck_crl: crl_der(pck_crl.body).map_err(|e| format!("PCK CRL: {e}"))?,
            tcb_info_issuer_chain: chain(tcb.issuer_chain).map_err(|e| format!("TCB info: {e}"))?,
            tcb_info,
            tcb_info_signature,
            qe_identity_issuer_chain: chain(qe.issuer_chain)
                .map_err(|e| format!("QE identity: {e}"))?,
            qe_identity,
            qe_identity_signature,
            pck_certificate_chain: None,
        })
    }

    /// Reads a file that this or another program wrote. A `pck_certificate_chain` is dropped.
    ///
    /// # Errors
    /// What is wrong.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        let mut collateral: Self = serde_json::from_slice(json).map_err(|e| e.to_string())?;
        collateral.pck_certificate_chain = None;
        Ok(collateral)
    }

    /// As it is stored: one line of JSON.
    pub fn to_json(&self) -> Vec<u8> {
        // Serialization of strings cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The key to file it under, and the last second at which all of it is valid.
    ///
    /// # Errors
    /// What is wrong with one of its parts.
    pub(crate) fn inspect(&self) -> Result<(Key, u64), String> {
        let info: TcbInfo =
            serde_json::from_str(&self.tcb_info).map_err(|e| format!("TCB info: {e}"))?;
        let qe: QeIdentity =
            serde_json::from_str(&self.qe_identity).map_err(|e| format!("QE identity: {e}"))?;
        let tee = match (info.id.as_str(), qe.id.as_str()) {
            ("SGX", "QE") => DcapTee::Sgx,
            ("TDX", "TD_QE") => DcapTee::Tdx,
            (info, qe) => {
                return Err(format!("TCB info of {info:?} beside a QE identity of {qe:?}"));
            }
        };
        let mut fmspc = [0; 6];
        hex::decode_to_slice(&info.fmspc, &mut fmspc)
            .map_err(|_| format!("the FMSPC {:?}", info.fmspc))?;
        for (name, signature) in
            [("TCB info", &self.tcb_info_signature), ("QE identity", &self.qe_identity_signature)]
        {
            if signature.len() != 128 || hex::decode(signature).is_err() {
                return Err(format!("{name}: the signature is not 64 bytes in hex"));
            }
        }
        let list = |name: &str, text: &str| {
            let der = hex::decode(text).map_err(|_| format!("{name}: not hex"))?;
            crl_due(&der).map_err(|e| format!("{name}: {e}"))
        };
        let (root, root_until) = list("root CRL", &self.root_ca_crl)?;
        if root != "Intel SGX Root CA" {
            return Err(format!("the root CRL is by {root:?}"));
        }
        let (issuer, pck_until) = list("PCK CRL", &self.pck_crl)?;
        let ca = match issuer.as_str() {
            "Intel SGX PCK Platform CA" => PckCa::Platform,
            "Intel SGX PCK Processor CA" => PckCa::Processor,
            other => return Err(format!("the PCK CRL is by {other:?}")),
        };
        let mut until =
            root_until.min(pck_until).min(date(&info.next_update)?).min(date(&qe.next_update)?);
        for chain in [
            &self.pck_crl_issuer_chain,
            &self.tcb_info_issuer_chain,
            &self.qe_identity_issuer_chain,
        ] {
            until = until.min(earliest(&certificates::chain(chain.as_bytes())?).unwrap_or(0));
        }
        Ok((Key::Dcap { tee, fmspc, ca }, until))
    }
}

/// The members of Intel's TCB info that filing needs (PCS API v4, `TcbInfoV3`).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TcbInfo {
    id: String,
    fmspc: String,
    next_update: String,
}

/// The members of Intel's `EnclaveIdentityV2` that filing needs.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct QeIdentity {
    id: String,
    next_update: String,
}

/// The FMSPC and the authority of a PCK certificate.
pub(crate) fn platform(pck: &Certificate) -> Result<([u8; 6], PckCa), CollateralError> {
    let fail = |problem: String| CollateralError::unknown("a PCK certificate", problem);
    let ca = match pck.issuer_cn().as_str() {
        "Intel SGX PCK Platform CA" => PckCa::Platform,
        "Intel SGX PCK Processor CA" => PckCa::Processor,
        other => return Err(fail(format!("issued by {other:?}"))),
    };
    let fmspc = tdx::fmspc(pck).map_err(|e| fail(e.to_string()))?;
    Ok((fmspc, ca))
}

/// The member's own text, which Intel signed, and the signature.
fn signed(body: &[u8], member: &str) -> Result<(String, String), String> {
    signed_member(body, member)
        .ok_or_else(|| format!("expected JSON with {member} and its signature"))
}

/// A CRL in DER, in PEM or in hex (Intel's service and its caches answer each), as hex of the DER.
fn crl_der(body: &[u8]) -> Result<String, String> {
    if body.first() == Some(&0x30) && crl_due(body).is_ok() {
        return Ok(hex::encode(body));
    }
    let text = std::str::from_utf8(body).map_err(|_| "neither DER nor text")?.trim();
    let der = if text.starts_with("-----BEGIN X509 CRL-----") {
        rustls_pki_types::CertificateRevocationListDer::from_pem_slice(text.as_bytes())
            .map_err(|e| format!("not PEM: {e}"))?
            .to_vec()
    } else {
        hex::decode(text).map_err(|_| "neither DER, PEM nor hex")?
    };
    crl_due(&der).map_err(|e| e.to_string())?;
    Ok(hex::encode(der))
}

/// The chain in a header: percent-encoded PEM.
fn chain(header: &str) -> Result<String, String> {
    if header.is_empty() {
        return Err("the answer has no issuer chain in its header".into());
    }
    if header.len() > MAX_CHAIN_BYTES {
        return Err(format!(
            "an issuer chain of {} bytes, at most {MAX_CHAIN_BYTES} allowed",
            header.len()
        ));
    }
    let mut decoded = Vec::with_capacity(header.len());
    let mut rest = header.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let (byte, after) = match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let mut byte = [0];
                hex::decode_to_slice([*high, *low], &mut byte)
                    .map_err(|_| "a bad percent-encoding")?;
                (byte[0], after)
            }
            (b'%', _) => return Err("a bad percent-encoding".into()),
            (byte, after) => (*byte, after),
        };
        decoded.push(byte);
        rest = after;
    }
    let text = String::from_utf8(decoded).map_err(|_| "the issuer chain is not text")?;
    certificates::chain(text.as_bytes())?;
    Ok(text)
}

/// `2026-09-12T10:45:38Z` in seconds since 1970 UTC.
fn date(text: &str) -> Result<u64, String> {
    let date: DateTime =
        text.parse().map_err(|_| format!("{text:?} is not a date such as 2026-09-12T10:45:38Z"))?;
    Ok(date.unix_duration().as_secs())
}
