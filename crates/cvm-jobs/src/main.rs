//! `cvm-jobs`: the part of `cvm-init`'s story that waits for GPUs where an image requires them, one
//! line per step. It runs once, as root, before NVFLARE may start; systemd answers its failure with
//! the lockdown.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::Path,
    process::ExitCode,
    time::Duration,
};

use cvm_collect::nvml::Nvml;
use cvm_init::{
    areas::{JudgedData, Workshop},
    attest::Platform,
    codes::{Code, Coded, Failure},
    console::{self, step},
    manifest,
    platform::{disk::Disk, wait},
    release::Exchange,
    site,
};
use cvm_jobs::Composite;
use cvm_layout::manifest::{KeyPurpose, Stage};

/// The builder's key, as `cvm-init` left it.
const BUILDER_KEY: &str = "/run/flare-cvm/image/builder.pub";
const CONFIG: &str = "/opt/nvflare/config";
/// In RAM, root's alone, in a folder where nobody else can make anything: the agent may write to
/// `/run/flare-cvm`.
const SCRATCH: &str = "/run/cvm-jobs";
/// Until the GPUs' driver has started; CC mode alone takes it some ten seconds for each GPU.
const DRIVER: Duration = Duration::from_secs(180);

fn main() -> ExitCode {
    console::called("cvm-jobs");
    match open() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // The site sees nothing but its console, and its machine is about to power off.
            console::open();
            console::failure(&failure);
            ExitCode::FAILURE
        }
    }
}

fn open() -> Result<(), Failure> {
    // The same documents that the boot believed, read and verified once more: the command line
    // still names them.
    let disk = Disk::find()?;
    let verified = manifest::read(&disk, BUILDER_KEY)?;
    let manifest = &verified.manifest;
    disk.equals(manifest)?;
    if manifest.stage_of(KeyPurpose::Jobs) != Stage::Running {
        return Err(Failure::new(
            Code::JobsOpen,
            "the boot of this image opens p5 and state itself",
        ));
    }
    let conf = site::read(Path::new(CONFIG), &verified)?;
    let holders = site::holders(&verified, &conf, Stage::Running)?;

    let mut gpus = wait::until(DRIVER, || Nvml::open(None)).code(Code::Gpu)?;
    let mut platform = Platform::find()?;
    step("devices", format_args!("{} and NVIDIA's driver", platform.describe()));
    let cpu = platform.attester(verified.collateral.as_ref())?;
    let evidence = Composite::new(&*cpu, &mut gpus)?;
    let exchange = Exchange::new(manifest, verified.manifest_sha256, Stage::Running)
        .release(&holders, &evidence)?
        .join()?
        .settle_running()?;
    let (keys, memories) = (exchange.header_keys()?, exchange.seal_memories());
    let data = JudgedData::judge(&disk, manifest, &keys, &memories)?;
    step(
        "guard",
        format_args!("p5 and state by {}, as the key holders remember them", exchange.data_from()),
    );
    make_scratch(Path::new(SCRATCH)).code_at(Code::JobsMake, SCRATCH)?;
    let workshop = Workshop { root: Path::new("/"), scratch: Path::new(SCRATCH) };
    let header = data.open_or_format(&exchange.data_keys()?, workshop)?;
    exchange.register(header)?;

    // From here on no key holder releases these halves again to this boot, by what is measured or
    // by what it remembers.
    drop(cpu);
    platform.measure_jobs()?;
    drop(keys);
    exchange.end()?;
    step("jobs", "measured, secrets wiped");
    gpus.make_ready().code(Code::Gpu)?;
    step("gpus", "attested, ready for work");
    fs::remove_dir(SCRATCH).code_at(Code::JobsMake, SCRATCH)
}

/// A new folder: this program does not know whose one is that lies there already.
fn make_scratch(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn attack_another_user_was_first_where_p5_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jobs");
        make_scratch(&path).unwrap();
        assert!(make_scratch(&path).is_err(), "a folder that is there");
        symlink(&path, folder.path().join("link")).unwrap();
        symlink("/nonexistent", folder.path().join("dangling")).unwrap();
        assert!(make_scratch(&folder.path().join("link")).is_err(), "a link to one");
        assert!(
            make_scratch(&folder.path().join("dangling")).is_err(),
            "a link to where one could be made"
        );
        // The agent's group may write to /run/flare-cvm.
        let rules =
            include_str!("../../../stages/nvflare_cc_base/rootfs/etc/tmpfiles.d/nvflare.conf");
        let shared = rules
            .lines()
            .filter(|line| line.contains(" 1775 "))
            .filter_map(|line| line.split(' ').nth(1));
        assert!(shared.clone().count() > 0);
        assert!(
            shared.into_iter().all(|shared| !Path::new(SCRATCH).starts_with(shared)),
            "{SCRATCH}"
        );
    }
}
