//! The same evidence in the forms in which other tools write it.

use base64::{Engine, engine::general_purpose as b64};
use cvm_verify::appraise::EvidenceSet;
use serde_json::{Value, json};

use super::{NOW, appraise, claims, code, read, set, terms, token_terms};

#[test]
fn an_snp_report_in_every_wrapping() {
    let (report, vcek) = (read("snp/milan-virtee/report.bin"), read("snp/milan-virtee/vcek.der"));
    // MSG_REPORT_RSP, padded as Linux's ioctl has it.
    let mut response =
        [&0_u32.to_le_bytes()[..], &1184_u32.to_le_bytes(), &[0; 24], &report].concat();
    response.resize(4000, 0);
    let table = certificate_table(&vcek);
    let hex = |bytes: &[u8]| hex::encode(bytes).into_bytes();
    let pem = format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        b64::STANDARD.encode(&vcek)
    );
    for files in [
        vec![hex(&report), hex(&vcek)],
        vec![format!("0x{}\n", hex::encode(&report)).into_bytes(), pem.into_bytes()],
        vec![
            b64::STANDARD.encode(&report).into_bytes(),
            b64::URL_SAFE_NO_PAD.encode(&vcek).into_bytes(),
        ],
        vec![response, vcek.clone()],
        vec![[&report[..], &table].concat()],
        vec![hex(&[&report[..], &table].concat())],
        vec![report.clone(), table.clone()],
    ] {
        let verdict = set(&files).verify(&terms(None, NOW));
        assert!(verdict.accepted(), "{} files: {:?}", files.len(), verdict.refusals);
        assert_eq!(claims(&verdict, "snp")["product"], "Milan");
    }
}

/// As `struct cert_table` of the GHCB specification: entries of GUID, offset, length; zeros;
/// contents.
fn certificate_table(vcek: &[u8]) -> Vec<u8> {
    let guid = hex::decode("8d75da6364e66445adc5f4b93be8accd").unwrap();
    let place = [48_u32.to_le_bytes(), (vcek.len() as u32).to_le_bytes()].concat();
    [&guid[..], &place, &[0; 24], vcek].concat()
}

/// Intel's four answers instead of one document, as files and as `curl -i` prints them.
#[test]
fn dcap_collateral_as_intels_service_answers() {
    let quote = read("tdx/quotes/near-mpc.bin");
    let now = 1_787_894_500;
    let whole: Value = serde_json::from_slice(&read("tdx/collateral/near-mpc.json")).unwrap();
    let text = |member: &str| whole[member].as_str().unwrap();
    let body = |name: &str, member: &str| {
        format!(
            "{{\"{name}\":{},\"signature\":\"{}\"}}",
            text(member),
            text(&format!("{member}_signature"))
        )
        .into_bytes()
    };
    let (tcb, qe) = (body("tcbInfo", "tcb_info"), body("enclaveIdentity", "qe_identity"));
    let [root_crl, pck_crl] =
        ["root_ca_crl", "pck_crl"].map(|member| hex::decode(text(member)).unwrap());
    let chain = text("tcb_info_issuer_chain").as_bytes().to_vec();
    let encoded = text("tcb_info_issuer_chain").replace('\n', "%0A").replace(' ', "%20");
    let headers = format!("HTTP/1.1 200 OK\r\nTCB-Info-Issuer-Chain: {encoded}\r\nDate: x\r\n\r\n");
    let with_headers = [headers.as_bytes(), &tcb].concat();

    let files =
        vec![quote.clone(), tcb.clone(), qe.clone(), root_crl.clone(), pck_crl.clone(), chain];
    for files in
        [&files[..], &[quote, with_headers, qe, hex::encode(&root_crl).into_bytes(), pck_crl]]
    {
        let verdict = set(files).verify(&terms(None, now));
        assert!(verdict.accepted(), "{:?}", verdict.refusals);
        assert_eq!(claims(&verdict, "tdx")["tcb_status"], "UpToDate");
    }
    for missing in 1..files.len() {
        let mut fewer = files.clone();
        fewer.remove(missing);
        let refused = set(&fewer).verify(&terms(None, now));
        assert_eq!(code(&refused), ["ATT-411"], "without file {missing}");
    }
    // Another platform's list does not do in place of this one's.
    let mut changed = files.clone();
    changed[1][40] ^= 1;
    assert!(!set(&changed).verify(&terms(None, now)).accepted());
}

#[test]
fn quotes_with_logs_and_rests_of_buffers() {
    let cos = appraise(&["forms/cos-113.quote.dat", "forms/cos-113.ccel"], None, NOW);
    let td = claims(&cos, "tdx");
    let events = td["uefi_event_logs"].as_array().unwrap();
    assert!(events.len() > 20, "{} events", events.len());
    // Without collateral the platform's status is unknown, and that alone is refused.
    assert_eq!(code(&cos), ["ATT-416"]);

    let spr = appraise(&["forms/spr-e4-quote.dat"], None, 1_688_169_600);
    assert!(claims(&spr, "tdx")["report_data"].as_str().unwrap().starts_with("6c62dec1b819"));

    // The log alone, and in the JSON of Trustee's attester.
    let alone = appraise(&["forms/cos-113.ccel"], None, NOW);
    assert_eq!(
        claims(&alone, "cc-event-log")["rtmrs"][1],
        claims(&cos, "tdx")["quote"]["body"]["rtmr_1"]
    );
    let [quote, log] =
        ["forms/cos-113.quote.dat", "forms/cos-113.ccel"].map(|f| b64::STANDARD.encode(read(f)));
    let kbs = json!({ "quote": quote, "cc_eventlog": log }).to_string().into_bytes();
    let kbs = set(&[kbs]).verify(&terms(None, NOW));
    assert_eq!(claims(&kbs, "tdx"), claims(&cos, "tdx"));
}

#[test]
fn tpm_quotes_of_other_tools() {
    let trustee = appraise(&["forms/trustee-tpm.json"], None, NOW);
    assert!(trustee.accepted(), "{:?}", trustee.refusals);
    // One message with the quotes of three banks: SHA-1's is left out, and that is said.
    let gce = appraise(&["forms/gce-nonce9009.pb"], Some("9009"), NOW);
    assert!(gce.accepted(), "{:?}", gce.refusals);
    assert_eq!(gce.claims().count(), 2);
    assert!(
        gce.not_checked()
            .iter()
            .any(|(_, check, reason)| *check == "other-banks" && reason.contains("sha1"))
    );
    assert_eq!(code(&appraise(&["forms/gce-nonce9009.pb"], Some("9008"), NOW)), ["ATT-332"]);

    let [key, message, signature] = ["ak.pub", "quote.msg", "quote.sig"]
        .map(|file| read(&format!("tpm/own-swtpm-ecdsa-quote/{file}")));
    let sized = [&(message.len() as u16).to_be_bytes()[..], &message].concat();
    assert!(set(&[key, sized, signature]).verify(&terms(None, NOW)).accepted(), "TPM2B_ATTEST");
}

/// `tpm2_quote --pcr` without `--pcrs_format=values`.
#[test]
fn register_values_as_tpm2_tools_write_them() {
    let gce = |file: &str| read(&format!("tpm/gce-cos-85-nonce9009/{file}"));
    let values: Value = serde_json::from_slice(&gce("pcrs-sha256.json")).unwrap();
    let values = values.get("sha256").unwrap_or(&values);
    let digests: Vec<Vec<u8>> = (0..24)
        .map(|n: u8| hex::decode(values[n.to_string()].as_str().unwrap()).unwrap())
        .collect();
    let mut file =
        [&1_u32.to_le_bytes()[..], &[0x0b, 0, 3, 0xff, 0xff, 0xff, 0, 0], &[0; 15 * 8]].concat();
    file.extend(3_u32.to_le_bytes());
    for list in digests.chunks(8) {
        file.extend((list.len() as u32).to_le_bytes());
        for digest in list {
            file.extend([&32_u16.to_le_bytes()[..], digest, &[0; 32]].concat());
        }
    }
    let files = [gce("ak.tpmt_public"), gce("quote-sha256.msg"), gce("quote-sha256.sig"), file];
    let verdict = set(&files).verify(&terms(Some("9009"), NOW));
    assert!(verdict.accepted(), "{:?}", verdict.refusals);
    assert!(!verdict.not_checked().iter().any(|(_, check, _)| *check == "pcr-values"));
    let mut other = files.clone();
    other[3][142] ^= 1;
    assert_eq!(code(&set(&other).verify(&terms(Some("9009"), NOW))), ["ATT-336"]);
}

#[test]
fn azure_evidence_of_a_genoa_and_of_azures_own_tools() {
    let nonce = "0218488bae25d2509232bf676f1a66a30d7372add909109b36016ef136f2938ca05475f8b46094de6b64270ea35d950f";
    let genoa = appraise(&["forms/azure-genoa.json"], Some(nonce), NOW);
    assert!(genoa.accepted(), "{:?}", genoa.refusals);
    assert_eq!(claims(&genoa, "az-snp-vtpm")["product"], "Genoa");
    let files = ["forms/azure-hcl.bin", "forms/azure-quote.bincode", "forms/azure-vcek.pem"];
    assert!(appraise(&files, Some("challenge"), NOW).accepted());
    assert!(!appraise(&files, Some("challenged"), NOW).accepted());
}

#[test]
fn blackwell_switches_and_padded_reports() {
    let blackwell =
        appraise(&["forms/blackwell.report.txt", "forms/blackwell.chain.txt"], None, NOW);
    assert!(claims(&blackwell, "nvidia")["hwmodel"].as_str().unwrap().starts_with("GB100"));
    let sha384 = "87d8e24ab336adafe228d49e83d745f6dba4ae505372b6a5704820856b343fece279b616efefc2aae21da80cf5581250";
    let padded = ["forms/hopper-padded.report.txt", "forms/hopper-padded.chain.txt"];
    claims(&appraise(&padded, Some(sha384), NOW), "nvidia");
    assert_eq!(code(&appraise(&padded, Some(&sha384[2..]), NOW)), ["ATT-342"]);

    let nonce = "931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb";
    for files in
        [&["forms/ls10.report.txt", "forms/ls10.chain.txt"][..], &["forms/ls10.evidence.json"]]
    {
        let switch = appraise(files, Some(nonce), NOW);
        assert_eq!(claims(&switch, "nvswitch")["hwmodel"], "LS_10 A01 FSP BROM");
        assert_eq!(code(&switch), ["ATT-387"], "nothing to compare its measurements with");
    }
    let with_rim = ["forms/ls10.report.txt", "forms/ls10.chain.txt", "forms/ls10.bios-rim.xml"];
    let compared = appraise(&with_rim, Some(nonce), 1_787_894_500);
    assert_eq!(claims(&compared, "nvswitch")["measres"], "success", "{:?}", compared.refusals);
}

/// A length that no device answers must not be compared with what devices may answer by chance.
#[test]
fn attack_nonces_that_no_evidence_can_answer() {
    let gpu = ["forms/blackwell.report.txt", "forms/blackwell.chain.txt"];
    let snp = ["snp/milan-virtee/report.bin", "snp/milan-virtee/vcek.der"];
    for nonce in ["", " ", "short", &"ab".repeat(65)] {
        if nonce.len() < 64 {
            assert_eq!(code(&appraise(&gpu, Some(nonce), NOW)), ["ATT-360"], "{nonce:?}");
        }
        assert!(!appraise(&snp, Some(nonce), NOW).accepted(), "{nonce:?}");
    }
    // Report data of zeros answers no empty nonce.
    let zeros = ["forms/cos-113.quote.dat"];
    assert_eq!(code(&appraise(&zeros, Some(""), NOW)), ["ATT-360"]);
}

#[test]
fn composite_evidence_of_a_kbs_request() {
    let gpu: Value = serde_json::from_slice(&read("forms/ls10.evidence.json")).unwrap();
    let [report, quote] =
        ["forms/cos-113.ccel", "forms/cos-113.quote.dat"].map(|f| b64::STANDARD.encode(read(f)));
    let additional = json!({ "nvidia": { "device_evidence_list": gpu } }).to_string();
    let body = json!({ "tee-evidence": {
        "primary_evidence": { "quote": quote, "cc_eventlog": report },
        "additional_evidence": additional,
    } });
    let verdict = set(&[body.to_string().into_bytes()]).verify(&terms(None, NOW));
    let kinds: Vec<_> = verdict.claims().map(|(name, claims)| (name, claims.kind())).collect();
    assert_eq!(kinds, [("cpu0", "tdx"), ("switch0", "nvswitch")], "{:?}", verdict.refusals);
    assert!(
        code(&verdict).contains(&"ATT-361"),
        "without a common nonce they may be of two machines"
    );
}

/// NVIDIA's SDK wraps its service's answer once more; its own token around it is nobody's.
#[test]
fn the_token_of_nvidias_sdk() {
    let answer: Value =
        serde_json::from_slice(&read("nras/hopperClaimsv3_detached_eat.json")).unwrap();
    let outer = format!("{}.e30.", b64::URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#));
    let wrapped = json!([["JWT", outer], { "REMOTE_GPU_CLAIMS": answer }]).to_string().into_bytes();
    let plain = answer.to_string().into_bytes();
    let key = read("nras/nras-prod-20250609.recovered.pub.pem");
    let issued =
        cvm_verify::token::DetachedEat::parse(&plain).unwrap().overall.unverified_claims().unwrap();
    let now = issued["iat"].as_u64().unwrap() + 60;
    let issuer = issued["iss"].as_str().unwrap();
    let [wrapped, plain] = [wrapped, plain]
        .map(|bytes| set(&[bytes]).verify(&token_terms(&[&key], issuer, None, now)));
    assert!(wrapped.accepted(), "{:?}", wrapped.refusals);
    assert_eq!(claims(&wrapped, "nras"), claims(&plain, "nras"));
}

#[test]
fn what_is_known_and_not_verified_is_refused_by_name() {
    let csv = json!({ "attestation_report": { "data": [1, 2] }, "cert_chain": {} })
        .to_string()
        .into_bytes();
    for (bytes, name) in [
        (csv, "Hygon"),
        ([&[0xd9, 0x01, 0x8f][..], &[0; 100]].concat(), "Arm CCA"),
        ([&[0x84, 0x44, 0xa1][..], &[0; 100]].concat(), "Nitro"),
        ([&[0x81, 0, 0, 0][..], &[0; 1020]].concat(), "TDREPORT"),
    ] {
        let refusal = EvidenceSet::default().add("", "file", bytes).unwrap_err();
        assert!(refusal.code == "ATT-360" && refusal.reason.contains(name), "{refusal:?}");
    }
    // The table beside a log is not evidence, and not a reason to refuse.
    let table = [b"CCEL8\0\0\0", &[0; 48][..]].concat();
    assert!(EvidenceSet::default().add("", "table", table).is_ok());
}

/// A wrapper in a wrapper in a wrapper ends.
#[test]
fn attack_wrappers_without_an_end() {
    let mut text = "evidence".to_owned();
    // Quoting doubles what was quoted, so not many.
    for _ in 0..12 {
        text = json!(text).to_string();
    }
    assert!(EvidenceSet::default().add("", "strings", text.into_bytes()).is_err());
    let mut nested = json!("x");
    for _ in 0..60 {
        nested = json!({ "primary_evidence": nested.clone(), "additional_evidence": nested });
        if nested.to_string().len() > 100_000 {
            break;
        }
    }
    assert!(EvidenceSet::default().add("", "objects", nested.to_string().into_bytes()).is_err());
}
