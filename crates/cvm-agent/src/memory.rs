//! Challenges that were issued, and tokens that were accepted without one. Both lists are bounded,
//! and both forget with time.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use cvm_base::{Bytes, Bytes32};
use cvm_layout::names::Name;

use cvm_peer::error::AgentRefusal;

/// How long a challenge stays open.
pub const CHALLENGE_LIFETIME: Duration = Duration::from_secs(120);
/// Open challenges of one peer; its oldest makes room for another.
const MAX_PER_PEER: usize = 16;
/// Open challenges of all peers.
const MAX_CHALLENGES: usize = 4096;
/// Tokens that are remembered.
const MAX_SEEN: usize = 4096;

/// What an agent must remember between requests. A restart forgets it: then open challenges are
/// refused, and for tokens without one see [`Memory::new`].
#[derive(Debug)]
pub struct Memory {
    challenges: HashMap<Bytes32, Challenge>,
    seen: HashMap<[u8; 48], u64>,
    began: u64,
}

#[derive(Debug, Clone)]
struct Challenge {
    peer: Name,
    until: Instant,
}

/// An open challenge that was taken out; [`Memory::put_back`] opens it again.
#[derive(Debug)]
pub struct Taken(Bytes32, Challenge);

impl Memory {
    /// Empty, at `now` of the clock. A token without a challenge that is older may have been
    /// accepted by the agent before this one.
    pub fn new(now: u64) -> Self {
        Self { challenges: HashMap::new(), seen: HashMap::new(), began: now }
    }

    /// A new challenge for `peer`.
    ///
    /// # Errors
    /// [`AgentRefusal::Busy`] when too many are open, [`AgentRefusal::NoEvidence`] without random
    /// bytes.
    pub fn issue(&mut self, peer: &Name, now: Instant) -> Result<Bytes32, AgentRefusal> {
        self.challenges.retain(|_, challenge| challenge.until > now);
        let of_peer = self.challenges.iter().filter(|(_, challenge)| challenge.peer == *peer);
        if of_peer.clone().count() >= MAX_PER_PEER
            && let Some(oldest) =
                of_peer.min_by_key(|(_, challenge)| challenge.until).map(|(key, _)| *key)
        {
            self.challenges.remove(&oldest);
        }
        if self.challenges.len() >= MAX_CHALLENGES {
            return Err(AgentRefusal::Busy { what: "open challenges" });
        }
        let mut challenge = [0; 32];
        getrandom::fill(&mut challenge)
            .map_err(|e| AgentRefusal::NoEvidence { problem: format!("no random bytes: {e}") })?;
        self.challenges.insert(
            Bytes(challenge),
            Challenge { peer: peer.clone(), until: now + CHALLENGE_LIFETIME },
        );
        Ok(Bytes(challenge))
    }

    /// Closes an open challenge of this peer: of two that show the same, one fails.
    ///
    /// # Errors
    /// [`AgentRefusal::NoChallenge`].
    pub fn take(
        &mut self,
        challenge: &Bytes32,
        peer: &Name,
        now: Instant,
    ) -> Result<Taken, AgentRefusal> {
        match self.challenges.get(challenge) {
            Some(found) if found.peer == *peer && found.until > now => {}
            _ => return Err(AgentRefusal::NoChallenge),
        }
        let found = self.challenges.remove(challenge).ok_or(AgentRefusal::NoChallenge)?;
        Ok(Taken(*challenge, found))
    }

    /// Opens it again: the refusal asked the caller to try once more.
    pub fn put_back(&mut self, taken: Taken) {
        self.challenges.insert(taken.0, taken.1);
    }

    /// Remembers, until `until`, a token that answers no challenge, by its statement's digest.
    ///
    /// # Errors
    /// [`AgentRefusal::Replayed`] when it is known, or may have been before this memory began;
    /// [`AgentRefusal::Busy`] when no more can be remembered: what cannot be remembered is not
    /// accepted.
    pub fn see(
        &mut self,
        digest: [u8; 48],
        issued_at: u64,
        until: u64,
        now: u64,
    ) -> Result<(), AgentRefusal> {
        self.seen.retain(|_, until| *until >= now);
        if issued_at < self.began || self.seen.contains_key(&digest) {
            return Err(AgentRefusal::Replayed);
        }
        if self.seen.len() >= MAX_SEEN {
            return Err(AgentRefusal::Busy { what: "tokens without a challenge" });
        }
        self.seen.insert(digest, until);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    #[test]
    fn a_challenge_is_its_peers_and_is_used_once() {
        let (mut memory, now) = (Memory::new(0), Instant::now());
        let challenge = memory.issue(&name("site-1"), now).unwrap();
        assert!(memory.take(&challenge, &name("site-2"), now).is_err());
        let taken = memory.take(&challenge, &name("site-1"), now).unwrap();
        assert!(memory.take(&challenge, &name("site-1"), now).is_err(), "it is taken");
        memory.put_back(taken);
        memory.take(&challenge, &name("site-1"), now).unwrap();
        let late = memory.issue(&name("site-1"), now).unwrap();
        assert!(memory.take(&late, &name("site-1"), now + CHALLENGE_LIFETIME).is_err());
    }

    #[test]
    fn attack_a_flood_of_challenges() {
        let (mut memory, now) = (Memory::new(0), Instant::now());
        let first = memory.issue(&name("quiet"), now).unwrap();
        for _ in 0..10_000 {
            memory.issue(&name("loud"), now).unwrap();
        }
        assert!(memory.challenges.len() <= MAX_PER_PEER + 1);
        memory.take(&first, &name("quiet"), now).unwrap();
        let refused = (0..2 * MAX_CHALLENGES)
            .filter(|n| memory.issue(&name(&format!("peer-{n}")), now).is_err());
        assert!(refused.count() > 0);
        assert!(memory.challenges.len() <= MAX_CHALLENGES);
        memory.issue(&name("later"), now + CHALLENGE_LIFETIME).unwrap();
    }

    #[test]
    fn a_token_without_a_challenge_is_accepted_once() {
        let mut memory = Memory::new(100);
        memory.see([1; 48], 100, 200, 110).unwrap();
        assert_eq!(memory.see([1; 48], 100, 200, 200), Err(AgentRefusal::Replayed));
        assert_eq!(
            memory.see([2; 48], 99, 200, 110),
            Err(AgentRefusal::Replayed),
            "perhaps seen before the restart"
        );
        for n in 0..2 * MAX_SEEN {
            let mut digest = [3; 48];
            digest[..8].copy_from_slice(&n.to_be_bytes());
            let _ = memory.see(digest, 100, 300, 110);
        }
        assert!(memory.seen.len() <= MAX_SEEN);
        assert_eq!(
            memory.see([9; 48], 100, 300, 110),
            Err(AgentRefusal::Busy { what: "tokens without a challenge" })
        );
    }
}
