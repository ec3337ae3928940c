//! Who is next to ask the TPM, the TEE and the GPUs. They answer one at a time, for a second or
//! more each.
//!
//! Anybody may ask the node's port for evidence. This machine's own verification, and that of its
//! peers, must not wait until strangers have had their turns.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cvm_peer::{error::AgentRefusal, token::Use};

/// How long anybody but this machine itself waits for a turn.
const PATIENCE: Duration = Duration::from_secs(20);

/// Who asks. A later variant is served sooner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// Somebody on the node's port.
    Auditor,
    /// NVFLARE, for a peer.
    Peer,
    /// This machine's own verification.
    Own,
}

impl Rank {
    pub(crate) fn of(use_: Use) -> Self {
        match use_ {
            Use::Own => Self::Own,
            Use::Peer => Self::Peer,
            Use::Audit => Self::Auditor,
        }
    }
}

/// The line.
#[derive(Default)]
pub(crate) struct Turns {
    line: Mutex<Line>,
    moved: Condvar,
}

#[derive(Default)]
struct Line {
    taken: bool,
    waiting: Vec<Rank>,
}

impl Turns {
    /// Waits for a turn, which lasts until it is dropped.
    ///
    /// # Errors
    /// [`AgentRefusal::Busy`], never for [`Rank::Own`].
    pub(crate) fn take(&self, rank: Rank) -> Result<Turn<'_>, AgentRefusal> {
        self.take_within(rank, PATIENCE)
    }

    fn take_within(&self, rank: Rank, patience: Duration) -> Result<Turn<'_>, AgentRefusal> {
        let mut line = self.line();
        line.waiting.push(rank);
        let must_wait =
            |line: &mut Line| line.taken || line.waiting.iter().any(|other| *other > rank);
        let mut line = match rank {
            Rank::Own => {
                self.moved.wait_while(line, must_wait).unwrap_or_else(PoisonError::into_inner)
            }
            Rank::Peer | Rank::Auditor => {
                let waited = self.moved.wait_timeout_while(line, patience, must_wait);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        let mine = !must_wait(&mut line);
        if let Some(at) = line.waiting.iter().position(|waiting| *waiting == rank) {
            line.waiting.swap_remove(at);
        }
        line.taken |= mine;
        // Those that let this one go first look again.
        self.moved.notify_all();
        if mine {
            Ok(Turn(self))
        } else {
            Err(AgentRefusal::Busy { what: "questions to its TPM, TEE or GPUs" })
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A turn.
pub(crate) struct Turn<'a>(&'a Turns);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.line().taken = false;
        self.0.moved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc::channel, thread};

    use super::*;

    #[test]
    fn attack_auditors_who_queue_before_this_machines_own_verification() {
        let turns = Turns::default();
        let (sender, order) = channel();
        let first = turns.take(Rank::Auditor).unwrap();
        thread::scope(|scope| {
            let ranks = [[Rank::Auditor; 8].as_slice(), &[Rank::Peer; 2], &[Rank::Own]].concat();
            let all = ranks.len();
            for rank in ranks {
                let (turns, sender) = (&turns, sender.clone());
                scope.spawn(move || {
                    let _turn = turns.take_within(rank, Duration::from_secs(300)).unwrap();
                    sender.send(rank).unwrap();
                });
            }
            while turns.line().waiting.len() < all {
                thread::yield_now();
            }
            drop(first);
        });
        drop(sender);
        let order: Vec<Rank> = order.iter().collect();
        assert!(order.is_sorted_by(|a, b| a >= b), "{order:?}");
    }

    #[test]
    fn a_stranger_waits_a_bounded_time() {
        let turns = Turns::default();
        let _first = turns.take(Rank::Own).unwrap();
        let refused = turns.take_within(Rank::Auditor, Duration::from_millis(10)).err();
        assert!(matches!(refused, Some(AgentRefusal::Busy { .. })), "{refused:?}");
        assert!(turns.line().waiting.is_empty());
    }
}
