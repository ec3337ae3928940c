//! Our own verdict as a token: EAT Attestation Results (draft-ietf-rats-ear), ES256.
//!
//! Member names are those that Veraison and Trustee use (`ear.status`,
//! `ear.veraison.annotated-evidence`), because release policies read them; draft 03 spells them
//! with underscores. `cvm-release` signs its sessions' tokens in the same layout with a key that it
//! derives itself; [`EarToken::verify`] reads those as well.

use std::collections::BTreeMap;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD as B64},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{
    Expected, KeySet, MAX_TOKEN_BYTES, Registered, Rules, Token, TokenError,
    json::short,
    rules::{mismatch, text},
};

/// `eat_profile` of our tokens: EAR with Veraison's extensions.
pub const PROFILE: &str = "tag:github.com,2023:veraison/ear";
/// `eat_profile` of Trustee's tokens, and of our key holder's.
pub const PROFILE_TRUSTEE: &str = "tag:github.com,2024:confidential-containers/Trustee";
const MAX_KEY_PEM: usize = 4096;

/// A trustworthiness tier (draft-ietf-rats-ar4si §3.2), from bad to good as `Ord` sorts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Recognized as not to be trusted.
    Contraindicated,
    /// Something to look at before trusting.
    Warning,
    /// Nothing is known.
    None,
    /// Appraised, and good.
    Affirming,
}

impl Tier {
    /// The tier of one claim's value: 2 to 31 affirm, 32 to 95 warn, 96 to 127 contraindicate, and
    /// so their negatives less one.
    pub fn of(value: i8) -> Self {
        match value {
            2..=31 | -32..=-2 => Self::Affirming,
            32..=95 | -96..=-33 => Self::Warning,
            96..=127 | -128..=-97 => Self::Contraindicated,
            -1..=1 => Self::None,
        }
    }

    /// The tier of an appraisal: refused, accepted with checks left out, accepted.
    pub fn appraised(allowed: bool, not_checked: bool) -> Self {
        match (allowed, not_checked) {
            (false, _) => Self::Contraindicated,
            (true, true) => Self::Warning,
            (true, false) => Self::Affirming,
        }
    }
}

/// The eight claims of AR4SI; 0 says nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct TrustVector {
    /// Who it is.
    pub instance_identity: i8,
    /// Its configuration: debug, SMT, migration.
    pub configuration: i8,
    /// What was started.
    pub executables: i8,
    /// What is on its disks.
    pub file_system: i8,
    /// The TEE and its TCB.
    pub hardware: i8,
    /// Whether its memory is hidden from the host.
    pub runtime_opaque: i8,
    /// Whether its storage is.
    pub storage_opaque: i8,
    /// Data from elsewhere.
    pub sourced_data: i8,
}

impl TrustVector {
    /// The worst tier among the claims that say something; `None` when none does.
    pub fn worst(&self) -> Tier {
        let values = [
            self.instance_identity,
            self.configuration,
            self.executables,
            self.file_system,
            self.hardware,
            self.runtime_opaque,
            self.storage_opaque,
            self.sourced_data,
        ];
        values
            .into_iter()
            .map(Tier::of)
            .filter(|tier| *tier != Tier::None)
            .min()
            .unwrap_or(Tier::None)
    }
}

/// One attester's appraisal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submodule {
    /// The verdict.
    #[serde(rename = "ear.status")]
    pub status: Tier,
    /// How it came about.
    #[serde(
        rename = "ear.trustworthiness-vector",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub vector: Option<TrustVector>,
    /// The claims, by kind: `{"snp": {…}}`.
    #[serde(rename = "ear.veraison.annotated-evidence")]
    pub annotated_evidence: Value,
    /// The policy that decided; we write `sha256:` and the digest of its text.
    #[serde(rename = "ear.appraisal-policy-id", default, skip_serializing_if = "Option::is_none")]
    pub appraisal_policy_id: Option<String>,
}

/// Who appraised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifierId {
    /// The program's maker.
    pub developer: String,
    /// The program and its version.
    pub build: String,
}

/// A verdict over one machine: each of its attesters (`cpu0`, `gpu0`, …) as a submodule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EarToken {
    /// [`PROFILE`] or [`PROFILE_TRUSTEE`].
    pub profile: String,
    /// Who appraised.
    pub verifier: VerifierId,
    /// Issuer, audience and times.
    pub registered: Registered,
    /// The challenge that the evidence answered.
    pub nonce: Option<Vec<u8>>,
    /// The appraisals.
    pub submods: BTreeMap<String, Submodule>,
}

impl EarToken {
    /// Signs the verdict. A status that its own vector contradicts is refused.
    ///
    /// # Errors
    /// [`TokenError::Claims`] for a verdict that [`EarToken::verify`] would refuse,
    /// [`TokenError::Keys`] when the library cannot sign.
    pub fn sign(&self, key: &EarKey) -> Result<String, TokenError> {
        self.check()?;
        let header = json!({ "alg": "ES256", "typ": "JWT", "kid": key.kid });
        let payload = self.payload();
        let signed =
            format!("{}.{}", B64.encode(header.to_string()), B64.encode(payload.to_string()));
        let signature = key
            .pair
            .sign(&SystemRandom::new(), signed.as_bytes())
            .map_err(|_| TokenError::keys("the cryptographic library failed to sign"))?;
        let token = format!("{signed}.{}", B64.encode(signature));
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::claims(format!(
                "{} bytes, at most {MAX_TOKEN_BYTES} allowed",
                token.len()
            )));
        }
        Ok(token)
    }

    /// The verdict of a token that one of the keys signed.
    ///
    /// # Errors
    /// [`TokenError`], for the first check that fails. A bad verdict is not an error: look at the
    /// submodules' status.
    pub fn verify(
        token: &Token,
        keys: &KeySet,
        rules: &Rules,
        expected: &Expected<'_>,
        now: u64,
    ) -> Result<Self, TokenError> {
        let claims = token.verify(keys, now)?;
        let mut audience_unchecked = Vec::new();
        let registered = rules.check(&claims, now, &mut audience_unchecked)?;
        let member = |name: &str| claims.get(name).cloned().unwrap_or_default();
        let read =
            |name: &'static str, e: serde_json::Error| TokenError::claims(format!("{name}: {e}"));
        let nonce = text(&claims, "eat_nonce")?
            .map(|nonce| {
                B64.decode(nonce)
                    .map_err(|e| TokenError::claims(format!("eat_nonce is not base64url: {e}")))
            })
            .transpose()?;
        let ear = Self {
            profile: text(&claims, "eat_profile")?.unwrap_or_default().to_owned(),
            verifier: serde_json::from_value(member("ear.verifier-id"))
                .map_err(|e| read("ear.verifier-id", e))?,
            submods: serde_json::from_value(member("submods")).map_err(|e| read("submods", e))?,
            registered,
            nonce,
        };
        ear.check()?;
        if let Some(wanted) = expected.nonce
            && ear.nonce.as_deref().filter(|nonce| !nonce.is_empty()) != Some(wanted)
        {
            let found = ear.nonce.map_or("absent".into(), hex::encode);
            return Err(mismatch("eat_nonce", wanted, &found));
        }
        Ok(ear)
    }

    /// The claims, as signed and as policies read them.
    pub fn payload(&self) -> Value {
        let mut claims = json!({
            "eat_profile": self.profile,
            "iss": self.registered.issuer,
            "iat": self.registered.issued_at,
            "exp": self.registered.expires_at,
            "ear.verifier-id": self.verifier,
            "submods": self.submods,
        });
        let optional = [
            ("nbf", self.registered.not_before.map(Value::from)),
            ("jti", self.registered.token_id.as_ref().map(|id| json!(id))),
            ("eat_nonce", self.nonce.as_ref().map(|nonce| json!(B64.encode(nonce)))),
            (
                "aud",
                Some(&self.registered.audience)
                    .filter(|audience| !audience.is_empty())
                    .map(|a| json!(a)),
            ),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                claims[name] = value;
            }
        }
        claims
    }

    fn check(&self) -> Result<(), TokenError> {
        if self.profile != PROFILE && self.profile != PROFILE_TRUSTEE {
            return Err(TokenError::claims(format!(
                "eat_profile is {:?}, expected {PROFILE}",
                short(&self.profile)
            )));
        }
        if self.submods.is_empty() {
            return Err(TokenError::claims("no submods: nothing was appraised"));
        }
        for (name, submodule) in &self.submods {
            let worst = submodule.vector.map_or(Tier::None, |vector| vector.worst());
            if worst != Tier::None && submodule.status > worst {
                return Err(TokenError::claims(format!(
                    "{:?}: ear.status is better than its trustworthiness vector",
                    short(name)
                )));
            }
        }
        Ok(())
    }
}

/// A P-256 key that signs verdicts. The library wipes its copy when it is dropped.
#[derive(Debug)]
pub struct EarKey {
    pair: EcdsaKeyPair,
    kid: String,
}

impl EarKey {
    /// Reads a PKCS #8 key in PEM (`openssl genpkey -algorithm EC -pkeyopt
    /// ec_paramgen_curve:P-256`); its name is the SHA-256 of its public point. What is decoded on
    /// the way is wiped.
    ///
    /// # Errors
    /// [`TokenError::Keys`] for anything but one unencrypted P-256 key.
    pub fn from_pkcs8_pem(pem: &[u8]) -> Result<Self, TokenError> {
        let fail = || {
            TokenError::keys("expected one PEM block, PRIVATE KEY: PKCS #8, unencrypted, on P-256")
        };
        let text = str::from_utf8(pem)
            .ok()
            .filter(|pem| pem.len() <= MAX_KEY_PEM)
            .ok_or_else(fail)?
            .trim_ascii();
        let body = text
            .strip_prefix("-----BEGIN PRIVATE KEY-----")
            .and_then(|t| t.strip_suffix("-----END PRIVATE KEY-----"));
        // Room for everything first: a buffer that grows leaves copies in memory.
        let mut digits = Zeroizing::new(String::with_capacity(text.len()));
        digits.extend(body.ok_or_else(fail)?.chars().filter(|c| !c.is_ascii_whitespace()));
        let mut der = Zeroizing::new(vec![0; digits.len()]);
        let length = STANDARD.decode_slice(digits.as_bytes(), &mut der).map_err(|_| fail())?;
        let der = der.get(..length).ok_or_else(fail)?;
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).map_err(|_| fail())?;
        let kid = cvm_base::sha256(pair.public_key().as_ref()).to_string();
        Ok(Self { pair, kid })
    }

    /// The key's name in headers.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The public half, for relying parties: a JWKS.
    pub fn jwks(&self) -> Value {
        // An uncompressed point: 4, x, y.
        let point = self.pair.public_key().as_ref();
        let (x, y) = point.get(1..).unwrap_or_default().split_at_checked(32).unwrap_or_default();
        let key = json!({
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.kid,
            "x": B64.encode(x), "y": B64.encode(y),
        });
        json!({ "keys": [key] })
    }
}
