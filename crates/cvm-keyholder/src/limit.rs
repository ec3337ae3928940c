//! A token bucket per peer.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::Instant,
};

/// How fast one peer may ask.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// Requests at once.
    pub burst: f64,
    /// Requests a second, in the long run.
    pub per_second: f64,
}

/// More peers than this are never remembered at once.
const MAX_PEERS: usize = 16 * 1024;

/// Counts requests by address; an IPv6 peer is its /64, which one customer can fill at will.
pub(crate) struct Limiter {
    rate: Rate,
    peers: HashMap<IpAddr, (f64, Instant)>,
}

impl Limiter {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, peers: HashMap::new() }
    }

    /// Whether one more request at `now` is within the peer's rate.
    pub(crate) fn admits(&mut self, peer: IpAddr, now: Instant) -> bool {
        let Rate { burst, per_second } = self.rate;
        if self.peers.len() >= MAX_PEERS {
            // A bucket that is full again is as good as none.
            let full = |left: f64, at: Instant| left + now.duration_since(at).as_secs_f64() * per_second >= burst;
            self.peers.retain(|_, (left, at)| !full(*left, *at));
        }
        if self.peers.len() >= MAX_PEERS {
            return false;
        }
        let (left, at) = self.peers.entry(group(peer)).or_insert((burst, now));
        *left = (*left + now.duration_since(*at).as_secs_f64() * per_second).min(burst);
        *at = now;
        let admitted = *left >= 1.0;
        if admitted {
            *left -= 1.0;
        }
        admitted
    }
}

fn group(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_is_cut_and_others_are_not() {
        let mut limiter = Limiter::new(Rate { burst: 3.0, per_second: 1.0 });
        let (peer, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let start = Instant::now();
        let admitted = (0..100).filter(|_| limiter.admits(peer, start)).count();
        assert_eq!(admitted, 3);
        assert!(limiter.admits(other, start));
        assert!(limiter.admits(peer, start + Duration::from_secs(1)));
        assert!(!limiter.admits(peer, start + Duration::from_secs(1)));
    }

    #[test]
    fn a_flood_from_one_ipv6_network_is_one_peer_and_memory_is_bounded() {
        let mut limiter = Limiter::new(Rate { burst: 1.0, per_second: 1.0 });
        let now = Instant::now();
        let peer = |n: u128| IpAddr::V6(Ipv6Addr::from_bits(n));
        assert!(limiter.admits(peer(1), now));
        assert!(!limiter.admits(peer(2), now));
        for n in 0..2 * MAX_PEERS as u128 {
            limiter.admits(peer(n << 64), now);
        }
        assert!(limiter.peers.len() <= MAX_PEERS);
        assert!(limiter.admits(peer(u128::MAX), now + Duration::from_secs(2)), "old peers make room");
    }
}
