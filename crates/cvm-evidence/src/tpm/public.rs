//! TPMT_PUBLIC (TPM 2.0 part 2, §12.2.4): names, and what an attestation or endorsement key must
//! be.

use sha2::{Digest as _, Sha256, Sha384};

use super::{HashAlg, Key, Reader, spki};
use crate::AttestError;

const ALG_RSA: u16 = 0x0001;
const ALG_ECC: u16 = 0x0023;
const ALG_SHA1: u16 = 0x0004;
const ALG_SHA256: u16 = 0x000b;
const ALG_SHA384: u16 = 0x000c;
const ALG_AES: u16 = 0x0006;
const ALG_CFB: u16 = 0x0043;
const ALG_NULL: u16 = 0x0010;
const ALG_RSASSA: u16 = 0x0014;
const ALG_RSAES: u16 = 0x0015;
const ALG_RSAPSS: u16 = 0x0016;
const ALG_OAEP: u16 = 0x0017;
const ALG_ECDSA: u16 = 0x0018;
const CURVE_P256: u16 = 0x0003;
const CURVE_P384: u16 = 0x0004;

/// TPMA_OBJECT's bits (part 2, §8.3).
pub mod attributes {
    /// The key's hierarchy cannot change.
    pub const FIXED_TPM: u32 = 1 << 1;
    /// The key's parent cannot change.
    pub const FIXED_PARENT: u32 = 1 << 4;
    /// The TPM generated the private part.
    pub const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
    /// Its administration needs its policy.
    pub const ADMIN_WITH_POLICY: u32 = 1 << 7;
    /// It signs or decrypts only what the TPM itself made.
    pub const RESTRICTED: u32 = 1 << 16;
    /// It decrypts.
    pub const DECRYPT: u32 = 1 << 17;
    /// It signs.
    pub const SIGN: u32 = 1 << 18;
}

/// The hash that makes an object's Name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NameAlg {
    Sha256,
    Sha384,
}

/// How a key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SigningScheme {
    /// RSASSA-PKCS1-v1_5.
    RsaSsa(HashAlg),
    /// RSASSA-PSS.
    RsaPss(HashAlg),
    /// ECDSA.
    Ecdsa(HashAlg),
}

impl SigningScheme {
    /// The hash over the message; a quote's digest over PCR values uses the same.
    pub fn hash(self) -> HashAlg {
        match self {
            Self::RsaSsa(hash) | Self::RsaPss(hash) | Self::Ecdsa(hash) => hash,
        }
    }
}

impl std::fmt::Display for SigningScheme {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self {
            Self::RsaSsa(_) => "rsassa",
            Self::RsaPss(_) => "rsapss",
            Self::Ecdsa(_) => "ecdsa",
        };
        write!(f, "{name}-{}", self.hash())
    }
}

/// The signing scheme in a key's public area: its TPM_ALG_ID (TPMI_ALG_SIG_SCHEME or
/// TPMI_ALG_RSA_SCHEME), and its hash's, if any.
pub type Scheme = (u16, Option<u16>);

/// A parsed TPMT_PUBLIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Public {
    bytes: Vec<u8>,
    name_alg: NameAlg,
    attributes: u32,
    policy: Vec<u8>,
    symmetric: Option<u16>,
    scheme: Scheme,
    key: Key,
}

// Profile 2.3 §B.3.2: PolicySecret(TPM_RH_ENDORSEMENT), SHA-256.
const EK_POLICY_A: [u8; 32] = [
    0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xb3, 0xf8, 0x1a, 0x90, 0xcc, 0x8d, 0x46, 0xa5, 0xd7, 0x24,
    0xfd, 0x52, 0xd7, 0x6e, 0x06, 0x52, 0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b, 0x33, 0x14, 0x69, 0xaa,
];
// Profile 2.3 §B.3.3: fixedTPM, fixedParent, sensitiveDataOrigin, adminWithPolicy, restricted,
// decrypt.
const EK_ATTRIBUTES: u32 = attributes::FIXED_TPM
    | attributes::FIXED_PARENT
    | attributes::SENSITIVE_DATA_ORIGIN
    | attributes::ADMIN_WITH_POLICY
    | attributes::RESTRICTED
    | attributes::DECRYPT;

impl Public {
    /// Reads a marshalled TPMT_PUBLIC (no size before it): RSA, P-256 or P-384, named with SHA-256
    /// or SHA-384.
    ///
    /// # Errors
    /// [`AttestError::Malformed`] for anything else, and for trailing bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, AttestError> {
        let mut r = Reader::new("TPMT_PUBLIC", bytes);
        let kind = r.u16()?;
        let name_alg = match r.u16()? {
            ALG_SHA256 => NameAlg::Sha256,
            ALG_SHA384 => NameAlg::Sha384,
            ALG_SHA1 => {
                return Err(r.error(
                    "the key is named with SHA-1, which is not believed: make one with SHA-256",
                ));
            }
            other => {
                return Err(
                    r.error(format!("name algorithm {other:#06x}, expected SHA-256 or SHA-384"))
                );
            }
        };
        let attributes = r.u32()?;
        let policy = r.sized(64)?.to_vec();
        let symmetric = match r.u16()? {
            ALG_NULL => None,
            ALG_AES => {
                let bits = r.u16()?;
                let mode = r.u16()?;
                r.require("AES mode", ALG_CFB.into(), mode.into())?;
                Some(bits)
            }
            other => {
                return Err(
                    r.error(format!("symmetric algorithm {other:#06x}, expected AES or none"))
                );
            }
        };
        let scheme = read_scheme(&mut r)?;
        let key = match kind {
            ALG_RSA => read_rsa(&mut r)?,
            ALG_ECC => read_ecc(&mut r)?,
            other => return Err(r.error(format!("key type {other:#06x}, expected RSA or ECC"))),
        };
        r.end()?;
        Ok(Self { bytes: bytes.to_vec(), name_alg, attributes, policy, symmetric, scheme, key })
    }

    /// The bytes it was read from.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The key's type and value.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Its Name (part 1, §16): the name algorithm, then the hash of the whole public area.
    pub fn name(&self) -> Vec<u8> {
        match self.name_alg {
            NameAlg::Sha256 => {
                [&ALG_SHA256.to_be_bytes()[..], &Sha256::digest(&self.bytes)].concat()
            }
            NameAlg::Sha384 => {
                [&ALG_SHA384.to_be_bytes()[..], &Sha384::digest(&self.bytes)].concat()
            }
        }
    }

    /// The key as X.509 SubjectPublicKeyInfo, DER.
    pub fn spki(&self) -> Vec<u8> {
        spki::encode(&self.key)
    }

    /// The key's BIT STRING alone, DER: how a SubjectPublicKeyInfo ends whatever its algorithm
    /// identifier.
    pub fn spki_bit_string(&self) -> Vec<u8> {
        spki::bit_string(&self.key)
    }

    /// The scheme and hash with which an attestation key signs.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Checks that this key signs nothing but the TPM's own statements and never leaves its TPM,
    /// and that it signs as the keys that `cvm-init` makes.
    ///
    /// # Errors
    /// [`AttestError::AttestationKey`] naming the attribute or scheme.
    pub fn check_attestation_key(&self) -> Result<(), AttestError> {
        match (&self.key, self.check_restricted_signing()?) {
            (Key::P256 { .. }, SigningScheme::Ecdsa(HashAlg::Sha256))
            | (Key::P384 { .. }, SigningScheme::Ecdsa(HashAlg::Sha384))
            | (
                Key::Rsa { .. },
                SigningScheme::RsaSsa(HashAlg::Sha256) | SigningScheme::RsaPss(HashAlg::Sha256),
            ) => Ok(()),
            (_, scheme) => {
                Err(AttestError::AttestationKey { problem: format!("the scheme is {scheme}") })
            }
        }
    }

    /// Checks that this key signs nothing but the TPM's own statements and never leaves its TPM:
    /// the scheme with which it signs, of any hash but SHA-1.
    ///
    /// # Errors
    /// [`AttestError::AttestationKey`] naming the attribute or scheme.
    pub fn check_restricted_signing(&self) -> Result<SigningScheme, AttestError> {
        use attributes::{
            DECRYPT, FIXED_PARENT, FIXED_TPM, RESTRICTED, SENSITIVE_DATA_ORIGIN, SIGN,
        };
        let fail = |problem: String| Err(AttestError::AttestationKey { problem });
        let required = [
            (FIXED_TPM, "fixedTPM"),
            (FIXED_PARENT, "fixedParent"),
            (SENSITIVE_DATA_ORIGIN, "sensitiveDataOrigin"),
            // Without this one a signer could forge a quote: the magic is reserved only for
            // restricted keys.
            (RESTRICTED, "restricted"),
            (SIGN, "sign"),
        ];
        for (bit, name) in required {
            if self.attributes & bit == 0 {
                return fail(format!("{name} is clear"));
            }
        }
        if self.attributes & DECRYPT != 0 {
            return fail("decrypt is set".into());
        }
        let (id, hash) = (
            self.scheme.0,
            self.scheme.1.and_then(HashAlg::from_id).filter(|h| *h != HashAlg::Sha1),
        );
        match (&self.key, id, hash) {
            (Key::Rsa { .. }, ALG_RSASSA, Some(hash)) => Ok(SigningScheme::RsaSsa(hash)),
            (Key::Rsa { .. }, ALG_RSAPSS, Some(hash)) => Ok(SigningScheme::RsaPss(hash)),
            (Key::P256 { .. } | Key::P384 { .. }, ALG_ECDSA, Some(hash)) => {
                Ok(SigningScheme::Ecdsa(hash))
            }
            _ => fail(format!(
                "scheme {id:#06x} with hash {:#06x}",
                self.scheme.1.unwrap_or(ALG_NULL)
            )),
        }
    }

    /// Checks that this is an endorsement key by template L-1 or L-2 of TCG's EK Credential
    /// Profile: RSA-2048 or P-256, SHA-256, AES-128.
    ///
    /// # Errors
    /// [`AttestError::EndorsementTemplate`] naming the field.
    pub fn check_endorsement_key(&self) -> Result<(), AttestError> {
        let fail = |problem: String| Err(AttestError::EndorsementTemplate { problem });
        if self.attributes != EK_ATTRIBUTES {
            return fail(format!(
                "attributes {:#010x}, expected {EK_ATTRIBUTES:#010x}",
                self.attributes
            ));
        }
        if self.name_alg != NameAlg::Sha256 || self.policy != EK_POLICY_A {
            return fail("the policy is not PolicyA with SHA-256".into());
        }
        if self.symmetric != Some(128) || self.scheme != (ALG_NULL, None) {
            return fail("not AES-128-CFB and the null scheme".into());
        }
        match &self.key {
            Key::Rsa { modulus, exponent: 65_537 } if modulus.len() == 256 => Ok(()),
            Key::P256 { .. } => Ok(()),
            _ => fail("neither RSA-2048 with exponent 65537 nor P-256".into()),
        }
    }
}

fn read_scheme(r: &mut Reader<'_>) -> Result<Scheme, AttestError> {
    match r.u16()? {
        scheme @ (ALG_NULL | ALG_RSAES) => Ok((scheme, None)),
        scheme @ (ALG_RSASSA | ALG_RSAPSS | ALG_OAEP | ALG_ECDSA) => Ok((scheme, Some(r.u16()?))),
        other => {
            Err(r.error(format!("scheme {other:#06x} is not one that a PC Client TPM uses here")))
        }
    }
}

fn read_rsa(r: &mut Reader<'_>) -> Result<Key, AttestError> {
    let bits = usize::from(r.u16()?);
    let exponent = match r.u32()? {
        0 => 65_537, // Part 2 §12.2.3.5: zero means the default exponent.
        other => other,
    };
    let modulus = r.sized(512)?.to_vec();
    if !matches!(bits, 2048 | 3072 | 4096)
        || modulus.len() * 8 != bits
        || modulus.first().is_none_or(|b| b & 0x80 == 0)
    {
        return Err(r.error(format!(
            "a modulus of {} bytes for {bits} bits; 2048, 3072 or 4096 allowed",
            modulus.len()
        )));
    }
    Ok(Key::Rsa { modulus, exponent })
}

fn read_ecc(r: &mut Reader<'_>) -> Result<Key, AttestError> {
    let curve = r.u16()?;
    let kdf = r.u16()?;
    r.require("key derivation scheme", ALG_NULL.into(), kdf.into())?;
    match curve {
        CURVE_P256 => read_point::<32, 64>(r).map(|point| Key::P256 { point }),
        CURVE_P384 => read_point::<48, 96>(r).map(|point| Key::P384 { point }),
        other => Err(r.error(format!("curve {other:#06x}, expected P-256 or P-384"))),
    }
}

fn read_point<const COORDINATE: usize, const POINT: usize>(
    r: &mut Reader<'_>,
) -> Result<[u8; POINT], AttestError> {
    let mut point = [0; POINT];
    for half in point.chunks_exact_mut(COORDINATE) {
        // A TPM may strip a coordinate's leading zeros.
        let value = r.sized(COORDINATE)?;
        half[COORDINATE - value.len()..].copy_from_slice(value);
    }
    Ok(point)
}
