//! The workload as `nvflare.service` runs it: a drop-in for the unit, made from the image's
//! configuration, and the folders that the unit mounts NVFLARE's parts on.
//!
//! The unit keeps its user, its confinement and its place in the order of the start; the drop-in
//! changes what it sees. Only NVFLARE's own places can be written, as without a workload.

use std::{fmt::Write as _, io::Read};

use super::{ArchiveError, Image, Node, ROOT, Tree, Unpack, tree};

/// Where the kit lies for the workload, as NVFLARE's guide says; its run-time workspace follows
/// from that.
const KIT: &str = "/user_config/nvflare";
const WORKSPACE: &str = "/vault/workspace/nvflare";
/// Libraries of the guest's NVIDIA driver, for images that look for a host's there.
const CUDA: &str = "/usr/local/nvidia/lib64";
/// Docker's, where the image says none.
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
/// Where an image's `VOLUME` is a place that the guest mounts anyway.
const MOUNTED: [&str; 5] = ["/applog", "/tmp", "/user_config", "/user_data", "/vault"];
const SIGNALS: [&str; 7] =
    ["SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGKILL"];
/// Arguments and environment together; a line of a unit ends at a mebibyte.
const MAX_TEXT: usize = 64 * 1024;

type Keep<'a> = dyn FnMut(&mut dyn Read) -> Result<usize, ArchiveError> + 'a;

fn refused<T>(key: &'static str, found: &str, reason: &'static str) -> Result<T, ArchiveError> {
    let found = found.chars().take(120).collect();
    Err(ArchiveError::Refused { key, found, reason })
}

/// Makes the mount points in the image's tree, and gives the drop-in's text.
pub(super) fn write(
    image: &mut Image,
    request: &Unpack,
    keep: &mut Keep,
) -> Result<String, ArchiveError> {
    let user_config = |name| format!("/user_config/{name}");
    let mut folders: Vec<String> = FOLDERS.map(str::to_owned).to_vec();
    let mut files: Vec<String> = FILES.map(str::to_owned).to_vec();
    for (name, is_folder) in &request.user_config {
        if *is_folder { &mut folders } else { &mut files }.push(user_config(name));
    }
    if request.model {
        folders.push("/opt/nvflare/site/model".into());
    }
    if request.gpus {
        folders.push(CUDA.into());
    }
    let directory =
        image.run.working_dir.take().filter(|dir| !dir.is_empty()).unwrap_or_else(|| "/".into());
    folders.push(directory.clone());
    let number = image.layers + 1;
    for folder in &folders {
        mount_point(&mut image.tree, folder, None, number)?;
    }
    for file in &files {
        mount_point(&mut image.tree, file, Some(keep), number)?;
    }
    if let Some(volume) =
        image.run.volumes.take().unwrap_or_default().into_keys().find(|v| !is_mounted(v))
    {
        return refused(
            "Volumes",
            &volume,
            "the workload can write only to /vault/workspace, /applog and /tmp",
        );
    }

    let environment = environment(image, request)?;
    let command = command(image, &directory, &environment)?;
    let signal = image.run.stop_signal.take().unwrap_or_else(|| "SIGTERM".into());
    if !SIGNALS.contains(&signal.as_str()) {
        return refused(
            "StopSignal",
            &signal,
            "systemd sends SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2 or SIGKILL",
        );
    }
    let role = request.role;
    let mut text = format!(
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
",
        directory = plain(&directory)?,
    );
    // Writing to a text cannot fail.
    for (name, _) in &request.user_config {
        let _ = writeln!(
            text,
            "BindReadOnlyPaths=/opt/nvflare/config/user_config/{name}:{}",
            user_config(name)
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

/// A folder, or with `keep` an empty file, that something is mounted on: the workload's root is
/// read-only.
fn mount_point(
    tree: &mut Tree,
    path: &str,
    keep: Option<&mut Keep>,
    number: usize,
) -> Result<(), ArchiveError> {
    let in_the_way = |_| ArchiveError::Refused {
        key: "rootfs",
        found: path.into(),
        reason: "something stands where the guest mounts a part of NVFLARE's",
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

/// The image's variables, and those without which a program would not find its way.
fn environment(image: &mut Image, request: &Unpack) -> Result<Vec<(String, String)>, ArchiveError> {
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

/// Entrypoint and Cmd as one command line, its program found as Docker would find it.
fn command(
    image: &mut Image,
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
    let paths = environment
        .iter()
        .find(|(name, _)| name == "PATH")
        .map_or(PATH, |(_, value)| value.as_str());
    let candidates: Vec<String> = if program.starts_with('/') {
        vec![program.clone()]
    } else if program.contains('/') {
        vec![format!("{}/{program}", directory.trim_end_matches('/'))]
    } else {
        paths
            .split(':')
            .filter(|path| path.starts_with('/'))
            .map(|path| format!("{path}/{program}"))
            .collect()
    };
    // The kit is mounted when the machine runs.
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
                "it is no program of the image, and none of the kit's",
            );
        }
    }
    let words =
        words.iter().map(|word| quoted("Entrypoint", word, true)).collect::<Result<Vec<_>, _>>()?;
    Ok(words.join(" "))
}

/// A word as systemd reads it back (systemd.syntax(7)): quotes and escapes, no specifiers, no
/// variables.
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

/// A path that stands in a unit without quotes.
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
