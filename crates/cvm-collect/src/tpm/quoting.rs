//! The attestation key after the handoff: it quotes, and answers no challenge.
//!
//! The key is a primary of the endorsement hierarchy, so the TPM derives the same one from the same
//! template: its Name is the one that key holders certified during boot.

use tss_esapi::{Context, handles::KeyHandle, traits::Marshall};

use super::{
    connection::Tpm,
    error::TpmError,
    key::{ak_template, create_primary, quote},
};
use cvm_evidence::wire::{Base64, TpmQuote};

/// A transient restricted signing key. Dropping it flushes it.
pub struct QuotingKey<'tpm> {
    context: &'tpm mut Context,
    ak: KeyHandle,
    public: Base64,
}

impl Drop for QuotingKey<'_> {
    fn drop(&mut self) {
        // The resource manager flushes what is left when the device is closed.
        let _ =
            self.context.execute_without_session(|context| context.flush_context(self.ak.into()));
    }
}

impl Tpm {
    /// Makes the same attestation key again, for quotes alone: no endorsement key, which takes a
    /// TPM long to make.
    ///
    /// # Errors
    /// [`TpmError`] when the TPM refuses a command.
    pub fn create_quoting_key(&mut self) -> Result<QuotingKey<'_>, TpmError> {
        QuotingKey::create(&mut self.context)
    }
}

impl<'tpm> QuotingKey<'tpm> {
    fn create(context: &'tpm mut Context) -> Result<Self, TpmError> {
        let fail = TpmError::command("CreatePrimary of the attestation key");
        let ak =
            ak_template().and_then(|template| create_primary(context, template)).map_err(&fail)?;
        let mut key = Self { context, ak: ak.key_handle, public: Base64::default() };
        key.public = Base64(ak.out_public.marshall().map_err(&fail)?);
        Ok(key)
    }

    /// Marshalled TPMT_PUBLIC.
    pub fn public(&self) -> &Base64 {
        &self.public
    }

    /// As [`super::AttestationKey::quote`].
    ///
    /// # Errors
    /// [`TpmError::Unstable`], [`TpmError::Command`].
    pub fn quote(&mut self, nonce: &[u8]) -> Result<TpmQuote, TpmError> {
        quote(self.context, self.ak, nonce)
    }
}
