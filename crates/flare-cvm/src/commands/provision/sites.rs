//! Which sites are to be sealed, and from what: flags and `cc_config` files, read and checked
//! before any work begins.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use cvm_base::{read_bounded, read_text};
use cvm_ceremony::{
    Agreement, Contribution, MAX_BYTES, OpenedContribution, Permit, Site as Agreed,
};
use cvm_custody::{BuilderSecrets, open_contribution};
use cvm_image::{
    boot::secure_boot,
    cc::{self, AgentConf, CcConfig, Surroundings},
    memory::Memory,
    provision::{
        CeremonyRequest, Delegate, Form, OutputRequest, ProjectRequest, ProvisionError,
        ProvisionRequest, SiteRequest, TeeHosts,
    },
    stage::StageImage,
};
use cvm_layout::{
    layout::{self, Layout},
    names::{Name, Role},
    site_conf::{self, Network, SiteConf},
};

use super::{super::day::today, args::Provision};
use crate::problem::Problem;

/// One site, ready to be sealed.
pub(super) struct Site {
    kit: PathBuf,
    conf: SiteConf,
    cc_config: Option<CcConfig>,
    base: Arc<StageImage>,
    init: PathBuf,
    layout: Layout,
    tee_hosts: TeeHosts,
    agreement: Agreement,
    build: Name,
    memory: Memory,
    contributions: Vec<OpenedContribution>,
    delegate: Option<Delegate>,
    builder: Arc<Builder>,
    model: Option<PathBuf>,
    output: PathBuf,
    replace: bool,
    allow_untested_nvflare: bool,
    agent: AgentConf,
}

/// A builder's secrets and its project's Secure Boot keys.
struct Builder {
    secrets: BuilderSecrets,
    secure_boot: secure_boot::Keys,
}

impl Site {
    pub(super) fn name(&self) -> &str {
        self.conf.site.as_str()
    }

    pub(super) fn form(&self) -> Form {
        if self.cc_config.is_some() { Form::Archive } else { Form::Folder }
    }

    pub(super) fn request(&self) -> ProvisionRequest<'_> {
        ProvisionRequest {
            project: ProjectRequest {
                base: &self.base,
                init: &self.init,
                secure_boot: &self.builder.secure_boot,
                tee_hosts: &self.tee_hosts,
                allow_untested_nvflare: self.allow_untested_nvflare,
            },
            ceremony: CeremonyRequest {
                agreement: &self.agreement,
                build: &self.build,
                contributions: &self.contributions,
                builder: &self.builder.secrets,
            },
            site: SiteRequest {
                kit: &self.kit,
                conf: &self.conf,
                cc_config: self.cc_config.as_ref(),
                layout: &self.layout,
                model: self.model.as_deref(),
                agent: &self.agent,
                delegate: self.delegate.as_ref(),
            },
            output: OutputRequest {
                path: &self.output,
                form: self.form(),
                replace: self.replace,
                memory: &self.memory,
            },
        }
    }
}

/// All sites of a command.
pub(super) fn prepare(args: &Provision) -> Result<Vec<Site>> {
    let mut shared = Shared::default();
    let sites: Vec<Site> = match &args.kit {
        Some(kit) => {
            let conf = site_conf(kit, args.site_conf.as_deref())?;
            vec![shared.site(args, kit.clone(), conf, None)?]
        }
        None => args
            .cc_config
            .iter()
            .map(|text| shared.configured(args, text))
            .collect::<Result<_>>()?,
    };
    let mut names = BTreeSet::new();
    if let Some(twice) = sites.iter().find(|site| !names.insert(site.name())) {
        let problem = format!("two cc_config files are for {}", twice.name());
        return Problem::result(
            "CLI-011",
            problem,
            "give each site's file once; SITE=FILE says whose a file is",
        );
    }
    Ok(sites)
}

/// What several sites use: opened once.
#[derive(Default)]
struct Shared {
    images: BTreeMap<PathBuf, Arc<StageImage>>,
    builders: BTreeMap<PathBuf, Arc<Builder>>,
}

impl Shared {
    /// The site of a `[SITE=]FILE`.
    fn configured(&mut self, args: &Provision, text: &str) -> Result<Site> {
        let (name, file) = match text.split_once('=') {
            Some((name, file)) if !name.contains('/') => (Some(name), Path::new(file)),
            _ => (None, Path::new(text)),
        };
        let in_file = || file.display().to_string();
        let bytes = read_text(file, cc::MAX_BYTES)?;
        let config = CcConfig::parse(&bytes, &Surroundings::of_process()).with_context(in_file)?;
        let kit = kit_of(args, name, file, &config)?;
        let site: Name = folder_name(&kit)?.try_into().with_context(in_file)?;
        // NVFLARE's packager passes a temporary file, whose name would say nothing.
        let of_site = format!("the cc_config of {site}");
        let conf = config.site_conf(site);
        conf.check().with_context(|| of_site.clone())?;
        self.site(args, kit, conf, Some(config)).context(of_site)
    }

    fn site(
        &mut self,
        args: &Provision,
        kit: PathBuf,
        mut conf: SiteConf,
        cc_config: Option<CcConfig>,
    ) -> Result<Site> {
        let none = cc::Additions::default();
        let own = cc_config.as_ref().map_or(&none, |config| &config.additions);
        let base = chosen(&args.base_image, &own.base_image, "base-image", "base_image")?;
        let builder = self.builder(args, own)?;
        let agreement = chosen(&args.agreement, &own.agreement, "agreement", "agreement")?;
        let agreement = Agreement::parse(&read_bounded(&agreement, MAX_BYTES)?)?;
        let build = chosen(&args.build, &own.build, "build", "build")?;
        let contributions =
            if args.contributions.is_empty() { &own.contributions } else { &args.contributions };
        let agreed = agreement.site(&conf.site, conf.role)?;
        let contributions = open(contributions, &agreement, agreed, &build, &builder.secrets)?;
        let folder = args.memory_folder.as_deref().or(own.memory_folder.as_deref());
        let folder = folder.unwrap_or(Path::new(Memory::DEFAULT));
        let memory =
            Memory::at(folder, args.allow_swap || own.allow_swap).map_err(ProvisionError::from)?;
        let delegate = delegate(args, own, &memory)?;
        let layout = layout(args, own, cc_config.as_ref())?;
        let agent = AgentConf {
            attest_port: args.attest_port.or(own.agent.attest_port),
            ..own.agent.clone()
        };
        if let Some(port) = agent.attest_port.filter(|port| !conf.allowed_ports.contains(port)) {
            conf.allowed_ports.push(port);
        }
        let tee_hosts =
            args.tee_hosts.as_deref().map(TeeHosts::read).transpose()?.unwrap_or_default();
        Ok(Site {
            agent,
            tee_hosts,
            base: self.image(base)?,
            builder,
            init: init(args.init.as_ref().or(own.init.as_ref()))?,
            model: args.model.as_ref().or(own.model.as_ref()).cloned(),
            output: output(args, own, &kit, &conf, cc_config.as_ref())?,
            replace: args.replace || own.replace,
            allow_untested_nvflare: args.allow_untested_nvflare || own.allow_untested_nvflare,
            kit,
            conf,
            layout,
            agreement,
            build,
            memory,
            contributions,
            delegate,
            cc_config,
        })
    }

    fn image(&mut self, path: PathBuf) -> Result<Arc<StageImage>> {
        if let Some(image) = self.images.get(&path) {
            return Ok(Arc::clone(image));
        }
        let image = Arc::new(StageImage::open(&path)?);
        self.images.insert(path, Arc::clone(&image));
        Ok(image)
    }

    fn builder(&mut self, args: &Provision, own: &cc::Additions) -> Result<Arc<Builder>> {
        let folder = chosen(&args.builder, &own.builder, "builder", "builder")?;
        if let Some(builder) = self.builders.get(&folder) {
            return Ok(Arc::clone(builder));
        }
        let unlock = args.unlock.or(own.unlock_key.as_deref(), own.passphrase_file.as_deref());
        let builder = Arc::new(Builder {
            secrets: unlock.builder(&folder)?,
            secure_boot: secure_boot::Keys::open_or_create(&folder.join("secure-boot"))?,
        });
        self.builders.insert(folder, Arc::clone(&builder));
        Ok(builder)
    }
}

/// A flag, or else what the `cc_config` says.
fn chosen<T: Clone>(flag: &Option<T>, own: &Option<T>, name: &str, key: &str) -> Result<T> {
    match flag.as_ref().or(own.as_ref()) {
        Some(value) => Ok(value.clone()),
        None => Problem::result(
            "CLI-009",
            format!("neither --{name} nor the cc_config's flare_cvm.{key} is given"),
            format!("write {key} into the section flare_cvm of the cc_config, or say --{name}"),
        ),
    }
}

/// Opens the contributions that the site needs; those of other parties or the other role are
/// ignored.
fn open(
    paths: &[PathBuf],
    agreement: &Agreement,
    site: &Agreed,
    build: &Name,
    builder: &BuilderSecrets,
) -> Result<Vec<OpenedContribution>> {
    let mut opened = Vec::new();
    for path in paths {
        let bytes = read_bounded(path, MAX_BYTES)?;
        let in_file = || path.display().to_string();
        let contribution = Contribution::parse(&bytes, agreement).with_context(in_file)?;
        let Permit { party, role, .. } = &contribution.statement().permit;
        if *role == site.role && site.names(party) {
            contribution.statement().permit.check_day(&today()?).with_context(in_file)?;
            opened.push(
                open_contribution(&bytes, agreement, *role, build, builder)
                    .with_context(in_file)?,
            );
        }
    }
    Ok(opened)
}

/// The key holder that a server's CVM is to run, if any.
fn delegate(args: &Provision, own: &cc::Additions, memory: &Memory) -> Result<Option<Delegate>> {
    let keyholder = match (&args.keyholder_party, args.keyholder_listen) {
        (Some(party), Some(listen)) => Some(cc::KeyHolder { party: party.clone(), listen }),
        _ => own.keyholder.clone(),
    };
    let open = |holder: cc::KeyHolder| Delegate::open(&holder.party, holder.listen, memory);
    Ok(keyholder.map(open).transpose()?)
}

/// The partitions' sizes, with what a `cc_config` says about them.
fn layout(args: &Provision, own: &cc::Additions, config: Option<&CcConfig>) -> Result<Layout> {
    let layout = match args.layout.as_ref().or(own.layout.as_ref()) {
        Some(path) => Layout::parse(&text(path, layout::MAX_BYTES as u64)?)?,
        None => Layout::parse(include_str!("../../../../../partitions/default.yaml"))?,
    };
    Ok(match config {
        Some(config) => config.layout(layout)?,
        None => layout,
    })
}

fn init(path: Option<&PathBuf>) -> Result<PathBuf> {
    let init = match path {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("cvm-init"),
    };
    if init.is_file() {
        return Ok(init);
    }
    Problem::result(
        "CLI-002",
        format!("there is no cvm-init at {}", init.display()),
        "run `make build`, or say --init",
    )
}

/// The folder of a bundle, or the file; absolute for an archive, because its maker tells others
/// where it is.
fn output(
    args: &Provision,
    own: &cc::Additions,
    kit: &Path,
    conf: &SiteConf,
    config: Option<&CcConfig>,
) -> Result<PathBuf> {
    let Some(config) = config else { return chosen(&args.output, &None, "output", "output") };
    let folder = match args.output.as_ref().or(own.output.as_ref()) {
        Some(folder) => std::path::absolute(folder)?,
        None => std::path::absolute(kit)?.parent().unwrap_or(Path::new("/")).to_owned(),
    };
    let name = config.image_name.as_ref().unwrap_or(&conf.site);
    let archive = folder.join(format!("{name}.tgz"));
    match archive.to_str() {
        Some(text) if !text.contains(char::is_whitespace) => Ok(archive),
        _ => Problem::result(
            "CLI-010",
            format!("NVFLARE's packager cannot read the path {}", archive.display()),
            "choose an output folder without spaces: flare_cvm.output in the cc_config, or -o",
        ),
    }
}

/// Where a site's kit lies: below --kit-root, or where its `cc_config` says.
fn kit_of(args: &Provision, name: Option<&str>, file: &Path, config: &CcConfig) -> Result<PathBuf> {
    let shown = file.display();
    let by_file = || file.file_stem()?.to_str()?.strip_prefix("cc_");
    match (&args.kit_root, &config.kit) {
        (Some(root), _) => match name.or_else(by_file) {
            Some(name) => Ok(root.join(name)),
            None => Problem::result(
                "CLI-040",
                format!("{shown} does not say which folder of {} is its kit", root.display()),
                "say --cc-config SITE=FILE, or name the file cc_SITE.yml as NVFLARE's examples do",
            ),
        },
        (None, Some(kit)) => match (name, folder_name(kit)?) {
            (Some(name), other) if name != other => Problem::result(
                "CLI-041",
                format!(
                    "{shown} is given for {name}, and its user_config.nvflare is the kit of {other}"
                ),
                "leave SITE= out, or say --kit-root",
            ),
            _ => Ok(kit.clone()),
        },
        (None, None) => Problem::result(
            "CLI-008",
            format!("{shown} names no startup kit"),
            "say --kit-root with the folder that `nvflare provision` made, such as prod_00; its \
             packager sets user_config.nvflare itself",
        ),
    }
}

fn folder_name(kit: &Path) -> Result<String> {
    let kit = std::path::absolute(kit)?;
    Ok(kit.file_name().unwrap_or_default().to_string_lossy().into_owned())
}

/// The site's configuration from `file`; or else from the kit: its folder's name, and whether it is
/// a server's or a client's.
fn site_conf(kit: &Path, file: Option<&Path>) -> Result<SiteConf> {
    if let Some(path) = file {
        return SiteConf::parse(&read_text(path, site_conf::MAX_BYTES)?)
            .with_context(|| path.display().to_string());
    }
    let role = match (
        kit.join("startup/fed_server.json").exists(),
        kit.join("startup/fed_client.json").exists(),
    ) {
        (true, false) => Role::Server,
        (false, true) => Role::Client,
        _ => {
            return Problem::result(
                "CLI-003",
                format!(
                    "{} is not the startup kit of a server or client: expected one of \
                     startup/fed_server.json, startup/fed_client.json",
                    kit.display()
                ),
                "give a participant's folder, such as workspace/PROJECT/prod_00/server1",
            );
        }
    };
    let site = folder_name(kit)?.try_into()?;
    let (allowed_ports, allowed_out_ports) = match role {
        Role::Server => (vec![8002, 8003], vec![]),
        Role::Client => (vec![], vec![8002, 8003]),
    };
    Ok(SiteConf {
        version: 1,
        site,
        role,
        network: Network::default(),
        hosts_entries: BTreeMap::new(),
        allowed_ports,
        allowed_out_ports,
        allowed_out_udp_ports: Vec::new(),
        proxy: None,
    })
}

fn text(path: &Path, limit: u64) -> Result<String> {
    String::from_utf8(read_text(path, limit)?)
        .with_context(|| format!("{} is not UTF-8 text", path.display()))
}
