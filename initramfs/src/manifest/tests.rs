use cvm_base::Bytes16;
use cvm_layout::manifest::GpuMechanism;
use ed25519_dalek::SigningKey;

use super::*;
use crate::fixtures::{MIB, manifest};

fn key() -> SigningKey {
    SigningKey::from_bytes(&[9; 32])
}

fn sign(manifest: &Manifest) -> (P1Documents, Bytes32) {
    let bytes = serde_json::to_vec(manifest).unwrap();
    let boot = BootStatement {
        version: BOOT_VERSION,
        image_id: manifest.image_id,
        manifest_sha256: sha256(&bytes),
        boot: manifest.config.clone(),
    };
    sign_raw(bytes, serde_json::to_vec(&boot).unwrap())
}

fn sign_raw(manifest: Vec<u8>, boot: Vec<u8>) -> (P1Documents, Bytes32) {
    let digest = sha256(&manifest);
    let documents = P1Documents {
        manifest_signature: Some(signed::sign(&key(), Kind::Manifest, &manifest).to_vec()),
        manifest: Some(manifest),
        boot_signature: Some(signed::sign(&key(), Kind::Boot, &boot).to_vec()),
        boot: Some(boot),
        ..P1Documents::default()
    };
    (documents, digest)
}

pub(crate) fn verified() -> VerifiedImage {
    let (documents, digest) = sign(&manifest());
    verify(&documents, digest, &key().verifying_key()).unwrap()
}

fn code((documents, digest): (P1Documents, Bytes32)) -> Code {
    verify(&documents, digest, &key().verifying_key()).unwrap_err().code
}

#[test]
fn a_signed_manifest_is_believed() {
    let (documents, digest) = sign(&manifest());
    let verified = verify(&documents, digest, &key().verifying_key()).unwrap();
    assert_eq!(verified.manifest, manifest());
    assert_eq!(verified.manifest_sha256, digest);
}

#[test]
fn each_missing_file_has_its_code() {
    type Strike = fn(&mut P1Documents);
    let strike: [(Strike, Code); 4] = [
        (|d| d.manifest = None, Code::ManifestMissing),
        (|d| d.manifest_signature = None, Code::ManifestMissing),
        (|d| d.boot = None, Code::BootMissing),
        (|d| d.boot_signature = None, Code::BootMissing),
    ];
    for (strike, expected) in strike {
        let (mut documents, digest) = sign(&manifest());
        strike(&mut documents);
        assert_eq!(code((documents, digest)), expected);
    }
}

#[test]
fn another_images_manifest_is_refused_although_it_is_signed() {
    let (documents, _) = sign(&manifest());
    assert_eq!(code((documents, Bytes32 { 0: [0; 32] })), Code::ManifestDigest);
}

#[test]
fn a_wrong_signature_is_refused() {
    let (mut documents, digest) = sign(&manifest());
    documents.manifest_signature.as_mut().unwrap()[10] ^= 1;
    assert_eq!(code((documents, digest)), Code::ManifestSignature);

    let (mut documents, digest) = sign(&manifest());
    // The boot statement's signature is not one over the manifest, and the other way round.
    std::mem::swap(&mut documents.manifest_signature, &mut documents.boot_signature);
    assert_eq!(code((documents, digest)), Code::ManifestSignature);

    let (mut documents, digest) = sign(&manifest());
    documents.boot_signature = Some(vec![0; 63]);
    assert_eq!(code((documents, digest)), Code::BootSignature);
}

#[test]
fn a_signed_boot_statement_of_another_image_is_refused() {
    let (documents, digest) = sign(&manifest());
    let mut other = manifest();
    other.image_id = Bytes16 { 0: [8; 16] };
    let (mut mixed, _) = sign(&other);
    mixed.manifest = documents.manifest;
    mixed.manifest_signature = documents.manifest_signature;
    assert_eq!(code((mixed, digest)), Code::BootStatement);
}

#[test]
fn what_the_schema_cannot_say_is_checked() {
    let spoil: [fn(&mut Manifest); 16] = [
        // Versions whose `state` opens with the model owner's half alone.
        |m| m.version = 1,
        |m| (m.version, m.gpu) = (2, Some(GpuMechanism::NvidiaCc)),
        |m| m.version = 4,
        // A party without whom p5 and state would open.
        |m| m.split_key.parties[0].purposes = vec![KeyPurpose::System],
        // Nobody would release p3's half to the boot.
        |m| {
            m.gpu = Some(GpuMechanism::NvidiaCc);
            m.split_key.parties[0].purposes = vec![KeyPurpose::Jobs];
        },
        |m| m.partitions.clear(),
        |m| m.config.total_bytes = 65 * MIB,
        |m| m.config.data_bytes = 100,
        |m| m.config.data_bytes = 0,
        |m| m.root.sealed_bytes = 100,
        |m| m.root.site.offset = u64::MAX - 4095,
        |m| m.root.state_offset = 7 * MIB,
        |m| m.root.state_offset = 64 * MIB,
        |m| m.split_key.parties.clear(),
        |m| m.split_key.parties[1].name = "model-owner".parse().unwrap(),
        // Low order: every shared point would be zero.
        |m| m.split_key.ephemeral = Bytes32 { 0: [0; 32] },
    ];
    for (i, spoil) in spoil.into_iter().enumerate() {
        let mut bad = manifest();
        spoil(&mut bad);
        assert_eq!(code(sign(&bad)), Code::ManifestSchema, "case {i}");
    }
}

#[test]
fn unknown_and_doubled_fields_are_refused() {
    let good = serde_json::to_string(&manifest()).unwrap();
    for bad in [
        good.replacen('{', r#"{"extra":1,"#, 1),
        good.replacen('{', r#"{"version":1,"#, 1),
        format!("{good} {{}}"),
        good.replace("server1", "../server1"),
    ] {
        assert_eq!(code(sign_raw(bad.into_bytes(), vec![])), Code::ManifestSchema);
    }
}

#[test]
fn endpoints_move_key_holders_and_invent_none() {
    let verified = |text: &str| {
        let (mut documents, digest) = sign(&manifest());
        documents.endpoints = Some(text.into());
        verify(&documents, digest, &key().verifying_key())
    };
    let moved = verified("version: 1\nkeyholders:\n  data-owner: https://10.9.8.7:1\n").unwrap();
    assert_eq!(moved.endpoints.keyholders.values().collect::<Vec<_>>(), ["https://10.9.8.7:1"]);
    for bad in [
        "version: 2\n",
        "version: 1\nkeyholders: {mallory: 'https://x'}\n",
        "version: 1\npin: x\n",
        "\0",
        "[",
        "",
    ] {
        assert_eq!(verified(bad).unwrap_err().code, Code::Endpoints, "{bad:?}");
    }
}

#[test]
fn collateral_is_any_json_object() {
    let verified = |text: &str| {
        let (mut documents, digest) = sign(&manifest());
        documents.collateral = Some(text.into());
        verify(&documents, digest, &key().verifying_key())
    };
    assert_eq!(verified(r#"{"index": "x"}"#).unwrap().collateral.unwrap()["index"], "x");
    for bad in ["", "[]", "{", "\0"] {
        assert_eq!(verified(bad).unwrap_err().code, Code::Collateral, "{bad:?}");
    }
}

#[test]
fn attack_a_reference_that_is_not_the_builders_is_left_out() {
    let (mut documents, digest) = sign(&manifest());
    let verified = |documents: &P1Documents| {
        verify(documents, digest, &key().verifying_key()).unwrap().documents
    };
    assert_eq!(verified(&documents).reference, None);
    let reference = b"{}".to_vec();
    documents.reference_signature =
        Some(signed::sign(&key(), Kind::Reference, &reference).to_vec());
    assert_eq!(verified(&documents).reference_signature, None, "a signature of nothing");
    documents.reference = Some(reference.clone());
    let good = verified(&documents);
    assert_eq!(
        (good.reference.as_ref(), good.manifest),
        (Some(&reference), documents.manifest.clone())
    );
    for signature in [vec![], vec![0; 64], signed::sign(&key(), Kind::Boot, &reference).to_vec()] {
        documents.reference_signature = Some(signature);
        assert_eq!(verified(&documents).reference, None);
    }
}

#[test]
fn fuzz_seeds_and_their_mutations() {
    crate::seeds::make("init_documents", "manifest.json", || {
        serde_json::to_vec(&manifest()).unwrap()
    });
    crate::seeds::make("init_documents", "manifest-gpu.json", || {
        let manifest = Manifest { version: 2, gpu: Some(GpuMechanism::NvidiaCc), ..manifest() };
        serde_json::to_vec(&manifest).unwrap()
    });
    crate::seeds::make("init_documents", "endpoints.yaml", || {
        b"version: 1\nkeyholders: {data-owner: 'https://10.9.8.7:1'}\n".into()
    });
    crate::seeds::run("init_documents", fuzz);
}

#[test]
fn a_reference_is_optional_and_travels_with_its_signature() {
    let (mut documents, digest) = sign(&manifest());
    let verify =
        |documents: &P1Documents| super::verify(documents, digest, &key().verifying_key()).unwrap();
    assert_eq!(verify(&documents).documents.presented(), None);
    documents.reference = Some(b"reference".to_vec());
    assert_eq!(verify(&documents).documents.presented(), None, "without its signature");
    let signature = signed::sign(&key(), Kind::Reference, b"reference").to_vec();
    documents.reference_signature = Some(signature.clone());
    let presented = verify(&documents).documents.presented().unwrap();
    assert_eq!((presented.reference, presented.reference_sig), (b"reference".to_vec(), signature));
    assert_eq!((sha256(&presented.manifest), presented.enrolment), (digest, Vec::new()));
    documents.enrolment = Some(b"enrolment".to_vec());
    assert_eq!(verify(&documents).documents.presented().unwrap().enrolment, b"enrolment");
}
