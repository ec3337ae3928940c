//! What to do with p5 and `state`: one pure decision from what the disk shows and what the key
//! holders remember.
//!
//! The disk is the host's, who may wipe it, swap it or put back an old one. The key holders'
//! memory is not. So whatever any key holder remembers must be there. An area may be made only
//! where none remembers anything. Even then, one that was evidently finished is kept: a first boot
//! may have died between the disk's last write and the registration.

use std::fmt;

use cvm_base::Bytes32;
use cvm_seal::guard::GuardError;

/// An area's header as the guard saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderState {
    /// Zeros only.
    Blank,
    /// Something without a seal record: a first boot died half-way, or somebody wrote here.
    Unfinished(Fault),
    /// A seal record is there, and the guard refuses the header.
    Foreign(Fault),
    /// A header that this image made; SHA-256 of the area's first MiB.
    Ours(Bytes32),
}

/// Why the guard refuses a header, in two kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It says something that we never write.
    NotWhitelisted,
    /// It is well formed, and its MAC is wrong or missing.
    NotAuthentic,
}

impl From<&GuardError> for Fault {
    fn from(error: &GuardError) -> Self {
        match error {
            GuardError::Mac | GuardError::NoRecord => Self::NotAuthentic,
            _ => Self::NotWhitelisted,
        }
    }
}

/// What one key holder remembers of an area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealMemory {
    /// It keeps no memory of seals (a stock Trustee).
    NotKept,
    /// It never heard of a first boot.
    Fresh,
    /// The image was sealed; for p5 with this header. For `state` no header is remembered.
    Sealed(Option<Bytes32>),
}

impl fmt::Display for SealMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotKept => f.write_str("has no memory of seals: a wiped p5 would go unnoticed"),
            Self::Fresh => f.write_str("has not seen this image sealed"),
            Self::Sealed(Some(digest)) => write!(f, "remembers p5's header {digest}"),
            Self::Sealed(None) => f.write_str("has seen this image sealed"),
        }
    }
}

/// What to do with an area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealPlan {
    /// First boot: format, then register.
    Format,
    /// Open, then register: an earlier boot died before it could, at one key holder or at all.
    Adopt,
    /// Open.
    Open,
    /// End the boot.
    Refuse(PlanRefusal),
}

/// Why a boot must end here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanRefusal {
    /// The header is not whitelisted.
    NotWhitelisted,
    /// The header's MAC is wrong or missing.
    NotAuthentic,
    /// The image was sealed and the area is empty.
    Wiped,
    /// Authentic, but not the remembered one.
    NotTheRegistered,
    /// Two key holders remember different headers.
    HoldersDisagree,
}

impl From<Fault> for PlanRefusal {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::NotWhitelisted => Self::NotWhitelisted,
            Fault::NotAuthentic => Self::NotAuthentic,
        }
    }
}

/// Decides what to do with an area.
///
/// | disk \ key holders | nobody remembers | somebody remembers D | they remember D and D' |
/// |---|---|---|---|
/// | blank | format | refuse: wiped | refuse |
/// | unfinished | format | refuse: the guard's reason | refuse |
/// | foreign | refuse: the guard's reason | refuse: the guard's reason | refuse |
/// | ours, D | adopt | open; adopt where one is fresh | refuse |
/// | ours, other | adopt | refuse: not the registered one | refuse |
pub fn seal_plan(disk: HeaderState, holders: &[SealMemory]) -> SealPlan {
    let remembered = |memory: &SealMemory| match memory {
        SealMemory::Sealed(digest) => Some(*digest),
        SealMemory::NotKept | SealMemory::Fresh => None,
    };
    let mut sealed = holders.iter().filter_map(remembered);
    let Some(first) = sealed.next() else {
        return match disk {
            HeaderState::Blank | HeaderState::Unfinished(_) => SealPlan::Format,
            HeaderState::Foreign(fault) => SealPlan::Refuse(fault.into()),
            HeaderState::Ours(_) => SealPlan::Adopt,
        };
    };
    if sealed.any(|other| other != first) {
        return SealPlan::Refuse(PlanRefusal::HoldersDisagree);
    }
    match disk {
        HeaderState::Blank => SealPlan::Refuse(PlanRefusal::Wiped),
        HeaderState::Unfinished(fault) | HeaderState::Foreign(fault) => {
            SealPlan::Refuse(fault.into())
        }
        HeaderState::Ours(digest) if first.is_some_and(|registered| registered != digest) => {
            SealPlan::Refuse(PlanRefusal::NotTheRegistered)
        }
        HeaderState::Ours(_) if holders.contains(&SealMemory::Fresh) => SealPlan::Adopt,
        HeaderState::Ours(_) => SealPlan::Open,
    }
}

#[cfg(test)]
mod tests {
    use super::{Fault::*, HeaderState::*, SealMemory::*, SealPlan::*, *};

    const D: Bytes32 = Bytes32 { 0: [1; 32] };
    const OTHER: Bytes32 = Bytes32 { 0: [2; 32] };
    const DISKS: [HeaderState; 7] = [
        Blank,
        Unfinished(NotWhitelisted),
        Unfinished(NotAuthentic),
        Foreign(NotWhitelisted),
        Foreign(NotAuthentic),
        Ours(D),
        Ours(OTHER),
    ];
    const LISTED: SealPlan = Refuse(PlanRefusal::NotWhitelisted);
    const MAC: SealPlan = Refuse(PlanRefusal::NotAuthentic);
    const WIPED: SealPlan = Refuse(PlanRefusal::Wiped);
    const NOT_IT: SealPlan = Refuse(PlanRefusal::NotTheRegistered);
    const DISAGREE: SealPlan = Refuse(PlanRefusal::HoldersDisagree);

    /// A row: two key holders' memories, and the plan for each of `DISKS`.
    const TABLE: [(SealMemory, SealMemory, [SealPlan; 7]); 10] = [
        (NotKept, NotKept, [Format, Format, Format, LISTED, MAC, Adopt, Adopt]),
        (NotKept, Fresh, [Format, Format, Format, LISTED, MAC, Adopt, Adopt]),
        (Fresh, Fresh, [Format, Format, Format, LISTED, MAC, Adopt, Adopt]),
        (NotKept, Sealed(Some(D)), [WIPED, LISTED, MAC, LISTED, MAC, Open, NOT_IT]),
        (Fresh, Sealed(Some(D)), [WIPED, LISTED, MAC, LISTED, MAC, Adopt, NOT_IT]),
        (Sealed(Some(D)), Sealed(Some(D)), [WIPED, LISTED, MAC, LISTED, MAC, Open, NOT_IT]),
        (Sealed(Some(D)), Sealed(Some(OTHER)), [DISAGREE; 7]),
        (NotKept, Sealed(None), [WIPED, LISTED, MAC, LISTED, MAC, Open, Open]),
        (Fresh, Sealed(None), [WIPED, LISTED, MAC, LISTED, MAC, Adopt, Adopt]),
        (Sealed(None), Sealed(None), [WIPED, LISTED, MAC, LISTED, MAC, Open, Open]),
    ];

    #[test]
    fn every_combination_of_disk_and_memories() {
        for (a, b, plans) in TABLE {
            for (disk, plan) in DISKS.into_iter().zip(plans) {
                assert_eq!(seal_plan(disk, &[a, b]), plan, "{disk:?} with {a:?} and {b:?}");
                assert_eq!(
                    seal_plan(disk, &[b, a]),
                    plan,
                    "the order of key holders must not matter: {disk:?} {a:?} {b:?}"
                );
            }
        }
    }

    #[test]
    fn one_memory_outweighs_any_number_of_fresh_key_holders() {
        for at in 0..4 {
            let mut holders = [Fresh; 4];
            holders[at] = Sealed(Some(D));
            assert_eq!(seal_plan(Blank, &holders), WIPED);
            assert_eq!(seal_plan(Ours(OTHER), &holders), NOT_IT);
        }
    }

    #[test]
    fn nothing_that_carries_a_seal_record_is_ever_overwritten() {
        for (a, b, plans) in TABLE {
            for (disk, plan) in DISKS.into_iter().zip(plans) {
                let record = matches!(disk, Foreign(_) | Ours(_));
                assert!(!(record && plan == Format), "{disk:?} with {a:?} and {b:?}");
            }
        }
    }
}
