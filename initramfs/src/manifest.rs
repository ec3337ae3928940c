//! The two signed documents on p1 and the site's endpoints: read once, verified, then believed.

use std::{collections::BTreeSet, fs::File, io::Read};

use cvm_base::{Bytes32, sha256};
use cvm_ceremony::split_key;
use cvm_layout::{
    esp,
    manifest::{
        BOOT_VERSION, BootStatement, KeyPurpose, LUKS_HEADER_BYTES, MAX_BYTES, Manifest, Stage,
        VERSION, Verity, Volume,
    },
    p1,
    signed::{self, Kind},
    site_conf::Endpoints,
    yaml,
};
use cvm_release::messages::PresentImage;
use ed25519_dalek::VerifyingKey;
use serde_json::Value;

use crate::{
    codes::{Code, Coded, Failure},
    console::step,
    platform::{
        cmdline,
        disk::{Disk, Which},
    },
};

/// The builder's public key in the initramfs: 32 raw bytes.
pub const BUILDER_KEY: &str = "/etc/flare-cvm/builder.pub";
const COMMAND_LINE: &str = "/proc/cmdline";
/// The kernel's own limit is 2048 on x86.
const COMMAND_LINE_BYTES: u64 = 16 * 1024;
const BLOCK: u64 = 4096;

/// The files of this system on p1, as bytes.
#[derive(Debug, Clone, Default)]
pub struct P1Documents {
    /// `manifest.json`.
    pub manifest: Option<Vec<u8>>,
    /// `manifest.sig`.
    pub manifest_signature: Option<Vec<u8>>,
    /// `boot.json`.
    pub boot: Option<Vec<u8>>,
    /// `boot.sig`.
    pub boot_signature: Option<Vec<u8>>,
    /// `endpoints.yaml`, optional; the host may have written it.
    pub endpoints: Option<Vec<u8>>,
    /// `collateral.json`, optional; whoever trusts its collector believes it.
    pub collateral: Option<Vec<u8>>,
    /// `reference.json`, optional: this boot does not need it; who asks about it later does.
    pub reference: Option<Vec<u8>>,
    /// `reference.sig`, optional.
    pub reference_signature: Option<Vec<u8>>,
    /// `enrolment.txt`, optional: a key holder finds its own party's permit and mark in it.
    pub enrolment: Option<Vec<u8>>,
}

/// What a boot believes: made only by [`verify`].
#[derive(Debug, Clone)]
pub struct VerifiedImage {
    /// The image.
    pub manifest: Manifest,
    /// SHA-256 of the manifest's bytes.
    pub manifest_sha256: Bytes32,
    /// p2's tree.
    pub boot: Verity,
    /// Where key holders are today.
    pub endpoints: Endpoints,
    /// What travels in a TEE's evidence: what its vendor published about it.
    pub collateral: Option<Value>,
    /// The bytes that all this was read from; the reference only if the builder signed it.
    pub documents: P1Documents,
    /// The builder's public key.
    pub builder: VerifyingKey,
}

impl P1Documents {
    /// By which documents a key holder enrols the image; none without the reference.
    pub fn presented(&self) -> Option<PresentImage> {
        Some(PresentImage {
            manifest: self.manifest.clone()?,
            manifest_sig: self.manifest_signature.clone()?,
            reference: self.reference.clone()?,
            reference_sig: self.reference_signature.clone()?,
            enrolment: self.enrolment.clone().unwrap_or_default(),
        })
    }
}

/// Reads p1 and the measured anchors (command line, builder's key) and verifies. The key is in the
/// initramfs ([`BUILDER_KEY`]), and in the running system where [`crate::handoff::write_image`]
/// left it.
pub fn read(disk: &Disk, builder_key: &str) -> Result<VerifiedImage, Failure> {
    let path = disk.partition(Which::Esp).path();
    let length = disk.partition(Which::Esp).length;
    if length > esp::MAX_IMAGE_BYTES as u64 {
        let detail = format!("p1 has {length} bytes, expected at most {}", esp::MAX_IMAGE_BYTES);
        return Err(Failure::new(Code::Esp, detail));
    }
    let mut image = Vec::new();
    File::open(&path)
        .and_then(|file| file.take(length).read_to_end(&mut image))
        .code_at(Code::Esp, path.display())?;
    let documents = documents(&image).code(Code::Esp)?;
    let command_line = cvm_base::read_bounded(COMMAND_LINE.as_ref(), COMMAND_LINE_BYTES)
        .code(Code::CommandLine)?;
    let digest = cmdline::manifest_digest(&command_line).code(Code::CommandLine)?;
    let key = cvm_base::read_bounded(builder_key.as_ref(), 32).code(Code::BuilderKey)?;
    let key = <[u8; 32]>::try_from(key)
        .map_err(|key| format!("{builder_key}: {} bytes, expected 32", key.len()));
    let key = VerifyingKey::from_bytes(&key.code(Code::BuilderKey)?)
        .code_at(Code::BuilderKey, builder_key)?;
    let verified = verify(&documents, digest, &key)?;
    let Manifest { image_id, role, site, .. } = &verified.manifest;
    step("manifest", format_args!("image {image_id} of {role} {site}, SHA-256 {digest}"));
    Ok(verified)
}

/// Our files out of p1's bytes.
///
/// The host owns p1: its FAT is parsed in user space (the kernel never mounts it before the
/// handoff), and from one copy in RAM, so that what was checked is what is used.
pub fn documents(image: &[u8]) -> Result<P1Documents, esp::EspError> {
    let read = |path: &str| esp::read_file(image, path, MAX_BYTES);
    Ok(P1Documents {
        manifest: read(p1::MANIFEST)?,
        manifest_signature: read(p1::MANIFEST_SIG)?,
        boot: read(p1::BOOT)?,
        boot_signature: read(p1::BOOT_SIG)?,
        endpoints: read(p1::ENDPOINTS)?,
        collateral: esp::read_file(image, p1::COLLATERAL, p1::MAX_COLLATERAL_BYTES)?,
        reference: read(p1::REFERENCE)?,
        reference_signature: read(p1::REFERENCE_SIG)?,
        enrolment: read(p1::ENROLMENT)?,
    })
}

/// Verifies: the manifest is the one that the measured command line names, the builder signed it
/// and the boot statement, both are of this version and consistent.
pub fn verify(
    documents: &P1Documents,
    expected: Bytes32,
    builder: &VerifyingKey,
) -> Result<VerifiedImage, Failure> {
    let bytes = documents
        .manifest
        .as_deref()
        .ok_or("manifest.json")
        .code_at(Code::ManifestMissing, "no file")?;
    let found = sha256(bytes);
    if found != expected {
        let detail = format!("SHA-256 is {found}, but the command line names {expected}");
        return Err(Failure::new(Code::ManifestDigest, detail));
    }
    let signature = documents.manifest_signature.as_deref();
    let signature = signature.ok_or("manifest.sig").code_at(Code::ManifestMissing, "no file")?;
    check_signature(builder, Kind::Manifest, bytes, signature).code(Code::ManifestSignature)?;
    let manifest: Manifest = serde_json::from_slice(bytes).code(Code::ManifestSchema)?;
    check_manifest(&manifest).code(Code::ManifestSchema)?;

    let bytes =
        documents.boot.as_deref().ok_or("boot.json").code_at(Code::BootMissing, "no file")?;
    let signature = documents
        .boot_signature
        .as_deref()
        .ok_or("boot.sig")
        .code_at(Code::BootMissing, "no file")?;
    check_signature(builder, Kind::Boot, bytes, signature).code(Code::BootSignature)?;
    let boot: BootStatement = serde_json::from_slice(bytes).code(Code::BootStatement)?;
    check_boot(&boot, &manifest, found).code(Code::BootStatement)?;

    let endpoints =
        documents.endpoints.as_deref().map(|bytes| endpoints(bytes, &manifest)).transpose();
    let endpoints = endpoints.code(Code::Endpoints)?.unwrap_or_default();
    let collateral =
        documents.collateral.as_deref().map(collateral).transpose().code(Code::Collateral)?;
    let documents = with_signed_reference(documents, builder);
    let boot = boot.boot;
    Ok(VerifiedImage {
        manifest,
        manifest_sha256: found,
        boot,
        endpoints,
        collateral,
        documents,
        builder: *builder,
    })
}

/// The documents, without a reference that is not the builder's: a boot goes on without one.
fn with_signed_reference(documents: &P1Documents, builder: &VerifyingKey) -> P1Documents {
    let signed = match (&documents.reference, &documents.reference_signature) {
        (Some(reference), Some(signature)) => {
            check_signature(builder, Kind::Reference, reference, signature)
        }
        _ => Err("reference.json or reference.sig is missing".into()),
    };
    match signed {
        Ok(()) => documents.clone(),
        Err(problem) => {
            step(
                "reference",
                format_args!("left out; nobody can verify this machine by it: {problem}"),
            );
            P1Documents { reference: None, reference_signature: None, ..documents.clone() }
        }
    }
}

fn check_signature(
    key: &VerifyingKey,
    kind: Kind,
    document: &[u8],
    signature: &[u8],
) -> Result<(), String> {
    let signature =
        signature.try_into().map_err(|_| format!("{} bytes, expected 64", signature.len()))?;
    signed::verify(key, kind, document, signature).map_err(|e| e.to_string())
}

/// What a schema cannot say: numbers that fit each other, public keys that are not of low order.
fn check_manifest(manifest: &Manifest) -> Result<(), String> {
    manifest.check_version()?;
    if manifest.version != VERSION {
        // The same halves would make another key of `state` than the image was sealed with.
        return Err(format!(
            "version {}, whose `state` opens without all parties: seal the site anew, or boot it \
             with its own cvm-init",
            manifest.version
        ));
    }
    let length =
        |index: usize| manifest.partitions.get(index).map_or(0, |partition| partition.length);
    let (root, config) = (length(2), length(3));
    check_verity("config", &manifest.config, config)?;
    let payload = manifest
        .root
        .sealed_bytes
        .checked_sub(LUKS_HEADER_BYTES)
        .ok_or("sealed_bytes is too small")?;
    check_volume("system", &manifest.root.system, payload)?;
    check_volume("site", &manifest.root.site, payload)?;
    let state = manifest.root.state_offset;
    if state < manifest.root.sealed_bytes || !state.is_multiple_of(BLOCK) || state >= root {
        return Err(format!("state_offset {state} is not after the sealed area and inside p3"));
    }

    let key = &manifest.split_key;
    let names: BTreeSet<_> = key.parties.iter().map(|party| &party.name).collect();
    if key.parties.is_empty()
        || key.parties.len() > split_key::MAX_PARTIES
        || names.len() != key.parties.len()
    {
        return Err(format!(
            "{} parties, {} names: expected 1 to {}, each once",
            key.parties.len(),
            names.len(),
            split_key::MAX_PARTIES
        ));
    }
    // What a site's work leaves behind opens with all parties or not at all.
    if let Some(party) =
        key.parties.iter().find(|party| !party.purposes.contains(&KeyPurpose::Jobs))
    {
        return Err(format!("{} takes no part in the keys of p5 and state", party.name));
    }
    // A stage without a party would derive its key from nobody's half.
    let stages =
        [Stage::Boot, Stage::Running].into_iter().take(if manifest.gpu.is_some() { 2 } else { 1 });
    if let Some(stage) = stages.into_iter().find(|stage| manifest.asked(*stage).next().is_none()) {
        return Err(format!("no party releases a half in stage {stage:?}"));
    }
    for public in key.parties.iter().map(|party| &party.public).chain([&key.ephemeral]) {
        split_key::check_public(public).map_err(|e| e.to_string())?;
    }
    Ok(())
}

fn check_volume(name: &str, volume: &Volume, space: u64) -> Result<(), String> {
    let space = space
        .checked_sub(volume.offset)
        .ok_or_else(|| format!("{name} starts after the end of its area"))?;
    check_verity(name, &volume.verity, space)?;
    if volume.offset.is_multiple_of(BLOCK) {
        Ok(())
    } else {
        Err(format!("{name} starts at {}", volume.offset))
    }
}

fn check_verity(name: &str, verity: &Verity, space: u64) -> Result<(), String> {
    let Verity { data_bytes, total_bytes, .. } = *verity;
    let whole =
        data_bytes > 0 && data_bytes.is_multiple_of(BLOCK) && total_bytes.is_multiple_of(BLOCK);
    if whole && data_bytes < total_bytes && total_bytes <= space {
        return Ok(());
    }
    Err(format!("{name}: {data_bytes} bytes of data in {total_bytes}, space for {space}"))
}

fn check_boot(
    boot: &BootStatement,
    manifest: &Manifest,
    manifest_sha256: Bytes32,
) -> Result<(), String> {
    if boot.version != BOOT_VERSION {
        return Err(format!("version {}, expected {BOOT_VERSION}", boot.version));
    }
    if boot.image_id != manifest.image_id || boot.manifest_sha256 != manifest_sha256 {
        return Err(format!(
            "it belongs to image {}, this is {}",
            boot.image_id, manifest.image_id
        ));
    }
    let length = manifest.partitions.get(1).map_or(0, |partition| partition.length);
    check_verity("boot", &boot.boot, length)
}

/// One JSON object; its content is for those who verify.
fn collateral(bytes: &[u8]) -> Result<Value, String> {
    let packed: Value = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    if packed.is_object() { Ok(packed) } else { Err("expected a JSON object".into()) }
}

fn endpoints(bytes: &[u8], manifest: &Manifest) -> Result<Endpoints, String> {
    let endpoints: Endpoints = yaml::parse(bytes)?;
    if endpoints.version != 1 {
        return Err(format!("version {}, expected 1", endpoints.version));
    }
    let known = |name: &cvm_layout::names::Name| {
        manifest.split_key.parties.iter().any(|party| &party.name == name)
    };
    match endpoints.keyholders.keys().find(|name| !known(name)) {
        Some(name) => Err(format!("{name} does not hold a half of this image")),
        None => Ok(endpoints),
    }
}

/// What the fuzz target runs: any of the documents, as if it were signed. What passes is
/// consistent.
pub fn fuzz(bytes: &[u8]) {
    if let Ok(manifest) = serde_json::from_slice::<Manifest>(bytes)
        && check_manifest(&manifest).is_ok()
    {
        assert!(manifest.root.sealed_bytes <= manifest.root.state_offset);
        let _ = endpoints(bytes, &manifest);
    }
    let _ = serde_json::from_slice::<BootStatement>(bytes);
    let _ = yaml::parse::<Endpoints>(bytes);
    let _ = collateral(bytes);
}

#[cfg(test)]
pub(crate) mod tests;
