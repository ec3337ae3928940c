//! The issuer's keys: a JWKS (RFC 7517) or one PEM key, as the caller got it from the issuer.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RsaParameters,
    RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD as B64},
};
use rustls_pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};
use serde_json::{Map, Value};
use x509_cert::{
    der::{Decode, oid::ObjectIdentifier},
    spki::SubjectPublicKeyInfoRef,
};

use super::{
    Algorithm, TokenError,
    json::{self, short},
};
use crate::x509::{Certificate, Path};

/// The longest key set that is looked at: Azure's holds six keys with chains in some 40 KiB.
pub const MAX_KEY_SET_BYTES: usize = 1024 * 1024;
const MAX_KEYS: usize = 64;
const MAX_CHAIN: usize = 8;

/// Keys of one issuer. Nothing is ever added to it from a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySet {
    keys: Vec<Key>,
    roots: Option<Vec<Certificate>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    /// `None` only for a PEM key, which is the only one of its set.
    kid: Option<String>,
    /// The algorithm that the key itself names.
    alg: Option<String>,
    material: Material,
    chain: Vec<Certificate>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// PKCS #1 DER, as a certificate holds it.
    RsaDer(Vec<u8>),
    P256(Vec<u8>),
    P384(Vec<u8>),
    /// A key that verifies nothing here, and why; kept so that a message can say so.
    Unusable(String),
}

impl KeySet {
    /// Reads a JWKS, or one PEM public key.
    ///
    /// # Errors
    /// [`TokenError::Keys`] for anything else, more than [`MAX_KEY_SET_BYTES`], or no key that can
    /// be used. One that is not understood is passed over beside others (RFC 7517 §5).
    pub fn parse(bytes: &[u8]) -> Result<Self, TokenError> {
        if bytes.len() > MAX_KEY_SET_BYTES {
            let problem = format!("{} bytes, at most {MAX_KEY_SET_BYTES} allowed", bytes.len());
            return Err(TokenError::keys(problem));
        }
        // RFC 8259 §8.1: a reader may ignore a byte order mark.
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        if bytes.trim_ascii_start().starts_with(b"-----BEGIN") {
            from_pem(bytes)
        } else {
            from_jwks(bytes)
        }
    }

    /// Requires that each key used is certified (`x5c`) under one of these roots at the time of
    /// use.
    pub fn with_roots(self, roots: Vec<Certificate>) -> Self {
        Self { roots: Some(roots), ..self }
    }

    /// The one key that a header's `kid` names, if it is of the type that `alg` needs.
    pub(super) fn select(
        &self,
        kid: Option<&str>,
        alg: Algorithm,
        now: u64,
    ) -> Result<&Key, TokenError> {
        let unverifiable = |problem: String| TokenError::Unverifiable { problem };
        let key = match (self.keys.as_slice(), kid) {
            ([only], _) if only.kid.is_none() => only,
            (_, None) => return Err(unverifiable("the token names no key (kid)".into())),
            (keys, Some(kid)) => {
                let named = || keys.iter().filter(|key| key.kid.as_deref() == Some(kid));
                let mut usable =
                    named().filter(|key| !matches!(key.material, Material::Unusable(_)));
                match (usable.next().or_else(|| named().next()), usable.next()) {
                    (Some(key), None) => key,
                    (Some(_), Some(_)) => {
                        return Err(unverifiable(format!("two keys are named {:?}", short(kid))));
                    }
                    (None, _) => {
                        return Err(unverifiable(format!(
                            "no key named {:?} is among those given",
                            short(kid)
                        )));
                    }
                }
            }
        };
        key.allows(alg).map_err(unverifiable)?;
        if let Some(roots) = &self.roots {
            let (leaf, intermediates) = key.chain.split_first().ok_or_else(|| {
                unverifiable("roots are given, but the key has no certificate (x5c)".into())
            })?;
            Path { intermediates, roots, crls: &[] }
                .verify(leaf, now)
                .map_err(|e| unverifiable(format!("its key's certificate: {e}")))?;
        }
        Ok(key)
    }
}

impl Key {
    /// The key decides, not the token: RSA keys know no ECDSA, and no public key is an HMAC's
    /// secret.
    fn allows(&self, alg: Algorithm) -> Result<(), String> {
        use Algorithm::{Es256, Es384, Ps256, Ps384, Rs256, Rs384};
        let fits = match &self.material {
            Material::Rsa { .. } | Material::RsaDer(_) => {
                matches!(alg, Rs256 | Rs384 | Ps256 | Ps384)
            }
            Material::P256(_) => alg == Es256,
            Material::P384(_) => alg == Es384,
            Material::Unusable(problem) => {
                return Err(format!("its key is not usable here: {problem}"));
            }
        };
        if !fits {
            return Err(format!("the token says {}, which its key is not made for", alg.as_str()));
        }
        match &self.alg {
            Some(own) if own != alg.as_str() => Err(format!(
                "the token says {}, but its key is for {} only",
                alg.as_str(),
                short(own)
            )),
            _ => Ok(()),
        }
    }

    pub(super) fn verify(
        &self,
        alg: Algorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), TokenError> {
        let rsa: &RsaParameters = match alg {
            Algorithm::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
            Algorithm::Ps256 => &RSA_PSS_2048_8192_SHA256,
            Algorithm::Ps384 => &RSA_PSS_2048_8192_SHA384,
            _ => &RSA_PKCS1_2048_8192_SHA256,
        };
        let verified = match &self.material {
            Material::Rsa { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(rsa, message, signature)
            }
            Material::RsaDer(der) => UnparsedPublicKey::new(rsa, der).verify(message, signature),
            Material::P256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
            }
            Material::P384(point) => {
                UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).verify(message, signature)
            }
            Material::Unusable(_) => Err(aws_lc_rs::error::Unspecified),
        };
        let kid = self.kid.as_deref().unwrap_or("(PEM)");
        verified.map_err(|_| TokenError::Signature { kid: short(kid) })
    }
}

fn from_pem(bytes: &[u8]) -> Result<KeySet, TokenError> {
    let mut keys = SubjectPublicKeyInfoDer::pem_slice_iter(bytes);
    let (Some(Ok(spki)), None) = (keys.next(), keys.next()) else {
        return Err(TokenError::keys("expected exactly one PEM block, PUBLIC KEY"));
    };
    let spki = SubjectPublicKeyInfoRef::from_der(&spki)
        .map_err(|e| TokenError::keys(format!("the PEM key: {e}")))?;
    let bits = spki.subject_public_key.raw_bytes().to_vec();
    let curve = spki.algorithm.parameters.and_then(|p| p.decode_as::<ObjectIdentifier>().ok());
    // RFC 8017 appendix C and RFC 5480 §2.1.1.1.
    let material = match (
        spki.algorithm.oid.to_string().as_str(),
        curve.map(|oid| oid.to_string()).as_deref(),
    ) {
        ("1.2.840.113549.1.1.1", _) => Material::RsaDer(bits),
        ("1.2.840.10045.2.1", Some("1.2.840.10045.3.1.7")) => Material::P256(bits),
        ("1.2.840.10045.2.1", Some("1.3.132.0.34")) => Material::P384(bits),
        (oid, _) => {
            return Err(TokenError::keys(format!(
                "the PEM key is of kind {oid}, expected RSA, P-256 or P-384"
            )));
        }
    };
    Ok(KeySet {
        keys: vec![Key { kid: None, alg: None, material, chain: Vec::new() }],
        roots: None,
    })
}

fn from_jwks(bytes: &[u8]) -> Result<KeySet, TokenError> {
    let set = json::object("the key set", bytes)?;
    let Some(Value::Array(keys)) = set.get("keys") else {
        return Err(TokenError::keys("expected a JWKS: an object with an array \"keys\""));
    };
    if keys.len() > MAX_KEYS {
        return Err(TokenError::keys(format!("{} keys, at most {MAX_KEYS} allowed", keys.len())));
    }
    let keys: Vec<_> = keys.iter().filter_map(Value::as_object).filter_map(read_jwk).collect();
    let problem = |key: &Key| match &key.material {
        Material::Unusable(problem) => {
            Some(format!("key {:?}: {problem}", short(key.kid.as_deref().unwrap_or(""))))
        }
        _ => None,
    };
    let problems: Vec<_> = keys.iter().map_while(problem).collect();
    if problems.len() < keys.len() {
        return Ok(KeySet { keys, roots: None });
    }
    let problem = problems
        .into_iter()
        .next()
        .unwrap_or_else(|| "no key for signatures has a name (kid)".into());
    Err(TokenError::keys(format!("none of its keys can be used; {problem}")))
}

/// `None` for keys that can never be used: without a name, or for another use than signatures.
fn read_jwk(jwk: &Map<String, Value>) -> Option<Key> {
    let is_for_signatures =
        text(jwk, "use").is_ok_and(|usage| usage.is_none_or(|usage| usage == "sig"));
    let verifies = |operations: &Value| {
        operations.as_array().is_some_and(|ops| ops.iter().any(|op| op == "verify"))
    };
    if !is_for_signatures || !jwk.get("key_ops").is_none_or(verifies) {
        return None;
    }
    let kid = text(jwk, "kid").ok().flatten()?;
    let read = || Ok((text(jwk, "alg")?.map(str::to_owned), read_material(jwk)?));
    let (alg, (material, chain)) =
        read().unwrap_or_else(|problem: String| (None, (Material::Unusable(problem), Vec::new())));
    Some(Key { kid: Some(kid.to_owned()), alg, material, chain })
}

fn read_material(jwk: &Map<String, Value>) -> Result<(Material, Vec<Certificate>), String> {
    let chain = read_chain(jwk)?;
    let kty = text(jwk, "kty")?.ok_or("no kty")?;
    let part = |name: &str| -> Result<Option<Vec<u8>>, String> {
        text(jwk, name)?
            .map(|v| B64.decode(v).map_err(|e| format!("{name} is not base64url: {e}")))
            .transpose()
    };
    let certified = chain.first().map(|leaf| leaf.public_key().to_vec());
    let material = match (kty, text(jwk, "crv")?) {
        ("RSA", _) => match (part("n")?, part("e")?, certified) {
            (Some(n), Some(e), _) => Material::Rsa { n, e },
            (None, None, Some(der)) => Material::RsaDer(der),
            _ => return Err("neither n and e nor a certificate".into()),
        },
        ("EC", Some(curve @ ("P-256" | "P-384"))) => {
            let half = if curve == "P-256" { 32 } else { 48 };
            let (Some(x), Some(y)) = (part("x")?, part("y")?) else {
                return Err("no x and y".into());
            };
            // RFC 7518 §6.2.1.2: full length, zeros in front included.
            if x.len() != half || y.len() != half {
                return Err(format!(
                    "x and y have {} and {} bytes, expected {half}",
                    x.len(),
                    y.len()
                ));
            }
            let point = [&[4], x.as_slice(), y.as_slice()].concat();
            if certified.is_some_and(|certified| certified != point) {
                return Err("its certificate is another key's".into());
            }
            if half == 32 { Material::P256(point) } else { Material::P384(point) }
        }
        (other, curve) => {
            return Err(format!(
                "it is of kind {:?}",
                short(&format!("{other} {}", curve.unwrap_or("")))
            ));
        }
    };
    if let (Material::Rsa { n, e }, Some(leaf)) = (&material, chain.first()) {
        // Both given: they must be one key, or the chain would vouch for another than the one used.
        if leaf.public_key() != rsa_der(n, e) {
            return Err("its certificate is another key's".into());
        }
    }
    Ok((material, chain))
}

/// `x5c`: standard base64, leaf first (RFC 7517 §4.7).
fn read_chain(jwk: &Map<String, Value>) -> Result<Vec<Certificate>, String> {
    let certificates = match jwk.get("x5c") {
        None => return Ok(Vec::new()),
        Some(Value::Array(certificates)) if certificates.len() <= MAX_CHAIN => certificates,
        Some(_) => return Err(format!("x5c is not an array of at most {MAX_CHAIN}")),
    };
    let read = |value: &Value| {
        let der = STANDARD
            .decode(value.as_str().unwrap_or("-"))
            .map_err(|e| format!("x5c is not base64: {e}"))?;
        Certificate::from_der(&der).map_err(|e| format!("x5c: {e}"))
    };
    certificates.iter().map(read).collect()
}

fn text<'a>(jwk: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, String> {
    match jwk.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(format!("{name} is {}, expected a string", json::kind(other))),
    }
}

/// PKCS #1 `RSAPublicKey` (RFC 8017 A.1.1): SEQUENCE of two INTEGERs.
fn rsa_der(n: &[u8], e: &[u8]) -> Vec<u8> {
    let tlv = |tag: u8, body: &[u8]| {
        let length = body.len().to_be_bytes();
        let digits: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
        let mut out = vec![tag];
        match body.len() {
            short @ 0..0x80 => out.push(short as u8),
            _ => {
                out.push(0x80 | digits.len() as u8);
                out.extend(digits);
            }
        }
        out.extend_from_slice(body);
        out
    };
    let integer = |bytes: &[u8]| {
        let mut body: Vec<u8> = bytes.iter().copied().skip_while(|byte| *byte == 0).collect();
        if body.first().is_none_or(|byte| *byte >= 0x80) {
            body.insert(0, 0);
        }
        tlv(0x02, &body)
    };
    tlv(0x30, &[integer(n), integer(e)].concat())
}
