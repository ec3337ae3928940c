//! A vendor's service, played by this machine: answers what it is told to, and remembers what it
//! was asked.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    sync::{Arc, Mutex},
    thread,
};

/// What to answer: a whole HTTP response, or nothing (the connection is closed).
pub type Answer = Option<Vec<u8>>;

/// Answers until the test's process ends.
pub struct Server {
    /// `http://127.0.0.1:PORT`.
    pub base: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Starts; `answer` is given the path and how often this path was asked before.
    pub fn start(answer: impl Fn(&str, usize) -> Answer + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut head = String::new();
                let mut reader = BufReader::new(stream.try_clone().unwrap().take(16 * 1024));
                while reader.read_line(&mut head).is_ok_and(|n| n > 0)
                    && !head.ends_with("\r\n\r\n")
                {}
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let mut log = log.lock().unwrap();
                let before = log
                    .iter()
                    .filter(|h: &&String| h.split(' ').nth(1) == Some(path.as_str()))
                    .count();
                log.push(head);
                if let Some(response) = answer(&path, before) {
                    // The client may have gone away in the middle of a long answer, and should.
                    let _ = stream.write_all(&response);
                }
            }
        });
        Self { base, asked }
    }

    /// The heads of all requests, in order.
    pub fn heads(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// The paths of all requests, in order.
    pub fn paths(&self) -> Vec<String> {
        self.heads().iter().map(|head| head.split(' ').nth(1).unwrap().to_owned()).collect()
    }
}

/// A response of this status, with these headers (each ending in CR LF).
pub fn response(status: u16, headers: &str, body: &[u8]) -> Answer {
    let head = format!(
        "HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n{headers}\r\n",
        body.len()
    );
    Some([head.as_bytes(), body].concat())
}
