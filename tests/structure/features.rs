//! Programs and tests have one set of features, so that tests compile no dependency a second time
//! and run beside the programs that users build.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

/// Each package of the workspace's build with its sets of features: one that runs in a build and
/// is linked too may have two.
type Packages = BTreeMap<String, BTreeSet<String>>;

/// What cargo resolves over these kinds of dependencies.
fn resolved(edges: &str) -> Packages {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .args(["tree", "--workspace", "--locked", "--offline", "--prefix", "none"])
        .args(["--format", "{p}|{f}|", "--edges", edges]);
    let output = cargo.output().expect("cargo starts");
    assert!(output.status.success(), "{output:?}");
    packages(&String::from_utf8_lossy(&output.stdout))
}

/// Lines `NAME VERSION (what)|FEATURES|`; the same package may come many times.
fn packages(tree: &str) -> Packages {
    let mut packages = Packages::new();
    for line in tree.lines() {
        let mut fields = line.split('|');
        if let (Some(package), Some(features)) = (fields.next(), fields.next()) {
            let package = package.split(' ').take(2).collect::<Vec<_>>().join(" ");
            packages.entry(package).or_default().insert(features.to_owned());
        }
    }
    packages
}

/// A line for each package that tests compile again.
fn differ(programs: &Packages, tests: &Packages) -> Vec<String> {
    let shown = |sets: &BTreeSet<String>| sets.iter().cloned().collect::<Vec<_>>().join(" and ");
    let twice = programs.iter().filter_map(|(package, sets)| {
        let others = tests.get(package)?;
        // Macros and tests may each have one of their own: what programs have must be among them.
        (!sets.is_subset(others)).then(|| {
            format!("{package}: programs have [{}], tests [{}]", shown(sets), shown(others))
        })
    });
    twice.collect()
}

#[test]
fn programs_and_tests_have_one_set_of_features() {
    let programs = resolved("normal,build");
    assert!(programs.len() > 100, "{programs:?}");
    let differ = differ(&programs, &resolved("normal,build,dev"));
    assert!(
        differ.is_empty(),
        "tests compile these again: give the features that only tests ask for to cvm-lab too \
         (tests/Cargo.toml), or do without them:\n{}",
        differ.join("\n")
    );
}

#[test]
fn a_feature_that_only_a_test_turns_on_is_named() {
    let programs = packages("a v1.0.0|std|\na v1.0.0|| (*)\nb v0.2.0 (proc-macro)|x,y|\n");
    let tests = packages("a v1.0.0|std|\na v1.0.0||\nb v0.2.0 (proc-macro)|x,y,z|\nc v3.0.0||\n");
    assert_eq!(
        differ(&programs, &tests),
        ["b v0.2.0: programs have [x,y], tests [x,y,z]"],
        "and not what only tests use"
    );
}
