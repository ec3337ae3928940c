//! Distributions: where a stage without a base begins.

use std::{
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

    /// Unpacks `packages` and what they depend on into the new folder `tree`; gives their names.
    ///
    /// Unpacked and not installed: no maintainer script runs, so that nothing of this machine finds
    /// its way into the tree. The mirror is the one that this machine's own apt uses.
    pub(super) fn unpack(self, packages: &[String], tree: &Path, work: &Path) -> Result<Vec<String>, StageError> {
        let sources = self.sources(Path::new("/etc/apt"), work)?;
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

    /// The sources of this suite's `main` from the machine's apt configuration, as files in `work`.
    fn sources(self, apt: &Path, work: &Path) -> Result<Vec<PathBuf>, StageError> {
        let mut files = vec![apt.join("sources.list")];
        let folder = apt.join("sources.list.d");
        files.extend(fs::read_dir(&folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())));
        files.sort();
        let mut found = Vec::new();
        for file in files {
            let Ok(text) = fs::read_to_string(&file) else { continue };
            let (kept, extension) = match file.extension().and_then(|e| e.to_str()) {
                Some("sources") => (self.stanzas(&text), "sources"),
                Some("list") => (self.lines(&text), "list"),
                _ => continue,
            };
            if !kept.is_empty() {
                let copy = work.join(format!("apt-{}.{extension}", found.len()));
                fs::write(&copy, kept).map_err(WorkError::io("write", &copy))?;
                found.push(copy);
            }
        }
        if found.is_empty() { Err(StageError::NoAptSource { suite: self.suite }) } else { Ok(found) }
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

        let files = Profile::named("debian-12").unwrap().sources(apt.path(), work.path()).unwrap();
        let texts: Vec<String> = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert_eq!(texts[0].trim(), "deb http://mirror.test/debian bookworm main");
        assert!(texts[1].contains("bookworm-updates") && !texts[1].contains("cloud") && !texts[1].contains("security"));
    }

    #[test]
    fn a_machine_without_a_source_is_told_so() {
        let apt = tempfile::tempdir().unwrap();
        let error = Profile::named("debian-12").unwrap().sources(apt.path(), apt.path()).unwrap_err();
        assert!(matches!(error, StageError::NoAptSource { suite: "bookworm" }));
        assert!(Profile::named("debian-99").is_err());
    }
}
