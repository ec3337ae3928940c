//! SEV-SNP reports, and their certificates alone.

use super::nonce::{check_nonce_fits, report_data};
use crate::{
    NotChecked,
    appraise::{
        EvidenceClaims, Refusal, SnpCertificateClaims, Terms,
        set::Group,
        submodule::{Submodule, Verified},
        trust::Shared,
    },
    files::Form,
    snp::{self, SigningKey, SnpEvidence, SnpExpected, SnpReport, VerifiedChain},
    x509::Certificate,
};

pub(super) fn report(
    report: &[u8],
    certificates: Vec<Certificate>,
    shared: &Shared,
    terms: &Terms,
) -> Verified {
    let report = SnpReport::parse(report).map_err(|e| Refusal::new("the SNP report", &e))?;
    parsed(report, certificates, shared, terms)
}

pub(super) fn parsed(
    report: SnpReport,
    certificates: Vec<Certificate>,
    shared: &Shared,
    terms: &Terms,
) -> Verified {
    let fail = |e: &_| Refusal::new("the SNP report", e);
    check_nonce_fits(shared)?;
    let report_data = report_data(shared, &report.report_data);
    let expected = SnpExpected { report_data: report_data.as_ref(), host_data: None };
    let evidence = SnpEvidence { report, certificates };
    let roots = shared.snp_roots.as_ref().map_err(Clone::clone)?;
    let claims =
        snp::verify(&evidence, roots, &shared.crls, &expected, terms.now).map_err(|e| fail(&e))?;
    let verdict = terms.rules.snp.check(&claims);
    Ok(Submodule::judged(EvidenceClaims::Snp(Box::new(claims)), verdict))
}

/// A VCEK or VLEK without a report; nothing where there is none among the certificates.
pub(super) fn endorsement(
    group: &Group,
    shared: &Shared,
    now: u64,
) -> Result<Option<Submodule>, Refusal> {
    let all = certificates(group, shared)?;
    let of = |kind: &str| all.iter().any(|certificate| certificate.subject().contains(kind));
    let kind = match () {
        () if of("SEV-VCEK") => SigningKey::Vcek,
        () if of("SEV-VLEK") => SigningKey::Vlek,
        () => return Ok(None),
    };
    let roots = shared.snp_roots.as_ref().map_err(Clone::clone)?;
    let verified = VerifiedChain::verify(&all, kind, roots, &shared.crls, now);
    let verified = verified.map_err(|e| Refusal::new("the certificates", &e))?;
    let unattested = "certificates alone were given: nothing was attested";
    let claims = EvidenceClaims::SnpCertificates(SnpCertificateClaims {
        signing_key: verified.signing_key(),
        not_checked: vec![NotChecked::new("report", unattested)],
    });
    Ok(Some(claims.into()))
}

/// AMD's certificates that may vouch for the group's reports.
pub(super) fn certificates(group: &Group, shared: &Shared) -> Result<Vec<Certificate>, Refusal> {
    let mut found = Vec::new();
    for (name, bytes) in group.all(Form::Certificates) {
        found.extend(Certificate::read_all(bytes).map_err(|e| Refusal::new(name, &e))?);
    }
    let own: Vec<_> = found.iter().map(|c| c.der().to_vec()).collect();
    found.extend(
        shared.certificates.iter().filter(|c| !own.iter().any(|der| der == c.der())).cloned(),
    );
    // Other vendors' chains may lie beside it.
    found.retain(|c| c.subject().contains("Advanced Micro Devices"));
    Ok(found)
}
