//! What each program links: the trust domains, as cargo resolves them.
//!
//! A crate that is not linked cannot be named, by any line of a program's source or by a crate
//! that it uses. Features count as cargo unifies them over the whole workspace, so that no build,
//! of however much at once, brings in more.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use serde_json::Value;

/// Whose every crate of this workspace is known: what opens disks in the guest.
const GUEST: [(&str, &[&str]); 3] = [
    (
        "cvm-init",
        &[
            "cvm-base",
            "cvm-ceremony",
            "cvm-collect",
            "cvm-evidence",
            "cvm-layout",
            "cvm-release",
            "cvm-release-https",
            "cvm-seal",
        ],
    ),
    (
        "cvm-jobs",
        &[
            "cvm-base",
            "cvm-ceremony",
            "cvm-collect",
            "cvm-evidence",
            "cvm-init",
            "cvm-layout",
            "cvm-release",
            "cvm-release-https",
            "cvm-seal",
        ],
    ),
    ("cvm-data", &["cvm-base", "cvm-layout"]),
];

/// Who must not link what, besides.
const NEVER: [(&str, &[&str]); 5] = [
    ("cvm-init", PARTY),
    ("cvm-jobs", PARTY),
    ("cvm-data", PARTY),
    // It judges its peers, and so has the verifiers; it asks no vendor and predicts nothing.
    ("cvm-agent", &["cvm-fetch", "cvm-image", "cvm-keyholder", "cvm-predict", "cvm-seal"]),
    ("cvm-keyholder", &["cvm-fetch", "cvm-image", "cvm-predict", "cvm-seal", "tss-esapi"]),
];

/// What belongs to a party or to the builder: verifiers, policies, collateral, predictions, and
/// what they bring (Rego, certificates, XML, long-term secrets on disk).
const PARTY: &[&str] = &[
    "age",
    "cvm-agent",
    "cvm-collateral",
    "cvm-fetch",
    "cvm-image",
    "cvm-keyholder",
    "cvm-policy",
    "cvm-predict",
    "cvm-verify",
    "igvm",
    "rcgen",
    "regorus",
    "roxmltree",
    "rsa",
    "x509-cert",
];

struct Workspace {
    names: BTreeMap<String, String>,
    links: BTreeMap<String, Vec<String>>,
    own: BTreeSet<String>,
}

impl Workspace {
    fn read() -> Self {
        let cargo = std::env::var("CARGO").unwrap_or("cargo".into());
        let output = Command::new(cargo)
            .args(["metadata", "--format-version=1", "--locked", "--offline", "--manifest-path"])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
        let list = |value: &Value| value.as_array().unwrap().clone();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let packages = list(&metadata["packages"]);
        // A macro runs in the compiler, with all that it links.
        let in_the_compiler: BTreeSet<String> = packages
            .iter()
            .filter(|p| list(&p["targets"]).iter().any(|t| t["kind"][0] == "proc-macro"))
            .map(|p| text(&p["id"]))
            .collect();
        let normal = |dependency: &Value| {
            list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null())
        };
        let links = list(&metadata["resolve"]["nodes"]).into_iter().map(|node| {
            let to = list(&node["deps"]).into_iter().filter(normal).map(|d| text(&d["pkg"]));
            (text(&node["id"]), to.filter(|id| !in_the_compiler.contains(id)).collect())
        });
        Self {
            links: links.collect(),
            own: list(&metadata["workspace_members"]).iter().map(text).collect(),
            names: packages.iter().map(|p| (text(&p["id"]), text(&p["name"]))).collect(),
        }
    }

    /// Everything that a package of this workspace links, directly and through others.
    fn linked(&self, package: &str) -> BTreeSet<&str> {
        let start = self.own.iter().find(|id| self.names[*id] == package);
        let start = start.unwrap_or_else(|| panic!("no package {package}"));
        let mut seen = BTreeSet::new();
        let mut next = vec![start];
        while let Some(id) = next.pop() {
            if seen.insert(id) {
                next.extend(&self.links[id]);
            }
        }
        seen.remove(start);
        seen.into_iter().map(|id| self.names[id].as_str()).collect()
    }
}

#[test]
fn what_opens_disks_links_the_crates_that_are_listed_and_no_others() {
    let workspace = Workspace::read();
    for (program, listed) in GUEST {
        let linked = workspace.linked(program);
        let own: BTreeSet<&str> =
            workspace.own.iter().map(|id| workspace.names[id].as_str()).collect();
        let found: Vec<&str> = linked.intersection(&own).copied().collect();
        assert_eq!(found, listed, "{program}");
        println!("{program}: {} crates, of them {}", linked.len(), found.join(", "));
    }
}

#[test]
fn no_program_links_what_its_trust_domain_must_not_have() {
    let workspace = Workspace::read();
    for (program, forbidden) in NEVER {
        let linked = workspace.linked(program);
        let found: Vec<&&str> = forbidden.iter().filter(|name| linked.contains(**name)).collect();
        assert!(found.is_empty(), "{program} links {found:?}");
    }
}

/// Invariant 13: nothing on the boot path fetches.
#[test]
fn the_command_line_alone_links_the_fetcher() {
    let workspace = Workspace::read();
    let who = workspace.own.iter().map(|id| workspace.names[id].as_str());
    let found: Vec<&str> =
        who.filter(|name| workspace.linked(name).contains("cvm-fetch")).collect();
    assert_eq!(found, ["flare-cvm"]);
}
