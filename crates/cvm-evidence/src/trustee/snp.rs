//! `snp`: the serde form of the `sev` crate's `AttestationReport`, to and from the report's bytes.
//! Fields that this form does not have are zeros in every report known. The report's signature
//! shows whether that holds.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{AttestError, tpm::Reader};

/// The structure's name in errors.
const WHAT: &str = "Trustee's snp evidence";
/// A report's length (SEV-SNP ABI 56860, table 23).
const REPORT_BYTES: usize = 1184;
/// CPUID's extended family of Turin, whose TCB has another layout.
const TURIN_FAMILY: u8 = 0x1a;

/// `{"attestation_report": …, "cert_chain": null | […]}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SnpBody {
    attestation_report: Report,
    cert_chain: Option<Vec<CertificateEntry>>,
}

/// A certificate that the host gave with the report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CertificateEntry {
    /// A name, or an object for a GUID without one.
    cert_type: Value,
    /// DER or PEM.
    data: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Version {
    major: u8,
    minor: u8,
    build: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct TcbVersion {
    fmc: Option<u8>,
    bootloader: u8,
    tee: u8,
    snp: u8,
    microcode: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Signature {
    r: Vec<u8>,
    s: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    // Older attesters do not know them, and older verifiers would not miss them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    launch_mit_vector: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    current_mit_vector: Option<u64>,
    signature: Signature,
}

impl SnpBody {
    /// From a report and what the host gave with it.
    ///
    /// # Errors
    /// [`AttestError::Malformed`] for other than 1184 bytes.
    pub fn new(report: &[u8], certificates: Vec<CertificateEntry>) -> Result<Self, AttestError> {
        let cert_chain = (!certificates.is_empty()).then_some(certificates);
        Ok(Self { attestation_report: Report::from_bytes(report)?, cert_chain })
    }

    /// The report's 1184 bytes.
    ///
    /// # Errors
    /// [`AttestError::Malformed`] for a field of another length.
    pub fn report(&self) -> Result<Vec<u8>, AttestError> {
        self.attestation_report.to_bytes()
    }

    /// The certificates, in any order; none of them is trusted.
    pub fn certificates(&self) -> &[CertificateEntry] {
        self.cert_chain.as_deref().unwrap_or_default()
    }
}

impl CertificateEntry {
    /// A certificate under the name that Trustee knows it by: `VCEK`, `VLEK`, `ASK`, `ARK`.
    pub fn new(name: &str, data: Vec<u8>) -> Self {
        Self { cert_type: json!(name), data }
    }

    /// Its content, if it is one of AMD's chain.
    pub fn of_the_chain(&self) -> Option<&[u8]> {
        let known = self
            .cert_type
            .as_str()
            .is_some_and(|name| ["VCEK", "VLEK", "ASK", "ARK"].contains(&name));
        known.then_some(&self.data)
    }
}

impl Report {
    fn from_bytes(bytes: &[u8]) -> Result<Self, AttestError> {
        if bytes.len() != REPORT_BYTES {
            return Err(fail(format!("{} bytes, {REPORT_BYTES} expected", bytes.len())));
        }
        let at = |offset: usize| Reader::at(WHAT, bytes, offset);
        let field = |offset, length| at(offset).take(length).map(<[u8]>::to_vec);
        let version = at(0).u32_le()?;
        let turin = is_turin(version, at(0x188).u8()?, at(0x1a0).take(64)?);
        let tcb = |offset| at(offset).array().map(|bytes| TcbVersion::from_bytes(bytes, turin));
        let since = |least: u32, offset| (version >= least).then(|| at(offset).u8()).transpose();
        let vector = |offset| (version >= 5).then(|| at(offset).u64_le()).transpose();
        let firmware = |offset| {
            at(offset).array().map(|[build, minor, major]| Version { major, minor, build })
        };
        Ok(Self {
            version,
            guest_svn: at(0x04).u32_le()?,
            policy: at(0x08).u64_le()?,
            family_id: field(0x10, 16)?,
            image_id: field(0x20, 16)?,
            vmpl: at(0x30).u32_le()?,
            sig_algo: at(0x34).u32_le()?,
            current_tcb: tcb(0x38)?,
            plat_info: at(0x40).u64_le()?,
            key_info: at(0x48).u32_le()?,
            report_data: field(0x50, 64)?,
            measurement: field(0x90, 48)?,
            host_data: field(0xc0, 32)?,
            id_key_digest: field(0xe0, 48)?,
            author_key_digest: field(0x110, 48)?,
            report_id: field(0x140, 32)?,
            report_id_ma: field(0x160, 32)?,
            reported_tcb: tcb(0x180)?,
            cpuid_fam_id: since(3, 0x188)?,
            cpuid_mod_id: since(3, 0x189)?,
            cpuid_step: since(3, 0x18a)?,
            chip_id: field(0x1a0, 64)?,
            committed_tcb: tcb(0x1e0)?,
            current: firmware(0x1e8)?,
            committed: firmware(0x1ec)?,
            launch_tcb: tcb(0x1f0)?,
            launch_mit_vector: vector(0x1f8)?,
            current_mit_vector: vector(0x200)?,
            signature: Signature { r: field(0x2a0, 72)?, s: field(0x2a0 + 72, 72)? },
        })
    }

    /// In the order of the table `ATTESTATION_REPORT`.
    fn to_bytes(&self) -> Result<Vec<u8>, AttestError> {
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
        bytes.extend(
            [self.cpuid_fam_id, self.cpuid_mod_id, self.cpuid_step].map(Option::unwrap_or_default),
        );
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
    fn from_bytes(bytes: [u8; 8], turin: bool) -> Self {
        match (turin, bytes) {
            (true, [fmc, bootloader, tee, snp, .., microcode]) => {
                Self { fmc: Some(fmc), bootloader, tee, snp, microcode }
            }
            (false, [bootloader, tee, .., snp, microcode]) => {
                Self { fmc: None, bootloader, tee, snp, microcode }
            }
        }
    }

    fn to_bytes(&self) -> [u8; 8] {
        let Self { fmc, bootloader, tee, snp, microcode } = *self;
        match fmc {
            Some(fmc) => [fmc, bootloader, tee, snp, 0, 0, 0, microcode],
            None => [bootloader, tee, 0, 0, 0, 0, snp, microcode],
        }
    }
}

/// Whether a report is of a Turin. Reports of version 2 name no processor; Turin's chip ids have 8
/// bytes.
fn is_turin(version: u32, family: u8, chip_id: &[u8]) -> bool {
    let is_set = |byte: &u8| *byte != 0;
    match version {
        ..3 => chip_id.iter().any(is_set) && !chip_id.iter().skip(8).any(is_set),
        _ => family == TURIN_FAMILY,
    }
}

fn sized<const N: usize>(field: &str, bytes: &[u8]) -> Result<[u8; N], AttestError> {
    bytes.try_into().map_err(|_| fail(format!("{field} has {} bytes, {N} expected", bytes.len())))
}

fn fail(problem: String) -> AttestError {
    AttestError::malformed(WHAT, problem)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    fn file(name: &str) -> Vec<u8> {
        fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
    }

    #[test]
    fn real_reports_travel_as_json_and_come_back_byte_for_byte() {
        for folder in
            ["google-vcek", "milan-virtee", "trustee-vcek", "trustee-vlek", "constellation-azure"]
        {
            let report = file(&format!("../../tests/vectors/evidence/snp/{folder}/report.bin"));
            let body = SnpBody::new(&report, vec![]).unwrap();
            let text = serde_json::to_string(&body).unwrap();
            assert!(text.ends_with(r#","cert_chain":null}"#), "{text}");
            let back: SnpBody = serde_json::from_str(&text).unwrap();
            // The unused rest of the signature's field is not signed.
            assert_eq!(back.report().unwrap()[..0x2a0 + 144], report[..0x2a0 + 144], "{folder}");
        }
    }

    #[test]
    fn what_a_stock_attester_wrote_is_written_the_same() {
        let theirs: Value =
            serde_json::from_slice(&file("../../tests/vectors/snp-trustee-e2e/evidence.json"))
                .unwrap();
        let body: SnpBody = serde_json::from_value(theirs.clone()).unwrap();
        let ours = SnpBody::new(&body.report().unwrap(), body.certificates().to_vec()).unwrap();
        assert_eq!(serde_json::to_value(&ours).unwrap(), theirs);
    }

    #[test]
    fn turins_tcb_has_its_own_layout() {
        let mut report = vec![0; REPORT_BYTES];
        report[0] = 5;
        report[0x188] = TURIN_FAMILY;
        report[0x180..0x188].copy_from_slice(&[9, 3, 1, 20, 0, 0, 0, 0xd5]);
        report[0x1f8] = 5;
        let body = SnpBody::new(&report, vec![]).unwrap();
        assert_eq!(body.attestation_report.reported_tcb.fmc, Some(9));
        assert_eq!(body.attestation_report.launch_mit_vector, Some(5));
        assert_eq!(body.report().unwrap(), report);
        assert!(SnpBody::new(&report[1..], vec![]).is_err());
    }
}
