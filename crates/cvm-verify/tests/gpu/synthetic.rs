//! Devices, manifests and machines that do not exist, under a root of their own.

use aws_lc_rs::{
    digest::{SHA384, digest},
    rand::SystemRandom,
    signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use cvm_verify::gpu::{
    Collateral, DeviceClaims, DeviceEvidence, GpuClaims, GpuError, Roots, SwitchClaims, verify,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    CustomExtension, DistinguishedName, DnType, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P384_SHA384, RevokedCertParams, SerialNumber,
};

/// 2026-11-22.
const LATER: u64 = 1_795_305_600;

pub(crate) type Authority = CertifiedIssuer<'static, KeyPair>;

pub(crate) fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap()
}

pub(crate) fn params(name: &str, serial_number: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.distinguished_name = DistinguishedName::new();
    if let Some(serial) = serial_number {
        params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 5]), serial);
    }
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2040, 1, 1);
    params
}

pub(crate) fn serial(name: &str) -> SerialNumber {
    SerialNumber::from(name.bytes().map(u64::from).sum::<u64>())
}

pub(crate) fn authority(
    name: &str,
    serial_number: Option<&str>,
    under: Option<&Authority>,
) -> Authority {
    let mut params = params(name, serial_number);
    params.serial_number = Some(serial(name));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    match under {
        Some(issuer) => CertifiedIssuer::signed_by(params, key(), issuer).unwrap(),
        None => CertifiedIssuer::self_signed(params, key()).unwrap(),
    }
}

/// A root for devices and one for manifests, and what is below them.
pub(crate) struct World {
    pub(crate) device_root: Authority,
    pub(crate) family: Authority,
    pub(crate) rim_root: Authority,
    pub(crate) signer: Authority,
    leaf_key: KeyPair,
}

/// A device's chain, and the authority that is its own.
pub(crate) struct DeviceChain {
    pub(crate) pem: String,
    pub(crate) identity: Authority,
}

/// What a device's report says.
#[derive(Clone)]
pub(crate) struct Device {
    pub(crate) chip: &'static str,
    pub(crate) pdi: [u8; 8],
    pub(crate) nonce: [u8; 32],
    pub(crate) measurements: Vec<[u8; 48]>,
    pub(crate) opaque: Vec<(u16, Vec<u8>)>,
    pub(crate) fwid: [u8; 48],
    pub(crate) serial: u64,
}

impl Device {
    pub(crate) fn blackwell() -> Self {
        Self {
            chip: "GB100",
            pdi: [0xb1, 0, 0, 0, 0, 0, 0, 1],
            nonce: [7; 32],
            measurements: (0..64).map(|index| [index; 48]).collect(),
            opaque: vec![
                (3, b"575.32\0".to_vec()),
                (6, vec![0, 0x88, 0, 0x97, 0x0f, 0, 0, 0]),
                (11, vec![0x55]),
                (15, b"886\0\0\0\0\0\0".to_vec()),
                (17, b"G525\0".to_vec()),
                (18, b"0220\0".to_vec()),
                (20, vec![0xf1; 48]),
                (34, vec![1, 0]),
                (35, b"GB100\0".to_vec()),
                (36, vec![0, 0]),
            ],
            fwid: [0xf1; 48],
            serial: 0x1234,
        }
    }

    /// The n-th of eight GPUs on four switches.
    pub(crate) fn ppcie_gpu(n: u8) -> Self {
        let switches =
            (1..=4).chain(1..=4).flat_map(|switch| [switch, 0, 0, 0, 0, 0, 0, 0x5a]).collect();
        let mut gpu = Self { chip: "GH100", pdi: [0x6b, 0, 0, 0, 0, 0, 0, n], ..Self::blackwell() };
        gpu.serial = 0x100 + u64::from(n);
        gpu.opaque.retain(|(field, _)| *field != 35);
        gpu.set(36, vec![2, 0]);
        gpu.set(22, switches);
        gpu
    }

    /// The n-th of its four switches.
    pub(crate) fn ppcie_switch(n: u8) -> Self {
        let pdi = [0x5a, 0, 0, 0, 0, 0, 0, n];
        let gpus =
            (1..=8).flat_map(|gpu| [0x6b, 0, 0, 0, 0, 0, 0, gpu]).chain([0xff; 64]).collect();
        Self {
            chip: "LS_10",
            pdi,
            measurements: (0..31).map(|index| [index; 48]).collect(),
            opaque: vec![(6, b"96.10.55.00.01".to_vec()), (22, pdi.to_vec()), (26, gpus)],
            serial: 0x200 + u64::from(n),
            ..Self::blackwell()
        }
    }

    pub(crate) fn set(&mut self, field: u16, value: Vec<u8>) {
        self.opaque.retain(|(known, _)| *known != field);
        self.opaque.push((field, value));
    }

    /// Request and response, not signed.
    pub(crate) fn unsigned(&self) -> Vec<u8> {
        let mut report = [&[0x11, 0xe0, 1, 0xff][..], &self.nonce, &[0]].concat();
        let mut record = Vec::new();
        for (index, value) in (1u8..).zip(&self.measurements) {
            record.extend([index, 1, 51, 0, 1, 48, 0]);
            record.extend(value);
        }
        let mut opaque = Vec::new();
        for (field, value) in &self.opaque {
            opaque.extend([field.to_le_bytes(), (value.len() as u16).to_le_bytes()].concat());
            opaque.extend(value);
        }
        report.extend([0x11, 0x60, 0, 0, self.measurements.len() as u8]);
        report.extend(&(record.len() as u32).to_le_bytes()[..3]);
        report.extend(record);
        report.extend([9; 32]);
        report.extend((opaque.len() as u16).to_le_bytes());
        report.extend(opaque);
        report
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let device_root = authority("Device Root", None, None);
        let family = authority("Family", None, Some(&device_root));
        let rim_root = authority("RIM Root", None, None);
        let signer = authority("RIM Values", None, Some(&rim_root));
        Self { device_root, family, rim_root, signer, leaf_key: key() }
    }

    pub(crate) fn roots(&self) -> Roots {
        Roots::from_pem(self.device_root.pem().as_bytes(), self.rim_root.pem().as_bytes()).unwrap()
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        sign(&self.leaf_key, message)
    }

    /// Certificates, leaf first.
    pub(crate) fn chain(&self, device: &Device) -> String {
        self.chain_parts(device).pem
    }

    pub(crate) fn chain_parts(&self, device: &Device) -> DeviceChain {
        let serial = format!("41{}", hex::encode_upper(device.pdi));
        let identity =
            authority(&format!("{} A01 GSP BROM", device.chip), Some(&serial), Some(&self.family));
        let mut leaf = params(&format!("{} A01 GSP FMC LF", device.chip), Some("leaf"));
        leaf.serial_number = Some(SerialNumber::from(device.serial));
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let fwid =
            [&[0x30, 61, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2, 4, 48][..], &device.fwid]
                .concat();
        let (oid, content) = if device.chip.starts_with("GB") {
            let empty =
                [&[0x30, 61, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2, 4, 48][..], &[0; 48]]
                    .concat();
            let fields =
                [&[0x80, 6][..], b"NVIDIA", &[0x83, 1, 1, 0xa6, 126], &fwid, &empty, &[0x87, 1, 0]]
                    .concat();
            (
                &[2, 23, 133, 5, 4, 1, 1][..],
                [&[0x30, 0x81, fields.len() as u8][..], &fields].concat(),
            )
        } else {
            let fields = [&[2, 1, 1, 0x30, 0][..], &fwid].concat();
            (&[2, 23, 133, 5, 4, 1][..], [&[0x30, fields.len() as u8][..], &fields].concat())
        };
        leaf.custom_extensions = vec![CustomExtension::from_oid_content(oid, content)];
        let leaf = leaf.signed_by(&self.leaf_key, &identity).unwrap();
        let pem = [leaf.pem(), identity.pem(), self.family.pem(), self.device_root.pem()].concat();
        DeviceChain { pem, identity }
    }

    /// Request and response, signed.
    pub(crate) fn report(&self, device: &Device) -> Vec<u8> {
        let mut report = device.unsigned();
        report.extend(self.sign(&report));
        report
    }

    pub(crate) fn evidence(&self, device: &Device) -> Result<DeviceEvidence, GpuError> {
        DeviceEvidence::parse(&self.report(device), self.chain(device).as_bytes())
    }

    /// A manifest with these golden values (index, hex, active), in canonical form already.
    pub(crate) fn rim(&self, product: &str, version: &str, golden: &[(u8, &[u8], bool)]) -> String {
        self.signed_rim(product, version, golden).0
    }

    /// And its signer's certificate.
    pub(crate) fn signed_rim(
        &self,
        product: &str,
        version: &str,
        golden: &[(u8, &[u8], bool)],
    ) -> (String, Vec<u8>) {
        let mut payload = String::new();
        for (index, value, active) in golden {
            let (active, size, value) =
                (if *active { "True" } else { "False" }, value.len(), hex::encode(value));
            payload += &format!(
                "<ns0:Resource active=\"{active}\" alternatives=\"1\" index=\"{index}\" \
                 name=\"Measurement_{index}\" size=\"{size}\" type=\"Measurement\" \
                 ns2:Hash0=\"{value}\"></ns0:Resource>"
            );
        }
        self.sign_content(&format!(
            "<ns0:Entity name=\"N\"></ns0:Entity><ns0:Meta xmlns:ns1=\"{TCG}\" \
             colloquialVersion=\"{version}\" product=\"{product}\" \
             ns1:FirmwareManufacturerId=\"5703\"></ns0:Meta><ns0:Payload>{payload}</ns0:Payload>"
        ))
    }

    /// The root around this content, which must be canonical, and a signature.
    pub(crate) fn sign_rim(&self, content: &str) -> String {
        self.sign_content(content).0
    }

    fn sign_content(&self, content: &str) -> (String, Vec<u8>) {
        let key = key();
        let mut leaf = params("RIM Signer", None);
        leaf.serial_number = Some(SerialNumber::from(content.len() as u64));
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let leaf = leaf.signed_by(&key, &self.signer).unwrap();
        let head = format!("<SoftwareIdentity {NAMESPACES} name=\"N\">");
        let digest = STANDARD
            .encode(digest(&SHA384, format!("{head}{content}</SoftwareIdentity>").as_bytes()));
        let signed_info = SIGNED_INFO.replace("DIGEST", &digest);
        let in_scope = format!("<ds:SignedInfo {CANONICAL_NAMESPACES}>");
        let value = STANDARD
            .encode(sign(&key, signed_info.replace("<ds:SignedInfo>", &in_scope).as_bytes()));
        let certificates: String = [leaf.der(), self.signer.der(), self.rim_root.der()]
            .map(|der| format!("<ds:X509Certificate>{}</ds:X509Certificate>", STANDARD.encode(der)))
            .concat();
        let xml = format!(
            "{head}{content}<ds:Signature \
             xmlns:ds=\"http://www.w3.org/2000/09/xmldsig#\">{signed_info}<ds:SignatureValue>{value}</ds:SignatureValue><ds:KeyInfo><ds:X509Data>{certificates}</ds:X509Data></ds:KeyInfo></ds:Signature></SoftwareIdentity>"
        );
        (xml, leaf.der().to_vec())
    }

    /// The device root's list, with the family's authority on it.
    pub(crate) fn revoke_family(&self) -> Vec<u8> {
        let revoked = RevokedCertParams {
            serial_number: serial("Family"),
            revocation_time: rcgen::date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2024, 1, 1),
            next_update: rcgen::date_time_ymd(2030, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.device_root).unwrap().der().to_vec()
    }

    pub(crate) fn verify(&self, device: &Device) -> Result<DeviceClaims, GpuError> {
        let evidence = self.evidence(device)?;
        verify(&evidence, &self.roots(), Collateral::default(), Some(&[7; 32]), LATER)
    }

    pub(crate) fn gpu(&self, device: &Device) -> GpuClaims {
        match self.verify(device).unwrap() {
            DeviceClaims::Gpu(claims) => claims,
            DeviceClaims::Switch(_) => panic!("a switch"),
        }
    }

    pub(crate) fn switch(&self, device: &Device) -> SwitchClaims {
        match self.verify(device).unwrap() {
            DeviceClaims::Switch(claims) => claims,
            DeviceClaims::Gpu(_) => panic!("a GPU"),
        }
    }
}

const TCG: &str = "https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/";
const NAMESPACES: &str = "xmlns=\"http://standards.iso.org/iso/19770/-2/2015/schema.xsd\" \
    xmlns:ns0=\"http://standards.iso.org/iso/19770/-2/2015/schema.xsd\" \
    xmlns:ns2=\"http://www.w3.org/2001/04/xmlenc#sha384\"";
const CANONICAL_NAMESPACES: &str = "xmlns=\"http://standards.iso.org/iso/19770/-2/2015/schema.xsd\" xmlns:ds=\"http://www.w3.org/2000/09/xmldsig#\" xmlns:ns0=\"http://standards.iso.org/iso/19770/-2/2015/schema.xsd\" xmlns:ns2=\"http://www.w3.org/2001/04/xmlenc#sha384\"";
const SIGNED_INFO: &str = "<ds:SignedInfo><ds:CanonicalizationMethod \
    Algorithm=\"http://www.w3.org/2006/12/xml-c14n11\"></ds:CanonicalizationMethod><ds:SignatureMethod Algorithm=\"http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384\"></ds:SignatureMethod><ds:Reference URI=\"\"><ds:Transforms><ds:Transform Algorithm=\"http://www.w3.org/2000/09/xmldsig#enveloped-signature\"></ds:Transform><ds:Transform Algorithm=\"http://www.w3.org/2006/12/xml-c14n11\"></ds:Transform></ds:Transforms><ds:DigestMethod Algorithm=\"http://www.w3.org/2001/04/xmldsig-more#sha384\"></ds:DigestMethod><ds:DigestValue>DIGEST</ds:DigestValue></ds:Reference></ds:SignedInfo>";

pub(crate) fn sign(key: &KeyPair, message: &[u8]) -> Vec<u8> {
    let key =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, key.serialized_der()).unwrap();
    key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
}
