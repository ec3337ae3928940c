//! What Intel would sign of the platform.

use serde_json::{Value, json};

use super::mint::MRSIGNER;

pub fn tcb_info() -> Value {
    let components = |svns: &[u8]| -> Value {
        (0..16).map(|i| json!({ "svn": svns.get(i).unwrap_or(&0) })).collect()
    };
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
        "id": "TDX", "version": 3, "issueDate": "2025-06-01T00:00:00Z",
        "nextUpdate": "2025-07-01T00:00:00Z",
        "fmspc": "90C06F000000", "pceId": "0000", "tcbType": 0, "tcbEvaluationDataNumber": 17,
        "tdxModule": { "mrsigner": zeros, "attributes": "0000000000000000",
        "attributesMask": "FFFFFFFFFFFFFFFF" },
        "tdxModuleIdentities": [
            module("TDX_01", json!([isvsvn(6, "UpToDate", &[]), isvsvn(4,
                "OutOfDate", &["INTEL-SA-00004"]),
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

pub fn qe_identity() -> Value {
    json!({
        "id": "TD_QE", "version": 2, "issueDate": "2025-06-01T00:00:00Z",
        "nextUpdate": "2025-07-01T00:00:00Z",
        "tcbEvaluationDataNumber": 17, "miscselect": "00000000", "miscselectMask": "FFFFFFFF",
        "attributes": "11000000000000000000000000000000",
        "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
        "mrsigner": MRSIGNER.to_uppercase(), "isvprodid": 2,
        "tcbLevels": [
            { "tcb": { "isvsvn": 4 }, "tcbDate": "2024-03-13T00:00:00Z", "tcbStatus": "UpToDate" },
            { "tcb": { "isvsvn": 2 }, "tcbDate": "2023-08-09T00:00:00Z", "tcbStatus": "OutOfDate",
              "advisoryIDs": ["INTEL-SA-00009"] },
        ],
    })
}
