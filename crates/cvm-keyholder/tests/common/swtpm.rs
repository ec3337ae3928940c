//! A software TPM with a certified endorsement key, as `cvm-init` would use it.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    thread::sleep,
    time::Duration,
};

use cvm_attest::{
    Roots,
    attester::{AttestationKey, Tpm},
    eventlog::EventLog,
};
use cvm_base::Bytes32;
use cvm_release::{binding::Binding, client::http::Attester, messages::Tee};
use serde_json::Value;

/// Ends with this value.
pub struct Swtpm {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Swtpm {
    /// Makes a TPM and a CA of its own.
    pub fn manufacture() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (state, ca) = (at("state"), at("ca"));
        fs::create_dir_all(&state).unwrap();
        fs::create_dir_all(&ca).unwrap();
        let c = ca.display();
        let text = format!(
            "statedir = {c}\nsigningkey = {c}/signkey.pem\nissuercert = {c}/issuercert.pem\ncertserial = {c}/certserial\n"
        );
        fs::write(at("localca"), text).unwrap();
        fs::write(at("options"), "--platform-manufacturer lab\n--platform-version 1\n--platform-model lab\n").unwrap();
        let text = format!(
            "create_certs_tool = /usr/bin/swtpm_localca\ncreate_certs_tool_config = {}\ncreate_certs_tool_options = {}\n",
            at("localca").display(),
            at("options").display()
        );
        fs::write(at("setup"), text).unwrap();
        let made = Command::new("swtpm_setup")
            .args(["--tpm2", "--create-ek-cert", "--pcr-banks", "sha256", "--tpmstate"])
            .arg(&state)
            .arg("--config")
            .arg(at("setup"))
            .output()
            .expect("swtpm_setup is installed (package swtpm-tools)");
        assert!(made.status.success(), "swtpm_setup: {}", String::from_utf8_lossy(&made.stdout));
        let (child, port) = start(&state);
        Self { child, port, folder }
    }

    /// How tpm2-tools reach it.
    pub fn tcti(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.port)
    }

    pub fn open(&self) -> Tpm {
        for _ in 0..100 {
            if let Ok(tpm) = Tpm::open(&self.tcti()) {
                return tpm;
            }
            sleep(Duration::from_millis(50));
        }
        panic!("swtpm does not answer on port {}", self.port);
    }

    /// Measures what a boot's log lists.
    pub fn boot(&self, log: &[u8]) -> Tpm {
        let mut tpm = self.open();
        for event in EventLog::parse(log).unwrap().events() {
            tpm.extend_pcr(event.pcr, &event.digest).unwrap();
        }
        tpm
    }

    /// PEM of the CA: root and issuer.
    pub fn roots(&self) -> Vec<u8> {
        let read = |name: &str| fs::read(self.folder.path().join("ca").join(name)).unwrap();
        [read("swtpm-localca-rootca-cert.pem"), read("issuercert.pem")].concat()
    }

    /// What a policy names.
    pub fn root_sha256(&self) -> Bytes32 {
        Roots::from_pem(&self.roots()).unwrap().ek_roots().next().unwrap()
    }

    /// A file for other programs.
    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// libtss2 wants the control channel on the next port.
fn start(state: &Path) -> (Child, u16) {
    for _ in 0..20 {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let Some(control) = port.checked_add(1) else { continue };
        let mut child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"])
            .arg(format!("dir={}", state.display()))
            .args(["--server", &format!("type=tcp,port={port},bindaddr=127.0.0.1")])
            .args(["--ctrl", &format!("type=tcp,port={control},bindaddr=127.0.0.1")])
            .stderr(Stdio::null())
            .spawn()
            .expect("swtpm is installed");
        sleep(Duration::from_millis(200));
        if child.try_wait().unwrap().is_none() {
            return (child, port);
        }
    }
    panic!("no pair of free ports for swtpm");
}

/// The TPM as the client's attester, the way `cvm-init` does it.
pub struct TpmAttester<'a> {
    pub key: Mutex<AttestationKey<'a>>,
    pub log: Vec<u8>,
}

impl<'a> TpmAttester<'a> {
    pub fn new(tpm: &'a mut Tpm, log: Vec<u8>) -> Self {
        Self { key: Mutex::new(tpm.create_ak().unwrap()), log }
    }
}

impl Attester for TpmAttester<'_> {
    fn tee(&self) -> Tee {
        Tee::Tpm
    }

    fn auth_params(&self) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
        Ok(serde_json::to_string(self.key.lock().unwrap().handshake_params())?)
    }

    fn evidence(&self, params: &str, binding: &Binding) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        let challenge = serde_json::from_str(params)?;
        let evidence = self.key.lock().unwrap().answer(&challenge, &binding.0, &self.log)?;
        Ok(serde_json::to_value(evidence)?)
    }
}
