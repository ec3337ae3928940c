//! PID 1 of the initramfs: the boot story, one line per step. Each chapter reports its own step on
//! the console.
//!
//! Any failure is fatal: secrets are dropped (and so wiped), a stable code goes to the console, the
//! power goes off. There is no shell, no retry into a weaker mode, no "continue".

use std::{convert::Infallible, path::Path};

use cvm_init::{
    areas::{JudgedData, Workshop},
    attest::Platform,
    codes::Failure,
    console::{self, step},
    handoff, machine, manifest, net,
    platform::{
        disk::Disk,
        host,
        kernel::{self, Power},
        modules, sysctl,
    },
    release::Exchange,
    root::{self, GuardedRoot},
    self_check, site, volumes,
};
use cvm_layout::manifest::Stage;

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
    let card_defaults = sysctl::apply()?;
    modules::load(card_defaults)?;
    host::is_silent()?;
    self_check::known_answers()?;
    let mut platform = Platform::open()?;
    let disk = Disk::find()?;
    step("devices", format_args!("{}, disk with six partitions", platform.describe()));

    // Nothing on the disk is believed before the manifest, and the manifest only by its digest in
    // the measured command line and by the builder's signature.
    let verified = manifest::read(&disk, manifest::BUILDER_KEY)?;
    let manifest = &verified.manifest;
    self_check::own_code(manifest.init_code_sha256)?;
    disk.equals(manifest)?;
    volumes::check_boot(&disk, &verified.boot)?;
    volumes::open_config(&disk, &manifest.config, Path::new(CONFIG))?;
    let conf = site::read(Path::new(CONFIG), &verified)?;
    let opened_early = root::open_with_kept_key(&disk, manifest, platform.keeper()?)?;

    let (card, lease) = net::up(&conf.network)?;
    handoff::write_resolver(&lease)?;
    let holders = site::holders(&verified, &conf, Stage::Boot)?;
    let exchange = Exchange::new(manifest, verified.manifest_sha256, Stage::Boot)
        .release(&holders, &*platform.attester(verified.collateral.as_ref())?)?
        .join()?;
    drop(holders);

    // Every header is judged before anything is opened with a key that was released. Those of p5
    // and `state` prove the machine's part in their keys.
    let system = exchange.system_keys()?;
    step("derive", format_args!("key `system` from {}", system.from));
    let guarded = GuardedRoot::guard(&disk, system)?;
    let (exchange, data) = machine::settle(platform.keeper()?, exchange, |keys, memories| {
        JudgedData::judge(&disk, manifest, keys, memories)
    })?;
    let from = format!("p3 by {}, state and p5 by {}", guarded.from(), exchange.data_from());
    step("guard", format_args!("every header that this boot opens is judged: {from}"));
    let root = opened_early.map_or_else(|| guarded.open(&disk, manifest, &exchange), Ok)?;
    if let Some(data) = data {
        let header = data.open_or_format(&exchange.data_keys()?, Workshop::of_boot(&root))?;
        exchange.register(header)?;
    }
    let attestation_keys = exchange.attestation_keys()?;
    machine::keep_system(platform.keeper()?, &exchange)?;
    root.attach_data(&disk)?;
    root.move_mount(Path::new(CONFIG), "/opt/nvflare/config")?;
    handoff::write_settings(&conf, &card, &lease)?;
    handoff::write_image(&verified, &attestation_keys)?;

    // From here on no key holder answers this boot, by what is measured or by what it remembers;
    // only then does the system start.
    let measured = platform.measure_handoff()?;
    let ended = exchange.end()?;
    step("handoff", format_args!("{from}; measured, secrets wiped, starting systemd"));
    handoff::switch_root(root, measured, ended)
}
