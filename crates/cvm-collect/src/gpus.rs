//! GPU evidence as the release protocol carries it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use cvm_evidence::{
    AttestError,
    trustee::{NvidiaBody, NvidiaDevice, report_data},
    wire::Base64,
};

use crate::{
    device::{Device, Gpu, Raw},
    error::CollectError,
};

/// A request and the fixed part of an SPDM response; a report is longer.
const LEAST_REPORT: usize = 37 + 42;

/// The answers of all GPUs of a machine, at least one, to `binding`: a session's digest for
/// devices.
///
/// # Errors
/// [`CollectError`]; also for an answer that no verifier would read.
pub fn attest(gpus: &mut dyn Device, binding: &[u8; 48]) -> Result<NvidiaBody, CollectError> {
    let device = "NVIDIA GPU";
    let absent =
        |problem: &str| CollectError::Absent { device: device.into(), problem: problem.into() };
    let answered = match gpus.evidence(&report_data(binding))? {
        Raw::Gpus(list) if !list.is_empty() => list,
        Raw::Gpus(_) => return Err(absent("it lists none")),
        _ => return Err(absent("it is another device")),
    };
    body(&answered).map_err(|e| CollectError::answer(device, e.to_string()))
}

/// The protocol's body with these devices.
///
/// # Errors
/// [`AttestError::Malformed`] for a report that is too short, or certificates that name no GPU of
/// an architecture that NVIDIA attests.
pub fn body(gpus: &[Gpu]) -> Result<NvidiaBody, AttestError> {
    let device = |gpu: &Gpu| {
        let malformed = |problem: &str| AttestError::malformed("a GPU's evidence", problem);
        if gpu.report.len() < LEAST_REPORT {
            return Err(malformed("a report of a few bytes"));
        }
        let arch = architecture(&gpu.certificates)
            .ok_or_else(|| malformed("certificates that name no GPU that NVIDIA attests"))?;
        Ok(NvidiaDevice {
            arch: arch.to_owned(),
            uuid: gpu.uuid.clone(),
            evidence: Base64(gpu.report.clone()),
            certificate: Base64(gpu.certificates.clone()),
        })
    };
    Ok(NvidiaBody { device_evidence_list: gpus.iter().map(device).collect::<Result<_, _>>()? })
}

/// The architecture by the model that the device's certificates name (`GH100 A01 GSP BROM`).
///
/// This is a hint for the verifier, which reads the architecture out of verified certificates. So
/// the text is searched for and not parsed.
fn architecture(pem: &[u8]) -> Option<&'static str> {
    let text = std::str::from_utf8(pem).ok()?;
    let blocks = text.split("-----BEGIN CERTIFICATE-----").skip(1);
    blocks
        .filter_map(|block| {
            let base64: String =
                block.split("-----END").next()?.chars().filter(|c| !c.is_whitespace()).collect();
            let der = STANDARD.decode(base64).ok()?;
            der.windows(7).find_map(model)
        })
        .next()
}

/// `GH100 ` or `GB_100 `.
fn model(text: &[u8]) -> Option<&'static str> {
    let arch = match text.get(..2)? {
        b"GH" => "HOPPER",
        b"GB" => "BLACKWELL",
        _ => return None,
    };
    let rest = text.get(2..)?;
    let digits = rest.strip_prefix(b"_").unwrap_or(rest);
    let (number, after) = digits.split_at_checked(3)?;
    (number.iter().all(u8::is_ascii_digit) && after.first() == Some(&b' ')).then_some(arch)
}
