//! The third factor: a secret that this machine gives back to this image, and to nobody else.
//!
//! A TPM keeps it, for the boot phase alone. SEV-SNP derives it from the chip and the image's measurement, in every
//! phase; nothing is kept there, so a secret that comes from elsewhere is needed from the parties at every boot. A TD
//! has neither.
//!
//! Where every party's policy trusts the TPM for it, the first boot makes the secret M, keeps it in the TPM and
//! derives the keys of p5 and `state` with it; each key holder is told its share of M together with p5's header.
//! From then on the disk opens on this machine, or where all parties let it move: then their shares give M back,
//! and the new machine's TPM keeps it. Where the owners of p3's key allow it, the TPM also keeps a copy of that
//! key, so that p3 opens without the network.
//!
//! A power cut anywhere is harmless: M is kept before anything is derived with it, the shares follow from M, and
//! a key holder's registration of header and share is one transaction.

use cvm_attest::{
    attester::{Place, Tpm},
    collect::Device,
};
use cvm_ceremony::split_key::{MachineSecret, MachineShare};
use cvm_layout::{
    manifest::{ImageId, KeyPurpose, Manifest},
    names::Name,
};
use cvm_seal::{DiskKey, MacKey};
use zeroize::Zeroizing;

use crate::{
    codes::{Code, Coded, Failure},
    console::step,
    release::{AreaKeys, Remembered},
    seal_plan::Memory,
};

/// Who keeps this image's secrets on this machine.
pub enum Keeper<'a> {
    /// A TPM keeps what it is given.
    Tpm(&'a mut Tpm),
    /// A TEE that may derive a key, and keeps nothing.
    Tee(&'a mut dyn Device),
}

/// What this machine has of the third factor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Has {
    /// It could keep one, and has none of this image.
    Nothing,
    /// The TPM keeps the image's.
    Kept,
    /// The TEE derives one; whether the image is bound to that one shows only when p5's header is checked.
    Derived,
    /// It can neither keep nor derive one.
    Never,
}

/// What to do about the third factor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    /// The keys need no machine.
    Unbound,
    /// This machine has the secret of this image.
    Kept,
    /// First boot, and everybody allows it: make one.
    Enrol,
    /// All parties give their shares: the image moves here.
    Join,
}

/// Decides; the error names the parties that hold their share back.
fn plan<'a>(remembered: &[Remembered<'a>], has: Has) -> Result<Plan, Vec<&'a Name>> {
    let bound = remembered.iter().any(|r| r.machine.bound);
    let sealed = remembered.iter().any(|r| matches!(r.memory, Memory::Sealed(_)));
    let given = remembered.iter().all(|r| r.machine.share.is_some());
    let allowed = has != Has::Never && remembered.iter().all(|r| r.memory != Memory::None && r.machine.allowed.bind);
    match (bound, sealed) {
        // An area that was made without a third factor stays without.
        (false, true) => Ok(Plan::Unbound),
        (false, false) if !allowed => Ok(Plan::Unbound),
        // Kept by a first boot that died before it told every key holder: the same secret again.
        (_, _) if has == Has::Kept || (has == Has::Derived && !(bound && given)) => Ok(Plan::Kept),
        (false, false) => Ok(Plan::Enrol),
        (true, _) => {
            let withheld: Vec<_> = remembered.iter().filter(|r| r.machine.share.is_none()).map(|r| r.name).collect();
            if withheld.is_empty() { Ok(Plan::Join) } else { Err(withheld) }
        }
    }
}

/// The machine's secret, where the image's keys need one.
pub fn settle(
    mut keeper: Keeper<'_>,
    image: &ImageId,
    remembered: &mut [Remembered<'_>],
) -> Result<Option<MachineSecret>, Failure> {
    let (has, own) = own(&mut keeper, image)?;
    let plan = plan(remembered, has).map_err(|withheld| {
        let names = withheld.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" and ");
        Failure::new(Code::MachineElsewhere, format_args!("{names} does not let it move here"))
    })?;
    let (secret, said) = match (plan, own) {
        (Plan::Unbound, _) => return Ok(None),
        (Plan::Kept, Some(own)) if has == Has::Derived => {
            (own, "the keys need this machine: its TEE derives their third factor")
        }
        (Plan::Kept, Some(own)) => (own, "the keys need this machine; its TPM keeps their third factor"),
        (Plan::Join, _) => {
            let shares: Vec<_> = remembered
                .iter()
                .filter_map(|r| r.machine.share.as_ref())
                .map(|s| MachineShare::from_bytes(s))
                .collect();
            (MachineSecret::join(&shares), "moved here: all parties gave their shares of the third factor")
        }
        _ => (MachineSecret::generate().code(Code::Machine)?, "from now on the keys need this machine"),
    };
    match keeper {
        Keeper::Tpm(tpm) if plan != Plan::Kept => keep(tpm, Place::Machine, image, secret.as_bytes())?,
        // Telling the shares back would end the move, and the next boot here could not join them again.
        Keeper::Tee(_) if plan == Plan::Join => {
            remembered.iter_mut().for_each(|r| r.machine.share = None);
            step("machine", "a TEE cannot keep a third factor of elsewhere: each boot here needs the parties' shares");
        }
        _ => {}
    }
    step("machine", said);
    Ok(Some(secret))
}

/// What this machine has of the image's third factor, and that.
fn own(keeper: &mut Keeper<'_>, image: &ImageId) -> Result<(Has, Option<MachineSecret>), Failure> {
    match keeper {
        Keeper::Tpm(tpm) => Ok(match recall::<32>(tpm, Place::Machine, image)? {
            Some(kept) => (Has::Kept, Some(MachineSecret::from_bytes(&kept))),
            None => (Has::Nothing, None),
        }),
        // A refusal is fatal: a host that breaks this interface must not get a first boot without its third factor.
        Keeper::Tee(device) => match device.derived_key().code(Code::Machine)? {
            Some(key) => {
                let secret = MachineSecret::from_tee(&key, image).code(Code::Machine)?;
                Ok((Has::Derived, Some(secret)))
            }
            None => Ok((Has::Never, None)),
        },
    }
}

/// p3's keys, if this TPM keeps a copy.
pub fn recall_system(keeper: Keeper<'_>, image: &ImageId) -> Result<Option<AreaKeys>, Failure> {
    let Keeper::Tpm(tpm) = keeper else { return Ok(None) };
    let Some(kept) = recall::<64>(tpm, Place::System, image)? else { return Ok(None) };
    let (Some(disk), Some(mac)) = (kept.first_chunk::<32>(), kept.last_chunk::<32>()) else { return Ok(None) };
    let from = "this machine's TPM, without the network".into();
    Ok(Some(AreaKeys { disk: DiskKey::new(disk), mac: MacKey::new(mac), from }))
}

/// Keeps the copy where all owners of p3's key allow it now, and removes it where one does not. Only a TPM can keep
/// one, and a TEE's evidence never leads to it.
pub fn keep_system(
    keeper: Keeper<'_>,
    manifest: &Manifest,
    remembered: &[Remembered<'_>],
    secret: &Zeroizing<[u8; 64]>,
) -> Result<(), Failure> {
    let Keeper::Tpm(tpm) = keeper else { return Ok(()) };
    let owner = |name: &Name| {
        manifest.split_key.parties.iter().any(|p| p.name == *name && p.purposes.contains(&KeyPurpose::System))
    };
    let allowed = remembered.iter().filter(|r| owner(r.name)).all(|r| r.machine.allowed.offline);
    match (allowed, recall::<64>(tpm, Place::System, &manifest.image_id)?) {
        (true, Some(kept)) if kept == *secret => Ok(()),
        (true, _) => {
            keep(tpm, Place::System, &manifest.image_id, secret.as_slice())?;
            step("machine", "the TPM keeps p3's key: from now on p3 opens without the network");
            Ok(())
        }
        (false, _) => tpm.forget(Place::System).code(Code::Machine),
    }
}

/// A kept secret begins with the image's id: one machine may have run another image before.
fn keep(tpm: &mut Tpm, place: Place, image: &ImageId, secret: &[u8]) -> Result<(), Failure> {
    let kept = Zeroizing::new([&image.0[..], secret].concat());
    tpm.keep(place, &kept).code(Code::Machine)
}

fn recall<const N: usize>(tpm: &mut Tpm, place: Place, image: &ImageId) -> Result<Option<Zeroizing<[u8; N]>>, Failure> {
    let Some(kept) = tpm.recall(place).code(Code::Machine)? else { return Ok(None) };
    let mut secret = Zeroizing::new([0; N]);
    match kept.split_at_checked(image.0.len()) {
        Some((id, rest)) if id == image.0 && rest.len() == N => secret.copy_from_slice(rest),
        _ => return Ok(None),
    }
    Ok(Some(secret))
}

#[cfg(test)]
mod tests {
    use cvm_base::Bytes32;
    use cvm_release::messages::MachineRule;

    use super::*;
    use crate::release::Machine;

    const FRESH: Memory = Memory::Fresh;
    const SEALED: Memory = Memory::Sealed(Some(Bytes32 { 0: [1; 32] }));

    /// One key holder: its memory; whether its policy allows binding, it holds a share, and gives it.
    type Case = (Memory, [bool; 3]);

    fn planned(cases: [Case; 2], kept: bool) -> Result<Plan, Vec<String>> {
        planned_with(cases, if kept { Has::Kept } else { Has::Nothing })
    }

    fn planned_with(cases: [Case; 2], has: Has) -> Result<Plan, Vec<String>> {
        let names: [Name; 2] = ["alice", "bob"].map(|name| name.parse().unwrap());
        let remembered: Vec<_> = cases
            .into_iter()
            .zip(&names)
            .map(|((memory, [bind, bound, share]), name)| Remembered {
                name,
                memory,
                machine: Machine {
                    allowed: MachineRule { bind, offline: false },
                    bound,
                    share: share.then(|| Zeroizing::new([1; 32])),
                },
            })
            .collect();
        plan(&remembered, has).map_err(|names| names.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_first_boot_enrols_only_where_every_party_trusts_the_machine() {
        let (yes, no) = ((FRESH, [true, false, false]), (FRESH, [false, false, false]));
        assert_eq!(planned([yes, yes], false), Ok(Plan::Enrol));
        assert_eq!(planned([yes, no], false), Ok(Plan::Unbound));
        assert_eq!(planned([yes, no], true), Ok(Plan::Unbound));
        assert_eq!(planned([yes, (Memory::None, [true, false, false])], false), Ok(Plan::Unbound));
    }

    #[test]
    fn a_power_cut_at_any_point_of_the_enrolment_goes_on_with_the_same_secret() {
        let (fresh, told) = ((FRESH, [true, false, false]), (SEALED, [true, true, false]));
        assert_eq!(planned([fresh, fresh], true), Ok(Plan::Kept), "kept, nobody told");
        assert_eq!(planned([told, fresh], true), Ok(Plan::Kept), "one key holder told");
        assert_eq!(planned([told, told], true), Ok(Plan::Kept));
    }

    #[test]
    fn attack_another_machine_needs_every_partys_share() {
        let (held, given) = ((SEALED, [true, true, false]), (SEALED, [true, true, true]));
        assert_eq!(planned([held, held], false), Err(vec!["alice".into(), "bob".into()]));
        assert_eq!(planned([given, held], false), Err(vec!["bob".into()]));
        assert_eq!(planned([given, given], false), Ok(Plan::Join));
        let never_told = (FRESH, [true, false, false]);
        assert_eq!(planned([given, never_told], false), Err(vec!["bob".into()]));
    }

    #[test]
    fn a_tee_that_derives_a_secret_has_it_from_the_first_boot_on() {
        let (fresh, told) = ((FRESH, [true, false, false]), (SEALED, [true, true, false]));
        for cases in [[fresh, fresh], [told, fresh], [told, told]] {
            assert_eq!(planned_with(cases, Has::Derived), Ok(Plan::Kept));
        }
        let moving = (SEALED, [true, true, true]);
        assert_eq!(planned_with([moving, moving], Has::Derived), Ok(Plan::Join), "bound elsewhere, and let go");
        let refusing = (FRESH, [false, false, false]);
        assert_eq!(planned_with([fresh, refusing], Has::Derived), Ok(Plan::Unbound));
    }

    #[test]
    fn a_machine_that_can_keep_nothing_is_never_bound_and_opens_with_all_shares() {
        let (fresh, given) = ((FRESH, [true, false, false]), (SEALED, [true, true, true]));
        assert_eq!(planned_with([fresh, fresh], Has::Never), Ok(Plan::Unbound));
        assert_eq!(planned_with([given, given], Has::Never), Ok(Plan::Join));
        assert_eq!(planned_with([given, (SEALED, [true, true, false])], Has::Never), Err(vec!["bob".into()]));
    }

    #[test]
    fn what_was_sealed_without_a_machine_stays_without() {
        let sealed = (SEALED, [true, false, false]);
        assert_eq!(planned([sealed, sealed], false), Ok(Plan::Unbound));
        assert_eq!(planned([sealed, sealed], true), Ok(Plan::Unbound));
    }
}
