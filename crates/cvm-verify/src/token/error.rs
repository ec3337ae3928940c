//! Why a verifier's token was refused.

use cvm_base::{Explain, time::rfc3339};

/// A token, a key set or a signing key was refused.
///
/// Every variant is a refusal: nothing that the token says was learned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Bytes that are not what RFC 7515, 7517 or 7519 or the vendor's layout say.
    #[error("{what} cannot be read: {problem}")]
    Malformed {
        /// Which part.
        what: &'static str,
        /// Expected and found.
        problem: String,
    },
    /// A header that asks for something which would change what the signature means.
    #[error("the token's header is refused: {problem}")]
    Header {
        /// The member and its value.
        problem: String,
    },
    /// No signature, or one of a kind that proves nothing here.
    #[error(
        "the token says alg {found:?}; accepted are RS256, RS384, PS256, PS384, ES256 and ES384, \
         as its key's type allows"
    )]
    Algorithm {
        /// The header's `alg`.
        found: String,
    },
    /// An HMAC: who can check it could have made it.
    #[error(
        "the token is signed with an HMAC ({}): whoever can check it can make it, so it proves \
         nothing",
        secret(*.published)
    )]
    Symmetric {
        /// It verifies under the key that NVIDIA's local GPU verifier publishes in its source.
        published: bool,
    },
    /// A key set, a PEM key or a signing key cannot be used.
    #[error("the keys cannot be used: {problem}")]
    Keys {
        /// What is wrong with them.
        problem: String,
    },
    /// The keys given do not let this signature be checked.
    #[error("the signature cannot be checked: {problem}")]
    Unverifiable {
        /// Which key was asked for, and what was found.
        problem: String,
    },
    /// The named key did not sign these bytes.
    #[error("the token's signature does not verify under key {kid:?}")]
    Signature {
        /// The key that was used.
        kid: String,
    },
    /// Another issuer or audience than the policy names.
    #[error("the token's {claim} is {found}, expected {expected}")]
    Party {
        /// `iss` or `aud`.
        claim: &'static str,
        /// The policy's.
        expected: String,
        /// The token's.
        found: String,
    },
    /// Outside of the time for which it was issued.
    #[error("the token is not valid at {}: {problem}", rfc3339(*.now))]
    Time {
        /// Seconds since 1970 UTC, as given.
        now: u64,
        /// The claim and its value, and the leeway.
        problem: String,
    },
    /// Bound to another challenge.
    #[error("the token's {claim} is {found}, expected {expected}")]
    Nonce {
        /// Which claim holds the binding.
        claim: String,
        /// The caller's, hex.
        expected: String,
        /// The token's.
        found: String,
    },
    /// Parts of one answer that contradict each other, or a claim that must be there.
    #[error("the claims are not usable: {problem}")]
    Claims {
        /// Which, expected and found.
        problem: String,
    },
    /// Genuine, and not good enough for the policy.
    #[error("the policy refuses {claim} = {found}; it asks for {expected}")]
    Refused {
        /// The claim.
        claim: String,
        /// What the policy asks for.
        expected: String,
        /// The token's value.
        found: String,
    },
}

impl TokenError {
    pub(super) fn malformed(what: &'static str, problem: impl Into<String>) -> Self {
        Self::Malformed { what, problem: problem.into() }
    }

    pub(super) fn keys(problem: impl Into<String>) -> Self {
        Self::Keys { problem: problem.into() }
    }

    pub(super) fn claims(problem: impl Into<String>) -> Self {
        Self::Claims { problem: problem.into() }
    }

    pub(super) fn refused(
        claim: &str,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self::Refused { claim: claim.into(), expected: expected.into(), found: found.into() }
    }
}

/// Whose secret an HMAC was made with.
fn secret(published: bool) -> &'static str {
    if published {
        "under the published key `secret` of NVIDIA's local verifier"
    } else {
        "a shared secret"
    }
}

impl Explain for TokenError {
    fn code(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "ATT-350",
            Self::Header { .. } | Self::Algorithm { .. } => "ATT-351",
            Self::Keys { .. } | Self::Unverifiable { .. } => "ATT-352",
            Self::Signature { .. } => "ATT-353",
            Self::Party { .. } => "ATT-354",
            Self::Time { .. } => "ATT-355",
            Self::Nonce { .. } => "ATT-356",
            Self::Claims { .. } => "ATT-357",
            Self::Refused { .. } => "ATT-358",
            Self::Symmetric { .. } => "ATT-359",
        }
    }

    fn help(&self) -> String {
        match self {
            Self::Malformed { .. } => {
                "give the token exactly as the service returned it: a \
                compact JWT, or NRAS' detached EAT (a JSON array)"
            }
            Self::Header { .. } | Self::Algorithm { .. } => {
                "no verifier service signs like this: \
                somebody made or changed the token"
            }
            Self::Symmetric { .. } => {
                "ask the remote verifier (NRAS) for a token, or check the \
                GPU's own report instead"
            }
            Self::Keys { .. } => {
                "give the issuer's JWKS as downloaded from its documented \
                address, or one PEM public key"
            }
            Self::Unverifiable { .. } => {
                "download the issuer's JWKS of the time of issue; never \
                take the address or the key from the token itself"
            }
            Self::Signature { .. } => {
                "the token was changed, or another key carries this name: \
                compare the JWKS with the issuer's"
            }
            Self::Party { .. } => {
                "a token for or of somebody else; name the issuer and audience \
                that you asked"
            }
            Self::Time { .. } => {
                "check the clock; ask the verifier for a new token; the policy's \
                leeway is for a small difference"
            }
            Self::Nonce { .. } => {
                "a replayed token, or another session's: ask for one over this \
                session's challenge"
            }
            Self::Claims { .. } => {
                "the service answered in a layout that this program does not \
                know, or parts of two answers were mixed"
            }
            Self::Refused { .. } => {
                "if this may be accepted, say so in the policy; debuggable \
                TEEs keep no secrets"
            }
        }
        .into()
    }
}
