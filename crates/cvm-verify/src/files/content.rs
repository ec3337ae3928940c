//! How the form of a file is told by its content.

use serde_json::Value;

use super::{
    Form, MAX_FILE_BYTES,
    number::{u16_at, u32_at},
};
use crate::{quote::is_ecdsa_signature, snp::REPORT_BYTES};
use cvm_evidence::{
    eventlog::{Log, Record, Registers},
    tpm::HashAlg,
};

impl Form {
    /// Tells what `bytes` are; `None` for anything else.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() || bytes.len() > MAX_FILE_BYTES {
            return None;
        }
        binary(bytes).or_else(|| text(std::str::from_utf8(bytes).ok()?.trim()))
    }
}

fn binary(bytes: &[u8]) -> Option<Form> {
    match bytes {
        [b'H', b'C', b'L', b'A', ..] => return Some(Form::HclReport),
        // TPM_GENERATED_VALUE, TPM_ST_ATTEST_QUOTE (TPM 2.0 part 2, §6.2 and §6.9).
        [0xff, b'T', b'C', b'G', 0x80, 0x18, ..] => return Some(Form::TpmQuote),
        // SPDM 1.1 GET_MEASUREMENTS, signature requested, all blocks; the response follows 37 bytes
        // on.
        [0x11, 0xe0, 0x01, 0xff, ..] if bytes.get(37..39) == Some(&[0x11, 0x60]) => {
            return Some(Form::GpuReport);
        }
        [0x30, ..] => {
            if let Some(form) = der(bytes) {
                return Some(form);
            }
        }
        _ => {}
    }
    // Azure's tools append 20 bytes of their own header's fields.
    if matches!(bytes.len(), REPORT_BYTES | 1204) && begins_snp_report(bytes) {
        return Some(Form::SnpReport);
    }
    if let (Some(3..=5), Some(tee @ (0 | 0x81))) = (u16_at(bytes, 0), u32_at(bytes, 4))
        && bytes.len() > 432
        && matches!(u16_at(bytes, 2), Some(2 | 3))
    {
        return Some(if tee == 0 { Form::SgxQuote } else { Form::TdxQuote });
    }
    // The first event: register 0, EV_NO_ACTION, an empty SHA-1 digest, "Spec ID Event0…";
    // SHA-1-only logs begin with any event.
    let sha1_log = || bytes.len() > 128 && !begins_snp_report(bytes) && is_sha1_log(bytes);
    if bytes.get(32..47) == Some(b"Spec ID Event03") || sha1_log() {
        return Some(Form::EventLog);
    }
    match bytes {
        // TPMT_SIGNATURE: RSASSA, RSAPSS or ECDSA, then a hash of the SHA family.
        [0x00, 0x14 | 0x16 | 0x18, 0x00, 0x04 | 0x0b..=0x0d, ..] if bytes.len() < 600 => {
            Some(Form::TpmSignature)
        }
        // TPMT_PUBLIC of an RSA or ECC key, also one named with SHA-1, which its verifier refuses;
        // a TPM2B has its size in front.
        [0x00, 0x01 | 0x23, 0x00, 0x04 | 0x0b..=0x0d, ..] if bytes.len() < 1024 => {
            Some(Form::TpmPublic)
        }
        [_, _, 0x00, 0x01 | 0x23, 0x00, 0x04 | 0x0b..=0x0d, ..]
            if u16::from_be_bytes(*bytes.first_chunk()?) as usize == bytes.len() - 2 =>
        {
            Some(Form::TpmPublic)
        }
        _ => None,
    }
    .or_else(|| unmarked(bytes))
}

/// Raw signatures and register values, which only their length tells.
fn unmarked(bytes: &[u8]) -> Option<Form> {
    let is_text = bytes.iter().all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace());
    match bytes.len() {
        _ if is_text => None,
        // RSA's, or r ‖ s of P-256 or P-384. Two, three, eight, twelve or sixteen SHA-256 values
        // are as long: what signs the quote is a signature, what hashes to its digest are values.
        64 | 96 | 256 | 384 | 512 => Some(Form::TpmSignature),
        // Of a whole bank, or of the registers that a quote covers.
        480 | 768 | 1152 => Some(Form::PcrValues),
        length if length % 32 == 0 && (128..768).contains(&length) => Some(Form::PcrValues),
        _ => None,
    }
}

/// Whether this is a log without a mark: events to the end, and not all of them zeros.
fn is_sha1_log(bytes: &[u8]) -> bool {
    let measured =
        |record: &Record<'_>| record.digest(HashAlg::Sha1).is_some_and(|digest| digest != [0; 20]);
    Log::parse(bytes, Registers::Pcrs).is_ok_and(|log| log.records().iter().any(measured))
}

/// Whether a report begins here: its version, VMPL and signature algorithm (ECDSA P-384 with
/// SHA-384 is 1), which no event log and no quote has at these places.
pub(super) fn begins_snp_report(bytes: &[u8]) -> bool {
    matches!(u32_at(bytes, 0), Some(2..=0xff))
        && matches!(u32_at(bytes, 0x30), Some(0..=3 | u32::MAX))
        && u32_at(bytes, 0x34) == Some(1)
}

/// A DER structure: a signature, a certificate, a key or a revocation list, told by what it can be
/// read as.
fn der(bytes: &[u8]) -> Option<Form> {
    use x509_cert::{crl::CertificateList, der::Decode as _, spki::SubjectPublicKeyInfoRef};
    if is_ecdsa_signature(bytes) {
        Some(Form::TpmSignature)
    } else if <x509_cert::Certificate>::from_der(bytes).is_ok() {
        Some(Form::Certificates)
    } else if SubjectPublicKeyInfoRef::from_der(bytes).is_ok() {
        Some(Form::PublicKey)
    } else {
        // OCSPResponse (RFC 6960 §4.2.1) begins with its status: successful.
        let content = bytes.get(2 + usize::from(bytes.get(1)? & 0x7f)..)?;
        let ocsp = content.starts_with(&[0x0a, 0x01, 0x00, 0xa0]);
        if ocsp {
            Some(Form::Ocsp)
        } else {
            <CertificateList>::from_der(bytes).is_ok().then_some(Form::Crl)
        }
    }
}

fn text(text: &str) -> Option<Form> {
    if text.starts_with("-----BEGIN") || text.contains("\n-----BEGIN CERTIFICATE-----") {
        return Some(match () {
            () if text.contains("BEGIN CERTIFICATE") => Form::Certificates,
            () if text.contains("BEGIN X509 CRL") => Form::Crl,
            () if text.contains("BEGIN PUBLIC KEY") => Form::PublicKey,
            () => return None,
        });
    }
    if text.starts_with('<') {
        return text.contains("SoftwareIdentity").then_some(Form::Rim);
    }
    if (32..=128).contains(&text.len())
        && text.len().is_multiple_of(2)
        && text.bytes().all(|b| b.is_ascii_hexdigit())
    {
        return Some(Form::Nonce);
    }
    let base64url =
        |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if text.starts_with("eyJ") && text.split('.').count() == 3 && text.split('.').all(base64url) {
        return Some(Form::Jwt);
    }
    json(&serde_json::from_str(text).ok()?)
}

fn json(value: &Value) -> Option<Form> {
    if let Value::Array(items) = value {
        let hex = |item: &Value| {
            item.as_str().is_some_and(|s| s.len() >= 40 && s.bytes().all(|b| b.is_ascii_hexdigit()))
        };
        return match items.first()? {
            // NVIDIA's SDK wraps the service's answers once more; that is unpacked.
            Value::Array(pair) if pair.first().and_then(Value::as_str) == Some("JWT") => {
                let devices = items.get(1).and_then(Value::as_object)?;
                devices.values().all(Value::is_string).then_some(Form::DetachedEat)
            }
            Value::Object(device)
                if ["evidence", "certificate"].iter().all(|m| device.contains_key(*m)) =>
            {
                Some(Form::KbsEvidence)
            }
            Value::Object(event)
                if ["imr", "event_type", "event_payload"]
                    .iter()
                    .all(|m| event.contains_key(*m)) =>
            {
                Some(Form::DstackLog)
            }
            Value::String(_) if items.len() <= 32 && items.iter().all(hex) => Some(Form::PcrValues),
            _ => None,
        };
    }
    let object = value.as_object()?;
    let has = |name: &str| object.contains_key(name);
    let register = |name: &String| name.parse::<u8>().is_ok_and(|n| n < 24);
    match () {
        () if has("keys") => Some(Form::Jwks),
        () if has("tcb_info") && has("qe_identity") => Some(Form::DcapCollateral),
        () if has("tcbInfo") && has("signature") => Some(Form::TcbInfo),
        () if has("enclaveIdentity") && has("signature") => Some(Form::QeIdentity),
        () if has("event_log") && has("mrtd") => Some(Form::DstackLog),
        () if !object.is_empty() && object.keys().all(register) => Some(Form::PcrValues),
        () if object.keys().any(|k| k.starts_with("sha"))
            && object.values().all(Value::is_object) =>
        {
            Some(Form::PcrValues)
        }
        () if has("hcl_report") || (has("quote") && has("report")) => Some(Form::KbsEvidence),
        // Hygon's CSV has the same member; its report is another.
        () if object
            .get("attestation_report")
            .is_some_and(|report| report.get("data").is_some()) =>
        {
            None
        }
        // As text (attestation-rs writes base64) it is told by its content, as any member is.
        () if object.get("attestation_report").is_some_and(Value::is_string) => None,
        () if has("attestation_report") || has("device_evidence_list") || has("evidence_list") => {
            Some(Form::KbsEvidence)
        }
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;

    /// Files of the real evidence, by their form.
    const REAL: [(Form, &str); 19] = [
        (
            Form::SnpReport,
            "snp/milan-virtee/report.bin snp/constellation-azure/report.raw \
             snp/trustee-vlek/report.bin",
        ),
        (
            Form::Certificates,
            "snp/milan-virtee/vcek.der snp/_amd-roots/ask_ark_turin_vcek.pem \
             gpu/h100-550.90.07/chain.pem",
        ),
        (
            Form::TdxQuote,
            "tdx/quotes/near-mpc.bin tdx/quotes/trustee-tdx_quote_4.bin \
             azure/tdx-trustee-evidence-v0/td_quote.bin",
        ),
        (Form::SgxQuote, "tdx/quotes/phala-sgx_quote.bin"),
        (Form::DcapCollateral, "tdx/collateral/near-mpc.json tdx/collateral/near-mpc-nopck.json"),
        (Form::DstackLog, "ccel/near-mpc/tcb_info.json"),
        (
            Form::HclReport,
            "azure/snp-trustee-evidence-v1/hcl.bin azure/tdx-trustee-evidence-v0/hcl.bin",
        ),
        (
            Form::TpmQuote,
            "azure/snp-trustee-evidence-v0/quote.msg tpm/own-swtpm-ecdsa-quote/quote.msg",
        ),
        (
            Form::TpmSignature,
            "azure/snp-trustee-evidence-v0/quote.sig tpm/own-swtpm-ecdsa-quote/quote.sig \
             tpm/gce-cos-85-nonce9009/quote-sha1.sig",
        ),
        (
            Form::TpmPublic,
            "tpm/gce-cos-85-nonce9009/ak.tpmt_public tpm/own-swtpm-ecdsa-quote/ak.pub",
        ),
        (
            Form::PcrValues,
            "azure/snp-trustee-evidence-v0/pcrs.bin tpm/gce-cos-85-nonce9009/pcrs-sha384.json \
             tpm/eventlogs/rhel8-uefi.bin.pcrs.json",
        ),
        (
            Form::EventLog,
            "tpm/eventlogs/rhel8-uefi.bin tpm/gce-cos-85-nonce9009/eventlog.bin \
             tpm/eventlogs/cos-93-amd-sev.bin",
        ),
        (Form::GpuReport, "gpu/h100-545.00-e2e/report.bin gpu/h100-560.00-BADSIG/report.bin"),
        (Form::Nonce, "gpu/h100-545.00-e2e/nonce.hex"),
        (
            Form::Rim,
            "gpu/h100-545.00-e2e/vbios-rim.xml gpu/rims/g520_0200_885_9600740001_PROD.swidtag",
        ),
        (Form::Jwt, "maa/maa-1-sgx.jwt maa/azurevm-token-nokey.jwt"),
        (Form::Jwks, "maa/maa-1-sgx.jwks.json"),
        (Form::DetachedEat, "nras/hopperClaimsv3_detached_eat.json"),
        (Form::PublicKey, "nras/nras-prod-20250609.recovered.pub.pem"),
    ];

    #[test]
    fn every_file_of_real_evidence_is_told_by_its_content() {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/evidence");
        for (form, names) in REAL {
            for name in names.split_whitespace() {
                let bytes = fs::read(folder.join(name)).unwrap();
                assert_eq!(Form::of(&bytes), Some(form), "{name}");
            }
        }
    }

    #[test]
    fn anything_else_is_nothing() {
        for bytes in [&b""[..], b"hello", b"{}", b"[]", &[0; 5000], &[0x30, 0x82]] {
            assert_eq!(Form::of(bytes), None, "{bytes:?}");
        }
    }
}
