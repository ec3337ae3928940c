//! Sockets whose reads and writes are bounded in time.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    time::Duration,
};

pub(crate) trait Stream: Read + Write + Send + 'static {
    /// Bounds each read and write from now on; `left` is not zero.
    fn patience(&self, left: Duration) -> io::Result<()>;
}

impl Stream for UnixStream {
    fn patience(&self, left: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(left)).and_then(|()| self.set_write_timeout(Some(left)))
    }
}

impl Stream for TcpStream {
    fn patience(&self, left: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(left)).and_then(|()| self.set_write_timeout(Some(left)))
    }
}
