//! Keys of a test's verifier service, and tokens with any header and payload.

use std::{fs, path::Path, sync::LazyLock};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PSS_SHA256,
        RSA_PSS_SHA384, RsaKeyPair,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use cvm_verify::token::{KeySet, Token};
use serde_json::{Value, json};

pub const NOW: u64 = 1_760_000_000;

pub fn vector(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/evidence").join(name))
        .unwrap()
}

pub fn keys(jwks: &Value) -> KeySet {
    KeySet::parse(jwks.to_string().as_bytes()).unwrap()
}

pub fn token(text: &str) -> Token {
    Token::parse(text.as_bytes()).unwrap()
}

pub struct Signer {
    pub p256: EcdsaKeyPair,
    pub p256_pkcs8: Vec<u8>,
    pub p384: EcdsaKeyPair,
    pub rsa: RsaKeyPair,
}

/// RSA keys take a while to make: one set for all tests.
pub static SIGNER: LazyLock<Signer> = LazyLock::new(Signer::generate);

fn ec(algorithm: &'static EcdsaSigningAlgorithm) -> (EcdsaKeyPair, Vec<u8>) {
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap();
    (EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref()).unwrap(), pkcs8.as_ref().to_vec())
}

impl Signer {
    pub fn generate() -> Self {
        let (p256, p256_pkcs8) = ec(&ECDSA_P256_SHA256_FIXED_SIGNING);
        let rsa = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = rsa.as_der().unwrap();
        let rsa = RsaKeyPair::from_pkcs8(der.as_ref()).unwrap();
        Self { p256, p256_pkcs8, p384: ec(&ECDSA_P384_SHA384_FIXED_SIGNING).0, rsa }
    }

    /// Signs as `alg` says, whatever the header says.
    pub fn raw(&self, alg: &str, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", B64.encode(header), B64.encode(payload));
        let random = SystemRandom::new();
        let rsa = |padding| {
            let mut signature = vec![0; self.rsa.public_modulus_len()];
            self.rsa.sign(padding, &random, signed.as_bytes(), &mut signature).unwrap();
            signature
        };
        let signature = match alg {
            "ES256" => self.p256.sign(&random, signed.as_bytes()).unwrap().as_ref().to_vec(),
            "ES384" => self.p384.sign(&random, signed.as_bytes()).unwrap().as_ref().to_vec(),
            "RS256" => rsa(&RSA_PKCS1_SHA256),
            "RS384" => rsa(&RSA_PKCS1_SHA384),
            "PS256" => rsa(&RSA_PSS_SHA256),
            "PS384" => rsa(&RSA_PSS_SHA384),
            other => panic!("{other}"),
        };
        format!("{signed}.{}", B64.encode(signature))
    }

    /// A token as a service makes it.
    pub fn sign(&self, alg: &str, claims: &Value) -> String {
        let kid = match alg {
            "ES256" => "p256",
            "ES384" => "p384",
            _ => "rsa",
        };
        self.raw(
            alg,
            &json!({"alg": alg, "kid": kid, "typ": "JWT"}).to_string(),
            &claims.to_string(),
        )
    }

    pub fn jwks(&self) -> Value {
        let point = |key: &EcdsaKeyPair, curve: &str, kid: &str| {
            let (x, y) =
                key.public_key().as_ref()[1..].split_at(if curve == "P-256" { 32 } else { 48 });
            json!({"kty": "EC", "crv": curve, "kid": kid, "use": "sig", "x": B64.encode(x),
                "y": B64.encode(y)})
        };
        let rsa = self.rsa.public_key();
        let n = B64.encode(rsa.modulus().big_endian_without_leading_zero());
        let e = B64.encode(rsa.exponent().big_endian_without_leading_zero());
        json!({"keys": [
            point(&self.p256, "P-256", "p256"),
            point(&self.p384, "P-384", "p384"),
            {"kty": "RSA", "kid": "rsa", "n": n, "e": e},
        ]})
    }
}

/// Claims of everybody's: issued now, for an hour.
pub fn registered(issuer: &str) -> Value {
    json!({"iss": issuer, "iat": NOW, "nbf": NOW, "exp": NOW + 3600, "jti": "one"})
}

/// `base` with the members of `more`.
pub fn with(base: &Value, more: Value) -> Value {
    let mut all = base.clone();
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    all
}

/// A compact token's text with each bit flipped. Debug builds, which are slow, take every bit of
/// the header and of the signature's last bytes, and every `stride`-th character elsewhere; `make
/// test` takes all.
pub fn flips(text: &str, stride: usize) -> impl Iterator<Item = String> {
    let stride = if cfg!(debug_assertions) { stride } else { 1 };
    let header = text.find('.').unwrap();
    let taken = move |at: usize| at <= header || at.is_multiple_of(stride) || at + 2 >= text.len();
    let bits = (0..text.len())
        .filter(move |at| taken(*at))
        .flat_map(|at| (0..7).map(move |bit| (at, bit)));
    bits.filter_map(|(at, bit)| {
        let mut bytes = text.as_bytes().to_vec();
        bytes[at] ^= 1 << bit;
        // White space at the ends is not part of a token.
        let text = String::from_utf8(bytes).unwrap();
        (text.trim_ascii() == text).then_some(text)
    })
}
