//! The arguments of `flare-cvm provision`.

use std::path::PathBuf;

use clap::Args;
use cvm_layout::names::Name;

use super::super::secret_input::UnlockArgs;

/// Seal NVFLARE startup kits into bundles that boot.
///
/// Takes the project's provisioned stage image, participants' folders as `nvflare provision` made
/// them, and what the ceremony left: the agreement, and a contribution of every party of the site
/// for its role. Contributions that the site does not need are ignored. A bundle is a folder with
/// disk.qcow2, the firmware with this project's Secure Boot keys, the signed manifest, the
/// predicted measurements and launch_vm.sh. No privileges are needed.
///
/// A site's secrets lie in memory only, so that a killed build leaves nothing on a disk; this takes
/// twice the size of its sealed volume. Core dumps are off. A build's name can be used once for a
/// site; a build that failed does not use up its name.
///
/// One site, everything on the command line; the bundle is a folder:
///
///   flare-cvm provision --kit prod_00/server1 --base-image provisioned.qcow2 --agreement
///   agreement.txt
///     --contribution a.txt --contribution b.txt --build v1 --builder builder -o bundles/server1
///
/// Any number of sites at once, by the cc_config files that NVFLARE's project.yml names; each
/// bundle is a SITE.tgz that holds a folder cvm_ID, as NVFLARE's packager makes them:
///
///   flare-cvm provision --cc-config cc_server1.yml --cc-config cc_site-1.yml --kit-root prod_00
///
/// A flag holds for every site; without a flag, the section flare_cvm of the site's file holds.
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Provision {
    /// The participant's startup kit, such as prod_00/server1
    #[arg(long, value_name = "FOLDER", required_unless_present = "cc_config")]
    pub(super) kit: Option<PathBuf>,
    /// A site's cc_config; give it once per site, with SITE= if the file is not named cc_SITE.yml
    #[arg(long, value_name = "[SITE=]FILE", conflicts_with_all = ["kit", "site_conf"])]
    pub(super) cc_config: Vec<String>,
    /// The folder of all sites' kits, such as prod_00; by default user_config.nvflare of each
    /// cc_config is the kit
    #[arg(long, value_name = "FOLDER", requires = "cc_config")]
    pub(super) kit_root: Option<PathBuf>,
    /// The image that `flare-cvm build provision_build` made
    #[arg(long, value_name = "FILE", required_unless_present = "cc_config")]
    pub(super) base_image: Option<PathBuf>,
    /// What all parties signed
    #[arg(long, value_name = "FILE", required_unless_present = "cc_config")]
    pub(super) agreement: Option<PathBuf>,
    /// A party's contribution; give it once per party and role. Those that a site does not need are
    /// ignored
    #[arg(long = "contribution", value_name = "FILE", required_unless_present = "cc_config")]
    pub(super) contributions: Vec<PathBuf>,
    /// The name of this build, as the contributions state it
    #[arg(long, value_name = "NAME", required_unless_present = "cc_config")]
    pub(super) build: Option<Name>,
    /// The builder's folder; the project's Secure Boot keys are kept in it too
    #[arg(long, value_name = "FOLDER", required_unless_present = "cc_config")]
    pub(super) builder: Option<PathBuf>,
    /// The site's configuration (network, hosts, ports); by default DHCP and NVFLARE's ports
    #[arg(long, value_name = "FILE")]
    pub(super) site_conf: Option<PathBuf>,
    /// Run a key holder for the clients' CVMs in this server's CVM: its party's folder, with
    /// unlock.key in it
    ///
    /// It must be a party of its own, which client sites name and the server's site does not
    /// (`ceremony invite --site`), and its folder must lie in memory: make it there (`ceremony init
    /// /dev/shm/NAME`). Its secrets are sealed into the server's image, and destroyed once that is
    /// whole.
    #[arg(long, value_name = "FOLDER", requires_all = ["kit", "keyholder_listen"])]
    pub(super) keyholder_party: Option<PathBuf>,
    /// The TCP port of that key holder
    #[arg(
        long,
        value_name = "PORT",
        requires = "keyholder_party",
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub(super) keyholder_listen: Option<u16>,
    /// A port at which anybody may challenge the running CVM: `flare-cvm attest HOST:PORT`
    /// [default: none]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) attest_port: Option<u16>,
    /// Sizes of the partitions; by default partitions/default.yaml as it was when this program was
    /// built
    #[arg(long, value_name = "FILE")]
    pub(super) layout: Option<PathBuf>,
    /// Hosts with SEV-SNP or TDX (YAML): what their TEEs will measure goes into reference.json
    #[arg(long, value_name = "FILE")]
    pub(super) tee_hosts: Option<PathBuf>,
    /// The initramfs program; by default `cvm-init` beside this program
    #[arg(long, value_name = "FILE")]
    pub(super) init: Option<PathBuf>,
    /// The folder of the model's code/ and weights/, sealed into p3 for jobs that carry no code
    #[arg(long, value_name = "FOLDER")]
    pub(super) model: Option<PathBuf>,
    /// The folder for secrets while tools read them; it must lie in memory (tmpfs) [default:
    /// /dev/shm]
    #[arg(long, value_name = "FOLDER")]
    pub(super) memory_folder: Option<PathBuf>,
    /// Let that memory be swapped to a disk that is not encrypted
    #[arg(long)]
    pub(super) allow_swap: bool,
    /// The bundle's folder; with --cc-config the folder for each SITE.tgz [default: beside the kit]
    #[arg(short, long, value_name = "FOLDER", required_unless_present = "cc_config")]
    pub(super) output: Option<PathBuf>,
    /// Replace an earlier bundle; what its CVM stored is lost
    #[arg(long)]
    pub(super) replace: bool,
    /// Seal an NVFLARE release that flare-cvm was not tested with
    #[arg(long)]
    pub(super) allow_untested_nvflare: bool,
    /// At most so many sites at a time [default: the number of processors]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) jobs: Option<u16>,
    /// Print one JSON object at the end instead of progress
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) unlock: UnlockArgs,
}
