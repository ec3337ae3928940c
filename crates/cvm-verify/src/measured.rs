//! Whether a TEE's claims show an image, and in which phase of its life.

use std::collections::BTreeMap;

use cvm_base::{Bytes, Bytes32};
use serde::Deserialize;
use serde_json::Value;

use crate::Phase;
use cvm_evidence::{
    JOBS_PCR, Reference, UNTOUCHED,
    eventlog::extend,
    handoff_digest,
    platform::{AzureReference, AzureTee, SnpReference, TdxReference},
    rtmr::{self, Bytes48},
    tcb::{Shortfall, ShownTcb, TcbFloor},
    td_handoff_digest, td_jobs_digest,
};

/// Compares `annotated`, the content of `ear.veraison.annotated-evidence`, with the image's
/// reference values: the phase, and for [`Phase::Other`] what differs. `None` where the kind of
/// `annotated` is not known here.
///
/// SEV-SNP has no register that a running guest could extend: its claims show the image, and never
/// that it has handed off. Whoever releases to a guest must remember which one (REPORT_ID) it was.
pub fn phase(annotated: &Value, reference: &Reference) -> Option<(Phase, String)> {
    let claims = |kind: &str| annotated.get(kind);
    let compared = if let Some(claims) = claims("snp") {
        snp(claims, &reference.snp)
    } else if let Some(claims) = claims("tdx") {
        tdx(claims, &reference.tdx)
    } else if let Some(claims) = claims("az-snp-vtpm") {
        azure(AzureTee::Snp, claims.get("measurement"), claims, &reference.azure)
    } else {
        let claims = claims("az-tdx-vtpm")?;
        azure(AzureTee::Tdx, claims.pointer("/quote/body/mr_td"), claims, &reference.azure)
    };
    Some(compared.unwrap_or_else(|problem| (Phase::Other, problem)))
}

type Compared = Result<(Phase, String), String>;

fn boot() -> Compared {
    Ok((Phase::Boot, String::new()))
}

#[derive(Deserialize)]
struct SnpMeasured {
    measurement: Bytes48,
    #[serde(flatten)]
    tcb: ShownTcb,
}

fn snp(claims: &Value, platforms: &[SnpReference]) -> Compared {
    let found = SnpMeasured::deserialize(claims).map_err(|e| format!("snp claims: {e}"))?;
    let mut old = None;
    for platform in platforms.iter().filter(|platform| platform.measurement == found.measurement) {
        match patched("snp", &found.tcb, &platform.tcb_floor) {
            Ok(()) => return boot(),
            Err(problem) => old = Some(problem),
        }
    }
    let expected = platforms.iter().map(|p| format!("{} ({})", p.measurement, p.platform));
    Err(old.unwrap_or_else(|| {
        format!("snp: the launch digest is {}, expected {}", found.measurement, one_of(expected))
    }))
}

/// Whether the machine meets a platform's floor. Reference values of earlier versions state none,
/// or one without a product.
fn patched(kind: &str, shown: &ShownTcb, floor: &TcbFloor) -> Result<(), String> {
    floor.check(shown).map_err(|shortfall| match shortfall {
        Shortfall::Below { .. } => format!("{kind}: {shortfall}"),
        Shortfall::Unnamed { chip } => format!(
            "{kind}: {shortfall} in the image's reference values: provision it with a tcb_floor \
             for {chip} (docs/tcb.md), and enrol what the builder then signs"
        ),
    })
}

#[derive(Deserialize)]
struct TdxMeasured {
    quote: TdxQuote,
}

#[derive(Deserialize)]
struct TdxQuote {
    body: TdxBody,
}

#[derive(Deserialize)]
struct TdxBody {
    mr_td: Bytes48,
    rtmr_0: Bytes48,
    rtmr_1: Bytes48,
    rtmr_2: Bytes48,
    rtmr_3: Bytes48,
}

fn tdx(claims: &Value, platforms: &[TdxReference]) -> Compared {
    let TdxMeasured { quote: TdxQuote { body: found } } =
        TdxMeasured::deserialize(claims).map_err(|e| format!("tdx claims: {e}"))?;
    let mut differs = None;
    for platform in platforms {
        let registers = [
            ("MRTD", found.mr_td, platform.mrtd),
            ("RTMR0", found.rtmr_0, platform.rtmr0),
            ("RTMR1", found.rtmr_1, platform.rtmr1),
            ("RTMR2", found.rtmr_2, platform.rtmr2),
        ];
        match registers.into_iter().find(|(_, found, expected)| found != expected) {
            Some((name, found, expected)) => {
                differs = Some(format!(
                    "tdx ({}): {name} is {found}, expected {expected}",
                    platform.platform
                ));
            }
            None if found.rtmr_3 == platform.rtmr3 => return boot(),
            None if found.rtmr_3 == rtmr::extend(&platform.rtmr3, &td_handoff_digest()) => {
                return Ok((Phase::AfterHandoff, String::new()));
            }
            None if found.rtmr_3 == jobs_opened(&platform.rtmr3) => {
                return Ok((Phase::JobsOpened, String::new()));
            }
            None => {
                let expected = platform.rtmr3;
                differs = Some(format!(
                    "tdx ({}): RTMR3 is {}, expected {expected}",
                    platform.platform, found.rtmr_3
                ));
            }
        }
    }
    Err(differs.unwrap_or_else(|| {
        "tdx: the image has no reference values for this kind of evidence".into()
    }))
}

fn jobs_opened(rtmr3: &Bytes48) -> Bytes48 {
    rtmr::extend(&rtmr::extend(rtmr3, &td_handoff_digest()), &td_jobs_digest())
}

fn azure(
    tee: AzureTee,
    measurement: Option<&Value>,
    claims: &Value,
    platforms: &[AzureReference],
) -> Compared {
    let measurement: Bytes<48> = measurement
        .and_then(|value| Bytes48::deserialize(value).ok())
        .ok_or_else(|| "azure claims without the paravisor's measurement".to_owned())?;
    let of_the_kind = || platforms.iter().filter(|platform| platform.tee == tee);
    let quoted = |pcr: u8| {
        let value = claims.pointer(&format!("/tpm/pcr{pcr:02}"))?;
        Bytes32::deserialize(value).ok()
    };
    let mut differs = None;
    for platform in of_the_kind().filter(|platform| platform.measurement == measurement) {
        let patched = match tee {
            AzureTee::Snp => ShownTcb::deserialize(claims)
                .map_err(|e| format!("snp claims: {e}"))
                .and_then(|shown| patched("az-snp-vtpm", &shown, &platform.tcb_floor)),
            AzureTee::Tdx => Ok(()),
        };
        match patched.and_then(|()| registers(&platform.pcrs, quoted)) {
            Ok(phase) => return Ok((phase, String::new())),
            Err(problem) => differs = Some(format!("azure ({}): {problem}", platform.platform)),
        }
    }
    let expected = of_the_kind().map(|p| format!("{} ({})", p.measurement, p.platform));
    Err(differs.unwrap_or_else(|| {
        format!(
            "azure: the paravisor's measurement is {measurement}, expected {}",
            one_of(expected)
        )
    }))
}

/// The paravisor's vTPM measures as every TPM does: PCR 11 shows the handoff, PCR 15 that p5 is
/// open.
fn registers(
    expected: &BTreeMap<u8, Bytes32>,
    quoted: impl Fn(u8) -> Option<Bytes32>,
) -> Result<Phase, String> {
    // Without the phase's own register nothing says that this is still the boot.
    let phase = expected.get(&11).ok_or("the reference values name no PCR 11")?;
    for (pcr, value) in expected.iter().filter(|(pcr, _)| **pcr != 11) {
        let found = quoted(*pcr);
        if found != Some(*value) {
            let found = found.map_or("absent".into(), |found| found.to_string());
            return Err(format!("PCR {pcr} is {found}, expected {value}"));
        }
    }
    match quoted(11) {
        Some(found) if found == *phase => Ok(Phase::Boot),
        Some(found) if found == extend(phase, &handoff_digest()) => match quoted(JOBS_PCR) {
            Some(UNTOUCHED) => Ok(Phase::AfterHandoff),
            Some(_) => Ok(Phase::JobsOpened),
            None => Err(format!(
                "PCR {JOBS_PCR}, which shows whether the job store was opened, is not quoted"
            )),
        },
        found => Err(format!(
            "PCR 11 is {}, expected {phase}",
            found.map_or("absent".into(), |f| f.to_string())
        )),
    }
}

fn one_of(values: impl Iterator<Item = String>) -> String {
    let values: Vec<_> = values.collect();
    if values.is_empty() {
        "nothing: the image has no reference values for this kind".into()
    } else {
        values.join(" or ")
    }
}

#[cfg(test)]
mod tests;
