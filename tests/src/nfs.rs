//! An NFS server that answers: Debian's Ganesha, which the Makefile unpacks and nobody installs.

use std::{
    fs,
    path::{Path, PathBuf, absolute},
    process::Command,
};

use anyhow::{Result, ensure};

use crate::process::{PATIENCE, Process};

/// Where the server shows its export.
pub const EXPORT: &str = "/export";

/// A server that ends when dropped.
pub struct Server {
    _process: Process,
}

impl Server {
    /// Serves `data` at [`EXPORT`], with NFS version 4 on `port` of loopback; what it keeps lies in
    /// `work`.
    pub fn start(tools: &Path, work: &Path, data: &Path, port: u16) -> Result<Self> {
        let root = absolute(tools.join("ganesha"))?;
        ensure!(
            root.join("usr/bin/ganesha.nfsd").exists(),
            "no server in {}: `make test` unpacks it",
            root.display()
        );
        let work = absolute(work)?;
        let at = |name: &str| work.join(name);
        fs::create_dir_all(at("state"))?;
        let libraries = root.join("usr/lib/x86_64-linux-gnu");
        let text = format!(
            "NFS_CORE_PARAM {{ Protocols = 4; Bind_addr = 127.0.0.1; NFS_Port = {port}; Plugins_Dir = \"{}\";\n\
             Enable_UDP = false; Enable_NLM = false; Enable_RQUOTA = false; }}\n\
             NFSv4 {{ Graceless = true; UseGetpwnam = true; RecoveryRoot = \"{}\"; }}\n\
             EXPORT {{ Export_Id = 1; Path = \"{}\"; Pseudo = \"{EXPORT}\"; Access_Type = RO; SecType = sys;\n\
             FSAL {{ Name = VFS; }} }}\n",
            libraries.join("ganesha").display(),
            at("state").display(),
            absolute(data)?.display(),
        );
        fs::write(at("ganesha.conf"), text)?;
        let mut command = Command::new(root.join("usr/bin/ganesha.nfsd"));
        command
            .args(["-F", "-L", "STDOUT", "-N", "EVENT", "-f"])
            .arg(at("ganesha.conf"))
            .arg("-p")
            .arg(at("pid"));
        let paths: [PathBuf; 2] = [libraries, root.join("usr/lib/ganesha")];
        command.env("LD_LIBRARY_PATH", std::env::join_paths(paths)?);
        let mut process = Process::start("ganesha.nfsd", &mut command)?;
        process.wait_for(&["NFS SERVER INITIALIZED"], PATIENCE)?;
        Ok(Self { _process: process })
    }
}
