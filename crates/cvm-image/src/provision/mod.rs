//! Provisioning: one site's startup kit, sealed into a bundle that boots.
//!
//! [`provision`] reads as the list of what a bundle is made of. It works in a folder beside the
//! output, which takes the output's place by one rename at the end: a bundle is whole or not there,
//! and an earlier one stays until then. What is secret of it lies in memory only ([`Memory`]).

mod archive;
mod bundle;
mod cleartext;
mod delegate;
mod error;
mod gzip;
mod tee;

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use cvm_base::{Bytes, Bytes32, sha256};
use cvm_ceremony::{Agreement, Keys, OpenedContribution, build_split_key, split_key::Purpose};
use cvm_custody::BuilderSecrets;
use cvm_evidence::reference::{MAX_BYTES as MAX_REFERENCE, Platforms, Reference};
use cvm_layout::{
    code_digest,
    layout::{Contents, Layout, Placement, verity_data_room},
    manifest::{
        BOOT_VERSION, BootStatement, ImageId, LUKS_HEADER_BYTES, Manifest, RootPartition, SplitKey,
        VERSION, Verity, Volume,
    },
    names::Name,
    p1,
    signed::{self, Kind},
    site_conf::SiteConf,
};
use cvm_predict::Inputs;
use cvm_seal::{DiskKey, MacKey, luks, verity};

pub use archive::document_beside;
pub use bundle::{Bundle, Form, files};
pub use delegate::Delegate;
pub use error::ProvisionError;
pub use tee::TeeHosts;

use crate::{
    WorkError,
    memory::{Memory, SecretFolder},
    tool,
};
use crate::{
    boot::{
        self,
        disk::{self, Content},
        fat, initramfs,
        secure_boot::{self, Firmware},
        uki,
    },
    cc::{AgentConf, CcConfig, CpuMechanism, manager},
    stage::{
        StageImage, erofs,
        kit::{self, KitRequest, SplitKit},
    },
    workload::{self, WorkloadError, docker},
};

/// What `cvm-init` loads, in order; part of the program so that image and loader agree.
const MODULES: &str = include_str!("../../../../initramfs/modules.list");

/// Everything that one bundle is made of.
pub struct Request<'a> {
    /// The project's provisioned stage image.
    pub base: &'a StageImage,
    /// `cvm-init`'s ELF file.
    pub init: &'a Path,
    /// The site's startup kit, as `nvflare provision` made it.
    pub kit: &'a Path,
    /// The site's configuration.
    pub site_conf: &'a SiteConf,
    /// Sizes of the partitions.
    pub layout: &'a Layout,
    /// What both parties signed.
    pub agreement: &'a Agreement,
    /// The build's name, as the contributions state it.
    pub build: &'a Name,
    /// One base key per party of the site, for its role.
    pub contributions: &'a [OpenedContribution],
    /// The key holder that a server's CVM runs for the clients' CVMs.
    pub delegate: Option<&'a Delegate>,
    /// Signs the manifest, the boot statement and the reference values.
    pub builder: &'a BuilderSecrets,
    /// Sign the boot chain.
    pub secure_boot: &'a secure_boot::Keys,
    /// The folder of the model's code and start weights, for the sealed `site` volume.
    pub model: Option<&'a Path>,
    /// Hosts with TEEs whose measurements go into the reference values.
    pub tee_hosts: &'a TeeHosts,
    /// The `cc_config` that the kit was made from, where it is known.
    pub cc_config: Option<&'a CcConfig>,
    /// Whether an NVFLARE may be sealed that flare-cvm was not tested with.
    pub allow_untested_nvflare: bool,
    /// How the agent in the CVM behaves; its port is among the site's open ports.
    pub agent: &'a AgentConf,
    /// Where secrets lie while tools read them.
    pub memory: &'a Memory,
    /// What the bundle becomes.
    pub form: Form,
    /// Its place.
    pub output: &'a Path,
    /// Whether an earlier bundle at `output` may be replaced.
    pub replace: bool,
}

/// Seals one site's bundle. `progress` gets a line before each step.
pub fn provision(
    request: &Request,
    progress: &mut dyn FnMut(&str),
) -> Result<Bundle, ProvisionError> {
    let site = request.agreement.site(&request.site_conf.site, request.site_conf.role)?;
    check_base(request)?;
    let mut site_conf = request.site_conf.clone();
    if let Some(delegate) = request.delegate {
        delegate.check(request.agreement, site)?;
        delegate.open_port(&mut site_conf);
        tool::require(&["fakeroot"])?;
    }
    let request = &Request { site_conf: &site_conf, ..*request };
    tool::require(&[
        "objcopy",
        "sbsign",
        "openssl",
        "qemu-img",
        "qemu-io",
        "mkfs.ext4",
        "mformat",
        "mmd",
        "mcopy",
        "mkfs.erofs",
        "fsck.erofs",
    ])?;
    let work = bundle::WorkFolder::beside(request.output, request.replace)?;
    request.builder.check_unused(request.agreement, request.build, &site.name)?;
    let path = |name: &str| work.path().join(name);
    let secrets = request.memory.folder()?;
    let (site_tree, site_image) = (secrets.join("site"), secrets.join("site.img"));
    let image_id = random_image_id()?;

    progress("key: combining its parties' contributions");
    let (split_key, keys, marks) =
        build_split_key(request.agreement, request.contributions, site, &image_id)?;

    progress("kit: verifying its signatures, keeping its private keys apart");
    let split = split_kit(request, &split_key, &path("config"), &site_tree)?;
    cvm_base::write_atomic(
        &path("config").join("agreement.txt"),
        request.agreement.text().as_bytes(),
        0o644,
    )?;
    let site_owner = match request.delegate {
        Some(delegate) => delegate.install(&path("config"), &site_tree)?,
        None => erofs::Owner::Nvflare,
    };
    let agent =
        request.agent.for_kit(manager::names_snp_authorizer(request.kit, request.site_conf.role)?);
    if let Some(yaml) = agent.yaml() {
        cvm_base::write_atomic(&path("config").join(AgentConf::FILE), yaml.as_bytes(), 0o644)?;
    }
    if let Some(model) = request.model {
        progress("model: its code and weights into the site volume");
        workload::seal_model(model, &site_tree)?;
    }
    let python = match request.cc_config.and_then(|config| config.docker_archive.as_deref()) {
        Some(archive) => unpack(request, archive, &secrets, progress)?,
        None => request.base.meta.python.clone(),
    };
    progress("CC manager: checking its issuers, verifiers and sites");
    let remarks = manager::check(&manager::Check {
        kit: request.kit,
        role: request.site_conf.role,
        site: &request.site_conf.site,
        python: &python,
        config: request.cc_config,
        allow_untested: request.allow_untested_nvflare,
    })?;
    remarks.iter().for_each(|remark| progress(&format!("CC manager: not checked here: {remark}")));
    let config =
        verity_volume(&path("config"), &path("config.img"), erofs::Owner::Root, &image_id)?;
    let site = verity_volume(&site_tree, &site_image, site_owner, &image_id)?;

    progress("p3: sealing system and site volumes with the system key");
    let root = seal_root(request, site, &keys, &site_image, &path("root.img"))?;
    drop(secrets);

    progress("boot chain: initramfs, UKI, signatures, Secure Boot variables");
    let firmware = request.secure_boot.firmware(request.base.module_signer()?.as_deref())?;
    let loader = request.secure_boot.signed_loader()?;
    let archive = initramfs(request)?;

    disk::empty_ext4(&path("data.img"), partition_bytes(request.layout, 6)?, &image_id)?;
    let placement = request.layout.place(&Contents {
        esp: partition_bytes(request.layout, 1)?,
        boot: partition_bytes(request.layout, 2)?,
        root: root.sealed_bytes,
        config: config.total_bytes,
        data: partition_bytes(request.layout, 6)?,
    })?;
    let manifest = manifest(request, image_id, &placement, config, root, split_key)?;
    let manifest = document(&manifest);
    let manifest_sha256 = sha256(&manifest);

    let kernel = request.base.read_file("vmlinuz")?;
    let os_release = String::from_utf8_lossy(&request.base.read_file("os-release")?).into_owned();
    let unsigned = uki::build(&uki::Parts {
        kernel: &kernel,
        initrd: &archive.archive,
        os_release: &os_release,
        cmdline: &uki::cmdline(&manifest_sha256),
    })?;
    let signed_uki = request.secure_boot.sign("the kernel image", &unsigned)?;

    let boot_length = partition_bytes(request.layout, 2)?;
    let uki_file = [(boot::UKI_PATH.to_owned(), signed_uki.clone())].into();
    let fat = fat::make(verity_data_room(boot_length), "FLARECVMBOT", &uki_file)?;
    write(&path("boot.img"), &fat)?;
    let verity = verity::format(&path("boot.img"), fat.len() as u64, salt(&image_id, "boot"))?;
    let statement =
        document(&BootStatement { version: BOOT_VERSION, image_id, manifest_sha256, boot: verity });

    progress("reference values: predicting what a TPM will quote and TEEs will measure");
    let tees = request.tee_hosts.predict(&signed_uki)?;
    let reference = reference(image_id, manifest_sha256, &loader, &signed_uki, &firmware, tees)?;
    let reference = readable(document(&reference))?;

    let sign = |kind, document: &[u8]| {
        signed::sign(request.builder.signing_key(), kind, document).to_vec()
    };
    let manifest_sig = sign(Kind::Manifest, &manifest);
    let reference_sig = sign(Kind::Reference, &reference);
    let esp_files = [
        (boot::LOADER_PATH, loader.clone()),
        (boot::LOADER_CONF_PATH, boot::LOADER_CONF.into()),
        (p1::MANIFEST, manifest.clone()),
        (p1::MANIFEST_SIG, manifest_sig.clone()),
        (p1::BOOT_SIG, sign(Kind::Boot, &statement)),
        (p1::BOOT, statement),
        (p1::REFERENCE, reference.clone()),
        (p1::REFERENCE_SIG, reference_sig.clone()),
        (p1::ENROLMENT, marks.enrolment(&reference).into_bytes()),
    ];
    let esp_files =
        esp_files.into_iter().map(|(name, content)| (name.to_owned(), content)).collect();
    let esp = fat::make(partition_bytes(request.layout, 1)?, "FLARECVMESP", &esp_files)?;
    write(&path("esp.img"), &esp)?;

    progress("cleartext partitions: searching p1, p2, p4 and p6 for secrets");
    cleartext::search(
        &[
            ("p1", path("esp.img")),
            ("p2", path("boot.img")),
            ("p4", path("config.img")),
            ("p6", path("data.img")),
        ],
        &archive.archive,
        &split,
        request.delegate,
        &keys,
    )?;

    progress("disk.qcow2: placing six partitions");
    let contents = [
        Content::File(&path("esp.img")),
        Content::File(&path("boot.img")),
        Content::File(&path("root.img")),
        Content::File(&path("config.img")),
        Content::Nothing,
        Content::File(&path("data.img")),
    ];
    disk::build(&path(files::DISK), &placement, &image_id, contents)?;

    let small = bundle::SmallFiles {
        site_conf: request.site_conf,
        host: host(request),
        image_id,
        firmware: &firmware,
        manifest: &manifest,
        manifest_sig: &manifest_sig,
        reference: &reference,
        reference_sig: &reference_sig,
    };
    small.write(work.path())?;
    let sizes = bundle::Sizes {
        disk: fs::metadata(path(files::DISK))
            .map_err(WorkError::io("measure", &path(files::DISK)))?
            .len(),
        initramfs: archive.archive.len() as u64,
        uki: signed_uki.len() as u64,
    };
    if request.form == Form::Archive {
        progress("bundle: packing it into one file");
    }
    // Before the bundle appears: a name without a bundle costs another name, a bundle without its
    // name would be a second.
    let recorded = request.builder.record(
        request.agreement,
        request.build,
        &request.site_conf.site,
        &image_id,
    )?;
    if let Err(error) = work.finish(request.form, &image_id) {
        request.builder.forget(request.agreement, request.build, &request.site_conf.site)?;
        return Err(error);
    }
    drop(recorded);
    request.delegate.map_or(Ok(()), Delegate::destroy)?;
    Ok(Bundle { path: request.output.to_owned(), image_id, manifest_sha256, sizes })
}

fn check_base(request: &Request) -> Result<(), ProvisionError> {
    let base = &request.base.meta;
    if base.system.is_none() {
        return Err(ProvisionError::NoSystemVolume { stage: base.stage.clone() });
    }
    Ok(request.cc_config.map_or(Ok(()), |config| config.check_surroundings(base))?)
}

/// What the README says of the host.
fn host(request: &Request) -> &'static str {
    match request.cc_config.and_then(|config| config.cpu) {
        Some(CpuMechanism::AmdSevSnp) => {
            "The host must run it under AMD SEV-SNP (cc_cpu_mechanism).\n"
        }
        Some(CpuMechanism::IntelTdx) => {
            "The host must run it under Intel TDX (cc_cpu_mechanism).\n"
        }
        None => "",
    }
}

fn random_image_id() -> Result<ImageId, ProvisionError> {
    let mut id = Bytes([0; 16]);
    getrandom::fill(&mut id.0).map_err(|e| ProvisionError::Random(e.to_string()))?;
    Ok(id)
}

fn split_kit(
    request: &Request,
    split_key: &SplitKey,
    config: &Path,
    site: &Path,
) -> Result<SplitKit, ProvisionError> {
    let split_key_json = document(split_key);
    let kit = KitRequest {
        kit: request.kit,
        role: request.site_conf.role,
        site_conf: request.site_conf,
        split_key_json: &split_key_json,
        extras: &request.cc_config.map(CcConfig::extras).unwrap_or_default(),
        gpu: request.cc_config.and_then(|config| config.gpu),
    };
    Ok(kit::split(&kit, config, site)?)
}

/// Unpacks the site's workload; gives its NVFLARE, which runs in the place of the base image's.
fn unpack(
    request: &Request,
    archive: &Path,
    secrets: &SecretFolder,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<String>, ProvisionError> {
    progress(&format!("workload: unpacking {}", archive.display()));
    let scratch = secrets.join("workload");
    fs::create_dir(&scratch).map_err(WorkError::io("make", &scratch))?;
    let user_config = request.cc_config.iter().flat_map(|config| &config.user_config);
    let workload = docker::unpack(&docker::Unpack {
        archive,
        site: &secrets.join("site"),
        scratch: &scratch,
        limit: request.layout.state_bytes(),
        role: request.site_conf.role,
        user_config: user_config.map(|(name, source)| (name.clone(), source.is_dir())).collect(),
        model: request.model.is_some(),
        gpus: request.cc_config.is_some_and(|config| config.gpu.is_some()),
    })
    .map_err(WorkloadError::from)?;
    fs::remove_dir_all(&scratch).map_err(WorkError::io("remove", &scratch))?;
    let docker::Workload { layers, cleared, python } = workload;
    progress(&format!(
        "workload: {layers} layers; cleared the set-id bits of {} files and the capabilities of {}",
        cleared.set_id, cleared.capabilities
    ));
    Ok(python)
}

/// An erofs of `tree` at `image`, its verity tree behind it.
fn verity_volume(
    tree: &Path,
    image: &Path,
    owner: erofs::Owner,
    id: &ImageId,
) -> Result<Verity, ProvisionError> {
    let bytes = erofs::make(tree, image, owner, id)?;
    Ok(verity::format(image, bytes, salt(id, &tree.to_string_lossy()))?)
}

/// A salt of its own for each volume of each image; public.
fn salt(image_id: &ImageId, volume: &str) -> Bytes32 {
    let volume = volume.rsplit('/').next().unwrap_or(volume);
    sha256(format!("flare-cvm/v1/verity-salt/{volume}/{image_id}").as_bytes())
}

/// p3's first area: the project's `system` volume and behind it the site's own, one LUKS2
/// container.
fn seal_root(
    request: &Request,
    site: Verity,
    keys: &Keys,
    site_image: &Path,
    area: &Path,
) -> Result<RootPartition, ProvisionError> {
    let system =
        request.base.meta.system.clone().ok_or_else(|| ProvisionError::NoSystemVolume {
            stage: request.base.meta.stage.clone(),
        })?;
    let system_image = area.with_extension("system");
    request.base.extract_system(&system_image)?;
    let open = |path: &Path| File::open(path).map_err(WorkError::io("read", path));
    let mut plain = open(&system_image)?
        .take(system.total_bytes)
        .chain(open(site_image)?.take(site.total_bytes));
    let sealed = luks::seal(
        &mut plain,
        system.total_bytes + site.total_bytes,
        area,
        0,
        &DiskKey::new(keys.get(Purpose::System).as_bytes()),
        &MacKey::new(keys.get(Purpose::HeaderMacSystem).as_bytes()),
    )?;
    fs::remove_file(&system_image).map_err(WorkError::io("remove", &system_image))?;
    debug_assert_eq!(sealed.total_bytes, LUKS_HEADER_BYTES + system.total_bytes + site.total_bytes);
    Ok(RootPartition {
        sealed_bytes: sealed.total_bytes,
        site: Volume { offset: system.total_bytes, verity: site },
        system: Volume { offset: 0, verity: system },
        state_offset: 0, // placed later
    })
}

fn initramfs(request: &Request) -> Result<initramfs::Initramfs, ProvisionError> {
    let release = request.base.meta.kernel.as_str();
    let kernel_file = |name: &str| {
        request.base.read_file(&format!("lib/modules/{release}/{name}")).map_err(|e| e.to_string())
    };
    Ok(initramfs::build(&initramfs::Sources {
        init: request.init,
        kernel_release: release,
        modules: MODULES,
        kernel_file: &kernel_file,
        builder_public: &request.builder.signing_key().verifying_key().to_bytes(),
    })?)
}

fn partition_bytes(layout: &Layout, number: usize) -> Result<u64, ProvisionError> {
    layout.exact_size(number).ok_or(ProvisionError::NeedsExactSize(number))
}

fn manifest(
    request: &Request,
    image_id: ImageId,
    placement: &Placement,
    config: Verity,
    root: RootPartition,
    split_key: SplitKey,
) -> Result<Manifest, ProvisionError> {
    let init = fs::read(request.init).map_err(WorkError::io("read", request.init))?;
    let project: Name = request.agreement.transcript().terms.project.clone();
    Ok(Manifest {
        version: VERSION,
        image_id,
        project,
        site: request.site_conf.site.clone(),
        role: request.site_conf.role,
        partitions: placement.partitions.clone(),
        config,
        root: RootPartition { state_offset: placement.state_offset, ..root },
        split_key,
        init_code_sha256: code_digest::code_sha256(&init)?,
        gpu: request.cc_config.and_then(|config| config.gpu),
        build: Some(request.build.clone()),
    })
}

fn reference(
    image_id: ImageId,
    manifest_sha256: Bytes32,
    loader: &[u8],
    uki: &[u8],
    firmware: &Firmware,
    tees: Platforms,
) -> Result<Reference, ProvisionError> {
    let databases = &firmware.databases;
    let tpm = cvm_predict::tpm(&Inputs {
        loader,
        uki,
        pk: &databases.pk,
        kek: &databases.kek,
        db: &databases.db,
        dbx: &databases.dbx,
        authority: &databases.db_authority,
    })?;
    Ok(Reference::new(image_id, manifest_sha256, tpm, tees))
}

/// Who reads it, in a boot as in a key holder, takes no more.
fn readable(reference: Vec<u8>) -> Result<Vec<u8>, ProvisionError> {
    match reference.len() {
        0..=MAX_REFERENCE => Ok(reference),
        length => Err(ProvisionError::Tee {
            platform: "all together".into(),
            problem: format!(
                "their reference values take {length} bytes, at most {MAX_REFERENCE} are read: name fewer"
            ),
        }),
    }
}

/// A document's one encoding: JSON, indented, a newline at its end.
fn document<T: serde::Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("our documents have only string keys");
    bytes.push(b'\n');
    bytes
}

fn write(path: &PathBuf, bytes: &[u8]) -> Result<(), ProvisionError> {
    fs::write(path, bytes).map_err(WorkError::io("write", path))?;
    Ok(())
}
