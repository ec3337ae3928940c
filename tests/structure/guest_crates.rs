//! How many crates of others a program of the guest links, and which of them twice.
//!
//! ARCHITECTURE.md's "What runs in the guest" has one row per program; the numbers can only fall.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

const HEADING: &str = "## What runs in the guest";
/// The row that must be there, whatever others are.
const FIRST_PROGRAM: &str = "cvm-init";

#[derive(Debug, PartialEq, Eq)]
struct Row {
    program: String,
    crates: usize,
    twice: BTreeSet<String>,
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The rows ``| `PROGRAM` | CRATES | `NAME` (why), … |`` below the heading.
fn recorded(architecture: &str) -> Vec<Row> {
    let section = architecture.split(HEADING).nth(1).expect("the heading is there");
    let section = section.split("\n## ").next().unwrap_or(section);
    let quoted = |cell: &str| -> Vec<String> {
        cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let row = |line: &str| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let [_, program, crates, twice, _] = cells[..] else { return None };
        Some(Row {
            program: quoted(program).into_iter().next()?,
            crates: crates.parse().ok()?,
            twice: quoted(twice).into_iter().collect(),
        })
    };
    section.lines().filter_map(row).collect()
}

/// Crates of others by name, with their versions: what the program links when it is built alone.
/// Derive macros and build scripts run where it is built, so they are left out.
fn linked(program: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .current_dir(root())
        .args(["tree", "--locked", "--offline", "--package", program, "--prefix", "none"])
        .args(["--edges", "normal,no-proc-macro", "--target", "x86_64-unknown-linux-gnu"]);
    let output = cargo.output().expect("cargo starts");
    assert!(output.status.success(), "{output:?}");
    let mut crates = BTreeMap::<_, BTreeSet<_>>::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let mut words = line.split(' ');
        let ours = line.contains(" (/");
        if let (Some(name), Some(version), false) = (words.next(), words.next(), ours) {
            crates.entry(name.to_owned()).or_default().insert(version.to_owned());
        }
    }
    crates
}

#[test]
fn a_guests_programs_link_no_more_crates_than_recorded() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let rows = recorded(&text);
    assert_eq!(rows.first().map(|row| row.program.as_str()), Some(FIRST_PROGRAM));
    let mut more = vec![];
    for Row { program, crates, twice } in rows {
        let linked = linked(&program);
        let found = linked.values().map(BTreeSet::len).sum::<usize>();
        let found_twice: BTreeSet<_> =
            linked.into_iter().filter(|(_, v)| v.len() > 1).map(|(name, _)| name).collect();
        if found > crates || !found_twice.is_subset(&twice) {
            more.push(format!(
                "{program} links {found} crates of others, {found_twice:?} twice: \
                 recorded are {crates}, {twice:?}"
            ));
        }
    }
    assert!(
        more.is_empty(),
        "look with `cargo tree -p PROGRAM -i CRATE` for what brings them; what must stay is \
         recorded in ARCHITECTURE.md with its reason:\n{}",
        more.join("\n")
    );
}

#[test]
fn rows_are_read_from_their_own_section_alone() {
    let text = format!(
        "| `a` | 1 | |\n{HEADING}\n\n| program | crates | twice |\n|---|---|---|\n\
         | `b` | 20 | `c` (why), `d` |\n\n## Next\n| `e` | 3 | |\n"
    );
    let twice = ["c".to_owned(), "d".to_owned()].into();
    assert_eq!(recorded(&text), [Row { program: "b".into(), crates: 20, twice }]);
}
