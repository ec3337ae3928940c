//! What opens secrets: a key file or a passphrase. A passphrase comes from a file or the terminal,
//! never from the command line or the environment.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::Args;
use cvm_custody::{BuilderSecrets, Lock, Party, Unlock};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::problem::Problem;

/// More than anybody types, in bytes.
const MAX_BYTES: u64 = 1024;

/// How a new folder's secrets are locked.
#[derive(Args)]
pub struct LockArgs {
    /// Lock the secrets with a passphrase instead of unlock.key: FILE's first line, or - to be
    /// asked
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl LockArgs {
    /// The same as the library takes it.
    pub fn lock(&self) -> Result<Lock> {
        Ok(match &self.passphrase_file {
            Some(path) => Lock::Passphrase(passphrase(path, true)?),
            None => Lock::KeyFile,
        })
    }
}

/// What opens a folder's secrets.
#[derive(Args, Clone)]
pub struct UnlockArgs {
    /// The key file, if it is not unlock.key in the folder
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase_file")]
    unlock_key: Option<PathBuf>,
    /// The passphrase: FILE's first line, or - to be asked
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl UnlockArgs {
    /// The flags; or, if there are none, what a file says.
    pub fn or(&self, unlock_key: Option<&Path>, passphrase_file: Option<&Path>) -> Self {
        if self.unlock_key.is_some() || self.passphrase_file.is_some() {
            return self.clone();
        }
        Self {
            unlock_key: unlock_key.map(Path::to_owned),
            passphrase_file: passphrase_file.map(Path::to_owned),
        }
    }

    /// The same as the library takes it.
    pub fn unlock(&self, folder: &Path) -> Result<Unlock> {
        Ok(match (&self.passphrase_file, &self.unlock_key) {
            (Some(path), _) => Unlock::Passphrase(passphrase(path, false)?),
            (None, Some(path)) => Unlock::KeyFile(path.clone()),
            (None, None) => Unlock::beside(folder),
        })
    }

    /// Opens a party's folder.
    pub fn party(&self, folder: &Path) -> Result<Party> {
        Ok(Party::load(folder, &self.unlock(folder)?)?)
    }

    /// Opens a builder's folder.
    pub fn builder(&self, folder: &Path) -> Result<BuilderSecrets> {
        Ok(BuilderSecrets::load(folder, &self.unlock(folder)?)?)
    }
}

/// The first line of `path`; or, if that is `-`, what is typed unseen at the terminal. A `new`
/// passphrase is asked for twice.
fn passphrase(path: &Path, new: bool) -> Result<Zeroizing<String>> {
    let text = if path == Path::new("-") {
        let first = ask("Passphrase: ")?;
        if new && *first != *ask("Once more: ")? {
            return Problem::result(
                "CLI-004",
                "the two passphrases differ",
                "type the same one twice",
            );
        }
        first
    } else {
        first_line(BufReader::new(File::open(path).with_context(|| path.display().to_string())?))?
    };
    if text.is_empty() {
        return Problem::result(
            "CLI-005",
            "the passphrase is empty",
            "the passphrase is the file's first line, or what is typed",
        );
    }
    Ok(text)
}

fn first_line(from: impl BufRead) -> Result<Zeroizing<String>> {
    // Room for all of it at once: a growing string would leave copies in memory.
    let mut line = Zeroizing::new(String::with_capacity(MAX_BYTES as usize + 1));
    from.take(MAX_BYTES).read_line(&mut line)?;
    let length = line.trim_end_matches(['\n', '\r']).len();
    line.truncate(length);
    Ok(line)
}

fn ask(prompt: &str) -> Result<Zeroizing<String>> {
    let mut terminal = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .context("there is no terminal to ask at")?;
    terminal.write_all(prompt.as_bytes())?;
    let answer = {
        let _silent = Silent::on(&terminal)?;
        first_line(BufReader::new(&terminal))
    };
    terminal.write_all(b"\n")?;
    answer
}

/// The terminal does not echo while this value lives.
struct Silent<'a>(&'a File, Termios);

impl<'a> Silent<'a> {
    fn on(terminal: &'a File) -> Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(terminal, SetArg::TCSAFLUSH, &silent)?;
        Ok(Self(terminal, before))
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        // The terminal may have gone away; there is nobody left to tell.
        let _ = tcsetattr(self.0, SetArg::TCSAFLUSH, &self.1);
    }
}
