//! Every error code of the workspace means one thing, and `docs/error-codes.md` has them all.
//!
//! The codes are read from the sources: from `match` arms of `Explain::code`, from calls that take a
//! code, a problem and a cure, and from `cvm-init`'s table of boot codes. What failed is the text of
//! the variant's `#[error]`, what to do next is the text of its arm in `Explain::help`.

mod read;

use std::{collections::BTreeMap, fs, path::PathBuf, sync::LazyLock};

use crate::sources::{files, root};
use read::Meaning;

/// Names of this form that are algorithms.
const ALGORITHMS: [&str; 4] = ["AES-256", "SHA-256", "SHA-384", "SHA-512"];

/// Two to five capitals, a hyphen and three digits.
fn is_code(text: &str) -> bool {
    let Some((letters, digits)) = text.split_once('-') else { return false };
    (2..=5).contains(&letters.len())
        && letters.bytes().all(|b| b.is_ascii_uppercase())
        && digits.len() == 3
        && digits.bytes().all(|b| b.is_ascii_digit())
        && !ALGORITHMS.contains(&text)
}

/// Every package of the workspace: its name and its `src`.
fn packages() -> Vec<(String, PathBuf)> {
    let manifests = files(root(), &["Cargo.toml"]);
    let named = manifests.iter().filter(|path| !path.starts_with(root().join("fuzz")));
    let package = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        let name = text.lines().find_map(|line| line.strip_prefix("name = "))?;
        let source = path.parent().unwrap().join("src");
        source.is_dir().then(|| (name.trim_matches('"').to_owned(), source))
    };
    named.filter_map(package).collect()
}

fn meanings() -> &'static [Meaning] {
    static MEANINGS: LazyLock<Vec<Meaning>> = LazyLock::new(|| {
        packages().iter().flat_map(|(name, source)| read::package(name, source)).collect()
    });
    &MEANINGS
}

fn by_code(meanings: &[Meaning]) -> BTreeMap<&str, Vec<&Meaning>> {
    let mut codes: BTreeMap<&str, Vec<&Meaning>> = BTreeMap::new();
    for meaning in meanings {
        codes.entry(&meaning.code).or_default().push(meaning);
    }
    codes
}

/// `docs/error-codes.md`.
fn render(meanings: &[Meaning]) -> String {
    let mut page = String::from(
        "# Error codes\n\n\
         A program of flare-cvm that fails prints `error[CODE]: what failed` and `help: what to do next`.\n\
         Scripts can match on the code: it never changes its meaning.\n\n\
         `{names}` stand for what the message names. Several texts of one code are separated by `/`.\n\
         \"As the cause says\" means that the message carries on with another error and its advice.\n\
         The codes `FC-nnn` of a boot are in [boot-codes.md](boot-codes.md). Those that an agent answers\n\
         with (`AGT-nnn`) are in [agent-protocol.md](agent-protocol.md) too.\n\n\
         This page is rendered from the sources by\n\
         `UPDATE=1 cargo test --release -p cvm-lab --test structure codes`; a test keeps both equal.\n\n\
         | code | what failed | what to do next | crate |\n|---|---|---|---|\n",
    );
    for (code, meanings) in by_code(meanings) {
        for meaning in meanings.into_iter().filter(|_| !code.starts_with("FC-")) {
            let [what, next] = [&meaning.what, &meaning.next].map(|texts| cell(texts));
            page += &format!("| {code} | {what} | {next} | {} |\n", meaning.package);
        }
    }
    page
}

fn cell(texts: &[String]) -> String {
    let mut once: Vec<&String> = Vec::new();
    for text in texts {
        if !once.contains(&text) {
            once.push(text);
        }
    }
    let text = once.iter().map(|text| text.as_str()).collect::<Vec<_>>().join(" / ");
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    words.replace('|', "\\|").replace('*', "\\*").replace('<', "&lt;")
}

#[test]
fn no_code_means_two_things() {
    let codes = by_code(meanings());
    assert!(codes.len() > 300, "the codes were found: {}", codes.len());
    let clashes: Vec<String> = codes
        .iter()
        .filter(|(_, meanings)| meanings.len() > 1)
        .map(|(code, meanings)| {
            let places: Vec<_> = meanings.iter().map(|meaning| meaning.place.as_str()).collect();
            format!("{code}: {}", places.join(", "))
        })
        .collect();
    assert!(clashes.is_empty(), "give each meaning a code of its own:\n{}", clashes.join("\n"));
}

#[test]
fn every_code_says_what_failed_and_what_to_do_next() {
    for Meaning { code, what, next, place, .. } in meanings() {
        let said = |texts: &[String]| texts.iter().all(|text| !text.trim().is_empty());
        assert!(!what.is_empty() && said(what), "{code} ({place}) does not say what failed");
        assert!(!next.is_empty() && said(next), "{code} ({place}) does not say what to do next");
    }
}

/// What the syntax tree does not show (a code inside a macro) would be missing on the page.
#[test]
fn no_code_of_the_sources_is_overlooked() {
    let codes = by_code(meanings());
    for (_, source) in packages() {
        for path in read::production(&source) {
            let text = fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            for code in text.split('"').filter(|piece| is_code(piece)) {
                assert!(codes.contains_key(code), "{code} in {} was not read", path.display());
            }
        }
    }
}

#[test]
fn the_page_of_error_codes_is_what_the_sources_say() {
    let path = root().join("docs/error-codes.md");
    let page = render(meanings());
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &page).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == page,
        "docs/error-codes.md is old: run with UPDATE=1"
    );
}

/// Pages, scripts and Python, which only refer to codes.
#[test]
fn every_code_that_a_page_or_a_script_names_exists() {
    let codes = by_code(meanings());
    let prefix = |code: &str| code.split('-').next().unwrap_or_default().to_owned();
    let prefixes: Vec<String> = codes.keys().map(|code| prefix(code)).collect();
    for path in files(root(), &[".md", ".py", ".sh", ".yaml", ".yml", ".rego", ".service"]) {
        let text = fs::read_to_string(&path).unwrap();
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        for code in words.filter(|word| is_code(word) && prefixes.contains(&prefix(word))) {
            assert!(codes.contains_key(code), "{} names {code}", path.display());
        }
    }
}

/// What an agent answers with is part of its protocol.
#[test]
fn every_code_of_the_agent_is_in_its_protocol() {
    let page = fs::read_to_string(root().join("docs/agent-protocol.md")).unwrap();
    let codes = by_code(meanings());
    let agents: Vec<_> = codes.keys().filter(|code| code.starts_with("AGT-")).collect();
    assert!(agents.len() > 30, "the codes were found: {}", agents.len());
    let missing: Vec<_> = agents.into_iter().filter(|code| !page.contains(**code)).collect();
    assert!(missing.is_empty(), "docs/agent-protocol.md lacks {missing:?}");
}
