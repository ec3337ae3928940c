//! The programs that images and bundles are made with, as `make build` made them. `make test` asks
//! at its begin, and once more after everything else: whatever was compiled and booted between,
//! the programs are the same.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use cvm_lab::run;
use serde_json::Value;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository")
}

fn programs() -> Vec<String> {
    let sums = repository().join("target/programs/SHA256SUMS");
    let sums = fs::read_to_string(sums).expect("`make build` makes target/programs");
    sums.lines().filter_map(|line| Some(line.split_once("  ")?.1.to_owned())).collect()
}

/// Checks the digests of `make build` in that folder of `target`.
fn digests_hold(folder: &str) {
    let mut check = Command::new("sha256sum");
    check.args(["--check", "--quiet", "../programs/SHA256SUMS"]);
    run(check.current_dir(repository().join("target").join(folder)))
        .expect("what `make build` made");
}

#[test]
fn tests_boot_the_programs_that_make_build_made() {
    digests_hold("programs");
    // What cargo compiled since, for tests, are the same programs.
    digests_hold("release");
}

#[test]
fn every_program_is_there_and_none_of_the_laboratory() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--no-deps", "--format-version", "1", "--locked", "--offline"]);
    let metadata = run(cargo.current_dir(repository())).expect("cargo metadata");
    let metadata: Value = serde_json::from_str(&metadata).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages").iter();
    let targets = packages
        .filter(|package| !["cvm-lab", "flare-cvm-fuzz"].iter().any(|lab| package["name"] == *lab))
        .flat_map(|package| package["targets"].as_array().expect("targets"));
    let names = targets
        .filter(|target| target["kind"][0] == "bin")
        .filter_map(|target| target["name"].as_str());
    let expected: BTreeSet<_> = names.map(str::to_owned).collect();
    assert_eq!(programs().into_iter().collect::<BTreeSet<_>>(), expected);
}

/// A path of this machine's in a program would make another image of the same source elsewhere.
#[test]
fn no_program_holds_a_path_of_the_machine_that_compiled_it() {
    let home = std::env::var("HOME").expect("a home");
    let cargo = std::env::var("CARGO_HOME").unwrap_or_else(|_| format!("{home}/.cargo"));
    let paths = [format!("{}/", repository().display()), format!("{cargo}/")];
    let mut found = Vec::new();
    for program in programs() {
        let bytes = fs::read(repository().join("target/programs").join(&program));
        let bytes = bytes.expect("a program");
        let holds = |path: &&String| bytes.windows(path.len()).any(|w| w == path.as_bytes());
        found.extend(paths.iter().filter(holds).map(|path| format!("{program} holds {path}")));
    }
    assert_eq!(found, Vec::<String>::new());
}
