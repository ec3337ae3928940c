//! A bundle's CVM, started the way a site starts it: by its `launch_vm.sh`.

use std::{
    fs,
    io::{Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    process::{Line, PATIENCE, Process},
    run,
    tpm::Tpm,
};

/// How long a boot under TCG may take before a test gives up; a bound against hanging, not a goal.
pub const BOOT_LIMIT: Duration = Duration::from_secs(300);
/// Files of a bundle that a machine needs beside its disk.
const FIRMWARE: [&str; 3] = ["OVMF_CODE.fd", "OVMF_VARS.fd", "launch_vm.sh"];

/// A site's machine: a bundle, or a copy-on-write twin of one.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Where its files lie.
    pub folder: PathBuf,
}

/// How a boot that must fail ended.
#[derive(Debug)]
pub struct Refusal {
    /// The `FC-nnn` on the console, if `cvm-init` ran.
    pub code: Option<String>,
    /// Everything on the console.
    pub console: String,
}

impl Machine {
    /// The machine in a bundle's folder.
    pub fn of(bundle: &Path) -> Result<Self> {
        Ok(Self { folder: std::path::absolute(bundle)? })
    }

    /// A twin whose disk starts as this one's; what it writes stays in `folder`.
    pub fn twin(&self, folder: &Path) -> Result<Self> {
        let folder = std::path::absolute(folder)?;
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        for name in FIRMWARE {
            fs::copy(self.folder.join(name), folder.join(name))?;
        }
        run(Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"])
            .arg(self.disk())
            .arg(folder.join("disk.qcow2")))?;
        Ok(Self { folder })
    }

    /// Its disk.
    pub fn disk(&self) -> PathBuf {
        self.folder.join("disk.qcow2")
    }

    /// Adds `arguments` to QEMU's, as the host can: the script is a file of the host's.
    pub fn attach(&self, arguments: &[String]) -> Result<()> {
        let script = self.folder.join("launch_vm.sh");
        let quoted: String =
            arguments.iter().map(|a| format!(" '{}'", a.replace('\'', r"'\''"))).collect();
        Ok(fs::write(&script, fs::read_to_string(&script)?.trim_end().to_owned() + &quoted + "\n")?)
    }

    /// Starts it. `forward` is QEMU's list, as `tcp:127.0.0.1:8002-:8002`.
    pub fn start(&self, tpm: &Tpm, forward: &str) -> Result<Vm> {
        let monitor = self.folder.join("monitor");
        let _ = fs::remove_file(&monitor);
        let console = Process::start_typing(
            "launch_vm.sh",
            Command::new(self.folder.join("launch_vm.sh"))
                .current_dir(&self.folder)
                .env("CVM_TPM_STATE", &tpm.state)
                .env("CVM_FORWARD", forward)
                .env("CVM_MONITOR", &monitor),
        )?;
        Ok(Vm { console, monitor })
    }

    /// Starts it, expecting that it powers itself off before handoff.
    pub fn refused(&self, tpm: &Tpm) -> Result<Refusal> {
        let mut vm = self.start(tpm, "")?;
        vm.console.wait_for(&["] handoff:", "reboot: Power down"], BOOT_LIMIT)?;
        let console = vm.console.text();
        ensure!(!console.contains("] handoff:"), "the boot went through to handoff:\n{console}");
        vm.console.wait(BOOT_LIMIT).context("a refused boot must end in a powered-off machine")?;
        let code = console
            .split_whitespace()
            .find(|w| w.starts_with("FC-"))
            .map(|w| w.trim_end_matches(':').to_owned());
        Ok(Refusal { code, console })
    }
}

/// A running CVM.
pub struct Vm {
    /// Its serial console.
    pub console: Process,
    monitor: PathBuf,
}

impl Vm {
    /// Waits until `cvm-init` has handed off to the sealed system.
    pub fn handoff(&mut self) -> Result<Line> {
        let line = self.console.wait_for(&["] handoff:", " FC-"], BOOT_LIMIT)?;
        if line.text.contains(" FC-") {
            // The rest of what it says: it powers the machine off.
            let _ = self.console.wait(PATIENCE);
            bail!("the boot failed: {}\n{}", line.text, self.console.text());
        }
        Ok(line)
    }

    /// Says `command` to QEMU's monitor; its answer.
    pub fn monitor(&self, command: &str) -> Result<String> {
        let mut monitor = UnixStream::connect(&self.monitor).context("QEMU's monitor")?;
        monitor.write_all(format!("{command}\n").as_bytes())?;
        monitor.shutdown(Shutdown::Write)?;
        let mut answer = Vec::new();
        monitor.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// Presses the power button and waits for the orderly end.
    pub fn power_button(&mut self) -> Result<()> {
        self.monitor("system_powerdown")?;
        let status = self.console.wait(BOOT_LIMIT).context("after the power button")?;
        ensure!(status.success(), "launch_vm.sh ended with {status}");
        Ok(())
    }
}
