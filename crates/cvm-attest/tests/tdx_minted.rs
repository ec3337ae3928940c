//! TDX quotes that no vector has: versions 4 and 5, TD 1.0, 1.5 and 1.5 extended, every TCB verdict, revocation,
//! and what a forger with certificates of his own would try. Root, platform, collateral and quotes are minted
//! here; dcap-qvl, given the same root, is the second opinion.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use cvm_attest::{
    snp::SnpRoots,
    tdx::{Collateral, DcapVerifier, TcbStatus, TdxClaims, TdxError, TdxEvidence, TdxPolicy},
    tee::Vendors,
    trustee::report_data,
    x509::Certificate,
};
use cvm_base::{Explain as _, sha256};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CustomExtension, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, RevokedCertParams, SerialNumber, date_time_ymd,
};
use serde_json::{Value, json};

const NOW: u64 = 1_750_000_000; // 2025-06-15
const FMSPC: [u8; 6] = [0x90, 0xc0, 0x6f, 0, 0, 0];

/// A certificate authority of ours that looks like Intel's, one platform, and its quoting enclave.
struct Mint {
    root: Authority,
    ca: Authority,
    signer: Authority,
    pck: Authority,
    /// The attestation key.
    ak: EcdsaKeyPair,
}

struct Authority {
    params: CertificateParams,
    key: KeyPair,
    der: Vec<u8>,
    pem: String,
}

impl Authority {
    fn new(name: &str, serial: u64, ca: bool, issuer: Option<&Authority>, extension: Option<CustomExtension>) -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(SerialNumber::from(serial));
        (params.not_before, params.not_after) = (date_time_ymd(2024, 1, 1), date_time_ymd(2030, 1, 1));
        if ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        } else {
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        }
        params.custom_extensions.extend(extension);
        let certificate = match issuer {
            Some(issuer) => params.signed_by(&key, &Issuer::from_params(&issuer.params, &issuer.key)).unwrap(),
            None => params.self_signed(&key).unwrap(),
        };
        Self { der: certificate.der().to_vec(), pem: certificate.pem(), params, key }
    }

    /// Raw ECDSA, r ‖ s.
    fn sign(&self, message: &[u8]) -> Vec<u8> {
        sign(&key_pair(&self.key), message)
    }

    fn crl(&self, revoked: &[u64]) -> String {
        self.crl_of(revoked, (6, 1), (7, 1))
    }

    /// Valid between two days (month, day) of 2025.
    fn crl_of(&self, revoked: &[u64], from: (u8, u8), until: (u8, u8)) -> String {
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
    let length = if length < 128 { vec![length as u8] } else { [&[0x82][..], &length.to_be_bytes()].concat() };
    [&[tag][..], &length, content].concat()
}

/// SEQUENCE { id-sgx-extensions.arcs, value }
fn entry(arcs: &[u8], tag: u8, value: &[u8]) -> Vec<u8> {
    let oid = [&[0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 1, 13, 1][..], arcs].concat();
    tlv(0x30, &[tlv(6, &oid), tlv(tag, value)].concat())
}

fn sgx_extension(components: [u8; 16], pce_svn: u8, pce_id: [u8; 2]) -> CustomExtension {
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
        entry(&[7], 0x30, &[entry(&[7, 1], 1, &[0xff]), entry(&[7, 2], 1, &[0]), entry(&[7, 3], 1, &[0xff])].concat()),
    ];
    CustomExtension::from_oid_content(&[1, 2, 840, 113_741, 1, 13, 1], tlv(0x30, &content.concat()))
}

const COMPONENTS: [u8; 16] = [5, 5, 2, 2, 4, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0];

impl Mint {
    fn new() -> Self {
        Self::with_pck(sgx_extension(COMPONENTS, 11, [0, 0]))
    }

    fn with_pck(extension: CustomExtension) -> Self {
        let root = Authority::new("Intel SGX Root CA", 1, true, None, None);
        let ca = Authority::new("Intel SGX PCK Platform CA", 2, true, Some(&root), None);
        let signer = Authority::new("Intel SGX TCB Signing", 3, false, Some(&root), None);
        let pck = Authority::new("Intel SGX PCK Certificate", 4, false, Some(&ca), Some(extension));
        let ak = key_pair(&KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap());
        Self { root, ca, signer, pck, ak }
    }

    fn chain(&self) -> String {
        [&*self.pck.pem, &self.ca.pem, &self.root.pem].concat()
    }

    fn collateral(&self, tcb_info: &Value, qe_identity: &Value) -> Value {
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

    fn good_collateral(&self) -> Value {
        self.collateral(&tcb_info(), &qe_identity())
    }

    /// Header, body, and everything that vouches for them.
    fn quote(&self, version: u16, body: &[u8]) -> Vec<u8> {
        self.quote_of(version, body, &qe_report(&self.ak), &certification(5, self.chain().as_bytes()))
    }

    fn quote_of(&self, version: u16, body: &[u8], qe_report: &[u8], certification: &[u8]) -> Vec<u8> {
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
        let qe = [qe_report, &self.pck.sign(qe_report), &[32, 0], &AUTHENTICATION, certification].concat();
        let outer = certification_data(6, &qe);
        let data = [&sign(&self.ak, &signed)[..], &self.ak.public_key().as_ref()[1..], &outer].concat();
        signed.extend((data.len() as u32).to_le_bytes());
        signed.extend(data);
        signed
    }

    fn verify(&self, quote: &[u8], collateral: &Value) -> Result<TdxClaims, TdxError> {
        let collateral = Collateral::parse(&serde_json::to_vec(collateral).unwrap())?;
        let roots = vec![Certificate::from_der(&self.root.der).unwrap()];
        DcapVerifier::new(roots, Some(&collateral), NOW)?.verify(&TdxEvidence::parse(quote, None)?, None, NOW)
    }

    /// The same from dcap-qvl.
    fn second_opinion(&self, quote: &[u8], collateral: &Value) -> Result<(String, Vec<String>), String> {
        let collateral = serde_json::from_value(collateral.clone()).map_err(|e| format!("{e:#}"))?;
        let verifier = dcap_qvl::verify::QuoteVerifier::new(self.root.der.clone()).allow_debug(true);
        let report = verifier.verify(quote, &collateral, NOW).map_err(|e| format!("{e:#}"))?;
        Ok((report.status, report.advisory_ids))
    }

    /// Our verdict, after dcap-qvl's was found to be the same.
    fn agreed(&self, quote: &[u8], collateral: &Value) -> Result<(String, Vec<String>), &'static str> {
        let ours = self
            .verify(quote, collateral)
            .map(|claims| (claims.platform.tcb_status.unwrap().to_string(), claims.platform.advisory_ids));
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

fn certification_data(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &(data.len() as u32).to_le_bytes(), data].concat()
}

fn certification(kind: u16, data: &[u8]) -> Vec<u8> {
    certification_data(kind, data)
}

fn header(version: u16) -> Vec<u8> {
    let intel = hex::decode("939a7233f79c4ca9940a0db3957f0607").unwrap();
    [&version.to_le_bytes()[..], &[2, 0, 0x81, 0, 0, 0, 0, 0, 0, 0], &intel, &[7; 20]].concat()
}

/// An enclave report of Intel's TD quoting enclave that names the attestation key.
fn qe_report(ak: &EcdsaKeyPair) -> Vec<u8> {
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

const MRSIGNER: &str = "dc9e2a7c6f948f17474e34a7fc43ed030f7c1563f1babddf6340c82e0e54a8c5";

/// TD report 1.0, with the TDX module's version.
fn td10(tcb_svn: [u8; 3]) -> Vec<u8> {
    let mut body = vec![0; 584];
    body[..3].copy_from_slice(&tcb_svn);
    body[123] = 0x10; // SEPT_VE_DISABLE
    body[128..131].copy_from_slice(&[0xe7, 0x02, 0x06]);
    body[136..184].fill(0x11); // MRTD
    body[520..584].fill(0x22); // REPORT_DATA
    body
}

fn td15(tcb_svn: [u8; 3], current: [u8; 3]) -> Vec<u8> {
    [td10(tcb_svn), current.to_vec(), vec![0; 61]].concat()
}

fn tcb_info() -> Value {
    let components = |svns: &[u8]| -> Value { (0..16).map(|i| json!({ "svn": svns.get(i).unwrap_or(&0) })).collect() };
    let level = |microcode: u8, tdx: u8, pcesvn: u16, status: &str, advisories: &[&str]| {
        json!({
            "tcb": {
                "sgxtcbcomponents": components(&[microcode, microcode, 2, 2, 4, 1, 0, 5]),
                "tdxtcbcomponents": components(&[5, 0, tdx]),
                "pcesvn": pcesvn,
            },
            "tcbDate": "2025-05-14T00:00:00Z",
            "tcbStatus": status,
            "advisoryIDs": advisories,
        })
    };
    let zeros = "0".repeat(96);
    let module = |id: &str, levels: Value| {
        json!({ "id": id, "mrsigner": zeros, "attributes": "0000000000000000",
            "attributesMask": "FFFFFFFFFFFFFFFF", "tcbLevels": levels })
    };
    let isvsvn = |isvsvn: u8, status: &str, advisories: &[&str]| {
        json!({ "tcb": { "isvsvn": isvsvn }, "tcbDate": "2024-03-13T00:00:00Z", "tcbStatus": status,
            "advisoryIDs": advisories })
    };
    json!({
        "id": "TDX", "version": 3, "issueDate": "2025-06-01T00:00:00Z", "nextUpdate": "2025-07-01T00:00:00Z",
        "fmspc": "90C06F000000", "pceId": "0000", "tcbType": 0, "tcbEvaluationDataNumber": 17,
        "tdxModule": { "mrsigner": zeros, "attributes": "0000000000000000", "attributesMask": "FFFFFFFFFFFFFFFF" },
        "tdxModuleIdentities": [
            module("TDX_01", json!([isvsvn(6, "UpToDate", &[]), isvsvn(4, "OutOfDate", &["INTEL-SA-00004"]),
                isvsvn(2, "Revoked", &[])])),
            module("TDX_03", json!([isvsvn(3, "UpToDate", &[])])),
        ],
        // Not in order: a verifier sorts.
        "tcbLevels": [
            level(3, 2, 5, "OutOfDate", &["INTEL-SA-00003"]),
            level(5, 5, 11, "UpToDate", &[]),
            level(5, 4, 11, "SWHardeningNeeded", &["INTEL-SA-00002"]),
            level(4, 4, 11, "ConfigurationNeeded", &["INTEL-SA-00001"]),
            level(1, 1, 5, "Revoked", &[]),
        ],
    })
}

fn qe_identity() -> Value {
    json!({
        "id": "TD_QE", "version": 2, "issueDate": "2025-06-01T00:00:00Z", "nextUpdate": "2025-07-01T00:00:00Z",
        "tcbEvaluationDataNumber": 17, "miscselect": "00000000", "miscselectMask": "FFFFFFFF",
        "attributes": "11000000000000000000000000000000", "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
        "mrsigner": MRSIGNER.to_uppercase(), "isvprodid": 2,
        "tcbLevels": [
            { "tcb": { "isvsvn": 4 }, "tcbDate": "2024-03-13T00:00:00Z", "tcbStatus": "UpToDate" },
            { "tcb": { "isvsvn": 2 }, "tcbDate": "2023-08-09T00:00:00Z", "tcbStatus": "OutOfDate",
              "advisoryIDs": ["INTEL-SA-00009"] },
        ],
    })
}

#[test]
fn versions_4_and_5_with_every_td_report_verify() {
    let mint = Mint::new();
    let collateral = mint.good_collateral();
    let extended = [td15([6, 1, 5], [6, 1, 5]), vec![0; 237]].concat();
    for (version, body) in [(4, td10([6, 1, 5])), (5, td10([6, 1, 5])), (5, td15([6, 1, 5], [6, 1, 5])), (5, extended)]
    {
        let quote = mint.quote(version, &body);
        assert_eq!(mint.agreed(&quote, &collateral), Ok(("UpToDate".into(), vec![])), "{version} {}", body.len());
        let claims = mint.verify(&quote, &collateral).unwrap();
        TdxPolicy::default().check(&claims).unwrap();
        assert_eq!(claims.quote.body_type.is_some(), version == 5);
        assert_eq!(claims.quote.body.tee_tcb_svn2.is_some(), body.len() > 584);
        assert_eq!(claims.platform.sgx_type, "Scalable");
        assert_eq!(claims.platform.is_dynamic_platform, Some(true));
        assert_eq!(claims.platform.is_cached_keys, Some(false));
        let json = serde_json::to_value(&claims).unwrap();
        assert_eq!(serde_json::from_value::<TdxClaims>(json).unwrap(), claims);
    }
    // Type and size of version 5 must fit each other, and the TEE.
    let good = mint.quote(5, &td10([6, 1, 5]));
    for (at, value) in [(48, 1), (48, 3), (48, 5), (50, 0), (4, 0), (0, 6), (0, 4)] {
        let mut bad = good.clone();
        bad[at] = value;
        assert_eq!(mint.agreed(&bad, &collateral).unwrap_err(), "ATT-310", "byte {at}");
    }
}

#[test]
fn every_bit_of_a_version_5_quote_is_signed() {
    let mint = Mint::new();
    let collateral = Collateral::parse(&serde_json::to_vec(&mint.good_collateral()).unwrap()).unwrap();
    let roots = vec![Certificate::from_der(&mint.root.der).unwrap()];
    let verifier = DcapVerifier::new(roots, Some(&collateral), NOW).unwrap();
    let good = mint.quote(5, &td15([6, 1, 5], [6, 1, 5]));
    let verify = |quote: &[u8]| verifier.verify(&TdxEvidence::parse(quote, None)?, None, NOW).map(drop);
    assert_eq!(verify(&good), Ok(()));
    for bit in (0..(54 + 648) * 8).step_by(3) {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(verify(&bad).is_err(), "bit {bit}");
    }
}

/// Platform, module and quoting enclave each have a say; for TD 1.5 also what runs now.
#[test]
fn tcb_levels_are_matched_as_intels_library_does() {
    let verdict = |components: [u8; 16], pce_svn, body: &[u8], qe_svn: u8| {
        let mint = Mint::with_pck(sgx_extension(components, pce_svn, [0, 0]));
        let mut report = qe_report(&mint.ak);
        report[258] = qe_svn;
        let version = if body.len() == 584 { 4 } else { 5 };
        let quote = mint.quote_of(version, body, &report, &certification(5, mint.chain().as_bytes()));
        mint.agreed(&quote, &mint.good_collateral()).map(|(status, advisories)| (status, advisories.join(" ")))
    };
    let platform = |microcode: u8| {
        let mut components = COMPONENTS;
        components[..2].fill(microcode);
        components
    };
    let is = |status: &str, advisories: &str| Ok((status.to_owned(), advisories.to_owned()));
    let good = td10([6, 1, 5]);
    assert_eq!(verdict(platform(5), 11, &good, 4), is("UpToDate", ""));
    assert_eq!(verdict(platform(200), 99, &td10([9, 1, 9]), 200), is("UpToDate", ""));
    assert_eq!(verdict(platform(5), 11, &td10([6, 1, 4]), 4), is("SWHardeningNeeded", "INTEL-SA-00002"));
    assert_eq!(verdict(platform(4), 11, &good, 4), is("ConfigurationNeeded", "INTEL-SA-00001"));
    assert_eq!(verdict(platform(5), 10, &good, 4), is("OutOfDate", "INTEL-SA-00003"));
    // The module.
    assert_eq!(verdict(platform(5), 11, &td10([5, 1, 5]), 4), is("OutOfDate", "INTEL-SA-00004"));
    assert_eq!(
        verdict(platform(4), 11, &td10([4, 1, 5]), 4),
        is("OutOfDateConfigurationNeeded", "INTEL-SA-00001 INTEL-SA-00004")
    );
    assert_eq!(verdict(platform(5), 11, &td10([3, 3, 5]), 4), is("UpToDate", ""));
    // Version 0 has no identity: components 0 and 1 count.
    assert_eq!(verdict(platform(5), 11, &td10([5, 0, 5]), 4), is("UpToDate", ""));
    for refused in [[4, 0, 5], [2, 1, 5], [1, 1, 5], [2, 3, 5], [6, 2, 5], [6, 1, 0]] {
        assert_eq!(verdict(platform(5), 11, &td10(refused), 4), Err("ATT-316"), "{refused:?}");
    }
    // The quoting enclave.
    assert_eq!(verdict(platform(5), 11, &good, 3), is("OutOfDate", "INTEL-SA-00009"));
    assert_eq!(verdict(platform(5), 11, &good, 1), Err("ATT-316"));
    // The platform is revoked, or below all levels.
    assert_eq!(verdict(platform(1), 11, &good, 4), Err("ATT-316"));
    assert_eq!(verdict(platform(0), 11, &good, 4), Err("ATT-316"));
    // TD 1.5: launched on an old module, which was updated since.
    assert_eq!(verdict(platform(5), 11, &td15([5, 1, 5], [6, 1, 5]), 4), is("TDRelaunchAdvised", "INTEL-SA-00004"));
    assert_eq!(
        verdict(platform(4), 11, &td15([5, 1, 5], [6, 1, 5]), 4),
        is("TDRelaunchAdvisedConfigurationNeeded", "INTEL-SA-00001 INTEL-SA-00004")
    );
    assert_eq!(verdict(platform(5), 11, &td15([5, 1, 5], [5, 1, 5]), 4), is("OutOfDate", "INTEL-SA-00004"));
    assert_eq!(verdict(platform(5), 11, &td15([6, 1, 5], [5, 1, 5]), 4), is("UpToDate", ""));
    assert_eq!(verdict(platform(5), 11, &td15([6, 1, 5], [2, 1, 5]), 4), Err("ATT-316"));
    assert_eq!(verdict(platform(5), 11, &td15([6, 1, 5], [9, 9, 5]), 4), Err("ATT-316"));
}

#[test]
fn attack_the_tdx_module_is_not_intels() {
    let mint = Mint::new();
    let collateral = mint.good_collateral();
    // Signer, attributes (debug).
    for at in [64, 112, 119] {
        let mut body = td10([6, 1, 5]);
        body[at] = 0x80;
        assert_eq!(mint.agreed(&mint.quote(4, &body), &collateral), Err("ATT-316"), "byte {at}");
        // Without collateral, against what every TCB info says.
        let roots = vec![Certificate::from_der(&mint.root.der).unwrap()];
        let verifier = DcapVerifier::new(roots, None, NOW).unwrap();
        let verify = |body: &[u8]| {
            verifier.verify(&TdxEvidence::parse(&mint.quote(4, body), None).unwrap(), None, NOW).map(drop)
        };
        assert_eq!(verify(&td10([6, 1, 5])), Ok(()));
        assert_eq!(verify(&body).unwrap_err().code(), "ATT-316");
    }
    // A bit outside the mask.
    let mut info = tcb_info();
    info["tdxModuleIdentities"][0]["attributesMask"] = json!("00FFFFFFFFFFFFFF");
    let mut body = td10([6, 1, 5]);
    body[112] = 1;
    assert_eq!(mint.agreed(&mint.quote(4, &body), &mint.collateral(&info, &qe_identity())), Err("ATT-316"));
}

#[test]
fn attributes_are_claims_and_reserved_bits_are_refused() {
    let mint = Mint::new();
    let collateral = mint.good_collateral();
    for bit in 0..64 {
        let mut body = td10([6, 1, 5]);
        body[120 + bit / 8] ^= 1 << (bit % 8);
        let verdict = mint.verify(&mint.quote(4, &body), &collateral);
        let reserved = matches!(bit, 1..=3 | 7..=15 | 23..=26 | 32..=61);
        match verdict {
            Err(error) => assert!(reserved && error.code() == "ATT-317", "bit {bit}: {error}"),
            Ok(claims) => {
                assert!(!reserved, "bit {bit}");
                let acceptable = TdxPolicy::default().check(&claims).is_ok();
                // Debug, profiling, service TDs, SEPT_VE_DISABLE, migration.
                assert_eq!(acceptable, !matches!(bit, 0 | 4..=6 | 17 | 28 | 29), "bit {bit}");
            }
        }
    }
}

#[test]
fn attack_quoting_enclave_of_somebody_else() {
    let mint = Mint::new();
    let collateral = mint.good_collateral();
    let chain = certification(5, mint.chain().as_bytes());
    let body = td10([6, 1, 5]);
    // Signer, product, MISCSELECT, flags, debug: a genuine platform runs anybody's enclave.
    for (at, value) in [(128, 0), (256, 1), (16, 1), (48, 0x15 ^ 0x10), (48, 0x13), (55, 1)] {
        let mut report = qe_report(&mint.ak);
        report[at] = value;
        let verdict = mint.agreed(&mint.quote_of(4, &body, &report, &chain), &collateral);
        assert_eq!(verdict, Err("ATT-315"), "byte {at}");
        let roots = vec![Certificate::from_der(&mint.root.der).unwrap()];
        let quote = TdxEvidence::parse(&mint.quote_of(4, &body, &report, &chain), None).unwrap();
        let verdict = DcapVerifier::new(roots, None, NOW).unwrap().verify(&quote, None, NOW);
        assert_eq!(verdict.unwrap_err().code(), "ATT-315", "byte {at}, without collateral");
    }
    // A QE identity that does not mask debug still allows none.
    let mut lax = qe_identity();
    lax["attributesMask"] = json!("00000000000000000000000000000000");
    let mut report = qe_report(&mint.ak);
    report[48] = 0x13;
    let collateral_lax = mint.collateral(&tcb_info(), &lax);
    assert_eq!(mint.agreed(&mint.quote_of(4, &body, &report, &chain), &collateral_lax), Err("ATT-315"));

    // The enclave vouched for another key, or for other authentication data.
    let mut report = qe_report(&mint.ak);
    report[320] ^= 1;
    assert_eq!(mint.agreed(&mint.quote_of(4, &body, &report, &chain), &collateral), Err("ATT-314"));
    // Another platform's key signed the enclave's report; another key the quote.
    let other =
        Mint { pck: Authority::new("Intel SGX PCK Certificate", 5, false, Some(&mint.ca), None), ..Mint::new() };
    let quote = other.quote_of(4, &body, &qe_report(&other.ak), &chain);
    assert_eq!(mint.agreed(&quote, &collateral), Err("ATT-313"));
}

#[test]
fn attack_certificates_that_are_not_what_they_should_be() {
    let mint = Mint::new();
    let body = td10([6, 1, 5]);
    let quote = mint.quote(4, &body);
    let collateral = mint.good_collateral();
    assert!(mint.agreed(&quote, &collateral).is_ok());
    // Somebody else's root, intermediates and all.
    let other = Mint::new();
    assert_eq!(mint.agreed(&other.quote(4, &body), &collateral), Err("ATT-311"));
    assert_eq!(mint.agreed(&quote, &other.good_collateral()), Err("ATT-312"));
    // Chains: without the root, in another order, one certificate too many, the CA alone.
    let [pck, ca, root] = [&mint.pck.pem, &mint.ca.pem, &mint.root.pem];
    for parts in [
        vec![pck, ca],
        vec![ca, pck, root],
        vec![root, ca, pck],
        vec![pck, root, ca],
        vec![pck, ca, root, root],
        vec![ca],
    ] {
        let chain: String = parts.into_iter().map(String::as_str).collect();
        let quote = mint.quote_of(4, &body, &qe_report(&mint.ak), &certification(5, chain.as_bytes()));
        assert!(matches!(mint.verify(&quote, &collateral).unwrap_err().code(), "ATT-311" | "ATT-312"));
    }
    // The TCB signer as a platform's certificate, and a platform's as TCB signer.
    let forged = Mint {
        pck: Authority::new(
            "Intel SGX TCB Signing",
            4,
            false,
            Some(&mint.ca),
            Some(sgx_extension(COMPONENTS, 11, [0, 0])),
        ),
        ..Mint::new()
    };
    let chain = [&*forged.pck.pem, ca, root].concat();
    let quote_of = forged.quote_of(4, &body, &qe_report(&forged.ak), &certification(5, chain.as_bytes()));
    assert_eq!(mint.verify(&quote_of, &collateral).unwrap_err().code(), "ATT-311");
    let mut forged = collateral.clone();
    forged["tcb_info_issuer_chain"] = json!([pck.as_str(), ca, root].concat());
    forged["tcb_info_signature"] = json!(hex::encode(mint.pck.sign(forged["tcb_info"].as_str().unwrap().as_bytes())));
    assert_eq!(mint.agreed(&quote, &forged), Err("ATT-312"));
    // A CA of ours below the root's CA, which signs TCB info.
    let rogue = Authority::new("Intel SGX TCB Signing", 6, false, Some(&mint.ca), None);
    forged["tcb_info_issuer_chain"] = json!([rogue.pem.as_str(), ca, root].concat());
    forged["tcb_info_signature"] = json!(hex::encode(rogue.sign(forged["tcb_info"].as_str().unwrap().as_bytes())));
    assert_eq!(mint.agreed(&quote, &forged), Err("ATT-312"));
    // PCK certificates without the SGX extension, or of another PCE (which dcap-qvl does not compare).
    let bare = Mint { pck: Authority::new("Intel SGX PCK Certificate", 4, false, Some(&mint.ca), None), ..Mint::new() };
    let chain = [&*bare.pck.pem, ca, root].concat();
    let quote_of = bare.quote_of(4, &body, &qe_report(&bare.ak), &certification(5, chain.as_bytes()));
    assert_eq!(mint.agreed(&quote_of, &collateral), Err("ATT-311"));
    let other_pce = Mint::with_pck(sgx_extension(COMPONENTS, 11, [1, 0]));
    let refused = other_pce.verify(&other_pce.quote(4, &body), &other_pce.good_collateral()).unwrap_err();
    assert_eq!(refused.code(), "ATT-413");
}

#[test]
fn attack_revoked_platform_ca_signer_and_root() {
    let mint = Mint::new();
    let quote = mint.quote(4, &td10([6, 1, 5]));
    let mut collateral = mint.good_collateral();
    assert!(mint.agreed(&quote, &collateral).is_ok());
    collateral["pck_crl"] = json!(mint.ca.crl(&[4]));
    assert_eq!(mint.agreed(&quote, &collateral), Err("ATT-312"));
    let mut collateral = mint.good_collateral();
    for (serial, code) in [(2, "ATT-312"), (3, "ATT-312"), (1, "ATT-411")] {
        collateral["root_ca_crl"] = json!(mint.root.crl(&[serial]));
        assert_eq!(mint.agreed(&quote, &collateral), Err(code), "serial {serial}");
    }
    // A list that somebody else signed.
    let other = Mint::new();
    let mut collateral = mint.good_collateral();
    collateral["pck_crl"] = json!(other.ca.crl(&[]));
    assert_eq!(mint.agreed(&quote, &collateral), Err("ATT-312"));
}

#[test]
fn attack_documents_that_expired_or_are_of_the_future() {
    let mint = Mint::new();
    let quote = mint.quote(4, &td10([6, 1, 5]));
    for (member, value) in
        [("issueDate", "2025-06-15T15:06:41Z"), ("nextUpdate", "2025-06-15T15:06:39Z"), ("nextUpdate", "yesterday")]
    {
        let expected = if value == "yesterday" { "ATT-411" } else { "ATT-412" };
        let mut info = tcb_info();
        info[member] = json!(value);
        assert_eq!(mint.agreed(&quote, &mint.collateral(&info, &qe_identity())), Err(expected));
        let mut identity = qe_identity();
        identity[member] = json!(value);
        assert_eq!(mint.agreed(&quote, &mint.collateral(&tcb_info(), &identity)), Err(expected));
    }
    let mut collateral = mint.good_collateral();
    for (member, authority) in [("root_ca_crl", &mint.root), ("pck_crl", &mint.ca)] {
        collateral[member] = json!(authority.crl_of(&[], (5, 1), (6, 1)));
        assert_eq!(mint.agreed(&quote, &collateral), Err("ATT-412"), "{member}");
        // A list of the future, which dcap-qvl believes.
        collateral[member] = json!(authority.crl_of(&[], (6, 20), (7, 1)));
        assert_eq!(mint.verify(&quote, &collateral).unwrap_err().code(), "ATT-412", "{member}");
        assert!(mint.second_opinion(&quote, &collateral).is_ok());
        collateral[member] = json!(authority.crl(&[]));
    }
    // NOW itself, the first and the last second: 2025-06-15T15:06:40Z.
    let mut info = tcb_info();
    info["issueDate"] = json!("2025-06-15T15:06:40Z");
    info["nextUpdate"] = json!("2025-06-15T15:06:40Z");
    assert!(mint.agreed(&quote, &mint.collateral(&info, &qe_identity())).is_ok());
}

#[test]
fn attack_documents_of_another_kind() {
    let mint = Mint::new();
    let quote = mint.quote(4, &td10([6, 1, 5]));
    let with = |pointer: &str, value: Value| {
        let mut info = tcb_info();
        *info.pointer_mut(pointer).unwrap() = value;
        mint.agreed(&quote, &mint.collateral(&info, &qe_identity()))
    };
    assert_eq!(with("/id", json!("SGX")), Err("ATT-413"));
    assert_eq!(with("/id", json!("QE")), Err("ATT-411"));
    assert_eq!(with("/version", json!(2)), Err("ATT-411"));
    assert_eq!(with("/fmspc", json!("90C06F000001")), Err("ATT-413"));
    assert_eq!(with("/tdxModule", Value::Null), Err("ATT-411"));
    assert_eq!(with("/tcbLevels", json!([])), Err("ATT-316"));
    // A level that no platform reaches first (dcap-qvl reads on).
    let mut info = tcb_info();
    info["tcbLevels"][1]["tcb"]["tdxtcbcomponents"] = json!([]);
    assert_eq!(mint.verify(&quote, &mint.collateral(&info, &qe_identity())).unwrap_err().code(), "ATT-411");
    assert_eq!(with("/tcbLevels/1/tcbStatus", json!("Fine")), Err("ATT-411"));
    assert_eq!(with("/tcbLevels/1/tcbStatus", json!("TDRelaunchAdvised")), Err("ATT-411"));
    assert_eq!(with("/tdxModuleIdentities/0/tcbLevels/0/tcbStatus", json!("SWHardeningNeeded")), Err("ATT-411"));
    for (member, value) in [("id", json!("QE")), ("id", json!("QVE")), ("version", json!(1)), ("tcbLevels", json!([]))]
    {
        let mut identity = qe_identity();
        identity[member] = value;
        assert!(mint.agreed(&quote, &mint.collateral(&tcb_info(), &identity)).is_err(), "{member}");
    }
}

/// Platforms without a registered chain send an encrypted PPID: the chain comes with the collateral.
#[test]
fn an_encrypted_ppid_needs_the_collaterals_chain() {
    let mint = Mint::new();
    let body = td10([6, 1, 5]);
    let mut collateral = mint.good_collateral();
    let quote = mint.quote_of(4, &body, &qe_report(&mint.ak), &certification(3, &[0; 404]));
    assert_eq!(mint.agreed(&quote, &collateral), Err("ATT-311"));
    collateral["pck_certificate_chain"] = json!(mint.chain());
    assert!(mint.agreed(&quote, &collateral).is_ok());
    // Another platform's chain does not fit the signature.
    let other = Authority::new(
        "Intel SGX PCK Certificate",
        5,
        false,
        Some(&mint.ca),
        Some(sgx_extension(COMPONENTS, 11, [0, 0])),
    );
    collateral["pck_certificate_chain"] = json!([other.pem, mint.ca.pem.clone(), mint.root.pem.clone()].concat());
    assert_eq!(mint.agreed(&quote, &collateral), Err("ATT-313"));
    // Certification data that says something else.
    for kind in [0, 1, 4, 6, 7] {
        let quote = mint.quote_of(4, &body, &qe_report(&mint.ak), &certification(kind, mint.chain().as_bytes()));
        assert_eq!(mint.agreed(&quote, &mint.good_collateral()), Err("ATT-310"), "{kind}");
    }
}

#[test]
fn a_status_that_needs_hardened_software_is_not_accepted_by_default() {
    let mint = Mint::new();
    let claims = mint.verify(&mint.quote(4, &td10([6, 1, 4])), &mint.good_collateral()).unwrap();
    assert_eq!(claims.platform.tcb_status, Some(TcbStatus::SWHardeningNeeded));
    assert_eq!(TdxPolicy::default().check(&claims).unwrap_err().code(), "ATT-414");
    let named = TdxPolicy {
        tcb_statuses: [TcbStatus::UpToDate, TcbStatus::SWHardeningNeeded].into(),
        accepted_advisories: Some(["INTEL-SA-00002".into()].into()),
        ..TdxPolicy::default()
    };
    named.check(&claims).unwrap();
    // A policy is a document.
    let text = serde_json::to_string(&named).unwrap();
    assert_eq!(serde_json::from_str::<TdxPolicy>(&text).unwrap(), named);
    assert_eq!(serde_json::from_str::<TdxPolicy>("{}").unwrap(), TdxPolicy::default());
    assert!(serde_json::from_str::<TdxPolicy>(r#"{"allow_debugging": true}"#).is_err());
}

/// A TD's evidence as its attester sends it, for the session with this digest.
fn in_a_session(mint: &Mint, binding: &[u8; 48], change: impl FnOnce(&mut [u8])) -> Value {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let mut body = td10([5, 0, 6]);
    body[520..584].copy_from_slice(&report_data(binding));
    change(&mut body);
    json!({ "cc_eventlog": null, "quote": STANDARD.encode(mint.quote(4, &body)) })
}

#[test]
fn a_td_in_the_release_protocol() {
    let mint = Mint::new();
    let vendors = Vendors::new(SnpRoots::amd().unwrap().clone(), vec![Certificate::from_der(&mint.root.der).unwrap()]);
    let binding = [0x42; 48];
    let found = vendors.verify("tdx", &in_a_session(&mint, &binding, |_| {}), &binding, NOW).unwrap();
    assert_eq!(found.claims["quote"]["body"]["mr_td"], "11".repeat(48));
    assert_eq!(found.claims["trust"], "tee");
    let left_out: Vec<_> =
        found.claims["not_checked"].as_array().unwrap().iter().filter_map(|n| n["check"].as_str()).collect();
    assert!(found.incomplete && left_out.contains(&"tcb-status"), "no collateral was at hand: {left_out:?}");
    assert!(!left_out.contains(&"report-data"));

    // attack_a_report_of_another_session
    let stolen = vendors.verify("tdx", &in_a_session(&mint, &[0x43; 48], |_| {}), &binding, NOW).unwrap_err();
    assert!(stolen.is_wrong_nonce(), "{stolen}");
    let genuine = Vendors::genuine().unwrap();
    let foreign = genuine.verify("tdx", &in_a_session(&mint, &binding, |_| {}), &binding, NOW).unwrap_err();
    assert!(!foreign.is_wrong_nonce() && !foreign.is_forbidden() && !foreign.is_malformed(), "{foreign}");
    let unknown = vendors.verify("sgx", &json!({}), &binding, NOW).unwrap_err();
    assert_eq!(unknown.code(), "ATT-394");
}

#[test]
fn attack_a_debug_td_and_a_migratable_td() {
    let mint = Mint::new();
    let vendors = Vendors::new(SnpRoots::amd().unwrap().clone(), vec![Certificate::from_der(&mint.root.der).unwrap()]);
    let binding = [0x42; 48];
    // TD attributes, bits 0 and 29.
    for (byte, bit, word) in [(120, 0x01, "debug"), (123, 0x20, "move")] {
        let evidence = in_a_session(&mint, &binding, |body| body[byte] |= bit);
        let refused = vendors.verify("tdx", &evidence, &binding, NOW).unwrap_err();
        assert!(refused.is_forbidden() && refused.to_string().contains(word), "{refused}");
    }
}
