//! `/init` of the guest that `tests/it/guest.rs` boots twice: makes and opens real devices, attacks
//! them as a host would, prints how long it took, and powers off.
//!
//! vda (10 GiB) and vdb (100 MiB) are blank at the first boot; vdc holds an area that the host
//! sealed.

use std::{
    error::Error,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    path::Path,
    process::Command,
    time::Instant,
};

use cvm_layout::manifest::RootPartition;
use cvm_seal::{
    DiskKey, MacKey, SealError,
    guard::{self, Expected, GuardedHeader, Protection, record},
    guest::{self, Access, Slice, mkfs},
};
use devicemapper::{DM, DevId, DmFlags, DmName, DmOptions};
use nix::{
    kmod::{ModuleInitFlags, finit_module},
    mount::{MsFlags, mount, umount},
    sys::reboot::{RebootMode, reboot},
};

type Check = Result<(), Box<dyn Error>>;
const DISKS: [(&str, &str); 2] = [("/dev/vda", "large"), ("/dev/vdb", "small")];
const KEY: [u8; 32] = [7; 32];
const MAC: [u8; 32] = [8; 32];

fn main() {
    // The firmware left its last line unfinished.
    println!();
    let outcome = prepare().and_then(|first| if first { first_boot() } else { second_boot() });
    match outcome {
        Ok(()) => println!("guest check: passed"),
        Err(error) => println!("guest check: FAILED: {error}"),
    }
    // Neither sync nor unmount: the second boot must find a journal to replay.
    let _ = reboot(RebootMode::RB_POWER_OFF);
}

fn prepare() -> Result<bool, Box<dyn Error>> {
    for (kind, folder) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/run"),
        ("", "/mnt"),
    ] {
        fs::create_dir_all(folder)?;
        if !kind.is_empty() {
            mount(Some(kind), folder, Some(kind), MsFlags::empty(), None::<&str>)?;
        }
    }
    for module in fs::read_to_string("/modules")?.lines() {
        if let Err(error) = finit_module(File::open(module)?, c"", ModuleInitFlags::empty()) {
            // ENODEV: a driver for instructions that this processor lacks.
            println!("module {module}: {error}");
        }
    }
    Ok(fs::read_to_string("/proc/cmdline")?.contains("first"))
}

fn first_boot() -> Check {
    for (device, name) in DISKS {
        let start = Instant::now();
        let make = |image: &Path| {
            println!("{name}: formatted and open after {} ms", start.elapsed().as_millis());
            let mut command = Command::new("/sbin/mke2fs");
            command.args(mkfs::arguments(image, fs::metadata(image)?.len(), (990, 990)));
            let good = command.envs(mkfs::ENVIRONMENT.iter().copied()).status()?.success();
            println!("{name}: mke2fs done after {} ms", start.elapsed().as_millis());
            if good { Ok(()) } else { Err(io::Error::other("mke2fs failed")) }
        };
        let (disk, scratch) = (Path::new(device), Path::new("/run/scratch"));
        let (path, header) = guest::create_authenticated(
            name,
            disk,
            &DiskKey::new(&KEY),
            &MacKey::new(&MAC),
            scratch,
            make,
        )?;
        println!("{name}: made in {} ms; header {}", start.elapsed().as_millis(), header.digest());
        let (mapped, mut end) = (File::open(&path)?, vec![0; 1 << 20]);
        let length = (&mapped).seek(SeekFrom::End(0))?;
        for offset in [0, length - end.len() as u64] {
            mapped.read_exact_at(&mut end, offset)?;
        }
        drop(mapped);
        let table = DM::new()?.table_status(
            &DevId::Name(DmName::new(name)?),
            DmOptions::default().set_flags(DmFlags::DM_STATUS_TABLE),
        )?;
        require(
            format!("{table:?}").contains(" :96:logon:cryptsetup:"),
            "root can read the volume key",
        )?;
        mount_ext4(&path)?;
        fs::write("/mnt/kept", name)?;
        umount("/mnt")?;
        guest::close(name)?;
        mount_ext4(&open(device, name)?)?;
        // Leave a file that is only in the journal when the power goes; unmount nothing.
        File::create("/mnt/journal")
            .and_then(|mut file| file.write_all(name.as_bytes()).and(file.sync_all()))?;
    }
    Ok(())
}

fn second_boot() -> Check {
    for (device, name) in DISKS {
        let start = Instant::now();
        let path = open(device, name)?;
        println!("{name}: opened in {} ms", start.elapsed().as_millis());
        mount_ext4(&path)?;
        for file in ["/mnt/kept", "/mnt/journal"] {
            require(fs::read(file)? == name.as_bytes(), "a file lost its content")?;
        }
        if name == "small" {
            fill()?;
        }
        umount("/mnt")?;
        let fsck = Command::new("/sbin/e2fsck").args(["-f", "-n"]).arg(&path).output()?;
        print!("{}", String::from_utf8_lossy(&fsck.stdout));
        require(fsck.status.success(), "e2fsck found errors")?;
        guest::close(name)?;
    }
    attacks()?;
    sealed_area()
}

/// Writes until the file system is full.
fn fill() -> Check {
    let (start, mut file, mut length) = (Instant::now(), File::create("/mnt/full")?, 0);
    while file.write_all(&[0x5a; 65536]).is_ok() {
        length += 64;
    }
    file.sync_all()?;
    println!("small: {length} KiB written in {} ms", start.elapsed().as_millis());
    fs::write("/proc/sys/vm/drop_caches", "3")?;
    Ok(())
}

/// What a host does to a disk that it owns.
fn attacks() -> Check {
    let disk = OpenOptions::new().read(true).write(true).open("/dev/vdb")?;
    let mut sector = [0; 4096];
    disk.read_exact_at(&mut sector, 50 << 20)?;
    sector[2048] ^= 1;
    disk.write_all_at(&sector, 50 << 20)?;
    disk.sync_all()?;
    mount_ext4(&open("/dev/vdb", "small")?)?;
    require(read_all("/mnt/full")? == Some(nix::libc::EIO), "a changed sector is not EIO")?;
    umount("/mnt")?;
    guest::close("small")?;

    let stranger = guest::read_header(Path::new("/dev/vdc"), 0)?;
    let ours = guest::read_header(Path::new("/dev/vdb"), 0)?;
    let mut unfinished = ours.clone();
    unfinished[record::OFFSET..].fill(0);
    for (bytes, name) in
        [(stranger, "p3's header"), (unfinished, "no record"), (vec![0; ours.len()], "blank")]
    {
        disk.write_all_at(&bytes, 0)?;
        match header("/dev/vdb", Protection::Authenticated) {
            Err(SealError::Guard(refused)) => println!("attack: {name}: refused: {refused}"),
            other => return Err(format!("attack: {name}: {other:?}").into()),
        }
    }
    disk.write_all_at(&ours, 0)?;
    let header = header("/dev/vdb", Protection::Authenticated)?;
    let wrong = guest::open_sealed("small", Path::new("/dev/vdb"), &header, &DiskKey::new(&MAC));
    require(matches!(wrong, Err(SealError::WrongKey { .. })), "another key opens the area")
}

fn sealed_area() -> Check {
    let root: RootPartition = serde_json::from_slice(&fs::read("/root.json")?)?;
    let slice = Slice { device: Path::new("/dev/vdc"), offset: 0, length: root.sealed_bytes };
    let area = guest::linear("area", slice, Access::ReadOnly)?;
    let header = header("/dev/vdc", Protection::Encrypted)?;
    let opened = guest::open_sealed("root", &area, &header, &DiskKey::new(&KEY))?;
    require(
        OpenOptions::new()
            .write(true)
            .open(&opened)
            .and_then(|f| f.write_at(&[0; 512], 0))
            .is_err(),
        "p3 is writable",
    )?;
    let volumes = [("system", &root.system), ("site", &root.site)];
    for (name, volume) in volumes {
        let start = Instant::now();
        let path = guest::open_verity(name, &opened, volume.offset, &volume.verity)?;
        let found = fs::read(&path).map(|bytes| cvm_base::sha256(&bytes));
        println!("{name}: opened and read in {} ms", start.elapsed().as_millis());
        require(
            found? == cvm_base::sha256(&fs::read(format!("/{name}.plain"))?),
            "verity gives another content",
        )?;
        guest::close(name)?;
    }
    // XTS alone takes a changed sector for another content; verity does not.
    let disk = OpenOptions::new().write(true).open("/dev/vdc")?;
    disk.write_all_at(&[0; 512], (1 << 20) + root.site.offset)?;
    disk.sync_all()?;
    guest::close("root")?;
    let opened = guest::open_sealed("root", &area, &header, &DiskKey::new(&KEY))?;
    let site = guest::open_verity("site", &opened, root.site.offset, &root.site.verity)?;
    require(fs::read(site).is_err(), "verity passes a changed block")
}

fn header(device: &str, protection: Protection) -> Result<GuardedHeader, SealError> {
    let bytes = guest::read_header(Path::new(device), 0)?;
    Ok(guard::check(&bytes, &Expected::new(protection), &MacKey::new(&MAC))?)
}

fn open(device: &str, name: &str) -> Result<std::path::PathBuf, SealError> {
    let header = header(device, Protection::Authenticated)?;
    println!("{name}: header {}", header.digest());
    guest::open_sealed(name, Path::new(device), &header, &DiskKey::new(&KEY))
}

fn mount_ext4(path: &Path) -> nix::Result<()> {
    mount(Some(path), "/mnt", Some("ext4"), MsFlags::empty(), None::<&str>)
}

/// Reads a file to its end; the first error's number, if any.
fn read_all(path: &str) -> io::Result<Option<i32>> {
    let (mut file, mut buffer) = (File::open(path)?, vec![0; 65536]);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(error) => return Ok(error.raw_os_error()),
        }
    }
}

fn require(good: bool, what: &'static str) -> Check {
    if good { Ok(()) } else { Err(what.into()) }
}
