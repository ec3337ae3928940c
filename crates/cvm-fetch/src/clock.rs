//! Time and chance as the fetcher sees them.

use std::{
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// The fetcher's time and chance. Tests bring their own, and wait for nothing.
pub trait Clock {
    /// Time that only goes forward.
    fn elapsed(&self) -> Duration;
    /// Seconds since 1970 UTC.
    fn unix(&self) -> u64;
    /// Waits.
    fn sleep(&self, time: Duration);
    /// A number in 0..1.
    fn fraction(&self) -> f64;
}

/// The machine's clock and random numbers.
#[derive(Debug)]
pub struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    fn unix(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    fn sleep(&self, time: Duration) {
        thread::sleep(time);
    }

    fn fraction(&self) -> f64 {
        // The number matters only for politeness.
        getrandom::u32().map_or(0.5, |n| f64::from(n) / f64::from(u32::MAX))
    }
}
