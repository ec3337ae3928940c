//! Compact JWS (RFC 7515 §7.1): one header, one payload, one signature.

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use serde_json::{Map, Value};

use super::{
    Algorithm, KeySet, TokenError,
    json::{self, short},
};

/// The longest token that is looked at. Verifiers' tokens have 2 to 10 KiB; runtime data can make
/// them longer.
pub const MAX_TOKEN_BYTES: usize = 256 * 1024;
/// More than any header needs, chain in `x5c` included; in base64 characters.
const MAX_HEADER: usize = 32 * 1024;
/// The key that NVIDIA's local GPU verifier signs its own tokens with, in its public source.
const PUBLISHED_SECRET: &[u8] = b"secret";

/// A signed token, read and not yet believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// `header.payload`: the bytes that are signed.
    signed: String,
    alg: String,
    kid: Option<String>,
    payload: Vec<u8>,
    signature: Vec<u8>,
    /// SHA-256 of the compact text: what a detached EAT names a submodule by.
    digest: cvm_base::Bytes32,
}

impl Token {
    /// Reads a compact JWS; white space around it is allowed, as files end in a newline.
    ///
    /// # Errors
    /// [`TokenError::Malformed`] for another form or more than [`MAX_TOKEN_BYTES`],
    /// [`TokenError::Header`] for a header that changes what a signature means.
    pub fn parse(bytes: &[u8]) -> Result<Self, TokenError> {
        let malformed = |problem: &str| TokenError::malformed("the token", problem);
        if bytes.len() > MAX_TOKEN_BYTES {
            return Err(malformed(&format!(
                "{} bytes, at most {MAX_TOKEN_BYTES} allowed",
                bytes.len()
            )));
        }
        let text = str::from_utf8(bytes).map_err(|_| malformed("it is not text"))?.trim_ascii();
        let mut parts = text.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed(
                "expected three parts with a dot between: header.payload.signature",
            ));
        };
        if header.len() > MAX_HEADER {
            return Err(malformed("its header is too long"));
        }
        let decode = |part: &str, name: &str| {
            B64.decode(part).map_err(|e| {
                malformed(&format!("its {name} is not base64url without padding: {e}"))
            })
        };
        let header = json::object("the token's header", &decode(header, "header")?)?;
        let (alg, kid) = read_header(&header)?;
        Ok(Self {
            alg,
            kid,
            payload: decode(payload, "payload")?,
            signature: decode(signature, "signature")?,
            signed: text.get(..text.len() - signature.len() - 1).unwrap_or_default().to_owned(),
            digest: cvm_base::sha256(text.as_bytes()),
        })
    }

    /// The header's `alg`, as written.
    pub fn alg(&self) -> &str {
        &self.alg
    }

    /// The header's `kid`: a name to look a key up by, nothing more.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// SHA-256 of the compact text.
    pub fn sha256(&self) -> cvm_base::Bytes32 {
        self.digest
    }

    /// What the token says, signed by nobody as far as this function knows: for display only.
    ///
    /// # Errors
    /// [`TokenError::Malformed`] when the payload is not a JSON object.
    pub fn unverified_claims(&self) -> Result<Map<String, Value>, TokenError> {
        json::object("the token's payload", &self.payload)
    }

    /// The claims, if one key of the set signed them.
    pub(super) fn verify(&self, keys: &KeySet, now: u64) -> Result<Map<String, Value>, TokenError> {
        let alg = self.algorithm()?;
        let key = keys.select(self.kid(), alg, now)?;
        key.verify(alg, self.signed.as_bytes(), &self.signature)?;
        self.unverified_claims()
    }

    fn algorithm(&self) -> Result<Algorithm, TokenError> {
        if let Some(alg) = Algorithm::parse(&self.alg) {
            return Ok(alg);
        }
        if matches!(self.alg.as_str(), "HS256" | "HS384" | "HS512") {
            let key = hmac::Key::new(hmac::HMAC_SHA256, PUBLISHED_SECRET);
            let published = hmac::verify(&key, self.signed.as_bytes(), &self.signature).is_ok();
            return Err(TokenError::Symmetric { published });
        }
        Err(TokenError::Algorithm { found: short(&self.alg) })
    }
}

/// `jku`, `jwk`, `x5u`, `x5c` and thumbprints are not even read: a token cannot vouch for its own
/// key.
fn read_header(header: &Map<String, Value>) -> Result<(String, Option<String>), TokenError> {
    let refuse = |problem: String| TokenError::Header { problem };
    // RFC 7515 §4.1.11: what is critical must be understood, and nothing is.
    for member in ["crit", "b64", "zip", "enc"] {
        if header.contains_key(member) {
            return Err(refuse(format!("it has a member {member:?}")));
        }
    }
    let text = |member: &str| match header.get(member) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(other) => Err(refuse(format!("{member} is {}, expected a string", json::kind(other)))),
    };
    if let Some(typ) = text("typ")? {
        // RFC 8725 §3.11: a JWT of another kind (an access token, a DPoP proof) is not a
        // verifier's.
        let known = [
            "jwt",
            "application/jwt",
            "eat+jwt",
            "application/eat+jwt",
            "ear+jwt",
            "application/ear+jwt",
        ];
        if !known.contains(&typ.to_ascii_lowercase().as_str()) {
            return Err(refuse(format!("typ is {:?}, expected JWT", short(typ))));
        }
    }
    if let Some(cty) = text("cty")? {
        return Err(refuse(format!("cty is {:?}: a token inside a token", short(cty))));
    }
    let alg = text("alg")?.ok_or_else(|| refuse("it has no alg".into()))?;
    Ok((alg.to_owned(), text("kid")?.map(str::to_owned)))
}
