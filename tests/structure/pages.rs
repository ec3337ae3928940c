//! What the repository's pages refer to is there: tests by their name, files by their link.

use std::{collections::BTreeSet, fs};

use crate::sources::{files, root};

/// A name of this form in backticks is a test's or another function's.
fn is_name(text: &str) -> bool {
    text.matches('_').count() >= 3
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_*".contains(&b))
}

#[test]
fn every_test_that_a_page_names_exists() {
    let mut functions = BTreeSet::new();
    for path in files(root(), &[".rs"]) {
        let text = fs::read_to_string(path).unwrap();
        let named = text.split("fn ").skip(1);
        let named = named.filter_map(|rest| rest.split(['(', '<']).next());
        functions.extend(named.map(str::to_owned));
    }
    let mut names = 0;
    for path in files(root(), &[".md"]) {
        let text = fs::read_to_string(&path).unwrap();
        let prose = text.split("```").step_by(2);
        for name in prose.flat_map(|part| part.split('`').skip(1).step_by(2)) {
            // `cvm_verify::acpi` and settings of NVFLARE's are something else.
            if !is_name(name) || !(name.starts_with("attack_") || name.matches('_').count() > 3) {
                continue;
            }
            names += 1;
            let exists = match name.strip_suffix('*') {
                Some(start) => functions.iter().any(|function| function.starts_with(start)),
                None => functions.contains(name) || python_has(name),
            };
            assert!(exists, "{} names {name}, which is no function", path.display());
        }
    }
    assert!(names > 60, "the names were found: {names}");
}

fn python_has(name: &str) -> bool {
    files(root(), &[".py"]).iter().any(|path| fs::read_to_string(path).unwrap().contains(name))
}

#[test]
fn every_link_of_a_page_leads_to_a_file() {
    let mut links = 0;
    for path in files(root(), &[".md"]) {
        let text = fs::read_to_string(&path).unwrap();
        let prose = text.split("```").step_by(2).collect::<String>();
        for link in prose.split("](").skip(1) {
            let target = link.split([')', '#', ' ']).next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            links += 1;
            assert!(
                path.parent().unwrap().join(target).exists(),
                "{} links to {target}, which is not there",
                path.display()
            );
        }
    }
    assert!(links > 50, "the links were found: {links}");
}
