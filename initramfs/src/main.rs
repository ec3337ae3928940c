//! PID 1 of the initramfs: the boot story, a line a step.
//!
//! Any failure is fatal: secrets are dropped (and so wiped), a stable code goes to the console, the
//! power goes off. There is no shell, no retry into a weaker mode, no "continue".

use std::{convert::Infallible, path::Path};

use cvm_init::{
    areas,
    codes::Failure,
    console::{self, step},
    handoff, manifest, net,
    platform::{
        disk::Disk,
        kernel::{self, Power},
        modules,
    },
    release::Exchange,
    self_check, site, tpm,
    volumes::{self, guest_path},
};
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
    let (image, role, site) = (manifest.image_id, manifest.role, &manifest.site);
    step("manifest", format_args!("image {image} of {role} {site}, SHA-256 {}", verified.manifest_sha256));
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

    // Every header is judged before anything is opened.
    let memories = exchange.memories()?;
    let remembered: Vec<_> = memories.iter().map(|(_, memory)| *memory).collect();
    let root = volumes::guard_root(&disk, &keys.system)?;
    let state = areas::judge_state(&disk, manifest, &keys.state, &remembered)?;
    let jobs = areas::judge_jobs(&disk, &keys.jobs, &remembered)?;
    step("guard", "p3's header is authentic; p5 and state are what the key holders remember");
    for (name, memory) in &memories {
        step("memory", format_args!("{name} {memory}"));
    }
    volumes::open_root(&disk, manifest, &root, &keys.system)?;
    step("p3", format_args!("opened with key `system` from {}; system and site under verity", keys.system.from));
    state.open(&keys.state, &guest_path("/opt/nvflare/state"), MsFlags::empty())?;
    let header = jobs.open(&keys.jobs, &guest_path("/opt/nvflare/jobs"), MsFlags::MS_NOEXEC)?;
    if jobs.is_new() {
        exchange.register(&memories, header)?;
    }
    handoff::bind_state()?;
    volumes::open_data(&disk)?;
    step("p6", "attached read-only");
    handoff::move_mount(Path::new(CONFIG), &guest_path("/opt/nvflare/config"))?;
    handoff::write_settings(&conf, &card, &lease)?;

    // Once the handoff is measured no key holder answers this boot; only then does the system start.
    let from = format!("p3 by {}, p5 by {}", keys.system.from, keys.jobs.from);
    tpm::measure_handoff(tpm)?;
    drop(keys);
    exchange.end()?;
    drop(holders);
    step("handoff", format_args!("{from}; measured, secrets wiped, starting systemd"));
    handoff::switch_root()
}
