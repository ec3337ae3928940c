//! Every code is in the protocol's document, and means one thing.

use std::{collections::BTreeSet, fs, path::Path};

#[test]
fn every_code_is_documented_once() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut codes = Vec::new();
    let list =
        |folder: &str| fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path());
    for path in ["src", "src/snpguest", "../cvm-peer/src"].into_iter().flat_map(list) {
        if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(path).unwrap();
            let production =
                text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_owned();
            let arms = production.lines().filter(|line| line.contains("=> \"AGT-"));
            codes.extend(arms.filter_map(|line| line.split('"').nth(1).map(str::to_owned)));
        }
    }
    let unique: BTreeSet<&String> = codes.iter().collect();
    assert_eq!(unique.len(), codes.len(), "a code means two errors");
    assert!(codes.len() > 30, "the codes were found: {}", codes.len());
    let document = fs::read_to_string(root.join("../../docs/agent-protocol.md")).unwrap();
    let missing: Vec<_> =
        unique.into_iter().filter(|code| !document.contains(code.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
