//! The checks of a report, in their order.

use std::borrow::Cow;

use aws_lc_rs::constant_time::verify_slices_are_equal;

use super::{
    Endorsement, Product, SigningKey, SnpClaims, SnpError, SnpEvidence, SnpReport, SnpRoots, Tcb,
    VerifiedChain,
};
use crate::{NotChecked, acpi, x509::Certificate};

/// What the report must be bound to. `None` is not compared, and the claims say so.
#[derive(Debug, Clone, Copy, Default)]
pub struct SnpExpected<'a> {
    /// REPORT_DATA.
    pub report_data: Option<&'a [u8; 64]>,
    /// HOST_DATA.
    pub host_data: Option<&'a [u8; 32]>,
}

/// Verifies one report with its certificates at `now` (seconds since 1970 UTC).
///
/// `crls` are DER revocation lists. Claims say what is true, not whether it is acceptable: compare
/// them with a [`SnpPolicy`] and reference values.
///
/// # Errors
/// [`SnpError`], for the first check that fails.
pub fn verify(
    evidence: &SnpEvidence,
    roots: &SnpRoots,
    crls: &[Vec<u8>],
    expected: &SnpExpected<'_>,
    now: u64,
) -> Result<SnpClaims, SnpError> {
    let SnpEvidence { report, certificates } = evidence;
    let certificates = endorsing(report, certificates)?;
    VerifiedChain::verify(&certificates, report.signing_key, roots, crls, now)?
        .check(report, expected, now)
}

/// The certificates without other chips' VCEKs: a cache or a folder holds a whole fleet's. Which
/// one is meant is not left to their order, and the one that stays must still verify.
fn endorsing<'a>(
    report: &SnpReport,
    certificates: &'a [Certificate],
) -> Result<Cow<'a, [Certificate]>, SnpError> {
    let is_vcek =
        |certificate: &&Certificate| Endorsement::kind(certificate) == Some(SigningKey::Vcek);
    let first = certificates.iter().find(is_vcek).map(Certificate::der);
    if certificates.iter().filter(is_vcek).all(|vcek| Some(vcek.der()) == first) {
        return Ok(Cow::Borrowed(certificates));
    }
    let vcek = |certificate: &Certificate| Endorsement::read(certificate, SigningKey::Vcek).ok();
    let is_of_the_chip = |certificate: &Certificate| {
        let of = |chip: &[u8]| report.chip_id == [0; 64] || report.chip_id.starts_with(chip);
        vcek(certificate).is_some_and(|vcek| of(vcek.hw_id.as_deref().unwrap_or_default()))
    };
    let is_its_own = |certificate: &Certificate| {
        let of = |vcek: Endorsement| Tcb::from_bytes(report.reported_tcb, vcek.product) == vcek.tcb;
        is_of_the_chip(certificate) && vcek(certificate).is_some_and(of)
    };
    let (mut own, mut others): (Vec<_>, Vec<_>) =
        certificates.iter().filter(is_vcek).partition(|vcek| is_its_own(vcek));
    // The chip's own for another TCB says what is wrong; other chips' do not.
    if own.is_empty()
        && report.chip_id != [0; 64]
        && let Some(at) = others.iter().position(|vcek| is_of_the_chip(vcek))
    {
        own.push(others.remove(at));
    }
    if own.is_empty() {
        let problem = format!(
            "none of the {} VCEKs is of chip {} with the TCB that the report states",
            others.len(),
            start(&report.chip_id)
        );
        return Err(SnpError::certificates(problem));
    }
    Ok(certificates
        .iter()
        .filter(|c| !others.iter().any(|other| other.der() == c.der()))
        .cloned()
        .collect())
}

impl VerifiedChain {
    /// Verifies a report against this chain at `now`.
    ///
    /// # Errors
    /// [`SnpError`], for the first check that fails.
    pub fn check(
        &self,
        report: &SnpReport,
        expected: &SnpExpected<'_>,
        now: u64,
    ) -> Result<SnpClaims, SnpError> {
        let endorsement = &self.endorsement;
        let kind = endorsement.kind;
        self.check_dates(now)?;
        if report.signing_key != kind {
            return Err(SnpError::KeyKind { report: report.signing_key, certificate: kind });
        }
        let product = self.product(report)?;
        let reported = Tcb::from_bytes(report.reported_tcb, product);
        // The chip first: another one's certificate is of another TCB too, and that is not why.
        let chip = self.check_chip(report, product)?;
        for ((component, report), (_, certificate)) in
            reported.components().into_iter().zip(endorsement.tcb.components())
        {
            // Not "at least": a key is derived from exactly one TCB.
            if report != certificate {
                return Err(SnpError::Tcb { component, report, certificate });
            }
        }
        let mut not_checked: Vec<_> = self.revocation.iter().cloned().collect();
        not_checked.extend(chip);
        self.key
            .verify_sig(report.signed(), &report.signature)
            .map_err(|_| SnpError::Signature { key: kind })?;
        let report_data = expected.report_data.map(<[u8; 64]>::as_slice);
        let host_data = expected.host_data.map(<[u8; 32]>::as_slice);
        not_checked.extend(compare(
            "REPORT_DATA",
            "report-data",
            &report.report_data,
            report_data,
        )?);
        not_checked.extend(compare("HOST_DATA", "host-data", &report.host_data, host_data)?);
        not_checked.push(acpi::beside_a_launch_digest());
        Ok(SnpClaims::new(report, self, product, reported, not_checked))
    }

    /// The report's word where it has one: AMD issued certificates with a wrong stepping, and CPUID
    /// knows Zen 4c.
    fn product(&self, report: &SnpReport) -> Result<Product, SnpError> {
        let certified = self.endorsement.product;
        match report.product()? {
            None => Ok(certified),
            Some(product) if product.line() == certified.line() => Ok(product),
            Some(product) => Err(SnpError::product(format!(
                "the report is of a {product}, but its certificate of a {}",
                self.endorsement.product_name
            ))),
        }
    }

    fn check_chip(
        &self,
        report: &SnpReport,
        product: Product,
    ) -> Result<Option<NotChecked>, SnpError> {
        // A VLEK is its cloud's, not a chip's.
        let Some(certified) = &self.endorsement.hw_id else { return Ok(None) };
        if report.chip_id == [0; 64] {
            return Ok(Some(NotChecked::new(
                "chip-id",
                "the host masks the chip id in its reports",
            )));
        }
        match report.chip_id.split_at_checked(product.chip_id_bytes()) {
            Some((id, rest)) if id == certified && rest.iter().all(|byte| *byte == 0) => Ok(None),
            _ => Err(SnpError::ChipId {
                report: start(&report.chip_id),
                certificate: start(certified),
            }),
        }
    }
}

fn compare(
    field: &'static str,
    check: &str,
    found: &[u8],
    expected: Option<&[u8]>,
) -> Result<Option<NotChecked>, SnpError> {
    let Some(expected) = expected else {
        return Ok(Some(NotChecked::new(check, &format!("no expected {field} was given"))));
    };
    match verify_slices_are_equal(found, expected) {
        Ok(()) => Ok(None),
        Err(_) => Err(SnpError::Binding {
            field,
            expected: hex::encode(expected),
            found: hex::encode(found),
        }),
    }
}

/// Enough of a chip id to recognise it.
fn start(id: &[u8]) -> String {
    format!("{}…", hex::encode(id.get(..8).unwrap_or(id)))
}
