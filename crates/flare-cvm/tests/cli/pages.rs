//! The commands that the repository's pages show are commands of this program.

use std::{fs, path::Path};

use crate::{flare_cvm, repository};

/// README and its like, and `docs/`, without the pages that a test renders.
fn pages() -> Vec<String> {
    let markdown = |folder: &Path| {
        let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        paths.filter(|path| path.extension().is_some_and(|end| end == "md")).collect::<Vec<_>>()
    };
    let mut paths = markdown(&repository());
    paths.extend(markdown(&repository().join("docs")));
    paths.retain(|path| !path.ends_with("error-codes.md") && !path.ends_with("boot-codes.md"));
    paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}

/// What a page shows: lines of its blocks that begin with the program's name, and such words in
/// backticks.
fn commands(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (number, part) in page.split("```").enumerate() {
        if number % 2 == 1 {
            let joined = part.replace("\\\n", " ");
            let lines = joined.lines().filter(|line| line.starts_with("flare-cvm "));
            let lines = lines.filter_map(|line| line.split(" # ").next());
            found.extend(lines.map(|line| line.replace('…', " ")));
        } else {
            let inline = part.split('`').skip(1).step_by(2);
            let inline = inline.filter(|words| words.starts_with("flare-cvm "));
            found.extend(inline.map(|words| words.replace('…', " ")));
        }
    }
    found
}

#[test]
fn every_command_of_the_pages_is_one() {
    let commands: Vec<String> = pages().iter().flat_map(|page| commands(page)).collect();
    assert!(commands.len() > 40, "the commands were found: {}", commands.len());
    for command in commands {
        let words = command.split_whitespace().skip(1).chain(["--help"]);
        let run = flare_cvm(&words.collect::<Vec<_>>());
        // IMAGE and its like are no values, and are not meant to be.
        let good = run.status == Some(0) || run.err.starts_with("error: invalid value");
        assert!(good, "{command}\n{}", run.err);
    }
}
