//! Why evidence is not what was predicted: each register that differs, the first measurement at
//! which it does, and what most likely made the difference.

use std::fmt;

use cvm_base::{Bytes, Bytes32};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Appraisal, EvidenceSet, Refusal};
use crate::{NotChecked, acpi, files::Form, snp::SnpPolicy, tdx::TdxClaims};
use cvm_evidence::{
    eventlog::{self, Difference, Log, LoggedEvent, first_difference, likely_cause},
    handoff_digest,
    platform::{SnpReference, TdxReference},
    reference_set::{FirmwareReference, ReferenceSet},
    rtmr,
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
    /// What the reference has there: of the event, else of the register. Nothing for one more than
    /// expected.
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
    fn sides(&self) -> String {
        let none = "nothing";
        let (expected, got) =
            (self.expected.as_deref().unwrap_or(none), self.got.as_deref().unwrap_or(none));
        format!("expected {expected}, got {got}")
    }
}

/// Every difference between what was verified and the reference values of its kind.
///
/// Of several platforms in the reference, the one that differs least is compared with. Logs in the
/// set name measurements of registers that software extended after the firmware closed its log.
pub fn explain(
    appraisal: &Appraisal,
    set: &EvidenceSet,
    reference: &ReferenceSet,
) -> Vec<Explanation> {
    let mut found = Vec::new();
    for (of, kind, claims) in appraisal.claims() {
        match kind {
            // Reference values are of the SHA-256 bank.
            "tpm" if claims["bank"] == HashAlg::Sha256.name() => {
                found.extend(reference.tpm.iter().flat_map(|tpm| {
                    let expected =
                        tpm.explain.iter().map(|e| (u32::from(e.pcr), e.event.clone(), e.digest));
                    pcrs(of, claims, set, &tpm.pcrs, &expected.collect::<Vec<_>>())
                }));
                found.extend(firmware(of, claims, reference));
            }
            "snp" => found.extend(launch(of, claims, &reference.snp)),
            "tdx" => found.extend(td(of, claims, &reference.tdx)),
            "az-snp-vtpm" | "az-tdx-vtpm" => found.extend(azure(of, kind, claims, set, reference)),
            _ => {}
        }
    }
    found
}

/// Refuses every difference that was explained; evidence of a kind that the reference values do not
/// know was not compared, and its claims say so. For those who have no policy that does it.
pub fn compare(appraisal: &mut Appraisal, explained: &[Explanation], reference: &ReferenceSet) {
    for difference in explained {
        let Explanation { of, register, likely, .. } = difference;
        let reason =
            format!("{register} is not what the reference values say: {}", difference.sides());
        let help =
            format!("most likely: {likely}; a policy of your own (--policy) may decide otherwise");
        appraisal.refusals.push(Refusal::policy(of, "ATT-397", reason, &help));
    }
    for (kind, claims) in appraisal.claims_mut() {
        if covers_acpi(reference, kind, claims) {
            acpi::compared(claims);
        }
        if !knows(reference, kind, claims)
            && let Some(members) = claims.as_object_mut()
            && let Value::Array(list) = members.entry("not_checked").or_insert_with(|| json!([]))
        {
            let reason = "the reference values have none of this kind of evidence";
            list.push(json!(NotChecked::new("reference-values", reason)));
        }
    }
}

/// Notes the TCB of SEV-SNP as not checked where neither `rules` nor the reference values that were
/// compared state a floor. Of Intel's platforms, rules judge a status; of AMD's there are only
/// numbers.
pub fn note_unjudged_tcb(
    appraisal: &mut Appraisal,
    rules: &SnpPolicy,
    compared: Option<&ReferenceSet>,
) {
    if !rules.min_tcb.is_empty() {
        return;
    }
    for (kind, claims) in appraisal.claims_mut() {
        let judged = compared.is_some_and(|reference| knows(reference, kind, claims));
        if matches!(kind, "snp" | "az-snp-vtpm")
            && !judged
            && let Some(Value::Array(list)) = claims.get_mut("not_checked")
        {
            let reason = "no floor was given: firmware with known holes passes (docs/tcb.md)";
            list.push(json!(NotChecked::new("tcb-floor", reason)));
        }
    }
}

/// Whether there is something to compare with.
fn knows(reference: &ReferenceSet, kind: &str, claims: &Value) -> bool {
    match kind {
        "tpm" => reference.tpm.is_some() && claims["bank"] == HashAlg::Sha256.name(),
        "snp" => !reference.snp.is_empty(),
        "tdx" => !reference.tdx.is_empty(),
        "az-snp-vtpm" | "az-tdx-vtpm" => {
            reference.azure.iter().any(|platform| kind.contains(platform.tee.as_str()))
        }
        _ => false,
    }
}

/// Whether a register that covers the host's ACPI tables is as the reference values say.
fn covers_acpi(reference: &ReferenceSet, kind: &str, claims: &Value) -> bool {
    let has =
        |at: &str, expected: String| claims.pointer(at).and_then(Value::as_str) == Some(&expected);
    match kind {
        "tdx" => reference.tdx.iter().any(|platform| {
            has("/quote/body/mr_td", platform.mrtd.to_string())
                && has("/quote/body/rtmr_0", platform.rtmr0.to_string())
        }),
        "tpm" => known_firmware(claims, reference),
        _ => false,
    }
}

/// Whether the set names this PCR 0 and 1: its owner says that they cover the host's ACPI tables.
fn known_firmware(claims: &Value, reference: &ReferenceSet) -> bool {
    let quoted = |pcr: &str| claims["pcrs"][pcr].as_str().and_then(|value| value.parse().ok());
    let found = quoted("0").zip(quoted("1")).map(|(pcr0, pcr1)| FirmwareReference { pcr0, pcr1 });
    found.is_some_and(|found| reference.firmware.contains(&found))
}

/// PCR 0 and 1, where the set names any.
fn firmware(of: &str, claims: &Value, reference: &ReferenceSet) -> Option<Explanation> {
    let expected = reference.firmware.first().filter(|_| !known_firmware(claims, reference))?;
    Some(Explanation {
        of: of.into(),
        register: "PCR 0 and 1".into(),
        event: None,
        expected: Some(format!("{} and {}", expected.pcr0, expected.pcr1)),
        got: Some(format!("{} and {}", claims["pcrs"]["0"], claims["pcrs"]["1"]).replace('"', "")),
        likely:
            "other firmware or virtual hardware than named, or ACPI tables that the host changed"
                .into(),
    })
}

type Measurements = Vec<(u32, String, Bytes32)>;

fn pcrs(
    of: &str,
    claims: &Value,
    set: &EvidenceSet,
    reference: &std::collections::BTreeMap<u8, Bytes32>,
    predicted: &[(u32, String, Bytes32)],
) -> Vec<Explanation> {
    let measured = measured(claims, set);
    let of_register = |list: &[(u32, String, Bytes32)], pcr: u8| {
        list.iter()
            .filter(|(n, ..)| *n == u32::from(pcr))
            .map(|(_, n, d)| (n.clone(), *d))
            .collect::<Vec<_>>()
    };
    let mut found = Vec::new();
    for (pcr, expected) in reference {
        let quoted = claims["pcrs"][pcr.to_string()].as_str();
        if quoted == Some(&expected.to_string()) {
            continue;
        }
        let explanation =
            |event: Option<String>, expected: Option<String>, got: Option<String>, likely: &str| {
                let register = format!("PCR {pcr}");
                Explanation { of: of.into(), register, event, expected, got, likely: likely.into() }
            };
        let whole = |likely: &str| {
            explanation(None, Some(expected.to_string()), quoted.map(Into::into), likely)
        };
        let (wanted, seen) = (of_register(predicted, *pcr), of_register(&measured, *pcr));
        let after = eventlog::extend(expected, &handoff_digest()).to_string();
        found.push(match difference(&wanted, &seen) {
            _ if claims["pcrs"].as_object().is_none_or(serde_json::Map::is_empty) => {
                whole("no register values were given with the quote")
            }
            _ if quoted.is_none() => whole("the quote does not cover this register"),
            _ if *pcr == 11 && quoted == Some(&after) => {
                whole("the image has handed off: its system is running")
            }
            _ if wanted.is_empty() || seen.is_empty() => whole(pcr_cause(*pcr)),
            None => whole("software measured something that no log lists"),
            Some(difference) => {
                let (expected, got) = sides(difference);
                let name = expected.as_ref().or(got.as_ref()).map(|(name, _)| name.clone());
                let likely = name.as_deref().and_then(likely_cause).unwrap_or(pcr_cause(*pcr));
                let show = |side: Option<(String, Bytes32)>| {
                    side.map(|(name, digest)| format!("\"{name}\" ({digest})"))
                };
                explanation(name, show(expected), show(got), likely)
            }
        });
    }
    found
}

fn difference(
    expected: &[(String, Bytes32)],
    measured: &[(String, Bytes32)],
) -> Option<Difference<Bytes32>> {
    let pairs = |list: &'_ [(String, Bytes32)]| {
        list.iter().map(|(n, d)| (n.clone(), *d)).collect::<Vec<_>>()
    };
    let (expected, measured) = (pairs(expected), pairs(measured));
    first_difference(
        expected.iter().map(|(n, d)| (n.as_str(), *d)),
        measured.iter().map(|(n, d)| (n.as_str(), *d)),
    )
}

type Side<D> = Option<(String, D)>;

fn sides<D>(difference: Difference<D>) -> (Side<D>, Side<D>) {
    match difference {
        Difference::Other { expected, measured } => (Some(expected), Some(measured)),
        Difference::Missing { expected } => (Some(expected), None),
        Difference::Additional { measured } => (None, Some(measured)),
    }
}

/// The log's measurements: those that the claims prove, else as the logs in the set list them.
fn measured(claims: &Value, set: &EvidenceSet) -> Measurements {
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
    let events =
        claims.get("event_log").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let event = |event: &Value| {
        let register = event["register"].as_u64().or(event["pcr"].as_u64())?;
        let name = ["text", "event", "unproven_text", "type"]
            .iter()
            .find_map(|member| event[*member].as_str())?;
        Some((
            u32::try_from(register).ok()?,
            name.to_owned(),
            event["digest"].as_str()?.parse().ok()?,
        ))
    };
    events.iter().filter_map(event).collect()
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

fn launch(of: &str, claims: &Value, platforms: &[SnpReference]) -> Vec<Explanation> {
    let Some(measurement) = claims["measurement"].as_str() else { return vec![] };
    let explanation =
        |register: String, expected: String, got: String, likely: String| Explanation {
            of: of.into(),
            register,
            event: None,
            expected: Some(expected),
            got: Some(got),
            likely,
        };
    let same = platforms.iter().filter(|platform| platform.measurement.to_string() == measurement);
    if let Some(least) =
        same.map(|platform| floor(of, claims, &platform.tcb_floor)).min_by_key(Vec::len)
    {
        return least;
    }
    let variant = platforms.iter().find_map(|platform| {
        let variant = platform
            .variants
            .iter()
            .find(|variant| variant.measurement.to_string() == measurement)?;
        Some((platform, variant.change.clone()))
    });
    let unknown = "firmware newer or older than the one predicted, or kernel, initrd or command line changed, or two \
                   inputs at once: no other input of the prediction alone gives this digest";
    let Some((platform, likely)) =
        variant.or(platforms.first().map(|platform| (platform, unknown.into())))
    else {
        return vec![];
    };
    vec![explanation(
        "launch digest".into(),
        platform.measurement.to_string(),
        measurement.into(),
        likely,
    )]
}

/// Everything in which a machine is below a platform's floor.
fn floor(of: &str, claims: &Value, floor: &TcbFloor) -> Vec<Explanation> {
    let explanation = |register: String, expected: String, got: String, likely: &str| Explanation {
        of: of.into(),
        register,
        event: None,
        expected: Some(expected),
        got: Some(got),
        likely: likely.into(),
    };
    let Ok(shown) = ShownTcb::deserialize(claims) else {
        let likely = "claims of another verifier, which does not state them";
        return vec![explanation(
            "TCB".into(),
            "product, reported and launch TCB".into(),
            "not all".into(),
            likely,
        )];
    };
    let explained = floor.shortfalls(&shown).into_iter().map(|shortfall| match shortfall {
        Shortfall::Unnamed { chip } => {
            let likely =
                "the reference values are of an earlier version or of other machines: state a \
                 tcb_floor for it";
            explanation("TCB floor".into(), format!("one for {chip}"), "none".into(), likely)
        }
        Shortfall::Below { version, component, found, least, .. } => {
            let likely = "the host's SEV firmware or microcode is older than the reference asks";
            explanation(format!("{version} TCB {component}"), format!("{least} or more"), found.to_string(), likely)
        }
    });
    explained.collect()
}

fn td(of: &str, claims: &Value, platforms: &[TdxReference]) -> Vec<Explanation> {
    let Ok(claims) = serde_json::from_value::<TdxClaims>(claims.clone()) else { return vec![] };
    let all = platforms.iter().map(|platform| td_against(of, &claims, platform));
    all.min_by_key(Vec::len).unwrap_or_default()
}

fn td_against(of: &str, claims: &TdxClaims, platform: &TdxReference) -> Vec<Explanation> {
    let explanation =
        |register: String, event, expected: Option<String>, got: Option<String>, likely: &str| {
            Explanation { of: of.into(), register, event, expected, got, likely: likely.into() }
        };
    let mut found = Vec::new();
    let mrtd = claims.quote.body.mr_td;
    if mrtd != platform.mrtd {
        let likely = "firmware newer or older than the one predicted, or a host that adds its pages in another order";
        let (expected, got) = (Some(platform.mrtd.to_string()), Some(mrtd.to_string()));
        found.push(explanation("MRTD".into(), None, expected, got, likely));
    }
    let measured = claims.measurements();
    let events = rtmr::explain(&platform.events, &measured);
    let expected = [platform.rtmr0, platform.rtmr1, platform.rtmr2, platform.rtmr3];
    for ((n, expected), got) in
        (0_u8..).zip(expected).zip(claims.rtmrs()).filter(|((_, e), g)| e != g)
    {
        let register = format!("RTMR{n}");
        let known = platform.events.iter().any(|event| event.rtmr == n) && !measured.is_empty();
        let mismatch = events.iter().find(|mismatch| mismatch.rtmr == n).filter(|_| known);
        found.push(match mismatch {
            Some(rtmr::RtmrMismatch { expected, found, likely, .. }) => {
                let name = expected.as_ref().or(found.as_ref()).map(|event| event.event.clone());
                let show = |event: &Option<rtmr::RtmrEvent>| {
                    event.as_ref().map(|event| format!("\"{}\" ({})", event.event, event.digest))
                };
                explanation(register, name, show(expected), show(found), likely)
            }
            None => {
                let likely = rtmr::register_cause(n);
                explanation(
                    register,
                    None,
                    Some(expected.to_string()),
                    Some(got.to_string()),
                    likely,
                )
            }
        });
    }
    found
}

/// The paravisor's measurement and the vTPM's registers.
fn azure(
    of: &str,
    kind: &str,
    claims: &Value,
    set: &EvidenceSet,
    reference: &ReferenceSet,
) -> Vec<Explanation> {
    let found = match kind {
        "az-snp-vtpm" => claims["measurement"].as_str(),
        _ => claims.pointer("/quote/body/mr_td").and_then(Value::as_str),
    };
    let of_kind = reference.azure.iter().filter(|platform| kind.contains(platform.tee.as_str()));
    let against = of_kind.map(|platform| {
        let mut differences = pcrs(of, &claims["tpm"], set, &platform.pcrs, &[]);
        if kind == "az-snp-vtpm" {
            differences.extend(floor(of, claims, &platform.tcb_floor));
        }
        let expected = platform.measurement.to_string();
        if found != Some(&expected) {
            differences.push(Explanation {
                of: of.into(),
                register: "paravisor's measurement".into(),
                event: None,
                expected: Some(expected),
                got: found.map(Into::into),
                likely: "Azure's paravisor is newer or older than the one in the reference".into(),
            });
        }
        differences
    });
    against.min_by_key(Vec::len).unwrap_or_default()
}
