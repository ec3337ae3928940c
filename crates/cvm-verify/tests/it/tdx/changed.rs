//! Quotes of another session, and changed ones: dcap-qvl's verdict, and never a panic.

use cvm_base::Explain as _;
use cvm_verify::tdx::{Collateral, DcapVerifier, Quote, TdxEvidence, intel_roots};
use serde_json::{Value, json};

use super::{NEAR, PHALA, SGX, collateral_json, evidence, ours, quote, theirs, verifier};

#[test]
fn attack_report_data_of_another_session() {
    let verifier = verifier("near-mpc", NEAR).unwrap();
    let evidence = TdxEvidence::parse(&quote("near-mpc"), None).unwrap();
    let right = verifier.verify(&evidence, None, NEAR).unwrap().report_data.0;
    verifier.verify(&evidence, Some(&right), NEAR).unwrap();
    for wrong in [&right[..32], &[0; 64], &[], &[right.as_slice(), &[0]].concat()] {
        assert_eq!(verifier.verify(&evidence, Some(wrong), NEAR).unwrap_err().code(), "ATT-317");
    }
}

/// All bits of header and report; then of what vouches for them, up to the PCK chain (in debug
/// builds, which are slow, every fifth).
#[test]
fn attack_one_bit_changed_in_what_is_signed() {
    let good = quote("near-mpc");
    let verifier = verifier("near-mpc", NEAR).unwrap();
    assert!(ours(&verifier, &good, NEAR).is_ok());
    // Header and body 632, size 4, signature and key 128, type and size 6, QE report and signature
    // 448, authentication data 34, type and size 6.
    let vouching = (632 * 8..(632 + 4 + 128 + 6 + 448 + 34 + 6) * 8)
        .step_by(if cfg!(debug_assertions) { 5 } else { 1 });
    for bit in (0..632 * 8).chain(vouching) {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let verdict =
            TdxEvidence::parse(&bad, None).and_then(|bad| verifier.verify(&bad, None, NEAR));
        assert!(verdict.is_err(), "byte {}, bit {}", bit / 8, bit % 8);
    }
}

/// The same of every other quote at hand: header, report, and the signature over them.
#[test]
fn attack_one_bit_changed_in_every_quote() {
    for (name, body, now) in [
        ("tdx/quotes/phala-tdx_quote.bin", 584, PHALA),
        ("tdx/quotes/trustee-tdx_quote_4.bin", 584, NEAR),
        ("ccel/near-mpc/quote.bin", 584, NEAR),
        ("tdx/quotes/phala-sgx_quote.bin", 384, SGX),
    ] {
        let good = evidence(name);
        let verifier = DcapVerifier::new(intel_roots().unwrap(), None, now).unwrap();
        let verify = |quote: &[u8]| match body {
            384 => verifier.verify_sgx(&Quote::parse(quote)?, None, now).map(drop),
            _ => verifier.verify(&TdxEvidence::parse(quote, None)?, None, now).map(drop),
        };
        verify(&good).unwrap_or_else(|e| panic!("{name}: {e}"));
        let bits =
            (0..(48 + body + 4 + 64) * 8).step_by(if cfg!(debug_assertions) { 5 } else { 1 });
        for bit in bits {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(verify(&bad).is_err(), "{name} byte {}, bit {}", bit / 8, bit % 8);
        }
    }
}

/// Ours accepts nothing that dcap-qvl refuses; where it is stricter, the reason is one of these.
#[test]
fn damaged_quotes_get_the_verdict_of_dcap_qvl() {
    for (name, with, now) in
        [("near-mpc", "near-mpc-nopck", NEAR), ("phala-sgx_quote", "phala-sgx_quote", SGX)]
    {
        let good = quote(name);
        let verifier = verifier(with, now).unwrap();
        let oracle = serde_json::from_slice(&collateral_json(with)).unwrap();
        // A step that shares no factor with 8 meets every bit, header, report, chain and padding.
        for bit in (0..good.len() * 8).step_by(173) {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            match (ours(&verifier, &bad, now), theirs(&oracle, &bad, now)) {
                (Ok(ours), Some(theirs)) => assert_eq!(ours, theirs, "{name} bit {bit}"),
                // The bits that base64 leaves over before its padding are in no certificate.
                (Ok(_), None) => {
                    assert_eq!(bad[bit / 8 + 1], b'=', "{name} bit {bit}: only dcap-qvl refuses")
                }
                (Err(error), Some(_)) => {
                    let text = error.to_string();
                    let known = ["not zero", "certification data", "(PCK)", "bytes too many"];
                    assert!(
                        known.iter().any(|reason| text.contains(reason)),
                        "{name} bit {bit}: {text}"
                    );
                }
                (Err(_), None) => {}
            }
        }
    }
}

#[test]
fn damaged_collateral_gets_the_verdict_of_dcap_qvl() {
    let good: Value = serde_json::from_slice(&collateral_json("near-mpc-nopck")).unwrap();
    let bytes = quote("near-mpc");
    for member in good.as_object().unwrap().keys() {
        let text = good[member].as_str().unwrap();
        for position in (0..text.len()).step_by(1 + text.len() / 15) {
            let mut changed = text.as_bytes().to_vec();
            changed[position] = if changed[position] == b'1' { b'2' } else { b'1' };
            let mut bad = good.clone();
            bad[member] = json!(String::from_utf8(changed).unwrap());
            let json = serde_json::to_vec(&bad).unwrap();
            let found = Collateral::parse(&json)
                .and_then(|collateral| {
                    DcapVerifier::new(intel_roots().unwrap(), Some(&collateral), NEAR)
                })
                .and_then(|verifier| ours(&verifier, &bytes, NEAR));
            let oracle =
                serde_json::from_slice(&json).ok().and_then(|oracle| theirs(&oracle, &bytes, NEAR));
            match (&found, &oracle) {
                // The chains' root, which neither needs, must at least be a certificate.
                (Err(error), Some(_)) => {
                    assert!(error.to_string().contains("cannot be read"), "{member}: {error}")
                }
                _ => assert_eq!(
                    found.as_ref().ok(),
                    oracle.as_ref(),
                    "{member} {position}: {found:?}"
                ),
            }
        }
    }
}

#[test]
fn damaged_inputs_never_panic_and_never_verify() {
    let verifier = verifier("near-mpc", NEAR).unwrap();
    let good = quote("near-mpc");
    for end in (0..4936).step_by(7).chain(4900..4936) {
        assert!(ours(&verifier, &good[..end], NEAR).is_err(), "cut at {end}");
    }
    assert!(ours(&verifier, &good[..4936], NEAR).is_ok(), "padding is not needed");
    assert_eq!(Quote::parse(&vec![0; 64 * 1024 + 1]).unwrap_err().code(), "ATT-310");
    assert_eq!(Collateral::parse(&vec![b' '; 4 * 1024 * 1024 + 1]).unwrap_err().code(), "ATT-411");
    // Sizes of 4 GiB are read and refused, not allocated.
    for at in [632, 766, 1252] {
        let mut bad = good.clone();
        bad[at..at + 4].fill(0xff);
        assert_eq!(Quote::parse(&bad).unwrap_err().code(), "ATT-310");
    }
}
