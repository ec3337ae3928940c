//! How a token may be signed.

/// How a token may be signed (RFC 7518 §3.1, less what is symmetric, `none`, or unused by
/// verifiers).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
}

impl Algorithm {
    /// Its name in `alg`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
        }
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        [Self::Rs256, Self::Rs384, Self::Ps256, Self::Ps384, Self::Es256, Self::Es384]
            .into_iter()
            .find(|alg| alg.as_str() == name)
    }
}
