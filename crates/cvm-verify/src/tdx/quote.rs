//! DCAP quotes, parsed strictly (Intel TDX DCAP Quoting Library API, §A.3 and A.4; SGX ECDSA quote,
//! §A.4).
//!
//! | version | TEE | body |
//! |---|---|---|
//! | 3 | SGX | enclave report, 384 bytes |
//! | 4 | TDX | TD report 1.0, 584 bytes |
//! | 5 | TDX | a type and a size, then TD report 1.0 (type 2), 1.5 (3), 1.5 with service TDs (4) |

use cvm_base::Bytes;
use serde::{Deserialize, Serialize};

use super::TdxError;
use cvm_evidence::{rtmr::Bytes48, tpm::Reader};

/// More than any quote with its certificates; longer input is refused unread.
pub const MAX_QUOTE_BYTES: usize = 64 * 1024;

/// Certification data: PPID, encrypted (the PCK chain must come with the collateral).
const ENCRYPTED_PPID: [u16; 2] = [2, 3];
/// Certification data: the PCK certificate chain, PEM.
const PCK_CHAIN: u16 = 5;
/// Certification data: the QE's report, and certification data for that.
const QE_REPORT: u16 = 6;
/// ECDSA over P-256.
const ECDSA_P256: [u8; 2] = [2, 0];
/// The quoting enclaves' vendor: Intel.
const INTEL: [u8; 16] = [
    0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07,
];
pub(super) const SGX: [u8; 4] = [0, 0, 0, 0];
pub(super) const TDX: [u8; 4] = [0x81, 0, 0, 0];

/// The header, 48 bytes; numbers are little-endian, as in the quote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// 3, 4 or 5.
    pub version: Bytes<2>,
    /// 2: ECDSA-256 with P-256.
    pub att_key_type: Bytes<2>,
    /// 0 SGX, 0x81 TDX.
    pub tee_type: Bytes<4>,
    /// Reserved in TDX quotes; security versions of QE and PCE in version 3.
    pub reserved: Bytes<4>,
    /// The quoting enclave's vendor.
    pub vendor_id: Bytes<16>,
    /// The first 16 bytes name the platform's quoting enclave.
    pub user_data: Bytes<20>,
}

/// TD report 1.0, and what 1.5 adds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TdReport {
    /// TEE_TCB_SVN: byte 0 the TDX module's security version, byte 1 its major version, byte 2
    /// microcode's.
    pub tcb_svn: Bytes<16>,
    /// The TDX module's measurement.
    pub mr_seam: Bytes48,
    /// The TDX module's signer; zero for Intel's.
    pub mrsigner_seam: Bytes48,
    /// The TDX module's attributes.
    pub seam_attributes: Bytes<8>,
    /// The TD's attributes; see [`super::TdAttributes`].
    pub td_attributes: Bytes<8>,
    /// Which extended CPU state the TD may use.
    pub xfam: Bytes<8>,
    /// MRTD: what the TD was launched with.
    pub mr_td: Bytes48,
    /// Given by the host at launch: configuration that is not the owner's.
    pub mr_config_id: Bytes48,
    /// Given by the host at launch: the owner.
    pub mr_owner: Bytes48,
    /// Given by the host at launch: the owner's configuration.
    pub mr_owner_config: Bytes48,
    /// Firmware's configuration.
    pub rtmr_0: Bytes48,
    /// What firmware started.
    pub rtmr_1: Bytes48,
    /// What the loader started, and with which command line.
    pub rtmr_2: Bytes48,
    /// The system's own.
    pub rtmr_3: Bytes48,
    /// Given by the TD.
    pub report_data: Bytes<64>,
    /// TDX 1.5: TEE_TCB_SVN of the module that runs now; `tcb_svn` is that of the TD's launch.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tee_tcb_svn2: Option<Bytes<16>>,
    /// TDX 1.5: the service TDs bound to this one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mr_servicetd: Option<Bytes48>,
    /// Quote body type 4: the 237 bytes after the 1.5 report, uninterpreted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub extension: Option<Bytes<237>>,
}

/// An SGX enclave's report, 384 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnclaveReport {
    /// The processor's security version.
    pub cpu_svn: Bytes<16>,
    /// MISCSELECT.
    pub misc_select: Bytes<4>,
    /// Reserved.
    pub reserved1: Bytes<12>,
    /// The product's extended id.
    pub isv_ext_prod_id: Bytes<16>,
    /// ATTRIBUTES.FLAGS; bit 1 is debug.
    #[serde(rename = "attributes.flags")]
    pub flags: Bytes<8>,
    /// ATTRIBUTES.XFRM.
    #[serde(rename = "attributes.xfrm")]
    pub xfrm: Bytes<8>,
    /// The enclave's measurement.
    pub mr_enclave: Bytes<32>,
    /// Reserved.
    pub reserved2: Bytes<32>,
    /// The enclave's signer.
    pub mr_signer: Bytes<32>,
    /// Reserved.
    pub reserved3: Bytes<32>,
    /// CONFIGID.
    pub config_id: Bytes<64>,
    /// The product.
    pub isv_prod_id: Bytes<2>,
    /// The product's security version.
    pub isv_svn: Bytes<2>,
    /// CONFIGSVN.
    pub config_svn: Bytes<2>,
    /// Reserved.
    pub reserved4: Bytes<42>,
    /// The product's family.
    pub isv_family_id: Bytes<16>,
    /// Given by the enclave.
    pub report_data: Bytes<64>,
}

/// What the quote is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// An enclave.
    Sgx(Box<EnclaveReport>),
    /// A TD.
    Td(Box<TdReport>),
}

/// A quote that was read, and not yet believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// The header.
    pub header: Header,
    /// Version 5: the body's type and size, as in the quote.
    pub body_type: Option<(Bytes<2>, Bytes<4>)>,
    /// The body.
    pub body: Body,
    /// Header and body: what the attestation key signs.
    pub(super) signed: Vec<u8>,
    pub(super) signature: SignatureData,
}

/// What vouches for a quote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SignatureData {
    pub(super) signature: [u8; 64],
    pub(super) attestation_key: [u8; 64],
    pub(super) qe_report: EnclaveReport,
    pub(super) qe_report_bytes: [u8; 384],
    pub(super) qe_report_signature: [u8; 64],
    pub(super) qe_authentication: Vec<u8>,
    /// The PCK chain, PEM; none where the quote has an encrypted PPID instead.
    pub(super) pck_chain: Option<Vec<u8>>,
}

impl Quote {
    /// Reads a quote. Zeros after it are allowed: the kernel's buffer is larger than the quote.
    ///
    /// # Errors
    /// [`TdxError::Quote`], [`TdxError::Unsupported`].
    pub fn parse(bytes: &[u8]) -> Result<Self, TdxError> {
        if bytes.len() > MAX_QUOTE_BYTES {
            return Err(TdxError::quote(format!(
                "{} bytes, at most {MAX_QUOTE_BYTES} allowed",
                bytes.len()
            )));
        }
        let mut r = Reader::new("quote", bytes);
        let header = read_header(&mut r)?;
        let (body_type, body) = read_body(&mut r, &header)?;
        let signed = bytes.get(..bytes.len() - r.rest().len()).unwrap_or_default().to_vec();
        let size = r.u32_le().map_err(TdxError::quote)?;
        let mut s =
            Reader::new("quote's signature data", r.take(size as usize).map_err(TdxError::quote)?);
        if r.rest().iter().any(|byte| *byte != 0) {
            return Err(TdxError::quote(format!(
                "{} bytes after it that are not zero",
                r.rest().len()
            )));
        }
        let signature = read_signature_data(&mut s, matches!(body, Body::Td(_)))?;
        s.end().map_err(TdxError::quote)?;
        Ok(Self { header, body_type, body, signed, signature })
    }
}

fn read_header(r: &mut Reader<'_>) -> Result<Header, TdxError> {
    let version = array(r)?;
    let unsupported =
        |field, found: String, expected| Err(TdxError::Unsupported { field, found, expected });
    let header = Header {
        version,
        att_key_type: array(r)?,
        tee_type: array(r)?,
        reserved: array(r)?,
        vendor_id: array(r)?,
        user_data: array(r)?,
    };
    match (header.version.0, header.tee_type.0) {
        ([3, 0], SGX) | ([4 | 5, 0], TDX) => {}
        ([3..=5, 0], _) => {
            return unsupported(
                "TEE type",
                header.tee_type.to_string(),
                "00000000 in v3, 81000000 in v4, v5",
            );
        }
        _ => return unsupported("version", header.version.to_string(), "0300, 0400 and 0500"),
    }
    if header.att_key_type.0 != ECDSA_P256 {
        return unsupported(
            "attestation key type",
            header.att_key_type.to_string(),
            "0200, ECDSA-256 with P-256",
        );
    }
    if header.vendor_id.0 != INTEL {
        return unsupported("quoting enclave vendor", header.vendor_id.to_string(), "Intel's");
    }
    Ok(header)
}

type BodyType = Option<(Bytes<2>, Bytes<4>)>;

fn read_body(r: &mut Reader<'_>, header: &Header) -> Result<(BodyType, Body), TdxError> {
    match header.version.0 {
        [3, _] => Ok((None, Body::Sgx(Box::new(read_enclave(r)?)))),
        [4, _] => Ok((None, Body::Td(Box::new(read_td(r, 2)?)))),
        _ => {
            let (kind, size) = (array::<2>(r)?, array::<4>(r)?);
            let before = r.rest().len();
            let kind_number = u16::from_le_bytes(kind.0);
            if !(2..=4).contains(&kind_number) {
                let expected = "0200, 0300 and 0400: TD 1.0, 1.5, 1.5 extended";
                return Err(TdxError::Unsupported {
                    field: "body type",
                    found: kind.to_string(),
                    expected,
                });
            }
            let body = read_td(r, kind_number)?;
            let read = before - r.rest().len();
            if u32::from_le_bytes(size.0) as usize != read {
                return Err(TdxError::quote(format!(
                    "a body of size {size}, expected {read} bytes"
                )));
            }
            Ok((Some((kind, size)), Body::Td(Box::new(body))))
        }
    }
}

fn read_td(r: &mut Reader<'_>, kind: u16) -> Result<TdReport, TdxError> {
    Ok(TdReport {
        tcb_svn: array(r)?,
        mr_seam: array(r)?,
        mrsigner_seam: array(r)?,
        seam_attributes: array(r)?,
        td_attributes: array(r)?,
        xfam: array(r)?,
        mr_td: array(r)?,
        mr_config_id: array(r)?,
        mr_owner: array(r)?,
        mr_owner_config: array(r)?,
        rtmr_0: array(r)?,
        rtmr_1: array(r)?,
        rtmr_2: array(r)?,
        rtmr_3: array(r)?,
        report_data: array(r)?,
        tee_tcb_svn2: if kind > 2 { Some(array(r)?) } else { None },
        mr_servicetd: if kind > 2 { Some(array(r)?) } else { None },
        extension: if kind > 3 { Some(array(r)?) } else { None },
    })
}

fn read_enclave(r: &mut Reader<'_>) -> Result<EnclaveReport, TdxError> {
    Ok(EnclaveReport {
        cpu_svn: array(r)?,
        misc_select: array(r)?,
        reserved1: array(r)?,
        isv_ext_prod_id: array(r)?,
        flags: array(r)?,
        xfrm: array(r)?,
        mr_enclave: array(r)?,
        reserved2: array(r)?,
        mr_signer: array(r)?,
        reserved3: array(r)?,
        config_id: array(r)?,
        isv_prod_id: array(r)?,
        isv_svn: array(r)?,
        config_svn: array(r)?,
        reserved4: array(r)?,
        isv_family_id: array(r)?,
        report_data: array(r)?,
    })
}

/// Everything after the signed part; TDX quotes nest the QE's report in certification data of its
/// own.
fn read_signature_data(s: &mut Reader<'_>, nested: bool) -> Result<SignatureData, TdxError> {
    let (signature, attestation_key) = (array::<64>(s)?.0, array::<64>(s)?.0);
    if nested {
        let kind = s.u16_le().map_err(TdxError::quote)?;
        s.require("certification data type", QE_REPORT.into(), kind.into())
            .map_err(TdxError::quote)?;
        let size = s.u32_le().map_err(TdxError::quote)? as usize;
        if size != s.rest().len() {
            return Err(TdxError::quote(format!(
                "certification data of {size} bytes, {} left",
                s.rest().len()
            )));
        }
    }
    let qe_report_bytes = array::<384>(s)?.0;
    let qe_report = read_enclave(&mut Reader::new("QE report", &qe_report_bytes))?;
    let qe_report_signature = array::<64>(s)?.0;
    let size = s.u16_le().map_err(TdxError::quote)?;
    let qe_authentication = s.take(usize::from(size)).map_err(TdxError::quote)?.to_vec();
    let kind = s.u16_le().map_err(TdxError::quote)?;
    let size = s.u32_le().map_err(TdxError::quote)?;
    let data = s.take(size as usize).map_err(TdxError::quote)?;
    let pck_chain = match kind {
        PCK_CHAIN => Some(data.to_vec()),
        kind if ENCRYPTED_PPID.contains(&kind) => None,
        kind => {
            let expected = "5, a PCK chain, or 2 and 3, an encrypted PPID";
            return Err(TdxError::Unsupported {
                field: "certification data type",
                found: kind.to_string(),
                expected,
            });
        }
    };
    Ok(SignatureData {
        signature,
        attestation_key,
        qe_report,
        qe_report_bytes,
        qe_report_signature,
        qe_authentication,
        pck_chain,
    })
}

fn array<const N: usize>(r: &mut Reader<'_>) -> Result<Bytes<N>, TdxError> {
    r.array().map(Bytes).map_err(TdxError::quote)
}
