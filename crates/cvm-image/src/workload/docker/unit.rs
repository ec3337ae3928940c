//! The workload as `nvflare.service` runs it: a drop-in for the unit, made from the image's
//! configuration, and the folders that the unit mounts NVFLARE's parts on.
//!
//! The unit keeps its user, its confinement and its place in the order of the start; the drop-in
//! changes what it sees. Only NVFLARE's own places can be written, as without a workload.

use std::{fmt::Write as _, io::Read};

use cvm_layout::names::{Name, Role};

use super::{
    ArchiveError,
    image::{LayeredImage, ROOT, UnpackRequest},
    tree::{self, Node, Tree},
};

/// Where the workload finds the kit, as NVFLARE's guide says; its run-time workspace follows from
/// that.
const KIT: &str = "/user_config/nvflare";
const WORKSPACE: &str = "/vault/workspace/nvflare";
/// The libraries of the guest's NVIDIA driver, where images look for a host's.
const CUDA: &str = "/usr/local/nvidia/lib64";
/// Docker's own `PATH`, for images that set none.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Folders that the guest mounts something on.
const FOLDERS: [&str; 10] = [
    "/applog",
    "/dev",
    "/opt/nvflare/data",
    "/proc",
    "/run/flare-cvm",
    "/sys",
    "/tmp",
    KIT,
    "/user_data",
    WORKSPACE,
];
/// The same for files.
const FILES: [&str; 2] = ["/etc/hosts", "/etc/resolv.conf"];
/// Where an image may have a `VOLUME`: the guest mounts these places anyway.
const MOUNTED: [&str; 5] = ["/applog", "/tmp", "/user_config", "/user_data", "/vault"];
const SIGNALS: [&str; 7] =
    ["SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGKILL"];
/// Arguments and environment together, in bytes; systemd ends a unit's line at a mebibyte.
const MAX_TEXT: usize = 64 * 1024;

type Keep<'a> = dyn FnMut(&mut dyn Read) -> Result<usize, ArchiveError> + 'a;

fn refused<T>(key: &'static str, found: &str, reason: &'static str) -> Result<T, ArchiveError> {
    let found = found.chars().take(120).collect();
    Err(ArchiveError::Refused { key, found, reason })
}

/// Makes the mount points in the image's tree, and gives the drop-in's text.
pub(super) fn write(
    image: &mut LayeredImage,
    request: &UnpackRequest,
    keep: &mut Keep,
) -> Result<String, ArchiveError> {
    let directory =
        image.run.working_dir.take().filter(|dir| !dir.is_empty()).unwrap_or_else(|| "/".into());
    mount_points(image, request, &directory, keep)?;
    check_volumes(image)?;
    let environment = environment(image, request)?;
    let mut text = service(&Service {
        directory: plain(&directory)?,
        command: command(image, &directory, &environment)?,
        signal: stop_signal(image)?,
        role: request.role,
    });
    // Writing to a text cannot fail.
    for (name, _) in &request.user_config {
        let _ = writeln!(
            text,
            "BindReadOnlyPaths=/opt/nvflare/config/user_config/{name}:{}",
            in_user_config(name)
        );
    }
    if request.model {
        text += "BindReadOnlyPaths=/opt/nvflare/site/model\n";
    }
    if request.gpus {
        let _ = writeln!(text, "BindReadOnlyPaths={CUDA}");
    }
    for (name, value) in &environment {
        let _ = writeln!(text, "Environment={}", quoted("Env", &format!("{name}={value}"), false)?);
    }
    if text.len() > MAX_TEXT {
        return refused("Env", "", "its commands and environment are longer than 64 KiB");
    }
    Ok(text)
}

/// Makes a folder or an empty file wherever the unit mounts one: the workload's root is read-only.
fn mount_points(
    image: &mut LayeredImage,
    request: &UnpackRequest,
    directory: &str,
    keep: &mut Keep,
) -> Result<(), ArchiveError> {
    let mut folders: Vec<String> = FOLDERS.map(str::to_owned).to_vec();
    let mut files: Vec<String> = FILES.map(str::to_owned).to_vec();
    for (name, is_folder) in &request.user_config {
        if *is_folder { &mut folders } else { &mut files }.push(in_user_config(name));
    }
    if request.model {
        folders.push("/opt/nvflare/site/model".into());
    }
    if request.gpus {
        folders.push(CUDA.into());
    }
    folders.push(directory.to_owned());
    let number = image.layers + 1;
    for folder in &folders {
        mount_point(&mut image.tree, folder, None, number)?;
    }
    for file in &files {
        mount_point(&mut image.tree, file, Some(keep), number)?;
    }
    Ok(())
}

fn in_user_config(name: &Name) -> String {
    format!("/user_config/{name}")
}

/// Refuses a `VOLUME` outside the places that the workload can write to.
fn check_volumes(image: &mut LayeredImage) -> Result<(), ArchiveError> {
    let mut volumes = image.run.volumes.take().unwrap_or_default().into_keys();
    match volumes.find(|volume| !is_mounted(volume)) {
        Some(volume) => refused(
            "Volumes",
            &volume,
            "the workload can write only to /vault/workspace, /applog and /tmp",
        ),
        None => Ok(()),
    }
}

fn stop_signal(image: &mut LayeredImage) -> Result<String, ArchiveError> {
    let signal = image.run.stop_signal.take().unwrap_or_else(|| "SIGTERM".into());
    if SIGNALS.contains(&signal.as_str()) {
        return Ok(signal);
    }
    refused(
        "StopSignal",
        &signal,
        "systemd sends SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2 or SIGKILL",
    )
}

/// What the drop-in takes from the image and the site.
struct Service<'a> {
    directory: &'a str,
    command: String,
    signal: String,
    role: Role,
}

/// The drop-in's settings that every workload has.
fn service(Service { directory, command, signal, role }: &Service) -> String {
    format!(
        "# Made by flare-cvm from the configuration of the site's docker_archive.
[Unit]
ConditionPathExists=!/opt/nvflare/workspace/shutdown.fl
[Service]
RootDirectory=/opt/nvflare/site/{ROOT}
MountAPIVFS=yes
ProtectHome=no
WorkingDirectory={directory}
ExecCondition=
ExecStart=
ExecStart={command}
KillSignal={signal}
# The kit's own loop ends well only when NVFLARE was shut down.
Restart=on-failure
ReadWritePaths=
# The guest's own, but for its certificates: a workload may have some of its own there.
TemporaryFileSystem=
TemporaryFileSystem=/tmp:mode=1777,nodev,nosuid,noexec,size=256M
TemporaryFileSystem=/dev/shm:mode=1777,nodev,nosuid,noexec
# In the place of the one that MountAPIVFS= would make, where everybody could write.
TemporaryFileSystem=/run:mode=0755,nodev,nosuid,noexec
InaccessiblePaths=
InaccessiblePaths=+/dev/mqueue
BindPaths=
BindPaths=/opt/nvflare/workspace:{WORKSPACE}
BindPaths=/opt/nvflare/jobs/nvflare:/tmp/nvflare
BindPaths=/opt/nvflare/logs:/applog
BindReadOnlyPaths=/opt/nvflare/config/kit:{KIT}
BindReadOnlyPaths=/opt/nvflare/site/keys/{role}.key:{KIT}/startup/{role}.key
BindReadOnlyPaths=/opt/nvflare/data /user_data /run/flare-cvm
BindReadOnlyPaths=/run/flare-cvm/hosts:/etc/hosts /run/flare-cvm/resolv.conf:/etc/resolv.conf
Environment=
"
    )
}

/// Makes a folder, or with `keep` an empty file.
fn mount_point(
    tree: &mut Tree,
    path: &str,
    keep: Option<&mut Keep>,
    number: usize,
) -> Result<(), ArchiveError> {
    let in_the_way = |_| ArchiveError::Refused {
        key: "rootfs",
        found: path.into(),
        reason: "something is where the guest mounts a part of NVFLARE",
    };
    let absolute = path.strip_prefix('/').ok_or("").map_err(in_the_way)?;
    let parts = tree::components(absolute.as_bytes()).map_err(in_the_way)?;
    match (keep, tree.parent(&parts, Some(number)).map_err(in_the_way)?) {
        (Some(keep), Some((folder, name))) => {
            let file = Node::File(0o644, keep(&mut std::io::empty())?);
            tree.put(folder, name, file, number);
        }
        _ => drop(tree.walk(&parts, Some(number)).map_err(in_the_way)?),
    }
    Ok(())
}

fn is_mounted(path: &str) -> bool {
    let below = |place: &str| {
        path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    MOUNTED.iter().any(|place| below(place)) && !path.split('/').any(|part| part == "..")
}

/// The image's variables, and those that every program needs: PATH, HOME, and the folders of the
/// model and of the driver.
fn environment(
    image: &mut LayeredImage,
    request: &UnpackRequest,
) -> Result<Vec<(String, String)>, ArchiveError> {
    let mut variables: Vec<(String, String)> = Vec::new();
    for entry in image.run.env.take().unwrap_or_default() {
        let Some((name, value)) = entry.split_once('=') else {
            return refused("Env", &entry, "a variable is NAME=VALUE");
        };
        let good = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if name.is_empty()
            || !name.bytes().all(good)
            || name.starts_with(|c: char| c.is_ascii_digit())
        {
            return refused("Env", &entry, "systemd takes names of letters, digits and '_'");
        }
        variables.retain(|(other, _)| other != name);
        variables.push((name.to_owned(), value.to_owned()));
    }
    for (name, value) in [("PATH", PATH), ("HOME", WORKSPACE)] {
        if !variables.iter().any(|(other, _)| other == name) {
            variables.push((name.into(), value.into()));
        }
    }
    let mut also =
        |name: &str, folder: &str| match variables.iter_mut().find(|(other, _)| other == name) {
            Some((_, value)) if value.split(':').any(|known| known == folder) => {}
            Some((_, value)) if !value.is_empty() => *value = format!("{value}:{folder}"),
            Some((_, value)) => *value = folder.into(),
            None => variables.push((name.into(), folder.into())),
        };
    if request.model {
        also("PYTHONPATH", "/opt/nvflare/site/model/code");
    }
    if request.gpus {
        also("LD_LIBRARY_PATH", CUDA);
    }
    Ok(variables)
}

/// Entrypoint and Cmd as one command line. Its program is found as Docker would find it.
fn command(
    image: &mut LayeredImage,
    directory: &str,
    environment: &[(String, String)],
) -> Result<String, ArchiveError> {
    let run = &mut image.run;
    let words = run
        .entrypoint
        .take()
        .unwrap_or_default()
        .into_iter()
        .chain(run.cmd.take().unwrap_or_default());
    let mut words: Vec<String> = words.collect();
    let Some(program) = words.first_mut() else {
        return refused(
            "Entrypoint",
            "nothing",
            "without Entrypoint and Cmd there is nothing to run",
        );
    };
    let candidates = candidates(program, directory, environment);
    // The kit is mounted only when the machine runs.
    let is_kits = |path: &String| {
        path.starts_with(&format!("{KIT}/")) && !path.split('/').any(|part| part == "..")
    };
    match candidates
        .into_iter()
        .find(|path| is_kits(path) || image.tree.is_program(path.as_bytes()))
    {
        Some(found) => *program = found,
        None => {
            return refused(
                "Entrypoint",
                program,
                "it is neither a program of the image nor one of the kit",
            );
        }
    }
    let words =
        words.iter().map(|word| quoted("Entrypoint", word, true)).collect::<Result<Vec<_>, _>>()?;
    Ok(words.join(" "))
}

/// Where Docker looks for a program: as an absolute path, below the working folder, or in PATH.
fn candidates(program: &str, directory: &str, environment: &[(String, String)]) -> Vec<String> {
    if program.starts_with('/') {
        return vec![program.to_owned()];
    }
    if program.contains('/') {
        return vec![format!("{}/{program}", directory.trim_end_matches('/'))];
    }
    let paths = environment.iter().find(|(name, _)| name == "PATH");
    let paths = paths.map_or(PATH, |(_, value)| value.as_str());
    let absolute = paths.split(':').filter(|path| path.starts_with('/'));
    absolute.map(|path| format!("{path}/{program}")).collect()
}

/// A word that systemd reads back as it is (systemd.syntax(7)): quoted and escaped, so that it is
/// neither a specifier nor, with `variables`, a variable.
fn quoted(key: &'static str, word: &str, variables: bool) -> Result<String, ArchiveError> {
    let mut text = String::from("\"");
    for c in word.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '%' => text += "%%",
            '$' if variables => text += "$$",
            '\n' => text += "\\n",
            '\t' => text += "\\t",
            c if c.is_control() => {
                return refused(key, word, "a unit cannot hold its control characters");
            }
            c => text.push(c),
        }
    }
    text.push('"');
    Ok(text)
}

/// A path that a unit can hold without quotes.
fn plain(path: &str) -> Result<&str, ArchiveError> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"/._-+@".contains(&b);
    if path.bytes().all(good) {
        Ok(path)
    } else {
        refused("WorkingDir", path, "use letters, digits and /._-+@")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_a_word_that_ends_its_line_or_expands() {
        let word = |text| quoted("Env", text, true);
        assert_eq!(word("a b").unwrap(), "\"a b\"");
        assert_eq!(
            word("\"; x=\\ $HOME %h\nExecStart=/x").unwrap(),
            r#""\"; x=\\ $$HOME %%h\nExecStart=/x""#
        );
        for bad in ["a\rb", "a\0b", "\u{1b}[2J", "\u{85}"] {
            assert!(word(bad).is_err(), "{bad:?}");
        }
        assert!(
            plain("/srv/a b").is_err() && plain("/srv/%h").is_err() && plain("/srv/app-1").is_ok()
        );
    }
}
