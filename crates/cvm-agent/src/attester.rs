//! Fresh evidence of this machine.

use cvm_base::Explain;
use cvm_collect::{
    CollectError, Device,
    tpm::{Tpm, patiently},
};
use cvm_evidence::{
    tpm_nonce,
    trustee::{COLLATERAL, report_data},
    wire::Base64,
};
use cvm_verify::QuotedEvidence;
use serde_json::Value;

use cvm_peer::{error::AgentRefusal, evidence::Evidence};

/// Something that proves the state of this machine now. One caller at a time asks it (`turns`):
/// libtss2's contexts do not share a TPM without a resource manager.
pub trait Attester: Send + Sync {
    /// `tpm`, `snp`, `tdx`.
    fn kind(&self) -> &'static str;

    /// Evidence whose nonce is `digest`.
    ///
    /// # Errors
    /// [`AgentRefusal::NoEvidence`].
    fn evidence(&self, digest: &[u8; 48]) -> Result<Evidence, AgentRefusal>;
}

fn no_evidence(error: &impl Explain) -> AgentRefusal {
    AgentRefusal::NoEvidence { problem: format!("{}: {error}", error.code()) }
}

/// The TPM. It is opened for each quote, so that nothing of this process stays in it; the
/// attestation key is derived again each time, which takes as long as making a P-256 key.
pub struct TpmAttester {
    tcti: String,
    event_log: Option<Base64>,
}

impl TpmAttester {
    /// The TPM at `tcti` (`cvm_collect::tpm::DEFAULT_TCTI`), and its boot's log.
    pub fn new(tcti: &str, event_log: &[u8]) -> Self {
        let event_log = (!event_log.is_empty()).then(|| Base64(event_log.to_vec()));
        Self { tcti: tcti.into(), event_log }
    }
}

impl Attester for TpmAttester {
    fn kind(&self) -> &'static str {
        "tpm"
    }

    fn evidence(&self, digest: &[u8; 48]) -> Result<Evidence, AgentRefusal> {
        let quoted = patiently(|| {
            let mut tpm = Tpm::open(&self.tcti)?;
            let mut key = tpm.create_quoting_key()?;
            Ok((key.quote(&tpm_nonce(digest))?, key.public().clone()))
        });
        let (tpm_quote, ak_public) = quoted.map_err(|e| no_evidence(&e))?;
        Ok(Evidence::Tpm(Box::new(QuotedEvidence {
            ak_public,
            tpm_quote,
            event_log: self.event_log.clone(),
        })))
    }
}

/// Opens the machine's own TEE, or a double of one.
pub type OpenDevice = Box<dyn Fn() -> Result<Box<dyn Device>, CollectError> + Send + Sync>;

/// The guest's own TEE, or a recording of one.
pub struct TeeAttester {
    kind: &'static str,
    open: OpenDevice,
    /// What vendors published about this machine: it travels in the evidence.
    collateral: Option<Value>,
}

impl TeeAttester {
    /// What `open` gives, if it is a TEE that a token can carry. `collateral` is what `flare-cvm
    /// collateral pack` wrote, or empty.
    ///
    /// # Errors
    /// [`CollectError`] when there is none.
    pub fn new(open: OpenDevice, collateral: &[u8]) -> Result<Self, CollectError> {
        let kind = match open()?.kind() {
            cvm_collect::Kind::Snp => "snp",
            cvm_collect::Kind::Tdx => "tdx",
            other => {
                let problem = format!("{other:?} evidence is not carried by tokens");
                return Err(CollectError::Absent {
                    device: "SNP or TDX guest device".into(),
                    problem,
                });
            }
        };
        let collateral = serde_json::from_slice(collateral).ok().filter(Value::is_object);
        Ok(Self { kind, open, collateral })
    }
}

impl Attester for TeeAttester {
    fn kind(&self) -> &'static str {
        self.kind
    }

    fn evidence(&self, digest: &[u8; 48]) -> Result<Evidence, AgentRefusal> {
        let raw = (self.open)()
            .and_then(|mut device| device.evidence(&report_data(digest)))
            .map_err(|e| no_evidence(&e))?;
        let (kind, mut body) = raw.to_trustee(None).map_err(|e| no_evidence(&e))?;
        if let Some(collateral) = &self.collateral {
            body[COLLATERAL] = collateral.clone();
        }
        Evidence::tee(kind, &body)
    }
}

/// The machine's GPUs, or doubles of them. One caller at a time asks them, too.
pub struct GpuAttester {
    open: OpenDevice,
}

impl GpuAttester {
    /// Those that `open` gives.
    pub fn new(open: OpenDevice) -> Self {
        Self { open }
    }

    /// Evidence of each, whose nonce is `digest`: the text of
    /// [`cvm_peer::token::Token::additional_evidence`].
    ///
    /// # Errors
    /// [`AgentRefusal::NoEvidence`].
    pub fn additional_evidence(&self, digest: &[u8; 48]) -> Result<String, AgentRefusal> {
        let collected =
            (self.open)().and_then(|mut gpus| cvm_collect::gpus::attest(&mut *gpus, digest));
        Ok(collected.map_err(|e| no_evidence(&e))?.additional_evidence())
    }
}

/// What this machine attests with, as `cvm-init` chose at boot: its TEE where it has one, else its
/// TPM. A TPM beside a TEE is the host's, and no key holder certified its key. A TEE that is there
/// and gives nothing is an error, not a reason to show what proves less.
///
/// # Errors
/// [`AgentRefusal::NoEvidence`] when it has neither.
pub fn choose(
    tcti: &str,
    event_log: &[u8],
    collateral: &[u8],
) -> Result<Box<dyn Attester>, AgentRefusal> {
    let absent = match TeeAttester::new(Box::new(cvm_collect::open_devices), collateral) {
        Ok(tee) => return Ok(Box::new(tee)),
        Err(error @ CollectError::Absent { .. }) => error,
        Err(error) => return Err(no_evidence(&error)),
    };
    let tpm = TpmAttester::new(tcti, event_log);
    match tpm.evidence(&[0; 48]) {
        Ok(_) => Ok(Box::new(tpm)),
        Err(problem) => Err(AgentRefusal::NoEvidence { problem: format!("{problem}; {absent}") }),
    }
}
