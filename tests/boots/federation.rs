//! A federation of three sealed CVMs at work, and every way in which one of them can fail it.
//!
//! One federation serves several steps, in order: starting three machines under emulation takes
//! minutes.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use cvm_ceremony::split_key::{Purpose, combine};
use cvm_lab::{
    federation::{FL_PORT, Federation, Running, attest_port, drill},
    offline::{self, Area},
    process::Process,
    run,
    vm::BOOT_LIMIT,
};
use cvm_layout::manifest::Manifest;
use serde_json::{Value, json};

/// How long a job may take under TCG.
const JOB_LIMIT: Duration = Duration::from_secs(900);
/// A check period of the example's CC manager and agents, and what stopping takes under TCG.
const STOP_LIMIT: Duration = Duration::from_secs(900);

type Step = fn(&Federation, &mut Running) -> Result<()>;

#[test]
fn a_federation_trains_and_keeps_its_jobs() {
    steps(&[
        ("a relying party attests each node", attested),
        (
            "the sealed job trains; a job with code and a researcher's download are refused",
            training,
        ),
        ("the job store survives a reboot of the server", reboot),
        ("what a job leaves at a client opens with nobody's half alone", left_behind),
    ]);
}

/// `make drills`: half an hour under emulation.
#[test]
#[ignore = "half an hour under emulation: make drills"]
fn a_federation_stops_when_one_fails() {
    steps(&in_turn(&[
        ("a key holder is gone: what runs keeps running, the next boot refuses", key_holder_gone),
        (
            "attack: a replayed token, and a peer that claims another's name",
            attack_a_replayed_token_and_another_name,
        ),
        ("attack: an agent is killed", attack_a_killed_agent),
        ("attack: a client's register is extended at run time", attack_an_extended_register),
        (
            "attack: a server without our CVM that holds valid certificates",
            attack_a_server_without_a_cvm,
        ),
    ]));
}

/// `make drills`: some 40 minutes under emulation; three of them where CI runs it in turn.
#[test]
#[ignore = "ten starts under emulation: make drills"]
fn ten_cold_starts_in_a_row_come_up() {
    let cold_starts = if only().is_some() { three_cold_starts } else { ten_cold_starts };
    steps(&[("every site is switched off and on, time after time", cold_starts)]);
}

/// The one step that `scripts/drill.sh` chose for this run.
fn only() -> Option<String> {
    env::var("FLARE_CVM_DRILL").ok()
}

/// That step, or all.
fn in_turn(steps: &[(&'static str, Step)]) -> Vec<(&'static str, Step)> {
    let only = only().unwrap_or_default();
    let chosen: Vec<_> = steps.iter().filter(|(name, _)| name.contains(&only)).copied().collect();
    assert!(!chosen.is_empty(), "no step is named {only:?}");
    chosen
}

fn steps(steps: &[(&str, Step)]) {
    let federation = Federation::new("federation-test", 17_643, |line| eprintln!("{line}"))
        .expect("the federation");
    let federation = federation.with_drills();
    for old in ["bundles", "agreement.txt", "project"] {
        let path = federation.scene.root.join(old);
        let _ = std::fs::remove_dir_all(&path).or_else(|_| std::fs::remove_file(&path));
    }
    federation.sealed().expect("sealed bundles");
    let mut running = federation.start().expect("a running federation");
    for (name, step) in steps {
        eprintln!("== {name}");
        if let Err(error) = step(&federation, &mut running) {
            let sites: Vec<_> = ["server1", "site-1", "site-2"]
                .into_iter()
                .map(|site| (site, state(site)))
                .collect();
            panic!("{name}: {error:#}\n{sites:#?}");
        }
    }
}

/// What a site's own system says of its services.
fn state(site: &str) -> String {
    let line = "systemctl --no-pager --plain --no-legend list-units --all 'nvflare*' 'cvm-*'; \
        journalctl --no-pager -n 60 2>&1";
    drill(site, line).unwrap_or_else(|error| format!("{error:#}"))
}

fn attested(federation: &Federation, _: &mut Running) -> Result<()> {
    for site in ["server1", "site-1", "site-2"] {
        let verdict = federation.attest(attest_port(site)).context(site)?;
        ensure!(verdict.contains(site), "{verdict}");
    }
    Ok(())
}

fn training(federation: &Federation, _: &mut Running) -> Result<()> {
    let (job, result) = watched("site-1", || federation.train(JOB_LIMIT))?;
    for site in ["site-1", "site-2"] {
        let accuracy = result["accuracy"][site].as_f64().context("an accuracy")?;
        // The start weights put every biopsy into one class: 0.37.
        ensure!(accuracy > 0.85, "{site}: {result}");
    }
    federation.byoc_refused(JOB_LIMIT)?;
    federation.download_refused(&job).map(drop)
}

/// Where NVFLARE of a site can leave something while this works: nowhere but on what opens with all
/// halves, and in memory.
fn watched<T>(site: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    const OF_OTHERS: [&str; 7] = ["nfs", "nfs4", "cifs", "9p", "virtiofs", "fuse", "overlay"];
    let in_namespace = |what: &str| {
        drill(site, &format!("cd /proc/$(systemctl show -P MainPID nvflare)/ && {what}"))
    };
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut names = BTreeSet::new();
            while !ended.load(Ordering::Relaxed) {
                // Under load a guest answers late; what it has then is listed with the next answer.
                let list = in_namespace("shopt -s globstar dotglob && printf '%s\\n' root/tmp/**")
                    .unwrap_or_default();
                let in_memory = |line: &&str| {
                    line.starts_with("root/tmp/") && !line.starts_with("root/tmp/nvflare/")
                };
                names.extend(list.lines().filter(in_memory).map(str::to_owned));
                thread::sleep(Duration::from_secs(3));
            }
            names
        });
        let done = work();
        ended.store(true, Ordering::Relaxed);
        let done = done?;
        let names = watch.join().map_err(|_| anyhow::anyhow!("the watch ended early"))?;
        eprintln!("in memory, of {site}'s NVFLARE: {names:#?}");
        ensure!(names.contains("root/tmp/"), "nothing was listed");

        // What is mounted by the number of a mapping is known by the mapping's name.
        let mappings =
            drill(site, "for d in /sys/block/dm-*; do echo /dev/${d##*/} $(cat $d/dm/name); done")?;
        let mappings: BTreeMap<_, _> =
            mappings.lines().filter_map(|line| line.split_once(' ')).collect();
        let mounts = in_namespace("cat mountinfo")?;
        let mut written = BTreeSet::new();
        for line in mounts.lines() {
            let (left, right) =
                line.split_once(" - ").with_context(|| format!("a mount: {line}"))?;
            let (options, mut fields) =
                (left.split(' ').nth(5).unwrap_or_default(), right.split(' '));
            let (kind, source) =
                (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
            if options.split(',').any(|option| option == "rw") {
                ensure!(!OF_OTHERS.contains(&kind), "{site}'s NVFLARE can write to {line}");
                written.extend(
                    source.starts_with("/dev/").then(|| *mappings.get(source).unwrap_or(&source)),
                );
            }
        }
        let sealed = BTreeSet::from(["cvm-jobs", "cvm-state"]);
        ensure!(written == sealed, "{site}'s NVFLARE can write to {written:?} of\n{mounts}");
        Ok(done)
    })
}

/// A client's disk after a job, in the hands of one party, of both, and of nobody.
fn left_behind(federation: &Federation, running: &mut Running) -> Result<()> {
    let jobs = federation.admin(JOB_LIMIT, &["jobs"])?;
    let jobs: Vec<_> = jobs["jobs"]
        .as_array()
        .context("jobs")?
        .iter()
        .filter_map(|job| job["job"].as_str())
        .collect();
    ensure!(!jobs.is_empty(), "there was a job");
    let vm = running.site("site-1")?;
    let console = vm.console.text();
    let said = console
        .lines()
        .skip_while(|line| !line.contains("] handoff:"))
        .skip(1)
        .find(|l| !l.trim().is_empty());
    ensure!(said.is_none(), "the console says {said:?} after the handoff");
    vm.power_button()?;

    let (machine, folder) = (federation.machine("site-1")?, federation.scene.root.join("offline"));
    let manifest: Manifest =
        serde_json::from_slice(&std::fs::read(machine.folder.join("manifest.json"))?)?;
    let parties = manifest
        .split_key
        .parties
        .iter()
        .map(|party| federation.half_of(party.name.as_str(), &manifest));
    let parties = parties.collect::<Result<Vec<_>>>()?;
    let mut of_jobs = 0;
    for (purpose, holds) in [
        (Purpose::State, ["agent/", "logs/", "workspace/"].as_slice()),
        (Purpose::Jobs, &["nvflare/"]),
    ] {
        let area = Area::of(&machine, &manifest, purpose, &folder)?;
        for (party, half) in &parties {
            for key in offline::keys_of_one(party, half, &manifest, purpose)? {
                ensure!(!area.opens(&key)?, "{} alone opens {purpose}", party.card().name);
            }
        }
        let halves: Vec<_> = parties.iter().map(|(_, half)| half).collect();
        let key = combine(&manifest.split_key.transcript, &halves, purpose, &manifest.image_id)?;
        let files = area.files(key.as_bytes())?;
        eprintln!("on {purpose} of site-1: {:#?}", files.keys());
        for name in holds {
            ensure!(files.contains_key(*name), "{name} is missing in {:?}", files.keys());
        }
        let of_a_job = |(name, text): &(&String, &Vec<u8>)| {
            jobs.iter().any(|job| {
                name.contains(job) || text.windows(job.len()).any(|part| part == job.as_bytes())
            })
        };
        of_jobs += files.iter().filter(of_a_job).count();
    }
    ensure!(
        of_jobs > 0,
        "a client that trained has nothing of {jobs:?}: the search would find nothing either"
    );
    for job in jobs {
        let found = offline::read_in_clear(&machine, job.as_bytes(), &folder)?;
        ensure!(found.is_empty(), "job {job} can be read in partitions {found:?}");
    }
    Ok(std::fs::remove_dir_all(folder)?)
}

fn reboot(federation: &Federation, running: &mut Running) -> Result<()> {
    let before = federation.admin(JOB_LIMIT, &["jobs"])?;
    federation.reboot_server(running)?;
    let after = federation.admin(JOB_LIMIT, &["jobs"])?;
    ensure!(
        before["jobs"] == after["jobs"]
            && after["jobs"].as_array().is_some_and(|jobs| !jobs.is_empty()),
        "{before}, then {after}"
    );
    federation.registered().map(drop)
}

fn ten_cold_starts(federation: &Federation, running: &mut Running) -> Result<()> {
    cold_starts(federation, running, 10)
}

fn three_cold_starts(federation: &Federation, running: &mut Running) -> Result<()> {
    cold_starts(federation, running, 3)
}

fn cold_starts(federation: &Federation, running: &mut Running, rounds: u32) -> Result<()> {
    for round in 1..=rounds {
        all_off(running).with_context(|| format!("before cold start {round}"))?;
        let begin = Instant::now();
        federation.start_sites(running).with_context(|| format!("cold start {round}"))?;
        eprintln!(
            "cold start {round}: both clients registered {:.0} s after power-on",
            begin.elapsed().as_secs_f64()
        );
    }
    Ok(())
}

fn key_holder_gone(federation: &Federation, running: &mut Running) -> Result<()> {
    running.holders.retain(|(party, _)| *party != "hospital-2");
    federation.train(JOB_LIMIT)?;
    running.site("site-2")?.power_button()?;
    let refusal = federation.machine("site-2")?.refused(federation.tpm("site-2"))?;
    ensure!(refusal.code.as_deref() == Some("FC-401"), "{}", refusal.console);
    running.holders.push(("hospital-2", federation.holder("hospital-2")?));
    restart(federation, running, "site-2")
}

/// site-2's agent is asked to believe what site-1's made for it: once, and as site-1's.
fn attack_a_replayed_token_and_another_name(
    federation: &Federation,
    _: &mut Running,
) -> Result<()> {
    let certificate = "ab".repeat(32);
    let agent = |site: &str, mut request: Value| -> Result<Value> {
        request["v"] = json!(1);
        let answer = drill(site, &format!("agent {request}"))?;
        serde_json::from_str(&answer).with_context(|| format!("{site} answered {answer:?}"))
    };
    let challenge = |peer: &str| -> Result<Value> {
        Ok(agent("site-2", json!({ "op": "challenge", "peer": peer }))?["challenge"].clone())
    };
    let verify = |token: &Value, name: &str, challenge: &Value| {
        let role = if name == "server1" { "server" } else { "client" };
        let peer = json!({ "name": name, "role": role, "tls_cert_sha256": certificate });
        agent(
            "site-2",
            json!({ "op": "verify", "token": token, "peer": peer, "challenge": challenge }),
        )
    };
    let open = challenge("site-1")?;
    let made = agent(
        "site-1",
        json!({ "op": "generate", "challenge": open, "tls_cert_sha256": certificate }),
    )?;
    let token = &made["token"];
    let first = verify(token, "site-1", &open)?;
    ensure!(first["verified"] == true, "{first}");
    for (name, challenge, code) in [
        // The challenge was answered once; another one is not this token's; nor is another site's
        // name.
        ("site-1", open.clone(), "AGT-015"),
        ("site-1", challenge("site-1")?, "AGT-014"),
        ("server1", challenge("server1")?, "AGT-013"),
        ("site-2", challenge("site-2")?, "AGT-013"),
    ] {
        let answer = verify(token, name, &challenge)?;
        ensure!(
            answer["ok"] == false && answer["code"] == code,
            "as {name}, expected {code}: {answer}"
        );
    }
    federation.registered().map(drop)
}

fn attack_a_killed_agent(federation: &Federation, running: &mut Running) -> Result<()> {
    for _ in 0..2 {
        let main = "systemctl show --property=MainPID --value cvm-agent.service";
        let killed = drill("site-2", main)?;
        drill("site-2", "systemctl kill --signal=KILL cvm-agent.service")?;
        another("site-2", main, &killed)?;
    }
    running
        .site("site-2")?
        .console
        .wait(STOP_LIMIT)
        .context("a site without its agent must power off")?;
    // NVFLARE gives the others up to one check period; then no site goes on.
    for site in ["server1", "site-1"] {
        stopped(site)?;
    }
    all_again(federation, running)
}

fn attack_an_extended_register(federation: &Federation, running: &mut Running) -> Result<()> {
    ensure!(drill("site-1", "extend 12")? == "extended", "the register was not extended");
    running
        .site("site-1")?
        .console
        .wait(STOP_LIMIT)
        .context("a site that fails its own check must power off")?;
    for site in ["server1", "site-2"] {
        stopped(site)?;
    }
    all_again(federation, running)
}

/// NVFLARE's own server program with the server's whole kit, on this machine instead of in a CVM.
fn attack_a_server_without_a_cvm(federation: &Federation, running: &mut Running) -> Result<()> {
    running.site("server1")?.power_button()?;
    let kit = federation.scene.root.join("rogue");
    let _ = std::fs::remove_dir_all(&kit);
    run(Command::new("cp").arg("-r").arg(federation.kit("server1")).arg(&kit))?;
    for file in std::fs::read_dir(kit.join("local"))?.flatten() {
        if file.file_name().to_string_lossy().ends_with("__p_resources.json") {
            std::fs::remove_file(file.path())?;
        }
    }
    // In a CVM the logs have a place of their own.
    let logs = kit.join("applog");
    std::fs::create_dir(&logs)?;
    let config = kit.join("local/log_config.json.default");
    let text =
        std::fs::read_to_string(&config)?.replace("\"/applog", &format!("\"{}", logs.display()));
    std::fs::write(&config, text)?;
    let mut server = Command::new("bash");
    server
        .arg(kit.join("startup/sub_start.sh"))
        .arg("--once")
        .env("PATH", format!("{}:/usr/bin:/bin", federation.scene.nvflare("").display()));
    let _server = Process::start("a server without a CVM", server.current_dir(&kit))?;
    for site in ["site-1", "site-2"] {
        stopped(site).with_context(|| {
            format!("a client must not work with a server without a CVM (port {FL_PORT})")
        })?;
    }
    // It is this server that they refused: it had let them in.
    let log = std::fs::read_to_string(logs.join("log.txt")).context("the server's log")?;
    for site in ["site-1", "site-2"] {
        ensure!(
            log.contains(&format!("New client {site}@")),
            "{site} never came to the server without a CVM: {log}"
        );
    }
    Ok(())
}

/// Waits until a CVM answers `line` with another process's number than `before`, or has powered
/// off.
fn another(site: &str, line: &str, before: &str) -> Result<()> {
    let begin = Instant::now();
    loop {
        match drill(site, line) {
            Ok(answer) if [before.trim(), "0", ""].contains(&answer.trim()) => {}
            _ => return Ok(()),
        }
        ensure!(
            begin.elapsed() < STOP_LIMIT,
            "{site} has neither another process than {before} nor powered off in {STOP_LIMIT:?}"
        );
        thread::sleep(Duration::from_secs(2));
    }
}

/// Waits until NVFLARE has stopped in a CVM.
fn stopped(site: &str) -> Result<()> {
    let begin = Instant::now();
    loop {
        // A CVM that powered off answers nothing.
        match drill(site, "systemctl is-active nvflare.service") {
            Ok(answer) if answer.trim() == "active" || answer.trim() == "activating" => {}
            _ => return Ok(()),
        }
        ensure!(begin.elapsed() < STOP_LIMIT, "NVFLARE of {site} still runs after {STOP_LIMIT:?}");
        thread::sleep(Duration::from_secs(2));
    }
}

/// Starts one site again and waits until the federation is whole.
fn restart(federation: &Federation, running: &mut Running, site: &'static str) -> Result<()> {
    *running.site(site)? = federation.boot(&federation.machine(site)?, site)?;
    running.site(site)?.handoff()?;
    // The server may still believe in the site's registration of before.
    works(site)?;
    federation.registered().map(drop)
}

/// Waits until NVFLARE has started in a CVM.
fn works(site: &str) -> Result<()> {
    let begin = Instant::now();
    loop {
        let state = drill(site, "systemctl is-active nvflare.service");
        if state.as_ref().is_ok_and(|state| state.trim() == "active") {
            return Ok(());
        }
        ensure!(
            begin.elapsed() < BOOT_LIMIT,
            "NVFLARE of {site} has not started after {BOOT_LIMIT:?}: {state:?}"
        );
        thread::sleep(Duration::from_secs(2));
    }
}

/// Every site anew, as after a federation that stopped.
fn all_again(federation: &Federation, running: &mut Running) -> Result<()> {
    all_off(running)?;
    federation.start_sites(running)
}

fn all_off(running: &mut Running) -> Result<()> {
    for (_, vm) in running.sites.iter_mut().rev() {
        if vm.power_button().is_err() {
            vm.console.wait(BOOT_LIMIT)?;
        }
    }
    running.sites.clear();
    Ok(())
}
