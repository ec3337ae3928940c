//! Fresh evidence of this machine.

use cvm_base::Explain;
use cvm_collect::{
    CollectError, Device, Kind,
    tpm::{Tpm, patiently},
};
use cvm_evidence::{
    tpm_nonce,
    trustee::{COLLATERAL, report_data},
    wire::Base64,
};
use cvm_verify::QuotedEvidence;
use serde_json::Value;

use crate::{Refusal, evidence::Evidence};

/// Something that proves the state of this machine now. It is asked by one at a time (`turns`):
/// libtss2's contexts do not share a TPM without a resource manager.
pub trait Attester: Send + Sync {
    /// `tpm`, `snp`, `tdx`.
    fn kind(&self) -> &'static str;

    /// Evidence whose nonce is `digest`.
    ///
    /// # Errors
    /// [`Refusal::NoEvidence`].
    fn evidence(&self, digest: &[u8; 48]) -> Result<Evidence, Refusal>;
}

fn none(error: &impl Explain) -> Refusal {
    Refusal::NoEvidence { problem: format!("{}: {error}", error.code()) }
}

/// The TPM. It is opened for each quote, so that nothing of this process stays in it; the
/// attestation key is derived again, which takes a P-256 key's time.
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

    fn evidence(&self, digest: &[u8; 48]) -> Result<Evidence, Refusal> {
        let quoted = patiently(|| {
            let mut tpm = Tpm::open(&self.tcti)?;
            let mut key = tpm.create_quoting_key()?;
            Ok((key.quote(&tpm_nonce(digest))?, key.public().clone()))
        });
        let (tpm_quote, ak_public) = quoted.map_err(|e| none(&e))?;
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
            Kind::Snp => "snp",
            Kind::Tdx => "tdx",
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

    fn evidence(&self, digest: &[u8; 48]) -> Result<Evidence, Refusal> {
        let raw = (self.open)()
            .and_then(|mut device| device.evidence(&report_data(digest)))
            .map_err(|e| none(&e))?;
        let (kind, mut body) = raw.to_trustee(None).map_err(|e| none(&e))?;
        if let Some(collateral) = &self.collateral {
            body[COLLATERAL] = collateral.clone();
        }
        Evidence::tee(kind, &body)
    }
}

/// The machine's GPUs, or doubles of them. They too are asked by one at a time.
pub struct GpuAttester {
    open: OpenDevice,
}

impl GpuAttester {
    /// Those that `open` gives.
    pub fn new(open: OpenDevice) -> Self {
        Self { open }
    }

    /// Evidence of each, whose nonce is `digest`: the text of
    /// [`crate::token::Token::additional_evidence`].
    ///
    /// # Errors
    /// [`Refusal::NoEvidence`].
    pub fn additional_evidence(&self, digest: &[u8; 48]) -> Result<String, Refusal> {
        let collected =
            (self.open)().and_then(|mut gpus| cvm_collect::gpus::attest(&mut *gpus, digest));
        Ok(collected.map_err(|e| none(&e))?.additional_evidence())
    }
}

/// What this machine attests with, as `cvm-init` chose at boot: its TEE where it has one, else its
/// TPM. A TPM beside a TEE is the host's, and no key holder certified its key; a TEE that is there
/// and gives nothing is an error, and no reason to show what proves less.
///
/// # Errors
/// [`Refusal::NoEvidence`] when it has neither.
pub fn choose(
    tcti: &str,
    event_log: &[u8],
    collateral: &[u8],
) -> Result<Box<dyn Attester>, Refusal> {
    let absent = match TeeAttester::new(Box::new(cvm_collect::open_devices), collateral) {
        Ok(tee) => return Ok(Box::new(tee)),
        Err(error @ CollectError::Absent { .. }) => error,
        Err(error) => return Err(none(&error)),
    };
    let tpm = TpmAttester::new(tcti, event_log);
    match tpm.evidence(&[0; 48]) {
        Ok(_) => Ok(Box::new(tpm)),
        Err(problem) => Err(Refusal::NoEvidence { problem: format!("{problem}; {absent}") }),
    }
}
