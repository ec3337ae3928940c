//! The scene of every demo and boot test: a project, two parties and a builder, three stage images,
//! one sealed bundle. Each step runs the commands that users run, prints them, and is skipped when
//! what it makes is there already.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{
    process::{PATIENCE, Process},
    run, run_shown,
    tpm::Tpm,
    vm::Machine,
};

/// The two parties: folder, role in the ceremony.
pub const PARTIES: [(&str, &str); 2] =
    [("model-owner", "model_owner"), ("data-owner", "data_owner")];
const PROJECT: &str = "flare-cvm-demo";
/// The name under which contributions are made.
const BUILD: &str = "demo-1";

/// Paths and ports of one scene.
pub struct Scene {
    /// Everything made lies below it.
    pub root: PathBuf,
    /// The repository.
    pub repository: PathBuf,
    /// Port of the first party's key holder on loopback; the second has the next one.
    pub first_port: u16,
    /// The layout file, below `partitions/`.
    pub layout: &'static str,
    /// Where stage images lie.
    pub images: PathBuf,
    /// What the first stage is built from.
    pub profile: &'static str,
    /// The third stage: its name, or another one's folder.
    pub last_stage: String,
    /// The sealed site, and its role.
    pub site: (&'static str, &'static str),
    /// The site's cc_config, where the startup kit alone does not say everything.
    pub cc_config: Option<PathBuf>,
    /// Whether both parties' policies let the lab's TPMs keep secrets.
    pub trusts_machines: bool,
    /// Whether both parties' policies accept, as shipped, a TPM whose firmware did not measure the
    /// host's ACPI tables.
    pub accepts_host_acpi: bool,
    /// Gets each line of progress.
    pub say: Box<dyn Fn(&str) + Send + Sync>,
}

/// The parties' key holders, serving.
pub struct Holders {
    /// One per entry of [`PARTIES`].
    pub processes: Vec<Process>,
}

impl Scene {
    /// A scene below `target/NAME`.
    pub fn new(
        name: &str,
        first_port: u16,
        layout: &'static str,
        say: impl Fn(&str) + Send + Sync + 'static,
    ) -> Self {
        let repository =
            Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_owned();
        let (root, images) =
            (repository.join("target").join(name), repository.join("target/demo/images"));
        let (profile, last_stage) = ("debian-12", "provision_build".into());
        let (site, cc_config, trusts_machines, say) =
            (("server1", "server"), None, false, Box::new(say));
        Self {
            root,
            repository,
            first_port,
            layout,
            images,
            profile,
            last_stage,
            site,
            cc_config,
            trusts_machines,
            accepts_host_acpi: true,
            say,
        }
    }

    /// The same for a client.
    pub fn of_client(self) -> Self {
        Self { site: ("site-1", "client"), ..self }
    }

    /// The same with policies that let the lab's TPMs keep a third factor and p3's key.
    pub fn trusting_machines(self) -> Self {
        Self { trusts_machines: true, ..self }
    }

    /// The same with policies that accept no ACPI tables that nobody measured.
    pub fn refusing_host_acpi(self) -> Self {
        Self { accepts_host_acpi: false, ..self }
    }

    /// The command line program, as `make build` made it; beside it are those for images.
    pub fn program(&self) -> PathBuf {
        self.repository.join("target/programs/flare-cvm")
    }

    /// The bundle.
    pub fn bundle(&self) -> PathBuf {
        self.root.join("bundles").join(self.site.0)
    }

    /// A party's folder.
    pub fn party(&self, index: usize) -> PathBuf {
        self.root.join("parties").join(PARTIES[index].0)
    }

    /// The admin's startup kit.
    pub fn admin_kit(&self) -> PathBuf {
        self.kits().join("admin@demo.example")
    }

    /// Where NVFLARE's command line and API are installed.
    pub fn nvflare(&self, program: &str) -> PathBuf {
        self.repository.join("target/tools/nvflare/bin").join(program)
    }

    fn kits(&self) -> PathBuf {
        self.root.join("project").join(PROJECT).join("prod_00")
    }

    /// The site's startup kit.
    pub fn site_kit(&self) -> PathBuf {
        self.kits().join(self.site.0)
    }

    /// A stage's image by its file name. All scenes share the demo's: no two differ.
    pub fn image(&self, name: &str) -> PathBuf {
        self.images.join(name)
    }

    /// A file that the ceremony left.
    pub fn exchange(&self, name: &str) -> PathBuf {
        self.root.join("exchange").join(name)
    }

    /// Runs `flare-cvm ARGUMENTS`, shown as a user would type it, and its output as it comes.
    pub fn flare_cvm(&self, arguments: &[&str]) -> Result<String> {
        let prefix = format!("{}/", self.repository.display());
        let shown: Vec<_> = arguments.iter().map(|a| a.replace(&prefix, "")).collect();
        (self.say)(&format!("$ flare-cvm {}", shown.join(" ")));
        let mut command = Command::new(self.program());
        command.args(arguments).current_dir(&self.repository);
        run_shown(&mut command, &|line| (self.say)(&format!("  {line}")))
    }

    /// Builds the three stage images, from the cache where nothing changed.
    pub fn stages(&self) -> Result<()> {
        let mut base: Option<PathBuf> = None;
        for (stage, image) in [
            ("nvidia_cc_base", "nvcc_image.qcow2"),
            ("nvflare_cc_base", "nvflare_cc_base.qcow2"),
            (self.last_stage.as_str(), "provisioned.qcow2"),
        ] {
            let image = self.image(image);
            let output = text(&image);
            let mut arguments = vec!["build", stage, "-o", &output];
            let base_text = base.as_deref().map(text);
            match &base_text {
                Some(base) => arguments.extend(["--base-image", base]),
                None => arguments.extend(["--profile", self.profile]),
            }
            self.flare_cvm(&arguments)?;
            base = Some(image);
        }
        Ok(())
    }

    /// Manufactures the host's TPM; its root goes into both parties' policies.
    pub fn tpm(&self) -> Result<Tpm> {
        Tpm::manufacture(&self.root.join("tpm"))
    }

    /// Two parties and a builder make their keys and sign one transcript.
    pub fn ceremony(&self, tpm: &Tpm) -> Result<()> {
        if self.exchange("agreement.txt").exists() {
            (self.say)("  the agreement of an earlier run is used");
            return Ok(());
        }
        for folder in ["parties", "exchange", "builder"] {
            let path = self.root.join(folder);
            if path.exists() {
                fs::remove_dir_all(&path)?;
            }
        }
        fs::create_dir_all(self.root.join("parties"))?;
        fs::create_dir_all(self.root.join("exchange"))?;
        let policy = self.exchange("policy.rego");
        fs::write(&policy, self.policy(tpm)?)?;
        let at = |name: &str| text(&self.exchange(name));
        let builder = text(&self.root.join("builder"));
        let (site, role) = self.site;

        self.flare_cvm(&["ceremony", "init-builder", &builder, "--name", "builder"])?;
        for (index, (name, part)) in PARTIES.into_iter().enumerate() {
            let url = format!("https://10.0.2.2:{}", self.first_port + index as u16);
            let folder = text(&self.party(index));
            self.flare_cvm(&[
                "ceremony",
                "init",
                &folder,
                "--name",
                name,
                "--role",
                part,
                "--keyholder",
                &url,
                "--policy",
                &text(&policy),
            ])?;
            let roots = self.party(index).join("ek-roots");
            fs::create_dir(&roots)?;
            for root in &tpm.roots {
                fs::copy(root, roots.join(root.file_name().unwrap_or_default()))?;
            }
        }
        let (model, data) = (text(&self.party(0)), text(&self.party(1)));
        let statement = format!("{builder}/builder.txt");
        self.flare_cvm(&[
            "ceremony",
            "invite",
            &model,
            "--project",
            PROJECT,
            "--builder",
            &statement,
            "--site",
            &format!("{site}={role}"),
            "-o",
            &at("invite.txt"),
        ])?;
        self.flare_cvm(&[
            "ceremony",
            "join",
            &data,
            &at("invite.txt"),
            "-o",
            &at("join.txt"),
            "--yes",
        ])?;
        for party in [&model, &data] {
            self.flare_cvm(&[
                "ceremony",
                "agree",
                party,
                "--invite",
                &at("invite.txt"),
                "--join",
                &at("join.txt"),
                "--agreement",
                &at("draft.txt"),
                "--yes",
            ])?;
        }
        for (party, (name, _)) in [&model, &data].into_iter().zip(PARTIES) {
            self.flare_cvm(&[
                "ceremony",
                "contribute",
                party,
                "--agreement",
                &at("draft.txt"),
                "--role",
                role,
                "--build",
                BUILD,
                "-o",
                &at(&format!("{name}.contribution.txt")),
            ])?;
        }
        self.flare_cvm(&["ceremony", "verify", &at("draft.txt")])?;
        // The name says that everything before it is there.
        fs::rename(self.exchange("draft.txt"), self.exchange("agreement.txt"))?;
        Ok(())
    }

    /// The template policy with the TPM's root named.
    pub(crate) fn policy(&self, tpm: &Tpm) -> Result<String> {
        let der = run(Command::new("openssl")
            .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
            .arg(&tpm.roots[0]))?;
        let digest =
            der.trim().rsplit('=').next().unwrap_or_default().replace(':', "").to_lowercase();
        ensure!(digest.len() == 64, "openssl printed no fingerprint: {der}");
        let template = fs::read_to_string(self.repository.join("keys/policies/tpm.rego"))?;
        let mut policy = template.replace("@EK_ROOT_SHA256@", &digest);
        if !self.accepts_host_acpi {
            let by_name = r#"accepted_not_checked := {"acpi", "#;
            ensure!(
                policy.contains(by_name),
                "the shipped policy no longer accepts ACPI tables by name"
            );
            policy = policy.replace(by_name, "accepted_not_checked := {");
        }
        if !self.trusts_machines {
            return Ok(policy);
        }
        let trusted = format!(r#"trusted_machines := {{"{digest}": {{"bind", "offline"}}}}"#);
        // No `firmware` can be named: Debian 12's OVMF measures no ACPI tables. The lab trusts its
        // own host with them.
        let policy = policy.replace("trusted_machines := {}", &trusted);
        Ok(policy.replace("\tnot trusted_machines[tpm.ek_root_sha256]\n", ""))
    }

    /// `nvflare provision`: the startup kits.
    pub fn kit(&self) -> Result<()> {
        let (project, inputs) = (self.root.join("project"), self.kit_inputs()?);
        let stamp = project.join("inputs");
        if fs::read_to_string(&stamp).is_ok_and(|made_from| made_from == inputs) {
            (self.say)("  the startup kits stand since an earlier run");
            return Ok(());
        }
        // Bundles of other kits hold other certificates than the admin's new one.
        for stale in [&project, &self.root.join("bundles")] {
            if stale.exists() {
                fs::remove_dir_all(stale)?;
            }
        }
        let workspace = text(&project);
        (self.say)("$ python3 -m nvflare.lighter.provision -p project.yml");
        // The module that `nvflare provision` runs; the command itself also imports a dashboard and
        // Docker's client.
        run(Command::new(self.nvflare("python3"))
            .args(["-m", "nvflare.lighter.provision", "-p", "project.yml", "-w", &workspace])
            .current_dir(self.repository.join("tests/demo")))?;
        ensure!(
            self.site_kit().exists(),
            "nvflare provision made no kit at {}",
            self.kits().display()
        );
        Ok(fs::write(stamp, inputs)?)
    }

    /// Everything that the kits are made of.
    fn kit_inputs(&self) -> Result<String> {
        let files = ["project.yml", "cc_server1.yml", "cc_site-1.yml"];
        files
            .iter()
            .map(|name| Ok(fs::read_to_string(self.repository.join("tests/demo").join(name))?))
            .collect()
    }

    /// `provision …` for a bundle at `output`.
    pub fn provision_arguments(&self, output: &Path) -> Vec<String> {
        let contribution =
            |index: usize| self.exchange(&format!("{}.contribution.txt", PARTIES[index].0));
        let mut arguments = vec!["provision".into(), "--build".into(), BUILD.into()];
        let kit = match &self.cc_config {
            Some(config) => {
                arguments.extend([
                    "--cc-config".into(),
                    format!("{}={}", self.site.0, config.display()),
                ]);
                ("--kit-root", self.kits())
            }
            None => ("--kit", self.site_kit()),
        };
        for (flag, path) in [
            ("--base-image", self.image("provisioned.qcow2")),
            kit,
            ("--agreement", self.exchange("agreement.txt")),
            ("--contribution", contribution(0)),
            ("--contribution", contribution(1)),
            ("--builder", self.root.join("builder")),
            ("--layout", self.repository.join("partitions").join(self.layout)),
            ("--output", output.to_owned()),
        ] {
            arguments.extend([flag.to_owned(), text(&path)]);
        }
        arguments
    }

    /// Seals the bundle, or finds the one sealed before.
    pub fn provision(&self) -> Result<()> {
        if self.bundle().exists() {
            (self.say)("  the bundle of an earlier run is used");
            return Ok(());
        }
        self.forget_builds();
        // With a cc_config the output is the folder of an archive.
        let packed = self.root.join("packed");
        let output = if self.cc_config.is_some() { packed.clone() } else { self.bundle() };
        let arguments = self.provision_arguments(&output);
        self.flare_cvm(&arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
        if self.cc_config.is_some() {
            unpack(&packed.join(format!("{}.tgz", self.site.0)), &self.bundle())?;
            fs::remove_dir_all(packed)?;
        }
        self.forget_builds();
        Ok(())
    }

    /// The lab seals one site again and again under one build's name. A builder would ask the
    /// parties to contribute to another build.
    fn forget_builds(&self) {
        let _ = fs::remove_dir_all(self.root.join("builder/builds"));
    }

    /// Each party enrols the image.
    pub fn enroll(&self) -> Result<()> {
        for index in 0..PARTIES.len() {
            let (folder, agreement) =
                (text(&self.party(index)), text(&self.exchange("agreement.txt")));
            let file = |name: &str| text(&self.bundle().join(name));
            self.flare_cvm(&[
                "keyholder",
                "enroll",
                "--dir",
                &folder,
                "--agreement",
                &agreement,
                "--manifest",
                &file("manifest.json"),
                "--reference",
                &file("reference.json"),
            ])?;
        }
        Ok(())
    }

    /// Starts one party's key holder; `policy` replaces the party's policy folder.
    pub fn holder(&self, index: usize, policy: Option<&Path>) -> Result<Process> {
        self.holder_at(index, self.first_port + index as u16, policy)
    }

    /// The same on another port than the one that the ceremony names.
    pub fn holder_at(&self, index: usize, port: u16, policy: Option<&Path>) -> Result<Process> {
        let listen = format!("127.0.0.1:{port}");
        let folder = self.party(index);
        let mut command = Command::new(self.program());
        command.args(["keyholder", "serve", "--listen", &listen, "--dir"]).arg(&folder);
        command.arg("--policy").arg(policy.unwrap_or(&folder));
        let mut process =
            Process::start(&format!("key holder of {}", PARTIES[index].0), &mut command)?;
        process.wait_for(&["ready https"], PATIENCE)?;
        Ok(process)
    }

    /// Starts both key holders.
    pub fn holders(&self) -> Result<Holders> {
        let processes = (0..PARTIES.len()).map(|i| self.holder(i, None)).collect::<Result<_>>()?;
        Ok(Holders { processes })
    }

    /// Everything up to a sealed, enrolled bundle.
    pub fn sealed(&self) -> Result<(Machine, Tpm)> {
        let tpm = self.tpm()?;
        self.stages()?;
        self.ceremony(&tpm)?;
        self.kit()?;
        self.provision()?;
        self.enroll()?;
        Ok((Machine::of(&self.bundle())?, tpm))
    }

    /// Asks NVFLARE in the CVM for its status, with NVFLARE's own FLARE API and the admin's kit.
    pub fn admin_status(&self, port: u16, limit: Duration) -> Result<serde_json::Value> {
        self.admin(&self.admin_kit(), port, limit, &["status"])
    }

    /// Runs one command of `tests/admin.py`; its answer.
    pub fn admin(
        &self,
        kit: &Path,
        port: u16,
        limit: Duration,
        command: &[&str],
    ) -> Result<serde_json::Value> {
        let shown = run(Command::new(self.nvflare("python3"))
            .arg(self.repository.join("tests/admin.py"))
            .arg("--kit")
            .arg(kit)
            .args(["--port", &port.to_string(), "--deadline", &limit.as_secs().to_string()])
            .args(command))?;
        serde_json::from_str(shown.trim()).with_context(|| format!("admin.py printed {shown:?}"))
    }
}

/// Unpacks a `SITE.tgz` into the new folder `to`.
pub(crate) fn unpack(archive: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    run(Command::new("tar").args(["--strip-components=1", "-xzSf"]).arg(archive).arg("-C").arg(to))
        .map(drop)
}

/// A path as an argument.
pub fn text(path: &Path) -> String {
    path.display().to_string()
}
