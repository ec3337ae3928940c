//! A code means one thing: no two errors of attestation share one.

use std::{collections::BTreeMap, fs, path::Path};

fn collect(folder: &Path, found: &mut BTreeMap<String, Vec<String>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            // As an arm of `code()`, or a constant of a module: in one file it may be named again.
            let mut codes: Vec<&str> = text
                .split('"')
                .filter(|part| part.starts_with("ATT-") && part.len() == 7)
                .collect();
            codes.sort_unstable();
            codes.dedup();
            codes.into_iter().for_each(|code| {
                found.entry(code.into()).or_default().push(path.display().to_string())
            });
        }
    }
}

#[test]
fn no_two_errors_share_a_code() {
    let mut found = BTreeMap::new();
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for name in [
        "cvm-collateral",
        "cvm-collect",
        "cvm-evidence",
        "cvm-fetch",
        "cvm-policy",
        "cvm-predict",
        "cvm-verify",
        "flare-cvm",
    ] {
        collect(&crates.join(name).join("src"), &mut found);
    }
    assert!(found.len() > 80, "the codes were found: {}", found.len());
    let shared: Vec<_> = found.iter().filter(|(_, files)| files.len() > 1).collect();
    assert!(shared.is_empty(), "{shared:#?}");
}
