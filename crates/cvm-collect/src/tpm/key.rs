//! The attestation key, and the endorsement key that vouches for its TPM.

use tss_esapi::{
    Context,
    abstraction::{AsymmetricAlgorithmSelection, ek},
    attributes::ObjectAttributesBuilder,
    constants::SessionType,
    handles::{AuthHandle, KeyHandle, SessionHandle},
    interface_types::{
        algorithm::{EccSchemeAlgorithm, HashingAlgorithm, PublicAlgorithm},
        ecc::EccCurve,
        key_bits::RsaKeyBits,
        resource_handles::Hierarchy,
        session_handles::{AuthSession, PolicySession},
    },
    structures::{
        CreatePrimaryKeyResult, Digest, EccPoint, EccScheme, EncryptedSecret, IdObject,
        KeyDerivationFunctionScheme, Nonce, Public, PublicBuilder, PublicEccParametersBuilder,
        SignatureScheme, SymmetricDefinition, SymmetricDefinitionObject,
    },
    traits::Marshall,
};

use super::{
    connection::{Tpm, is_missing, patiently, quoted_pcrs, read_pcrs, selection},
    error::TpmError,
};
use cvm_evidence::{
    tpm::{self, parse_quote, pcr_digest},
    tpm_nonce,
    wire::{Base64, CredentialChallenge, HandshakeParams, TpmEvidence, TpmQuote},
};

const EK: AsymmetricAlgorithmSelection = AsymmetricAlgorithmSelection::Rsa(RsaKeyBits::Rsa2048);

/// A transient restricted signing key. Dropping it flushes it and the endorsement key.
pub struct AttestationKey<'tpm> {
    tpm: &'tpm mut Tpm,
    keys: Keys,
    params: HandshakeParams,
    spki: Vec<u8>,
}

/// One TPM makes the same two keys each time.
struct Keys {
    ek: CreatePrimaryKeyResult,
    ak: CreatePrimaryKeyResult,
}

impl Drop for AttestationKey<'_> {
    fn drop(&mut self) {
        for key in [self.keys.ak.key_handle, self.keys.ek.key_handle] {
            // The resource manager flushes what is left when the device is closed.
            let _ = self
                .tpm
                .context
                .execute_without_session(|context| context.flush_context(key.into()));
        }
    }
}

impl Keys {
    fn make(context: &mut Context) -> Result<Self, TpmError> {
        let fail = TpmError::command("CreatePrimary of the endorsement key");
        let template = ek::create_ek_public_from_default_template_2(EK, None).map_err(&fail)?;
        let ek = create_primary(context, template).map_err(&fail)?;
        let fail = TpmError::command("CreatePrimary of the attestation key");
        match ak_template().and_then(|template| create_primary(context, template)) {
            Ok(ak) => Ok(Self { ek, ak }),
            Err(source) => {
                let _ = context
                    .execute_without_session(|context| context.flush_context(ek.key_handle.into()));
                Err(fail(source))
            }
        }
    }
}

impl Tpm {
    /// Makes the attestation key: finds the endorsement key and its certificate, and creates a
    /// P-256 restricted signing key that lives until this value is dropped.
    ///
    /// # Errors
    /// [`TpmError`] when the TPM has no endorsement certificate or refuses a command.
    pub fn create_ak(&mut self) -> Result<AttestationKey<'_>, TpmError> {
        AttestationKey::create(self)
    }
}

impl<'tpm> AttestationKey<'tpm> {
    fn create(tpm: &'tpm mut Tpm) -> Result<Self, TpmError> {
        let fail = TpmError::command("CreatePrimary of the attestation key");
        let (certificate, keys) = tpm.again(|tpm| {
            let certificate =
                ek::retrieve_ek_pubcert(&mut tpm.context, EK).map_err(
                    |source| match is_missing(&source) {
                        true => TpmError::NoCertificate,
                        false => TpmError::Command {
                            command: "NV_Read of the endorsement certificate",
                            source,
                        },
                    },
                )?;
            Ok((certificate, Keys::make(&mut tpm.context)?))
        })?;
        // From here on the key's Drop flushes both.
        let params = HandshakeParams {
            ek_certificate: Base64(trim_der(certificate)),
            ek_public: Base64::default(),
            ak_public: Base64::default(),
        };
        let mut key = Self { tpm, keys, params, spki: Vec::new() };
        key.params.ek_public = Base64(key.keys.ek.out_public.marshall().map_err(&fail)?);
        key.params.ak_public = Base64(key.keys.ak.out_public.marshall().map_err(&fail)?);
        key.spki = tpm::Public::parse(&key.params.ak_public.0)?.spki();
        Ok(key)
    }

    /// What the handshake shows.
    pub fn handshake_params(&self) -> &HandshakeParams {
        &self.params
    }

    /// Answers one session's challenge: the evidence body.
    ///
    /// `binding` is the protocol's SHA-384 over nonce and TEE public key, `event_log` the
    /// firmware's log (`/sys/kernel/security/tpm0/binary_bios_measurements`).
    ///
    /// # Errors
    /// [`TpmError`]; a challenge that was made for another TPM is a refused ActivateCredential.
    pub fn answer(
        &mut self,
        challenge: &CredentialChallenge,
        binding: &[u8; 48],
        event_log: &[u8],
    ) -> Result<TpmEvidence, TpmError> {
        let nonce = tpm_nonce(binding);
        let (credential, tpm_quote) =
            self.again(|key| Ok((key.activate_credential(challenge)?, key.quote_once(&nonce)?)))?;
        Ok(TpmEvidence {
            ak_public: Base64(self.spki.clone()),
            tpm_quote,
            event_log: Some(Base64(event_log.to_vec())),
            ek_certificate: Some(self.params.ek_certificate.clone()),
            activated_credential: Some(Base64(credential)),
        })
    }

    /// TPM2_Quote over PCRs 0 to 15 of the SHA-256 bank; `nonce` of at most 50 bytes.
    ///
    /// # Errors
    /// [`TpmError::Unstable`] when the registers keep changing, [`TpmError::Command`].
    pub fn quote(&mut self, nonce: &[u8]) -> Result<TpmQuote, TpmError> {
        self.again(|key| key.quote_once(nonce))
    }

    fn quote_once(&mut self, nonce: &[u8]) -> Result<TpmQuote, TpmError> {
        quote(&mut self.tpm.context, self.keys.ak.key_handle, nonce)
    }

    /// As [`Tpm::again`]. The keys went with the old connection, so this makes them again.
    fn again<T>(
        &mut self,
        mut work: impl FnMut(&mut Self) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let mut silent = false;
        patiently(|| {
            if silent {
                self.tpm.reconnect()?;
                self.keys = Keys::make(&mut self.tpm.context)?;
            }
            silent = true;
            work(self)
        })
    }

    /// TPM2_ActivateCredential: the endorsement key's policy is PolicySecret(endorsement
    /// hierarchy).
    fn activate_credential(
        &mut self,
        challenge: &CredentialChallenge,
    ) -> Result<Vec<u8>, TpmError> {
        let fail = TpmError::command("ActivateCredential");
        let blob = IdObject::try_from(challenge.credential_blob.0.clone()).map_err(&fail)?;
        let secret =
            EncryptedSecret::try_from(challenge.encrypted_secret.0.clone()).map_err(&fail)?;
        let session = self
            .tpm
            .context
            .execute_without_session(|context| {
                let symmetric = SymmetricDefinition::AES_128_CFB;
                context.start_auth_session(
                    None,
                    None,
                    None,
                    SessionType::Policy,
                    symmetric,
                    HashingAlgorithm::Sha256,
                )
            })
            .map_err(TpmError::command("StartAuthSession"))?
            .ok_or(TpmError::Unstable)?;
        let credential = self.activate_in(session, blob, secret);
        let handle = SessionHandle::from(session);
        let flushed = self
            .tpm
            .context
            .execute_without_session(|context| context.flush_context(handle.into()));
        let credential = credential.map_err(&fail)?;
        flushed.map_err(TpmError::command("FlushContext"))?;
        Ok(credential.value().to_vec())
    }

    fn activate_in(
        &mut self,
        session: AuthSession,
        blob: IdObject,
        secret: EncryptedSecret,
    ) -> tss_esapi::Result<Digest> {
        let policy = PolicySession::try_from(session)?;
        self.tpm.context.execute_with_session(Some(AuthSession::Password), |context| {
            let (no_nonce, no_digest) = (Nonce::default(), Digest::default());
            context.policy_secret(
                policy,
                AuthHandle::Endorsement,
                no_nonce.clone(),
                no_digest,
                no_nonce,
                None,
            )
        })?;
        let (ak, ek) = (self.keys.ak.key_handle, self.keys.ek.key_handle);
        self.tpm
            .context
            .execute_with_sessions((Some(AuthSession::Password), Some(session), None), |context| {
                context.activate_credential(ak, ek, blob, secret)
            })
    }
}

pub(super) fn quote(
    context: &mut Context,
    ak: KeyHandle,
    nonce: &[u8],
) -> Result<TpmQuote, TpmError> {
    let fail = TpmError::command("Quote");
    let pcrs = quoted_pcrs();
    // A measurement between quote and read would make the values shown wrong: try again.
    for _ in 0..3 {
        let data = nonce.to_vec().try_into().map_err(&fail)?;
        let selection = selection(&pcrs)?;
        let (attest, signature) = context
            .execute_with_session(Some(AuthSession::Password), |context| {
                context.quote(ak, data, SignatureScheme::Null, selection)
            })
            .map_err(&fail)?;
        let message = attest.marshall().map_err(&fail)?;
        let values = read_pcrs(context, &pcrs)?;
        if parse_quote(&message)?.pcr_digest == pcr_digest(&values).0 {
            let signature = signature.marshall().map_err(&fail)?;
            return Ok(TpmQuote {
                signature: signature.into(),
                message: message.into(),
                pcrs: values,
            });
        }
    }
    Err(TpmError::Unstable)
}

pub(super) fn create_primary(
    context: &mut Context,
    template: Public,
) -> tss_esapi::Result<CreatePrimaryKeyResult> {
    context.execute_with_session(Some(AuthSession::Password), |context| {
        context.create_primary(Hierarchy::Endorsement, template, None, None, None, None)
    })
}

/// P-256, ECDSA with SHA-256: restricted, so that it signs only what the TPM itself states.
pub(super) fn ak_template() -> tss_esapi::Result<Public> {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .with_restricted(true)
        .with_sign_encrypt(true)
        .build()?;
    let scheme =
        EccScheme::create(EccSchemeAlgorithm::EcDsa, Some(HashingAlgorithm::Sha256), None)?;
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_ecc_parameters(
            PublicEccParametersBuilder::new()
                .with_symmetric(SymmetricDefinitionObject::Null)
                .with_ecc_scheme(scheme)
                .with_curve(EccCurve::NistP256)
                .with_key_derivation_function_scheme(KeyDerivationFunctionScheme::Null)
                .with_is_signing_key(true)
                .with_restricted(true)
                .build()?,
        )
        .with_ecc_unique_identifier(EccPoint::default())
        .build()
}

/// NV indices may be larger than the certificate in them: keeps its outermost SEQUENCE.
fn trim_der(mut bytes: Vec<u8>) -> Vec<u8> {
    if let [0x30, 0x82, high, low, ..] = bytes[..] {
        bytes.truncate(4 + usize::from(u16::from_be_bytes([high, low])));
    }
    bytes
}
