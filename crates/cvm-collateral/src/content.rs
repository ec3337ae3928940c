//! What a piece of collateral says about itself. It is filed only under that key, and only until
//! its own date.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{
    certificates::{chain, earliest},
    dcap::QuoteCollateral,
    error::CollateralError,
    key::{Key, Product, Signer, is_csp},
};
use cvm_verify::{
    snp::{Endorsement, SigningKey},
    x509::{Certificate, crl_due},
};

/// The most certificates that a manifest may carry. Known ones carry four.
const MAX_RIM_CERTIFICATES: usize = 16;

/// Checks that `bytes` are what `key` says. Returns the last second at which all of them are valid,
/// since 1970 UTC.
///
/// Checks no signature: the verifiers do that, each time they use a piece.
///
/// # Errors
/// [`CollateralError::Content`] for other bytes, [`CollateralError::TooMuch`] for too many.
pub fn check(key: &Key, bytes: &[u8]) -> Result<u64, CollateralError> {
    let fail = |problem: String| CollateralError::content(key, problem);
    if bytes.len() as u64 > key.limit() {
        return Err(CollateralError::TooMuch {
            what: key.to_string(),
            found: bytes.len() as u64,
            limit: key.limit(),
        });
    }
    let (found, until) = match key {
        Key::Rim(id) => return rim(id, bytes).map_err(fail),
        // AMD's two lists have the same issuer. Only the URL tells which one it is.
        Key::AmdCrl(signer, _) => {
            let (product, until) = amd_crl(bytes).map_err(fail)?;
            (Key::AmdCrl(*signer, product), until)
        }
        Key::Dcap { .. } => {
            let collateral = QuoteCollateral::parse(bytes).map_err(fail)?;
            if collateral.to_json() != bytes {
                return Err(fail("not in the form in which it is stored".into()));
            }
            collateral.inspect().map_err(fail)?
        }
        Key::AmdChain(..) => amd_chain(bytes).map_err(fail)?,
        Key::Vcek { .. } | Key::Vlek { .. } => amd_certificate(bytes).map_err(fail)?,
    };
    if found == *key { Ok(until) } else { Err(fail(format!("it is {found}"))) }
}

/// Recognises a file that a user imports: its key, and its bytes in the form in which a cache
/// stores them.
///
/// An NVIDIA manifest does not say its own name, so it needs a key from the caller. AMD's list for
/// VCEKs and its list for VLEKs look alike; a list is taken as the one for VCEKs.
///
/// # Errors
/// [`CollateralError::Unknown`] for any other file, and as [`check`].
pub fn identify(bytes: &[u8]) -> Result<(Key, Vec<u8>), CollateralError> {
    let fail = |problem: String| CollateralError::unknown("a file to import", problem);
    let text = std::str::from_utf8(bytes).map(str::trim_start).unwrap_or_default();
    let (key, stored) = if text.starts_with('{') {
        let collateral =
            QuoteCollateral::parse(bytes).map_err(|e| fail(format!("not DCAP collateral: {e}")))?;
        (
            collateral.inspect().map_err(|e| fail(format!("DCAP collateral: {e}")))?.0,
            collateral.to_json(),
        )
    } else if text.contains("-----BEGIN CERTIFICATE-----") {
        match chain(bytes).map_err(&fail)?.as_slice() {
            [one] if one.subject_cn() == "SEV-VCEK" || one.subject_cn() == "SEV-VLEK" => {
                return Err(fail(
                    "a VCEK or VLEK is imported as DER: `openssl x509 -outform DER`".into(),
                ));
            }
            _ => (amd_chain(bytes).map_err(fail)?.0, bytes.to_vec()),
        }
    } else if text.starts_with('<') {
        return Err(fail("a manifest does not say its name: import it as NAME=FILE".into()));
    } else if crl_due(bytes).is_ok() {
        (Key::AmdCrl(Signer::Vcek, amd_crl(bytes).map_err(fail)?.0), bytes.to_vec())
    } else {
        (amd_certificate(bytes).map_err(fail)?.0, bytes.to_vec())
    };
    check(&key, &stored)?;
    Ok((key, stored))
}

/// A VCEK or a VLEK.
fn amd_certificate(der: &[u8]) -> Result<(Key, u64), String> {
    let certificate = Certificate::from_der(der).map_err(|e| e.to_string())?;
    let kind = Endorsement::kind(&certificate).ok_or_else(|| {
        format!("a certificate of {:?}, expected SEV-VCEK or SEV-VLEK", certificate.subject_cn())
    })?;
    let Endorsement { product, tcb, hw_id, csp_id, .. } =
        Endorsement::read(&certificate, kind).map_err(|e| e.to_string())?;
    let (product, tcb) = (product.into(), tcb.into());
    let key = match kind {
        SigningKey::Vcek => Key::Vcek { product, hwid: hw_id.ok_or("no chip")?, tcb },
        SigningKey::Vlek => {
            let csp = csp_id.filter(|csp| is_csp(csp)).ok_or("the provider's name is unusable")?;
            Key::Vlek { product, csp, tcb }
        }
    };
    Ok((key, certificate.validity().1))
}

/// ASK or ASVK, then ARK.
fn amd_chain(pem: &[u8]) -> Result<(Key, u64), String> {
    let chain = chain(pem)?;
    let [authority, root] = chain.as_slice() else {
        return Err(format!("{} certificates, expected two: ASK or ASVK, then ARK", chain.len()));
    };
    let (authority, root) = (authority.subject_cn(), root.subject_cn());
    let (signer, line) = match authority.strip_prefix("SEV-VLEK-") {
        Some(line) => (Signer::Vlek, Some(line)),
        None => (Signer::Vcek, authority.strip_prefix("SEV-")),
    };
    let product = line
        .and_then(Product::from_name)
        .filter(|product| root == format!("ARK-{}", product.as_str()));
    let product = product
        .ok_or_else(|| format!("{authority:?} and {root:?} are not ASK and ARK of one product"))?;
    Ok((Key::AmdChain(signer, product), earliest(&chain).unwrap_or(0)))
}

fn amd_crl(der: &[u8]) -> Result<(Product, u64), String> {
    let (issuer, until) = crl_due(der).map_err(|e| e.to_string())?;
    // The ARK of the product line signs both lists; the name of a VLEK's authority is accepted too.
    let line = ["ARK-", "SEV-VLEK-", "SEV-"].iter().find_map(|prefix| issuer.strip_prefix(prefix));
    let product = line
        .and_then(Product::from_name)
        .ok_or_else(|| format!("a list by {issuer:?}, not by AMD"))?;
    Ok((product, until))
}

/// An NVIDIA manifest: its name ends in its version, and its signers' certificates limit its life.
fn rim(id: &str, xml: &[u8]) -> Result<u64, String> {
    let text = std::str::from_utf8(xml).map_err(|_| "not UTF-8 text")?;
    if !text.trim_start().starts_with('<') || !text.contains("SoftwareIdentity") {
        return Err("not a SWID tag".into());
    }
    let version = text.split("colloquialVersion=\"").nth(1).and_then(|rest| rest.split('"').next());
    let version = version
        .filter(|version| (1..=64).contains(&version.len()))
        .ok_or("no colloquialVersion")?;
    let last = id.rsplit('_').next().unwrap_or_default();
    if last != version && last != version.replace('.', "") {
        return Err(format!("its version is {version:?}"));
    }
    let mut until = None::<u64>;
    let mut rest = text;
    for _ in 0..=MAX_RIM_CERTIFICATES {
        // Also with a prefix, as `<ds:X509Certificate>`.
        let Some((_, after)) = rest.split_once("X509Certificate>") else {
            return until.ok_or("no certificate of its signer".into());
        };
        let (base64, after) = after.split_once("</").ok_or("a certificate without an end")?;
        let base64: String = base64.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let der = STANDARD.decode(base64).map_err(|e| format!("a certificate: {e}"))?;
        let not_after = Certificate::from_der(&der).map_err(|e| e.to_string())?.validity().1;
        until = Some(until.map_or(not_after, |until| until.min(not_after)));
        rest = after.split_once("X509Certificate>").ok_or("a certificate without an end")?.1;
    }
    Err(format!("more than {MAX_RIM_CERTIFICATES} certificates"))
}
