//! A site's `cc_config` file: NVFLARE's keys, checked once.
//!
//! NVFLARE reads the file twice: its `CCBuilder` writes the CC manager's configuration into the
//! startup kit, and its packager hands the file to us. We read every key, including those for
//! `CCBuilder`: the kit must say the same ([`super::manager`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
};

use cvm_layout::{
    layout::{Layout, LayoutError, Resize},
    manifest::GpuMechanism,
    names::{Name, Role},
    site_conf::{self, SiteConf, is_host_name},
};

use super::{
    Additions, CcConfigError, Port, Surroundings,
    additions::name,
    section::{Item, Section},
};

/// More than any `cc_config` needs; longer input is refused unread.
pub const MAX_BYTES: u64 = 64 * 1024;
/// NVFLARE's "GB" is a power of two, as its image builder passes it to qemu-img.
const GB: u64 = 1 << 30;
/// What NVFLARE's `CCBuilder` assumes where the file says nothing.
const CHECK_FREQUENCY: u32 = 600;
/// Where vendors' attestation services answer.
const HTTPS: u16 = 443;
/// The longest time of a token or a check: a year, in seconds. More is a mistake.
const MAX_SECONDS: u64 = 366 * 24 * 3600;

const KEYS: [&str; 19] = [
    "allowed_out_ports",
    "allowed_ports",
    "applog_drive_size",
    "cc_attestation",
    "cc_cpu_mechanism",
    "cc_gpu_mechanism",
    "cc_issuers",
    "class_allow_list",
    "compute_env",
    "cvm_image_name",
    "docker_archive",
    "flare_cvm",
    "host_entries",
    "hosts_entries",
    "role",
    "root_drive_size",
    "user_config",
    "user_config_drive_size",
    "user_data_drive_size",
];

/// A checked `cc_config`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CcConfig {
    /// Where the site runs.
    pub compute_env: ComputeEnv,
    /// The processor's isolation.
    pub cpu: Option<CpuMechanism>,
    /// The GPU's isolation.
    pub gpu: Option<GpuMechanism>,
    /// The site's role.
    pub role: Role,
    /// Bytes for what the run writes: `root_drive_size`.
    pub root_drive: Option<u64>,
    /// Bytes for logs.
    pub applog_drive: Option<u64>,
    /// Bytes for the kit and the user's configuration.
    pub user_config_drive: Option<u64>,
    /// Bytes for the site's data.
    pub user_data_drive: Option<u64>,
    /// The workload, as `docker save` wrote it.
    pub docker_archive: Option<PathBuf>,
    /// The startup kit: `user_config.nvflare`, which NVFLARE's packager sets.
    pub kit: Option<PathBuf>,
    /// The other entries of `user_config`.
    pub user_config: BTreeMap<Name, PathBuf>,
    /// Names that the CVM resolves without DNS.
    pub hosts_entries: BTreeMap<String, IpAddr>,
    /// TCP ports that others may connect to, if the file says so.
    pub allowed_ports: Option<Vec<u16>>,
    /// TCP ports that the CVM may connect to, if the file says so.
    pub allowed_out_ports: Option<Vec<u16>>,
    /// Classes that a job may name in addition to NVFLARE's own list.
    pub class_allow_list: Vec<String>,
    /// The bundle's name, if it is not the site's.
    pub image_name: Option<Name>,
    /// Who issues the site's tokens; at least one.
    pub issuers: Vec<Issuer>,
    /// Seconds between two rounds of attestation.
    pub check_frequency: u32,
    /// What sealing needs beyond NVFLARE's keys.
    pub additions: Additions,
}

/// `compute_env`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComputeEnv {
    /// A confidential VM on the site's own machine.
    OnPremCvm,
    /// The same bundle for a federation whose CC tokens prove nothing: only here may a
    /// `MockAuthorizer` be an issuer.
    Mock,
}

/// `cc_cpu_mechanism`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CpuMechanism {
    /// AMD SEV-SNP.
    AmdSevSnp,
    /// Intel TDX.
    IntelTdx,
}

/// An entry of `cc_issuers`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// Its component in the kit.
    pub id: Name,
    /// Its Python class.
    pub path: String,
    /// Seconds that its tokens are valid.
    pub token_expiration: u32,
    /// The arguments of its class.
    pub args: serde_json::Map<String, serde_json::Value>,
}

impl CcConfig {
    /// Reads and checks a file. `around` says what its paths can be relative to.
    pub fn parse(yaml: &[u8], around: &Surroundings) -> Result<Self, CcConfigError> {
        let mut file = Section::root(yaml, &KEYS)?;
        let (additions, around) = Additions::read(file.optional("flare_cvm"), around)?;
        let (kit, user_config) = user_config(file.optional("user_config"), &around)?;
        let config = Self {
            compute_env: compute_env(file.required("compute_env", "onprem_cvm")?)?,
            cpu: file.optional("cc_cpu_mechanism").map(cpu).transpose()?,
            gpu: file.optional("cc_gpu_mechanism").map(gpu).transpose()?,
            role: file.required("role", "server or client")?.one_of(
                "server or client",
                &[("server", Role::Server), ("client", Role::Client)],
            )?,
            root_drive: file.optional("root_drive_size").map(drive).transpose()?,
            applog_drive: file.optional("applog_drive_size").map(drive).transpose()?,
            user_config_drive: file.optional("user_config_drive_size").map(drive).transpose()?,
            user_data_drive: file.optional("user_data_drive_size").map(drive).transpose()?,
            docker_archive: file
                .optional("docker_archive")
                .map(|item| around.resolve(item))
                .transpose()?,
            kit,
            user_config,
            hosts_entries: hosts(&mut file)?,
            allowed_ports: file.optional("allowed_ports").map(ports).transpose()?,
            allowed_out_ports: file.optional("allowed_out_ports").map(ports).transpose()?,
            class_allow_list: file.optional("class_allow_list").map_or(Ok(Vec::new()), classes)?,
            image_name: file.optional("cvm_image_name").map(name).transpose()?,
            issuers: issuers(file.required("cc_issuers", "a list of at least one issuer")?)?,
            check_frequency: file
                .optional("cc_attestation")
                .map_or(Ok(CHECK_FREQUENCY), check_frequency)?,
            additions,
        };
        config.agrees_with_itself()?;
        Ok(config)
    }

    fn agrees_with_itself(&self) -> Result<(), CcConfigError> {
        if self.additions.keyholder.is_some() && self.role != Role::Server {
            let problem = "only a server's CVM holds keys for others".into();
            return contradiction("flare_cvm.keyholder".into(), "role", problem);
        }
        for (at, issuer) in self.issuers.iter().enumerate() {
            self.check_issuer(at, issuer)?;
        }
        if let (Role::Client, Some(monitor)) = (self.role, self.additions.monitors.first()) {
            let problem = "only a server collects what monitors show".into();
            let key = format!("flare_cvm.monitors.{}", monitor.key);
            return contradiction(key, "role", problem);
        }
        Ok(())
    }

    /// Whether the issuer at `at` can do its work on this site.
    fn check_issuer(&self, at: usize, issuer: &Issuer) -> Result<(), CcConfigError> {
        let refuse = |field: &str, second: &'static str, problem: String| {
            contradiction(format!("cc_issuers[{at}].{field}"), second, problem)
        };
        if issuer.token_expiration >= self.check_frequency {
            let problem = format!(
                "a token of {} s must expire before the next check, {} s later",
                issuer.token_expiration, self.check_frequency
            );
            return refuse("token_expiration", "cc_attestation.check_frequency", problem);
        }
        let class = issuer.path.rsplit('.').next().unwrap_or_default();
        let (needed, found) = match class {
            "SNPAuthorizer" => (Some(CpuMechanism::AmdSevSnp), self.cpu),
            "TDXAuthorizer" => (Some(CpuMechanism::IntelTdx), self.cpu),
            _ => (None, None),
        };
        if found.is_some() && needed != found {
            let problem = format!("{class} needs the other processor");
            return refuse("path", "cc_cpu_mechanism", problem);
        }
        let closed = self.allowed_out_ports.as_ref().filter(|ports| !ports.contains(&HTTPS));
        if let Some(ports) = closed
            && asks_a_service(&issuer.path)
        {
            let problem =
                format!("{class} asks its vendor's service over port {HTTPS}, open are {ports:?}");
            return refuse("path", "allowed_out_ports", problem);
        }
        if class == "GPUAuthorizer" && self.gpu.is_none() {
            return refuse("path", "cc_gpu_mechanism", "GPUAuthorizer needs nvidia_cc".into());
        }
        if class == "MockAuthorizer" && self.compute_env != ComputeEnv::Mock {
            let problem =
                "a mock's tokens prove nothing; for a rehearsal say compute_env: mock".into();
            return refuse("path", "compute_env", problem);
        }
        Ok(())
    }

    /// The site's `site_conf.yaml`. If the file names no ports, those of NVFLARE are open: a
    /// server's to others; for a client, the server's; and the port of a service that an issuer
    /// asks.
    pub fn site_conf(&self, site: Name) -> SiteConf {
        let nvflare = |role| if self.role == role { vec![8002, 8003] } else { Vec::new() };
        let own_out = || {
            let services = self.issuers.iter().any(|issuer| asks_a_service(&issuer.path));
            nvflare(Role::Client).into_iter().chain(services.then_some(HTTPS)).collect()
        };
        let mut tcp: BTreeSet<u16> =
            self.allowed_out_ports.clone().unwrap_or_else(own_out).into_iter().collect();
        let mut udp = BTreeSet::new();
        for monitor in &self.additions.monitors {
            match monitor.port {
                Port::Tcp(port) => tcp.insert(port),
                Port::Udp(port) => udp.insert(port),
            };
        }
        SiteConf {
            version: site_conf::VERSION,
            site,
            role: self.role,
            network: self.additions.network.clone(),
            hosts_entries: self.hosts_entries.clone(),
            allowed_ports: self.allowed_ports.clone().unwrap_or_else(|| nvflare(Role::Server)),
            allowed_out_ports: tcp.into_iter().collect(),
            allowed_out_udp_ports: udp.into_iter().collect(),
            proxy: self.additions.proxy.clone(),
        }
    }

    /// A layout with the drive sizes in place of its own.
    ///
    /// NVFLARE's root drive holds the job store and the workspace, and either may fill it: so p5
    /// and `state` each get its size (what is not written takes no room). Logs add to `state`.
    pub fn layout(&self, layout: Layout) -> Result<Layout, LayoutError> {
        let state = match (self.root_drive, self.applog_drive) {
            (None, None) => None,
            (root, logs) => Some(root.unwrap_or(layout.state_bytes()) + logs.unwrap_or(0)),
        };
        layout.resized(&Resize {
            state,
            config: self.user_config_drive,
            jobs: self.root_drive,
            data: self.user_data_drive,
        })
    }
}

fn contradiction(
    first: String,
    second: &'static str,
    problem: String,
) -> Result<(), CcConfigError> {
    Err(CcConfigError::Contradiction { first, second: second.into(), problem })
}

/// Whether one of NVFLARE's authorizers asks AMD's, NVIDIA's, Intel's or Azure's service while the
/// site runs.
fn asks_a_service(path: &str) -> bool {
    let own = path.strip_prefix("nvflare.app_opt.confidential_computing.");
    // The SNP authorizer's snpguest is ours, and asks the agent.
    own.is_some_and(|class| {
        ![".MockAuthorizer", ".SNPAuthorizer"].iter().any(|own| class.ends_with(own))
    })
}

fn compute_env(item: Item) -> Result<ComputeEnv, CcConfigError> {
    const WORDS: [(&str, Option<ComputeEnv>); 4] = [
        ("onprem_cvm", Some(ComputeEnv::OnPremCvm)),
        ("mock", Some(ComputeEnv::Mock)),
        ("azure_cvm", None),
        ("azure_confidential_container", None),
    ];
    match item.one_of("onprem_cvm, mock, azure_cvm or azure_confidential_container", &WORDS)? {
        Some(env) => Ok(env),
        None => item.refuse(
            "a sealed bundle is a disk that boots on the site's own machine; Azure makes its \
             machines from its own images",
            "write onprem_cvm, or provision this participant without build_cvm_image.sh",
        ),
    }
}

fn cpu(item: Item) -> Result<CpuMechanism, CcConfigError> {
    let words = [("amd_sev_snp", CpuMechanism::AmdSevSnp), ("intel_tdx", CpuMechanism::IntelTdx)];
    item.one_of("amd_sev_snp or intel_tdx", &words)
}

fn gpu(item: Item) -> Result<GpuMechanism, CcConfigError> {
    item.one_of("nvidia_cc", &[("nvidia_cc", GpuMechanism::NvidiaCc)])
}

fn drive(item: Item) -> Result<u64, CcConfigError> {
    Ok(item.number("a size in whole GB, 1 to 32768", 1..=32768)? * GB)
}

/// The kit, and the user's own entries.
fn user_config(
    item: Option<Item>,
    around: &Surroundings,
) -> Result<(Option<PathBuf>, BTreeMap<Name, PathBuf>), CcConfigError> {
    const ENTRIES: &str = "a mapping of names to paths";
    let (mut kit, mut others) = (None, BTreeMap::new());
    for (key, item) in item.map_or(Ok(Vec::new()), |item| item.entries(ENTRIES))? {
        let Ok(name) = Name::try_from(key.clone()) else {
            return item.refuse(
                "its name is not a safe folder name",
                "use letters, digits, '.', '_' and '-'",
            );
        };
        let path = around.resolve(item)?;
        match key.as_str() {
            "nvflare" => kit = Some(path),
            _ => drop(others.insert(name, path)),
        }
    }
    Ok((kit, others))
}

/// Host names; NVFLARE's guide spells the key in two ways.
fn hosts(file: &mut Section) -> Result<BTreeMap<String, IpAddr>, CcConfigError> {
    let item = match (file.optional("hosts_entries"), file.optional("host_entries")) {
        (Some(first), Some(second)) => {
            let problem = "they are two spellings of one key".into();
            return Err(CcConfigError::Contradiction {
                first: first.key,
                second: second.key,
                problem,
            });
        }
        (first, second) => first.or(second),
    };
    let mut hosts = BTreeMap::new();
    for (host, item) in
        item.map_or(Ok(Vec::new()), |item| item.entries("a mapping of host names to IP addresses"))?
    {
        if !is_host_name(&host) {
            return item.refuse("its name is not a host name", "use letters, digits, '-' and '.'");
        }
        hosts.insert(host, item.parsed("an IP address", |text| text.parse().ok())?);
    }
    Ok(hosts)
}

fn ports(item: Item) -> Result<Vec<u16>, CcConfigError> {
    let mut ports = BTreeSet::new();
    for item in item.list("a list of TCP ports")? {
        ports.insert(item.number("a TCP port, 1 to 65535", 1..=65535)? as u16);
    }
    Ok(ports.into_iter().collect())
}

/// Classes, and packages with a dot at their end, as NVFLARE's `ComponentPathAuthorizer` takes
/// them.
fn classes(item: Item) -> Result<Vec<String>, CcConfigError> {
    const ENTRY: &str = "a class as package.module.Class, or a package with a dot at its end";
    let class = |item: Item| {
        if item.plain() == Some("*") {
            return item.refuse(
                "a job could then name any class of Python's, and so run what it likes without \
                 carrying code",
                "list the model's packages, each with a dot at its end, such as `acme.`",
            );
        }
        item.parsed(ENTRY, |text| {
            let dotted = text
                .strip_suffix('.')
                .map_or_else(|| text.to_owned(), |package| format!("{package}.x"));
            is_class(&dotted).then(|| text.to_owned())
        })
    };
    item.list("a list of classes")?.into_iter().map(class).collect()
}

fn issuers(item: Item) -> Result<Vec<Issuer>, CcConfigError> {
    const LIST: &str = "a list of at least one issuer";
    let key = item.key.clone();
    let mut issuers: Vec<Issuer> = Vec::new();
    for item in item.list(LIST)? {
        let key = item.key.clone();
        let issuer = issuer(item)?;
        if issuers.iter().any(|other| other.id == issuer.id) {
            let (first, problem) = (format!("{key}.id"), format!("both name {}", issuer.id));
            return Err(CcConfigError::Contradiction {
                first,
                second: "an issuer before it".into(),
                problem,
            });
        }
        issuers.push(issuer);
    }
    if issuers.is_empty() {
        // NVFLARE's manager counts a CC site without a token as an intruder.
        return Err(CcConfigError::Value { key, expected: LIST, found: "an empty list".into() });
    }
    Ok(issuers)
}

fn issuer(item: Item) -> Result<Issuer, CcConfigError> {
    let mut section = item.section(
        "a mapping with id, path, token_expiration and args",
        &["args", "id", "path", "token_expiration"],
    )?;
    const PATH: &str = "a Python class, as package.module.Class";
    const SECONDS: &str = "a time in whole seconds, at least 1";
    Ok(Issuer {
        id: name(section.required("id", "the issuer's component id")?)?,
        path: section
            .required("path", PATH)?
            .parsed(PATH, |text| is_class(text).then(|| text.to_owned()))?,
        token_expiration: section
            .required("token_expiration", SECONDS)?
            .number(SECONDS, 1..=MAX_SECONDS)? as u32,
        args: section.optional("args").map_or(Ok(serde_json::Map::new()), Item::json_object)?,
    })
}

/// `package.module.Class`.
pub(super) fn is_class(text: &str) -> bool {
    let identifier = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && !part.starts_with(|c: char| c.is_ascii_digit())
    };
    text.contains('.') && text.split('.').all(identifier)
}

/// Why `failure_action` is refused, and what to do instead.
const FAILURE_ACTION: (&str, &str) = (
    "NVFLARE no longer reads it: a failed attestation shuts the site down, and the server's shuts \
     the federation down",
    "leave it out",
);

fn check_frequency(item: Item) -> Result<u32, CcConfigError> {
    let mut section =
        item.section("a mapping with check_frequency", &["check_frequency", "failure_action"])?;
    if let Some(item) = section.optional("failure_action") {
        return item.refuse(FAILURE_ACTION.0, FAILURE_ACTION.1);
    }
    const SECONDS: &str = "a time in whole seconds, at least 2";
    let seconds = section
        .optional("check_frequency")
        .map(|item| item.number(SECONDS, 2..=MAX_SECONDS))
        .transpose()?;
    Ok(seconds.map_or(CHECK_FREQUENCY, |seconds| seconds as u32))
}
