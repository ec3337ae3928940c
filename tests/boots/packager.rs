//! NVFLARE's own provisioning calls us, and we do the same without it: tests/federation becomes
//! sealed bundles.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
    time::{Duration, Instant},
};

use cvm_lab::{
    docker,
    process::{PATIENCE, Process},
    run,
    scene::Scene,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const SITES: [(&str, &str); 2] = [("server1", "server"), ("site-1", "client")];
const PARTIES: [(&str, &str); 2] = [("model-owner", "model_owner"), ("data-owner", "data_owner")];
/// How long provisioning may take until a line of its progress.
const LIMIT: Duration = Duration::from_secs(600);
const PROJECT: &str = "flare-cvm-federation";
/// `python3 -m nvflare.lighter.provision` without the 100 s that its packager sleeps between
/// participants.
const PROVISION: &str = "import runpy, time
sleep = time.sleep
time.sleep = lambda seconds: sleep(0 if seconds == 100.0 else seconds)
runpy.run_module('nvflare.lighter.provision', run_name='__main__', alter_sys=True)";

/// Stage images, a ceremony for both sites, and NVFLARE's project with our command in it.
fn scene() -> &'static Scene {
    static SCENE: OnceLock<Scene> = OnceLock::new();
    SCENE.get_or_init(|| {
        let scene = Scene::new("packager", 19_643, "small.yaml", |line| eprintln!("{line}"));
        let _ = fs::remove_dir_all(&scene.root);
        fs::create_dir_all(&scene.root).expect("the scene's folder");
        scene.stages().expect("the stage images");
        ceremony(&scene);
        let image = scene.image("provisioned.qcow2");
        std::os::unix::fs::symlink(&image, scene.root.join("provisioned.qcow2"))
            .expect("a link to the image");
        let federation = scene.repository.join("tests/federation");
        let project = scene.root.join("project");
        fs::create_dir(&project).expect("the project's folder");
        for entry in fs::read_dir(&federation).expect("tests/federation").flatten() {
            let text = fs::read_to_string(entry.path()).expect("a file of the project");
            let text = text.replace("/path/to/flare-cvm", &scene.repository.display().to_string());
            fs::write(project.join(entry.file_name()), text).expect("a copy");
        }
        // Without the packager the kits stay kits.
        let text = fs::read_to_string(project.join("project.yml")).expect("project.yml");
        let kits = text.split_once("\npackager:").expect("a packager").0;
        fs::write(project.join("kits.yml"), kits).expect("kits.yml");
        provision(&scene, "kits.yml", "kits").expect("the kits");
        scene
    })
}

fn ceremony(scene: &Scene) {
    let at = |name: &str| scene.root.join(name).display().to_string();
    let run =
        |arguments: &[&str]| drop(scene.flare_cvm(arguments).expect("a step of the ceremony"));
    let policy = scene.repository.join("keys/policies/tpm.rego").display().to_string();
    let (invite, join, agreement, builder) =
        (at("invite.txt"), at("join.txt"), at("agreement.txt"), at("builder"));
    run(&["ceremony", "init-builder", &builder, "--name", "builder"]);
    for (name, role) in PARTIES {
        let url = format!("https://{name}.example:8443");
        run(&[
            "ceremony",
            "init",
            &at(name),
            "--name",
            name,
            "--role",
            role,
            "--keyholder",
            &url,
            "--policy",
            &policy,
        ]);
    }
    let statement = format!("{builder}/builder.txt");
    let mut arguments = vec![
        "ceremony",
        "invite",
        "",
        "--project",
        PROJECT,
        "--builder",
        &statement,
        "-o",
        &invite,
    ];
    let (first, second) = (at(PARTIES[0].0), at(PARTIES[1].0));
    arguments[2] = &first;
    let sites = SITES.map(|(site, role)| format!("{site}={role}"));
    sites.iter().for_each(|site| arguments.extend(["--site", site]));
    run(&arguments);
    run(&["ceremony", "join", &second, &invite, "-o", &join, "--yes"]);
    for party in [&first, &second] {
        run(&[
            "ceremony",
            "agree",
            party,
            "--invite",
            &invite,
            "--join",
            &join,
            "--agreement",
            &agreement,
            "--yes",
        ]);
    }
    for (name, _) in PARTIES {
        for (_, role) in SITES {
            let output = at(&format!("{name}.{role}.txt"));
            let build = ["--role", role, "--build", "federation-1", "-o", &output];
            run(&[
                &["ceremony", "contribute", &at(name), "--agreement", &agreement],
                build.as_slice(),
            ]
            .concat());
        }
    }
}

/// NVFLARE's provisioning of one of the project's files; its output.
fn provision(scene: &Scene, project: &str, workspace: &str) -> anyhow::Result<String> {
    let mut command = Command::new(scene.nvflare("python3"));
    command.args(["-u", "-c", PROVISION, "-p", project, "-w"]).arg(scene.root.join(workspace));
    command.current_dir(scene.root.join("project")).env("FLARE_CVM_BASE_DIR", &scene.root);
    run(command.env("FLARE_CVM", scene.program()))
}

fn kits() -> PathBuf {
    scene().root.join("kits").join(PROJECT).join("prod_00")
}

/// `flare-cvm provision` for the project's files, as copied to `configs`.
fn seal(configs: &Path, kits: &Path, output: &Path) -> Command {
    let mut command = Command::new(scene().program());
    command.arg("provision").env("FLARE_CVM_BASE_DIR", &scene().root);
    for (site, _) in SITES {
        command.arg("--cc-config").arg(configs.join(format!("cc_{site}.yml")));
    }
    command.arg("--kit-root").arg(kits).arg("--output").arg(output);
    command
}

/// The builder as one that has sealed nothing yet: a build's name serves once for a site, and each
/// test seals the same.
fn builder(folder: &Path) -> PathBuf {
    let (from, own) = (scene().root.join("builder"), folder.join("builder"));
    fs::create_dir(&own).expect("a folder");
    let names = ["builder.txt", "secrets.age", "unlock.key", "secure-boot"];
    names
        .iter()
        .filter(|name| from.join(name).exists())
        .for_each(|name| copy(&from.join(name), &own.join(name)));
    own
}

/// An empty folder of a test's own.
fn folder(test: &str) -> PathBuf {
    let folder = scene().root.join("work").join(test);
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// A copy of a folder.
fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").arg("-a").arg(from).arg(to)).expect("a copy");
}

/// What a bundle holds; all of it in one folder `cvm_ID`.
fn holds_a_bundle(archive: &Path) {
    let list = run(Command::new("tar").arg("-tzf").arg(archive)).expect("an archive");
    let (folders, files): (BTreeSet<&str>, BTreeSet<&str>) =
        list.lines().filter_map(|line| line.split_once('/')).unzip();
    let id =
        folders.first().and_then(|folder| folder.strip_prefix("cvm_")).expect("a folder cvm_ID");
    assert!(folders.len() == 1 && id.len() == 12, "{folders:?}");
    for file in [
        "disk.qcow2",
        "OVMF_CODE.fd",
        "OVMF_VARS.fd",
        "launch_vm.sh",
        "README.txt",
        "manifest.json",
        "reference.json",
    ] {
        assert!(files.contains(file), "{file} is not in {files:?}");
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn names(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder)
        .expect("a folder")
        .map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect()
}

#[test]
fn nvflare_provision_makes_sealed_bundles_of_its_own_example() {
    let output = provision(scene(), "project.yml", "packaged").expect("nvflare provision");
    assert!(!output.contains("CC is not enabled"), "{output}");
    let packaged = scene().root.join("packaged").join(PROJECT).join("prod_00");
    for (site, _) in SITES {
        assert_eq!(
            names(&packaged.join(site)),
            BTreeSet::from([format!("{site}.tgz")]),
            "{output}"
        );
        holds_a_bundle(&packaged.join(site).join(format!("{site}.tgz")));
        assert!(
            output.contains(&format!("CVM Bundle {}", packaged.join(site).display())),
            "{output}"
        );
    }
    assert!(packaged.join("admin@acme.com/startup").is_dir());
}

#[test]
fn nvflare_provision_says_why_a_key_is_refused() {
    let project = scene().root.join("project");
    let config = fs::read_to_string(project.join("cc_server1.yml")).expect("a cc_config");
    fs::write(project.join("cc_wrong.yml"), config.replace("allowed_ports:", "alowed_ports:"))
        .expect("a cc_config");
    let wrong = fs::read_to_string(project.join("project.yml")).expect("project.yml");
    fs::write(project.join("wrong.yml"), wrong.replace("cc_server1.yml", "cc_wrong.yml"))
        .expect("a project");
    let error =
        format!("{:#}", provision(scene(), "wrong.yml", "wrong").expect_err("an unknown key"));
    for words in ["error[CCC-002]", "alowed_ports", "did you mean allowed_ports?"] {
        assert!(error.contains(words), "{words}: {error}");
    }
}

#[test]
fn all_sites_are_sealed_at_once_without_the_packager() {
    let folder = folder("all");
    let out = folder.join("out");
    let started = Instant::now();
    let mut seal = seal(&scene().root.join("project"), &kits(), &out);
    let output = seal.arg("--builder").arg(builder(&folder)).output().expect("flare-cvm starts");
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && stderr.is_empty(), "{stdout}{stderr}");
    eprintln!("two sites in {:.1} s", started.elapsed().as_secs_f64());
    for (site, _) in SITES {
        holds_a_bundle(&out.join(format!("{site}.tgz")));
        assert!(stdout.contains(&format!("] {site}: p3: sealing")), "{stdout}");
        assert!(
            stdout.contains(&format!(
                "\nCVM Bundle {} is ready\n",
                out.join(format!("{site}.tgz")).display()
            )),
            "{stdout}"
        );
        // The documents beside it are what a key holder enrols.
        let (manifest, reference) =
            (format!("{site}.manifest.json"), format!("{site}.reference.json"));
        let mut enroll = Command::new(scene().program());
        enroll.args(["keyholder", "enroll", "--dir"]).arg(scene().root.join(PARTIES[0].0));
        enroll.arg("--agreement").arg(scene().root.join("agreement.txt"));
        enroll
            .arg("--manifest")
            .arg(out.join(manifest))
            .arg("--reference")
            .arg(out.join(reference));
        run(&mut enroll).expect("the enrolment");
    }
}

#[test]
fn a_site_that_fails_takes_nothing_from_the_others() {
    let folder = folder("one-fails");
    let (copied, out) = (folder.join("prod_00"), folder.join("out"));
    copy(&kits(), &copied);
    let changed = copied.join("site-1/local/privacy.json.sample");
    let content = fs::read_to_string(&changed).expect("a file of the kit");
    fs::write(&changed, content + " ").expect("a changed file");
    let own = builder(&folder);
    let seal = || {
        let mut command = seal(&scene().root.join("project"), &copied, &out);
        command.arg("--builder").arg(&own).output().expect("flare-cvm starts")
    };
    let output = seal();
    failed(&output, &["error[KIT-004]: site-1 is not sealed", "error[CLI-012]: 1 of 2 sites"]);
    holds_a_bundle(&out.join("server1.tgz"));
    assert!(names(&out).iter().all(|name| name.starts_with("server1.")), "{:?}", names(&out));
    // Neither is an earlier bundle replaced unasked.
    let output = seal();
    failed(&output, &["error[PRO-002]: server1 is not sealed", "error[KIT-004]", "2 of 2 sites"]);
    holds_a_bundle(&out.join("server1.tgz"));
}

fn failed(output: &Output, words: &[&str]) {
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "{word:?} is not in {stderr}");
    }
}

/// Each is found before any work begins: nothing is left, and nothing was made of the other site.
#[test]
fn a_mistake_in_one_cc_config_is_found_before_any_work() {
    let folder = folder("mistakes");
    let project = scene().root.join("project");
    for (at, (from, to, code, words)) in [
        ("role: client", "role: server", "CER-026", "no site site-1 with role server"),
        ("role: client\n", "", "CCC-003", "role is missing"),
        ("build: federation-1", "build: federation-2", "CER-015", "federation-1"),
        ("  builder: builder\n", "", "CLI-009", "flare_cvm.builder"),
        ("root_drive_size: 45", "root_drive_size: 45GB", "CCC-004", "root_drive_size"),
        ("compute_env: onprem_cvm", "compute_env: azure_cvm", "CCC-005", "Azure"),
        ("token_expiration: 100", "token_expiration: 200", "CCC-008", "check_frequency"),
    ]
    .into_iter()
    .enumerate()
    {
        let (configs, out) = (folder.join(at.to_string()), folder.join(format!("{at}-out")));
        copy(&project, &configs);
        let file = configs.join("cc_site-1.yml");
        let config = fs::read_to_string(&file).expect("a cc_config");
        assert!(config.contains(from), "{from}");
        fs::write(&file, config.replace(from, to)).expect("a wrong cc_config");
        let output = seal(&configs, &kits(), &out).output().expect("flare-cvm starts");
        failed(&output, &[&format!("error[{code}]"), words]);
        assert!(!out.exists(), "{to}: something was made");
    }
}

/// What only the base image, the file system or the kit can tell.
#[test]
fn what_cannot_be_sealed_is_refused() {
    let folder = folder("refused");
    let own = builder(&folder);
    let project = scene().root.join("project");
    fs::write(folder.join("app.tar.gz"), "an archive").expect("a file");
    let archive = format!("docker_archive: {}", folder.join("app.tar.gz").display());
    for (at, (to, code, words)) in [
        (archive.as_str(), "DKR-001", "docker_archive"),
        ("  model: /nonexistent", "WL-001", "/nonexistent"),
        ("docker_archive: /nonexistent.tar.gz", "CCC-007", "/nonexistent.tar.gz"),
        ("cc_gpu_mechanism: nvidia_cc", "CCC-005", "NVIDIA driver"),
        ("user_config: {mine: /nonexistent}", "CCC-007", "user_config/mine"),
        ("class_allow_list: [my.Class]", "CCC-022", "class_allow_list"),
        ("allowed_out_ports: [443]", "KIT-008", "8002"),
    ]
    .into_iter()
    .enumerate()
    {
        let (configs, out) = (folder.join(at.to_string()), folder.join(format!("{at}-out")));
        copy(&project, &configs);
        let file = configs.join("cc_site-1.yml");
        let config = fs::read_to_string(&file).expect("a cc_config");
        fs::write(&file, format!("{config}{to}\n")).expect("a wrong cc_config");
        let mut command = Command::new(scene().program());
        command
            .arg("provision")
            .env("FLARE_CVM_BASE_DIR", &scene().root)
            .arg("--cc-config")
            .arg(&file);
        command.arg("--kit-root").arg(kits()).arg("--output").arg(&out).arg("--builder").arg(&own);
        failed(&command.output().expect("flare-cvm starts"), &[&format!("error[{code}]"), words]);
        assert!(!out.exists() || names(&out).is_empty(), "{to}: {:?}", names(&out));
    }
}

/// A model, beside what the same cc_config puts on p4: the one is nowhere on the disk in the clear,
/// the other is.
#[test]
fn a_model_and_a_workload_lie_only_in_the_encrypted_partition() {
    const SEALED: [&str; 2] = ["flare-cvm-test-model-4b1f0c2d", "flare-cvm-test-workload-9e3a7c55"];
    const OPEN: &str = "flare-cvm-test-open-77d05a1e";
    let folder = folder("sealed");
    let package = folder.join("model/code/acme");
    fs::create_dir_all(&package).expect("a package");
    fs::write(package.join("__init__.py"), format!("MARK = '{}'\n", SEALED[0])).expect("a module");
    fs::write(folder.join("open.txt"), OPEN).expect("a file");
    let archive = docker_archive(&folder, SEALED[1]);
    let config =
        fs::read_to_string(scene().root.join("project/cc_site-1.yml")).expect("a cc_config");
    let config: Vec<&str> = config.lines().filter(|line| !line.contains("drive_size")).collect();
    let (config, at, out) = (config.join("\n"), folder.display(), folder.join("out"));
    let file = folder.join("cc_site-1.yml");
    let ours = format!(
        "  model: {at}/model\n  layout: {}/partitions/small.yaml",
        scene().repository.display()
    );
    let text = format!(
        "{config}\n{ours}\ndocker_archive: {}\nuser_config: {{mine: {at}/open.txt}}\n",
        archive.display()
    );
    fs::write(&file, text).expect("a cc_config");
    let mut command = Command::new(scene().program());
    command.arg("provision").env("FLARE_CVM_BASE_DIR", &scene().root).arg("--cc-config").arg(&file);
    command
        .arg("--kit-root")
        .arg(kits())
        .arg("--output")
        .arg(&out)
        .arg("--builder")
        .arg(builder(&folder));
    run(&mut command).expect("a bundle");

    run(Command::new("tar")
        .arg("-C")
        .arg(&out)
        .arg("--strip-components=1")
        .arg("-xzf")
        .arg(out.join("site-1.tgz")))
    .expect("the bundle, unpacked");
    let (disk, raw) = (out.join("disk.qcow2"), out.join("disk.raw"));
    run(Command::new("qemu-img").args(["convert", "-O", "raw"]).arg(&disk).arg(&raw))
        .expect("the disk, raw");
    let holds = |mark: &str| {
        let status = Command::new("grep")
            .args(["-q", "-a", "-F", mark])
            .arg(&raw)
            .status()
            .expect("grep starts");
        status.success()
    };
    assert!(holds(OPEN), "the search finds what p4 holds");
    SEALED.iter().for_each(|mark| assert!(!holds(mark), "{mark} lies in the clear"));
}

/// An image with one program and an NVFLARE.
fn docker_archive(folder: &Path, mark: &str) -> PathBuf {
    let root = folder.join("image");
    let nvflare = root.join("usr/lib/python3/site-packages/nvflare-2.9.0.dist-info");
    [&nvflare, &root.join("bin")]
        .iter()
        .for_each(|folder| fs::create_dir_all(folder).expect("a folder"));
    fs::write(nvflare.join("METADATA"), mark).expect("a file");
    fs::copy("/bin/true", root.join("bin/start")).expect("a program");
    docker::save(folder, &root, &serde_json::json!({ "Entrypoint": ["/bin/start"] }))
        .expect("an archive")
}

#[test]
fn ctrl_c_leaves_nothing_of_any_site_behind() {
    let folder = folder("ctrl-c");
    let (out, temporary) = (folder.join("out"), folder.join("tmp"));
    fs::create_dir_all(&out).expect("a folder");
    fs::create_dir_all(&temporary).expect("a folder");
    let own = builder(&folder);
    for (line, group) in
        [("site-1: p3: sealing", true), ("server1: boot chain", false), ("packing it into", true)]
    {
        let mut command = seal(&scene().root.join("project"), &kits(), &out);
        command.arg("--builder").arg(&own).env("TMPDIR", &temporary).process_group(0);
        let mut process = Process::start("flare-cvm", &mut command).expect("flare-cvm starts");
        process.wait_for(&[line], LIMIT).expect("progress");
        let pid = process.pid();
        let target = if group { Pid::from_raw(-pid.as_raw()) } else { pid };
        kill(target, Signal::SIGINT).expect("the program runs");
        let status = process.wait(PATIENCE).expect("an end");
        assert_eq!(status.code(), Some(130), "{line}: {}", process.text());
        // A bundle that was finished before stays; of the others nothing does.
        let whole: Vec<_> = names(&out).into_iter().filter(|name| name.ends_with(".tgz")).collect();
        whole.iter().for_each(|name| holds_a_bundle(&out.join(name)));
        let left = names(&out)
            .into_iter()
            .filter(|name| !whole.iter().any(|tgz| name.starts_with(tgz.trim_end_matches("tgz"))));
        assert_eq!(
            (left.collect::<Vec<_>>(), names(&temporary)),
            (Vec::new(), BTreeSet::new()),
            "{line}"
        );
        names(&out).into_iter().for_each(|name| fs::remove_file(out.join(name)).expect("a file"));
        // Only a finished bundle used its build's name up.
        let entries = |folder: PathBuf| {
            fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
        };
        let used = entries(own.join("builds")).flat_map(entries).flat_map(|build| names(&build));
        assert_eq!(used.map(|site| format!("{site}.tgz")).collect::<Vec<_>>(), whole, "{line}");
        let _ = fs::remove_dir_all(own.join("builds"));
    }
}
