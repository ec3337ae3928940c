//! Provisioning: one site's startup kit, sealed into a bundle that boots.
//!
//! [`provision`] reads as the list of what a bundle is made of. It works in a folder beside the
//! output, which takes the output's place by one rename at the end: a bundle is whole or not there,
//! and an earlier one stays until then. The site's secrets lie in memory only ([`crate::memory`]).

mod archive;
mod boot_chain;
mod build;
mod bundle;
mod cleartext;
mod contents;
mod delegate;
mod error;
pub mod files;
mod gzip;
mod request;
mod statements;
mod tee;
mod volumes;

use std::fs;

use cvm_ceremony::build_split_key;
use cvm_layout::layout::{Contents as PartitionSizes, Placement};

pub use archive::document_beside;
pub use bundle::Bundle;
pub use delegate::Delegate;
pub use error::ProvisionError;
pub use request::{
    CeremonyRequest, Form, OutputRequest, ProjectRequest, ProvisionRequest, SiteRequest,
};
pub use tee::TeeHosts;

use crate::{
    WorkError,
    boot::disk::{self, Content},
    cc::CpuMechanism,
};
use boot_chain::{BootChain, BootVolume};
use build::{Build, parts};
use bundle::{Sizes, SmallFiles, UnfinishedBundle};
use statements::{ManifestFile, Statements};
use volumes::Volumes;

/// Seals one site's bundle. `progress` gets one line before each step.
pub fn provision(
    request: &ProvisionRequest,
    progress: &mut dyn FnMut(&str),
) -> Result<Bundle, ProvisionError> {
    let (agreed, site_conf) = build::check(request)?;
    let bundle = UnfinishedBundle::beside(&request.output)?;
    let ceremony = &request.ceremony;
    ceremony.builder.check_unused(ceremony.agreement, ceremony.build, &agreed.name)?;
    let secrets = request.output.memory.folder()?;
    let (image_id, folder) = (build::random_image_id()?, bundle.path().to_owned());
    let build = &Build { request, site_conf, image_id, folder };

    progress("key: combining its parties' contributions");
    let (split_key, keys, marks) =
        build_split_key(ceremony.agreement, ceremony.contributions, agreed, &image_id)?;
    let contents = contents::gather(build, &split_key, &secrets, progress)?;
    progress("p3: sealing system and site volumes with the system key");
    let volumes = Volumes::make(build, &contents, &keys, &secrets)?;
    // The site's secrets are sealed: nothing below needs them in the clear.
    drop(secrets);

    progress("boot chain: initramfs, UKI, signatures, Secure Boot variables");
    let chain = BootChain::make(build)?;
    disk::empty_ext4(&build.path(parts::DATA), build.partition_bytes(6)?, &image_id)?;
    let placement = place(build, &volumes)?;
    // Each of these names the digest of the one before: manifest, kernel image, statements.
    let manifest = ManifestFile::make(build, &placement, volumes, split_key)?;
    let boot = chain.boot_volume(build, &manifest.sha256)?;
    progress("reference values: predicting what a TPM will quote and TEEs will measure");
    let statements = Statements::sign(build, manifest, &chain, &boot)?;
    statements.write_esp(build, &chain.loader, &marks)?;

    progress("cleartext partitions: searching p1, p2, p4 and p6 for secrets");
    let cleartext =
        [("p1", parts::ESP), ("p2", parts::BOOT), ("p4", parts::CONFIG), ("p6", parts::DATA)]
            .map(|(partition, name)| (partition, build.path(name)));
    let archive = &chain.initramfs.archive;
    cleartext::search(&cleartext, archive, &contents.kit, request.site.delegate, &keys)?;

    progress("disk.qcow2: placing six partitions");
    let sizes = assemble(build, &placement, &chain, &boot, &statements)?;
    if request.output.form == Form::Archive {
        progress("bundle: packing it into one file");
    }
    publish(build, bundle)?;
    let manifest_sha256 = statements.manifest.sha256;
    Ok(Bundle { path: request.output.path.to_owned(), image_id, manifest_sha256, sizes })
}

fn place(build: &Build, volumes: &Volumes) -> Result<Placement, ProvisionError> {
    Ok(build.request.site.layout.place(&PartitionSizes {
        esp: build.partition_bytes(1)?,
        boot: build.partition_bytes(2)?,
        root: volumes.root.sealed_bytes,
        config: volumes.config.total_bytes,
        data: build.partition_bytes(6)?,
    })?)
}

/// Makes the disk, and the files beside it.
fn assemble(
    build: &Build,
    placement: &Placement,
    chain: &BootChain,
    boot: &BootVolume,
    statements: &Statements,
) -> Result<Sizes, ProvisionError> {
    let path = |name: &str| build.path(name);
    let contents = [
        Content::File(&path(parts::ESP)),
        Content::File(&path(parts::BOOT)),
        Content::File(&path(parts::ROOT)),
        Content::File(&path(parts::CONFIG)),
        Content::Nothing,
        Content::File(&path(parts::DATA)),
    ];
    let disk = path(files::DISK);
    disk::build(&disk, placement, &build.image_id, contents)?;
    SmallFiles {
        site_conf: &build.site_conf,
        host: host(build),
        image_id: build.image_id,
        firmware: &chain.firmware,
        statements,
    }
    .write(&build.folder)?;
    Ok(Sizes {
        disk: fs::metadata(&disk).map_err(WorkError::io("measure", &disk))?.len(),
        initramfs: chain.initramfs.archive.len() as u64,
        uki: boot.uki.len() as u64,
    })
}

/// Puts the bundle at its output, uses up the build's name for the site, and destroys the
/// delegate's own secrets.
fn publish(build: &Build, bundle: UnfinishedBundle) -> Result<(), ProvisionError> {
    let (ceremony, site) = (&build.request.ceremony, &build.site_conf.site);
    // Before the bundle appears: a name without a bundle costs another name, but a bundle without
    // its name would let a second one appear.
    let recorded =
        ceremony.builder.record(ceremony.agreement, ceremony.build, site, &build.image_id)?;
    if let Err(error) = bundle.finish(&build.image_id) {
        ceremony.builder.forget(ceremony.agreement, ceremony.build, site)?;
        return Err(error);
    }
    drop(recorded);
    build.request.site.delegate.map_or(Ok(()), Delegate::destroy)
}

/// What the README says about the host.
fn host(build: &Build) -> &'static str {
    match build.request.site.cc_config.and_then(|config| config.cpu) {
        Some(CpuMechanism::AmdSevSnp) => {
            "The host must run it under AMD SEV-SNP (cc_cpu_mechanism).\n"
        }
        Some(CpuMechanism::IntelTdx) => {
            "The host must run it under Intel TDX (cc_cpu_mechanism).\n"
        }
        None => "",
    }
}
