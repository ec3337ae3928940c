//! Everything that a host can say to a running guest beside the disk, the network and the clock,
//! all at once: the guest must come up, serve, and end, with nothing of it done or shown.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    thread::{self, JoinHandle},
};

use anyhow::Result;
use cvm_lab::{
    host::{self, fw_cfg, smbios_string},
    scene::text,
    vm::{BOOT_LIMIT, Machine, Vm},
};

use super::{PORT, READY_LIMIT, lab};

/// What made a host root in a guest: systemd-tmpfiles made a unit and a udev rule of it. It prints
/// `PWNED`.
const TMPFILES: &str = include_str!("../../vectors/host-smbios/tmpfiles.extra");
/// The credentials that units and programs of systemd 252 name, and of the versions after it.
const CREDENTIALS: &[(&str, &str)] = &[
    ("tmpfiles.extra", TMPFILES),
    ("sysctl.extra", "kernel.printk = 8 8 8 8\nkernel.sysrq = 1\n"),
    ("login.motd", "PWNED"),
    ("login.issue", "PWNED"),
    ("network.hosts", "10.0.2.2 overseer\n"),
    ("ssh.authorized_keys.root", "ssh-ed25519 AAAA host"),
    ("passwd.hashed-password.root", ""),
    ("passwd.plaintext-password.root", "PWNED"),
    ("passwd.shell.root", "/usr/bin/bash"),
    ("sysusers.extra", "u pwned 4242 - /root /usr/bin/bash\n"),
    ("firstboot.hostname", "pwned"),
    ("firstboot.locale", "C"),
    ("wol.password", "00:00:00:00:00:01"),
    ("vmm.notify_socket", "vsock-stream:2:9999"),
    ("fstab.extra", "share /opt/nvflare/logs 9p trans=virtio 0 0\n"),
    ("network.conf.host", "[Network]\n"),
    ("network.network.00-host", "[Match]\nName=*\n[Network]\nIPv6AcceptRA=yes\n"),
    ("network.link.00-host", "[Match]\nOriginalName=*\n[Link]\nName=pwned\n"),
    (
        "udev.rules.00-host",
        "SUBSYSTEM==\"net\", RUN+=\"/usr/bin/bash -c 'echo PWNED >/dev/ttyS0'\"\n",
    ),
    ("journal.forward_to_socket", "vsock:2:9999"),
    ("system.hostname", "pwned"),
    ("system.machine_id", "11111111111111111111111111111111"),
    ("getty.auto", "yes"),
    ("getty.ttys.serial", "ttyS1"),
    ("ssh.listen", "vsock::22"),
    ("shell.prompt.prefix", "PWNED"),
    (
        "systemd.extra-unit.x.service",
        "[Service]\nExecStart=/usr/bin/bash -c 'echo PWNED >/dev/ttyS0'\n",
    ),
    (
        "systemd.unit-dropin.nvflare.service~host",
        "[Service]\nExecStartPre=+/usr/bin/bash -c 'echo PWNED >/dev/ttyS0'\n",
    ),
];
/// What a kernel command line would say; a stub of systemd 254 and later, and its boot loader, take
/// it from SMBIOS.
const SWITCHES: &str = "systemd.import_credentials=yes systemd.log_target=console systemd.log_level=debug \
                        systemd.show_status=yes systemd.debug_shell=ttyS1 systemd.unit=host.service sysrq_always_enabled";

/// QEMU has room for a few files.
const FW_CFG: [&str; 4] =
    ["tmpfiles.extra", "sysctl.extra", "fstab.extra", "systemd.extra-unit.x.service"];
/// A second serial console and one of virtio's.
const CONSOLES: [(&str, &str); 2] = [("second", "isa-serial"), ("third", "virtconsole")];

/// Every channel as QEMU's arguments; files of the host's lie in `folder`, `stick` is a second disk
/// with the bundle's partitions, names and labels.
fn everything(folder: &Path, stick: &Machine) -> Result<Vec<String>> {
    fs::create_dir_all(folder.join("share"))?;
    let file = |name: &str| text(&folder.join(name));
    let mut arguments = Vec::new();
    for (name, content) in CREDENTIALS {
        let (plain, string) = (folder.join(name), folder.join(format!("{name}.string")));
        fs::write(&plain, content)?;
        fs::write(&string, format!("io.systemd.credential:{name}={content}"))?;
        arguments.extend(["-smbios".into(), format!("type=11,path={}", string.display())]);
        if FW_CFG.contains(name) {
            arguments.extend(fw_cfg(&format!("opt/io.systemd.credentials/{name}"), &plain));
        }
    }
    for of in ["stub", "boot"] {
        arguments
            .extend(smbios_string(&format!("io.systemd.{of}.kernel-cmdline-extra={SWITCHES}")));
    }
    // A machine's name and number, as systemd would take its machine id from, and cloud-init its
    // orders.
    arguments.extend(["-smbios".into(), "type=0,vendor=PWNED,version=PWNED,uefi=on".into()]);
    let machine = "uuid=11111111-1111-1111-1111-111111111111,serial=ds=nocloud;s=http://10.0.2.2/";
    arguments
        .extend(["-smbios".into(), format!("type=1,manufacturer=PWNED,product=PWNED,{machine}")]);
    // Folders of the host's, consoles that somebody types at, and a stick that is the disk's twin.
    let share = format!("local,id=share,path={},security_model=none,readonly=on", file("share"));
    arguments.extend(["-fsdev".into(), share]);
    arguments.extend(["-device".into(), "virtio-9p-pci,fsdev=share,mount_tag=share".into()]);
    arguments.extend(["-device".into(), "virtio-serial-pci".into()]);
    for (id, device) in CONSOLES {
        arguments.extend([
            "-chardev".into(),
            format!("socket,id={id},path={},server=on,wait=off", file(id)),
        ]);
        arguments.extend(["-device".into(), format!("{device},chardev={id}")]);
    }
    let stick = format!("if=none,id=stick,format=qcow2,file={}", stick.disk().display());
    arguments.extend(["-device".into(), "qemu-xhci".into(), "-drive".into(), stick]);
    arguments.extend(["-device".into(), "usb-storage,drive=stick".into()]);
    Ok(arguments)
}

/// Types at a console of the machine; everything that it shows comes at the machine's end.
fn type_at(socket: &Path) -> JoinHandle<String> {
    let mut console = UnixStream::connect(socket).expect("QEMU's console");
    console.write_all(b"\nroot\n\nid; echo PWNED\n").expect("what is typed");
    thread::spawn(move || {
        let mut shown = Vec::new();
        let _ = console.read_to_end(&mut shown);
        String::from_utf8_lossy(&shown).into_owned()
    })
}

/// SysRq by the keyboard and by a break on the serial console: `7` shows the kernel's log on it.
fn sysrq(vm: &mut Vm) -> Result<()> {
    vm.monitor("sendkey alt-sysrq-7")?;
    vm.monitor("chardev-send-break serial0")?;
    vm.console.type_in("7")
}

#[test]
fn attack_everything_that_a_host_can_say_to_a_running_guest() {
    let mut lab = lab();
    let sealed = lab.sealed();
    let (machine, stick) =
        (lab.twin(&sealed, "host-channels"), lab.twin(&sealed, "host-channels-stick"));
    let folder = machine.folder.join("host");
    machine.attach(&everything(&folder, &stick).expect("the host's files")).expect("the script");
    let store = machine.folder.join("OVMF_VARS.fd");
    host::plant_variable(&store, "SystemdOptions", &host::SYSTEMD, SWITCHES).expect("a variable");

    let _holders = lab.holders();
    let mut vm =
        machine.start(&lab.tpm, &format!("tcp:127.0.0.1:{PORT}-:8002")).expect("the machine");
    vm.console.wait_for(&["] modules:"], BOOT_LIMIT).expect("cvm-init's first steps");
    let consoles = CONSOLES.map(|(id, _)| (id, type_at(&folder.join(id))));
    sysrq(&mut vm).expect("the host's keyboard");
    vm.handoff().expect("nothing of it keeps the machine from its keys");
    let status = lab.scene.admin_status(PORT, READY_LIMIT).expect("NVFLARE's status");
    assert!(status["server_status"].is_string(), "{status}");
    sysrq(&mut vm).expect("the host's keyboard");
    // Whoever answers has had time to listen to it.
    lab.scene.admin_status(PORT, READY_LIMIT).expect("NVFLARE's status once more");
    let console = vm.console.text();
    assert!(console.contains("] host:"), "cvm-init has looked for the host's channels:\n{console}");
    let running = console.lines().skip_while(|line| !line.contains("] handoff:")).skip(1);
    let said: Vec<&str> = running.filter(|line| !line.trim().is_empty()).collect();
    assert!(said.is_empty(), "the console must be silent after the handoff, but says {said:?}");
    // The payload of the found attack runs now.
    vm.power_button().expect("an orderly end");
    let console = vm.console.text();
    for never in ["PWN", "sysrq: ", "systemd[1]"] {
        assert!(!console.contains(never), "{never:?} in\n{console}");
    }
    for (id, shown) in consoles {
        let shown = shown.join().expect("what the guest wrote there");
        for never in ["PWNED", "login", "cvm-init", "systemd", "Linux"] {
            assert!(!shown.contains(never), "the {id} console shows {never:?}:\n{shown}");
        }
    }
}
