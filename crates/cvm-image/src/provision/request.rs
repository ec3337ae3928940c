//! What a bundle is made of.

use std::path::Path;

use cvm_ceremony::{Agreement, OpenedContribution};
use cvm_custody::BuilderSecrets;
use cvm_layout::{layout::Layout, names::Name, site_conf::SiteConf};

use super::{Delegate, TeeHosts};
use crate::{
    boot::secure_boot,
    cc::{AgentConf, CcConfig},
    memory::Memory,
    stage::StageImage,
};

/// Everything that one bundle is made of.
pub struct ProvisionRequest<'a> {
    /// What the whole project shares.
    pub project: ProjectRequest<'a>,
    /// What the parties agreed on and gave to the builder.
    pub ceremony: CeremonyRequest<'a>,
    /// What the site brings.
    pub site: SiteRequest<'a>,
    /// What the bundle becomes.
    pub output: OutputRequest<'a>,
}

/// What the bundles of a project share.
pub struct ProjectRequest<'a> {
    /// The project's provisioned stage image.
    pub base: &'a StageImage,
    /// `cvm-init`'s ELF file.
    pub init: &'a Path,
    /// The keys that sign the boot chain.
    pub secure_boot: &'a secure_boot::Keys,
    /// Hosts with TEEs whose measurements go into the reference values.
    pub tee_hosts: &'a TeeHosts,
    /// Whether the image may hold an NVFLARE that flare-cvm was not tested with.
    pub allow_untested_nvflare: bool,
}

/// What the key ceremony left for one build.
pub struct CeremonyRequest<'a> {
    /// What all parties signed.
    pub agreement: &'a Agreement,
    /// The build's name, as the contributions state it.
    pub build: &'a Name,
    /// One base key per party of the site, for the site's role.
    pub contributions: &'a [OpenedContribution],
    /// The keys that sign the manifest, the boot statement and the reference values.
    pub builder: &'a BuilderSecrets,
}

/// One site.
pub struct SiteRequest<'a> {
    /// The site's startup kit, as `nvflare provision` made it.
    pub kit: &'a Path,
    /// The site's configuration.
    pub conf: &'a SiteConf,
    /// The `cc_config` that the kit was made from, where it is known.
    pub cc_config: Option<&'a CcConfig>,
    /// Sizes of the partitions.
    pub layout: &'a Layout,
    /// The folder of the model's code and start weights, for the sealed `site` volume.
    pub model: Option<&'a Path>,
    /// How the agent in the CVM behaves; its port is among the site's open ports.
    pub agent: &'a AgentConf,
    /// The key holder that a server's CVM runs for the clients' CVMs.
    pub delegate: Option<&'a Delegate>,
}

/// Where a bundle goes, and how it is made.
pub struct OutputRequest<'a> {
    /// The bundle's place.
    pub path: &'a Path,
    /// What the bundle is, there.
    pub form: Form,
    /// Whether an earlier bundle at `path` may be replaced.
    pub replace: bool,
    /// Where secrets lie while tools read them.
    pub memory: &'a Memory,
}

/// What a bundle is, at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A folder.
    Folder,
    /// A `.tgz` that holds the folder, and beside it copies of the key holders' documents.
    Archive,
}
