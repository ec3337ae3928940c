//! Trustee's `snp` evidence: the serde form of the `sev` crate's `AttestationReport`, turned back into the
//! report's bytes. The signature shows whether that succeeded.

use serde::Deserialize;
use serde_json::Value;

use super::{REPORT_BYTES, SnpError, SnpEvidence, SnpReport};
use crate::x509::{Certificate, MAX_CERTIFICATES};

#[derive(Deserialize)]
struct Evidence {
    attestation_report: Report,
    cert_chain: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
struct Entry {
    /// A name, or an object for a GUID without one.
    cert_type: Value,
    data: Vec<u8>,
}

#[derive(Deserialize)]
struct Version {
    major: u8,
    minor: u8,
    build: u8,
}

#[derive(Deserialize)]
struct TcbVersion {
    fmc: Option<u8>,
    bootloader: u8,
    tee: u8,
    snp: u8,
    microcode: u8,
}

#[derive(Deserialize)]
struct Signature {
    r: Vec<u8>,
    s: Vec<u8>,
}

#[derive(Deserialize)]
struct Report {
    version: u32,
    guest_svn: u32,
    policy: u64,
    family_id: Vec<u8>,
    image_id: Vec<u8>,
    vmpl: u32,
    sig_algo: u32,
    current_tcb: TcbVersion,
    plat_info: u64,
    key_info: u32,
    report_data: Vec<u8>,
    measurement: Vec<u8>,
    host_data: Vec<u8>,
    id_key_digest: Vec<u8>,
    author_key_digest: Vec<u8>,
    report_id: Vec<u8>,
    report_id_ma: Vec<u8>,
    reported_tcb: TcbVersion,
    cpuid_fam_id: Option<u8>,
    cpuid_mod_id: Option<u8>,
    cpuid_step: Option<u8>,
    chip_id: Vec<u8>,
    committed_tcb: TcbVersion,
    current: Version,
    committed: Version,
    launch_tcb: TcbVersion,
    launch_mit_vector: Option<u64>,
    current_mit_vector: Option<u64>,
    signature: Signature,
}

pub(super) fn evidence(body: &Value) -> Result<SnpEvidence, SnpError> {
    let Evidence { attestation_report, cert_chain } = Evidence::deserialize(body).map_err(|e| fail(e.to_string()))?;
    let report = SnpReport::parse(&attestation_report.to_bytes()?)?;
    let entries = cert_chain.unwrap_or_default();
    if entries.len() > MAX_CERTIFICATES {
        return Err(fail(format!("{} certificates, at most {MAX_CERTIFICATES} allowed", entries.len())));
    }
    let mut certificates = Vec::new();
    for entry in entries {
        if entry.cert_type.as_str().is_some_and(|name| ["VCEK", "VLEK", "ASK", "ARK"].contains(&name)) {
            certificates.extend(Certificate::read_all(&entry.data)?);
        }
    }
    Ok(SnpEvidence { report, certificates })
}

impl Report {
    /// In the order of the table `ATTESTATION_REPORT`.
    fn to_bytes(&self) -> Result<Vec<u8>, SnpError> {
        let mut bytes = Vec::with_capacity(REPORT_BYTES);
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(self.guest_svn.to_le_bytes());
        bytes.extend(self.policy.to_le_bytes());
        bytes.extend(sized::<16>("family_id", &self.family_id)?);
        bytes.extend(sized::<16>("image_id", &self.image_id)?);
        bytes.extend(self.vmpl.to_le_bytes());
        bytes.extend(self.sig_algo.to_le_bytes());
        bytes.extend(self.current_tcb.to_bytes());
        bytes.extend(self.plat_info.to_le_bytes());
        bytes.extend(self.key_info.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(sized::<64>("report_data", &self.report_data)?);
        bytes.extend(sized::<48>("measurement", &self.measurement)?);
        bytes.extend(sized::<32>("host_data", &self.host_data)?);
        bytes.extend(sized::<48>("id_key_digest", &self.id_key_digest)?);
        bytes.extend(sized::<48>("author_key_digest", &self.author_key_digest)?);
        bytes.extend(sized::<32>("report_id", &self.report_id)?);
        bytes.extend(sized::<32>("report_id_ma", &self.report_id_ma)?);
        bytes.extend(self.reported_tcb.to_bytes());
        bytes.extend([self.cpuid_fam_id, self.cpuid_mod_id, self.cpuid_step].map(Option::unwrap_or_default));
        bytes.extend([0; 21]);
        bytes.extend(sized::<64>("chip_id", &self.chip_id)?);
        bytes.extend(self.committed_tcb.to_bytes());
        for Version { major, minor, build } in [&self.current, &self.committed] {
            bytes.extend([*build, *minor, *major, 0]);
        }
        bytes.extend(self.launch_tcb.to_bytes());
        bytes.extend(self.launch_mit_vector.unwrap_or_default().to_le_bytes());
        bytes.extend(self.current_mit_vector.unwrap_or_default().to_le_bytes());
        bytes.extend([0; 152]);
        bytes.extend(sized::<72>("signature.r", &self.signature.r)?);
        bytes.extend(sized::<72>("signature.s", &self.signature.s)?);
        bytes.resize(REPORT_BYTES, 0);
        Ok(bytes)
    }
}

impl TcbVersion {
    /// Only Turin's layout has an FMC.
    fn to_bytes(&self) -> [u8; 8] {
        let Self { fmc, bootloader, tee, snp, microcode } = *self;
        match fmc {
            Some(fmc) => [fmc, bootloader, tee, snp, 0, 0, 0, microcode],
            None => [bootloader, tee, 0, 0, 0, 0, snp, microcode],
        }
    }
}

fn sized<const N: usize>(field: &str, bytes: &[u8]) -> Result<[u8; N], SnpError> {
    bytes.try_into().map_err(|_| fail(format!("{field} has {} bytes, {N} expected", bytes.len())))
}

fn fail(problem: String) -> SnpError {
    SnpError::malformed("Trustee's snp evidence", problem)
}
