//! A certificate authority of ours that looks like Intel's, one platform, and the quotes of its
//! enclave.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use cvm_base::{Explain as _, sha256};
use cvm_verify::{
    tdx::{Collateral, DcapVerifier, TdxClaims, TdxError, TdxEvidence},
    x509::Certificate,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, DnType,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, RevokedCertParams,
    SerialNumber, date_time_ymd,
};
use serde_json::{Value, json};

use super::{
    NOW,
    documents::{qe_identity, tcb_info},
};

const FMSPC: [u8; 6] = [0x90, 0xc0, 0x6f, 0, 0, 0];

/// A certificate authority of ours that looks like Intel's, one platform, and its quoting enclave.
pub struct Mint {
    pub root: Authority,
    pub ca: Authority,
    pub signer: Authority,
    pub pck: Authority,
    /// The attestation key.
    pub ak: EcdsaKeyPair,
}

pub struct Authority {
    params: CertificateParams,
    key: KeyPair,
    pub der: Vec<u8>,
    pub pem: String,
}

impl Authority {
    pub fn new(
        name: &str,
        serial: u64,
        ca: bool,
        issuer: Option<&Authority>,
        extension: Option<CustomExtension>,
    ) -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from(serial));
        (params.not_before, params.not_after) =
            (date_time_ymd(2024, 1, 1), date_time_ymd(2030, 1, 1));
        if ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        } else {
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        }
        params.custom_extensions.extend(extension);
        let certificate = match issuer {
            Some(issuer) => {
                params.signed_by(&key, &Issuer::from_params(&issuer.params, &issuer.key)).unwrap()
            }
            None => params.self_signed(&key).unwrap(),
        };
        Self { der: certificate.der().to_vec(), pem: certificate.pem(), params, key }
    }

    /// Raw ECDSA, r ‖ s.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        sign(&key_pair(&self.key), message)
    }

    pub fn crl(&self, revoked: &[u64]) -> String {
        self.crl_of(revoked, (6, 1), (7, 1))
    }

    /// Valid between two days (month, day) of 2025.
    pub fn crl_of(&self, revoked: &[u64], from: (u8, u8), until: (u8, u8)) -> String {
        let revoked = revoked.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2025, 1, 2),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2025, from.0, from.1),
            next_update: date_time_ymd(2025, until.0, until.1),
            crl_number: SerialNumber::from(7u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        hex::encode(list.signed_by(&Issuer::from_params(&self.params, &self.key)).unwrap().der())
    }
}

fn key_pair(key: &KeyPair) -> EcdsaKeyPair {
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.serialized_der()).unwrap()
}

fn sign(key: &EcdsaKeyPair, message: &[u8]) -> Vec<u8> {
    key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
}

/// DER: tag, length, content.
fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len() as u16;
    let length = if length < 128 {
        vec![length as u8]
    } else {
        [&[0x82][..], &length.to_be_bytes()].concat()
    };
    [&[tag][..], &length, content].concat()
}

/// SEQUENCE { id-sgx-extensions.arcs, value }
fn entry(arcs: &[u8], tag: u8, value: &[u8]) -> Vec<u8> {
    let oid = [&[0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 1, 13, 1][..], arcs].concat();
    tlv(0x30, &[tlv(6, &oid), tlv(tag, value)].concat())
}

pub fn sgx_extension(components: [u8; 16], pce_svn: u8, pce_id: [u8; 2]) -> CustomExtension {
    // An INTEGER above 127 takes a leading zero.
    let integer = |arc: u8, svn: u8| entry(&[2, arc], 2, &[0, svn][usize::from(svn < 128)..]);
    let mut tcb: Vec<u8> = (1..).zip(components).flat_map(|(arc, svn)| integer(arc, svn)).collect();
    tcb.extend(integer(17, pce_svn));
    tcb.extend(entry(&[2, 18], 4, &components));
    let content = [
        entry(&[1], 4, &[0xaa; 16]),
        entry(&[2], 0x30, &tcb),
        entry(&[3], 4, &pce_id),
        entry(&[4], 4, &FMSPC),
        entry(&[5], 10, &[1]),
        entry(&[6], 4, &[0xbb; 16]),
        entry(
            &[7],
            0x30,
            &[entry(&[7, 1], 1, &[0xff]), entry(&[7, 2], 1, &[0]), entry(&[7, 3], 1, &[0xff])]
                .concat(),
        ),
    ];
    CustomExtension::from_oid_content(&[1, 2, 840, 113_741, 1, 13, 1], tlv(0x30, &content.concat()))
}

pub const COMPONENTS: [u8; 16] = [5, 5, 2, 2, 4, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0];

impl Mint {
    pub fn new() -> Self {
        Self::with_pck(sgx_extension(COMPONENTS, 11, [0, 0]))
    }

    pub fn with_pck(extension: CustomExtension) -> Self {
        let root = Authority::new("Intel SGX Root CA", 1, true, None, None);
        let ca = Authority::new("Intel SGX PCK Platform CA", 2, true, Some(&root), None);
        let signer = Authority::new("Intel SGX TCB Signing", 3, false, Some(&root), None);
        let pck = Authority::new("Intel SGX PCK Certificate", 4, false, Some(&ca), Some(extension));
        let ak = key_pair(&KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap());
        Self { root, ca, signer, pck, ak }
    }

    pub fn chain(&self) -> String {
        [&*self.pck.pem, &self.ca.pem, &self.root.pem].concat()
    }

    pub fn collateral(&self, tcb_info: &Value, qe_identity: &Value) -> Value {
        let (tcb_info, qe_identity) = (tcb_info.to_string(), qe_identity.to_string());
        let chain = [&*self.signer.pem, &self.root.pem].concat();
        json!({
            "pck_crl_issuer_chain": "",
            "root_ca_crl": self.root.crl(&[99]),
            "pck_crl": self.ca.crl(&[98]),
            "tcb_info_issuer_chain": chain,
            "tcb_info_signature": hex::encode(self.signer.sign(tcb_info.as_bytes())),
            "tcb_info": tcb_info,
            "qe_identity_issuer_chain": chain,
            "qe_identity_signature": hex::encode(self.signer.sign(qe_identity.as_bytes())),
            "qe_identity": qe_identity,
        })
    }

    pub fn good_collateral(&self) -> Value {
        self.collateral(&tcb_info(), &qe_identity())
    }

    /// Header, body, and everything that vouches for them.
    pub fn quote(&self, version: u16, body: &[u8]) -> Vec<u8> {
        self.quote_of(
            version,
            body,
            &qe_report(&self.ak),
            &certification(5, self.chain().as_bytes()),
        )
    }

    pub fn quote_of(
        &self,
        version: u16,
        body: &[u8],
        qe_report: &[u8],
        certified: &[u8],
    ) -> Vec<u8> {
        let mut signed = header(version);
        if version == 5 {
            let kind: u16 = match body.len() {
                584 => 2,
                648 => 3,
                _ => 4,
            };
            signed.extend(kind.to_le_bytes());
            signed.extend((body.len() as u32).to_le_bytes());
        }
        signed.extend(body);
        let qe =
            [qe_report, &self.pck.sign(qe_report), &[32, 0], &AUTHENTICATION, certified].concat();
        let outer = certification(6, &qe);
        let data =
            [&sign(&self.ak, &signed)[..], &self.ak.public_key().as_ref()[1..], &outer].concat();
        signed.extend((data.len() as u32).to_le_bytes());
        signed.extend(data);
        signed
    }

    pub fn verify(&self, quote: &[u8], collateral: &Value) -> Result<TdxClaims, TdxError> {
        let collateral = Collateral::parse(&serde_json::to_vec(collateral).unwrap())?;
        let roots = vec![Certificate::from_der(&self.root.der).unwrap()];
        DcapVerifier::new(roots, Some(&collateral), NOW)?.verify(
            &TdxEvidence::parse(quote, None)?,
            None,
            NOW,
        )
    }

    /// The same from dcap-qvl.
    pub fn second_opinion(
        &self,
        quote: &[u8],
        collateral: &Value,
    ) -> Result<(String, Vec<String>), String> {
        let collateral =
            serde_json::from_value(collateral.clone()).map_err(|e| format!("{e:#}"))?;
        let verifier =
            dcap_qvl::verify::QuoteVerifier::new(self.root.der.clone()).allow_debug(true);
        let report = verifier.verify(quote, &collateral, NOW).map_err(|e| format!("{e:#}"))?;
        Ok((report.status, report.advisory_ids))
    }

    /// Our verdict, after dcap-qvl's was found to be the same.
    pub fn agreed(
        &self,
        quote: &[u8],
        collateral: &Value,
    ) -> Result<(String, Vec<String>), &'static str> {
        let ours = self.verify(quote, collateral).map(|claims| {
            (claims.platform.tcb_status.unwrap().to_string(), claims.platform.advisory_ids)
        });
        let theirs = self.second_opinion(quote, collateral);
        match (ours, theirs) {
            (Ok(ours), Ok(theirs)) => {
                assert_eq!(ours, theirs);
                Ok(ours)
            }
            (Err(error), Err(_)) => Err(error.code()),
            (ours, theirs) => panic!("ours {ours:?}, dcap-qvl's {theirs:?}"),
        }
    }
}

const AUTHENTICATION: [u8; 32] = [0x5a; 32];

/// Certification data: its type, its size, itself.
pub fn certification(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &(data.len() as u32).to_le_bytes(), data].concat()
}

fn header(version: u16) -> Vec<u8> {
    let intel = hex::decode("939a7233f79c4ca9940a0db3957f0607").unwrap();
    [&version.to_le_bytes()[..], &[2, 0, 0x81, 0, 0, 0, 0, 0, 0, 0], &intel, &[7; 20]].concat()
}

/// An enclave report of Intel's TD quoting enclave that names the attestation key.
pub fn qe_report(ak: &EcdsaKeyPair) -> Vec<u8> {
    let mut report = vec![0; 384];
    report[48] = 0x11;
    report[56] = 0xe7;
    report[128..160].copy_from_slice(&hex::decode(MRSIGNER).unwrap());
    report[256] = 2; // product
    report[258] = 4; // security version
    let key = &ak.public_key().as_ref()[1..];
    report[320..352].copy_from_slice(&sha256(&[key, &AUTHENTICATION].concat()).0);
    report
}

pub const MRSIGNER: &str = "dc9e2a7c6f948f17474e34a7fc43ed030f7c1563f1babddf6340c82e0e54a8c5";

/// TD report 1.0, with the TDX module's version.
pub fn td10(tcb_svn: [u8; 3]) -> Vec<u8> {
    let mut body = vec![0; 584];
    body[..3].copy_from_slice(&tcb_svn);
    body[123] = 0x10; // SEPT_VE_DISABLE
    body[128..131].copy_from_slice(&[0xe7, 0x02, 0x06]);
    body[136..184].fill(0x11); // MRTD
    body[520..584].fill(0x22); // REPORT_DATA
    body
}

pub fn td15(tcb_svn: [u8; 3], current: [u8; 3]) -> Vec<u8> {
    [td10(tcb_svn), current.to_vec(), vec![0; 61]].concat()
}
