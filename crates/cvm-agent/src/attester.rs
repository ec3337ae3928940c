//! Fresh evidence of this machine.

use cvm_attest::{
    QuotedEvidence,
    attester::Tpm,
    collect::{self, CollectError, Device, Raw},
    tpm_nonce,
    wire::Base64,
};
use cvm_base::Explain;

use crate::{
    Refusal,
    evidence::{Evidence, SnpBody, TdxBody, report_data},
};

/// A longer log stays at home: the token must fit, and registers are judged without it.
const MAX_LOG: usize = 64 * 1024;

/// Something that proves the state of this machine now.
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

/// The TPM. It is opened for each quote, so that nothing of this process stays in it; the attestation key is derived
/// again, which takes a P-256 key's time.
pub struct TpmAttester {
    tcti: String,
    event_log: Option<Base64>,
    /// libtss2's contexts do not share a TPM without a resource manager.
    one: std::sync::Mutex<()>,
}

impl TpmAttester {
    /// The TPM at `tcti` (`cvm_attest::attester::DEFAULT_TCTI`), and its boot's log.
    pub fn new(tcti: &str, event_log: &[u8]) -> Self {
        let event_log = (1..=MAX_LOG).contains(&event_log.len()).then(|| Base64(event_log.to_vec()));
        Self { tcti: tcti.into(), event_log, one: std::sync::Mutex::default() }
    }
}

impl Attester for TpmAttester {
    fn kind(&self) -> &'static str {
        "tpm"
    }

    fn evidence(&self, digest: &[u8; 48]) -> Result<Evidence, Refusal> {
        let _one = self.one.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut tpm = Tpm::open(&self.tcti).map_err(|e| none(&e))?;
        let mut key = tpm.create_quoting_key().map_err(|e| none(&e))?;
        let tpm_quote = key.quote(&tpm_nonce(digest)).map_err(|e| none(&e))?;
        let ak_public = key.public().clone();
        Ok(Evidence::Tpm(Box::new(QuotedEvidence { ak_public, tpm_quote, event_log: self.event_log.clone() })))
    }
}

type OpenDevice = Box<dyn Fn() -> Result<Box<dyn Device>, CollectError> + Send + Sync>;

/// The guest's own TEE, or a recording of one.
pub struct TeeAttester {
    kind: &'static str,
    open: OpenDevice,
}

impl TeeAttester {
    /// What `open` gives, if it is a TEE that a token can carry.
    ///
    /// # Errors
    /// [`CollectError`] when there is none.
    pub fn new(open: OpenDevice) -> Result<Self, CollectError> {
        let kind = match open()?.kind() {
            collect::Kind::Snp => "snp",
            collect::Kind::Tdx => "tdx",
            other => {
                let problem = format!("{other:?} evidence is not carried by tokens");
                return Err(CollectError::Absent { device: "SNP or TDX guest device".into(), problem });
            }
        };
        Ok(Self { kind, open })
    }
}

impl Attester for TeeAttester {
    fn kind(&self) -> &'static str {
        self.kind
    }

    fn evidence(&self, digest: &[u8; 48]) -> Result<Evidence, Refusal> {
        let raw = (self.open)().and_then(|mut device| device.evidence(&report_data(digest))).map_err(|e| none(&e))?;
        match raw {
            Raw::Snp { report, certificates } => {
                use collect::CertificateKind::{Ark, Ask, Vcek, Vlek};
                let of_a_chain = certificates.into_iter().filter(|c| matches!(c.kind, Vcek | Vlek | Ask | Ark));
                let certificates = of_a_chain.map(|certificate| Base64(certificate.bytes)).collect();
                Ok(Evidence::Snp(SnpBody { report: Base64(report), certificates }))
            }
            Raw::Tdx { quote } => Ok(Evidence::Tdx(TdxBody { quote: Base64(quote) })),
            other => {
                Err(Refusal::NoEvidence { problem: format!("the device gave {other:?}").chars().take(80).collect() })
            }
        }
    }
}

/// What this machine has: its TPM, which alone shows the handoff; else the TEE's own device.
///
/// # Errors
/// [`Refusal::NoEvidence`] when it has neither.
pub fn choose(tcti: &str, event_log: &[u8]) -> Result<Box<dyn Attester>, Refusal> {
    let tpm = TpmAttester::new(tcti, event_log);
    let problem = match tpm.evidence(&[0; 48]) {
        Ok(_) => return Ok(Box::new(tpm)),
        Err(problem) => problem,
    };
    match TeeAttester::new(Box::new(collect::open)) {
        Ok(tee) => Ok(Box::new(tee)),
        Err(error) => Err(Refusal::NoEvidence { problem: format!("{problem}; {error}") }),
    }
}
