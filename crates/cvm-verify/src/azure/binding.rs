//! Everything between the vTPM's quote and the hardware's signature.

use serde_json::Value;

use super::{AzureError, AzureEvidence, Hardware, HardwareKind, RuntimeClaims, VtpmClaims, td};
use crate::{
    acpi,
    quote::{Nonce, QuoteClaims, QuoteEvidence, TpmError, TpmPolicy, verify},
    snp::{self, SnpClaims, SnpEvidence, SnpExpected, SnpReport, SnpRoots},
    x509::Certificate,
};

/// Where an SNP report has its VMPL and its report data (SEV-SNP ABI, table 23).
const SNP_VMPL: usize = 0x30;
const SNP_REPORT_DATA: usize = 0x50;

/// Azure evidence of which everything holds but the hardware report's own signature.
///
/// Believe nothing here before the hardware report was verified: [`AzureBound::claims`] takes its
/// claims.
#[derive(Debug, Clone)]
pub struct AzureBound<'a> {
    /// The hardware.
    pub kind: HardwareKind,
    /// What must be verified: the SNP report, or the TD quote.
    pub hardware_report: &'a [u8],
    /// The SNP report's signing certificate, where the evidence brings it.
    pub vcek: Option<&'a Certificate>,
    /// How the hardware report's 64 bytes of report data must begin: SHA-256 of the runtime data.
    /// It was compared with the bytes in `hardware_report`.
    pub report_data: [u8; 32],
    /// What the vTPM quoted.
    pub quote: QuoteClaims,
    /// What the paravisor says.
    pub runtime: &'a RuntimeClaims,
}

impl AzureEvidence {
    /// Checks everything below the hardware's signature: the vTPM's quote over `nonce` by the key
    /// that the runtime data names, the runtime data's hash in the hardware report, VMPL 0, that
    /// the TD quote is of the HCL's TDREPORT, and from version 2 on the nonce in the runtime data.
    ///
    /// # Errors
    /// [`AzureError`], for the first check that fails; an empty nonce is refused, because
    /// everybody can answer it.
    pub fn check_binding(
        &self,
        nonce: &[u8],
        policy: &TpmPolicy,
    ) -> Result<AzureBound<'_>, AzureError> {
        if nonce.is_empty() {
            return Err(TpmError::EmptyNonce.into());
        }
        let expected = self.hcl.runtime_data_sha256();
        let (hardware_report, vcek, found) = match &self.hardware {
            Hardware::Snp(vcek) => {
                let report = self.hcl.hardware_report();
                let vmpl = report
                    .get(SNP_VMPL..)
                    .and_then(|b| b.first_chunk())
                    .map(|b| u32::from_le_bytes(*b));
                match vmpl {
                    Some(0) => {}
                    other => return Err(AzureError::Vmpl { found: other.unwrap_or(u32::MAX) }),
                }
                (report, vcek.as_deref(), report.get(SNP_REPORT_DATA..))
            }
            Hardware::Tdx(quote) => {
                let report_data = td::check(self.hcl.hardware_report(), quote)?;
                (&quote[..], None, Some(report_data))
            }
        };
        let found: &[u8; 32] = found.and_then(|data| data.first_chunk()).unwrap_or(&[0; 32]);
        if found[..] != *expected.as_bytes() {
            return Err(AzureError::RuntimeBinding {
                expected: expected.to_string(),
                found: hex::encode(found),
            });
        }
        let runtime = self.hcl.runtime();
        if self.version >= 2 {
            check_user_data(runtime, nonce)?;
        }

        let mut evidence =
            QuoteEvidence::parse(&self.message, &self.signature, runtime.ak.clone())?
                .with_pcrs(self.pcrs.clone());
        if let Some(log) = &self.event_log {
            evidence = evidence.with_event_log(log)?;
        }
        let mut quote = verify(&evidence, Some(&Nonce::exact(nonce)), None, policy, 0)?;
        // The hardware report vouches for the key: the paravisor's vTPM uses it for its own
        // statements alone. The hardware's claims list the host's ACPI tables.
        quote
            .not_checked
            .retain(|skipped| !skipped.check.starts_with("ak-") && skipped.check != acpi::CHECK);
        Ok(AzureBound {
            kind: self.hcl.kind(),
            hardware_report,
            vcek,
            report_data: *found,
            quote,
            runtime,
        })
    }
}

impl AzureBound<'_> {
    /// The hardware report's whole report data: the paravisor pads the hash of the runtime data
    /// with zeros. What verifies a TD quote compares it with this.
    pub fn expected_report_data(&self) -> [u8; 64] {
        let mut report_data = [0; 64];
        report_data.iter_mut().zip(self.report_data).for_each(|(to, from)| *to = from);
        report_data
    }

    /// Verifies the SNP report at `now` (seconds since 1970 UTC), with the evidence's VCEK and
    /// whatever other `certificates` are at hand; `crls` are DER. Whether its claims are acceptable
    /// is an [`snp::SnpPolicy`]'s matter; that it was made at VMPL 0 was checked.
    ///
    /// # Errors
    /// [`AzureError::Kind`] over TDX, [`AzureError::Snp`].
    pub fn verify_snp(
        &self,
        certificates: &[Certificate],
        roots: &SnpRoots,
        crls: &[Vec<u8>],
        now: u64,
    ) -> Result<SnpClaims, AzureError> {
        if self.kind != HardwareKind::Snp {
            return Err(AzureError::Kind { expected: HardwareKind::Snp, found: self.kind });
        }
        let evidence = SnpEvidence {
            report: SnpReport::parse(self.hardware_report)?,
            certificates: self.vcek.into_iter().chain(certificates).cloned().collect(),
        };
        let report_data = self.expected_report_data();
        let expected = SnpExpected { report_data: Some(&report_data), host_data: None };
        Ok(snp::verify(&evidence, roots, crls, &expected, now)?)
    }

    /// What the vTPM and its paravisor say, to be believed once the hardware's report is.
    pub fn vtpm(&self) -> VtpmClaims {
        VtpmClaims {
            quote: self.quote.clone(),
            user_data: self.runtime.user_data.clone(),
            vm_configuration: self.runtime.vm_configuration.clone(),
        }
    }

    /// The claims of a hardware report that was verified (an object), with the vTPM's: see
    /// [`VtpmClaims::beside`].
    pub fn claims(&self, hardware: Value) -> Value {
        self.vtpm().beside(hardware)
    }
}

fn check_user_data(runtime: &RuntimeClaims, nonce: &[u8]) -> Result<(), AzureError> {
    let user_data = runtime.user_data.as_deref().unwrap_or_default();
    let rest = user_data.strip_prefix(nonce);
    if rest.is_some_and(|rest| rest.iter().all(|byte| *byte == 0)) {
        return Ok(());
    }
    Err(AzureError::UserData { expected: hex::encode(nonce), found: hex::encode(user_data) })
}
