//! What sealing needs beyond NVFLARE's own keys, under the one key `flare_cvm`.

use std::path::PathBuf;

use cvm_layout::{names::Name, site_conf::Network};

use super::{
    AgentConf, CcConfigError, Monitor, monitors,
    paths::Surroundings,
    section::{Item, Section},
};

const KEYS: &[&str] = &[
    "agent",
    "agreement",
    "allow_swap",
    "allow_untested_nvflare",
    "attest_port",
    "base_dir",
    "base_image",
    "build",
    "builder",
    "collector",
    "contributions",
    "init",
    "keyholder",
    "layout",
    "memory_folder",
    "model",
    "monitors",
    "network",
    "output",
    "passphrase_file",
    "policies",
    "profile",
    "proxy",
    "replace",
    "unlock_key",
];

/// The section `flare_cvm`. Where the command line has a flag of the same name, the flag wins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Additions {
    /// The agreement, which all parties signed.
    pub agreement: Option<PathBuf>,
    /// The parties' contributions; those for another role than the site's are ignored.
    pub contributions: Vec<PathBuf>,
    /// The name of this build, as the contributions state it.
    pub build: Option<Name>,
    /// The builder's folder.
    pub builder: Option<PathBuf>,
    /// The builder's key file, if it is not `unlock.key` in its folder.
    pub unlock_key: Option<PathBuf>,
    /// A file whose first line is the builder's passphrase.
    pub passphrase_file: Option<PathBuf>,
    /// The project's provisioned stage image.
    pub base_image: Option<PathBuf>,
    /// The distribution that the base image must be built from.
    pub profile: Option<String>,
    /// The initramfs program.
    pub init: Option<PathBuf>,
    /// Sizes of the partitions; NVFLARE's drive sizes replace what they name.
    pub layout: Option<PathBuf>,
    /// The key holder that a server's CVM runs for the clients' CVMs.
    pub keyholder: Option<KeyHolder>,
    /// The folder for secrets while tools read them; it must lie in memory.
    pub memory_folder: Option<PathBuf>,
    /// Whether that memory may be swapped to a disk in the clear.
    pub allow_swap: bool,
    /// The folder of the model's code and start weights.
    pub model: Option<PathBuf>,
    /// What a server reports to.
    pub monitors: Vec<Monitor>,
    /// The site's network.
    pub network: Network,
    /// `http://HOST:PORT` of a proxy for the key holders.
    pub proxy: Option<String>,
    /// The site's own policies.
    pub policies: Policies,
    /// The public key of whoever collected what vendors publish. The agent trusts what that
    /// collector signed if it comes with a peer's evidence.
    pub collector: Option<PathBuf>,
    /// How the agent in the CVM behaves.
    pub agent: AgentConf,
    /// The folder that gets `SITE.tgz`.
    pub output: Option<PathBuf>,
    /// Whether an earlier `SITE.tgz` may be replaced.
    pub replace: bool,
    /// Whether an NVFLARE may be sealed that flare-cvm was not tested with.
    pub allow_untested_nvflare: bool,
}

/// A party whose key holder runs in the server's CVM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyHolder {
    /// The party's folder, with its key file in it.
    pub party: PathBuf,
    /// Where it listens.
    pub listen: u16,
}

/// Policies that travel in the image; they become `policies/NAME.rego` on p4.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policies {
    /// What the site's own evidence must meet while it runs.
    pub self_check: Option<PathBuf>,
    /// What a peer's evidence must meet.
    pub cross: Option<PathBuf>,
}

impl Additions {
    /// Reads the section. Gives it, and what the file's other paths are relative to.
    pub(super) fn read(
        item: Option<Item>,
        outside: &Surroundings,
    ) -> Result<(Self, Surroundings), CcConfigError> {
        let Some(item) = item else { return Ok((Self::default(), outside.clone())) };
        let mut section = item.section("a mapping of our additions", KEYS)?;
        let around = outside.with_base(section.optional("base_dir"))?;
        let additions = Self::of_section(&mut section, &around)?;
        if additions.unlock_key.is_some() && additions.passphrase_file.is_some() {
            return Err(CcConfigError::Contradiction {
                first: "flare_cvm.unlock_key".into(),
                second: "flare_cvm.passphrase_file".into(),
                problem: "the builder's secrets are locked in one way".into(),
            });
        }
        Ok((additions, around))
    }

    fn of_section(section: &mut Section, around: &Surroundings) -> Result<Self, CcConfigError> {
        let path = |section: &mut Section, key: &str| {
            section.optional(key).map(|item| around.resolve(item)).transpose()
        };
        let truth =
            |section: &mut Section, key: &str| section.optional(key).map_or(Ok(false), Item::truth);
        Ok(Self {
            agreement: path(section, "agreement")?,
            contributions: section
                .optional("contributions")
                .map_or(Ok(Vec::new()), |item| paths(item, around))?,
            build: section.optional("build").map(name).transpose()?,
            builder: path(section, "builder")?,
            unlock_key: path(section, "unlock_key")?,
            passphrase_file: path(section, "passphrase_file")?,
            base_image: path(section, "base_image")?,
            profile: section
                .optional("profile")
                .map(|item| item.text("a profile's name, such as debian-12"))
                .transpose()?,
            init: path(section, "init")?,
            layout: path(section, "layout")?,
            keyholder: section
                .optional("keyholder")
                .map(|item| keyholder(item, around))
                .transpose()?,
            memory_folder: path(section, "memory_folder")?,
            allow_swap: truth(section, "allow_swap")?,
            model: path(section, "model")?,
            monitors: section.optional("monitors").map_or(Ok(Vec::new()), monitors::read)?,
            network: section.optional("network").map_or(Ok(Network::default()), network)?,
            proxy: section.optional("proxy").map(proxy).transpose()?,
            collector: path(section, "collector")?,
            policies: section
                .optional("policies")
                .map_or(Ok(Policies::default()), |item| policies(item, around))?,
            agent: AgentConf::read(section.optional("attest_port"), section.optional("agent"))?,
            output: path(section, "output")?,
            replace: truth(section, "replace")?,
            allow_untested_nvflare: truth(section, "allow_untested_nvflare")?,
        })
    }
}

fn paths(item: Item, around: &Surroundings) -> Result<Vec<PathBuf>, CcConfigError> {
    item.list("a list of paths")?.into_iter().map(|item| around.resolve(item)).collect()
}

/// A [`Name`].
pub(super) fn name(item: Item) -> Result<Name, CcConfigError> {
    item.parsed(
        "1 to 64 letters, digits, '.', '_', '@' or '-', not starting with '.' or '-'",
        |text| text.parse().ok(),
    )
}

fn keyholder(item: Item, around: &Surroundings) -> Result<KeyHolder, CcConfigError> {
    const PORT: &str = "a TCP port, 1 to 65535";
    let mut section = item.section("a mapping with party and listen", &["listen", "party"])?;
    Ok(KeyHolder {
        party: around
            .resolve(section.required("party", "the folder of the key holder's party")?)?,
        listen: section.required("listen", PORT)?.number(PORT, 1..=65535)? as u16,
    })
}

fn proxy(item: Item) -> Result<String, CcConfigError> {
    item.parsed("http://HOST:PORT", |text| {
        let rest = text.strip_prefix("http://")?;
        let (host, port) = rest.trim_end_matches('/').rsplit_once(':')?;
        let good =
            !host.is_empty() && port.parse::<u16>().is_ok() && !text.contains(char::is_whitespace);
        good.then(|| text.to_owned())
    })
}

/// The network, with the same keys as in `site_conf.yaml`.
fn network(item: Item) -> Result<Network, CcConfigError> {
    const MODES: &str =
        "a mapping with mode: dhcp, or mode: static, address, prefix, gateway and dns";
    let mut section = item.section(MODES, &["address", "dns", "gateway", "mode", "prefix"])?;
    let fixed = section
        .required("mode", "dhcp or static")?
        .one_of("dhcp or static", &[("dhcp", false), ("static", true)])?;
    if !fixed {
        for key in ["address", "prefix", "gateway", "dns"] {
            if let Some(item) = section.optional(key) {
                return item.refuse("DHCP gives it", "leave it out, or say mode: static");
            }
        }
        return Ok(Network::default());
    }
    let ipv4 = |item: Item| item.parsed("an IPv4 address", |text| text.parse().ok());
    let address = ipv4(section.required("address", "an IPv4 address")?)?;
    const PREFIX: &str = "the network's prefix length, 0 to 32";
    let prefix = section.required("prefix", PREFIX)?.number(PREFIX, 0..=32)? as u8;
    let gateway = section.optional("gateway").map(ipv4).transpose()?;
    let dns = match section.optional("dns") {
        Some(item) => item.list("a list of IP addresses")?,
        None => Vec::new(),
    };
    let dns = dns
        .into_iter()
        .map(|item| item.parsed("an IP address", |text| text.parse().ok()))
        .collect::<Result<_, _>>()?;
    Ok(Network::Static { address, prefix, gateway, dns })
}

fn policies(item: Item, around: &Surroundings) -> Result<Policies, CcConfigError> {
    let mut section = item.section("a mapping with self and cross", &["boot", "cross", "self"])?;
    if let Some(item) = section.optional("boot") {
        return item.refuse(
            "each key holder decides by its own release policy, which the parties agreed on",
            "give it at `flare-cvm ceremony init --policy`, and leave it out here",
        );
    }
    let mut path = |key| section.optional(key).map(|item| around.resolve(item)).transpose();
    Ok(Policies { self_check: path("self")?, cross: path("cross")? })
}
