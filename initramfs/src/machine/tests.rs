use cvm_base::Bytes32;
use cvm_collect::{CollectError, Kind, Raw};
use cvm_release::messages::MachineRule;

use super::*;
use crate::release::ThirdFactor;

const FRESH: SealMemory = SealMemory::Fresh;
const SEALED: SealMemory = SealMemory::Sealed(Some(Bytes32 { 0: [1; 32] }));
const IMAGE: ImageId = ImageId { 0: [9; 16] };
const TRANSCRIPT: Bytes32 = Bytes32 { 0: [7; 32] };
/// The secret to which an image is bound.
const M: [u8; 32] = [3; 32];
const ELSE: [u8; 32] = [0x66; 32];

/// One key holder: its memory; whether its policy allows binding, it holds a share, and gives it.
type Case = (SealMemory, [bool; 3]);

fn names() -> [Name; 2] {
    ["alice", "bob"].map(|name| name.parse().unwrap())
}

fn planned(cases: [Case; 2], has: MachineHas) -> Result<Vec<SecretSource>, Vec<String>> {
    let names = names();
    let remembered: Vec<_> = cases
        .into_iter()
        .zip(&names)
        .map(|((memory, [bind, bound, share]), name)| Remembered {
            name,
            seal: memory,
            third_factor: ThirdFactor {
                allowed: MachineRule { bind, offline: false },
                bound,
                share: share.then(|| Zeroizing::new([1; 32])),
            },
        })
        .collect();
    plan(&remembered, has).map_err(|names| names.iter().map(ToString::to_string).collect())
}

/// Every row of what the key holders say, and every column of what the machine has.
#[test]
fn every_combination_of_memories_and_machine() {
    use SecretSource::{New, Own, Shares};
    let columns = [MachineHas::Nothing, MachineHas::Kept, MachineHas::Derived, MachineHas::Never];
    let (yes, no, deaf) = (
        (FRESH, [true, false, false]),
        (FRESH, [false; 3]),
        (SealMemory::NotKept, [true, false, false]),
    );
    let (unbound, held, given) = (
        (SEALED, [true, false, false]),
        (SEALED, [true, true, false]),
        (SEALED, [true, true, true]),
    );
    let both = || Err(vec!["alice".to_owned(), "bob".to_owned()]);
    let bob = || Err(vec!["bob".to_owned()]);
    let all = |sources: &[SecretSource]| Ok(sources.to_vec());
    let rows = [
        // First boots: where every party trusts the machine, and with what an earlier try kept.
        ([yes, yes], [all(&[New]), all(&[Own]), all(&[Own]), all(&[])]),
        ([yes, no], [all(&[]), all(&[]), all(&[]), all(&[])]),
        ([yes, deaf], [all(&[]), all(&[]), all(&[]), all(&[])]),
        // Sealed without a machine: it stays without.
        ([unbound, unbound], [all(&[]), all(&[]), all(&[]), all(&[])]),
        // Bound, and on its machine; a power cut may have left one party untold.
        ([held, held], [both(), all(&[Own]), all(&[Own]), both()]),
        ([held, yes], [both(), all(&[Own]), all(&[Own]), both()]),
        // Bound, and let go by one party or by all: the shares come first, and never alone where
        // there is more.
        ([given, held], [bob(), all(&[Own]), all(&[Own]), bob()]),
        ([given, yes], [bob(), all(&[Own]), all(&[Own]), bob()]),
        (
            [given, given],
            [all(&[Shares]), all(&[Shares, Own]), all(&[Shares, Own]), all(&[Shares])],
        ),
    ];
    for (cases, row) in rows {
        for (has, expected) in columns.into_iter().zip(row) {
            assert_eq!(planned(cases, has), expected, "{cases:?} with {has:?}");
        }
    }
}

/// A TPM's places.
#[derive(Default)]
struct Kept(Option<Vec<u8>>);

impl Kept {
    fn keeping(secret: [u8; 32]) -> Self {
        Self(Some([&IMAGE.0[..], &secret].concat()))
    }

    fn secret(&self) -> Option<&[u8]> {
        self.0.as_deref().map(|kept| &kept[16..])
    }
}

impl SecretStore for Kept {
    fn keep(&mut self, _: Place, secret: &[u8]) -> Result<(), Failure> {
        self.0 = Some(secret.to_vec());
        Ok(())
    }

    fn recall(&mut self, _: Place) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
        Ok(self.0.clone().map(Zeroizing::new))
    }

    fn forget(&mut self, _: Place) -> Result<(), Failure> {
        self.0 = None;
        Ok(())
    }
}

/// A TEE that derives this key.
struct Chip([u8; 32]);

impl Device for Chip {
    fn kind(&self) -> Kind {
        Kind::Snp
    }

    fn evidence(&mut self, _: &[u8; 64]) -> Result<Raw, CollectError> {
        unreachable!("nobody asks it for evidence here")
    }

    fn derived_key(&mut self) -> Result<Option<Zeroizing<[u8; 32]>>, CollectError> {
        Ok(Some(Zeroizing::new(self.0)))
    }
}

/// Every party's share of a secret.
fn shares(of: [u8; 32]) -> Vec<[u8; 32]> {
    let names = names();
    let shares =
        MachineSecret::from_bytes(&of).shares(&TRANSCRIPT, &names.each_ref(), &IMAGE).unwrap();
    shares.iter().map(|share| *share.as_bytes()).collect()
}

/// Two key holders that know the image to be bound, and give these shares.
fn moving<'a>(names: &'a [Name; 2], given: &[[u8; 32]]) -> Vec<Remembered<'a>> {
    let allowed = MachineRule { bind: true, offline: false };
    let machine = |share: &[u8; 32]| ThirdFactor {
        allowed,
        bound: true,
        share: Some(Zeroizing::new(*share)),
    };
    names
        .iter()
        .zip(given)
        .map(|(name, share)| Remembered { name, seal: SEALED, third_factor: machine(share) })
        .collect()
}

/// A disk whose p5 was made with a secret.
fn made_with(of: [u8; 32]) -> impl FnMut(Option<&MachineSecret>) -> Result<(), Failure> {
    move |secret| match secret {
        Some(secret) if *secret.as_bytes() == of => Ok(()),
        _ => Err(Failure::new(Code::JobsHeaderMac, "its MAC is wrong")),
    }
}

#[test]
fn attack_a_wrong_share_is_kept_by_no_machine_and_ends_one_boot_alone() {
    let names = names();
    let mut tpm = Kept::default();
    let wrong = [shares(M)[0], ELSE];
    let refused = prove(Keeper::Tpm(&mut tpm), &IMAGE, &mut moving(&names, &wrong), made_with(M))
        .err()
        .unwrap();
    assert_eq!(refused.code, Code::JobsHeaderMac);
    assert!(refused.detail.contains("all parties' shares"), "{refused}");
    assert_eq!(tpm.secret(), None, "nothing is kept that p5's header does not prove");
    let (_, secret) =
        prove(Keeper::Tpm(&mut tpm), &IMAGE, &mut moving(&names, &shares(M)), made_with(M))
            .unwrap();
    assert_eq!((secret.unwrap().as_bytes(), tpm.secret()), (&M, Some(&M[..])));
}

#[test]
fn a_machine_that_keeps_a_wrong_secret_opens_with_all_shares_and_keeps_the_right_one() {
    let names = names();
    let mut tpm = Kept::keeping(ELSE);
    prove(Keeper::Tpm(&mut tpm), &IMAGE, &mut moving(&names, &shares(M)), made_with(M)).unwrap();
    assert_eq!(tpm.secret(), Some(&M[..]));
}

#[test]
fn a_wrong_share_does_not_keep_an_image_from_the_machine_that_it_is_bound_to() {
    let names = names();
    let mut tpm = Kept::keeping(M);
    let mut remembered = moving(&names, &[ELSE, shares(M)[1]]);
    let (_, secret) = prove(Keeper::Tpm(&mut tpm), &IMAGE, &mut remembered, made_with(M)).unwrap();
    assert_eq!((secret.unwrap().as_bytes(), tpm.secret()), (&M, Some(&M[..])));
}

#[test]
fn what_no_secret_helps_is_not_tried_again() {
    let names = names();
    let mut tpm = Kept::keeping(M);
    let mut tries = 0;
    let refused = prove(
        Keeper::Tpm(&mut tpm),
        &IMAGE,
        &mut moving(&names, &shares(M)),
        |_| -> Result<(), _> {
            tries += 1;
            Err(Failure::new(Code::JobsWiped, "empty"))
        },
    );
    assert_eq!((refused.err().unwrap().code, tries), (Code::JobsWiped, 1));
}

#[test]
fn a_tee_opens_what_is_bound_elsewhere_with_the_shares_of_each_boot_and_tells_none_back() {
    let names = names();
    let own = *MachineSecret::from_tee(&[5; 32], &IMAGE).unwrap().as_bytes();
    let mut chip = Chip([5; 32]);
    let mut elsewhere = moving(&names, &shares(M));
    prove(Keeper::Tee(&mut chip), &IMAGE, &mut elsewhere, made_with(M)).unwrap();
    assert!(
        elsewhere.iter().all(|r| r.third_factor.share.is_none()),
        "the parties' permission to move lasts"
    );
    // Where the image is this chip's own, telling the shares back ends the move; a wrong share
    // hinders nothing.
    for given in [shares(own), vec![ELSE, ELSE]] {
        let mut home = moving(&names, &given);
        let (_, secret) = prove(Keeper::Tee(&mut chip), &IMAGE, &mut home, made_with(own)).unwrap();
        assert_eq!(secret.unwrap().as_bytes(), &own);
        assert!(home.iter().all(|r| r.third_factor.share.is_some()));
    }
}

/// A disk, a TPM and two key holders, of which each write can be the last before a power cut.
#[derive(Default)]
struct World {
    tpm: Kept,
    p5: Option<[u8; 32]>,
    holders: [Option<Holder>; 2],
}

/// What a key holder was told.
struct Holder {
    share: [u8; 32],
    may_move: bool,
}

impl World {
    /// A boot that dies before its write number `cut`.
    fn boot(&mut self, cut: usize) -> Result<(), Failure> {
        let names = names();
        let mut left = cut;
        let mut powered = || {
            left = left
                .checked_sub(1)
                .ok_or_else(|| Failure::new(Code::Panic, "the power is gone"))?;
            Ok::<_, Failure>(())
        };
        let allowed = MachineRule { bind: true, offline: false };
        let remembered = |(name, told): (_, &Option<Holder>)| Remembered {
            name,
            seal: if told.is_some() { SEALED } else { FRESH },
            third_factor: ThirdFactor {
                allowed,
                bound: told.is_some(),
                share: told
                    .as_ref()
                    .filter(|told| told.may_move)
                    .map(|told| Zeroizing::new(told.share)),
            },
        };
        let mut remembered: Vec<_> = names.iter().zip(&self.holders).map(remembered).collect();
        let sealed = self.holders.iter().any(Option::is_some);
        let before = self.tpm.0.clone();
        let p5 = self.p5;
        let judge = |secret: Option<&MachineSecret>| match (p5, secret) {
            (None, _) if sealed => Err(Failure::new(Code::JobsWiped, "empty")),
            (None, _) => Ok(()),
            (Some(made), Some(secret)) if made == *secret.as_bytes() => Ok(()),
            _ => Err(Failure::new(Code::JobsHeaderMac, "its MAC is wrong")),
        };
        let (_, secret) = prove(Keeper::Tpm(&mut self.tpm), &IMAGE, &mut remembered, judge)?;
        let secret = *secret.expect("every party allows it").as_bytes();
        if self.tpm.0 != before {
            powered().inspect_err(|_| self.tpm.0 = before)?;
        }
        if self.p5.is_none() {
            powered()?;
            self.p5 = Some(secret);
        }
        for ((told, known), share) in self.holders.iter_mut().zip(&remembered).zip(shares(secret)) {
            if known.seal == FRESH || known.third_factor.share.is_some() {
                powered()?;
                assert!(
                    told.as_ref().is_none_or(|told| told.share == share),
                    "a key holder takes no other share"
                );
                *told = Some(Holder { share, may_move: false });
            }
        }
        Ok(())
    }
}

#[test]
fn a_power_cut_at_any_step_of_the_enrolment_goes_on_with_the_same_secret() {
    for cut in 0.. {
        let mut world = World::default();
        let whole = world.boot(cut).is_ok();
        let kept = world.tpm.secret().map(<[u8]>::to_vec);
        world.boot(usize::MAX).unwrap_or_else(|failure| panic!("after {cut} writes: {failure}"));
        assert!(
            kept.is_none() || kept.as_deref() == world.tpm.secret(),
            "after {cut} writes: another secret"
        );
        assert_eq!(world.p5.as_ref().map(|made| &made[..]), world.tpm.secret());
        assert!(world.holders.iter().all(Option::is_some));
        if whole {
            assert_eq!(cut, 4, "kept, made, and two key holders told");
            break;
        }
    }
}

#[test]
fn a_power_cut_at_any_step_of_a_move_goes_on_with_the_same_secret() {
    for cut in 0.. {
        let mut world = World::default();
        world.boot(usize::MAX).unwrap();
        let (made, old) = (world.p5, world.tpm.0.take());
        world.holders.iter_mut().flatten().for_each(|told| told.may_move = true);
        let whole = world.boot(cut).is_ok();
        world.boot(usize::MAX).unwrap_or_else(|failure| panic!("after {cut} writes: {failure}"));
        assert_eq!(
            (world.p5, &world.tpm.0),
            (made, &old),
            "the new machine keeps what the old one kept"
        );
        assert!(world.holders.iter().flatten().all(|told| !told.may_move), "the move has ended");
        if whole {
            assert_eq!(cut, 3, "kept, and two key holders told");
            break;
        }
    }
}
