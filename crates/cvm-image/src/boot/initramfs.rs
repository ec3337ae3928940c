//! The initramfs: `cvm-init`, the libraries and kernel modules that it needs, the builder's public
//! key, and nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
};

use cpio::newc;
use cvm_base::read_bounded;
use zstd::{bulk::Compressor, zstd_safe::CParameter};

use super::{BootError, libraries};
use crate::{WorkError, host};

/// The most bytes of the compressed archive.
pub const LIMIT: usize = 16_000_000;
/// About a second; the highest level takes ten times as long and saves a tenth.
const ZSTD_LEVEL: i32 = 12;
/// Where the builder's Ed25519 public key (32 raw bytes) is in the archive.
pub const BUILDER_KEY: &str = "/etc/flare-cvm/builder.pub";

/// What the archive is made of.
pub struct Sources<'a> {
    /// `cvm-init`'s ELF file.
    pub init: &'a Path,
    /// The kernel's release, such as `6.1.0-56-cloud-amd64`.
    pub kernel_release: &'a str,
    /// The text of `initramfs/modules.list`.
    pub modules: &'a str,
    /// Reads a file of the kernel's module folder by its path there: `modules.dep`,
    /// `modules.builtin`, `kernel/drivers/md/dm-mod.ko`. The error is a sentence for people.
    pub kernel_file: &'a dyn Fn(&str) -> Result<Vec<u8>, String>,
    /// The builder's Ed25519 public key.
    pub builder_public: &'a [u8; 32],
}

/// A finished initramfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Initramfs {
    /// The zstd-compressed cpio archive.
    pub archive: Vec<u8>,
    /// Every file in it with its size in bytes, in the archive's order; folders are left out.
    pub list: Vec<(String, usize)>,
}

impl fmt::Display for Initramfs {
    /// One line per file: size and path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.list.iter().try_for_each(|(path, bytes)| writeln!(f, "{bytes:>9} {path}"))
    }
}

/// Makes the archive; the same sources give the same bytes.
pub fn build(sources: &Sources) -> Result<Initramfs, BootError> {
    let mut files = libraries::closure(Path::new("/"), sources.init)?;
    files.insert("/init".into(), read_bounded(sources.init, 64 << 20)?);
    files.insert(BUILDER_KEY.into(), sources.builder_public.to_vec());
    for path in modules(sources)? {
        let bytes = (sources.kernel_file)(&path).map_err(|problem| refuse(&path, problem))?;
        files.insert(format!("/lib/modules/{}/{path}", sources.kernel_release), bytes);
    }

    let archive = compress(&pack(&files)).map_err(WorkError::io("compress", "the initramfs"))?;
    let list: Vec<(String, usize)> =
        files.into_iter().map(|(path, bytes)| (path, bytes.len())).collect();
    if archive.len() > LIMIT {
        let mut largest: Vec<_> = list.iter().collect();
        largest.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        let largest = largest
            .iter()
            .take(3)
            .map(|(path, bytes)| format!("{path} ({bytes})"))
            .collect::<Vec<_>>();
        return Err(BootError::InitramfsTooLarge {
            bytes: archive.len(),
            limit: LIMIT,
            largest: largest.join(", "),
        });
    }
    Ok(Initramfs { archive, list })
}

fn refuse(module: &str, problem: impl Into<String>) -> BootError {
    BootError::Modules { module: module.to_owned(), problem: problem.into() }
}

/// The files of the listed modules, after a check that each is listed below the modules that it
/// needs, and that this kernel has it, loadable or built in. A kernel may lack a module whose name
/// has a `?`.
fn modules(sources: &Sources) -> Result<Vec<String>, BootError> {
    let text = |file: &str| -> Result<String, BootError> {
        let bytes = (sources.kernel_file)(file).map_err(|problem| refuse(file, problem))?;
        String::from_utf8(bytes).map_err(|_| refuse(file, "it is not text"))
    };
    let dep = text("modules.dep")?;
    let loadable: BTreeMap<String, (&str, &str)> = dep
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(path, needed)| (module_name(path), (path, needed)))
        .collect();
    let builtin = text("modules.builtin")?;
    let builtin: BTreeSet<String> = builtin.lines().map(module_name).collect();

    let mut paths = Vec::new();
    let mut loaded = BTreeSet::new();
    let listed =
        sources.modules.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    for name in listed.filter(|name| !name.is_empty()) {
        let (name, optional) = name.strip_suffix('?').map_or((name, false), |name| (name, true));
        let key = module_name(name);
        if let Some(brings) = host::channel(&key) {
            return Err(refuse(name, format!("it brings {brings} to the guest's programs")));
        }
        let Some((path, needed)) = loadable.get(&key) else {
            if optional || builtin.contains(&key) {
                continue;
            }
            return Err(refuse(
                name,
                format!("kernel {} has no module of this name", sources.kernel_release),
            ));
        };
        if let Some(missing) =
            needed.split_whitespace().find(|path| !loaded.contains(&module_name(path)))
        {
            return Err(refuse(
                name,
                format!("it needs {}, which is not on a line above it", module_name(missing)),
            ));
        }
        if !path.ends_with(".ko") {
            return Err(refuse(
                name,
                format!("{path} is compressed; cvm-init loads plain .ko files only"),
            ));
        }
        if !loaded.insert(key) {
            return Err(refuse(name, "it is listed twice"));
        }
        paths.push((*path).to_owned());
    }
    Ok(paths)
}

/// `kernel/drivers/md/dm-mod.ko.xz` → `dm_mod`: the kernel's spelling.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

/// A cpio archive ("newc", what the kernel unpacks): sorted, owned by root, dated 1970.
fn pack(files: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    const FOLDER: u32 = 0o040_755;
    const PROGRAM: u32 = 0o100_755;
    const DATA: u32 = 0o100_644;
    const CONSOLE: u32 = 0o020_600;

    let mut folders = BTreeSet::from(["dev"]);
    for path in files.keys() {
        folders.extend(
            path.match_indices('/')
                .map(|(at, _)| &path[..at])
                .filter(|p| !p.is_empty())
                .map(|p| &p[1..]),
        );
    }
    let mut out = Vec::new();
    let mut ino = 0;
    let mut add = |name: &str, mode: u32, content: &[u8]| {
        ino += 1;
        let mut entry = newc::Builder::new(name).ino(ino).mode(mode).nlink(1);
        if mode == CONSOLE {
            entry = entry.rdev_major(5).rdev_minor(1);
        }
        let mut writer = entry.write(&mut out, content.len() as u32);
        let written = std::io::Write::write_all(&mut writer, content)
            .and_then(|()| writer.finish().map(drop));
        written.expect("a vector takes every write");
    };
    folders.iter().for_each(|folder| add(folder, FOLDER, &[]));
    add("dev/console", CONSOLE, &[]);
    for (path, content) in files {
        // The loader and its libraries need not be executable; /init must be.
        let mode = if path == "/init" || path.contains("/ld-linux") { PROGRAM } else { DATA };
        add(&path[1..], mode, content);
    }
    newc::trailer(&mut out).expect("a vector takes every write");
    out
}

fn compress(archive: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut compressor = Compressor::new(ZSTD_LEVEL)?;
    // Code repeats itself far apart and in short pieces: a twentieth less for a third of a second.
    // A window of 32 MiB is a quarter of what the kernel reads.
    compressor.set_parameter(CParameter::WindowLog(25))?;
    compressor.set_parameter(CParameter::MinMatch(4))?;
    compressor.compress(archive)
}

#[cfg(test)]
mod tests {
    use std::{io::Cursor, os::unix::fs::PermissionsExt};

    use cvm_base::Explain;

    use super::*;

    const DEP: &str = "kernel/md/dm-mod.ko:\nkernel/md/dm-bufio.ko: kernel/md/dm-mod.ko\n\
                       kernel/md/dm-verity.ko: kernel/md/dm-bufio.ko kernel/md/dm-mod.ko\n\
                       kernel/fs/zipped.ko.xz:\n";

    fn kernel_file(path: &str) -> Result<Vec<u8>, String> {
        match path {
            "modules.dep" => Ok(DEP.into()),
            "modules.builtin" => Ok(b"kernel/fs/ext4/ext4.ko\n".into()),
            path if path.ends_with(".ko") => Ok(path.into()),
            path => Err(format!("no {path}")),
        }
    }

    fn build_with(list: &str) -> Result<Initramfs, BootError> {
        build(&Sources {
            // Any small dynamically linked program serves as /init.
            init: Path::new("/bin/true"),
            kernel_release: "6.1.0-test",
            modules: list,
            kernel_file: &kernel_file,
            builder_public: &[7; 32],
        })
    }

    #[test]
    fn the_archive_holds_what_its_list_names_and_is_the_same_each_time() {
        let list = "# comment\n\ndm-mod # device mapper\ndm_bufio\next4\ndm-verity\n";
        let initramfs = build_with(list).unwrap();
        assert_eq!(build_with(list).unwrap(), initramfs);

        let archive = zstd::decode_all(Cursor::new(&initramfs.archive)).unwrap();
        let entries = cpio::NewcReader::new(Cursor::new(archive)).unwrap();
        let mut reader = entries;
        let mut files = Vec::new();
        while !reader.entry().is_trailer() {
            let entry = reader.entry();
            assert_eq!((entry.uid(), entry.gid(), entry.mtime()), (0, 0, 0));
            if std::fs::Permissions::from_mode(entry.mode()).mode() & 0o170_000 == 0o100_000 {
                files.push((format!("/{}", entry.name()), entry.file_size() as usize));
            }
            reader = cpio::NewcReader::new(reader.finish().unwrap()).unwrap();
        }
        assert_eq!(files, initramfs.list);
        for path in [
            "/init",
            BUILDER_KEY,
            "/lib64/ld-linux-x86-64.so.2",
            "/lib/modules/6.1.0-test/kernel/md/dm-verity.ko",
        ] {
            assert!(files.iter().any(|(name, _)| name == path), "{path}");
        }
        assert!(initramfs.to_string().contains("       32 /etc/flare-cvm/builder.pub\n"));
    }

    #[test]
    fn a_driver_that_a_kernel_may_lack_is_left_out() {
        let initramfs = build_with("dm-mod?\nnothing-like-it?").unwrap();
        assert!(initramfs.list.iter().any(|(name, _)| name.contains("dm-mod")));
        assert!(!initramfs.list.iter().any(|(name, _)| name.contains("nothing")));
    }

    #[test]
    fn a_list_that_does_not_fit_the_kernel_is_refused() {
        for (list, expected) in [
            ("dm-verity", "needs dm_bufio"),
            ("dm-bufio\ndm-mod", "needs dm_mod"),
            ("dm-mod\nnothing-like-it", "no module of this name"),
            ("dm-mod\ndm_mod", "listed twice"),
            ("zipped", "compressed"),
            ("dm-mod\nqemu-fw-cfg?", "fw_cfg to the guest's programs"),
            ("vsock", "sockets to the host"),
        ] {
            let error = build_with(list).unwrap_err();
            assert_eq!(error.code(), "BOOT-007");
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
