//! What judges evidence must not come from the same hand: nonces, token keys, issuers.

use base64::{Engine, engine::general_purpose as b64};
use cvm_verify::appraise::{Appraisal, Enclosed, EvidenceSet, Terms};
use serde_json::{Value, json};

use super::{NOW, claims, code, ear, machine, read, set, terms, token_terms};

const ALL: Enclosed = Enclosed { nonce: true, keys: true, issuer: true };
/// What the machine was asked with, and what somebody else was.
const NONCE: &str = "0aa0000000000000000000000000000000000000000000000000000000000aa0";
const OTHER: &str = "0bb0000000000000000000000000000000000000000000000000000000000bb0";

fn asked(report: &mut [u8], nonce: &str) {
    report[0x50..0x90].fill(0);
    report[0x50..0x70].copy_from_slice(&hex::decode(nonce).unwrap());
}

fn checks<'a>(verdict: &'a Appraisal, of: &str) -> Vec<(&'a str, &'a str)> {
    verdict
        .not_checked()
        .into_iter()
        .filter(|(name, ..)| *name == of)
        .map(|(_, check, why)| (check, why))
        .collect()
}

fn status(verdict: &Appraisal, of: &str) -> Value {
    verdict.input()["submods"][of]["ear.status"].clone()
}

/// However a nonce travels with evidence that answers it, another one was given: the machine was
/// asked with that.
#[test]
fn attack_evidence_that_brings_its_own_nonce() {
    let (report, vcek, roots) = machine(|report| asked(report, NONCE));
    let [report64, vcek64] = [&report, &vcek].map(|bytes| b64::STANDARD.encode(bytes));
    let text = |nonce: &str| nonce.as_bytes().to_vec();
    let wrapped = |name: &str| {
        vec![
            json!({ "tee-evidence": { "snp": report64, "certificate": vcek64 }, name: NONCE })
                .to_string()
                .into_bytes(),
        ]
    };
    for files in [
        vec![report.clone(), vcek.clone(), text(NONCE)],
        vec![report.clone(), vcek.clone(), format!("{}\n", NONCE.to_uppercase()).into_bytes()],
        vec![report.clone(), vcek.clone(), json!({ "challenge": NONCE }).to_string().into_bytes()],
        wrapped("nonce"),
        wrapped("challenge"),
        wrapped("eat_nonce"),
        vec![
            json!({ "evidence": report64, "nonce": NONCE, "cert": vcek64 })
                .to_string()
                .into_bytes(),
        ],
        vec![
            json!({ "oak": { "remoteAttestationReport": report64, "nonce": NONCE },
                "cert": vcek64 })
            .to_string()
            .into(),
        ],
        vec![json!([{ "snp": report64 }, { "challenge": NONCE }, vcek64]).to_string().into_bytes()],
    ] {
        let files = set(&files);
        let judged = |nonce: Option<&str>, enclosed| {
            let roots = Some(roots.clone());
            files.verify(&Terms { roots, enclosed, ..terms(nonce, NOW) })
        };
        let replayed = judged(Some(OTHER), Enclosed::default());
        assert_eq!(code(&replayed), ["ATT-308"]);
        let left_out = &replayed.left_out;
        assert!(left_out.iter().any(|note| note.reason.contains("another nonce")), "{left_out:?}");
        // A flag that is given beside a nonce changes nothing.
        assert_eq!(code(&judged(Some(OTHER), ALL)), ["ATT-308"]);

        let unasked = judged(None, Enclosed::default());
        assert_eq!(code(&unasked), ["ATT-420"]);
        assert_eq!(status(&unasked, "cpu0"), "contraindicated");

        let wanted = judged(None, ALL);
        assert!(wanted.accepted(), "{:?}", wanted.refusals);
        let of_nonce = |(check, why): &(&str, &str)| *check == "nonce" && why.contains("came with");
        assert!(checks(&wanted, "cpu0").iter().any(of_nonce));
        assert_eq!(status(&wanted, "cpu0"), "warning");

        let fresh = judged(Some(NONCE), Enclosed::default());
        assert!(fresh.accepted() && fresh.left_out.is_empty(), "{:?}", fresh.refusals);
        assert!(!checks(&fresh, "cpu0").iter().any(|(check, _)| *check == "nonce"));
    }
}

/// A GPU's own nonce beside its report, and one in NVIDIA's JSON.
#[test]
fn attack_a_gpus_replay_with_its_nonce() {
    let h100 = |file: &str| read(&format!("gpu/h100-545.00-e2e/{file}"));
    let files =
        ["report.bin", "chain.pem", "driver-rim.xml", "vbios-rim.xml", "nonce.hex"].map(h100);
    let at = |nonce: Option<&str>, enclosed| {
        set(&files).verify(&Terms { enclosed, ..terms(nonce, 1_700_000_000) })
    };
    assert_eq!(code(&at(Some(OTHER), ALL)), ["ATT-342"]);
    assert!(code(&at(None, Enclosed::default())).contains(&"ATT-420"));
    let wanted = at(None, ALL);
    assert!(wanted.accepted(), "{:?}", wanted.refusals);
    assert!(checks(&wanted, "gpu0").iter().any(|(check, _)| *check == "nonce"));

    let switch = set(&[read("forms/ls10.evidence.json"), read("forms/ls10.bios-rim.xml")]);
    assert!(code(&switch.verify(&terms(None, 1_787_894_500))).contains(&"ATT-420"));
    assert_eq!(code(&switch.verify(&terms(Some(OTHER), 1_787_894_500))), ["ATT-342"]);
}

#[test]
fn attack_two_machines_with_two_nonces() {
    let (report, vcek, roots) = machine(|report| asked(report, NONCE));
    let of_nvidia = ["verifier_device_root.pem", "verifier_RIM_root.pem"]
        .map(|name| read(&format!("gpu/roots/{name}")));
    let roots = [vec![roots], of_nvidia.to_vec()].concat().join(&b'\n');
    let gpu = ["report.bin", "chain.pem", "driver-rim.xml", "vbios-rim.xml", "nonce.hex"];
    let gpu = gpu.map(|file| read(&format!("gpu/h100-545.00-e2e/{file}")));
    let mut files = EvidenceSet::default();
    for (n, bytes) in [report, vcek, NONCE.into()].into_iter().enumerate() {
        files.add("cpu", &format!("cpu/{n}"), bytes).unwrap();
    }
    for (n, bytes) in gpu.iter().enumerate() {
        files.add("gpu", &format!("gpu/{n}"), bytes.clone()).unwrap();
    }
    let gpus_nonce = String::from_utf8(gpu[4].clone()).unwrap();
    let judged = |nonce: Option<&str>, enclosed| {
        let roots = Some(roots.clone());
        code(&files.verify(&Terms { roots, enclosed, ..terms(nonce, 1_700_000_000) })).join(" ")
    };
    assert_eq!(judged(None, ALL), "ATT-420", "two nonces came along");
    assert_eq!(judged(Some(NONCE), ALL), "ATT-342");
    assert_eq!(judged(Some(&gpus_nonce), ALL), "ATT-308");
    assert!(judged(None, Enclosed::default()).contains("ATT-361"));
}

/// Roots that lie beside the evidence, loose or in a folder of theirs, make no chip genuine.
#[test]
fn attack_evidence_that_brings_its_own_roots() {
    let (report, vcek, roots) = machine(|_| {});
    for group in ["", "m", "m/roots"] {
        let mut files = EvidenceSet::default();
        files.present("m", "m/report.bin", report.clone());
        files.present("m", "m/vcek.der", vcek.clone());
        files.present(group, "roots.pem", roots.clone());
        let verdict = files.verify(&terms(None, NOW));
        assert!(
            !verdict.accepted() && verdict.claims().count() == 0,
            "{group}: {:?}",
            verdict.refusals
        );
        let given = files.verify(&Terms { roots: Some(roots.clone()), ..terms(None, NOW) });
        assert!(given.accepted(), "{group}: {:?}", given.refusals);
    }
    // Roots that were given are the only ones: the vendor's own count no more.
    let genuine = set(&[read("snp/milan-virtee/report.bin"), read("snp/milan-virtee/vcek.der")]);
    assert!(!genuine.verify(&Terms { roots: Some(roots), ..terms(None, NOW) }).accepted());
}

/// Two chips that answered one nonce are two machines; one chip's report twice is not.
#[test]
fn attack_two_chips_of_one_nonce() {
    let machine = |chip: u8| {
        machine(move |report| {
            asked(report, NONCE);
            report[0x140] = chip;
        })
    };
    let (one, other) = (machine(1), machine(2));
    let judged = |machines: &[&(Vec<u8>, Vec<u8>, Vec<u8>)]| {
        let mut files = EvidenceSet::default();
        for (n, (report, vcek, _)) in machines.iter().enumerate() {
            let group = format!("m{n}");
            files.add(&group, &format!("{group}/report"), report.clone()).unwrap();
            files.add(&group, &format!("{group}/vcek"), vcek.clone()).unwrap();
        }
        let roots = machines.iter().map(|(.., roots)| roots.clone()).collect::<Vec<_>>().concat();
        let verdict = files.verify(&Terms { roots: Some(roots), ..terms(Some(NONCE), NOW) });
        code(&verdict).join(" ")
    };
    assert_eq!(judged(&[&one, &other]), "ATT-361");
    assert_eq!(judged(&[&one, &one]), "");
}

#[test]
fn evidence_without_a_nonce_says_that_its_freshness_was_not_checked() {
    let verdict =
        super::appraise(&["snp/milan-virtee/report.bin", "snp/milan-virtee/vcek.der"], None, NOW);
    assert!(verdict.accepted(), "{:?}", verdict.refusals);
    assert!(
        checks(&verdict, "cpu0")
            .contains(&("nonce", "no nonce was given: freshness was not checked"))
    );
    // As the signed verdict has it.
    assert_eq!(status(&verdict, "cpu0"), "warning");
    assert_eq!(verdict.to_json(NOW)["submods"]["cpu0"]["ear.status"], "warning");
}

/// However a token's keys travel with it: those that were given count alone, and where none were,
/// none do.
#[test]
fn attack_a_token_that_brings_its_own_keys() {
    let (mallory, issuer) = (ear::key(), ear::key());
    let verdict =
        super::appraise(&["snp/milan-virtee/report.bin", "snp/milan-virtee/vcek.der"], None, NOW);
    let token = ear::token(&verdict, &mallory);
    let text = String::from_utf8(token.clone()).unwrap();
    let [own, trusted] = [&mallory, &issuer].map(|key| key.jwks().to_string().into_bytes());
    let with_header = |member: &str, value: Value| {
        let (header, rest) = text.split_once('.').unwrap();
        let mut header: Value =
            serde_json::from_slice(&b64::URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
        header[member] = value;
        vec![format!("{}.{rest}", b64::URL_SAFE_NO_PAD.encode(header.to_string())).into_bytes()]
    };
    let enclosed = |files: Vec<Vec<u8>>| (files, "ATT-421", true);
    let in_header = |files: Vec<Vec<u8>>| (files, "ATT-360", false);
    for (files, none_given, with_flag) in [
        enclosed(vec![token.clone(), own.clone()]),
        enclosed(vec![own.clone(), token.clone()]),
        enclosed(vec![json!({ "token": text, "jwks": mallory.jwks() }).to_string().into_bytes()]),
        enclosed(vec![
            json!({ "ear": text, "keys_of_the_issuer": mallory.jwks().to_string() })
                .to_string()
                .into_bytes(),
        ]),
        in_header(with_header("jwk", mallory.jwks()["keys"][0].clone())),
        in_header(with_header("jku", json!("https://mallory.example/jwks.json"))),
        in_header(with_header("x5c", json!(["MIIB"]))),
    ] {
        let judged = |keys: &[&[u8]], flags| {
            let terms =
                Terms { enclosed: flags, ..token_terms(keys, "flare-cvm", Some(ear::NONCE), NOW) };
            set(&files).verify(&terms)
        };
        for flags in [Enclosed::default(), ALL] {
            assert_eq!(
                code(&judged(&[&trusted], flags)),
                ["ATT-352"],
                "the issuer's keys were given"
            );
        }
        assert_eq!(code(&judged(&[], Enclosed::default())), [none_given]);
        let wanted = judged(&[], ALL);
        assert_eq!(wanted.accepted(), with_flag, "{:?}", wanted.refusals);
        if with_flag {
            assert!(checks(&wanted, "token0").iter().any(|(check, _)| *check == "token-keys"));
            assert_eq!(status(&wanted, "token0"), "warning");
        }
    }
}

/// Something given as keys that is not keys ends the verification, for that reason.
#[test]
fn unusable_keys_are_named() {
    let verdict =
        super::appraise(&["snp/milan-virtee/report.bin", "snp/milan-virtee/vcek.der"], None, NOW);
    let token = ear::token(&verdict, &ear::key());
    let utf16: Vec<u8> =
        "\u{feff}{\"keys\": []}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (keys, why) in [
        (&utf16[..], "UTF-16"),
        (&b"words"[..], "no key set"),
        (&read("snp/milan-virtee/vcek.der"), "no key set"),
    ] {
        let refused = set(std::slice::from_ref(&token)).verify(&token_terms(
            &[keys],
            "flare-cvm",
            Some(ear::NONCE),
            NOW,
        ));
        assert_eq!(code(&refused), ["ATT-360"]);
        assert!(refused.refusals[0].reason.contains(why), "{:?}", refused.refusals);
    }
}

/// What lies in the verifier's collateral folder vouches for evidence, and is not a nonce, a key or
/// evidence itself.
#[test]
fn a_collateral_folder_holds_collateral() {
    let (report, vcek, roots) = machine(|report| asked(report, NONCE));
    let mut files = set(std::slice::from_ref(&report));
    files.add_collateral("c/vcek.der", vcek);
    files.add_collateral("c/nonce", NONCE.into());
    files.add_collateral("c/report.bin", report);
    files.add_collateral("c/keys.json", ear::key().jwks().to_string().into_bytes());
    let verdict = files.verify(&Terms { roots: Some(roots.clone()), ..terms(Some(OTHER), NOW) });
    assert_eq!(code(&verdict), ["ATT-308"]);
    let left_out: Vec<_> = verdict.left_out.iter().map(|note| note.of.as_str()).collect();
    assert_eq!(left_out, ["c/nonce", "c/report.bin", "c/keys.json"]);
    let verdict = files.verify(&Terms { roots: Some(roots), ..terms(None, NOW) });
    assert!(verdict.accepted(), "{:?}", verdict.refusals);
    assert!(checks(&verdict, "cpu0").iter().any(|(check, _)| *check == "nonce"));
    claims(&verdict, "snp");
}
