//! Sockets whose reads and writes are bounded in time.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    os::unix::net::UnixStream,
    time::Duration,
};

/// A socket whose reads and writes can be bounded, and which can be ended from elsewhere.
pub trait Stream: Read + Write + Send + 'static {
    /// Bounds each read and write from now on; `left` is not zero.
    fn patience(&self, left: Duration) -> io::Result<()>;
    /// The same connection once more.
    fn handle(&self) -> io::Result<Self>
    where
        Self: Sized;
    /// Ends it, whoever reads or writes.
    fn hang_up(&self);
}

impl Stream for UnixStream {
    fn patience(&self, left: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(left)).and_then(|()| self.set_write_timeout(Some(left)))
    }

    fn handle(&self) -> io::Result<Self> {
        self.try_clone()
    }

    fn hang_up(&self) {
        let _ = self.shutdown(Shutdown::Both);
    }
}

impl Stream for TcpStream {
    fn patience(&self, left: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(left)).and_then(|()| self.set_write_timeout(Some(left)))
    }

    fn handle(&self) -> io::Result<Self> {
        self.try_clone()
    }

    fn hang_up(&self) {
        let _ = self.shutdown(Shutdown::Both);
    }
}
