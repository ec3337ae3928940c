//! What the builder signs: the manifest, the boot statement and the reference values. All of it
//! goes to p1.

use std::fs;

use cvm_base::{Bytes32, sha256};
use cvm_ceremony::Marks;
use cvm_evidence::reference::{MAX_BYTES as MAX_REFERENCE, Reference};
use cvm_layout::{
    code_digest,
    layout::Placement,
    manifest::{BOOT_VERSION, BootStatement, Manifest, RootPartition, SplitKey, VERSION},
    p1,
    signed::{self, Kind},
};
use cvm_predict::Inputs;

use super::{
    ProvisionError,
    boot_chain::{BootChain, BootVolume},
    build::{Build, document, parts},
    volumes::Volumes,
};
use crate::{
    WorkError,
    boot::{LOADER_CONF, LOADER_CONF_PATH, LOADER_PATH, fat},
};

/// `manifest.json`, not yet signed.
pub(super) struct ManifestFile {
    pub(super) json: Vec<u8>,
    pub(super) sha256: Bytes32,
}

/// The builder's three documents with their signatures.
pub(super) struct Statements {
    pub(super) manifest: ManifestFile,
    pub(super) manifest_sig: Vec<u8>,
    boot_json: Vec<u8>,
    boot_sig: Vec<u8>,
    pub(super) reference_json: Vec<u8>,
    pub(super) reference_sig: Vec<u8>,
}

impl ManifestFile {
    pub(super) fn make(
        build: &Build,
        placement: &Placement,
        volumes: Volumes,
        split_key: SplitKey,
    ) -> Result<Self, ProvisionError> {
        let init_path = build.request.project.init;
        let init = fs::read(init_path).map_err(WorkError::io("read", init_path))?;
        let ceremony = &build.request.ceremony;
        let json = document(&Manifest {
            version: VERSION,
            image_id: build.image_id,
            project: ceremony.agreement.transcript().terms.project.clone(),
            site: build.site_conf.site.clone(),
            role: build.site_conf.role,
            partitions: placement.partitions.clone(),
            config: volumes.config,
            root: RootPartition { state_offset: placement.state_offset, ..volumes.root },
            split_key,
            init_code_sha256: code_digest::code_sha256(&init)?,
            gpu: build.request.site.cc_config.and_then(|config| config.gpu),
            build: Some(ceremony.build.clone()),
        });
        Ok(Self { sha256: sha256(&json), json })
    }
}

impl Statements {
    /// States and signs what boots, and what a TPM and TEEs will say about it.
    pub(super) fn sign(
        build: &Build,
        manifest: ManifestFile,
        chain: &BootChain,
        boot: &BootVolume,
    ) -> Result<Self, ProvisionError> {
        let boot_json = document(&BootStatement {
            version: BOOT_VERSION,
            image_id: build.image_id,
            manifest_sha256: manifest.sha256,
            boot: boot.verity.clone(),
        });
        let reference_json = reference(build, &manifest.sha256, chain, &boot.uki)?;
        let key = build.request.ceremony.builder.signing_key();
        let sign = |kind, document: &[u8]| signed::sign(key, kind, document).to_vec();
        Ok(Self {
            manifest_sig: sign(Kind::Manifest, &manifest.json),
            manifest,
            boot_sig: sign(Kind::Boot, &boot_json),
            boot_json,
            reference_sig: sign(Kind::Reference, &reference_json),
            reference_json,
        })
    }

    /// Makes p1: the loader and every statement.
    pub(super) fn write_esp(
        &self,
        build: &Build,
        loader: &[u8],
        marks: &Marks,
    ) -> Result<(), ProvisionError> {
        let enrolment = marks.enrolment(&self.reference_json);
        let files: [(&str, &[u8]); 9] = [
            (LOADER_PATH, loader),
            (LOADER_CONF_PATH, LOADER_CONF.as_bytes()),
            (p1::MANIFEST, &self.manifest.json),
            (p1::MANIFEST_SIG, &self.manifest_sig),
            (p1::BOOT_SIG, &self.boot_sig),
            (p1::BOOT, &self.boot_json),
            (p1::REFERENCE, &self.reference_json),
            (p1::REFERENCE_SIG, &self.reference_sig),
            (p1::ENROLMENT, enrolment.as_bytes()),
        ];
        let files = files.into_iter().map(|(name, bytes)| (name.to_owned(), bytes.to_vec()));
        let esp = fat::make(build.partition_bytes(1)?, "FLARECVMESP", &files.collect())?;
        let image = build.path(parts::ESP);
        Ok(fs::write(&image, &esp).map_err(WorkError::io("write", &image))?)
    }
}

/// `reference.json`: what a TPM will quote, and what the TEEs of the known hosts will measure.
fn reference(
    build: &Build,
    manifest_sha256: &Bytes32,
    chain: &BootChain,
    uki: &[u8],
) -> Result<Vec<u8>, ProvisionError> {
    let platforms = build.request.project.tee_hosts.predict(uki)?;
    let databases = &chain.firmware.databases;
    let tpm = cvm_predict::tpm(&Inputs {
        loader: &chain.loader,
        uki,
        pk: &databases.pk,
        kek: &databases.kek,
        db: &databases.db,
        dbx: &databases.dbx,
        authority: &databases.db_authority,
    })?;
    let json = document(&Reference::new(build.image_id, *manifest_sha256, tpm, platforms));
    // Its readers, a boot and a key holder, take no more.
    if json.len() > MAX_REFERENCE {
        return Err(ProvisionError::Tee {
            platform: "all together".into(),
            problem: format!(
                "their reference values take {} bytes, at most {MAX_REFERENCE} are read: name \
                 fewer",
                json.len()
            ),
        });
    }
    Ok(json)
}
