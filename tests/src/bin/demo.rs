//! `make demo`: from nothing to NVFLARE answering out of a sealed server CVM.

use std::{
    fs,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use cvm_lab::{say, scene::Scene, timeline::Timeline};

/// NVFLARE's port in the CVM and on this machine.
const PORT: u16 = 8002;
const READY_LIMIT: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    cvm_lab::shown(demo)
}

fn demo(started: Instant) -> Result<()> {
    let scene = Scene::new("demo", 7443, "default.yaml", |line| say(&format!("   {line}")));
    let head = |number, text: &str| {
        say(&format!("\n{number}. {text}   [{:.0} s]", started.elapsed().as_secs_f64()))
    };

    head(
        1,
        "Three stage images: hardened base, NVFLARE environment, the project's provisioned image",
    );
    scene.stages()?;
    let stages_s = started.elapsed().as_secs_f64();

    head(
        2,
        "Key ceremony: a model owner and a data owner sign one transcript; neither holds the whole \
         key",
    );
    let tpm = scene.tpm()?;
    scene.ceremony(&tpm)?;

    head(3, "NVFLARE's startup kits, and server1's sealed into a bundle");
    scene.kit()?;
    let before = Instant::now();
    scene.provision()?;
    let provision_s = before.elapsed().as_secs_f64();
    scene.enroll()?;

    head(4, "The two parties' key holders on loopback, with TLS; the host's virtual TPM");
    let mut holders = scene.holders()?;

    head(
        5,
        "launch_vm.sh: firmware, signed loader, UKI, cvm-init, attested release, p3 to p6, \
         systemd, NVFLARE",
    );
    let machine = cvm_lab::vm::Machine::of(&scene.bundle())?;
    let mut vm = machine.start(&tpm, &format!("tcp:127.0.0.1:{PORT}-:{PORT}"))?;
    let power_on = vm.console.started;
    vm.handoff()?;

    head(6, "From outside: NVFLARE's own admin API over the forwarded port");
    let status = scene.admin_status(PORT, READY_LIMIT).context("NVFLARE did not answer")?;
    let ready = Instant::now();
    say(&format!("   NVFLARE answers: {status}"));
    let timeline = Timeline::new(power_on, vm.console.output(), Some(ready));

    head(7, "The power button: an orderly end");
    vm.power_button()?;

    say("\nWhat was opened, with which key, from whom");
    for step in ["derive", "p3", "state", "jobs", "p4", "p6", "handoff"] {
        if let Some(text) = timeline.text(step) {
            say(&format!("   {step:8} {text}"));
        }
    }
    for holder in &mut holders.processes {
        say(&format!("\nKey holder's log\n{}", indent(&holder.text())));
    }
    say(&format!("Boot timeline\n{timeline}"));
    say(&format!("Sizes and times\n{}", sizes(&scene, stages_s, provision_s, &timeline)?));
    say(&format!(
        "The demo took {:.0} s. The bundle is {}",
        started.elapsed().as_secs_f64(),
        scene.bundle().display()
    ));
    Ok(())
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("   {line}\n")).collect()
}

fn sizes(scene: &Scene, stages_s: f64, provision_s: f64, timeline: &Timeline) -> Result<String> {
    use std::os::unix::fs::MetadataExt;
    let disk = fs::metadata(scene.bundle().join("disk.qcow2"))?;
    Ok(format!(
        "   stages {stages_s:.1} s (from the cache where nothing changed), provisioning {provision_s:.1} s\n   \
         disk.qcow2 {} MB on the host's disk, after its boots\n   cvm-init's first line to handoff: {} ms\n",
        disk.blocks() * 512 / 1_000_000,
        timeline.init_to_handoff().map_or("?".into(), |ms| ms.to_string()),
    ))
}
