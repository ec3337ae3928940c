//! The third factor: a secret that this machine gives back to this image, and to nobody else.
//!
//! A TPM keeps it, for the boot phase alone. SEV-SNP derives it from the chip and the image's
//! measurement, in every phase. Nothing is kept there, so an image that was bound to another
//! machine needs the parties' shares at every boot. A TD can neither keep nor derive one.
//!
//! Where every party's policy trusts the TPM for it, the first boot makes the secret M, keeps it in
//! the TPM and derives the keys of p5 and `state` with it; each key holder is told its share of M
//! together with p5's header. From then on the disk opens on this machine, or where all parties let
//! it move: then their shares give M back, and the new machine's TPM keeps it. Where the owners of
//! p3's key allow it, the TPM also keeps a copy of that key, so that p3 opens without the network.
//!
//! An M is not believed for where it comes from. p5's header proves it: the MAC holds under keys
//! that were derived with it, or the next source is tried. Only a proven M is kept. So a wrong
//! share, or a wrong M that a TPM kept before, costs one boot at most. Nothing can prove a new M:
//! it is kept where there is no p5 yet, before the first byte of one is written.
//!
//! A power cut anywhere is harmless: M is kept before anything is made with it, the shares follow
//! from M, and a key holder's registration of header and share is one transaction.

use std::fmt;

use cvm_ceremony::split_key::{MachineSecret, MachineShare};
use cvm_collect::{
    Device,
    tpm::{Place, Tpm},
};
use cvm_layout::{manifest::ImageId, names::Name};
use cvm_seal::{DiskKey, MacKey};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::{
    codes::{Code, Coded, Failure},
    console::step,
    release::{AreaKeys, Exchange, HeaderKeys, Joined, Remembered, Settled},
    seal_plan::SealMemory,
};

/// Keeps secrets, and gives them back to this image's boot alone.
pub trait SecretStore {
    /// Keeps a secret; what was in this place before is gone.
    fn keep(&mut self, place: Place, secret: &[u8]) -> Result<(), Failure>;
    /// Gives the secret back; `None` where there is none for this boot.
    fn recall(&mut self, place: Place) -> Result<Option<Zeroizing<Vec<u8>>>, Failure>;
    /// Empties the place.
    fn forget(&mut self, place: Place) -> Result<(), Failure>;
}

impl SecretStore for Tpm {
    fn keep(&mut self, place: Place, secret: &[u8]) -> Result<(), Failure> {
        Self::keep(self, place, secret).code(Code::Machine)
    }

    fn recall(&mut self, place: Place) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
        Self::recall(self, place).code(Code::Machine)
    }

    fn forget(&mut self, place: Place) -> Result<(), Failure> {
        Self::forget(self, place).code(Code::Machine)
    }
}

/// Who keeps this image's secrets on this machine.
pub enum Keeper<'a> {
    /// A TPM keeps what it is given.
    Tpm(&'a mut dyn SecretStore),
    /// A TEE that may derive a key, and keeps nothing.
    Tee(&'a mut dyn Device),
}

/// What this machine has of the third factor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MachineHas {
    /// It could keep one, and has none for this image.
    Nothing,
    /// The TPM keeps one.
    Kept,
    /// The TEE derives one.
    Derived,
    /// It can neither keep nor derive one.
    Never,
}

/// Where the third factor may come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SecretSource {
    /// All parties gave their shares: the image moves here.
    Shares,
    /// This machine keeps or derives it.
    Own,
    /// First boot, and everybody allows it: a new one.
    New,
}

/// Where to ask for the third factor, in this order; an empty list where the keys need none. The
/// error names the parties that hold their share back.
fn plan<'a>(
    remembered: &[Remembered<'a>],
    has: MachineHas,
) -> Result<Vec<SecretSource>, Vec<&'a Name>> {
    let bound = remembered.iter().any(|r| r.third_factor.bound);
    let sealed = remembered.iter().any(|r| matches!(r.seal, SealMemory::Sealed(_)));
    let allowed = has != MachineHas::Never
        && remembered.iter().all(|r| r.seal != SealMemory::NotKept && r.third_factor.allowed.bind);
    let own = matches!(has, MachineHas::Kept | MachineHas::Derived).then_some(SecretSource::Own);
    if !bound {
        // An area that was made without a third factor stays without. A secret that was kept before
        // any key holder was told is from a first boot that died: the same one is used again.
        return Ok(if sealed || !allowed {
            vec![]
        } else {
            vec![own.unwrap_or(SecretSource::New)]
        });
    }
    let withheld: Vec<_> =
        remembered.iter().filter(|r| r.third_factor.share.is_none()).map(|r| r.name).collect();
    let shares = withheld.is_empty().then_some(SecretSource::Shares);
    let sources: Vec<_> = shares.into_iter().chain(own).collect();
    if sources.is_empty() { Err(withheld) } else { Ok(sources) }
}

/// Decides the machine's part in the keys of p5 and `state`, which the disk's headers prove.
///
/// `judge` is given what authenticates the headers under a candidate for the machine's secret, and
/// what the key holders remember; it fails where a header is not authentic under them. What it
/// makes of the disk is returned, or nothing where another stage opens p5 and `state`.
pub fn settle<'a, T>(
    keeper: Keeper<'_>,
    mut exchange: Exchange<'a, Joined>,
    judge: impl Fn(&HeaderKeys, &[SealMemory]) -> Result<T, Failure>,
) -> Result<(Exchange<'a, Settled>, Option<T>), Failure> {
    let mut remembered = exchange.take_remembered();
    // A TPM gives back what it keeps to the boot alone, so that what opens later cannot need it.
    if !exchange.makes_data_keys() {
        return Ok((exchange.settle(None, remembered), None));
    }
    let memories: Vec<_> = remembered.iter().map(|r| r.seal).collect();
    let image = &exchange.manifest().image_id;
    let (judged, secret) = prove(keeper, image, &mut remembered, |candidate| {
        judge(&exchange.candidate_header_keys(candidate)?, &memories)
    })?;
    Ok((exchange.settle(secret, remembered), Some(judged)))
}

/// What `judge` makes of the disk with the machine's secret, and that secret where the image's keys
/// need one.
///
/// `judge` fails where the header of p5 or `state` is not authentic under the keys that a secret
/// gives.
fn prove<T>(
    mut keeper: Keeper<'_>,
    image: &ImageId,
    remembered: &mut [Remembered<'_>],
    mut judge: impl FnMut(Option<&MachineSecret>) -> Result<T, Failure>,
) -> Result<(T, Option<MachineSecret>), Failure> {
    let (has, own) = machines_own(&mut keeper, image)?;
    let sources = plan(remembered, has).map_err(|withheld| {
        let names = withheld.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" and ");
        Failure::new(Code::MachineElsewhere, format_args!("{names} does not let it move here"))
    })?;
    let mut refused = vec![];
    for source in sources {
        let secret = match (source, &own) {
            (SecretSource::Shares, _) => join(remembered),
            (SecretSource::Own, Some(own)) => MachineSecret::from_bytes(own.as_bytes()),
            _ => MachineSecret::generate().code(Code::Machine)?,
        };
        match judge(Some(&secret)) {
            Ok(judged) => {
                let known = own.is_some_and(|own| own.ct_eq(&secret).into());
                keep_proven(keeper, image, remembered, (&secret, known, source))?;
                return Ok((judged, Some(secret)));
            }
            // Only another secret can help here.
            Err(failure) if matches!(failure.code, Code::JobsHeaderMac | Code::StateHeaderMac) => {
                refused.push((source, failure));
            }
            Err(failure) => return Err(failure),
        }
    }
    let Some((_, Failure { code, .. })) = refused.first() else { return Ok((judge(None)?, None)) };
    let details: Vec<_> =
        refused.iter().map(|(source, failure)| format!("{source}: {}", failure.detail)).collect();
    Err(Failure::new(*code, details.join("; ")))
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shares => "with the third factor that all parties' shares give",
            Self::Own => "with the third factor that this machine has",
            Self::New => "with a new third factor",
        })
    }
}

fn join(remembered: &[Remembered<'_>]) -> MachineSecret {
    let shares = remembered.iter().filter_map(|r| r.third_factor.share.as_ref());
    let shares: Vec<_> = shares.map(|share| MachineShare::from_bytes(share)).collect();
    MachineSecret::join(&shares)
}

/// The headers hold with this secret, or there are none yet: this machine keeps it from now on, if
/// it did not.
fn keep_proven(
    keeper: Keeper<'_>,
    image: &ImageId,
    remembered: &mut [Remembered<'_>],
    (secret, known, source): (&MachineSecret, bool, SecretSource),
) -> Result<(), Failure> {
    let said = match (keeper, known, source) {
        (Keeper::Tpm(_), true, _) => "the keys need this machine; its TPM keeps their third factor",
        (Keeper::Tee(_), true, _) => {
            "the keys need this machine: its TEE derives their third factor"
        }
        (Keeper::Tpm(tpm), false, source) => {
            keep(tpm, Place::Machine, image, secret.as_bytes())?;
            match source {
                SecretSource::Shares => {
                    "moved here: all parties gave their shares of the third factor"
                }
                _ => "from now on the keys need this machine",
            }
        }
        (Keeper::Tee(_), false, _) => {
            // To tell the shares back would end the move: the next boot here could not join them
            // again.
            remembered.iter_mut().for_each(|r| r.third_factor.share = None);
            "all parties gave their shares of the third factor; a TEE cannot keep it: each boot \
             here needs them"
        }
    };
    step("machine", said);
    Ok(())
}

/// What this machine has of the image's third factor, and the secret itself.
fn machines_own(
    keeper: &mut Keeper<'_>,
    image: &ImageId,
) -> Result<(MachineHas, Option<MachineSecret>), Failure> {
    match keeper {
        Keeper::Tpm(tpm) => Ok(match recall::<32>(*tpm, Place::Machine, image)? {
            Some(kept) => (MachineHas::Kept, Some(MachineSecret::from_bytes(&kept))),
            None => (MachineHas::Nothing, None),
        }),
        // A refusal is fatal: a host that breaks this interface must not get a first boot without a
        // third factor.
        Keeper::Tee(device) => match device.derived_key().code(Code::Machine)? {
            Some(key) => {
                let secret = MachineSecret::from_tee(&key, image).code(Code::Machine)?;
                Ok((MachineHas::Derived, Some(secret)))
            }
            None => Ok((MachineHas::Never, None)),
        },
    }
}

/// p3's keys, if this TPM keeps a copy.
pub fn recall_system(keeper: Keeper<'_>, image: &ImageId) -> Result<Option<AreaKeys>, Failure> {
    let Keeper::Tpm(tpm) = keeper else { return Ok(None) };
    let Some(kept) = recall::<64>(tpm, Place::System, image)? else { return Ok(None) };
    let (Some(disk), Some(mac)) = (kept.first_chunk::<32>(), kept.last_chunk::<32>()) else {
        return Ok(None);
    };
    let from = "this machine's TPM, without the network".into();
    Ok(Some(AreaKeys { disk: DiskKey::new(disk), mac: MacKey::new(mac), from }))
}

/// Keeps the copy where all owners of p3's key allow it now, and removes it where one does not.
/// Only a TPM can keep one, and a TEE's evidence never leads to it.
pub fn keep_system(keeper: Keeper<'_>, exchange: &Exchange<'_, Settled>) -> Result<(), Failure> {
    let Keeper::Tpm(tpm) = keeper else { return Ok(()) };
    let (image, secret) = (exchange.image(), exchange.system_secret()?);
    match (exchange.owners_allow_offline(), recall::<64>(tpm, Place::System, image)?) {
        (true, Some(kept)) if kept == secret => Ok(()),
        (true, _) => {
            keep(tpm, Place::System, image, secret.as_slice())?;
            step("machine", "the TPM keeps p3's key: from now on p3 opens without the network");
            Ok(())
        }
        (false, _) => tpm.forget(Place::System),
    }
}

/// A kept secret begins with the image's id: one machine may have run another image before.
fn keep(
    tpm: &mut dyn SecretStore,
    place: Place,
    image: &ImageId,
    secret: &[u8],
) -> Result<(), Failure> {
    let kept = Zeroizing::new([&image.0[..], secret].concat());
    tpm.keep(place, &kept)
}

fn recall<const N: usize>(
    tpm: &mut dyn SecretStore,
    place: Place,
    image: &ImageId,
) -> Result<Option<Zeroizing<[u8; N]>>, Failure> {
    let Some(kept) = tpm.recall(place)? else { return Ok(None) };
    let mut secret = Zeroizing::new([0; N]);
    match kept.split_at_checked(image.0.len()) {
        Some((id, rest)) if id == image.0 && rest.len() == N => secret.copy_from_slice(rest),
        _ => return Ok(None),
    }
    Ok(Some(secret))
}

#[cfg(test)]
mod tests;
