//! `flare-cvm` as its users run it: arguments in; exit status, text, JSON and files out.

#[path = "../../../cvm-verify/tests/support/ak.rs"]
mod ak;
mod bundle;
mod cache;
mod ceremony;
mod collect;
mod examples;
mod explain;
#[path = "../../../cvm-predict/tests/support/igvm.rs"]
mod igvm_file;
mod input;
mod keyholder;
#[path = "../../../cvm-verify/tests/snp/mint.rs"]
#[expect(dead_code, reason = "the verifier's own tests use the rest")]
mod mint;
#[path = "../../../cvm-collect/tests/support/nvml.rs"]
mod nvml;
mod pages;
mod policy;
mod predict;
mod token;
mod verify;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// 2025-10-09.
const NOW: &str = "1760000000";
const EVIDENCE: &str = "tests/vectors/evidence";
/// The verifier's own vectors.
const VECTORS: &str = "tests/vectors";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(name: &str) -> Vec<u8> {
    fs::read(repository().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// A new folder of a test's own.
fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli").join(test);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn write(path: PathBuf, content: impl AsRef<[u8]>) -> String {
    fs::write(&path, content).unwrap();
    path.display().to_string()
}

/// What a run left.
struct Run {
    command: String,
    status: Option<i32>,
    out: String,
    err: String,
}

/// Runs the program in the repository's root.
fn flare_cvm(arguments: &[&str]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flare-cvm"));
    Run::of(command.args(arguments).current_dir(repository()), arguments.join(" "))
}

/// `attest verify`, its arguments separated by blanks.
fn verify(arguments: &str) -> Run {
    flare_cvm(
        &[&["attest", "verify"], &arguments.split_whitespace().collect::<Vec<_>>()[..]].concat(),
    )
}

impl Run {
    fn of(run: &mut Command, command: String) -> Self {
        let output = run.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self {
            command,
            status: output.status.code(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }

    fn good(self) -> Self {
        assert_eq!(
            (self.status, self.err.as_str()),
            (Some(0), ""),
            "{}\n{}",
            self.command,
            self.out
        );
        self
    }

    /// Failed with this code, and says what to do.
    fn failed(self, code: &str) -> Self {
        let Self { command, status, out, err } = &self;
        assert_eq!(*status, Some(1), "{command}\n{out}{err}");
        assert!(
            err.starts_with(&format!("error[{code}]: ")) && err.contains("\nhelp: "),
            "{command}\n{out}{err}"
        );
        self
    }

    /// The one JSON object that it printed.
    fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|e| panic!("{}: {e}\n{}", self.command, self.out))
    }

    fn says(&self, text: &str) -> &Self {
        assert!(
            self.out.contains(text),
            "{}: no {text:?} in\n{}{}",
            self.command,
            self.out,
            self.err
        );
        self
    }

    /// Says of exactly these checks, each of a submodule, that they were not made.
    fn not_checked(&self, expected: &[(&str, &str)]) -> &Self {
        let lines = self.out.lines().filter_map(|line| {
            let (of, rest) = line.split_once(": not checked: ")?;
            Some((of, rest.split_once(": ")?.0))
        });
        assert_eq!(lines.collect::<Vec<_>>(), expected, "{}", self.command);
        self
    }
}

/// The claims of a submodule in a verdict.
fn claims<'a>(verdict: &'a Value, submodule: &str, kind: &str) -> &'a Value {
    let at = format!("/submods/{submodule}/ear.veraison.annotated-evidence/{kind}");
    verdict.pointer(&at).unwrap_or_else(|| panic!("no {at} in {verdict:#}"))
}
