//! How much of a service strangers may use, counted by the network that they come from. Pure,
//! bounded, and the same for every program that listens.

use std::{
    cmp::Reverse,
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    time::Instant,
};

/// The peer that an address belongs to: an IPv4 address is a peer of its own; an IPv6 peer is a
/// network of 64 bits, because one customer can use all of its addresses.
pub fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

/// How much one peer may have.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// How many at once.
    pub burst: f64,
    /// How many per second, in the long run.
    pub per_second: f64,
}

/// A token bucket for each of many keys.
#[derive(Debug)]
pub struct Buckets<K> {
    rate: Rate,
    most: usize,
    left: HashMap<K, (f64, Instant)>,
}

impl<K: Hash + Eq> Buckets<K> {
    /// Remembers at most `most` keys. Beyond that, those that took the least are forgotten first,
    /// so that many others cannot shut a newcomer out.
    pub fn new(rate: Rate, most: usize) -> Self {
        Self { rate, most, left: HashMap::new() }
    }

    /// Takes one of `key`'s tokens; false if there is none.
    pub fn take(&mut self, key: K, now: Instant) -> bool {
        if self.left.len() >= self.most && !self.left.contains_key(&key) {
            self.forget(now);
        }
        let Rate { burst, per_second } = self.rate;
        let (left, at) = self.left.entry(key).or_insert((burst, now));
        (*left, *at) = (refilled((*left, *at), burst, per_second, now), now);
        let taken = *left >= 1.0;
        if taken {
            *left -= 1.0;
        }
        taken
    }

    /// Forgets the fuller half of the buckets, so that this happens rarely.
    fn forget(&mut self, now: Instant) {
        let Rate { burst, per_second } = self.rate;
        let full = |bucket: &(f64, Instant)| refilled(*bucket, burst, per_second, now);
        let mut all: Vec<f64> = self.left.values().map(full).collect();
        let middle = all.len() / 2;
        if middle < all.len() {
            let (_, median, _) = all.select_nth_unstable_by(middle, f64::total_cmp);
            let median = *median;
            self.left.retain(|_, bucket| full(bucket) < median);
        }
    }
}

fn refilled((left, at): (f64, Instant), burst: f64, per_second: f64, now: Instant) -> f64 {
    (left + now.saturating_duration_since(at).as_secs_f64() * per_second).min(burst)
}

/// The places of a service, each held by one connection. When all are taken, the peer with the most
/// places loses its slowest one: the one for which the service has waited longest. `H` tells the
/// holder.
#[derive(Debug)]
pub struct Places<K, H> {
    all: usize,
    per_peer: usize,
    held: HashMap<u64, Held<K, H>>,
    next: u64,
}

#[derive(Debug)]
struct Held<K, H> {
    peer: K,
    /// `None` while the service works for it.
    waited_for_since: Option<Instant>,
    handle: H,
}

/// A place that was given.
#[derive(Debug)]
pub struct Place<H> {
    /// Its identifier in [`Places`].
    pub id: u64,
    /// The holder that lost its place for this one, and must be told.
    pub shed: Option<H>,
}

impl<K: Hash + Eq + Copy, H> Places<K, H> {
    /// `all` places, and at most `per_peer` of them for one peer.
    pub fn new(all: usize, per_peer: usize) -> Self {
        Self { all, per_peer, held: HashMap::new(), next: 0 }
    }

    /// A place for `peer`; `None` if the service is working for everyone who could lose a place.
    pub fn admit(&mut self, peer: K, handle: H, now: Instant) -> Option<Place<H>> {
        let mut counts: HashMap<K, usize> = HashMap::new();
        for held in self.held.values() {
            *counts.entry(held.peer).or_default() += 1;
        }
        let count = |peer: K| counts.get(&peer).copied().unwrap_or_default();
        let own = count(peer);
        let slowest = |among: &dyn Fn(K) -> bool| {
            let waiting = self.held.iter().filter(|(_, held)| among(held.peer));
            let waiting = waiting
                .filter_map(|(id, held)| Some((count(held.peer), held.waited_for_since?, *id)));
            waiting.max_by_key(|(count, since, _)| (*count, Reverse(*since))).map(|(_, _, id)| id)
        };
        let victim = if own >= self.per_peer {
            Some(slowest(&|other| other == peer)?)
        } else if self.held.len() >= self.all {
            // A peer takes no place from peers that have fewer than it.
            Some(slowest(&|other| count(other) >= own)?)
        } else {
            None
        };
        let shed = victim.and_then(|id| self.held.remove(&id)).map(|held| held.handle);
        let id = self.next;
        self.next += 1;
        self.held.insert(id, Held { peer, waited_for_since: Some(now), handle });
        Some(Place { id, shed })
    }

    /// The service works for this one now, so that it keeps its place.
    pub fn works_for(&mut self, id: u64) {
        if let Some(held) = self.held.get_mut(&id) {
            held.waited_for_since = None;
        }
    }

    /// The service waits for this one again.
    pub fn waits_for(&mut self, id: u64, now: Instant) {
        if let Some(held) = self.held.get_mut(&id) {
            held.waited_for_since = Some(now);
        }
    }

    /// This one is done.
    pub fn leave(&mut self, id: u64) {
        self.held.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const RATE: Rate = Rate { burst: 3.0, per_second: 1.0 };

    fn v4(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn attack_a_flood_from_one_peer() {
        let mut buckets = Buckets::new(RATE, 100);
        let start = Instant::now();
        assert_eq!((0..100).filter(|_| buckets.take(v4(1), start)).count(), 3);
        assert!(buckets.take(v4(2), start), "others are not meant");
        let later = start + Duration::from_secs(1);
        assert!(buckets.take(v4(1), later) && !buckets.take(v4(1), later));
    }

    #[test]
    fn attack_a_flood_from_more_peers_than_are_remembered() {
        let (mut buckets, now) = (Buckets::new(RATE, 1000), Instant::now());
        let loud = IpAddr::V6(Ipv6Addr::from_bits(u128::MAX));
        while buckets.take(network(loud), now) {}
        for n in 0..100_000_u128 {
            let peer = network(IpAddr::V6(Ipv6Addr::from_bits(n << 64)));
            assert!(buckets.take(peer, now), "a newcomer is let in beside any number of others");
            assert!(buckets.left.len() <= 1000);
        }
        assert!(!buckets.take(network(loud), now), "who took the most is remembered the longest");
    }

    #[test]
    fn one_ipv6_network_is_one_peer() {
        let address = |text: &str| network(text.parse().unwrap());
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff:0:0:1"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
        assert_eq!(address("::ffff:192.0.2.1"), v4(1));
        assert_ne!(v4(1), v4(2));
    }

    #[test]
    fn attack_one_peer_that_takes_every_place() {
        let (mut places, start) = (Places::new(8, 4), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        for n in 0..4 {
            assert!(places.admit(v4(1), n, at(n)).unwrap().shed.is_none());
        }
        // Its own slowest makes room for more of its own.
        assert_eq!(places.admit(v4(1), 4, at(4)).unwrap().shed, Some(0));
        for n in 0..4 {
            assert!(places.admit(v4(2), 10 + n, at(5)).unwrap().shed.is_none());
        }
        // All are taken: a third comes in for one of those that have the most, and stays.
        let third = places.admit(v4(3), 20, at(6)).unwrap();
        assert_eq!(third.shed, Some(1));
        for n in 0..100 {
            let shed =
                places.admit(v4(if n % 2 == 0 { 1 } else { 2 }), 100 + n, at(7 + n)).unwrap().shed;
            assert_ne!(shed, Some(20), "an honest one is not shed for those who have more");
        }
        places.leave(third.id);
        assert!(places.admit(v4(3), 21, at(200)).unwrap().shed.is_none());
    }

    #[test]
    fn whom_the_service_works_for_keeps_the_place() {
        let (mut places, now) = (Places::new(2, 2), Instant::now());
        let first = places.admit(v4(1), 'a', now).unwrap();
        places.works_for(first.id);
        let second = places.admit(v4(2), 'b', now).unwrap();
        let later = now + Duration::from_secs(1);
        assert_eq!(places.admit(v4(3), 'c', later).unwrap().shed, Some('b'));
        places.leave(second.id);
        places.waits_for(first.id, now);
        assert_eq!(places.admit(v4(2), 'd', later).unwrap().shed, Some('a'));
        let mut places = Places::new(1, 1);
        let only = places.admit(v4(1), 'a', now).unwrap();
        places.works_for(only.id);
        assert!(places.admit(v4(2), 'b', now).is_none());
    }
}
