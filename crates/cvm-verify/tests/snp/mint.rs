//! Reports, keys and certificates that look like AMD's: what no real vector exists for. P-384
//! throughout, where AMD's ARK, ASK and ASVK have RSA keys.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair},
};
use cvm_verify::{
    snp::{SnpEvidence, SnpReport, SnpRoots},
    x509::Certificate,
};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, Issuer, KeyPair,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, date_time_ymd,
};

const AMD: [u64; 7] = [1, 3, 6, 1, 4, 1, 3704];
pub const CHIP: [u8; 64] = [0xc5; 64];

pub type Signer = Issuer<'static, KeyPair>;

/// One product line's ARK with its ASK and ASVK.
pub struct Line {
    pub ark: (Vec<u8>, Signer),
    pub ask: (Vec<u8>, Signer),
    pub asvk: (Vec<u8>, Signer),
}

/// What AMD would certify.
#[derive(Clone)]
pub struct Spec {
    pub subject: &'static str,
    pub product_name: &'static str,
    /// FMC, boot loader, TEE, SNP, microcode.
    pub tcb: [u8; 5],
    pub hw_id: Option<Vec<u8>>,
    pub csp_id: Option<&'static str>,
    /// Without these extensions: their numbers below `.3`.
    pub without: &'static [u64],
    pub p256: bool,
    pub until: i32,
}

pub fn vcek(product_name: &'static str) -> Spec {
    let bytes = if product_name.starts_with("Turin") { 8 } else { 64 };
    Spec {
        subject: "SEV-VCEK",
        product_name,
        tcb: [9, 3, 1, 20, 0xd5],
        hw_id: Some(CHIP[..bytes].to_vec()),
        csp_id: None,
        without: &[],
        p256: false,
        until: 2035,
    }
}

pub fn vlek(product_name: &'static str) -> Spec {
    Spec { subject: "SEV-VLEK", hw_id: None, csp_id: Some("cloud.example"), ..vcek(product_name) }
}

pub fn line(name: &str) -> Line {
    let ark = ca(&format!("ARK-{name}"), None);
    let ask = ca(&format!("SEV-{name}"), Some(&ark.1));
    let asvk = ca(&format!("SEV-VLEK-{name}"), Some(&ark.1));
    Line { ark, ask, asvk }
}

/// A CA certificate, by itself or by another.
pub fn ca(name: &str, issuer: Option<&Signer>) -> (Vec<u8>, Signer) {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let mut params = params(name, 2045);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = match issuer {
        Some(issuer) => params.signed_by(&key, issuer),
        None => params.self_signed(&key),
    };
    (certificate.unwrap().der().to_vec(), Issuer::new(params, key))
}

fn params(name: &str, until: i32) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::OrganizationName, "Advanced Micro Devices");
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    params
}

/// An endorsement key of that specification and its certificate.
pub fn endorse(issuer: &Signer, spec: &Spec) -> (Vec<u8>, EcdsaKeyPair) {
    let mut params = params(spec.subject, spec.until);
    let mut add = |under: &[u64], content: Vec<u8>| {
        let oid = [&AMD, under].concat();
        params.custom_extensions.push(CustomExtension::from_oid_content(&oid, content));
    };
    add(&[1, 2], [&[0x16, spec.product_name.len() as u8], spec.product_name.as_bytes()].concat());
    for (component, version) in [9, 1, 2, 3, 8].into_iter().zip(spec.tcb) {
        let present = component != 9 || spec.product_name.starts_with("Turin");
        if present && !spec.without.contains(&component) {
            let content = if version < 0x80 { vec![2, 1, version] } else { vec![2, 2, 0, version] };
            add(&[1, 3, component], content);
        }
    }
    if let Some(hw_id) = &spec.hw_id {
        add(&[1, 4], hw_id.clone());
    }
    if let Some(csp) = spec.csp_id {
        add(&[1, 5], [&[0x16, csp.len() as u8], csp.as_bytes()].concat());
    }
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let signer =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &key.serialize_der()).unwrap();
    let other = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let certificate = params.signed_by(if spec.p256 { &other } else { &key }, issuer).unwrap();
    (certificate.der().to_vec(), signer)
}

/// A report of that version whose TCB and chip are those of [`vcek`] and [`vlek`]; unsigned.
pub fn report(version: u32, cpuid: [u8; 3], spec: &Spec) -> Vec<u8> {
    let mut bytes = vec![0; 1184];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &version.to_le_bytes());
    put(8, &0x0003_0000u64.to_le_bytes());
    put(0x34, &1u32.to_le_bytes());
    put(0x40, &0x21u64.to_le_bytes());
    put(0x48, &(u32::from(spec.csp_id.is_some()) << 2).to_le_bytes());
    put(0x50, &[0xda; 64]);
    put(0x90, &[0x3e; 48]);
    put(0x160, &[0xff; 32]);
    let [fmc, bootloader, tee, snp, microcode] = spec.tcb;
    let tcb = match cpuid[0] {
        0x1a => [fmc, bootloader, tee, snp, 0, 0, 0, microcode],
        _ => [bootloader, tee, 0, 0, 0, 0, snp, microcode],
    };
    [0x38, 0x180, 0x1e0, 0x1f0].into_iter().for_each(|at| put(at, &tcb));
    if version > 2 {
        put(0x188, &cpuid);
    }
    if version > 4 {
        put(0x1f8, &5u64.to_le_bytes());
        put(0x200, &7u64.to_le_bytes());
    }
    if let Some(hw_id) = &spec.hw_id {
        put(0x1a0, hw_id);
    }
    put(0x1e8, &[29, 55, 1, 0, 28, 55, 1, 0]);
    bytes
}

/// Signs as the firmware does: r and s little endian, 72 bytes each.
pub fn sign(mut bytes: Vec<u8>, key: &EcdsaKeyPair) -> Vec<u8> {
    let signature = key.sign(&SystemRandom::new(), &bytes[..0x2a0]).unwrap();
    for (at, number) in [0x2a0, 0x2a0 + 72].into_iter().zip(signature.as_ref().chunks(48)) {
        let little: Vec<u8> = number.iter().rev().copied().collect();
        bytes[at..at + 48].copy_from_slice(&little);
    }
    bytes
}

impl Line {
    pub fn issuer(&self, spec: &Spec) -> &Signer {
        if spec.subject == "SEV-VLEK" { &self.asvk.1 } else { &self.ask.1 }
    }

    pub fn roots(&self) -> SnpRoots {
        SnpRoots::from_pem(pem(&[&self.ark.0, &self.ask.0, &self.asvk.0]).as_bytes()).unwrap()
    }

    /// Evidence of a machine of that specification; `change` is applied before it is signed.
    pub fn evidence(
        &self,
        version: u32,
        cpuid: [u8; 3],
        spec: &Spec,
        change: impl FnOnce(&mut [u8]),
    ) -> SnpEvidence {
        let (certificate, key) = endorse(self.issuer(spec), spec);
        let mut bytes = report(version, cpuid, spec);
        change(&mut bytes);
        SnpEvidence {
            report: SnpReport::parse(&sign(bytes, &key)).unwrap(),
            certificates: vec![Certificate::from_der(&certificate).unwrap()],
        }
    }
}

pub fn pem(certificates: &[&[u8]]) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let mut text = String::new();
    for der in certificates {
        text += "-----BEGIN CERTIFICATE-----\n";
        let encoded = STANDARD.encode(der);
        encoded
            .as_bytes()
            .chunks(64)
            .for_each(|line| text += &(String::from_utf8_lossy(line).into_owned() + "\n"));
        text += "-----END CERTIFICATE-----\n";
    }
    text
}
