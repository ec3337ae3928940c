//! Azure's vTPM evidence: recorded, changed, forged.

use std::{fs, path::PathBuf};

use base64::{Engine as _, engine::general_purpose::URL_SAFE};
use cvm_base::{Explain, sha256};
use cvm_verify::{
    azure::{AzureBound, AzureError, AzureEvidence, Hardware, HardwareKind, HclReport, QuoteFiles},
    quote::{TpmError, TpmPolicy},
    snp::{SnpError, SnpPolicy, SnpRoots},
    x509::Certificate,
};
use serde_json::{Value, json};

const NOW: u64 = 1_760_000_000; // 2025-10-09
const NONCE: &[u8] = b"challenge";
const SNP: [&str; 2] = ["snp-trustee-evidence-v0", "snp-trustee-evidence-v1"];
const TDX: &str = "tdx-trustee-evidence-v0";
/// Where the runtime data begins, and its length's place before it.
const RUNTIME: usize = 0x4d4;
const LENGTH: usize = 0x4d0;
/// Where the SNP report has its report data and its VMPL, in the HCL report.
const SNP_REPORT_DATA: usize = 0x20 + 0x50;
const SNP_VMPL: usize = 0x20 + 0x30;

#[derive(Clone)]
struct Files {
    hcl: Vec<u8>,
    message: Vec<u8>,
    signature: Vec<u8>,
    pcrs: Vec<u8>,
    vcek: Vec<u8>,
    td_quote: Vec<u8>,
}

fn files(folder: &str) -> Files {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/vectors/evidence/azure")
        .join(folder);
    let read = |name: &str| fs::read(folder.join(name)).unwrap_or_default();
    Files {
        hcl: read("hcl.bin"),
        message: read("quote.msg"),
        signature: read("quote.sig"),
        pcrs: read("pcrs.bin"),
        vcek: read("vcek.der"),
        td_quote: read("td_quote.bin"),
    }
}

impl Files {
    fn parse(&self) -> Result<AzureEvidence, AzureError> {
        let hardware = if self.td_quote.is_empty() {
            Hardware::Snp(Some(Box::new(Certificate::from_der(&self.vcek).unwrap())))
        } else {
            Hardware::Tdx(self.td_quote.clone())
        };
        let quote =
            QuoteFiles { message: &self.message, signature: &self.signature, pcrs: &self.pcrs };
        AzureEvidence::parse(&self.hcl, quote, hardware)
    }

    /// Checked over `nonce`; what would be claimed.
    fn bind(&self, nonce: &[u8]) -> Result<Value, AzureError> {
        let evidence = self.parse()?;
        evidence.check_binding(nonce, &TpmPolicy::default()).map(|bound| bound.claims(json!({})))
    }

    /// With other runtime data, which the hardware report is made to carry: what only the
    /// hardware's signature would catch.
    fn forge(&self, runtime: &str) -> Self {
        let mut forged = self.clone();
        let length = runtime.len() as u32;
        forged.hcl.truncate(RUNTIME);
        forged.hcl[8..12].copy_from_slice(&(length + RUNTIME as u32).to_le_bytes());
        forged.hcl[0x4c0..0x4c4].copy_from_slice(&(length + 20).to_le_bytes());
        forged.hcl[LENGTH..RUNTIME].copy_from_slice(&length.to_le_bytes());
        forged.hcl.extend(runtime.as_bytes());
        forged.hcl[SNP_REPORT_DATA..SNP_REPORT_DATA + 32]
            .copy_from_slice(&sha256(runtime.as_bytes()).0);
        forged
    }

    fn runtime(&self) -> String {
        String::from_utf8(HclReport::parse(&self.hcl).unwrap().runtime_data().to_vec()).unwrap()
    }

    /// As Trustee's attesters send it.
    fn json(&self, version: u64) -> Value {
        let pcrs: Vec<&[u8]> = self.pcrs.chunks(32).collect();
        let arrays = json!({ "signature": self.signature, "message": self.message, "pcrs": pcrs });
        let hex = json!({
            "signature": hex::encode(&self.signature),
            "message": hex::encode(&self.message),
            "pcrs": pcrs.iter().map(hex::encode).collect::<Vec<_>>(),
        });
        let base64 = |bytes: &[u8]| URL_SAFE.encode(bytes);
        match (version, self.td_quote.is_empty()) {
            (0, true) => {
                let body = base64::engine::general_purpose::STANDARD.encode(&self.vcek);
                let pem =
                    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
                json!({ "quote": arrays, "report": self.hcl, "vcek": pem })
            }
            (0, false) => {
                json!({ "tpm_quote": arrays, "hcl_report": self.hcl, "td_quote": self.td_quote })
            }
            (version, true) => json!({
                "version": version, "tpm_quote": hex, "hcl_report": base64(&self.hcl),
                "vcek": base64(&self.vcek),
            }),
            (version, false) => json!({
                "version": version, "tpm_quote": hex, "hcl_report": base64(&self.hcl),
                "td_quote": base64(&self.td_quote),
            }),
        }
    }
}

fn bind<'a>(evidence: &'a AzureEvidence, nonce: &[u8]) -> Result<AzureBound<'a>, AzureError> {
    evidence.check_binding(nonce, &TpmPolicy::default())
}

#[test]
fn every_vector_is_bound_to_its_hardware_report() {
    for folder in SNP {
        let evidence = files(folder).parse().unwrap();
        let bound = bind(&evidence, NONCE).unwrap();
        assert_eq!((bound.kind, bound.hardware_report.len()), (HardwareKind::Snp, 1184));
        assert_eq!(bound.hardware_report[0x50..0x70], bound.report_data);
        assert!(bound.vcek.unwrap().subject().contains("VCEK"));
        assert_eq!(bound.runtime.user_data, Some(vec![0; 64]));
        let claims = bound
            .claims(json!({ "measurement": "from the hardware", "report_data": "the hardware's" }));
        // What Trustee's own test expects.
        assert_eq!(
            claims["tpm"]["pcr00"],
            "e15c44796beabf46abcec7c57e590942041e47497e4ec27571c8b7664f48dced"
        );
        assert_eq!(claims["report_data"], "6368616c6c656e6765");
        assert_eq!(claims["init_data"], claims["tpm"]["pcr08"]);
        assert_eq!(claims["measurement"], "from the hardware");
        assert_eq!(claims["tpm"]["trust"], "hardware-bound");
        assert_eq!(claims["runtime"]["vm_configuration"]["secure-boot"], true);
        let skipped: Vec<_> =
            bound.quote.not_checked.iter().map(|skipped| skipped.check.as_str()).collect();
        assert_eq!(skipped, ["event-log"]);
    }
    let evidence = files(TDX).parse().unwrap();
    let bound = bind(&evidence, NONCE).unwrap();
    assert_eq!((bound.kind, bound.hardware_report.len()), (HardwareKind::Tdx, 5006));
    assert_eq!(bound.hardware_report[48 + 520..48 + 584], bound.expected_report_data());
    let pcr00 = &bound.claims(json!({}))["tpm"]["pcr00"];
    assert_eq!(pcr00, "782b20b10f55cc46e2142cc2145d548698073e5beb82752c8d7f9279f0d8a273");
}

#[test]
fn every_snp_vector_verifies_up_to_amds_root() {
    let roots = SnpRoots::amd().unwrap();
    for folder in SNP {
        let evidence = files(folder).parse().unwrap();
        let bound = bind(&evidence, NONCE).unwrap();
        let snp = bound.verify_snp(&[], roots, &[], NOW).unwrap();
        SnpPolicy { max_vmpl: 0, ..SnpPolicy::default() }.check(&snp).unwrap();
        let claims = bound.claims(serde_json::to_value(&snp).unwrap());
        assert_eq!(claims["product"], "Milan");
        assert_eq!(claims["measurement"], json!(snp.measurement));
        assert_eq!(claims["report_data"], "6368616c6c656e6765");
        assert!(
            bound.verify_snp(&[], roots, &[], 1_500_000_000).is_err(),
            "before the certificate's time"
        );
    }
    let evidence = files(TDX).parse().unwrap();
    assert!(matches!(
        bind(&evidence, NONCE).unwrap().verify_snp(&[], roots, &[], NOW),
        Err(AzureError::Kind { .. })
    ));
}

/// What the binding alone cannot see: the hardware's signature does.
#[test]
fn attack_a_forged_hardware_report() {
    let files = files(SNP[0]);
    let roots = SnpRoots::amd().unwrap();
    let verify = |files: &Files| {
        let evidence = files.parse()?;
        bind(&evidence, NONCE)?.verify_snp(&[], roots, &[], NOW)
    };
    verify(&files).unwrap();
    // Another name for the VM in runtime data whose hash the report was made to carry.
    let renamed = files.forge(&files.runtime().replace("26F8BC30", "26F8BC31"));
    renamed.bind(NONCE).unwrap();
    assert!(matches!(verify(&renamed), Err(AzureError::Snp(SnpError::Signature { .. }))));
    for bit in
        (0x20 * 8..(0x20 + 0x2a0 + 48) * 8).step_by(if cfg!(debug_assertions) { 41 } else { 1 })
    {
        let mut bad = files.clone();
        bad.hcl[bit / 8] ^= 1 << (bit % 8);
        assert!(verify(&bad).is_err(), "bit {bit}");
    }
}

#[test]
fn trustees_json_is_read_in_its_versions() {
    for (files, kind) in [(files(SNP[1]), HardwareKind::Snp), (files(TDX), HardwareKind::Tdx)] {
        let from_files = files.bind(NONCE).unwrap();
        for version in [0, 1] {
            let evidence = AzureEvidence::from_json(kind, &files.json(version)).unwrap();
            assert_eq!(bind(&evidence, NONCE).unwrap().claims(json!({})), from_files);
        }
        // Version 2 has the nonce in the runtime data, and these have zeros there.
        let evidence = AzureEvidence::from_json(kind, &files.json(2)).unwrap();
        assert!(matches!(bind(&evidence, NONCE), Err(AzureError::UserData { .. })));
    }
}

#[test]
fn trustees_version_2_is_bound_twice() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/vectors/azure-trustee-v2/evidence.json");
    let body: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let evidence = AzureEvidence::from_json(HardwareKind::Snp, &body).unwrap();
    let nonce = hex::decode(
        "982f5c6e45df0ed3f10b6f60b02f0c8390e281300f3805e2279c16168cd6ae9aa398f647caa2338748cd0fd9f5f819ef",
    );
    let nonce = nonce.unwrap();
    let bound = bind(&evidence, &nonce).unwrap();
    bound.verify_snp(&[], SnpRoots::amd().unwrap(), &[], NOW).unwrap();
    let claims = bound.claims(json!({}));
    assert_eq!(
        claims["tpm"]["pcr00"],
        "84275b2f4312cd4fc6cbe6b152ad3c3683e513d9f1e23c34fca160c8cca7a6a7"
    );
    assert_eq!(claims["report_data"], hex::encode(&nonce));
    assert!(bind(&evidence, &nonce[..32]).is_err(), "a beginning of the nonce is another nonce");
}

#[test]
fn an_unknown_version_is_named() {
    for (version, shown) in [
        (json!(3), "3"),
        (json!("1"), "\"1\""),
        (json!(1.0), "1.0"),
        (json!(null), "null"),
        (json!(-1), "-1"),
    ] {
        // Members of version 0 beside it do not help.
        let mut body = files(SNP[0]).json(0);
        body["version"] = version;
        let refused = AzureEvidence::from_json(HardwareKind::Snp, &body).unwrap_err();
        let expected = AzureError::Version {
            tee: "az-snp-vtpm",
            found: shown.into(),
            known: "0 (without a version), 1 and 2",
        };
        assert_eq!(refused, expected);
        assert_eq!(refused.code(), "ATT-320");
    }
    for body in
        [json!(null), json!([]), json!({}), json!({ "version": 1 }), json!({ "version": 0 })]
    {
        assert!(AzureEvidence::from_json(HardwareKind::Tdx, &body).is_err(), "{body}");
    }
}

#[test]
fn evidence_of_another_kind_is_refused() {
    let (snp, tdx) = (files(SNP[0]), files(TDX));
    let mixed = Files { hcl: snp.hcl.clone(), ..tdx.clone() };
    let refused = mixed.parse().unwrap_err();
    assert_eq!(refused, AzureError::Kind { expected: HardwareKind::Tdx, found: HardwareKind::Snp });
    assert!(AzureEvidence::from_json(HardwareKind::Snp, &tdx.json(1)).is_err());
    let mut unknown = snp.clone();
    unknown.hcl[0x4c8] = 3;
    assert_eq!(unknown.parse().unwrap_err(), AzureError::ReportType { found: 3 });
}

#[test]
fn attack_an_empty_or_another_nonce() {
    for folder in [SNP[0], SNP[1], TDX] {
        let files = files(folder);
        let refused = files.bind(b"").unwrap_err();
        assert_eq!(refused, AzureError::Quote(TpmError::EmptyNonce));
        assert_eq!(refused.code(), "ATT-333");
        for nonce in [&b"challeng"[..], b"challenge\0", b"6368616c6c656e6765"] {
            assert!(matches!(files.bind(nonce), Err(AzureError::Quote(TpmError::Nonce { .. }))));
        }
    }
}

/// Every bit in `make test`; debug builds are slow, and take some.
const STRIDE: usize = if cfg!(debug_assertions) { 7 } else { 1 };

/// Everything that the runtime data says hangs on its hash.
#[test]
fn no_flipped_bit_in_the_runtime_data_passes() {
    for folder in [SNP[0], TDX] {
        let files = files(folder);
        let length = HclReport::parse(&files.hcl).unwrap().runtime_data().len();
        for bit in (LENGTH * 8..(RUNTIME + length) * 8).step_by(STRIDE) {
            let mut bad = files.clone();
            bad.hcl[bit / 8] ^= 1 << (bit % 8);
            assert!(bad.bind(NONCE).is_err(), "{folder}: bit {bit}");
        }
        // Behind it lie zeros that nothing signs.
        let mut bad = files.clone();
        *bad.hcl.last_mut().unwrap() = 1;
        assert!(bad.parse().is_err());
    }
}

#[test]
fn no_flipped_bit_in_the_hardware_reports_binding_passes() {
    let snp = files(SNP[0]);
    for bit in
        (SNP_VMPL * 8..(SNP_VMPL + 4) * 8).chain(SNP_REPORT_DATA * 8..(SNP_REPORT_DATA + 32) * 8)
    {
        let mut bad = snp.clone();
        bad.hcl[bit / 8] ^= 1 << (bit % 8);
        assert!(bad.bind(NONCE).is_err(), "SNP bit {bit}");
    }
    let mut guest = snp;
    guest.hcl[SNP_VMPL] = 1;
    assert_eq!(guest.bind(NONCE).unwrap_err(), AzureError::Vmpl { found: 1 });

    // The TD quote's body, and the HCL's TDREPORT from the SVNs on.
    let tdx = files(TDX);
    for bit in (48 * 8..(48 + 584) * 8).step_by(STRIDE) {
        let mut bad = tdx.clone();
        bad.td_quote[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(bad.bind(NONCE), Err(AzureError::TdReport { .. })), "quote bit {bit}");
    }
    for bit in (128 * 8..192 * 8).chain(264 * 8..384 * 8).chain(512 * 8..912 * 8).step_by(STRIDE) {
        let mut bad = tdx.clone();
        bad.hcl[0x20 + bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(bad.bind(NONCE), Err(AzureError::TdReport { .. })), "TDREPORT bit {bit}");
    }
}

#[test]
fn no_flipped_bit_in_the_quote_passes() {
    for folder in [SNP[1], TDX] {
        let files = files(folder);
        let fields: [fn(&mut Files) -> &mut Vec<u8>; 3] =
            [|files| &mut files.message, |files| &mut files.signature, |files| &mut files.pcrs];
        for (index, field) in fields.into_iter().enumerate() {
            let step = if index == 0 { 1 } else { STRIDE };
            for bit in (0..field(&mut files.clone()).len() * 8).step_by(step) {
                let mut bad = files.clone();
                field(&mut bad)[bit / 8] ^= 1 << (bit % 8);
                assert!(
                    matches!(bad.bind(NONCE), Err(AzureError::Quote(_))),
                    "{folder}: {index}, bit {bit}"
                );
            }
        }
    }
}

#[test]
fn attack_another_vms_quote() {
    let (one, other) = (files(SNP[0]), files(TDX));
    let stolen = Files {
        message: other.message,
        signature: other.signature,
        pcrs: other.pcrs,
        ..one.clone()
    };
    assert!(matches!(stolen.bind(NONCE), Err(AzureError::Quote(TpmError::Signature { .. }))));
    // The same VM, another boot's values or another quote's signature.
    let second = files(SNP[1]);
    let mixed = Files { signature: second.signature, ..one };
    assert!(matches!(mixed.bind(NONCE), Err(AzureError::Quote(TpmError::Signature { .. }))));
}

/// A TD quote that is genuine, and not of this TDREPORT.
#[test]
fn attack_another_tds_quote() {
    let quotes =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/evidence/tdx/quotes");
    for (name, expected) in
        [("near-mpc.bin", "TEE TCB SVN"), ("trustee-tdx_quote_4.bin", "TEE TCB SVN")]
    {
        let stolen = Files { td_quote: fs::read(quotes.join(name)).unwrap(), ..files(TDX) };
        assert_eq!(
            stolen.bind(NONCE).unwrap_err(),
            AzureError::TdReport { field: expected },
            "{name}"
        );
    }
    let sgx =
        Files { td_quote: fs::read(quotes.join("phala-sgx_quote.bin")).unwrap(), ..files(TDX) };
    assert!(matches!(sgx.bind(NONCE), Err(AzureError::Structure(_))));
    for end in [1, 47, 48, 300, 631] {
        let mut short = files(TDX);
        short.td_quote.truncate(end);
        assert!(short.bind(NONCE).is_err(), "cut at {end}");
    }
}

#[test]
fn attack_a_key_put_into_the_runtime_data() {
    let files = files(SNP[0]);
    let honest = files.runtime();
    // The forging itself works: only the hardware's signature, which is not looked at here, would
    // catch it.
    assert_eq!(files.forge(&honest).bind(NONCE).unwrap(), files.bind(NONCE).unwrap());

    let mut json: Value = serde_json::from_str(&honest).unwrap();
    let ek_as_ak = honest.replace("HCLEkPub", "HCLAkPub").replacen("HCLAkPub", "HCLOther", 1);
    assert!(matches!(
        files.forge(&ek_as_ak).bind(NONCE),
        Err(AzureError::Quote(TpmError::Signature { .. }))
    ));
    let named_twice = honest.replace("HCLEkPub", "HCLAkPub");
    let none = honest.replace("HCLAkPub", "HCLAkPuc");
    let members_twice = format!("{{\"keys\":[],{}", &honest[1..]);
    let value_twice = honest.replacen("\"n\":", "\"n\":\"AAAA\",\"n\":", 1);
    let elliptic = honest.replacen("\"kty\":\"RSA\"", "\"kty\":\"EC\"", 1);
    let exponent_1 = honest.replacen("AQAB", "AQ", 1);
    let exponent_wide = honest.replacen("AQAB", "AQAAAAAB", 1);
    json["keys"] = json!(vec![json["keys"][0].clone(); 40]);
    let many = json.to_string();
    for forged in [
        named_twice,
        none,
        members_twice,
        value_twice,
        elliptic,
        exponent_1,
        exponent_wide,
        many,
        "{}".into(),
        "".into(),
    ] {
        let refused = files.forge(&forged).bind(NONCE).unwrap_err();
        assert!(matches!(refused, AzureError::RuntimeClaims { .. }), "{forged}: {refused}");
    }
    let deep = format!("{{\"keys\":{}1{}}}", "[".repeat(9000), "]".repeat(9000));
    assert!(files.forge(&deep).bind(NONCE).is_err());
}

#[test]
fn attack_lengths_that_lie() {
    let files = files(SNP[0]);
    for at in [8, 0x4c0, LENGTH] {
        for length in [0, 1, 0x7fff_ffff_u32, u32::MAX] {
            let mut bad = files.clone();
            bad.hcl[at..at + 4].copy_from_slice(&length.to_le_bytes());
            assert!(bad.parse().is_err(), "{at:#x}: {length:#x}");
        }
    }
    for end in 0..files.hcl.len() {
        let cut = HclReport::parse(&files.hcl[..end]);
        // Only the zeros after the runtime data may be missing.
        assert_eq!(cut.is_ok(), end >= RUNTIME + files.runtime().len(), "cut at {end}");
    }
    assert!(HclReport::parse(&vec![0; 70_000]).is_err());
}
