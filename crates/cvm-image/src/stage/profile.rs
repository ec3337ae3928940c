//! Distributions: where a stage without a base begins.

use std::{
    collections::BTreeMap,
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
    /// The suite that the kernel comes from.
    kernel_suite: &'static str,
    /// A folder in the first stage's folder, with what this profile adds: a driver.
    pub(super) addition: Option<&'static str>,
}

const DEBIAN_12: Profile = Profile {
    name: "debian-12",
    suite: "bookworm",
    kernel_suite: "bookworm-backports",
    addition: None,
};
const PROFILES: [Profile; 3] = [
    DEBIAN_12,
    Profile { name: "debian-12-nvidia", addition: Some("nvidia"), ..DEBIAN_12 },
    // Linux 6.16 and later can extend RTMR3.
    Profile { name: "debian-12-tdx", kernel_suite: "trixie-backports", ..DEBIAN_12 },
];

/// In the suite of a package: replaced by the profile's suite for kernels.
const KERNEL_SUITE: &str = "@KERNEL_SUITE@";

/// Where the unpacking leaves the packages' names.
const PACKAGE_LIST: &str = ".flare-cvm-packages";

/// Packages of another suite that are unpacked beside a root, without their dependencies.
pub(super) struct Beside<'a> {
    pub(super) packages: &'a [String],
    pub(super) suite: &'a str,
    /// The suite's components, as apt writes them.
    pub(super) components: String,
}

impl Beside<'_> {
    /// Where in the root they are unpacked.
    pub(super) const FOLDER: &'static str = "beside";
}

impl Profile {
    /// The profile of that name.
    pub fn named(name: &str) -> Result<Self, StageError> {
        PROFILES.into_iter().find(|profile| profile.name == name).ok_or_else(|| {
            StageError::UnknownProfile {
                found: name.into(),
                known: PROFILES.map(|profile| profile.name).join(", "),
            }
        })
    }

    /// Unpacks `packages` and what they depend on into the new folder `tree`; gives their names.
    /// `NAME/SUITE`, as apt-get writes it, takes a package from another suite of the same mirror,
    /// such as bookworm-backports.
    ///
    /// The packages are unpacked and not installed: no maintainer script runs, so that nothing of
    /// this machine gets into the tree. The mirror is the one that this machine's apt uses.
    pub(super) fn unpack(
        self,
        packages: &[String],
        tree: &Path,
        work: &Path,
    ) -> Result<Vec<String>, StageError> {
        let packages = &self.with_suites(packages);
        let sources = self.sources(Path::new("/etc/apt"), &further(packages), work)?;
        let hook =
            format!(r#"--extract-hook=ls "$1/var/cache/apt/archives" > "$1/{PACKAGE_LIST}""#);
        mmdebstrap("unpacking the distribution", self.suite, packages, &hook, tree, sources)?;
        names(&tree.join(PACKAGE_LIST))
    }

    /// As [`Self::unpack`], with `beside` unpacked in a folder of its own. Gives the names of the
    /// packages of `beside`.
    pub(super) fn unpack_beside(
        self,
        packages: &[String],
        beside: &Beside,
        tree: &Path,
        work: &Path,
    ) -> Result<Vec<String>, StageError> {
        let packages = &self.with_suites(packages);
        let mut suites = further(packages);
        suites.insert(beside.suite, Some(&beside.components));
        let sources = self.sources(Path::new("/etc/apt"), &suites, work)?;
        let looked_at = looked_at(&sources, beside.suite);
        let wanted: Vec<_> =
            beside.packages.iter().map(|name| format!("{name}/{}", beside.suite)).collect();
        let hook = format!(
            r#"--extract-hook=set -e; mkdir "$1/{0}"; cd "$1/{0}"
               APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get download {1}; ls > "$1/{PACKAGE_LIST}"
               for deb in *.deb; do dpkg-deb --extract "$deb" .; rm "$deb"; done"#,
            Beside::FOLDER,
            wanted.join(" "),
        );
        let fetched = mmdebstrap("fetching a driver", self.suite, packages, &hook, tree, sources);
        fetched.map_err(|error| match error {
            WorkError::Tool { output, .. } => StageError::NoDriver { looked_at, problem: output },
            error => error.into(),
        })?;
        names(&tree.join(PACKAGE_LIST))
    }

    fn with_suites(self, packages: &[String]) -> Vec<String> {
        packages.iter().map(|name| name.replace(KERNEL_SUITE, self.kernel_suite)).collect()
    }

    /// Writes sources to `work`: those of this suite's `main` in the machine's apt configuration,
    /// and the suites `more` on the same mirror, each with its own components if it has any.
    fn sources(self, apt: &Path, more: &Suites, work: &Path) -> Result<Vec<PathBuf>, StageError> {
        let mut files = vec![apt.join("sources.list")];
        let folder = apt.join("sources.list.d");
        files.extend(
            fs::read_dir(&folder)
                .into_iter()
                .flatten()
                .filter_map(|entry| Some(entry.ok()?.path())),
        );
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
        // The machine's own sources need not name a further suite: the mirror has it.
        let moved = |(suite, components): (&&str, &Option<&str>)| {
            kept.iter()
                .find_map(|(text, format)| Some((self.moved(text, suite, *components)?, *format)))
        };
        let moved: Vec<_> = more.iter().filter_map(moved).collect();
        let mut found = Vec::new();
        for (text, format) in kept.into_iter().chain(moved).filter(|(text, _)| !text.is_empty()) {
            let copy = work.join(format!("apt-{}.{format}", found.len()));
            fs::write(&copy, text).map_err(WorkError::io("write", &copy))?;
            found.push(copy);
        }
        if found.is_empty() {
            Err(StageError::NoAptSource { suite: self.suite })
        } else {
            Ok(found)
        }
    }

    /// The first source of the suite itself, a paragraph or a line, with another suite in its
    /// place, and other components if they are given.
    fn moved(self, sources: &str, suite: &str, components: Option<&str>) -> Option<String> {
        let has = |text: &str| text.split_whitespace().any(|word| word == self.suite);
        let replaced = |line: &str| {
            if !field(line, "Suites").is_empty() {
                return format!("Suites: {suite}\n");
            }
            if !field(line, "Components").is_empty() {
                return components.map_or(format!("{line}\n"), |components| {
                    format!("Components: {components}\n")
                });
            }
            match line.split_once(&format!(" {} ", self.suite)) {
                Some((before, after)) => {
                    format!("{before} {suite} {}\n", components.unwrap_or(after))
                }
                None => format!("{line}\n"),
            }
        };
        let paragraph = sources.split("\n\n").find(|paragraph| has(field(paragraph, "Suites")));
        let source = paragraph
            .or_else(|| sources.lines().find(|line| line.starts_with("deb ") && has(line)))?;
        Some(source.lines().map(replaced).collect())
    }

    fn is_own_suite(self, word: &str) -> bool {
        word.strip_prefix(self.suite).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }

    /// The paragraphs of a deb822 file that belong to this suite.
    fn stanzas(self, text: &str) -> String {
        let own = |stanza: &&str| {
            field(stanza, "Suites").split_whitespace().any(|word| self.is_own_suite(word))
                && field(stanza, "Components").split_whitespace().any(|word| word == "main")
                && field(stanza, "Types").split_whitespace().any(|word| word == "deb")
                && field(stanza, "Enabled").trim() != "no"
        };
        text.split("\n\n").filter(own).collect::<Vec<_>>().join("\n\n")
    }

    /// The lines of a file with one source per line that belong to this suite.
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

/// Further suites, and their components where these are not just `main`.
type Suites<'a> = BTreeMap<&'a str, Option<&'a str>>;

/// The suites that packages name.
fn further(packages: &[String]) -> Suites<'_> {
    packages.iter().filter_map(|package| Some((package.split_once('/')?.1, None))).collect()
}

/// The sources of a suite, for a message: each file's text without its comments, in one line.
fn looked_at(sources: &[PathBuf], suite: &str) -> String {
    let texts = sources.iter().filter_map(|file| fs::read_to_string(file).ok());
    let of_suite = texts.filter(|text| text.split_whitespace().any(|word| word == suite));
    let line = |text: String| {
        let lines = text.lines().filter(|line| !line.starts_with('#')).map(str::trim);
        lines.collect::<Vec<_>>().join(" ")
    };
    of_suite.map(line).collect::<Vec<_>>().join("; ")
}

fn mmdebstrap(
    step: &'static str,
    suite: &str,
    packages: &[String],
    hook: &str,
    tree: &Path,
    sources: Vec<PathBuf>,
) -> Result<(), WorkError> {
    let mut command = tool::command("mmdebstrap");
    command.args(["--mode=root", "--variant=extract", "--format=directory", "--quiet"]);
    command.arg(format!("--include={}", packages.join(",")));
    command.arg("--aptopt=Acquire::Languages \"none\"");
    for folder in ["man", "locale", "doc", "info"] {
        command.arg(format!("--dpkgopt=path-exclude=/usr/share/{folder}/*"));
    }
    // Merged /usr, as every installed Debian 12 and Ubuntu 22.04 has it.
    command.arg(concat!(
        r#"--setup-hook=for d in bin sbin lib lib64; do mkdir -p "$1/usr/$d"; "#,
        r#"ln -s usr/$d "$1/$d"; done"#
    ));
    command.arg(hook);
    command.arg(suite).arg(tree).args(sources);
    tool::run("mmdebstrap", step, command).map(drop)
}

/// Reads the packages from a list of their files, and removes the list.
fn names(list: &Path) -> Result<Vec<String>, StageError> {
    let names = fs::read_to_string(list).map_err(WorkError::io("read", list))?;
    fs::remove_file(list).map_err(WorkError::io("remove", list))?;
    Ok(names
        .lines()
        .filter_map(|line| line.strip_suffix(".deb"))
        .map(|name| name.replace("%3a", ":"))
        .collect())
}

/// A field of a paragraph in the deb822 format; empty where it has none.
fn field<'a>(stanza: &'a str, name: &str) -> &'a str {
    let value = |line: &'a str| {
        Some(line.split_once(':').filter(|(key, _)| key.eq_ignore_ascii_case(name))?.1)
    };
    stanza.lines().find_map(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "# a comment\ndeb http://mirror.test/debian bookworm main\ndeb \
        http://other.test/ stable main\ndeb-src http://mirror.test/debian bookworm main\n";

    fn stanza(suite: &str, more: &str) -> String {
        format!(
            "Types: deb\nURIs: http://mirror.test/{suite}\nSuites: {suite}\n\
             Components: main\n{more}"
        )
    }

    /// A machine's `/etc/apt`, with sources that belong to Debian 12 and others.
    struct Apt {
        folder: tempfile::TempDir,
        work: tempfile::TempDir,
    }

    impl Apt {
        fn new() -> Self {
            let apt =
                Self { folder: tempfile::tempdir().unwrap(), work: tempfile::tempdir().unwrap() };
            let folder = apt.folder.path().join("sources.list.d");
            fs::create_dir(&folder).unwrap();
            fs::write(apt.folder.path().join("sources.list"), LIST).unwrap();
            let text = [
                stanza("bookworm bookworm-updates", ""),
                stanza("cloud-bookworm", ""),
                stanza("bookworm-security", "Enabled: no\n"),
            ];
            fs::write(folder.join("a.sources"), text.join("\n")).unwrap();
            fs::write(folder.join("b.list"), "deb http://docker.test/ bookworm stable\n").unwrap();
            fs::write(folder.join("c.disabled"), LIST).unwrap();
            apt
        }

        fn read(&self, more: &[(&'static str, Option<&'static str>)]) -> Vec<String> {
            let more = more.iter().copied().collect();
            let files = Profile::named("debian-12")
                .unwrap()
                .sources(self.folder.path(), &more, self.work.path())
                .unwrap();
            files.iter().map(|file| fs::read_to_string(file).unwrap()).collect()
        }
    }

    #[test]
    fn only_the_suites_own_sources_are_taken() {
        let texts = Apt::new().read(&[]);
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert_eq!(texts[0].trim(), "deb http://mirror.test/debian bookworm main");
        assert!(
            texts[1].contains("bookworm-updates")
                && !texts[1].contains("cloud")
                && !texts[1].contains("security")
        );
    }

    #[test]
    fn a_further_suite_comes_from_the_first_sources_mirror_in_its_format() {
        let apt = Apt::new();
        let backports = ("bookworm-backports", None);
        assert_eq!(
            apt.read(&[backports])[2].trim(),
            "deb http://mirror.test/debian bookworm-backports main"
        );
        let other = ("trixie", Some("contrib non-free"));
        assert_eq!(
            apt.read(&[other])[2].trim(),
            "deb http://mirror.test/debian trixie contrib non-free"
        );
        fs::remove_file(apt.folder.path().join("sources.list")).unwrap();
        let paragraph = stanza("bookworm bookworm-updates", "")
            .replace("bookworm bookworm-updates\nC", "bookworm-backports\nC");
        assert_eq!(apt.read(&[backports])[1], paragraph);
        let moved = apt.read(&[other]);
        assert!(moved[1].contains("\nSuites: trixie\nComponents: contrib non-free\n"), "{moved:?}");
        let files: Vec<PathBuf> =
            (0..2).map(|n| apt.work.path().join(format!("apt-{n}.sources"))).collect();
        let said = looked_at(&files, "trixie");
        assert!(
            said.contains("http://mirror.test/") && said.ends_with("Components: contrib non-free"),
            "{said}"
        );
    }

    #[test]
    fn a_machine_without_a_source_is_told_so() {
        let apt = tempfile::tempdir().unwrap();
        let error = Profile::named("debian-12")
            .unwrap()
            .sources(apt.path(), &Suites::new(), apt.path())
            .unwrap_err();
        assert!(matches!(error, StageError::NoAptSource { suite: "bookworm" }));
        assert!(Profile::named("debian-99").is_err());
    }
}
