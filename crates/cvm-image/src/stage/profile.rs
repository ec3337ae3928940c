//! Distributions: where a stage without a base begins.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use super::StageError;
use crate::{WorkError, tool};

/// A distribution that stages can be built from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// Its name in `stage.yaml` and on the command line.
    pub name: &'static str,
    /// The suite in apt's sources.
    suite: &'static str,
}

const PROFILES: [Profile; 1] = [Profile { name: "debian-12", suite: "bookworm" }];

/// Where the unpacking leaves the packages' names.
const PACKAGE_LIST: &str = ".flare-cvm-packages";

impl Profile {
    /// The profile of that name.
    pub fn named(name: &str) -> Result<Self, StageError> {
        PROFILES.into_iter().find(|profile| profile.name == name).ok_or_else(|| StageError::UnknownProfile {
            found: name.into(),
            known: PROFILES.map(|profile| profile.name).join(", "),
        })
    }

    /// Unpacks `packages` and what they depend on into the new folder `tree`; gives their names. `NAME/SUITE`,
    /// as apt-get writes it, takes a package from another suite of the same mirror, as bookworm-backports.
    ///
    /// Unpacked and not installed: no maintainer script runs, so that nothing of this machine finds
    /// its way into the tree. The mirror is the one that this machine's own apt uses.
    pub(super) fn unpack(self, packages: &[String], tree: &Path, work: &Path) -> Result<Vec<String>, StageError> {
        let suites = packages.iter().filter_map(|package| Some(package.split_once('/')?.1)).collect();
        let sources = self.sources(Path::new("/etc/apt"), &suites, work)?;
        let mut command = tool::command("mmdebstrap");
        command.args(["--mode=root", "--variant=extract", "--format=directory", "--quiet"]);
        command.arg(format!("--include={}", packages.join(",")));
        command.arg("--aptopt=Acquire::Languages \"none\"");
        for folder in ["man", "locale", "doc", "info"] {
            command.arg(format!("--dpkgopt=path-exclude=/usr/share/{folder}/*"));
        }
        // Merged /usr, as every installed Debian 12 and Ubuntu 22.04 has it.
        command.arg(r#"--setup-hook=for d in bin sbin lib lib64; do mkdir -p "$1/usr/$d"; ln -s usr/$d "$1/$d"; done"#);
        command.arg(format!(r#"--extract-hook=ls "$1/var/cache/apt/archives" > "$1/{PACKAGE_LIST}""#));
        command.arg(self.suite).arg(tree).args(sources);
        tool::run("mmdebstrap", "unpacking the distribution", command)?;

        let list = tree.join(PACKAGE_LIST);
        let names = fs::read_to_string(&list).map_err(WorkError::io("read", &list))?;
        fs::remove_file(&list).map_err(WorkError::io("remove", &list))?;
        Ok(names.lines().filter_map(|line| line.strip_suffix(".deb")).map(|name| name.replace("%3a", ":")).collect())
    }

    /// The sources of this suite's `main` from the machine's apt configuration, and `more` suites of the same
    /// mirror, as files in `work`.
    fn sources(self, apt: &Path, more: &BTreeSet<&str>, work: &Path) -> Result<Vec<PathBuf>, StageError> {
        let mut files = vec![apt.join("sources.list")];
        let folder = apt.join("sources.list.d");
        files.extend(fs::read_dir(&folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())));
        files.sort();
        let mut kept = Vec::new();
        for file in files {
            let Ok(text) = fs::read_to_string(&file) else { continue };
            match file.extension().and_then(|e| e.to_str()) {
                Some("sources") => kept.push((self.stanzas(&text), "sources")),
                Some("list") => kept.push((self.lines(&text), "list")),
                _ => {}
            }
        }
        // The machine's own sources need not name a further suite: its mirror has it.
        let moved = |suite: &&str| kept.iter().find_map(|(text, format)| Some((self.moved(text, suite)?, *format)));
        let moved: Vec<_> = more.iter().filter_map(moved).collect();
        let mut found = Vec::new();
        for (text, format) in kept.into_iter().chain(moved).filter(|(text, _)| !text.is_empty()) {
            let copy = work.join(format!("apt-{}.{format}", found.len()));
            fs::write(&copy, text).map_err(WorkError::io("write", &copy))?;
            found.push(copy);
        }
        if found.is_empty() { Err(StageError::NoAptSource { suite: self.suite }) } else { Ok(found) }
    }

    /// The first source of the suite itself, a paragraph or a line, with another suite in its place.
    fn moved(self, sources: &str, suite: &str) -> Option<String> {
        let is_suites = |line: &str| line.to_ascii_lowercase().starts_with("suites:");
        let has = |text: &str| text.split_whitespace().any(|word| word == self.suite);
        let replaced = |line: &str| match is_suites(line) {
            true => format!("Suites: {suite}\n"),
            false => format!("{}\n", line.replace(&format!(" {} ", self.suite), &format!(" {suite} "))),
        };
        let paragraph =
            sources.split("\n\n").find(|paragraph| paragraph.lines().any(|line| is_suites(line) && has(line)));
        let source = paragraph.or_else(|| sources.lines().find(|line| line.starts_with("deb ") && has(line)))?;
        Some(source.lines().map(replaced).collect())
    }

    fn is_own_suite(self, word: &str) -> bool {
        word.strip_prefix(self.suite).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }

    /// Of a file in the deb822 format, the paragraphs that belong here.
    fn stanzas(self, text: &str) -> String {
        let field = |stanza: &str, name: &str| -> String {
            let line =
                |line: &str| Some(line.split_once(':').filter(|(key, _)| key.eq_ignore_ascii_case(name))?.1.to_owned());
            stanza.lines().find_map(line).unwrap_or_default()
        };
        let own = |stanza: &&str| {
            field(stanza, "Suites").split_whitespace().any(|word| self.is_own_suite(word))
                && field(stanza, "Components").split_whitespace().any(|word| word == "main")
                && field(stanza, "Types").split_whitespace().any(|word| word == "deb")
                && field(stanza, "Enabled").trim() != "no"
        };
        text.split("\n\n").filter(own).collect::<Vec<_>>().join("\n\n")
    }

    /// Of a file with one source a line, the lines that belong here.
    fn lines(self, text: &str) -> String {
        let own = |line: &&str| {
            let mut words = line.split_whitespace();
            words.next() == Some("deb")
                && words.clone().any(|word| self.is_own_suite(word))
                && words.any(|word| word == "main")
        };
        text.lines().filter(own).map(|line| format!("{line}\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_suites_own_sources_are_taken() {
        let apt = tempfile::tempdir().unwrap();
        let work = tempfile::tempdir().unwrap();
        let folder = apt.path().join("sources.list.d");
        fs::create_dir(&folder).unwrap();
        let list = "# a comment\ndeb http://mirror.test/debian bookworm main\ndeb http://other.test/ stable main\ndeb-src http://mirror.test/debian bookworm main\n";
        fs::write(apt.path().join("sources.list"), list).unwrap();
        let stanza = |suite: &str, more: &str| {
            format!("Types: deb\nURIs: http://mirror.test/{suite}\nSuites: {suite}\nComponents: main\n{more}")
        };
        let text = [
            stanza("bookworm bookworm-updates", ""),
            stanza("cloud-bookworm", ""),
            stanza("bookworm-security", "Enabled: no\n"),
        ];
        fs::write(folder.join("a.sources"), text.join("\n")).unwrap();
        fs::write(folder.join("b.list"), "deb http://docker.test/ bookworm stable\n").unwrap();
        fs::write(folder.join("c.disabled"), list).unwrap();

        let read = |more: &[&'static str]| -> Vec<String> {
            let more = more.iter().copied().collect();
            let files = Profile::named("debian-12").unwrap().sources(apt.path(), &more, work.path()).unwrap();
            files.iter().map(|file| fs::read_to_string(file).unwrap()).collect()
        };
        let texts = read(&[]);
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert_eq!(texts[0].trim(), "deb http://mirror.test/debian bookworm main");
        assert!(texts[1].contains("bookworm-updates") && !texts[1].contains("cloud") && !texts[1].contains("security"));
        // A further suite is asked of the first source's mirror, in that source's format.
        let backports = "bookworm-backports";
        assert_eq!(read(&[backports])[2].trim(), "deb http://mirror.test/debian bookworm-backports main");
        fs::remove_file(apt.path().join("sources.list")).unwrap();
        let paragraph =
            stanza("bookworm bookworm-updates", "").replace("bookworm bookworm-updates\nC", "bookworm-backports\nC");
        assert_eq!(read(&[backports])[1], paragraph);
    }

    #[test]
    fn a_machine_without_a_source_is_told_so() {
        let apt = tempfile::tempdir().unwrap();
        let error = Profile::named("debian-12").unwrap().sources(apt.path(), &BTreeSet::new(), apt.path()).unwrap_err();
        assert!(matches!(error, StageError::NoAptSource { suite: "bookworm" }));
        assert!(Profile::named("debian-99").is_err());
    }
}
