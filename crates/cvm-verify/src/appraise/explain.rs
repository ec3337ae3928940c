//! Why evidence is not what was predicted: each register that differs, the first measurement at
//! which it does, and what most likely made the difference.

use std::{collections::BTreeMap, fmt};

use cvm_base::{Bytes, Bytes32};
use serde::Serialize;

use super::{Appraisal, EvidenceClaims, EvidenceSet};
use crate::{azure::VtpmClaims, files::Form, quote::QuoteClaims, snp::SnpClaims, tdx::TdxClaims};
use cvm_evidence::{
    eventlog::{self, Difference, Log, LoggedEvent, first_difference, likely_cause},
    handoff_digest,
    platform::{AzureReference, AzureTee, SnpReference, TdxReference},
    reference_set::{FirmwareReference, ReferenceSet},
    rtmr::{self, Bytes48},
    tcb::{Shortfall, ShownTcb, TcbFloor},
    tpm::HashAlg,
};

/// One difference between evidence and reference values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The submodule: `tpm0`, `cpu0`.
    pub of: String,
    /// `PCR 11`, `RTMR2`, `MRTD`, `launch digest`, `reported TCB snp`.
    pub register: String,
    /// The first measurement that differs, where a log and the reference name it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// What the reference has there: of the event, else of the register. `None` for an event that
    /// the reference does not have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What the evidence has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub got: Option<String>,
    /// What most likely made the difference.
    pub likely: String,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.of, self.register)?;
        if let Some(event) = &self.event {
            write!(f, ", at \"{event}\"")?;
        }
        write!(f, ": {}; likely: {}", self.sides(), self.likely)
    }
}

impl Explanation {
    /// A difference of a whole register: no log says at which event.
    fn of_register(
        of: &str,
        register: impl Into<String>,
        expected: impl ToString,
        got: Option<String>,
        likely: &str,
    ) -> Self {
        Self {
            of: of.into(),
            register: register.into(),
            event: None,
            expected: Some(expected.to_string()),
            got,
            likely: likely.into(),
        }
    }

    pub(super) fn sides(&self) -> String {
        let side = |side: &Option<String>| side.clone().unwrap_or_else(|| "nothing".into());
        format!("expected {}, got {}", side(&self.expected), side(&self.got))
    }
}

/// Every difference between what was verified and the reference values of its kind.
///
/// Where the reference has several platforms, the one that differs least is compared. Logs in the
/// set name measurements of registers that software extended after the firmware closed its log.
pub fn explain(
    appraisal: &Appraisal,
    set: &EvidenceSet,
    reference: &ReferenceSet,
) -> Vec<Explanation> {
    let mut found = Vec::new();
    for (of, claims) in appraisal.claims() {
        match claims {
            // Reference values are of the SHA-256 bank.
            EvidenceClaims::Tpm(quote) if quote.bank == HashAlg::Sha256 => {
                found.extend(tpm(of, quote, set, reference));
            }
            EvidenceClaims::Snp(claims) => found.extend(launch(of, claims, &reference.snp)),
            EvidenceClaims::Tdx(claims) => found.extend(td(of, claims, &reference.tdx)),
            EvidenceClaims::AzureSnp(claims) => {
                let measured = Paravisor {
                    tee: AzureTee::Snp,
                    measurement: claims.hardware.measurement,
                    tcb: Some(claims.hardware.shown_tcb()),
                    vtpm: &claims.vtpm,
                };
                found.extend(azure(of, &measured, set, &reference.azure));
            }
            EvidenceClaims::AzureTdx(claims) => {
                let measured = Paravisor {
                    tee: AzureTee::Tdx,
                    measurement: claims.hardware.quote.body.mr_td,
                    tcb: None,
                    vtpm: &claims.vtpm,
                };
                found.extend(azure(of, &measured, set, &reference.azure));
            }
            _ => {}
        }
    }
    found
}

/// A TPM's registers, and its firmware where the set names any.
fn tpm(
    of: &str,
    quote: &QuoteClaims,
    set: &EvidenceSet,
    reference: &ReferenceSet,
) -> Vec<Explanation> {
    let mut found = Vec::new();
    if let Some(tpm) = &reference.tpm {
        let predicted =
            tpm.explain.iter().map(|e| (u32::from(e.pcr), e.event.clone(), e.digest)).collect();
        found.extend(pcrs(of, quote, set, &tpm.pcrs, &predicted));
    }
    found.extend(firmware(of, quote, reference));
    found
}

/// PCR 0 and 1, where the set names any.
fn firmware(of: &str, quote: &QuoteClaims, reference: &ReferenceSet) -> Option<Explanation> {
    let expected = reference.firmware.first().filter(|_| !known_firmware(quote, reference))?;
    let quoted = |pcr: u32| quote.pcrs.get(&pcr).map_or_else(|| "null".into(), ToString::to_string);
    Some(Explanation::of_register(
        of,
        "PCR 0 and 1",
        format!("{} and {}", expected.pcr0, expected.pcr1),
        Some(format!("{} and {}", quoted(0), quoted(1))),
        "other firmware or virtual hardware than named, or ACPI tables that the host changed",
    ))
}

/// Whether the set names this PCR 0 and 1: its owner says that they cover the host's ACPI tables.
pub(super) fn known_firmware(quote: &QuoteClaims, reference: &ReferenceSet) -> bool {
    let quoted = |pcr: u32| {
        let digest = quote.pcrs.get(&pcr)?.as_bytes().try_into().ok()?;
        Some(Bytes(digest))
    };
    let found = quoted(0).zip(quoted(1)).map(|(pcr0, pcr1)| FirmwareReference { pcr0, pcr1 });
    found.is_some_and(|found| reference.firmware.contains(&found))
}

/// Register, name and digest of each measurement.
type Measurements = Vec<(u32, String, Bytes32)>;

fn of_register(list: &Measurements, pcr: u8) -> impl Iterator<Item = (&str, Bytes32)> {
    let of_it = list.iter().filter(move |(register, ..)| *register == u32::from(pcr));
    of_it.map(|(_, name, digest)| (name.as_str(), *digest))
}

fn pcrs(
    of: &str,
    quote: &QuoteClaims,
    set: &EvidenceSet,
    reference: &BTreeMap<u8, Bytes32>,
    predicted: &Measurements,
) -> Vec<Explanation> {
    let measured = measured(quote, set);
    let explained = reference.iter().filter_map(|(pcr, expected)| {
        let quoted = quote.pcrs.get(&u32::from(*pcr)).map(|digest| digest.as_bytes());
        let differs = quoted != Some(&expected.0[..]);
        differs.then(|| one_pcr(of, *pcr, expected, quoted, quote, predicted, &measured))
    });
    explained.collect()
}

fn one_pcr(
    of: &str,
    pcr: u8,
    expected: &Bytes32,
    quoted: Option<&[u8]>,
    quote: &QuoteClaims,
    predicted: &Measurements,
    measured: &Measurements,
) -> Explanation {
    let register = format!("PCR {pcr}");
    let whole = |likely: &str| {
        Explanation::of_register(of, &register, expected, quoted.map(hex::encode), likely)
    };
    if quote.pcrs.is_empty() {
        return whole("no register values were given with the quote");
    }
    if quoted.is_none() {
        return whole("the quote does not cover this register");
    }
    if pcr == 11 && quoted == Some(&eventlog::extend(expected, &handoff_digest()).0[..]) {
        return whole("the image has handed off: its system is running");
    }
    let (wanted, seen) = (of_register(predicted, pcr), of_register(measured, pcr));
    let unnamed = [predicted, measured].iter().any(|list| of_register(list, pcr).next().is_none());
    if unnamed {
        return whole(pcr_cause(pcr));
    }
    let Some(difference) = first_difference(wanted, seen) else {
        return whole("software measured something that no log lists");
    };
    let (expected, got) = sides(difference);
    let event = expected.as_ref().or(got.as_ref()).map(|(name, _)| name.clone());
    let likely = event.as_deref().and_then(likely_cause).unwrap_or(pcr_cause(pcr)).into();
    let show = |side: Option<(String, Bytes32)>| {
        side.map(|(name, digest)| format!("\"{name}\" ({digest})"))
    };
    Explanation { of: of.into(), register, event, expected: show(expected), got: show(got), likely }
}

type Side<D> = Option<(String, D)>;

fn sides<D>(difference: Difference<D>) -> (Side<D>, Side<D>) {
    match difference {
        Difference::Other { expected, measured } => (Some(expected), Some(measured)),
        Difference::Missing { expected } => (Some(expected), None),
        Difference::Additional { measured } => (None, Some(measured)),
    }
}

/// The measurements that a log in the set lists; without a log, those that the claims prove.
fn measured(quote: &QuoteClaims, set: &EvidenceSet) -> Measurements {
    let logs: Vec<&[u8]> = set.all(Form::EventLog).collect();
    for log in logs.iter().filter_map(|bytes| Log::parse(bytes, eventlog::Registers::Pcrs).ok()) {
        let measured = log.records().iter().filter_map(|record| {
            let digest = Bytes(record.digest(HashAlg::Sha256)?.try_into().ok()?);
            Some((record.register, LoggedEvent::new(record, HashAlg::Sha256).name(), digest))
        });
        let measured: Measurements = measured.collect();
        if !measured.is_empty() {
            return measured;
        }
    }
    let claimed = |event: &LoggedEvent| {
        let name = event.text.as_ref().or(event.unproven_text.as_ref()).unwrap_or(&event.kind);
        let digest = Bytes(event.digest.as_bytes().try_into().ok()?);
        Some((event.register, name.clone(), digest))
    };
    quote.event_log.iter().flatten().filter_map(claimed).collect()
}

/// What changes a register that no log explains, in an operator's words.
fn pcr_cause(pcr: u8) -> &'static str {
    match pcr {
        0..=3 => "firmware newer or older than the one predicted, or other virtual hardware",
        4 => "another boot loader or UKI than the bundle's, or another boot device before it",
        7 => "other Secure Boot keys or variables than the bundle's, or Secure Boot is off",
        9 | 11 => "another kernel, initramfs or command line: the UKI is not the bundle's",
        12 | 13 => "a credential, an extension or a command line was slipped in beside the UKI",
        _ => "software measured something else than predicted",
    }
}

fn launch(of: &str, claims: &SnpClaims, platforms: &[SnpReference]) -> Vec<Explanation> {
    let measurement = claims.measurement;
    let same = platforms.iter().filter(|platform| platform.measurement == measurement);
    let shown = claims.shown_tcb();
    if let Some(least) =
        same.map(|platform| floor(of, &shown, &platform.tcb_floor)).min_by_key(Vec::len)
    {
        return least;
    }
    let variant = platforms.iter().find_map(|platform| {
        let variant =
            platform.variants.iter().find(|variant| variant.measurement == measurement)?;
        Some((platform, variant.change.as_str()))
    });
    let unknown = "firmware newer or older than the one predicted, or kernel, initrd or command \
        line changed, or two inputs at once: no other input of the prediction alone gives this \
        digest";
    let closest = variant.or(platforms.first().map(|platform| (platform, unknown)));
    let explained = closest.map(|(SnpReference { measurement: expected, .. }, likely)| {
        let got = Some(measurement.to_string());
        Explanation::of_register(of, "launch digest", expected, got, likely)
    });
    explained.into_iter().collect()
}

/// Everything in which a machine is below a platform's floor.
fn floor(of: &str, shown: &ShownTcb, floor: &TcbFloor) -> Vec<Explanation> {
    let explained = floor.shortfalls(shown).into_iter().map(|shortfall| match shortfall {
        Shortfall::Unnamed { chip } => {
            let likely = "the reference values are of an earlier version or of other machines: \
                state a tcb_floor for it";
            let (expected, got) = (format!("one for {chip}"), Some("none".into()));
            Explanation::of_register(of, "TCB floor", expected, got, likely)
        }
        Shortfall::Below { version, component, found, least, .. } => {
            let likely = "the host's SEV firmware or microcode is older than the reference asks";
            let (register, expected) =
                (format!("{version} TCB {component}"), format!("{least} or more"));
            Explanation::of_register(of, register, expected, Some(found.to_string()), likely)
        }
    });
    explained.collect()
}

fn td(of: &str, claims: &TdxClaims, platforms: &[TdxReference]) -> Vec<Explanation> {
    let all = platforms.iter().map(|platform| td_against(of, claims, platform));
    all.min_by_key(Vec::len).unwrap_or_default()
}

fn td_against(of: &str, claims: &TdxClaims, platform: &TdxReference) -> Vec<Explanation> {
    let mut found = Vec::new();
    let mrtd = claims.quote.body.mr_td;
    if mrtd != platform.mrtd {
        let likely = "firmware newer or older than the one predicted, or a host that adds its \
            pages in another order";
        let got = Some(mrtd.to_string());
        found.push(Explanation::of_register(of, "MRTD", platform.mrtd, got, likely));
    }
    let measured = claims.measurements();
    let events = rtmr::explain(&platform.events, &measured);
    let expected = [platform.rtmr0, platform.rtmr1, platform.rtmr2, platform.rtmr3];
    let differing = (0_u8..).zip(expected).zip(claims.rtmrs()).filter(|((_, e), got)| e != got);
    for ((n, expected), got) in differing {
        let register = format!("RTMR{n}");
        let known = platform.events.iter().any(|event| event.rtmr == n) && !measured.is_empty();
        let mismatch = events.iter().find(|mismatch| mismatch.rtmr == n).filter(|_| known);
        let Some(rtmr::RtmrMismatch { expected, found: measured, likely, .. }) = mismatch else {
            let (got, likely) = (Some(got.to_string()), rtmr::register_cause(n));
            found.push(Explanation::of_register(of, register, expected, got, likely));
            continue;
        };
        let show = |event: &Option<rtmr::RtmrEvent>| {
            event.as_ref().map(|event| format!("\"{}\" ({})", event.event, event.digest))
        };
        found.push(Explanation {
            of: of.into(),
            register,
            event: expected.as_ref().or(measured.as_ref()).map(|event| event.event.clone()),
            expected: show(expected),
            got: show(measured),
            likely: likely.clone(),
        });
    }
    found
}

/// What Azure's evidence shows of a machine.
struct Paravisor<'a> {
    tee: AzureTee,
    measurement: Bytes48,
    /// Of SEV-SNP.
    tcb: Option<ShownTcb>,
    vtpm: &'a VtpmClaims,
}

/// The paravisor's measurement and the vTPM's registers.
fn azure(
    of: &str,
    found: &Paravisor<'_>,
    set: &EvidenceSet,
    platforms: &[AzureReference],
) -> Vec<Explanation> {
    let of_kind = platforms.iter().filter(|platform| platform.tee == found.tee);
    let against = of_kind.map(|platform| {
        let mut differences = pcrs(of, &found.vtpm.quote, set, &platform.pcrs, &vec![]);
        if let Some(shown) = &found.tcb {
            differences.extend(floor(of, shown, &platform.tcb_floor));
        }
        if found.measurement != platform.measurement {
            differences.push(Explanation::of_register(
                of,
                "paravisor's measurement",
                platform.measurement,
                Some(found.measurement.to_string()),
                "Azure's paravisor is newer or older than the one in the reference",
            ));
        }
        differences
    });
    against.min_by_key(Vec::len).unwrap_or_default()
}
