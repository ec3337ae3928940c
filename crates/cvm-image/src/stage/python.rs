//! The Python environment: every wheel by its SHA-256, installed by the guest's own Python.

use std::{fs, path::Path, process::Command};

use super::{StageError, edits, spec::PythonSpec, wheel::Wheel};
use crate::{WorkError, tool};

/// Where wheels lie in the tree while they are installed.
const WHEELS: &str = ".flare-cvm-wheels";
/// The platforms of wheels that run with glibc 2.36.
const PLATFORMS: [&str; 6] = [
    "manylinux_2_34_x86_64",
    "manylinux_2_28_x86_64",
    "manylinux_2_17_x86_64",
    "manylinux2014_x86_64",
    "manylinux_2_12_x86_64",
    "manylinux_2_5_x86_64",
];

/// One line of a lock file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Locked<'a> {
    name: &'a str,
    version: &'a str,
    line: &'a str,
}

/// Makes the environment in `tree` and gives its packages as `NAME==VERSION`; `own` is the wheel of
/// `python.local`.
///
/// The build machine's pip only downloads. What installs is the pip that the lock file names, run
/// by the guest's Python in the tree; it stays out of the environment, as does this machine's
/// Python.
pub(super) fn install(
    python: &PythonSpec,
    lock: &str,
    own: Option<&Wheel>,
    tree: &Path,
) -> Result<Vec<String>, StageError> {
    let bad = |problem| StageError::Spec { path: python.lock.clone(), problem };
    let locked = parse(lock).map_err(bad)?;
    // Its digest was computed when it was built: pip checks it like the others.
    let own_locked = own.map(|own| line(&own.line)).transpose().map_err(bad)?.flatten();
    let interpreter = interpreter(tree)?;
    let wheels = tree.join(WHEELS);
    fs::create_dir_all(&wheels).map_err(WorkError::io("make", &wheels))?;
    if let Some(own) = own {
        fs::write(wheels.join(&own.file), &own.bytes)
            .map_err(WorkError::io("write", wheels.join(&own.file)))?;
    }
    let result = install_from(python, &locked, own_locked.as_ref(), &interpreter, tree, &wheels);
    fs::remove_dir_all(&wheels).map_err(WorkError::io("remove", &wheels))?;
    result?;
    let patterns: Vec<String> =
        python.remove.iter().map(|pattern| format!("{}/{pattern}", python.venv)).collect();
    edits::remove(tree, &patterns)?;
    compile(tree, &python.venv, &interpreter)?;
    Ok(locked
        .iter()
        .chain(&own_locked)
        .filter(|l| l.name != "pip")
        .map(|l| format!("{}=={}", l.name, l.version))
        .collect())
}

fn install_from(
    python: &PythonSpec,
    locked: &[Locked],
    own: Option<&Locked>,
    interpreter: &str,
    tree: &Path,
    wheels: &Path,
) -> Result<(), StageError> {
    let write = |name: &str, lines: &mut dyn Iterator<Item = &str>| {
        let path = wheels.join(name);
        let text: String = lines.map(|line| format!("{line}\n")).collect();
        fs::write(&path, text).map_err(WorkError::io("write", &path))?;
        Ok::<_, StageError>(path)
    };
    let download = write("download.txt", &mut locked.iter().map(|l| l.line))?;
    write(
        "install.txt",
        &mut locked.iter().chain(own).filter(|l| l.name != "pip").map(|l| l.line),
    )?;

    let mut command = tool::command("pip");
    // What an interrupted pip leaves is removed with the wheels.
    command.env("TMPDIR", wheels);
    command.args(["download", "--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:"]);
    command.args(["--disable-pip-version-check", "--no-input", "--implementation", "cp"]);
    command.args(["--python-version", interpreter.trim_start_matches("python")]);
    command.args(PLATFORMS.iter().flat_map(|platform| ["--platform", platform]));
    command.arg("--dest").arg(wheels).arg("-r").arg(download);
    tool::run("pip", "downloading the locked wheels", command)?;

    let mut venv = in_tree(tree);
    venv.args(["/usr/bin/python3", "-m", "venv", "--without-pip", &python.venv]);
    tool::run("chroot", "making the Python environment", venv)?;
    let pip = locked
        .iter()
        .find(|l| l.name == "pip")
        .map(|l| format!("/{WHEELS}/pip-{}-py3-none-any.whl/pip", l.version));
    let mut command = in_tree(tree);
    command.arg(format!("{}/bin/python", python.venv)).arg(pip.unwrap_or_default());
    command.args([
        "install",
        "--quiet",
        "--no-compile",
        "--no-index",
        "--no-deps",
        "--require-hashes",
    ]);
    command
        .arg("--find-links")
        .arg(format!("/{WHEELS}"))
        .arg("-r")
        .arg(format!("/{WHEELS}/install.txt"));
    tool::run("chroot", "installing the locked wheels", command)?;
    Ok(())
}

/// Compiles the library and the environment now: the guest's root is read-only, and could not keep
/// what it compiles. Hash-based, so that the file times in the image do not matter.
fn compile(tree: &Path, venv: &str, interpreter: &str) -> Result<(), StageError> {
    let mut command = in_tree(tree);
    command.arg(format!("{venv}/bin/python"));
    command.args(["-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash"]);
    command.arg(format!("/usr/lib/{interpreter}")).arg(format!("{venv}/lib"));
    tool::run("chroot", "compiling Python", command)?;
    Ok(())
}

/// Runs a program of the tree, in the tree, without this machine's environment.
fn in_tree(tree: &Path) -> Command {
    let mut command = tool::command("chroot");
    let path = command
        .get_envs()
        .find_map(|(key, value)| (key == "PATH").then(|| value.map(ToOwned::to_owned)).flatten());
    command.env_clear();
    // The first program is this machine's `chroot`; the rest is the tree's.
    command.env("PATH", path.unwrap_or_default()).env("LC_ALL", "C.UTF-8").env("HOME", "/tmp");
    command.env("PIP_DISABLE_PIP_VERSION_CHECK", "1").env("PYTHONDONTWRITEBYTECODE", "1");
    command.arg(tree);
    command
}

/// `python3.11`, from the tree's `/usr/bin/python3`.
fn interpreter(tree: &Path) -> Result<String, StageError> {
    let link = tree.join("usr/bin/python3");
    let target = fs::read_link(&link).map_err(WorkError::io("find the Python", &link))?;
    Ok(target.to_string_lossy().rsplit('/').next().unwrap_or_default().to_owned())
}

/// Reads a lock file: `name==version --hash=sha256:HEX` on each line, comments after `#`.
pub(super) fn parse(lock: &str) -> Result<Vec<Locked<'_>>, String> {
    let mut locked = Vec::new();
    for (number, text) in lock.lines().enumerate() {
        locked.extend(line(text).map_err(|problem| format!("line {}: {problem}", number + 1))?);
    }
    if locked.iter().all(|l| l.name != "pip") {
        return Err("it does not name pip: the environment is installed with a locked pip".into());
    }
    Ok(locked)
}

/// Reads one line; `None` where it has nothing but a comment.
fn line(text: &str) -> Result<Option<Locked<'_>>, String> {
    let line = text.split('#').next().unwrap_or_default().trim();
    if line.is_empty() {
        return Ok(None);
    }
    let bad = || format!("expected NAME==VERSION --hash=sha256:DIGEST, found {line:?}");
    let (pin, hash) = line.split_once(" --hash=sha256:").ok_or_else(bad)?;
    let (name, version) = pin.trim().split_once("==").ok_or_else(bad)?;
    hash.parse::<cvm_base::Bytes32>().map_err(|_| bad())?;
    let plain = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-+".contains(&b))
    };
    if plain(name) && plain(version) {
        Ok(Some(Locked { name, version, line }))
    } else {
        Err(bad())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "9243213661e29250eb41368e5daa826fc017156c3b8a11440826b2e3ed376472";

    #[test]
    fn the_repositorys_lock_file_is_understood() {
        let lock = include_str!("../../../../stages/nvflare_cc_base/requirements.lock");
        let locked = parse(lock).unwrap();
        assert!(locked.iter().any(|l| l.name == "nvflare"));
    }

    #[test]
    fn a_package_without_a_hash_is_refused() {
        let good = format!(
            "pip==26.3 --hash=sha256:{HASH}  # installs\n\nnumpy==2 --hash=sha256:{HASH}\n"
        );
        assert_eq!(parse(&good).unwrap().len(), 2);
        for bad in [
            "numpy==2",
            "numpy --hash=sha256:00",
            "numpy==2 --hash=md5:00",
            "-r other.txt",
            "--index-url x",
        ] {
            assert!(parse(&format!("{good}{bad}\n")).is_err(), "{bad}");
        }
        assert!(parse(&format!("numpy==2 --hash=sha256:{HASH}\n")).unwrap_err().contains("pip"));
    }
}
