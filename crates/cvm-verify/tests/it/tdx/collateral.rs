//! Collateral that is another's, old, incomplete, or wants to decide more than it may.

use cvm_base::Explain as _;
use cvm_verify::tdx::{Collateral, DcapVerifier, TcbStatus, TdxEvidence, intel_roots};
use serde_json::{Value, json};

use super::{NEAR, PHALA, SGX, collateral, collateral_json, quote, td, verifier};

#[test]
fn attack_collateral_of_another_platform_or_tee() {
    let debug = quote("trustee-tdx_quote_4"); // FMSPC 50806f000000
    assert_eq!(td(&debug, "near-mpc-nopck", NEAR).unwrap_err().code(), "ATT-413");
    // SGX's lists are of another CA.
    assert_eq!(
        td(&quote("phala-tdx_quote"), "phala-sgx_quote", SGX).unwrap_err().code(),
        "ATT-312"
    );
    // TDX's QE identity beside SGX's TCB info, both genuine.
    let mut mixed: Value = serde_json::from_slice(&collateral_json("phala-tdx_quote")).unwrap();
    let sgx: Value = serde_json::from_slice(&collateral_json("phala-sgx_quote")).unwrap();
    for member in ["tcb_info", "tcb_info_signature"] {
        mixed[member] = sgx[member].clone();
    }
    let mixed = Collateral::parse(&serde_json::to_vec(&mixed).unwrap()).unwrap();
    let verifier = DcapVerifier::new(intel_roots().unwrap(), Some(&mixed), PHALA).unwrap();
    let evidence = TdxEvidence::parse(&quote("phala-tdx_quote"), None).unwrap();
    assert_eq!(verifier.verify(&evidence, None, PHALA).unwrap_err().code(), "ATT-413");
}

#[test]
fn attack_collateral_that_expired_after_it_was_verified() {
    let verifier = verifier("phala-tdx_quote", PHALA).unwrap();
    let evidence = TdxEvidence::parse(&quote("phala-tdx_quote"), None).unwrap();
    assert!(verifier.verify(&evidence, None, PHALA).is_ok());
    for now in [0, 1_746_873_147, 1_756_376_163, u64::MAX] {
        assert_eq!(verifier.verify(&evidence, None, now).unwrap_err().code(), "ATT-412", "{now}");
    }
    // A remembered chain is no longer valid: without collateral only its own dates count.
    let verifier = DcapVerifier::new(intel_roots().unwrap(), None, PHALA).unwrap();
    assert!(verifier.verify(&evidence, None, PHALA).is_ok());
    assert_eq!(verifier.verify(&evidence, None, 2_000_000_000).unwrap_err().code(), "ATT-312");
}

/// dcap-qvl takes the collateral's chain instead of the quote's.
#[test]
fn attack_collateral_replaces_the_pck_chain() {
    let evidence = TdxEvidence::parse(&quote("near-mpc"), None).unwrap();
    let own = quote("near-mpc");
    let pem = |bytes: &[u8]| {
        let start = bytes.windows(11).position(|window| window == b"-----BEGIN ").unwrap();
        String::from_utf8(bytes[start..].to_vec()).unwrap().trim_end_matches('\0').to_owned()
    };
    let with = |chain: String| {
        let mut document: Value =
            serde_json::from_slice(&collateral_json("near-mpc-nopck")).unwrap();
        document["pck_certificate_chain"] = json!(chain);
        let collateral = Collateral::parse(&serde_json::to_vec(&document).unwrap()).unwrap();
        let verifier = DcapVerifier::new(intel_roots().unwrap(), Some(&collateral), NEAR).unwrap();
        verifier.verify(&evidence, None, NEAR).map(|claims| claims.platform.tcb_status)
    };
    assert_eq!(with(pem(&own)), Ok(Some(TcbStatus::UpToDate)));
    // The same certificates, written in another way.
    assert_eq!(with(pem(&own).replace('\n', "\r\n")), Ok(Some(TcbStatus::UpToDate)));
    for other in [
        pem(&quote("phala-tdx_quote")),
        String::new(),
        "x".into(),
        pem(&own).replacen("-----END", "A\n-----END", 1),
    ] {
        assert_eq!(with(other).unwrap_err().code(), "ATT-311");
    }
}

#[test]
fn attack_chains_in_wrong_order_or_without_their_root() {
    let document: Value = serde_json::from_slice(&collateral_json("near-mpc-nopck")).unwrap();
    let chain = document["tcb_info_issuer_chain"].as_str().unwrap();
    let split = chain.rfind("-----BEGIN").unwrap();
    let (signer, root) = chain.split_at(split);
    let bytes = quote("near-mpc");
    let platform = String::from_utf8_lossy(&bytes[1258..4936]).into_owned();
    let platform = platform.trim_end_matches('\0').trim_end().to_owned() + "\n";
    let verify = |member: &str, chain: String| {
        let mut document = document.clone();
        document[member] = json!(chain);
        let collateral = Collateral::parse(&serde_json::to_vec(&document).unwrap()).unwrap();
        DcapVerifier::new(intel_roots().unwrap(), Some(&collateral), NEAR).map(drop)
    };
    for member in ["tcb_info_issuer_chain", "qe_identity_issuer_chain"] {
        assert_eq!(verify(member, format!("{root}\n{signer}")).unwrap_err().code(), "ATT-312");
        assert_eq!(verify(member, root.into()).unwrap_err().code(), "ATT-312");
        assert!(verify(member, String::new()).is_err());
        // A platform's certificate is below the same root, and must sign no TCB info.
        assert_eq!(verify(member, platform.clone()).unwrap_err().code(), "ATT-312");
        // The root in the chain is not needed: the trusted one is the verifier's.
        verify(member, signer.into()).unwrap();
    }
    let no_roots = DcapVerifier::new(vec![], Some(&collateral("near-mpc")), NEAR).unwrap_err();
    assert_eq!(no_roots.code(), "ATT-312");
}

#[test]
fn attack_revocation_lists_left_out_or_of_another_ca() {
    let evidence = TdxEvidence::parse(&quote("near-mpc"), None).unwrap();
    let sgx: Value = serde_json::from_slice(&collateral_json("phala-sgx_quote")).unwrap();
    let verify = |change: &dyn Fn(&mut Value), now| {
        let mut document: Value =
            serde_json::from_slice(&collateral_json("near-mpc-nopck")).unwrap();
        change(&mut document);
        let collateral = Collateral::parse(&serde_json::to_vec(&document).unwrap())?;
        DcapVerifier::new(intel_roots().unwrap(), Some(&collateral), now)?
            .verify(&evidence, None, now)
            .map(drop)
    };
    assert_eq!(verify(&|_| {}, NEAR), Ok(()));
    // The root's list twice: nothing covers the platform. The platform's twice: nothing covers the
    // signer.
    let refused = verify(&|d| d["pck_crl"] = d["root_ca_crl"].clone(), NEAR).unwrap_err();
    assert_eq!(refused.code(), "ATT-312", "{refused}");
    let refused = verify(&|d| d["root_ca_crl"] = d["pck_crl"].clone(), NEAR).unwrap_err();
    assert_eq!(refused.code(), "ATT-312", "{refused}");
    assert_eq!(verify(&|d| d["pck_crl"] = json!(""), NEAR).unwrap_err().code(), "ATT-411");
    // An old list of the other CA (processor).
    assert!(verify(&|d| d["pck_crl"] = sgx["pck_crl"].clone(), NEAR).is_err());
    let without = |d: &mut Value| drop(d.as_object_mut().unwrap().remove("pck_crl"));
    assert_eq!(verify(&without, NEAR).unwrap_err().code(), "ATT-411");
}
