//! Secrets that only this TPM gives back, and only to this image in its boot phase: NV indices
//! under a PCR policy.
//!
//! The policy names the registers as they are when the secret is kept: the firmware's boot chain,
//! Secure Boot's keys, the command line, the UKI and what could be slipped in beside it. Another
//! image has other values. So has this image after it has measured its handoff, so the running
//! system cannot ask. Reading and writing both need the policy, so nobody can put a secret of their
//! own there in this state. (TPM 2.0 part 1 §37.2, NV index; part 3 §23.7, TPM2_PolicyPCR.)

use tss_esapi::{
    Context, WrapperErrorKind,
    attributes::{NvIndexAttributes, NvIndexAttributesBuilder},
    constants::{CapabilityType, SessionType},
    handles::{NvIndexHandle, NvIndexTpmHandle, SessionHandle, TpmHandle},
    interface_types::{
        algorithm::HashingAlgorithm,
        resource_handles::{NvAuth, Provision},
        session_handles::{AuthSession, PolicySession},
    },
    structures::{
        CapabilityData, Digest, MaxNvBuffer, NvPublic, NvPublicBuilder, SymmetricDefinition,
    },
};
use zeroize::Zeroizing;

use super::{
    connection::{Tpm, is_missing, selection},
    error::TpmError,
};

/// The registers that tell which image boots, and in which phase it is.
const POLICY_PCRS: [u8; 6] = [4, 7, 9, 11, 12, 13];
/// The most that is kept in one place; TPMs take at least 512 bytes at once (PC Client Platform TPM
/// Profile).
pub const MAX_KEPT_BYTES: usize = 256;

/// Where a secret is kept: NV indices in the owner's range that no TCG specification uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The machine's secret, the third factor.
    Machine,
    /// A copy of the key of p3.
    System,
}

impl Place {
    /// The NV index.
    pub fn index(self) -> u32 {
        match self {
            Self::Machine => 0x0180_fc01,
            Self::System => 0x0180_fc02,
        }
    }
}

impl Tpm {
    /// Keeps a secret of at most [`MAX_KEPT_BYTES`] for this image's boot phase, in the place of an
    /// earlier one.
    ///
    /// # Errors
    /// [`TpmError::Command`].
    pub fn keep(&mut self, place: Place, secret: &[u8]) -> Result<(), TpmError> {
        self.again(|tpm| tpm.write(place, secret))
    }

    fn write(&mut self, place: Place, secret: &[u8]) -> Result<(), TpmError> {
        let fail = TpmError::command("NV_DefineSpace and NV_Write");
        self.free(place)?;
        let public = self.public(place, secret.len())?;
        let buffer = MaxNvBuffer::try_from(secret).map_err(&fail)?;
        let handle = self
            .context
            .execute_with_session(Some(AuthSession::Password), |c| {
                c.nv_define_space(Provision::Owner, None, public)
            })
            .map_err(&fail)?;
        self.with_policy(|context, session| {
            context.execute_with_session(Some(session), |c| {
                c.nv_write(NvAuth::NvIndex(handle), handle, buffer, 0)
            })
        })
        .map_err(&fail)
    }

    /// What is kept there; `None` when nothing is, or not for this image in this phase.
    ///
    /// # Errors
    /// [`TpmError::Command`].
    pub fn recall(&mut self, place: Place) -> Result<Option<Zeroizing<Vec<u8>>>, TpmError> {
        self.again(|tpm| tpm.read(place))
    }

    fn read(&mut self, place: Place) -> Result<Option<Zeroizing<Vec<u8>>>, TpmError> {
        let fail = TpmError::command("NV_Read");
        let Some(handle) = self.handle(place)? else { return Ok(None) };
        let (public, _) =
            self.context.execute_without_session(|c| c.nv_read_public(handle)).map_err(&fail)?;
        let length = public.data_size();
        // Only what `keep` makes is believed: an index that anybody could have written has other
        // attributes.
        let ours = length <= MAX_KEPT_BYTES && public.authorization_policy() == &self.policy()?;
        if !ours || public.attributes() != attributes(true)? {
            return Ok(None);
        }
        let size = u16::try_from(length).unwrap_or(u16::MAX);
        let data = self
            .with_policy(|context, session| {
                context.execute_with_session(Some(session), |c| {
                    c.nv_read(NvAuth::NvIndex(handle), handle, size, 0)
                })
            })
            .map_err(&fail)?;
        Ok(Some(Zeroizing::new(data.value().to_vec())))
    }

    /// Frees the place. A place that is free already is fine.
    ///
    /// # Errors
    /// [`TpmError::Command`].
    pub fn forget(&mut self, place: Place) -> Result<(), TpmError> {
        self.again(|tpm| tpm.free(place))
    }

    fn free(&mut self, place: Place) -> Result<(), TpmError> {
        let Some(handle) = self.handle(place)? else { return Ok(()) };
        self.context
            .execute_with_session(Some(AuthSession::Password), |c| {
                c.nv_undefine_space(Provision::Owner, handle)
            })
            .map_err(TpmError::command("NV_UndefineSpace"))
    }

    fn handle(&mut self, place: Place) -> Result<Option<NvIndexHandle>, TpmError> {
        let fail = TpmError::command("GetCapability");
        let index = TpmHandle::NvIndex(NvIndexTpmHandle::new(place.index()).map_err(&fail)?);
        // Asked first, because libtss2 prints every refusal on the console.
        let (found, _) = self
            .context
            .execute_without_session(|c| {
                c.get_capability(CapabilityType::Handles, place.index(), 1)
            })
            .map_err(&fail)?;
        let CapabilityData::Handles(handles) = found else { return Ok(None) };
        if !handles.into_inner().contains(&index) {
            return Ok(None);
        }
        let handle =
            self.context.execute_without_session(|c| c.tr_from_tpm_public(index)).map_err(&fail)?;
        Ok(Some(handle.into()))
    }

    fn public(&mut self, place: Place, length: usize) -> Result<NvPublic, TpmError> {
        let fail = TpmError::command("NV_DefineSpace");
        NvPublicBuilder::new()
            .with_nv_index(NvIndexTpmHandle::new(place.index()).map_err(&fail)?)
            .with_index_name_algorithm(HashingAlgorithm::Sha256)
            .with_index_attributes(attributes(false)?)
            .with_index_auth_policy(self.policy()?)
            .with_data_area_size(length)
            .build()
            .map_err(&fail)
    }

    /// The policy's digest over the registers as they are now.
    fn policy(&mut self) -> Result<Digest, TpmError> {
        self.in_session(SessionType::Trial, |context, session| {
            let policy = PolicySession::try_from(session)?;
            context.execute_without_session(|c| c.policy_get_digest(policy))
        })
        .map_err(TpmError::command("PolicyGetDigest"))
    }

    fn with_policy<T>(
        &mut self,
        work: impl FnOnce(&mut Context, AuthSession) -> tss_esapi::Result<T>,
    ) -> tss_esapi::Result<T> {
        self.in_session(SessionType::Policy, work)
    }

    /// Runs `work` in a new session that has seen TPM2_PolicyPCR.
    fn in_session<T>(
        &mut self,
        kind: SessionType,
        work: impl FnOnce(&mut Context, AuthSession) -> tss_esapi::Result<T>,
    ) -> tss_esapi::Result<T> {
        let pcrs = selection(&POLICY_PCRS).map_err(|e| match e {
            TpmError::Command { source, .. } => source,
            _ => tss_esapi::Error::WrapperError(WrapperErrorKind::InvalidParam),
        })?;
        let session = self
            .context
            .execute_without_session(|c| {
                let symmetric = SymmetricDefinition::AES_128_CFB;
                c.start_auth_session(None, None, None, kind, symmetric, HashingAlgorithm::Sha256)
            })?
            .ok_or(tss_esapi::Error::WrapperError(WrapperErrorKind::WrongValueFromTpm))?;
        let done = PolicySession::try_from(session).and_then(|policy| {
            self.context
                .execute_without_session(|c| c.policy_pcr(policy, Digest::default(), pcrs))?;
            work(&mut self.context, session)
        });
        let handle = SessionHandle::from(session);
        let flushed = self.context.execute_without_session(|c| c.flush_context(handle.into()));
        // A session whose continueSession bit is clear went with its last command.
        done.and_then(|value| match flushed {
            Err(error) if !is_missing(&error) => Err(error),
            _ => Ok(value),
        })
    }
}

/// Read and written under the policy alone; no dictionary-attack counter, nobody's password. The
/// TPM itself sets TPMA_NV_WRITTEN (TPM 2.0 part 2, §13.4).
fn attributes(written: bool) -> Result<NvIndexAttributes, TpmError> {
    NvIndexAttributesBuilder::new()
        .with_policy_read(true)
        .with_policy_write(true)
        .with_no_da(true)
        .with_written(written)
        .build()
        .map_err(TpmError::command("NV_DefineSpace"))
}
