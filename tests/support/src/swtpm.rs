//! A software TPM whose endorsement key a private CA certified.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use crate::bounded::Bounded;

/// For a step that takes a second.
const LIMIT: Duration = Duration::from_secs(120);

/// Makes a TPM's state in `folder`/state, certified by the CA in `ca`, which is made if it is not
/// there. What it needs besides lies in `folder`.
///
/// # Panics
/// When `swtpm_setup` fails or is not installed.
pub fn manufacture(folder: &Path, ca: &Path, certificate: bool) {
    let at = |name: &str| folder.join(name);
    fs::create_dir_all(at("state")).unwrap();
    fs::create_dir_all(ca).unwrap();
    let c = ca.display();
    let text = format!(
        "statedir = {c}\nsigningkey = {c}/signkey.pem\nissuercert = {c}/issuercert.pem\ncertserial \
         = {c}/certserial\n"
    );
    fs::write(at("localca.conf"), text).unwrap();
    let text =
        "--platform-manufacturer flare-cvm\n--platform-version 1\n--platform-model laboratory\n";
    fs::write(at("localca.options"), text).unwrap();
    let text = format!(
        "create_certs_tool = /usr/bin/swtpm_localca\ncreate_certs_tool_config = \
         {}\ncreate_certs_tool_options = {}\n",
        at("localca.conf").display(),
        at("localca.options").display()
    );
    fs::write(at("setup.conf"), text).unwrap();
    let mut command = Command::new("timeout");
    command
        .arg(LIMIT.as_secs().to_string())
        .args(["swtpm_setup", "--tpm2", "--pcr-banks", "sha256", "--overwrite", "--tpmstate"])
        .arg(at("state"));
    command.arg("--config").arg(at("setup.conf"));
    if certificate {
        command.arg("--create-ek-cert");
    }
    // A file: a pipe would be waited for as long as anything that it starts holds it.
    let log = fs::File::create(at("setup.log")).unwrap();
    let made = command
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .status()
        .expect("coreutils are installed");
    let said = || fs::read_to_string(at("setup.log")).unwrap_or_default();
    assert!(made.success(), "swtpm_setup (package swtpm-tools): {made}: {}", said());
}

/// The CA's certificates as PEM files: the root and the issuer.
pub fn ca_files(ca: &Path) -> [PathBuf; 2] {
    ["swtpm-localca-rootca-cert.pem", "issuercert.pem"].map(|name| ca.join(name))
}

/// A running TPM. It ends with this value.
#[derive(Debug)]
pub struct Swtpm {
    _process: Bounded,
    port: u16,
    folder: tempfile::TempDir,
}

impl Swtpm {
    /// A TPM with a CA of its own.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca");
        Self::started(folder, &ca, true)
    }

    /// A TPM of the CA in `ca`; without `certificate` nobody certified its endorsement key.
    pub fn of(ca: &Path, certificate: bool) -> Self {
        Self::started(tempfile::tempdir().unwrap(), ca, certificate)
    }

    fn started(folder: tempfile::TempDir, ca: &Path, certificate: bool) -> Self {
        manufacture(folder.path(), ca, certificate);
        let (process, port) = start(&folder.path().join("state"));
        Self { _process: process, port, folder }
    }

    /// How libtss2 and tpm2-tools reach it.
    pub fn tcti(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.port)
    }

    /// PEM of the CA of its own: root and issuer.
    pub fn roots(&self) -> Vec<u8> {
        roots(&self.folder.path().join("ca"))
    }

    /// A file for other programs.
    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

impl Default for Swtpm {
    fn default() -> Self {
        Self::new()
    }
}

/// PEM of a CA: root and issuer.
pub fn roots(ca: &Path) -> Vec<u8> {
    ca_files(ca).map(|file| fs::read(file).unwrap()).concat()
}

/// Two neighbouring ports that were free just now, below those that the kernel gives to whoever
/// connects. No two calls in this process give the same.
fn ports() -> Option<(u16, u16)> {
    static CALLS: AtomicU16 = AtomicU16::new(0);
    const PAIRS: u32 = 10_000;
    let call = u32::from(CALLS.fetch_add(1, Ordering::Relaxed));
    let pair = (std::process::id().wrapping_mul(97) + call) % PAIRS;
    let port = u16::try_from(12_000 + 2 * pair).ok()?;
    let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    (free(port) && free(port + 1)).then_some((port, port + 1))
}

/// libtss2 wants the control channel on the next port.
fn start(state: &Path) -> (Bounded, u16) {
    for _ in 0..20 {
        let Some((port, control)) = ports() else { continue };
        let mut command = Command::new("swtpm");
        command
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"])
            .arg(format!("dir={}", state.display()))
            .args(["--server", &format!("type=tcp,port={port},bindaddr=127.0.0.1")])
            .args(["--ctrl", &format!("type=tcp,port={control},bindaddr=127.0.0.1")])
            .stderr(Stdio::null());
        let process = Bounded::spawn(&mut command).expect("swtpm is installed");
        // Up, or ended because another process took one of the ports.
        let deadline = Instant::now() + LIMIT;
        while process.try_wait().unwrap().is_none() && Instant::now() < deadline {
            if TcpStream::connect(("127.0.0.1", control)).is_ok() {
                // Ours, and not another's that took the port meanwhile.
                sleep(Duration::from_millis(50));
                match process.try_wait().unwrap() {
                    None => return (process, port),
                    Some(_) => break,
                }
            }
            sleep(Duration::from_millis(20));
        }
    }
    panic!("no pair of free ports for swtpm");
}
