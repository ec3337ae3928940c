//! Bad input to the real program: each mistake ends in an error with a code and the cure, leaves no
//! half-written output, and keeps what an earlier good run made.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{
        fs::{MetadataExt as _, symlink},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use cvm_lab::{
    process::{PATIENCE, Process},
    run,
    scene::Scene,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// What a full disk is called, wherever it is noticed.
const FULL: [&str; 3] = ["WORK-004", "FILE-002", "SEAL-002"];
const LIMIT: Duration = Duration::from_secs(600);

/// The one scene: stage images, a ceremony, a kit and a good bundle.
fn scene() -> &'static Scene {
    static SCENE: OnceLock<Scene> = OnceLock::new();
    SCENE.get_or_init(|| {
        let scene = Scene::new("bad-input", 19_443, "small.yaml", |line| eprintln!("{line}"));
        for old in ["parties", "exchange", "builder", "bundles", "work"] {
            let _ = fs::remove_dir_all(scene.root.join(old));
        }
        let made = scene.tpm().and_then(|tpm| {
            scene.stages()?;
            scene.ceremony(&tpm)?;
            scene.kit()?;
            scene.provision()
        });
        made.expect("the scene");
        scene
    })
}

/// An empty folder of a test's own.
fn folder(test: &str) -> PathBuf {
    let folder = scene().root.join("work").join(test);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(folder.join("tmp")).expect("a folder");
    folder
}

fn flare_cvm(arguments: &[&str]) -> Command {
    let mut command = Command::new(scene().program());
    command.args(arguments).current_dir(&scene().repository);
    command
}

fn image(name: &str) -> String {
    scene().image(name).display().to_string()
}

/// `flare-cvm provision` for the scene's kit, with the values of some flags replaced.
fn provision(output: &Path, replaced: &[(&str, &str)]) -> Command {
    let mut arguments = scene().provision_arguments(output);
    for (flag, value) in replaced {
        match arguments.iter().position(|a| a == flag) {
            Some(at) => arguments[at + 1] = (*value).to_owned(),
            None => arguments.extend([(*flag).to_owned(), (*value).to_owned()]),
        }
    }
    flare_cvm(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Everything below a folder; of files inode, length and time of change.
fn inventory(folder: &Path) -> BTreeMap<PathBuf, Option<(u64, u64, i64)>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("the folder") {
        let path = entry.expect("an entry").path();
        let metadata = path.symlink_metadata().expect("its metadata");
        let file =
            metadata.is_file().then(|| (metadata.ino(), metadata.len(), metadata.mtime_nsec()));
        found.insert(path.clone(), file);
        if metadata.is_dir() {
            found.extend(inventory(&path));
        }
    }
    found
}

/// The code of an error, after a check of its form.
fn code(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    let code = text.strip_prefix("error[").and_then(|rest| rest.split_once("]: "));
    let (code, _) = code.unwrap_or_else(|| panic!("no `error[CODE]: ` in {text}"));
    let help = text.lines().last().and_then(|line| line.strip_prefix("help: "));
    assert!(help.is_some_and(|help| help.len() > 10), "no `help: ` at the end of {text}");
    assert_ne!(code, "CLI-000", "an error without a code of its own: {text}");
    code.to_owned()
}

/// Runs what must fail with this code and these words, and must change nothing in `folder`.
fn refused(mut command: Command, folder: &Path, expected: &str, words: &[&str]) {
    let before = inventory(folder);
    let output = command.output().expect("flare-cvm starts");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(code(&output), expected, "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text}");
    }
    assert_eq!(inventory(folder), before, "{expected} left something behind");
}

/// A copy of the site's startup kit.
fn kit_copy(folder: &Path) -> PathBuf {
    let kit = folder.join("server1");
    run(Command::new("cp").arg("-a").arg(scene().site_kit()).arg(&kit)).expect("a copy of the kit");
    kit
}

fn write(path: &Path, text: &str) -> String {
    fs::write(path, text).expect("a file of the test");
    path.display().to_string()
}

#[test]
fn a_missing_tool_is_named_with_its_package() {
    let folder = folder("tools");
    let bundle = folder.join("bundle");
    let build = |_: &Path| {
        flare_cvm(&["build", "nvidia_cc_base", "-o", "target/bad-input/work/tools/out.qcow2"])
    };
    let seal = |bundle: &Path| provision(bundle, &[]);
    type Case<'a> = (&'a str, &'a str, &'a str, &'a dyn Fn(&Path) -> Command);
    let cases: [Case; 7] = [
        ("mmdebstrap", "mmdebstrap", "WORK-001", &build),
        ("mkfs.erofs", "erofs-utils", "WORK-001", &build),
        ("qemu-img", "qemu-utils", "WORK-001", &build),
        ("mkfs.erofs", "erofs-utils", "WORK-001", &seal),
        ("fsck.erofs", "erofs-utils", "WORK-001", &seal),
        ("qemu-img", "qemu-utils", "WORK-001", &seal),
        ("sbsign", "sbsigntool", "WORK-001", &seal),
    ];
    for (at, (tool, package, code, command)) in cases.into_iter().enumerate() {
        let path = folder.join(format!("path-{at}"));
        fs::create_dir(&path).expect("a folder of programs");
        for entry in
            fs::read_dir("/usr/bin").expect("/usr/bin").flatten().filter(|e| e.file_name() != tool)
        {
            symlink(entry.path(), path.join(entry.file_name())).expect("a link");
        }
        let mut command = command(&bundle);
        command.env("PATH", &path);
        refused(
            command,
            &folder,
            code,
            &[&format!("{tool} is not installed"), &format!("apt-get install {package}")],
        );
    }
}

#[test]
fn a_wrong_base_image_is_named() {
    let folder = folder("base");
    let out = folder.join("out.qcow2");
    write(&out, "an earlier good image");
    let out = out.display().to_string();
    let text_file = write(&folder.join("text.qcow2"), "no image");
    let empty = folder.join("empty.qcow2").display().to_string();
    run(Command::new("qemu-img").args(["create", "-q", "-f", "qcow2", &empty, "1M"]))
        .expect("an empty disk");
    let (first, second) = (image("nvcc_image.qcow2"), image("nvflare_cc_base.qcow2"));
    let zeros = "0".repeat(64);
    let cases: [(&[&str], &str, &[&str]); 8] = [
        (&["provision_build"], "STG-007", &["nvflare_cc_base"]),
        (&["nvidia_cc_base", "--base-image", &first], "STG-008", &[]),
        (
            &["provision_build", "--base-image", &first],
            "STG-009",
            &["nvidia_cc_base", "expected nvflare_cc_base"],
        ),
        (
            &["provision_build", "--base-image", &second, "--base-digest", &zeros],
            "STG-010",
            &[&zeros],
        ),
        (&["provision_build", "--base-image", &text_file], "STG-011", &["text.qcow2"]),
        (&["provision_build", "--base-image", &empty], "STG-011", &["empty.qcow2"]),
        (&["provision_build", "--base-image", "/nonexistent.qcow2"], "STG-011", &["no such file"]),
        (&["no_such_stage"], "CLI-001", &["no_such_stage"]),
    ];
    for (arguments, code, words) in cases {
        refused(flare_cvm(&[&["build", "-o", &out], arguments].concat()), &folder, code, words);
    }
    let bundle = folder.join("bundle");
    refused(
        provision(&bundle, &[("--base-image", &first)]),
        &folder,
        "PRO-004",
        &["nvidia_cc_base"],
    );
    refused(
        provision(&bundle, &[("--base-image", &text_file)]),
        &folder,
        "STG-011",
        &["text.qcow2"],
    );
}

#[test]
fn an_unknown_yaml_key_is_named() {
    let folder = folder("yaml");
    let stage = folder.join("nvidia_cc_base");
    fs::create_dir(&stage).expect("a stage's folder");
    let repository = &scene().repository;
    let spec = fs::read_to_string(repository.join("stages/nvidia_cc_base/stage.yaml"))
        .expect("stage.yaml");
    write(&stage.join("stage.yaml"), &format!("{spec}\nremoves: [/etc/x]\n"));
    refused(
        flare_cvm(&["build", &stage.display().to_string()]),
        &folder,
        "STG-006",
        &["removes", "stage.yaml"],
    );

    let bundle = folder.join("bundle");
    let layout = fs::read_to_string(repository.join("partitions/small.yaml")).expect("a layout");
    let layout = write(&folder.join("layout.yaml"), &format!("{layout}\nalignement: 1\n"));
    refused(provision(&bundle, &[("--layout", &layout)]), &folder, "LAY-001", &["alignement"]);
    let conf = "version: 1\nsite: server1\nrole: server\nalowed_ports: [8002]\n";
    let conf = write(&folder.join("site_conf.yaml"), conf);
    refused(
        provision(&bundle, &[("--site-conf", &conf)]),
        &folder,
        "CONF-001",
        &["alowed_ports", "site_conf.yaml"],
    );
}

#[test]
fn an_existing_bundle_is_not_overwritten() {
    let folder = folder("exists");
    let bundle = folder.join("bundle");
    fs::create_dir(&bundle).expect("an earlier bundle");
    write(&bundle.join("disk.qcow2"), "sealed");
    refused(provision(&bundle, &[]), &folder, "PRO-002", &["--replace"]);
    // With --replace it goes only when a whole new one is there.
    let mut command = provision(&bundle, &[("--base-image", &image("nvcc_image.qcow2"))]);
    command.arg("--replace");
    refused(command, &folder, "PRO-004", &[]);
}

#[test]
fn ceremony_documents_that_do_not_fit_are_refused() {
    let folder = folder("documents");
    let bundle = folder.join("bundle");
    refused(
        provision(&bundle, &[("--build", "demo-2")]),
        &folder,
        "CER-015",
        &["demo-1", "demo-2"],
    );
    let agreement = fs::read_to_string(scene().exchange("agreement.txt")).expect("the agreement");
    let half = write(&folder.join("agreement.txt"), &agreement[..agreement.len() / 2]);
    refused(provision(&bundle, &[("--agreement", &half)]), &folder, "CER-201", &[]);
    let contribution = scene().exchange("model-owner.contribution.txt").display().to_string();
    refused(provision(&bundle, &[("--agreement", &contribution)]), &folder, "CER-201", &[]);
    refused(
        provision(&bundle, &[("--agreement", "/nonexistent.txt")]),
        &folder,
        "FILE-001",
        &["/nonexistent.txt"],
    );
}

#[test]
fn a_kit_that_was_changed_or_is_anothers_is_refused() {
    let folder = folder("kit");
    let bundle = folder.join("bundle");
    let kit = kit_copy(&folder);
    let path = kit.display().to_string();
    let config = kit.join("startup/fed_server.json");
    let text = fs::read_to_string(&config).expect("the server's configuration");
    write(&config, &format!("{text} "));
    refused(
        provision(&bundle, &[("--kit", &path)]),
        &folder,
        "KIT-004",
        &["startup/fed_server.json"],
    );
    write(&config, &text);
    write(&kit.join("local/extra.txt"), "not signed");
    refused(provision(&bundle, &[("--kit", &path)]), &folder, "KIT-004", &["local/extra.txt"]);

    let other = scene().admin_kit().display().to_string();
    refused(provision(&bundle, &[("--kit", &other)]), &folder, "CLI-003", &["fed_server.json"]);
    let client = scene().site_kit().with_file_name("site-1").display().to_string();
    refused(
        provision(&bundle, &[("--kit", &client)]),
        &folder,
        "CER-026",
        &["no site site-1 with role client"],
    );
}

#[test]
fn attack_a_secret_in_a_cleartext_place_fails_the_build() {
    let folder = folder("secret");
    let bundle = folder.join("bundle");
    let key =
        fs::read_to_string(scene().site_kit().join("startup/server.key")).expect("the kit's key");
    // p4: the site's configuration is copied there as it is.
    let age =
        format!("AGE-SECRET-KEY-1{}", "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7LQPZRY9X8GF2TVDW0S3JN54KHCE");
    let line = key.lines().nth(3).expect("a line of base64");
    for (secret, name) in [(age.as_str(), "age secret key"), (line, "server.key (PEM)")] {
        let conf = format!(
            "version: 1\nsite: server1\nrole: server\nallowed_ports: [8002]\nproxy: \
             \"http://x:{secret}@p\"\n"
        );
        let conf = write(&folder.join("site_conf.yaml"), &conf);
        refused(
            provision(&bundle, &[("--site-conf", &conf)]),
            &folder,
            "PRO-006",
            &["p4 would carry", name],
        );
    }
    // p2: inside the compressed initramfs.
    let mut init = fs::read(scene().program().with_file_name("cvm-init")).expect("cvm-init");
    init.extend_from_slice(key.as_bytes());
    let path = folder.join("cvm-init");
    fs::write(&path, init).expect("an init with a key");
    let init = path.display().to_string();
    refused(
        provision(&bundle, &[("--init", &init)]),
        &folder,
        "PRO-006",
        &["p2 would carry", "server.key"],
    );
}

#[test]
fn a_full_disk_is_named_and_what_was_there_stays() {
    let folder = folder("full");
    let bundle = folder.join("bundle");
    let out = folder.join("out.qcow2").display().to_string();
    let build =
        |stage, base: &str| flare_cvm(&["build", stage, "--base-image", &image(base), "-o", &out]);
    let seal = || {
        let mut command = provision(&bundle, &[]);
        command.arg("--replace");
        command
    };
    for (megabytes, command) in [
        (1, build("provision_build", "nvflare_cc_base.qcow2")),
        (20, build("nvflare_cc_base", "nvcc_image.qcow2")),
        (200, build("provision_build", "nvflare_cc_base.qcow2")),
        (1, seal()),
        (100, seal()),
        (200, seal()),
        (330, seal()),
    ] {
        let Some(output) = on_a_small_disk(&folder, megabytes, &command) else {
            eprintln!("skipped: this user may not mount a tmpfs");
            return;
        };
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(FULL.contains(&code(&output).as_str()), "{megabytes} MB: {text}");
        let listing = String::from_utf8_lossy(&output.stdout).into_owned();
        let expected = "good\ngood\n.\n./bundle\n./bundle/earlier\n./out.qcow2\n";
        assert!(listing.ends_with(expected), "{megabytes} MB: {listing}");
    }
}

/// Runs `command` with a tmpfs at `folder`, in a mount namespace of its own, then lists what is
/// there.
fn on_a_small_disk(folder: &Path, megabytes: u32, command: &Command) -> Option<Output> {
    const SCRIPT: &str = r#"mount -t tmpfs -o "size=$2M" tmpfs "$1" || exit 77
        disk=$1; shift 2; mkdir "$disk/bundle"; echo good > "$disk/bundle/earlier"; echo good > "$disk/out.qcow2"
        "$@"; status=$?
        cd "$disk"; cat bundle/earlier out.qcow2; find . | sort; exit $status"#;
    let mut small = Command::new("unshare");
    small.args(["-m", "sh", "-c", SCRIPT, "sh"]).arg(folder).arg(megabytes.to_string());
    small.arg(command.get_program()).args(command.get_args()).current_dir(&scene().repository);
    let output = small.output().ok()?;
    let mounted = output.status.code() != Some(77)
        && !String::from_utf8_lossy(&output.stderr).starts_with("unshare:");
    mounted.then_some(output)
}

/// What a Ctrl-C reaches: the program alone (`kill`), or its whole process group (a terminal).
#[derive(Debug, Clone, Copy)]
enum CtrlC {
    Alone,
    Group,
}

/// When a Ctrl-C comes after a line of progress.
#[derive(Debug, Clone, Copy)]
enum When {
    /// A little into the step: nothing depends on how far it got.
    Soon,
    /// While a program of this name works for the step.
    Runs(&'static str),
}

/// Waits until a program of that name works in `folder`.
fn runs(name: &str, folder: &Path) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let users = users(folder);
        if users.iter().any(|user| user.trim() == name) {
            return;
        }
        assert!(Instant::now() < deadline, "no {name} within {LIMIT:?}, but {users:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Starts `command`, interrupts it after a line of progress, and checks what is left.
fn interrupted(folder: &Path, mut command: Command, line: &str, when: When, to: CtrlC) {
    let before = inventory(folder);
    command.env("TMPDIR", folder.join("tmp")).process_group(0);
    let mut process = Process::start("flare-cvm", &mut command).expect("flare-cvm starts");
    process.wait_for(&[line], LIMIT).expect("progress");
    match when {
        When::Soon => thread::sleep(Duration::from_millis(100)),
        When::Runs(name) => runs(name, folder),
    }
    let pid = process.pid();
    let target = match to {
        CtrlC::Alone => pid,
        CtrlC::Group => Pid::from_raw(-pid.as_raw()),
    };
    kill(target, Signal::SIGINT).expect("the program runs");
    let status = process.wait(PATIENCE).expect("an end");
    let text = process.text();
    assert_eq!(status.code(), Some(130), "{line} {to:?}: {text}");
    assert!(text.contains("interrupted: ") && !text.contains("error["), "{line} {to:?}: {text}");
    assert_eq!(inventory(folder), before, "{line} {to:?}");
    assert_eq!(users(folder), Vec::<String>::new(), "{line} {to:?}: processes live on");
}

/// The processes that name `folder` in their arguments or environment, as `TMPDIR` is.
fn users(folder: &Path) -> Vec<String> {
    let needle = folder.display().to_string().into_bytes();
    let names = |file: PathBuf| {
        fs::read(file).is_ok_and(|text| text.windows(needle.len()).any(|w| w == needle))
    };
    let processes = fs::read_dir("/proc").expect("/proc").flatten().map(|entry| entry.path());
    let users = processes.filter(|path| names(path.join("cmdline")) || names(path.join("environ")));
    users.filter_map(|path| fs::read_to_string(path.join("comm")).ok()).collect()
}

#[test]
fn ctrl_c_during_a_build_leaves_nothing_behind() {
    let folder = folder("ctrl-c-build");
    let out = folder.join("out.qcow2");
    write(&out, "an earlier good image");
    let (out, first) = (out.display().to_string(), image("nvcc_image.qcow2"));
    let second = || flare_cvm(&["build", "nvflare_cc_base", "--base-image", &first, "-o", &out]);
    interrupted(&folder, second(), "unpacking", When::Soon, CtrlC::Alone);
    interrupted(&folder, second(), "installing the locked", When::Runs("pip"), CtrlC::Group);
    // mmdebstrap, with apt and dpkg below it.
    let first = || flare_cvm(&["build", "nvidia_cc_base", "-o", &out]);
    interrupted(&folder, first(), "unpacking", When::Runs("apt-get"), CtrlC::Alone);
    interrupted(&folder, first(), "unpacking", When::Runs("tar"), CtrlC::Group);
}

#[test]
fn ctrl_c_during_provisioning_leaves_nothing_behind() {
    let folder = folder("ctrl-c-provision");
    let bundle = folder.join("bundle");
    fs::create_dir(&bundle).expect("an earlier bundle");
    write(&bundle.join("disk.qcow2"), "sealed");
    for (line, to) in [
        ("kit: verifying", CtrlC::Group),
        ("p3: sealing", CtrlC::Alone),
        ("boot chain:", CtrlC::Group),
        ("disk.qcow2: placing", CtrlC::Alone),
    ] {
        let mut command = provision(&bundle, &[]);
        command.arg("--replace");
        interrupted(&folder, command, line, When::Soon, to);
    }
}
