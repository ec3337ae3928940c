//! PID 1 of the initramfs: the boot story, a line a step.
//!
//! Any failure is fatal: secrets are dropped (and so wiped), a stable code goes to the console, the
//! power goes off. There is no shell, no retry into a weaker mode, no "continue".

use std::{convert::Infallible, path::Path};

use cvm_init::{
    codes::Failure,
    console::{self, step},
    handoff, manifest, net,
    platform::{
        disk::Disk,
        kernel::{self, Power},
        modules,
    },
    release::{Derived, Exchange, Keys},
    seal_plan::{Memory, Plan, seal_plan},
    self_check, site, tpm,
    volumes::{self, Area, guest_path},
};
use cvm_layout::names::Name;
use nix::mount::MsFlags;

/// Where p4 is mounted until the system volume is there.
const CONFIG: &str = "/config";

fn main() {
    console::end_on_panic(Power);
    let Err(failure) = boot();
    console::end(&Power, &failure);
}

fn boot() -> Result<Infallible, Failure> {
    kernel::mount_interfaces()?;
    console::open();
    step("start", format_args!("cvm-init {}", env!("CARGO_PKG_VERSION")));
    let loaded = modules::load()?;
    step("modules", loaded);
    self_check::known_answers()?;
    step("self-test", "X25519, HKDF-SHA256 and AES-256 give the known answers");
    let mut tpm = tpm::open()?;
    let disk = Disk::find()?;
    step("devices", format_args!("TPM 2.0, disk with six partitions"));

    // Nothing on the disk is believed before the manifest, and the manifest only by its digest in
    // the measured command line and by the builder's signature.
    let verified = manifest::read(&disk)?;
    let manifest = &verified.manifest;
    step(
        "manifest",
        format_args!(
            "image {} of {} {}, SHA-256 {}",
            manifest.image_id, manifest.role, manifest.site, verified.manifest_sha256
        ),
    );
    self_check::own_code(manifest.init_code_sha256)?;
    step("self-check", "the code in memory is the builder's");
    disk.equals(manifest)?;
    step("partitions", "as in the manifest");
    let bytes = volumes::check_boot(&disk, &verified.boot)?;
    step("p2", format_args!("verified, {} KiB", bytes / 1024));
    let bytes = volumes::open_config(&disk, &manifest.config, Path::new(CONFIG))?;
    step("p4", format_args!("verified, {} KiB", bytes / 1024));
    let conf = site::read(Path::new(CONFIG), &verified)?;

    let (card, lease) = net::up(&conf.network)?;
    handoff::write_resolver(&lease)?;
    step("network", format_args!("{}: {}", card.name, lease));
    let holders = site::holders(&verified, &conf)?;
    let evidence = tpm::Evidence::prepare(&mut tpm)?;
    step("attest", format_args!("asking {} key holders at once", holders.len()));
    let exchange = Exchange::new(manifest, verified.manifest_sha256).release(&holders, &evidence)?;
    let (exchange, keys) = exchange.derive()?;
    step("derive", format_args!("keys `system` and `state` from {}, `jobs` from {}", keys.system.from, keys.jobs.from));
    drop(evidence);

    volumes::open_root(&disk, manifest, &keys.system)?;
    step("p3", format_args!("opened with key `system` from {}; system and site under verity", keys.system.from));
    open_or_make(&exchange, &keys, &Area::state(&disk, manifest)?, &Area::jobs(&disk))?;
    handoff::bind_state()?;
    volumes::open_data(&disk)?;
    step("p6", "attached read-only");
    handoff::move_mount(Path::new(CONFIG), &guest_path("/opt/nvflare/config"))?;
    handoff::write_settings(&conf, &card, &lease)?;

    // Once the handoff is measured no key holder answers this boot; only then may others' code run.
    let from = format!("p3 opened by {}, p5 by {}", keys.system.from, keys.jobs.from);
    tpm::measure_handoff(tpm)?;
    drop(keys);
    exchange.end()?;
    drop(holders);
    step("handoff", format_args!("{from}; measured, secrets wiped, starting systemd"));
    handoff::switch_root()
}

/// Opens `state` and p5 or, on the first boot only, makes them; then the key holders remember p5.
fn open_or_make(exchange: &Exchange<Derived>, keys: &Keys, state: &Area, jobs: &Area) -> Result<(), Failure> {
    let memories = exchange.memories()?;
    for (name, memory) in &memories {
        step("seal", format_args!("{name} {memory}"));
    }
    let (seen_state, seen_jobs) = (state.inspect(&keys.state)?, jobs.inspect(&keys.jobs)?);
    // Both are decided before either is touched.
    let jobs_plan = seal_plan(seen_jobs.state, &only_memory(&memories));
    let state_plan = seal_plan(seen_state.state, &without_digest(&memories));
    let (opened, _) = state.carry_out(state_plan, &seen_state, &keys.state)?;
    state.mount(&opened, &guest_path("/opt/nvflare/state"), MsFlags::empty())?;
    let (opened, digest) = jobs.carry_out(jobs_plan, &seen_jobs, &keys.jobs)?;
    jobs.mount(&opened, &guest_path("/opt/nvflare/jobs"), MsFlags::MS_NOEXEC)?;
    if jobs_plan != Plan::Open {
        exchange.register(&memories, digest)?;
    }
    Ok(())
}

fn only_memory(memories: &[(&Name, Memory)]) -> Vec<Memory> {
    memories.iter().map(|(_, memory)| *memory).collect()
}

/// The key holders remember p5's header and not `state`'s: for `state`, that it was made.
fn without_digest(memories: &[(&Name, Memory)]) -> Vec<Memory> {
    let strip = |memory| if matches!(memory, Memory::Sealed(_)) { Memory::Sealed(None) } else { memory };
    only_memory(memories).into_iter().map(strip).collect()
}
