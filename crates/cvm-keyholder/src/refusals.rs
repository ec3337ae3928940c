//! How much of the signed log, and of the console, refusals may fill.
//!
//! A stranger can be refused a thousand times in a minute. Each peer gets a few entries; further
//! refusals are only counted, and the counts go into the log as one entry for each peer: how many,
//! from when to when, why. Peers with accepted evidence have a share of their own, so that no
//! stranger can hide what happened to a genuine CVM.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use cvm_base::{
    peers::{Buckets, Rate, network},
    time::rfc3339,
};
use cvm_release_server::{Decision, Reason, Step, Verdict};

/// How often the counts are logged.
pub(crate) const EVERY: Duration = Duration::from_secs(600);
/// Entries of one stranger: one in ten minutes.
const STRANGER: Rate = Rate { burst: 20.0, per_second: 1.0 / 600.0 };
/// Entries of all strangers together, however many addresses they have: one per minute.
const STRANGERS: Rate = Rate { burst: 200.0, per_second: 1.0 / 60.0 };
/// Entries of one peer with accepted evidence.
const ATTESTED: Rate = Rate { burst: 200.0, per_second: 1.0 / 60.0 };
/// Peers that are remembered.
const MAX_PEERS: usize = 4096;
/// Peers that are counted by name; the others are counted together.
const MAX_COUNTED: usize = 16;

/// How many entries each peer has had, and what is not in the log yet.
pub(crate) struct Refusals {
    stranger: Buckets<IpAddr>,
    strangers: Buckets<()>,
    attested: Buckets<IpAddr>,
    counts: Vec<Count>,
}

/// The refusals of one peer that have no entry.
pub(crate) struct Count {
    /// `None` if they are of several peers.
    network: Option<IpAddr>,
    first: u64,
    last: u64,
    reasons: HashMap<Reason, u64>,
}

impl Refusals {
    pub(crate) fn new() -> Self {
        Self {
            stranger: Buckets::new(STRANGER, MAX_PEERS),
            strangers: Buckets::new(STRANGERS, 1),
            attested: Buckets::new(ATTESTED, MAX_PEERS),
            counts: Vec::new(),
        }
    }

    /// Whether a refusal of `peer` may have an entry of its own.
    pub(crate) fn has_room(&mut self, peer: IpAddr, attested: bool, now: Instant) -> bool {
        let network = network(peer);
        match attested {
            true => self.attested.take(network, now),
            false => self.stranger.take(network, now) && self.strangers.take((), now),
        }
    }

    /// Counts a refusal that gets no entry.
    pub(crate) fn count(&mut self, peer: IpAddr, decision: &Decision) {
        let Decision { time, reason, .. } = *decision;
        let reasons = HashMap::from([(reason.unwrap_or(Reason::Internal), 1)]);
        self.keep(Count { network: Some(network(peer)), first: time, last: time, reasons });
    }

    /// Adds a count. Also called for one that could not be written.
    pub(crate) fn keep(&mut self, count: Count) {
        let known = self.counts.iter().any(|of| of.network == count.network);
        let network = count.network.filter(|_| known || self.counts.len() < MAX_COUNTED);
        match self.counts.iter_mut().find(|of| of.network == network) {
            Some(of) => {
                (of.first, of.last) = (of.first.min(count.first), of.last.max(count.last));
                for (reason, times) in count.reasons {
                    *of.reasons.entry(reason).or_default() += times;
                }
            }
            None => self.counts.push(Count { network, ..count }),
        }
    }

    /// All counts, to be written.
    pub(crate) fn take(&mut self) -> Vec<Count> {
        std::mem::take(&mut self.counts)
    }
}

impl Count {
    /// The count as an entry of the log.
    pub(crate) fn decision(&self, now: u64) -> Decision {
        let Self { network, first, last, reasons } = self;
        let peer = match network {
            Some(IpAddr::V6(v6)) => format!("{v6}/64"),
            Some(v4) => v4.to_string(),
            None => "several".into(),
        };
        let mut words: Vec<String> =
            reasons.iter().map(|(reason, times)| format!("{times} {reason}")).collect();
        words.sort();
        let (all, first, last) = (reasons.values().sum::<u64>(), rfc3339(*first), rfc3339(*last));
        let detail = format!("{all} more, from {first} to {last}: {}", words.join(", "));
        let (step, verdict) = (Step::Summary, Verdict::Refused);
        Decision {
            time: now,
            peer,
            step,
            verdict,
            reason: None,
            detail,
            image: None,
            site: None,
            session: None,
            effect: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn refusal(time: u64, reason: Reason) -> Decision {
        let (step, verdict, peer) = (Step::Attest, Verdict::Refused, String::new());
        let reason = Some(reason);
        Decision {
            time,
            peer,
            step,
            verdict,
            reason,
            detail: String::new(),
            image: None,
            site: None,
            session: None,
            effect: None,
        }
    }

    fn v6(n: u128) -> IpAddr {
        IpAddr::V6(Ipv6Addr::from_bits(n))
    }

    #[test]
    fn attack_a_log_filled_from_one_address_and_from_many() {
        let (mut refusals, now) = (Refusals::new(), Instant::now());
        let loud = [192, 0, 2, 1].into();
        assert_eq!((0..1000).filter(|_| refusals.has_room(loud, false, now)).count(), 20);
        let others = (0..100_000).filter(|n| refusals.has_room(v6(n << 64), false, now)).count();
        assert_eq!(others, 180, "all strangers share one bound");
        // What happens to a genuine CVM is in the log all the same, even from the same address.
        assert!(refusals.has_room(loud, true, now));
        let tomorrow = now + Duration::from_secs(86_400);
        assert!((0..1000).filter(|_| refusals.has_room(loud, false, tomorrow)).count() <= 20);
    }

    #[test]
    fn what_has_no_entry_is_counted_in_bounded_space() {
        let mut refusals = Refusals::new();
        for n in 0..1000 {
            refusals.count([192, 0, 2, 1].into(), &refusal(1_800_000_000 + n, Reason::Malformed));
            refusals.count(v6(n as u128), &refusal(1_800_000_000, Reason::Replayed));
            refusals.count(v6((n as u128) << 64), &refusal(1_800_000_000, Reason::Replayed));
        }
        let counts = refusals.take();
        assert_eq!(counts.len(), MAX_COUNTED + 1);
        let all: u64 = counts.iter().flat_map(|count| count.reasons.values()).sum();
        assert_eq!(all, 3000, "none is lost");
        let Decision { peer, detail, .. } = counts[0].decision(1_800_001_000);
        assert_eq!(peer, "192.0.2.1");
        assert_eq!(
            detail,
            "1000 more, from 2027-01-15T08:00:00Z to 2027-01-15T08:16:39Z: 1000 malformed"
        );
        assert_eq!(counts[1].decision(0).peer, "::/64");
        assert_eq!(counts.last().unwrap().decision(0).peer, "several");
        // What could not be written is counted on.
        counts.into_iter().for_each(|count| refusals.keep(count));
        refusals.count([192, 0, 2, 1].into(), &refusal(1_800_002_000, Reason::Replayed));
        let detail = refusals.take()[0].decision(0).detail;
        assert!(
            detail.starts_with("1001 more") && detail.ends_with("1 replayed, 1000 malformed"),
            "{detail}"
        );
    }
}
