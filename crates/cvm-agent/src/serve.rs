//! The socket and the port: one request a connection, all of it bounded.

use std::{
    collections::HashMap,
    fs, io,
    net::{IpAddr, TcpListener},
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde_json::Value;

use crate::{
    MAX_MESSAGE, Refusal, SetupError,
    agent::Agent,
    request::{answer, parse},
    stream::Stream,
};

/// Connections at once.
const MAX_CONNECTIONS: usize = 32;
/// Auditors at once.
const MAX_AUDITS: usize = 4;
/// How long a request may take to arrive, and an answer to leave.
const DEADLINE: Duration = Duration::from_secs(10);
/// How many auditors' requests one address may make at once, and one more how often.
const BURST: f64 = 5.0;
const PER_SECOND: f64 = 0.5;
/// Addresses that are remembered.
const MAX_ADDRESSES: usize = 1024;

/// Binds the socket. Its mode lets everybody connect; the kernel's word on who connected decides ([`local`]).
///
/// # Errors
/// [`SetupError::Listen`].
pub fn bind(path: &Path) -> Result<UnixListener, SetupError> {
    let fail = |e: io::Error| SetupError::Listen { at: path.display().to_string(), problem: e.to_string() };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(fail)?;
    }
    // Left by an agent that was killed; systemd starts only one.
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(fail(e)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(fail)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).map_err(fail)?;
    Ok(listener)
}

/// Serves the local socket for good. `users` may ask: root, and NVFLARE's.
pub fn local(agent: &Arc<Agent>, listener: &UnixListener, users: &[u32]) {
    let places = Places::new(MAX_CONNECTIONS);
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let uid = getsockopt(&stream, PeerCredentials).map(|peer| peer.uid());
        if !uid.is_ok_and(|uid| users.contains(&uid)) {
            eprintln!("cvm-agent: a connection of uid {uid:?} was closed: it is not one of {users:?}");
            continue;
        }
        let agent = agent.clone();
        places.with_one(stream, move |line| agent.handle(parse(line)?));
    }
}

/// Serves auditors for good.
pub fn audits(agent: &Arc<Agent>, listener: &TcpListener) {
    let places = Places::new(MAX_AUDITS);
    let mut rates = Rates::default();
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let Ok(address) = stream.peer_addr() else { continue };
        if !rates.admits(address.ip(), Instant::now()) {
            continue;
        }
        let (agent, asker) = (agent.clone(), address.ip().to_string());
        places.with_one(stream, move |line| agent.handle_audit(parse(line)?, &asker));
    }
}

/// So many connections at once, each in a thread of its own.
struct Places {
    free: Arc<AtomicUsize>,
}

impl Places {
    fn new(places: usize) -> Self {
        Self { free: Arc::new(AtomicUsize::new(places)) }
    }

    fn with_one<S: Stream>(&self, mut stream: S, work: impl FnOnce(&[u8]) -> Result<Value, Refusal> + Send + 'static) {
        let taken = self.free.fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| free.checked_sub(1));
        if taken.is_err() {
            let _ = stream.patience(Duration::from_millis(100));
            let _ = stream.write_all(&answer(Err(Refusal::Busy { what: "connections" })));
            return;
        }
        let place = Place(self.free.clone());
        // Without a thread, the closure goes, and with it the place and the connection.
        let _ = thread::Builder::new().spawn(move || {
            let _place = place;
            let outcome = match read_line(&mut stream, Instant::now() + DEADLINE) {
                Ok(line) => work(&line),
                Err(refusal) => Err(refusal),
            };
            if stream.patience(DEADLINE).is_ok() {
                let _ = stream.write_all(&answer(outcome));
            }
        });
    }
}

struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// One line, in time, of at most [`MAX_MESSAGE`] bytes; nothing may follow it.
fn read_line(stream: &mut impl Stream, deadline: Instant) -> Result<Vec<u8>, Refusal> {
    let refuse = |problem: &str| Refusal::Request { problem: problem.into() };
    let mut line = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || stream.patience(left).is_err() {
            return Err(refuse("it did not arrive in time"));
        }
        let read = stream.read(&mut chunk).map_err(|_| refuse("it did not arrive in time"))?;
        let part = chunk.get(..read).unwrap_or_default();
        line.extend_from_slice(part);
        if line.len() > MAX_MESSAGE {
            return Err(refuse("it is longer than 1 MiB"));
        }
        match part.iter().position(|byte| *byte == b'\n') {
            Some(at) if at + 1 == part.len() => {
                line.pop();
                return Ok(line);
            }
            Some(_) => return Err(refuse("bytes follow the request")),
            None if read == 0 => return Err(refuse("the connection closed before it was whole")),
            None => {}
        }
    }
}

/// A token bucket per address.
#[derive(Default)]
struct Rates(HashMap<IpAddr, (f64, Instant)>);

impl Rates {
    fn admits(&mut self, address: IpAddr, now: Instant) -> bool {
        let refilled = |left: f64, at: Instant| (left + now.duration_since(at).as_secs_f64() * PER_SECOND).min(BURST);
        if self.0.len() >= MAX_ADDRESSES {
            self.0.retain(|_, (left, at)| refilled(*left, *at) < BURST);
        }
        if self.0.len() >= MAX_ADDRESSES {
            return false;
        }
        let (left, at) = self.0.entry(address).or_insert((BURST, now));
        (*left, *at) = (refilled(*left, *at), now);
        let admitted = *left >= 1.0;
        if admitted {
            *left -= 1.0;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::net::UnixStream};

    use super::*;

    #[test]
    fn a_request_is_one_line_in_time() {
        let read = |bytes: &[u8], close: bool| {
            let (mut ours, mut theirs) = UnixStream::pair().unwrap();
            let bytes = bytes.to_vec();
            let writer = thread::spawn(move || {
                let _ = ours.write_all(&bytes);
                (!close).then_some(ours)
            });
            let line = read_line(&mut theirs, Instant::now() + Duration::from_millis(500));
            drop(theirs);
            drop(writer.join());
            line
        };
        assert_eq!(read(b"{}\n", true).unwrap(), b"{}");
        for (bytes, close) in [(&b"{}"[..], true), (b"{}", false), (b"{}\n{}\n", true), (b"", true)] {
            assert!(read(bytes, close).is_err());
        }
        assert!(read(&vec![b' '; 3 << 20], true).is_err());
    }

    #[test]
    fn attack_a_flood_of_audits() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        let (loud, quiet) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        assert_eq!((0..100).filter(|_| rates.admits(loud, now)).count(), 5);
        assert!(rates.admits(quiet, now));
        assert!(rates.admits(loud, now + Duration::from_secs(2)));
        for n in 0..2 * MAX_ADDRESSES as u32 {
            rates.admits(IpAddr::V4(n.into()), now);
        }
        assert!(rates.0.len() <= MAX_ADDRESSES);
    }
}
