//! How much of the service one peer may use: connections before TLS, requests, and large bodies
//! before they are read.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

pub use cvm_base::peers::Rate;
use cvm_base::peers::{Buckets, Place, Places, network};
use tokio::sync::Notify;

/// Bounds on what strangers can make the service hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once. When all are taken, the peer with the most loses its slowest one.
    pub connections: usize,
    /// Connections of one peer at once.
    pub connections_per_peer: usize,
    /// Bodies longer than [`cvm_release::paths::MAX_AUTH_BYTES`] at once. When all are taken, a
    /// place is freed in the same way.
    pub bodies: usize,
    /// Such bodies of one peer at once.
    pub bodies_per_peer: usize,
    /// Requests that are worked on at once: in memory, a body takes many times its length.
    pub workers: usize,
    /// TLS handshake.
    pub handshake: Duration,
    /// From the beginning of a request's head to its end, and the same for its body.
    pub request: Duration,
    /// A connection's whole life.
    pub connection: Duration,
    /// Connections that one peer opens.
    pub opening: Rate,
    /// Requests of one peer.
    pub rate: Rate,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            connections: 256,
            connections_per_peer: 32,
            bodies: 32,
            bodies_per_peer: 8,
            workers: 4,
            handshake: seconds(10),
            request: seconds(15),
            connection: seconds(120),
            opening: Rate { burst: 240.0, per_second: 20.0 },
            rate: Rate { burst: 60.0, per_second: 5.0 },
        }
    }
}

/// Peers whose rate is remembered.
const MAX_PEERS: usize = 16 * 1024;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // After a panic in another thread, this is still a table of counts.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts by peer.
pub(crate) struct Limiter(Mutex<Buckets<IpAddr>>);

impl Limiter {
    pub(crate) fn new(rate: Rate) -> Self {
        Self(Mutex::new(Buckets::new(rate, MAX_PEERS)))
    }

    /// Whether one more of `peer` is within its rate.
    pub(crate) fn admits(&self, peer: IpAddr) -> bool {
        lock(&self.0).take(network(peer), Instant::now())
    }
}

/// [`Places`] whose holders are tasks.
pub(crate) struct Seats(Mutex<Places<IpAddr, Arc<Notify>>>);

impl Seats {
    pub(crate) fn new(all: usize, per_peer: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Places::new(all, per_peer))))
    }

    /// A seat for `peer`; another peer may lose its slowest one for it.
    pub(crate) fn take(self: &Arc<Self>, peer: IpAddr) -> Option<Seat> {
        let lost = Arc::new(Notify::new());
        let Place { id, shed } =
            lock(&self.0).admit(network(peer), lost.clone(), Instant::now())?;
        if let Some(other) = shed {
            other.notify_one();
        }
        Some(Seat { seats: self.clone(), id, lost })
    }
}

/// One seat. It is free again when this is dropped.
pub(crate) struct Seat {
    seats: Arc<Seats>,
    id: u64,
    lost: Arc<Notify>,
}

impl Seat {
    /// Ends when the seat is lost to another peer.
    pub(crate) async fn lost(&self) {
        self.lost.notified().await;
    }

    /// From now on the peer waits for the service.
    pub(crate) fn works(&self) {
        lock(&self.seats.0).works_for(self.id);
    }

    /// From now on the service waits for the peer.
    pub(crate) fn waits(&self) {
        lock(&self.seats.0).waits_for(self.id, Instant::now());
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        lock(&self.seats.0).leave(self.id);
    }
}
