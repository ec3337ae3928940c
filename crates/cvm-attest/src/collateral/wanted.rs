//! Which collateral a piece of evidence needs. Only what names it is read; nothing is verified.

use super::{CollateralError, DcapTee, Key, Product, Signer, Tcb, dcap, x509::Certificate};

/// What a SEV-SNP report needs: certificate, chain and revocation list. `product` for reports of version 2,
/// which do not say theirs; a report that does, must agree.
///
/// A VLEK is not among them: only the cloud provider can get it, and gives it to the guest with the report.
///
/// # Errors
/// [`CollateralError::Unknown`] for bytes that are no report, and where it is not known whose they are.
pub fn by_snp_report(report: &[u8], product: Option<Product>) -> Result<Vec<Key>, CollateralError> {
    let fail = |problem: &str| CollateralError::unknown("an SNP report", problem);
    // AMD 56860, table 23.
    let field = |at: usize, length: usize| report.get(at..at + length);
    let at = |at| report.get(at).copied();
    let version = field(0, 4).and_then(<[u8]>::first_chunk).map(|v| u32::from_le_bytes(*v));
    let (Some(2..=5), true) = (version, report.len() >= 1184) else {
        return Err(fail("1184 bytes of version 2 to 5 expected"));
    };
    let stated = match (version, at(0x188), at(0x189)) {
        (Some(2), ..) => None,
        (_, Some(family), Some(model)) => {
            Some(Product::from_cpuid(family, model).ok_or_else(|| fail("its processor is not known"))?)
        }
        _ => return Err(fail("too short")),
    };
    let product = match (stated, product) {
        (Some(stated), Some(given)) if stated != given => {
            return Err(fail(&format!("it is from {}, not from {}", stated.as_str(), given.as_str())));
        }
        (Some(product), _) | (None, Some(product)) => product,
        (None, None) => return Err(fail("version 2 does not name the processor: say --product")),
    };
    // KEY_INFO, bits 4:2: 0 VCEK, 1 VLEK.
    let signer = match at(0x48).map(|info| info >> 2 & 7) {
        Some(0) => Signer::Vcek,
        Some(1) => Signer::Vlek,
        _ => return Err(fail("it is signed with neither a VCEK nor a VLEK")),
    };
    let mut keys = vec![Key::AmdChain(signer, product), Key::AmdCrl(signer, product)];
    if signer == Signer::Vcek {
        let chip = field(0x1a0, product.hwid_bytes()).unwrap_or_default();
        if chip.iter().all(|byte| *byte == 0) {
            return Err(fail("its chip is masked: the host must turn MASK_CHIP_ID off, or give the VCEK to the guest"));
        }
        let tcb = field(0x180, 8).and_then(<[u8]>::first_chunk).ok_or_else(|| fail("too short"))?;
        keys.insert(0, Key::Vcek { product, hwid: chip.to_vec(), tcb: Tcb::from_version(product, *tcb) });
    }
    Ok(keys)
}

/// What a TDX or SGX quote needs: the DCAP collateral for the platform in its PCK certificate.
///
/// # Errors
/// [`CollateralError::Unknown`] for bytes that are no quote, or have no PCK certificate in them.
pub fn by_quote(quote: &[u8]) -> Result<Vec<Key>, CollateralError> {
    const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
    const END: &[u8] = b"-----END CERTIFICATE-----";
    let fail = |problem: &str| CollateralError::unknown("a quote", problem);
    let u16_at = |at: usize| quote.get(at..).and_then(<[u8]>::first_chunk).map(|v| u16::from_le_bytes(*v));
    let tee = quote.get(4..).and_then(<[u8]>::first_chunk).map(|v| u32::from_le_bytes(*v));
    let tee = match (u16_at(0), tee) {
        (Some(3..=5), Some(0)) => DcapTee::Sgx,
        (Some(4 | 5), Some(0x81)) => DcapTee::Tdx,
        _ => return Err(fail("version 3 to 5 for SGX or TDX expected")),
    };
    // The certification data of type 5 is PEM, its leaf first; where it lies differs from version to version.
    let at = |needle: &[u8], from: usize| quote.get(from..)?.windows(needle.len()).position(|w| w == needle);
    let begin = at(BEGIN, 0).ok_or_else(|| fail("no PCK certificate in it (certification data of another type)"))?;
    let length = at(END, begin).ok_or_else(|| fail("a PCK certificate without an end"))? + END.len();
    let pem = quote.get(begin..begin + length).unwrap_or_default();
    let leaf = Certificate::from_pem(pem).map_err(|problem| fail(&problem))?;
    let (fmspc, ca) = dcap::platform(leaf.first().ok_or_else(|| fail("no PCK certificate in it"))?)?;
    Ok(vec![Key::Dcap { tee, fmspc, ca }])
}
