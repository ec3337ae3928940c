//! Every wait of a boot, bounded, in one place.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Until the TPM and the disk with its partitions have appeared after the drivers were loaded.
pub const DEVICES: Duration = Duration::from_secs(15);
/// Until a network card has appeared after its driver was loaded.
pub const NETWORK_DEVICE: Duration = Duration::from_secs(10);
/// Until its link is up; a card that does not report its link is used all the same.
pub const LINK: Duration = Duration::from_secs(5);
/// Until a DHCP lease is held.
pub const DHCP: Duration = Duration::from_secs(30);
/// Until a key holder's name is resolved.
pub const RESOLVE: Duration = Duration::from_secs(5);
/// Until a connection to a key holder is made: TCP, proxy and TLS each.
pub const CONNECT: Duration = Duration::from_secs(10);
/// Until a key holder has answered one request, its verification of the evidence included.
pub const REQUEST: Duration = Duration::from_secs(30);
/// Until a key holder has released its half, all attempts together; the last may end one
/// [`REQUEST`] later.
pub const KEY_HOLDER: Duration = Duration::from_secs(30);
/// Until mkfs.ext4 has ended.
pub const MKFS: Duration = Duration::from_secs(120);
/// Between two looks at something that cannot be waited for otherwise.
pub const POLL: Duration = Duration::from_millis(20);

/// Looks until `look` finds something or `limit` has passed; the last look's error tells what was
/// missing.
pub fn until<T, E>(limit: Duration, mut look: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let deadline = Instant::now() + limit;
    loop {
        match look() {
            Err(_) if Instant::now() < deadline => thread::sleep(POLL),
            found => return found,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_and_tells_what_was_missing() {
        let begin = Instant::now();
        assert_eq!(until(POLL * 3, || Err::<(), _>("nothing")), Err("nothing"));
        assert!(begin.elapsed() >= POLL * 3);
        let mut looks = 0;
        let found = until(DEVICES, || {
            looks += 1;
            if looks == 3 { Ok(looks) } else { Err(()) }
        });
        assert_eq!(found, Ok(3));
    }
}
