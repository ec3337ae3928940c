//! The socket and the port: one request per connection, all of it bounded.

use std::{
    fs,
    hash::Hash,
    io,
    net::{IpAddr, TcpListener},
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use cvm_base::peers::{Buckets, Place, Places, Rate, network};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use serde_json::Value;

use crate::{
    agent::Agent,
    error::SetupError,
    request::{answer, parse},
};
use cvm_peer::{
    error::AgentRefusal,
    limits::{MAX_MESSAGE, MAX_QUESTION},
    stream::Stream,
};

/// Where the agent listens.
pub const SOCKET: &str = "/run/flare-cvm/agent.sock";
/// Connections to the socket at once, and of one user.
const MAX_CONNECTIONS: usize = 32;
const MAX_PER_USER: usize = 24;
/// Auditors at once, and from one address.
const MAX_AUDITS: usize = 16;
const MAX_PER_ADDRESS: usize = 4;
/// How long a request may take to arrive, and an answer to leave.
const DEADLINE: Duration = Duration::from_secs(10);
/// Auditors' requests of one address.
const AUDITS: Rate = Rate { burst: 5.0, per_second: 0.5 };
/// Addresses that are remembered.
const MAX_ADDRESSES: usize = 1024;

/// Binds the socket. Its mode lets everybody connect; what the kernel says of who connected decides
/// ([`local`]).
///
/// # Errors
/// [`SetupError::Listen`].
pub fn bind(path: &Path) -> Result<UnixListener, SetupError> {
    let fail = |e: io::Error| SetupError::Listen {
        at: path.display().to_string(),
        problem: e.to_string(),
    };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(fail)?;
    }
    // An agent that was killed may have left it; systemd starts only one agent.
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(fail(e)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(fail)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).map_err(fail)?;
    Ok(listener)
}

/// Serves the local socket without end. `users` may ask: root and NVFLARE's user.
pub fn local(agent: &Arc<Agent>, listener: &UnixListener, users: &[u32]) {
    let doors = Doors::new(MAX_CONNECTIONS, MAX_PER_USER, MAX_MESSAGE);
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let uid = getsockopt(&stream, PeerCredentials).map(|peer| peer.uid());
        let Some(uid) = uid.ok().filter(|uid| users.contains(uid)) else {
            eprintln!(
                "cvm-agent: a connection of uid {uid:?} was closed: it is not one of {users:?}"
            );
            continue;
        };
        let agent = agent.clone();
        doors.open(uid, stream, move |line| agent.handle(parse(line)?));
    }
}

/// Serves auditors without end.
pub fn audits(agent: &Arc<Agent>, listener: &TcpListener) {
    let doors = Doors::new(MAX_AUDITS, MAX_PER_ADDRESS, MAX_QUESTION);
    let mut rates: Buckets<IpAddr> = Buckets::new(AUDITS, MAX_ADDRESSES);
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let Ok(address) = stream.peer_addr() else { continue };
        let peer = network(address.ip());
        if !rates.take(peer, Instant::now()) {
            continue;
        }
        let (agent, asker) = (agent.clone(), address.ip().to_canonical().to_string());
        doors.open(peer, stream, move |line| agent.handle_audit(parse(line)?, &asker));
    }
}

/// A bounded number of connections at once, each in a thread of its own. Where there is no place
/// for one more, the slowest is ended.
struct Doors<K, S> {
    places: Arc<Mutex<Places<K, S>>>,
    /// The longest request.
    longest: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K: Hash + Eq + Copy + Send + 'static, S: Stream> Doors<K, S> {
    fn new(all: usize, per_peer: usize, longest: usize) -> Self {
        Self { places: Arc::new(Mutex::new(Places::new(all, per_peer))), longest }
    }

    fn open(
        &self,
        peer: K,
        mut stream: S,
        work: impl FnOnce(&[u8]) -> Result<Value, AgentRefusal> + Send + 'static,
    ) {
        let Ok(handle) = stream.handle() else { return };
        let admitted = lock(&self.places).admit(peer, handle, Instant::now());
        let Some(Place { id, shed }) = admitted else {
            let _ = stream.patience(Duration::from_millis(100));
            let _ = stream.write_all(&answer(Err(AgentRefusal::Busy { what: "connections" })));
            return;
        };
        if let Some(slowest) = shed {
            slowest.hang_up();
        }
        let (place, longest) = (Taken { places: self.places.clone(), id }, self.longest);
        // If no thread starts, the closure is dropped, and with it the place and the connection.
        let _ = thread::Builder::new().spawn(move || {
            let outcome = match read_line(&mut stream, longest, Instant::now() + DEADLINE) {
                Ok(line) => {
                    lock(&place.places).works_for(place.id);
                    work(&line)
                }
                Err(refusal) => Err(refusal),
            };
            lock(&place.places).waits_for(place.id, Instant::now());
            let _ = write_whole(&mut stream, &answer(outcome), Instant::now() + DEADLINE);
        });
    }
}

/// A place that is free again when this is dropped.
struct Taken<K: Hash + Eq + Copy, H> {
    places: Arc<Mutex<Places<K, H>>>,
    id: u64,
}

impl<K: Hash + Eq + Copy, H> Drop for Taken<K, H> {
    fn drop(&mut self) {
        lock(&self.places).leave(self.id);
    }
}

/// Writes all bytes before the deadline, however little the other side takes at once.
fn write_whole(stream: &mut impl Stream, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.patience(left)?;
        match stream.write(bytes)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => bytes = bytes.get(written..).unwrap_or_default(),
        }
    }
    Ok(())
}

/// One line, in time, of at most `longest` bytes; nothing may follow it.
fn read_line(
    stream: &mut impl Stream,
    longest: usize,
    deadline: Instant,
) -> Result<Vec<u8>, AgentRefusal> {
    let refuse = |problem: &str| AgentRefusal::Request { problem: problem.into() };
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
        if line.len() > longest {
            return Err(refuse(&format!("it is longer than {longest} bytes")));
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

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpStream,
        os::unix::net::UnixStream,
    };

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
            let line = read_line(&mut theirs, 1 << 20, Instant::now() + Duration::from_secs(5));
            drop(theirs);
            drop(writer.join());
            line
        };
        assert_eq!(read(b"{}\n", true).unwrap(), b"{}");
        for (bytes, close) in [(&b"{}"[..], true), (b"{}", false), (b"{}\n{}\n", true), (b"", true)]
        {
            assert!(read(bytes, close).is_err());
        }
        assert!(read(&vec![b' '; 3 << 20], true).is_err());
    }

    fn ask(port: u16, request: &[u8]) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.write_all(request)?;
        Ok(stream)
    }

    #[test]
    fn attack_one_address_that_holds_every_place() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let doors: Doors<u32, TcpStream> = Doors::new(4, 2, MAX_QUESTION);
        // Connections that say nothing, of four peers; and then one that asks.
        let silent: Vec<TcpStream> = (0..8).map(|_| ask(port, b"{").unwrap()).collect();
        let mut honest = ask(port, b"{}\n").unwrap();
        for n in 0..9 {
            let (stream, _) = listener.accept().unwrap();
            doors.open(n / 2, stream, |_| Ok(serde_json::json!({})));
        }
        let mut answer = String::new();
        honest.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "{\"ok\":true}\n");
        drop(silent);
    }

    #[test]
    fn attack_an_answer_that_nobody_reads() {
        let (mut ours, _theirs) = UnixStream::pair().unwrap();
        let written =
            write_whole(&mut ours, &vec![0; 16 << 20], Instant::now() + Duration::from_millis(100));
        assert!(written.is_err());
    }
}
