//! NFS without `mount.nfs`: for version 4 the kernel needs nothing but the server's address.

use std::{
    fs::{File, OpenOptions},
    io,
    net::{IpAddr, ToSocketAddrs},
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    path::Path,
};

use cvm_base::{FileError, read_bounded};
use cvm_layout::site_conf::{self, SiteConf};
use nix::{errno::Errno, fcntl::OFlag, mount::mount};

use crate::{
    error::DataError,
    export::{Export, MAX_BYTES, NfsServer},
    mounts::{HOSTS_FLAGS, USER_DATA},
};

/// The one port of NFS version 4. The guide's 111 belongs to the mount protocol of version 3, which
/// nothing here speaks.
pub const PORT: u16 = 2049;
const SETTINGS: &str = "/opt/nvflare/config/site_conf.yaml";
/// The versions that are tried. 4.2 adds nothing to a read-only mount, and Linux then reads by
/// READ_PLUS, which Debian 12's Ganesha (4.3) answers with no bytes for a file that has some.
const VERSIONS: [&str; 2] = ["4.1", "4.0"];

/// Mounts what `ext_mount.conf` names at `/user_data/mnt`; nothing where there is no such file.
pub fn attach() -> Result<Option<String>, DataError> {
    let Some(text) = read_conf(&Path::new(USER_DATA).join("ext_mount.conf"))? else {
        return Ok(None);
    };
    let conf = SiteConf::parse(&read_bounded(Path::new(SETTINGS), site_conf::MAX_BYTES)?)?;
    let export = allowed_export(&text, &conf)?;
    let address = address(&export.server, &conf)?;
    // The host may put a link there at any time, so the mount goes to the folder that was opened.
    let target = mount_point(&Path::new(USER_DATA).join("mnt"))?;
    let place = format!("/proc/self/fd/{}", target.as_raw_fd());
    let mut result = Err(Errno::EPROTONOSUPPORT);
    for version in VERSIONS {
        let options = options(address, version);
        result = mount(
            Some(export.to_string().as_str()),
            place.as_str(),
            Some("nfs"),
            HOSTS_FLAGS,
            Some(options.as_str()),
        );
        if !matches!(result, Err(Errno::EPROTONOSUPPORT | Errno::EINVAL)) {
            break;
        }
    }
    match result {
        Ok(()) => Ok(Some(export.to_string())),
        Err(e) => {
            let target = format!("{USER_DATA}/mnt");
            Err(DataError::Mount {
                source_name: export.to_string(),
                target,
                problem: e.to_string(),
            })
        }
    }
}

/// The file's content, if it is there and a plain file: a pipe would never answer.
pub fn read_conf(path: &Path) -> Result<Option<Vec<u8>>, DataError> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let fail =
        |source| DataError::File(FileError::Io { action: "read", path: path.into(), source });
    let file = match OpenOptions::new().read(true).custom_flags(flags.bits()).open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(fail)?,
    };
    if !file.metadata().map_err(fail)?.is_file() {
        return Err(DataError::Export("is not a plain file"));
    }
    let mut text = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, MAX_BYTES + 1), &mut text).map_err(fail)?;
    Ok(Some(text))
}

/// What the file names, if the site's firewall lets the CVM go there.
pub fn allowed_export(text: &[u8], conf: &SiteConf) -> Result<Export, DataError> {
    let export = Export::parse(text)?;
    if conf.allowed_out_ports.contains(&PORT) {
        return Ok(export);
    }
    Err(DataError::ClosedPort { server: export.server.to_string(), port: PORT })
}

/// The site's own entries first, then DNS.
fn address(server: &NfsServer, conf: &SiteConf) -> Result<IpAddr, DataError> {
    let name = match server {
        NfsServer::Address(address) => return Ok(*address),
        NfsServer::Name(name) => name,
    };
    if let Some(address) = conf.hosts_entries.get(name) {
        return Ok(*address);
    }
    let fail = |problem: String| DataError::NoAddress { server: name.clone(), problem };
    let mut found = (name.as_str(), PORT).to_socket_addrs().map_err(|e| fail(e.to_string()))?;
    found.next().map(|address| address.ip()).ok_or_else(|| fail("no answer".into()))
}

/// The options for mount(2), as nfs(5) explains them: errors after some seconds where the server
/// cannot be reached, and no calls back. For a server that holds the connection and says nothing,
/// Linux waits all the same (`rpc_check_timeout` in net/sunrpc/clnt.c); its readers can be killed.
pub fn options(address: IpAddr, version: &str) -> String {
    format!(
        "vers={version},proto=tcp,port={PORT},addr={address},clientaddr=0.0.0.0,sec=sys,soft,\
         timeo=50,retrans=2"
    )
}

/// The folder itself, not what a link points to.
pub fn mount_point(path: &Path) -> Result<File, DataError> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path);
    opened.map_err(|e| DataError::NoMountPoint(e.to_string()))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use cvm_base::Explain as _;

    use super::*;

    fn conf(ports: &str) -> SiteConf {
        let text = format!(
            "version: 1\nsite: site-1\nrole: client\nallowed_out_ports: {ports}\nhosts_entries: \
             {{nas: 10.0.0.5}}\n"
        );
        SiteConf::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn an_export_is_mounted_only_where_its_port_is_open() {
        let export = allowed_export(b"nas:/srv\n", &conf("[111, 2049]")).unwrap();
        assert_eq!(address(&export.server, &conf("[]")).unwrap(), IpAddr::from([10, 0, 0, 5]));
        let error = allowed_export(b"nas:/srv\n", &conf("[8002, 111]")).unwrap_err();
        assert_eq!(error.code(), "DATA-004");
        assert!(
            error.to_string().contains("2049") && error.help().contains("allowed_out_ports"),
            "{error}"
        );
    }

    #[test]
    fn reads_from_an_unreachable_server_end_in_an_error() {
        let options = options([10, 0, 0, 5].into(), "4.1");
        for part in ["soft", "timeo=50", "retrans=2", "addr=10.0.0.5"] {
            assert!(options.split(',').any(|option| option == part), "{part} is not in {options}");
        }
    }

    #[test]
    fn attack_a_link_or_a_pipe_in_the_hosts_file_system() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        assert!(read_conf(&path("none")).unwrap().is_none());
        symlink("/etc/passwd", path("link")).unwrap();
        assert_eq!(read_conf(&path("link")).unwrap_err().code(), "FILE-001");
        nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(read_conf(&path("pipe")).unwrap_err().code(), "DATA-003");
        symlink("/", path("mnt")).unwrap();
        assert_eq!(mount_point(&path("mnt")).unwrap_err().code(), "DATA-006");
        fs::create_dir(path("folder")).unwrap();
        mount_point(&path("folder")).unwrap();
        assert_eq!(mount_point(&path("link")).unwrap_err().code(), "DATA-006");
    }
}
