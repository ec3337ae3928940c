//! What a builder's disk holds of a site's secrets after provisioning was killed at each of its
//! steps, and after it ended well: nothing, neither in files nor in blocks that were freed.
//!
//! Everything that provisioning writes to a disk goes to an ext4 file system in an image file,
//! which FUSE mounts (fuse2fs: no loop device). So all of its blocks, the free ones too, are bytes
//! of that file.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use cvm_lab::{
    process::{PATIENCE, Process},
    run,
    scene::{Scene, text},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const LIMIT: Duration = Duration::from_secs(300);
/// The lines by which provisioning says what it does next.
const STEPS: [&str; 9] = [
    "key: combining",
    "kit: verifying",
    "model: its code",
    "CC manager: checking",
    "p3: sealing",
    "boot chain: initramfs",
    "reference values: predicting",
    "cleartext partitions: searching",
    "disk.qcow2: placing",
];
const PARTIES: [(&str, &str); 3] =
    [("model-owner", "model_owner"), ("data-owner", "data_owner"), ("delegate", "model_owner")];
const MARK: &str = "flare-cvm-test-weights-5c81d2e07b";
const CONTROL: &str = "flare-cvm-test-control-93f4a6510c";

/// A server with a delegate: its kit, and what the ceremony left. Secrets of the delegate lie in
/// memory.
struct Setup {
    scene: Scene,
    memory: tempfile::TempDir,
}

impl Setup {
    fn new() -> Self {
        let scene =
            Scene::new("builder-leaves-nothing", 19_463, "small.yaml", |line| eprintln!("{line}"));
        let _ = fs::remove_dir_all(&scene.root);
        fs::create_dir_all(scene.root.join("model/weights")).expect("a model's folder");
        fs::write(scene.root.join("model/weights/start.npy"), MARK.repeat(1000)).expect("a model");
        let memory = tempfile::tempdir_in("/dev/shm").expect("a folder in memory");
        let setup = Self { scene, memory };
        setup.scene.stages().and_then(|()| setup.scene.kit()).expect("stage images and a kit");
        setup.ceremony();
        setup
    }

    fn at(&self, name: &str) -> String {
        text(&self.scene.root.join(name))
    }

    fn party(&self, name: &str) -> String {
        if name == "delegate" { text(&self.memory.path().join(name)) } else { self.at(name) }
    }

    fn ceremony(&self) {
        let run =
            |arguments: &[&str]| self.scene.flare_cvm(arguments).map(drop).expect("the ceremony");
        let (policy, builder) = (self.at("policy.rego"), self.at("builder"));
        fs::write(&policy, "package policy\ndefault allow := false\n").expect("a policy");
        run(&["ceremony", "init-builder", &builder, "--name", "builder"]);
        for (name, role) in PARTIES {
            let who = [
                "--name",
                name,
                "--role",
                role,
                "--keyholder",
                "https://kh.example:8443",
                "--policy",
                &policy,
            ];
            run(&[&["ceremony", "init", &self.party(name)], who.as_slice()].concat());
        }
        let [owner, data, delegate] = PARTIES.map(|(name, _)| self.party(name));
        let [invite, agreement] = ["invite.txt", "agreement.txt"].map(|name| self.at(name));
        let statement = format!("{builder}/builder.txt");
        let sites = [
            "--site",
            "server1=server:data-owner,model-owner",
            "--site",
            "site-1=client:data-owner,delegate",
        ];
        let terms = [
            "ceremony",
            "invite",
            &owner,
            "--project",
            "p",
            "--builder",
            &statement,
            "-o",
            &invite,
        ];
        run(&[&terms, sites.as_slice()].concat());
        let joins = [self.at("data.join.txt"), self.at("delegate.join.txt")];
        for (party, join) in [(&data, &joins[0]), (&delegate, &joins[1])] {
            run(&["ceremony", "join", party, &invite, "-o", join, "--yes"]);
        }
        for party in [&owner, &data, &delegate] {
            let files = [
                "--invite",
                &invite,
                "--join",
                &joins[0],
                "--join",
                &joins[1],
                "--agreement",
                &agreement,
            ];
            run(&[&["ceremony", "agree", party, "--yes"], files.as_slice()].concat());
        }
        for (party, name) in [(&owner, "owner.txt"), (&data, "data.txt")] {
            let build = ["--role", "server", "--build", "v1", "-o", &self.at(name)];
            run(&[&["ceremony", "contribute", party, "--agreement", &agreement], build.as_slice()]
                .concat());
        }
    }

    /// `provision` for the server, with this folder as its delegate's.
    fn provision(&self, output: &Path, delegate: &str) -> Command {
        self.provision_in(self.memory.path(), output, Some(delegate))
    }

    /// The same with secrets in that folder, and perhaps without a delegate.
    fn provision_in(&self, memory: &Path, output: &Path, delegate: Option<&str>) -> Command {
        let mut command = Command::new(self.scene.program());
        command.arg("provision").args(["--build", "v1", "--replace"]);
        if let Some(delegate) = delegate {
            command.args(["--keyholder-party", delegate, "--keyholder-listen", "8443"]);
        }
        for (flag, value) in [
            ("--kit", text(&self.scene.site_kit())),
            ("--base-image", text(&self.scene.image("provisioned.qcow2"))),
            ("--agreement", self.at("agreement.txt")),
            ("--contribution", self.at("owner.txt")),
            ("--contribution", self.at("data.txt")),
            ("--builder", self.at("builder")),
            ("--model", self.at("model")),
            ("--memory-folder", text(memory)),
            ("--layout", text(&self.scene.repository.join("partitions/small.yaml"))),
            ("--output", text(output)),
        ] {
            command.args([flag, &value]);
        }
        command
    }

    /// Lines that no disk of the builder's may hold: of the kit's private key, the delegate's key
    /// and sealed secrets, the model.
    fn needles(&self) -> Vec<String> {
        let line = |path: PathBuf, number: usize| {
            let content = fs::read(&path).expect("a secret");
            let lines =
                content.split(|byte| *byte == b'\n').nth(number).expect("a line of it").to_vec();
            String::from_utf8(lines).expect("a line of text")
        };
        let delegate = self.memory.path().join("delegate");
        let found = [
            line(self.scene.site_kit().join("startup/server.key"), 3),
            line(delegate.join("unlock.key"), 2),
            line(delegate.join("secrets.age"), 2),
            MARK.to_owned(),
        ];
        assert!(
            found.iter().all(|needle| needle.len() > 30)
                && found[1].starts_with("AGE-SECRET-KEY-1")
        );
        found.to_vec()
    }

    /// What builds left in memory.
    fn left_in_memory(&self) -> usize {
        let names = fs::read_dir(self.memory.path())
            .expect("the folder")
            .flatten()
            .map(|entry| entry.file_name());
        names.filter(|name| name.as_encoded_bytes().starts_with(b".flare-cvm-")).count()
    }
}

/// The builder's disk.
struct Disk {
    image: PathBuf,
    mounted: PathBuf,
    server: Option<Child>,
}

impl Disk {
    /// None where this user may not mount.
    fn new(folder: &Path) -> Option<Self> {
        let mut disk =
            Self { image: folder.join("disk.img"), mounted: folder.join("disk"), server: None };
        fs::create_dir_all(&disk.mounted).expect("a folder");
        File::create(&disk.image).and_then(|file| file.set_len(3 << 29)).expect("an image file");
        run(Command::new("mkfs.ext4").arg("-q").arg(&disk.image)).expect("a file system");
        disk.mount().then_some(disk)
    }

    fn mount(&mut self) -> bool {
        let mut command = Command::new("fuse2fs");
        let server =
            command.arg("-f").arg(&self.image).arg(&self.mounted).stdout(Stdio::null()).spawn();
        let server = self.server.insert(server.expect("fuse2fs starts"));
        let deadline = Instant::now() + LIMIT;
        while server.try_wait().expect("its state").is_none() {
            assert!(Instant::now() < deadline, "fuse2fs has not mounted within {LIMIT:?}");
            if self.mounted.join("lost+found").is_dir() {
                return true;
            }
            thread::sleep(Duration::from_millis(50));
        }
        false
    }

    /// Unmounts, so that every block is in the image file, and says which of `needles` stand in any
    /// of them.
    fn search(&mut self, needles: &[String]) -> Vec<String> {
        let deadline = Instant::now() + LIMIT;
        let mut umount = Command::new("umount");
        umount.arg(&self.mounted).stderr(Stdio::null());
        while !umount.status().is_ok_and(|status| status.success()) {
            assert!(Instant::now() < deadline, "the disk is still in use after {LIMIT:?}");
            thread::sleep(Duration::from_millis(50));
        }
        // fuse2fs goes on writing after umount(2).
        self.server.as_mut().expect("a mounted disk").wait().expect("its end");
        let mut grep = Command::new("grep");
        grep.args(["-a", "-o", "-F"]).env("LC_ALL", "C");
        let output = grep
            .args(needles.iter().flat_map(|needle| ["-e", needle]))
            .arg(&self.image)
            .output()
            .expect("grep starts");
        assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
        let mut found: Vec<_> =
            String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
        found.sort();
        found.dedup();
        assert!(self.mount(), "mounted again");
        found
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.mounted).stderr(Stdio::null()).status();
        let _ = self.server.as_mut().map(Child::wait);
    }
}

#[test]
fn attack_what_a_killed_provisioning_leaves_on_the_builders_disk() {
    let setup = Setup::new();
    let Some(mut disk) = Disk::new(&setup.scene.root) else {
        eprintln!("skipped: this user may not mount with FUSE");
        return;
    };
    let none = Vec::<String>::new();
    let needles = setup.needles();
    let (bundle, tmp) = (disk.mounted.join("bundle"), disk.mounted.join("tmp"));
    fs::create_dir(&tmp).expect("a folder for temporary files");
    // The search finds what lay in a file that was deleted.
    let deleted = disk.mounted.join("deleted");
    let mut file = File::create(&deleted).expect("a file");
    file.write_all(CONTROL.as_bytes())
        .and_then(|()| file.sync_all())
        .expect("a secret on the disk");
    drop(file);
    fs::remove_file(&deleted).expect("its deletion");
    assert_eq!(disk.search(&[CONTROL.to_owned()]), [CONTROL]);

    let delegate = setup.party("delegate");
    for step in STEPS {
        let mut command = setup.provision(&bundle, &delegate);
        let mut process = Process::start("flare-cvm", command.env("TMPDIR", &tmp).process_group(0))
            .expect("flare-cvm starts");
        process.wait_for(&[step], LIMIT).expect("the step");
        // A little into the step: nothing depends on how far it got.
        thread::sleep(Duration::from_millis(50));
        kill(Pid::from_raw(-process.pid().as_raw()), Signal::SIGKILL).expect("the program runs");
        process.wait(PATIENCE).expect("an end");
        assert_eq!(disk.search(&needles), none, "killed at {step:?}");
        assert!(!bundle.exists() && setup.left_in_memory() <= 1, "{step}");
        // What it left on the disk holds no secret; its blocks become free ones for the next
        // search.
        for left in fs::read_dir(&disk.mounted).expect("the disk").flatten() {
            if left.file_name().as_encoded_bytes().starts_with(b".flare-cvm-") {
                fs::remove_dir_all(left.path()).expect("its removal");
            }
        }
    }

    // What failed used up no name: the same build goes on, and removes what the last one left in
    // memory.
    run(setup.provision(&bundle, &delegate).env("TMPDIR", &tmp)).expect("a bundle");
    assert!(bundle.join("manifest.json").is_file() && setup.left_in_memory() == 0);
    assert_eq!(disk.search(&needles), none, "after a good end");
    for name in ["unlock.key", "secrets.age"] {
        assert!(
            !Path::new(&delegate).join(name).exists(),
            "the delegate's {name} was made for this build"
        );
    }

    // Now the name is used, and the delegate is gone.
    refused(setup.provision(&bundle, &delegate), "PRO-010");
    refused(setup.provision_in(setup.memory.path(), &bundle, None), "CER-034");
    // A delegate on a disk, and memory that is none.
    refused(setup.provision(&bundle, &setup.party("model-owner")), "MEM-001");
    refused(setup.provision_in(&tmp, &bundle, None), "MEM-001");
}

fn refused(mut command: Command, code: &str) {
    let output = command.output().expect("flare-cvm starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && text.starts_with(&format!("error[{code}]")),
        "{code}: {text}"
    );
}
