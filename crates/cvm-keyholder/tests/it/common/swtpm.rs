//! A software TPM with a certified endorsement key, as `cvm-init` would use it.

use std::sync::Mutex;

use cvm_base::Bytes32;
use cvm_collect::tpm::{AttestationKey, Tpm};
use cvm_evidence::eventlog::EventLog;
use cvm_release::{binding::Binding, messages::Tee};
use cvm_release_https::Attester;
use cvm_testkit::swtpm::Swtpm;
use cvm_verify::Roots;
use serde_json::Value;

pub fn open(swtpm: &Swtpm) -> Tpm {
    Tpm::open(&swtpm.tcti()).unwrap()
}

/// Measures what a boot's log lists.
pub fn boot(swtpm: &Swtpm, log: &[u8]) -> Tpm {
    let mut tpm = open(swtpm);
    for event in EventLog::parse(log).unwrap().events() {
        tpm.extend_pcr(event.pcr, &event.digest).unwrap();
    }
    tpm
}

/// What a policy names.
pub fn root_sha256(swtpm: &Swtpm) -> Bytes32 {
    Roots::from_pem(&swtpm.roots()).unwrap().ek_roots().next().unwrap()
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

    fn evidence(
        &self,
        params: &str,
        binding: &Binding,
    ) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        let challenge = serde_json::from_str(params)?;
        let evidence = self.key.lock().unwrap().answer(&challenge, &binding.0, &self.log)?;
        Ok(serde_json::to_value(evidence)?)
    }
}
