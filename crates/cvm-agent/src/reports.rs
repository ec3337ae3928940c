//! Bare SEV-SNP reports, for NVFLARE's own SNP authorizer: 64 bytes that somebody else chose,
//! signed by the chip.
//!
//! The danger is that such a report is taken for something else. All evidence of this system ends
//! in 16 zero bytes of report data: the tokens of [`cvm_peer::token`], the bindings of the release
//! protocol (`cvm_evidence::trustee::report_data`), and what Azure's paravisor binds. Report data
//! that end so are refused here; NVFLARE's are 64 random bytes. So nobody who may ask this socket
//! gets a token signed that this agent did not make, nor a key holder's answer. And it is asked
//! only where the image's own `agent.yaml`, which is measured, says so.
//!
//! Such a report shows a genuine guest without debug mode on a genuine chip, whose firmware is one
//! that this machine's own image may run on, not which image runs in it: NVFLARE's authorizer looks
//! at no measurement. [`cvm_peer::verify`] does.

use cvm_base::Explain;
use cvm_collect::{CertificateKind, Raw, SnpCertificate, certificate_table};
use cvm_evidence::wire::Base64;
use cvm_verify::{
    NotChecked,
    snp::{ShownTcb, SnpError, SnpEvidence, SnpPolicy, SnpReport},
    x509::Certificate,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{agent::Agent, config::SnpReports};
use cvm_peer::error::AgentRefusal;

/// What follows the digests in this system's own evidence.
const OWN: [u8; 16] = [0; 16];
/// Certificates beside a report: VCEK or VLEK, and those above.
const MAX_CERTIFICATES: usize = 8;

impl Agent {
    fn allows_bare_reports(&self) -> Result<SnpReports, AgentRefusal> {
        self.own.config.snp_reports.ok_or(AgentRefusal::NoBareReports)
    }

    /// The chip's report over `report_data`, and a table of the certificates that the host gave for
    /// its key.
    pub(crate) fn bare_report(&self, report_data: &[u8; 64]) -> Result<Value, AgentRefusal> {
        let form = self.allows_bare_reports()?;
        if report_data.ends_with(&OWN) {
            return Err(AgentRefusal::Reserved);
        }
        let raw = (self.device)().and_then(|mut device| device.evidence(report_data));
        let raw =
            raw.map_err(|e| AgentRefusal::NoEvidence { problem: format!("{}: {e}", e.code()) })?;
        let Raw::Snp { report, certificates } = raw else {
            return Err(AgentRefusal::NoEvidence {
                problem: "this machine is not an SEV-SNP guest".into(),
            });
        };
        let endorses =
            |c: &SnpCertificate| matches!(c.kind, CertificateKind::Vcek | CertificateKind::Vlek);
        let endorsing: Vec<_> = certificates.into_iter().filter(endorses).collect();
        let table = match form {
            SnpReports::WithCertificates if !endorsing.is_empty() => certificate_table(&endorsing),
            _ => Vec::new(),
        };
        Ok(json!({ "report": Base64(report), "certificates": Base64(table) }))
    }

    /// Whether a report is a genuine guest's; `endorsement` is the certificate that vouches for it,
    /// given or at hand.
    pub(crate) fn verify_bare_report(
        &self,
        report: &[u8],
        certificates: &[Base64],
    ) -> Result<Value, AgentRefusal> {
        self.allows_bare_reports()?;
        if certificates.len() > MAX_CERTIFICATES {
            return Err(AgentRefusal::malformed(format!(
                "more than {MAX_CERTIFICATES} certificates"
            )));
        }
        let report = SnpReport::parse(report).map_err(|e| AgentRefusal::evidence(&e))?;
        let certificates: Result<Vec<_>, _> =
            certificates.iter().map(|c| Certificate::read_all(&c.0)).collect();
        let certificates = certificates.map_err(|e| AgentRefusal::evidence(&e))?.concat();
        let evidence = SnpEvidence { report, certificates };
        let vendors = self.own.trust.vendors()?;
        let (mut claims, endorsement) = vendors
            .verify_report(evidence, &SnpPolicy::default(), (self.clock)())
            .map_err(|e| AgentRefusal::evidence(&e))?;
        self.judge_tcb(&mut claims.claims)?;
        Ok(json!({ "verified": true, "claims": claims.claims, "endorsement": Base64(endorsement) }))
    }

    /// A bare report says nothing of an image, so the floors of this machine's own image count.
    fn judge_tcb(&self, claims: &mut Value) -> Result<(), AgentRefusal> {
        let shown = ShownTcb::deserialize(&*claims).map_err(AgentRefusal::malformed)?;
        let floors = self.own.image.reference.snp.iter().map(|platform| &platform.tcb_floor);
        match floors.map(|floor| floor.check(&shown)).reduce(Result::or) {
            Some(judged) => {
                judged.map_err(|shortfall| AgentRefusal::evidence(&SnpError::from(shortfall)))
            }
            None => {
                let reason =
                    "this image has no reference values for SEV-SNP that would state a floor";
                if let Some(list) = claims["not_checked"].as_array_mut() {
                    list.push(json!(NotChecked::new("tcb-floor", reason)));
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cvm_evidence::trustee::report_data;

    use super::*;

    #[test]
    fn this_systems_own_evidence_ends_as_bare_reports_may_not() {
        for digest in [[0; 48], [0xff; 48]] {
            assert!(report_data(&digest).ends_with(&OWN));
        }
    }
}
