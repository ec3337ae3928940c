//! PID 1 of the initramfs: the boot story, a line a step.
//!
//! Any failure is fatal: secrets are dropped (and so wiped), a stable code goes to the console, the
//! power goes off. There is no shell, no retry into a weaker mode, no "continue".

use std::{convert::Infallible, path::Path};

use cvm_ceremony::split_key::MachineSecret;
use cvm_init::{
    areas::{Data, Workshop},
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
    self_check, site, tpm,
    volumes::{self, guest_path},
};
use cvm_layout::manifest::{KeyPurpose, Stage};

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
    // Before the network card's module: a card begins with the defaults.
    sysctl::apply()?;
    let loaded = modules::load()?;
    step("modules", loaded);
    host::is_silent()?;
    step(
        "host",
        "no program sees SMBIOS, fw_cfg, EFI variables, VSOCK, USB or a folder of the host's",
    );
    self_check::known_answers()?;
    step("self-test", "X25519, HKDF-SHA256 and AES-256 give the known answers");
    let mut platform = Platform::open()?;
    let disk = Disk::find()?;
    step("devices", format_args!("{}, disk with six partitions", platform.describe()));

    // Nothing on the disk is believed before the manifest, and the manifest only by its digest in
    // the measured command line and by the builder's signature.
    let verified = manifest::read(&disk, manifest::BUILDER_KEY)?;
    let manifest = &verified.manifest;
    let (image, role, site) = (manifest.image_id, manifest.role, &manifest.site);
    step(
        "manifest",
        format_args!("image {image} of {role} {site}, SHA-256 {}", verified.manifest_sha256),
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
    // Where its owners let this machine keep p3's key, p3 needs nobody's answer. A copy that the
    // header does not prove is none.
    let kept = machine::recall_system(platform.keeper()?, &image)?;
    let kept = kept.and_then(|system| match volumes::guard_root(&disk, &system) {
        Ok(root) => Some((root, system)),
        Err(Failure { detail, .. }) => {
            step("machine", format_args!("asking for p3's key, the TPM's copy is none: {detail}"));
            None
        }
    });
    if let Some((root, system)) = &kept {
        volumes::open_root(&disk, manifest, root, system)?;
        step(
            "p3",
            format_args!(
                "opened with key `system` from {}; system and site under verity",
                system.from
            ),
        );
    }

    let (card, lease) = net::up(&conf.network)?;
    handoff::write_resolver(&lease)?;
    step("network", format_args!("{}: {}", card.name, lease));
    let holders = site::holders(&verified, &conf, Stage::Boot)?;
    let evidence = platform.attester(verified.collateral.as_ref())?;
    step("attest", format_args!("asking {} key holders at once", holders.len()));
    let exchange = Exchange::new(manifest, verified.manifest_sha256, Stage::Boot)
        .release(&holders, &*evidence)?;
    let exchange = exchange.derive()?;
    let system = exchange.system()?;
    step("derive", format_args!("key `system` from {}", system.from));
    drop(evidence);
    let mut remembered = exchange.remembered()?;
    let memories: Vec<_> = remembered.iter().map(|r| r.memory).collect();

    // Every header is judged before anything is opened with a key that was released; p5's proves
    // the third factor.
    let root = volumes::guard_root(&disk, &system)?;
    let judge = |machine: Option<&MachineSecret>| {
        Data::judge(&disk, manifest, exchange.data(machine)?, &memories)
    };
    let data = match manifest.stage_of(KeyPurpose::Jobs) {
        Stage::Boot => Some(machine::settle(platform.keeper()?, &image, &mut remembered, judge)?),
        // A TPM gives back what it keeps to the boot alone, so that what opens later cannot need
        // it.
        Stage::Running => None,
    };
    let data_from = data
        .as_ref()
        .map_or("nobody yet: they wait for GPUs", |(data, _)| data.parties())
        .to_owned();
    step("guard", format_args!("p3's header is authentic; p5 and state by {data_from}"));
    for holder in &remembered {
        step("memory", format_args!("{} {}", holder.name, holder.memory));
    }
    if kept.is_none() {
        volumes::open_root(&disk, manifest, &root, &system)?;
        step(
            "p3",
            format_args!(
                "opened with key `system` from {}; system and site under verity",
                system.from
            ),
        );
    }
    if let Some((data, machine)) = &data {
        let header = data.open(Workshop::of_boot())?;
        exchange.register(&remembered, header, machine.as_ref())?;
    }
    let attestation_keys = exchange.attestation_keys()?;
    machine::keep_system(platform.keeper()?, manifest, &remembered, &exchange.system_secret()?)?;
    volumes::open_data(&disk)?;
    step("p6", "attached read-only");
    handoff::move_mount(Path::new(CONFIG), &guest_path("/opt/nvflare/config"))?;
    handoff::write_settings(&conf, &card, &lease)?;
    handoff::write_image(&verified, &tpm::event_log()?, &attestation_keys)?;

    // From here on no key holder answers this boot, by what is measured or by what it remembers;
    // only then does the system start.
    let from = format!("p3 by {}, state and p5 by {data_from}", system.from);
    platform.measure_handoff()?;
    drop((system, kept, data, remembered));
    exchange.end()?;
    drop(holders);
    step("handoff", format_args!("{from}; measured, secrets wiped, starting systemd"));
    handoff::switch_root()
}
