//! Keys of the sessions, derived from one secret so that every process of a key holder has them.

use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{Aead, Payload},
};
use hkdf::Hkdf;
use p256::ecdsa::{Signature, SigningKey, signature::Signer, signature::Verifier};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::fault::Fault;

/// Fills a buffer with randomness that nobody can guess.
pub type Random = Box<dyn Fn(&mut [u8]) -> Result<(), Fault> + Send + Sync>;

/// The context of a sealed session, and of the key that seals it.
pub(crate) const COOKIE_CONTEXT: &[u8] = b"flare-cvm/v1/session-cookie";

/// Seals cookies and signs tokens. The key material is wiped when dropped (by the ciphers).
pub struct SessionKeys {
    cookie: Aes256Gcm,
    token: SigningKey,
}

impl SessionKeys {
    /// Derives the keys from 32 secret bytes that belong to this key holder alone.
    pub fn derive(secret: &[u8; 32]) -> Result<Self, Fault> {
        let fault = |_| Fault::new("deriving the session keys", "HKDF failed");
        let hkdf = Hkdf::<Sha256>::new(None, secret);
        let mut key = Zeroizing::new([0; 32]);
        hkdf.expand(COOKIE_CONTEXT, key.as_mut_slice()).map_err(fault)?;
        let cookie = Aes256Gcm::new_from_slice(key.as_slice())
            .map_err(|e| Fault::new("making the cookie key", e))?;
        // The bytes are not a scalar once in 2^32.
        for attempt in 0u8..8 {
            hkdf.expand_multi_info(&[b"flare-cvm/v1/token", &[attempt]], key.as_mut_slice())
                .map_err(fault)?;
            if let Ok(token) = SigningKey::from_slice(key.as_slice()) {
                return Ok(Self { cookie, token });
            }
        }
        Err(Fault::new("deriving the session keys", "no scalar found"))
    }

    /// Encrypts what leaves this process; `context` says what it is, and for what.
    pub(crate) fn seal(
        &self,
        context: &[u8],
        plain: &[u8],
        random: &Random,
    ) -> Result<Vec<u8>, Fault> {
        let mut iv = [0; 12];
        random(&mut iv)?;
        let payload = Payload { msg: plain, aad: context };
        let sealed =
            self.cookie.encrypt(&iv.into(), payload).map_err(|e| Fault::new("sealing", e))?;
        Ok([&iv[..], &sealed].concat())
    }

    /// Opens what [`Self::seal`] made in the same context.
    pub(crate) fn open(&self, context: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (iv, sealed) = sealed.split_first_chunk::<12>()?;
        self.cookie
            .decrypt(&(*iv).into(), Payload { msg: sealed, aad: context })
            .ok()
            .map(Zeroizing::new)
    }

    /// ES256: r ‖ s.
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        let signature: Signature = self.token.sign(message);
        signature.to_bytes().into()
    }

    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature)
            .is_ok_and(|s| self.token.verifying_key().verify(message, &s).is_ok())
    }
}
