//! A site with a workload of its own, a disk of its own and an NFS server that hangs, answers and
//! hangs again: what docs/cc-config.md promises of them, told by the workload itself from inside a
//! sealed client CVM.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use cvm_lab::{
    docker, nfs, run,
    scene::Scene,
    vm::{BOOT_LIMIT, Machine, Vm},
};

/// Where the workload serves its report: on this machine, and in the CVM.
const PORT: u16 = 20_002;
const GUEST_PORT: u16 = 8080;
/// NFS version 4's, which the guest reaches at 10.0.2.2.
const NFS: u16 = 2049;
/// What the second disk holds, what p6 does, and the export.
const ROWS: [&str; 3] = ["rows of the second disk", "rows of p6", "rows of the export"];

fn folder(path: PathBuf) -> PathBuf {
    fs::create_dir_all(&path).expect("a folder");
    path
}

/// An image with BusyBox and the Entrypoint; its USER would be root.
fn image(work: &Path) -> PathBuf {
    let root = folder(work.join("image"));
    let bin = folder(root.join("bin"));
    fs::copy("/bin/busybox", bin.join("busybox")).expect("Debian's busybox-static");
    run(Command::new(bin.join("busybox")).arg("--install").arg(&bin)).expect("BusyBox's names");
    let config = serde_json::json!({
        "User": "0:0", "WorkingDir": "/work", "Env": ["PATH=/bin", "ACME=100 % of \"$HOME\""],
        "Entrypoint": ["sh", "-c", include_str!("../workload/entrypoint.sh"), "acme"], "Cmd": [GUEST_PORT.to_string()],
    });
    docker::save(work, &root, &config).expect("an archive")
}

/// The disk beside `launch_vm.sh`.
fn user_data(work: &Path, disk: &Path) {
    let (data, raw) = (folder(work.join("data")), work.join("data.raw"));
    folder(data.join("mnt"));
    fs::write(data.join("rows.csv"), ROWS[0]).expect("a file");
    fs::write(data.join("ext_mount.conf"), format!("10.0.2.2:{}\n", nfs::EXPORT)).expect("a file");
    let program = data.join("busybox");
    fs::copy("/bin/busybox", &program).expect("Debian's busybox-static");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).expect("a mode");
    let _ = fs::remove_file(data.join("zero"));
    run(Command::new("mknod").args(["-m", "666"]).arg(data.join("zero")).args(["c", "1", "5"]))
        .expect("a device");
    run(Command::new("mkfs.ext4").arg("-q").arg("-d").arg(&data).arg(&raw).arg("16M"))
        .expect("a file system");
    run(Command::new("qemu-img").args(["convert", "-O", "qcow2"]).arg(&raw).arg(disk))
        .expect("a disk");
}

/// A sealed client with its workload and its data.
fn sealed() -> (Scene, Machine, cvm_lab::tpm::Tpm) {
    let mut scene =
        Scene::new("workload", 20_443, "small.yaml", |line| eprintln!("{line}")).of_client();
    for old in ["parties", "exchange", "builder", "bundles", "packed", "work"] {
        let _ = fs::remove_dir_all(scene.root.join(old));
    }
    let work = folder(scene.root.join("work"));
    let config = work.join("cc_site-1.yml");
    let ours = format!(
        "docker_archive: {}\nallowed_ports: [{GUEST_PORT}]\nallowed_out_ports: [8002, 8003, 2049]\n\
         hosts_entries: {{server1: 10.0.2.2}}\nflare_cvm: {{allow_untested_nvflare: true}}\n",
        image(&work).display()
    );
    let theirs =
        fs::read_to_string(scene.repository.join("tests/demo/cc_site-1.yml")).expect("a cc_config");
    fs::write(&config, theirs + &ours).expect("a cc_config");
    scene.cc_config = Some(config);
    let (machine, tpm) = scene.sealed().expect("the scene");
    let p6 = folder(work.join("p6"));
    fs::write(p6.join("rows.csv"), ROWS[1]).expect("a file");
    scene.flare_cvm(&["data", &text(&machine.folder), &text(&p6)]).expect("p6");
    user_data(&work, &machine.folder.join("user_data.qcow2"));
    (scene, machine, tpm)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A file of the workload's, as its lines KEY=VALUE.
fn fetch(path: &str) -> Result<BTreeMap<String, String>> {
    let mut stream = TcpStream::connect(("127.0.0.1", PORT))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    write!(stream, "GET /{path} HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an HTTP answer")?;
    ensure!(head.contains(" 200 "), "{path}: {head}");
    Ok(body
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect())
}

/// Fetches a file until it is as wanted.
fn fetch_until(
    vm: &mut Vm,
    path: &str,
    wanted: impl Fn(&BTreeMap<String, String>) -> bool,
) -> Result<BTreeMap<String, String>> {
    let deadline = Instant::now() + BOOT_LIMIT;
    loop {
        let found = fetch(path);
        match found {
            Ok(found) if wanted(&found) => return Ok(found),
            found if Instant::now() > deadline => {
                bail!("no such {path} within {BOOT_LIMIT:?}, but {found:?}\n{}", vm.console.text())
            }
            _ => thread::sleep(Duration::from_millis(500)),
        }
    }
}

/// An NFS server that takes one call, never answers it, and is gone once the caller hung up.
fn silent_server() -> JoinHandle<io::Result<()>> {
    let listener = TcpListener::bind(("127.0.0.1", NFS)).expect("port 2049 of loopback");
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        loop {
            // QEMU tries whether somebody listens before it lets the guest through: that connection
            // brings nothing.
            let (mut stream, _) = listener.accept()?;
            let mut called = false;
            while stream.read(&mut bytes)? > 0 {
                called = true;
            }
            if called {
                return Ok(());
            }
        }
    })
}

/// What the guide promises, in the workload's own words.
const SAYS: [(&str, &str); 19] = [
    ("user", "990:990:990"),
    ("capabilities", "0000000000000000 0000000000000000"),
    ("no_new_privileges", "1"),
    ("seccomp", "2"),
    // The image's: Entrypoint and Cmd word by word, Env, WorkingDir.
    ("arguments", "acme 8080"),
    ("variable", "100 % of \"$HOME\""),
    ("folder", "/work"),
    // Its root is the image, in which the guest's own system does not show.
    ("root", "applog bin dev etc opt proc run sys tmp user_config user_data vault work"),
    ("opt", "/opt: nvflare /opt/nvflare: data"),
    ("run", "flare-cvm systemd"),
    (
        "kit",
        "client.crt client.key fed_client.json rootCA.pem signature.json start.sh stop_fl.sh \
         sub_start.sh",
    ),
    ("key", "1"),
    ("hosts", "10.0.2.2 server1"),
    ("user_data", ROWS[0]),
    ("p6", ROWS[1]),
    ("device", "cat: can't open '/user_data/zero': Permission denied"),
    ("agent", "socket"),
    // NVFLARE's own places, memory, and what the workload made.
    ("writable", "/applog /dev/shm /tmp /tmp/nvflare /tmp/nvflare/www /vault/workspace/nvflare"),
    ("executable", "/applog /vault/workspace/nvflare"),
];

#[test]
fn a_workload_runs_confined_with_its_sites_data_while_its_nfs_server_comes_and_goes() {
    let (scene, machine, tpm) = sealed();
    let silent = silent_server();
    let _holders = scene.holders().expect("both key holders");
    let mut vm =
        machine.start(&tpm, &format!("tcp:127.0.0.1:{PORT}-:{GUEST_PORT}")).expect("the machine");
    vm.handoff().expect("the handoff");
    let said = fetch_until(&mut vm, "report", |said| said.contains_key("complete"))
        .expect("the workload's report");
    for (key, expected) in SAYS {
        assert_eq!(said.get(key).map(String::as_str), Some(expected), "{key} in {said:#?}");
    }
    for key in ["program", "program_in_tmp"] {
        assert!(said[key].ends_with("Permission denied"), "{key} in {said:#?}");
    }

    let read = |code: &'static str| {
        move |answer: &BTreeMap<String, String>| answer.get("code").is_some_and(|c| c == code)
    };
    fetch_until(&mut vm, "nfs", read("1")).expect("nothing at /user_data/mnt");
    silent.join().expect("a server").expect("the guest calls its NFS server, and gives up");

    let work = scene.root.join("work/nfs");
    let data = folder(work.join("export"));
    fs::write(data.join("rows.csv"), ROWS[2]).expect("a file");
    let start = || {
        nfs::Server::start(&scene.repository.join("target/tools"), &work, &data, NFS)
            .expect("an NFS server")
    };
    let server = start();
    let answer = fetch_until(&mut vm, "nfs", read("0")).expect("the guest asks again");
    assert_eq!(answer["content"], ROWS[2]);
    drop(server);
    fetch_until(&mut vm, "nfs", read("1")).expect("a read from a server that is gone ends");
    let _server = start();
    fetch_until(&mut vm, "nfs", read("0")).expect("the same mount, once the server is back");
    vm.power_button().expect("an orderly end");
}

/// The boot above cannot tell a start that waits for the server from a machine that is slower than
/// the server's limit.
#[test]
fn nothing_waits_for_the_nfs_server() {
    const UNIT: &str = "user-data-nfs.service";
    let units = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../stages/nvflare_cc_base/rootfs/etc/systemd/system");
    let files = fs::read_dir(units).expect("the units").map(|entry| entry.expect("a unit").path());
    let mut seen = false;
    for path in files.filter(|path| path.is_file() && !path.is_symlink()) {
        let unit = fs::read_to_string(&path).expect("a unit");
        if path.ends_with(UNIT) {
            seen = true;
            assert!(!unit.contains("Before=") && unit.contains("TimeoutStartSec=90"), "{unit}");
        } else {
            assert!(!unit.contains(UNIT), "{} names {UNIT}", path.display());
        }
    }
    assert!(seen, "{UNIT} is there");
}
