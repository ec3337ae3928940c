//! What AMD states in a VCEK's or VLEK's certificate (AMD 57230 and 58369, "Certificate and KDS
//! Interface Specification", chapter 3).

use x509_cert::der::{
    Decode,
    asn1::{Ia5StringRef, OctetStringRef},
};

use super::{Product, SigningKey, SnpError, Tcb};
use crate::x509::Certificate;

const PRODUCT_NAME: &str = "1.3.6.1.4.1.3704.1.2";
const BOOTLOADER: &str = "1.3.6.1.4.1.3704.1.3.1";
const TEE: &str = "1.3.6.1.4.1.3704.1.3.2";
const SNP: &str = "1.3.6.1.4.1.3704.1.3.3";
const MICROCODE: &str = "1.3.6.1.4.1.3704.1.3.8";
const FMC: &str = "1.3.6.1.4.1.3704.1.3.9";
const HW_ID: &str = "1.3.6.1.4.1.3704.1.4";
const CSP_ID: &str = "1.3.6.1.4.1.3704.1.5";

/// An endorsement key's certificate, read and not yet believed.
#[derive(Debug, Clone)]
pub struct Endorsement {
    /// VCEK or VLEK.
    pub kind: SigningKey,
    /// The product that [`Endorsement::product_name`] names.
    pub product: Product,
    /// As AMD wrote it, with the stepping in a VCEK.
    pub product_name: String,
    /// The key was derived from it.
    pub tcb: Tcb,
    /// A VCEK's chip.
    pub hw_id: Option<Vec<u8>>,
    /// A VLEK's cloud.
    pub csp_id: Option<String>,
    /// Uncompressed.
    pub point: [u8; 97],
}

impl Endorsement {
    /// Which kind of endorsement key the certificate's subject names, if any.
    pub fn kind(certificate: &Certificate) -> Option<SigningKey> {
        let subject = certificate.subject();
        [SigningKey::Vcek, SigningKey::Vlek]
            .into_iter()
            .find(|kind| names(&subject, &format!("SEV-{kind}")))
    }

    /// Reads the certificate of a key of this kind.
    ///
    /// # Errors
    /// [`SnpError::Chain`] for a missing or malformed extension.
    pub fn read(certificate: &Certificate, kind: SigningKey) -> Result<Self, SnpError> {
        let required = |oid: &'static str| {
            certificate.extension(oid)?.ok_or_else(|| {
                SnpError::certificates(format!("the {kind} certificate lacks extension {oid}"))
            })
        };
        let number = |oid: &'static str| {
            u8::from_der(required(oid)?).map_err(|_| {
                SnpError::certificates(format!(
                    "extension {oid} of the {kind} is not a number below 256"
                ))
            })
        };
        let text = |oid: &'static str| {
            Ia5StringRef::from_der(required(oid)?).map(|text| text.as_str().to_owned()).map_err(
                |_| {
                    SnpError::certificates(format!(
                        "extension {oid} of the {kind} is not an IA5String"
                    ))
                },
            )
        };
        let absent = |oid: &'static str| match certificate.extension(oid)? {
            None => Ok(()),
            Some(_) => Err(SnpError::certificates(format!(
                "a {kind} certificate cannot have extension {oid}"
            ))),
        };
        let product_name = text(PRODUCT_NAME)?;
        let product = product(&product_name)?;
        let fmc = match product {
            Product::Turin => Some(number(FMC)?),
            _ => None,
        };
        let tcb = Tcb {
            fmc,
            bootloader: number(BOOTLOADER)?,
            tee: number(TEE)?,
            snp: number(SNP)?,
            microcode: number(MICROCODE)?,
        };
        let (hw_id, csp_id) = match kind {
            SigningKey::Vcek => {
                absent(CSP_ID)?;
                (Some(chip_id(required(HW_ID)?, product)?), None)
            }
            SigningKey::Vlek => {
                absent(HW_ID)?;
                let csp = text(CSP_ID)?;
                if csp.is_empty() {
                    return Err(SnpError::certificates("the VLEK names no cloud"));
                }
                (None, Some(csp))
            }
        };
        let point = point(certificate, kind)?;
        Ok(Self { kind, product, product_name, tcb, hw_id, csp_id, point })
    }

    /// The common name of the key that signs such a certificate.
    pub(super) fn issuer(&self) -> String {
        match self.kind {
            SigningKey::Vcek => format!("SEV-{}", self.product.line()),
            SigningKey::Vlek => format!("SEV-VLEK-{}", self.product.line()),
        }
    }
}

fn product(name: &str) -> Result<Product, SnpError> {
    Product::from_name(name).ok_or_else(|| {
        SnpError::product(format!(
            "the certificate names {name:?}, which this program does not know"
        ))
    })
}

fn point(certificate: &Certificate, kind: SigningKey) -> Result<[u8; 97], SnpError> {
    certificate.public_key().try_into().map_err(|_| {
        SnpError::certificates(format!("the {kind}'s key is not an uncompressed point of P-384"))
    })
}

/// Whether a name (RFC 4514) has this common name. AMD's need no escapes; one could hide a comma.
pub(super) fn names(name: &str, common_name: &str) -> bool {
    !name.contains('\\')
        && name.split(',').any(|part| part.strip_prefix("CN=") == Some(common_name))
}

/// The hwID: 64 bytes, 8 on Turin. Most certificates hold the bytes as they are, some an OCTET
/// STRING of them.
fn chip_id(extension: &[u8], product: Product) -> Result<Vec<u8>, SnpError> {
    let bytes = product.chip_id_bytes();
    let id = match <&OctetStringRef>::from_der(extension) {
        _ if extension.len() == bytes => extension,
        Ok(id) if id.as_bytes().len() == bytes => id.as_bytes(),
        _ => {
            let problem =
                format!("the VCEK's chip id has {} bytes; {product} uses {bytes}", extension.len());
            return Err(SnpError::certificates(problem));
        }
    };
    Ok(id.to_vec())
}
