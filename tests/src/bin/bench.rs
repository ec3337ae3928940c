//! `make bench`: the figures of README, measured in one run, as a table.

use std::{
    fs,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use cvm_lab::{
    scene::Scene,
    timeline::Timeline,
    vm::{BOOT_LIMIT, Machine},
};

const PORT: u16 = 28_002;

fn main() -> ExitCode {
    match bench() {
        Ok(rows) => {
            println!("\n| figure | measured |\n|---|---|");
            rows.iter().for_each(|(what, value)| println!("| {what} | {value} |"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

type Rows = Vec<(String, String)>;

fn bench() -> Result<Rows> {
    let mut rows = Rows::new();
    let mut scene = Scene::new("bench", 27_443, "default.yaml", |line| eprintln!("{line}"));
    if scene.root.exists() {
        fs::remove_dir_all(&scene.root)?;
    }
    // Images of its own, so that nothing is taken from the cache.
    scene.images = scene.root.join("images");
    fs::create_dir_all(&scene.images)?;
    let tpm = scene.tpm()?;
    let seconds = |work: &dyn Fn() -> Result<()>| -> Result<f64> {
        let start = Instant::now();
        work()?;
        Ok(start.elapsed().as_secs_f64())
    };
    rows.push((
        "cold build of the three stages".into(),
        format!("{:.0} s", seconds(&|| scene.stages())?),
    ));
    scene.ceremony(&tpm)?;
    scene.kit()?;
    let first = seconds(&|| scene.provision())?;
    rows.push((
        "provisioning the first site, Secure Boot keys included".into(),
        format!("{first:.1} s"),
    ));
    let mut arguments = scene.provision_arguments(&scene.root.join("another"));
    arguments.push("--json".into());
    let start = Instant::now();
    let made = scene.flare_cvm(&arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
    let another = start.elapsed().as_secs_f64();
    rows.push(("provisioning one more site from cached stages".into(), format!("{another:.1} s")));
    let made: serde_json::Value = serde_json::from_str(&made).context("provision's JSON")?;
    for (key, what) in [
        ("disk_bytes", "disk.qcow2 as provisioned"),
        ("uki_bytes", "signed UKI: kernel, initramfs, command line"),
        ("initramfs_bytes", "initramfs, compressed, with kernel modules"),
    ] {
        let bytes = made[key].as_f64().with_context(|| format!("{key} in provision's JSON"))?;
        rows.push((what.into(), format!("{:.1} MB", bytes / 1e6)));
    }
    scene.enroll()?;
    boots(&scene, &mut rows, "10 GiB p5", true)?;

    let small = Scene { layout: "small.yaml", ..scene };
    fs::remove_dir_all(small.bundle())?;
    small.provision()?;
    small.enroll()?;
    boots(&small, &mut rows, "100 MiB p5", false)?;
    Ok(rows)
}

/// A first boot, and where asked a second one with NVFLARE's answer.
fn boots(scene: &Scene, rows: &mut Rows, p5: &str, again: bool) -> Result<()> {
    let tpm = scene.tpm()?;
    let _holders = scene.holders()?;
    let machine = Machine::of(&scene.bundle())?;
    let boots = if again { &["first boot", "second boot"][..] } else { &["first boot"] };
    for boot in boots {
        let mut vm = machine.start(&tpm, &format!("tcp:127.0.0.1:{PORT}-:8002"))?;
        vm.handoff()?;
        let ready = again
            .then(|| scene.admin_status(PORT, BOOT_LIMIT))
            .transpose()?
            .map(|_| Instant::now());
        let timeline = Timeline::new(vm.console.started, vm.console.output(), ready);
        eprintln!("{p5}, {boot}\n{timeline}");
        let ms = timeline.init_to_handoff().context("no handoff on the console")?;
        rows.push((
            format!("cvm-init start to handoff, {p5}, {boot}"),
            format!("{:.1} s", ms as f64 / 1000.0),
        ));
        if let Some(ms) = timeline.duration("jobs") {
            rows.push((format!("of it p5 ({p5}, {boot})"), format!("{:.1} s", ms as f64 / 1000.0)));
        }
        if let Some((_, ms)) = timeline.phases.last().filter(|_| again) {
            rows.push((
                format!("power-on to NVFLARE's answer, {boot}"),
                format!("{:.0} s", *ms as f64 / 1000.0),
            ));
        }
        std::thread::sleep(Duration::from_secs(if again { 0 } else { 20 }));
        vm.power_button()?;
    }
    Ok(())
}
