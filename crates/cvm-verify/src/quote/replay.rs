//! Whether an event log leads to the quoted values.

use std::collections::{BTreeMap, BTreeSet};

use super::{Registers, TpmError, TpmPolicy};
use crate::NotChecked;
use cvm_evidence::{
    eventlog::{Log, LoggedEvent},
    tpm::{Digest, HashAlg},
};

/// What a log explained.
#[derive(Default)]
pub(super) struct Replayed {
    pub(super) events: Option<Vec<LoggedEvent>>,
    pub(super) not_replayed: Vec<u32>,
}

/// Replays every quoted register of every bank that the log has; `main` is the bank that claims
/// list.
pub(super) fn check(
    log: &Log<'_>,
    main: HashAlg,
    banks: &BTreeMap<HashAlg, Registers>,
    policy: &TpmPolicy,
    not_checked: &mut Vec<NotChecked>,
) -> Result<Replayed, TpmError> {
    let mut not_replayed = BTreeSet::new();
    for (bank, registers) in banks {
        let Some(replayed) = log.replay(*bank) else {
            not_checked.push(NotChecked::new("event-log", &format!("the log has no {bank} bank")));
            if *bank == main {
                return Ok(Replayed::default());
            }
            continue;
        };
        for (register, quoted) in registers {
            if leads_to(*register, replayed.get(register), quoted) {
                continue;
            }
            if policy.must_replay.contains(register) {
                let nothing = Digest::filled(*bank, 0);
                return Err(TpmError::Replay {
                    bank: *bank,
                    register: *register,
                    replayed: Box::new(*replayed.get(register).unwrap_or(&nothing)),
                    quoted: Box::new(*quoted),
                    reason: log.explain(*register, quoted),
                });
            }
            not_replayed.insert(*register);
        }
    }
    for register in &not_replayed {
        let reason = format!(
            "the log does not lead to the value of PCR {register}: its events are not claimed"
        );
        not_checked.push(NotChecked::new("event-log", &reason));
    }
    let quoted = banks.get(&main);
    let proven = |register: &u32| {
        quoted.is_some_and(|quoted| quoted.contains_key(register))
            && !not_replayed.contains(register)
    };
    not_checked
        .extend(unquoted(log, |register| proven(register) || not_replayed.contains(register)));
    let events = log.records().iter().filter(|record| proven(&record.register));
    Ok(Replayed {
        events: Some(events.map(|record| LoggedEvent::new(record, main)).collect()),
        not_replayed: not_replayed.into_iter().collect(),
    })
}

fn leads_to(register: u32, replayed: Option<&Digest>, quoted: &Digest) -> bool {
    match (register, replayed) {
        (_, Some(value)) => value == quoted,
        // PC Client Profile §4.7.2: without a dynamic launch these are all ones.
        (17..=22, None) => {
            [0, 0xff].iter().any(|fill| *quoted == Digest::filled(quoted.alg(), *fill))
        }
        (_, None) => *quoted == Digest::filled(quoted.alg(), 0),
    }
}

/// The registers that are logged, of which no value is known.
fn unquoted(log: &Log<'_>, known: impl Fn(&u32) -> bool) -> Option<NotChecked> {
    let logged: BTreeSet<u32> = log.records().iter().map(|record| record.register).collect();
    let unquoted: Vec<String> =
        logged.iter().filter(|register| !known(register)).map(ToString::to_string).collect();
    let reason =
        format!("PCR {} is logged, and no value of it is quoted and shown", unquoted.join(", "));
    (!unquoted.is_empty()).then(|| NotChecked::new("event-log", &reason))
}
