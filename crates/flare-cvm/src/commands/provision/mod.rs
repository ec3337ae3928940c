//! `flare-cvm provision`: a site's startup kit, sealed into a bundle.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use cvm_base::read_bounded;
use cvm_ceremony::{Agreement, MAX_BYTES, open_contribution};
use cvm_image::{
    boot::secure_boot,
    provision::{Request, provision},
    stage::StageImage,
};
use cvm_layout::{
    layout::{self, Layout},
    names::{Name, Role},
    site_conf::{self, Network, SiteConf},
};

use super::{problem::Problem, progress::Progress, secret_input::UnlockArgs};

/// Seal a site's NVFLARE startup kit into a bundle that boots.
///
/// Takes the project's provisioned stage image, one participant's folder as `nvflare provision` made
/// it, and what the ceremony left: the agreement, and a contribution of every party for the site's
/// role. The bundle is a folder with disk.qcow2, the firmware with this project's Secure Boot keys,
/// the signed manifest, the predicted measurements and launch_vm.sh. No privileges are needed.
#[derive(Args)]
pub struct Provision {
    /// The image that `flare-cvm build provision_build` made
    #[arg(long, value_name = "FILE")]
    base_image: PathBuf,
    /// The participant's startup kit, as prod_00/server1
    #[arg(long, value_name = "FOLDER")]
    kit: PathBuf,
    /// What all parties signed
    #[arg(long, value_name = "FILE")]
    agreement: PathBuf,
    /// A party's contribution for the site's role; give it once per party
    #[arg(long = "contribution", value_name = "FILE", required = true)]
    contributions: Vec<PathBuf>,
    /// The name of this build, as the contributions state it
    #[arg(long, value_name = "NAME")]
    build: Name,
    /// The builder's folder; the project's Secure Boot keys are kept in it too
    #[arg(long, value_name = "FOLDER")]
    builder: PathBuf,
    /// The site's configuration (network, hosts, ports); by default DHCP and NVFLARE's ports
    #[arg(long, value_name = "FILE")]
    site_conf: Option<PathBuf>,
    /// Sizes of the partitions; by default partitions/default.yaml as it was when this program was built
    #[arg(long, value_name = "FILE")]
    layout: Option<PathBuf>,
    /// The initramfs program; by default `cvm-init` beside this program
    #[arg(long, value_name = "FILE")]
    init: Option<PathBuf>,
    /// The bundle's folder
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
    /// Replace an earlier bundle; what its CVM stored is lost
    #[arg(long)]
    replace: bool,
    /// Print one JSON object at the end instead of progress
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    unlock: UnlockArgs,
}

pub fn run(args: Provision) -> Result<()> {
    let mut progress = Progress::new(args.json);
    let site_conf = site_conf(&args)?;
    let layout = match &args.layout {
        Some(path) => Layout::parse(&text(path, layout::MAX_BYTES as u64)?)?,
        None => Layout::parse(include_str!("../../../../partitions/default.yaml"))?,
    };
    let init = match args.init {
        Some(path) => path,
        None => std::env::current_exe()?.with_file_name("cvm-init"),
    };
    if !init.is_file() {
        return Problem::result(
            "CLI-002",
            format!("there is no cvm-init at {}", init.display()),
            "run `make build`, or say --init",
        );
    }

    let builder = args.unlock.builder(&args.builder)?;
    let agreement = Agreement::parse(&read_bounded(&args.agreement, MAX_BYTES)?)?;
    let contributions = args
        .contributions
        .iter()
        .map(|path| {
            let bytes = read_bounded(path, MAX_BYTES)?;
            let opened = open_contribution(&bytes, &agreement, site_conf.role, &args.build, &builder);
            opened.with_context(|| path.display().to_string())
        })
        .collect::<Result<Vec<_>>>()?;

    let bundle = provision(
        &Request {
            base: &StageImage::open(&args.base_image)?,
            init: &init,
            kit: &args.kit,
            site_conf: &site_conf,
            layout: &layout,
            agreement: &agreement,
            contributions: &contributions,
            builder: &builder,
            secure_boot: &secure_boot::Keys::open_or_create(&args.builder.join("secure-boot"))?,
            output: &args.output,
            replace: args.replace,
        },
        &mut |line| progress.step(line),
    )?;
    progress.done(
        &format!(
            "{} is ready: image {}, disk {} MB, UKI {:.1} MB, initramfs {:.1} MB",
            bundle.folder.display(),
            bundle.image_id,
            bundle.sizes.disk / 1_000_000,
            bundle.sizes.uki as f64 / 1e6,
            bundle.sizes.initramfs as f64 / 1e6,
        ),
        &serde_json::json!({
            "bundle": bundle.folder, "image_id": bundle.image_id.to_string(),
            "manifest_sha256": bundle.manifest_sha256.to_string(), "disk_bytes": bundle.sizes.disk,
            "uki_bytes": bundle.sizes.uki, "initramfs_bytes": bundle.sizes.initramfs,
        }),
    );
    Ok(())
}

/// The given file, or what follows from the kit: its folder's name and whose configuration it holds.
fn site_conf(args: &Provision) -> Result<SiteConf> {
    if let Some(path) = &args.site_conf {
        return SiteConf::parse(&read_bounded(path, site_conf::MAX_BYTES)?).with_context(|| path.display().to_string());
    }
    let role = match (
        args.kit.join("startup/fed_server.json").exists(),
        args.kit.join("startup/fed_client.json").exists(),
    ) {
        (true, false) => Role::Server,
        (false, true) => Role::Client,
        _ => {
            return Problem::result(
                "CLI-003",
                format!(
                    "{} is no server's or client's startup kit: expected one of startup/fed_server.json, startup/fed_client.json",
                    args.kit.display()
                ),
                "give a participant's folder, as workspace/PROJECT/prod_00/server1",
            );
        }
    };
    let site = std::path::absolute(&args.kit)?;
    let site = site.file_name().unwrap_or_default().to_string_lossy().into_owned().try_into()?;
    let (allowed_ports, allowed_out_ports) = match role {
        Role::Server => (vec![8002, 8003], vec![]),
        Role::Client => (vec![], vec![8002, 8003]),
    };
    let (hosts_entries, proxy) = Default::default();
    let network = Network::default();
    Ok(SiteConf { version: 1, site, role, network, hosts_entries, allowed_ports, allowed_out_ports, proxy })
}

fn text(path: &Path, limit: u64) -> Result<String> {
    String::from_utf8(read_bounded(path, limit)?).with_context(|| format!("{} is not UTF-8 text", path.display()))
}
