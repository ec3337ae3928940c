//! `ext_mount.conf`: one line, `SERVER:/EXPORT`. The host wrote it, and what it says becomes an
//! argument of mount(2), so it is read strictly.

use std::{fmt, net::IpAddr};

use cvm_layout::site_conf::is_host_name;

use crate::error::DataError;

/// The longest file, in bytes: more than any line needs.
pub const MAX_BYTES: u64 = 1024;

/// What to mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// A host name or an address.
    pub server: NfsServer,
    /// An absolute path there.
    pub path: String,
}

/// Where the export is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NfsServer {
    /// A name, which is looked up.
    Name(String),
    /// An address, used as it is.
    Address(IpAddr),
}

impl Export {
    /// Reads the file.
    pub fn parse(bytes: &[u8]) -> Result<Self, DataError> {
        let wrong = |problem| Err(DataError::Export(problem));
        if bytes.len() as u64 > MAX_BYTES {
            return wrong("is longer than 1 KiB");
        }
        let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let Some(line) = std::str::from_utf8(line)
            .ok()
            .filter(|line| line.bytes().all(|b| b.is_ascii_graphic()))
        else {
            return wrong(
                "has more than one line, spaces, or other than printable ASCII characters",
            );
        };
        let (server, path) = match line.strip_prefix('[').and_then(|rest| rest.split_once("]:")) {
            Some((address, path)) => match address.parse() {
                Ok(address) => (NfsServer::Address(IpAddr::V6(address)), path),
                Err(_) => return wrong("has no IPv6 address in its brackets"),
            },
            None => match line.split_once(':') {
                Some((name, path)) => match name.parse() {
                    Ok(address) => (NfsServer::Address(IpAddr::V4(address)), path),
                    Err(_) if is_host_name(name) => (NfsServer::Name(name.into()), path),
                    Err(_) => {
                        return wrong("names a server that is neither a host name nor an address");
                    }
                },
                None => return wrong("has no ':'"),
            },
        };
        if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
            return wrong("names an export that is not an absolute path without '..'");
        }
        if !path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-+@~".contains(&b)) {
            return wrong("names an export with other than letters, digits and /._-+@~");
        }
        Ok(Self { server, path: path.into() })
    }
}

impl fmt::Display for NfsServer {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

impl fmt::Display for Export {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}:{}", self.server, self.path)
    }
}

/// Reads whatever `bytes` are: the fuzz target.
///
/// # Panics
/// When something is accepted that would say more than it shows.
pub fn fuzz(bytes: &[u8]) {
    if let Ok(export) = Export::parse(bytes) {
        let text = export.to_string();
        assert!(
            !text.contains([',', ' ', '\n', '\0'])
                && !export.path.split('/').any(|part| part == "..")
        );
        assert_eq!(Export::parse(text.as_bytes()).unwrap(), export);
    }
}

#[cfg(test)]
mod tests {
    use cvm_base::Explain as _;

    use super::*;

    #[test]
    fn one_line_names_a_server_and_its_export() {
        for (text, server) in [
            ("10.0.0.5:/srv/data\n", "10.0.0.5"),
            ("nas.example:/srv/data", "nas.example"),
            ("[2001:db8::5]:/srv/data", "[2001:db8::5]"),
        ] {
            let export = Export::parse(text.as_bytes()).unwrap();
            assert_eq!(
                (export.server.to_string().as_str(), export.path.as_str()),
                (server, "/srv/data")
            );
        }
    }

    #[test]
    fn attack_a_line_that_says_more() {
        let long = format!("a:/{}", "b".repeat(MAX_BYTES as usize));
        for bad in [
            "",
            "\n",
            "nas",
            "nas:",
            "nas:srv",
            ":/srv",
            "nas:/srv\n\n",
            "nas:/a\nnas:/b",
            "nas:/srv,rw",
            "nas:/srv rw",
            "nas:/srv/../etc",
            "na s:/srv",
            "-o:/srv",
            "nas:/srv\0",
            "[::1:/srv",
            "[nas]:/srv",
            "nas:/srv\u{e9}",
            "10.0.0.5,x:/a",
            "nas:/$(id)",
            &long,
        ] {
            assert_eq!(Export::parse(bad.as_bytes()).unwrap_err().code(), "DATA-003", "{bad:?}");
        }
        assert!(Export::parse(b"nas:/\xff").is_err());
    }

    #[test]
    fn the_seeds_and_damaged_copies_of_them_break_nothing() {
        cvm_testkit::seeds::each_seed("ext_mount", 2000, fuzz);
    }
}
