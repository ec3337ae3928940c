//! The release policy: Rego over the same input as Trustee's.

use std::{fs, path::Path};

use cvm_base::{Bytes32, read_bounded, read_text};
use cvm_collateral::{Cache, read_public_key, tee::Vendors};
use cvm_evidence::AttestError;
use cvm_release::messages::MachineRule;
use cvm_release_server::{Fault, PolicyAnswer, ReleasePolicy};
use cvm_verify::{Roots, x509::read_crls};
use serde_json::Value;

use crate::error::KeyHolderError;

/// The policy's name in its folder.
pub const POLICY_FILE: &str = "policy.rego";
/// The folder, beside it, with the PEM certificates of those who may endorse TPMs.
pub const EK_ROOTS: &str = "ek-roots";
/// The folder, beside it, with vendors' collateral as `flare-cvm collateral` collects it.
pub const COLLATERAL: &str = "collateral";
/// The public key of whoever collected it, here or elsewhere: evidence may bring a cache along.
pub const COLLECTOR: &str = "collateral.pub";
/// A file of this name in a test's policy folder accepts `sample` evidence, which anybody can make.
pub const ALLOW_SAMPLE: &str = "ALLOW-SAMPLE-EVIDENCE-FOR-TESTS";
/// More than any policy or list of roots needs, in bytes.
const MAX_BYTES: u64 = 1024 * 1024;
/// The optional rule that says what the machine may keep: a set of `"bind"` and `"offline"`.
const MACHINE_RULE: &str = "machine";

/// A policy folder, read once.
pub struct PolicyFolder {
    /// The rules.
    pub policy: RegoPolicy,
    /// Who may endorse a TPM; none trusts nobody.
    pub roots: Roots,
    /// Who makes TEEs, and what they published.
    pub vendors: Vendors,
    /// Whether sample evidence passes.
    pub allow_sample: bool,
}

impl PolicyFolder {
    /// Reads `policy.rego`, `ek-roots/*.pem` and `ek-roots/*.crl`, `collateral/` and
    /// `collateral.pub`.
    pub fn read(folder: &Path) -> Result<Self, KeyHolderError> {
        let path = folder.join(POLICY_FILE);
        let text = read_bounded(&path, MAX_BYTES)?;
        let policy =
            RegoPolicy::new(text).map_err(|problem| KeyHolderError::Policy { path, problem })?;
        let roots = roots(&folder.join(EK_ROOTS))?;
        let vendors = vendors(folder)?;
        Ok(Self { policy, roots, vendors, allow_sample: folder.join(ALLOW_SAMPLE).exists() })
    }
}

fn vendors(folder: &Path) -> Result<Vendors, KeyHolderError> {
    let builtin = |e| KeyHolderError::Internal {
        doing: "reading the vendors' roots",
        problem: format!("{e}"),
    };
    let vendors = Vendors::genuine().map_err(builtin)?;
    let (path, collector) = (folder.join(COLLATERAL), folder.join(COLLECTOR));
    let fail = |source| KeyHolderError::Collateral { path: path.clone(), source };
    if !path.exists() && !collector.exists() {
        return Ok(vendors);
    }
    let key = read_public_key(&collector).map_err(fail)?;
    let vendors = vendors.with_collectors(vec![key]);
    if !path.exists() {
        return Ok(vendors);
    }
    Ok(vendors.with_collateral(Cache::open(&path, &[key]).map_err(fail)?))
}

fn roots(folder: &Path) -> Result<Roots, KeyHolderError> {
    let io = |source| cvm_base::FileError::Io {
        action: "read the folder",
        path: folder.to_owned(),
        source,
    };
    let mut pem = Vec::new();
    let mut files = match fs::read_dir(folder) {
        Ok(files) => {
            files.map(|file| file.map(|f| f.path())).collect::<Result<Vec<_>, _>>().map_err(io)?
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(io(e).into()),
    };
    files.sort();
    let of = |kind: &'static str| {
        files.iter().filter(move |file| file.extension().is_some_and(|e| e == kind))
    };
    let fail = |source| KeyHolderError::Roots { path: folder.to_owned(), source };
    for file in of("pem") {
        pem.extend(read_text(file, MAX_BYTES)?);
        pem.push(b'\n');
    }
    let mut crls = Vec::new();
    for file in of("crl") {
        let lists = read_crls(&read_text(file, MAX_BYTES)?);
        crls.extend(lists.map_err(|e| {
            fail(AttestError::Roots { problem: format!("{}: {e}", file.display()) })
        })?);
    }
    if pem.is_empty() {
        return Ok(Roots::default());
    }
    Roots::from_pem(&pem).and_then(|roots| roots.with_crls(&crls)).map_err(fail)
}

/// Rules in `package policy`; `allow` decides. The engine and its bounds are
/// [`cvm_policy`]'s.
pub struct RegoPolicy(cvm_policy::Policy);

impl RegoPolicy {
    /// Compiles a policy; the error is for people.
    pub fn new(text: Vec<u8>) -> Result<Self, String> {
        cvm_policy::Policy::compile(POLICY_FILE, &text).map(Self).map_err(|e| e.to_string())
    }
}

impl ReleasePolicy for RegoPolicy {
    fn digest(&self) -> Bytes32 {
        self.0.digest()
    }

    fn decide(&self, input: &Value, data: &Value) -> Result<PolicyAnswer, Fault> {
        let decision = self
            .0
            .decide(input, data)
            .map_err(|problem| Fault::new("evaluating the policy", problem))?;
        Ok(if decision.allowed { PolicyAnswer::Yes } else { PolicyAnswer::No(decision.reasons) })
    }

    fn machine(&self, input: &Value, data: &Value) -> Result<MachineRule, Fault> {
        let words = self.0.words(MACHINE_RULE, input, data);
        let words = words.map_err(|problem| Fault::new("evaluating the policy", problem))?;
        let has = |word: &str| words.iter().any(|found| found == word);
        Ok(MachineRule { bind: has("bind"), offline: has("offline") })
    }
}

#[cfg(test)]
mod tests {
    use cvm_base::sha256;
    use serde_json::json;

    use super::*;

    fn policy(text: &str) -> Result<RegoPolicy, String> {
        RegoPolicy::new(text.into())
    }

    fn allows(policy: &RegoPolicy, input: &Value, data: &Value) -> bool {
        policy.decide(input, data).unwrap() == PolicyAnswer::Yes
    }

    #[test]
    fn a_refusal_carries_what_the_policys_deny_rule_says() {
        let text = "package policy\ndefault allow := false\nallow if input.a\n\
                    deny contains \"svn 3, expected 4\" if input.svn == 3\n";
        let answer =
            policy(text).unwrap().decide(&json!({"a": true, "svn": 3}), &json!({})).unwrap();
        assert_eq!(answer, PolicyAnswer::No(vec!["svn 3, expected 4".into()]));
    }

    #[test]
    fn nvflares_published_policy_runs_unchanged() {
        let text = concat!(
            "package policy\ndefault allow = false\n",
            r#"allow { input["submods"]["cpu0"]["ear.veraison.annotated-evidence"]["snp"]"#,
            r#"["measurement"] == "abc" }"#
        );
        let policy = policy(text).unwrap();
        let input = |m: &str| {
            let evidence = json!({"ear.veraison.annotated-evidence": {"snp": {"measurement": m}}});
            json!({"submods": {"cpu0": evidence}})
        };
        assert!(allows(&policy, &input("abc"), &json!({})));
        assert!(!allows(&policy, &input("abd"), &json!({})));
        assert_eq!(policy.digest(), sha256(text.as_bytes()));
    }

    #[test]
    fn rego_v1_runs_and_sees_the_request_and_the_reference() {
        let policy = policy(
            r#"package policy
default allow := false
allow if {
    data.plugin == "resource"
    data["resource-path"][2] == data.reference.image_id
    every pcr in ["4", "11"] { input.pcrs[pcr] == data.reference.tpm.pcrs[pcr] }
}"#,
        )
        .unwrap();
        let data = json!({"plugin": "resource", "resource-path": ["flare-cvm", "half", "i"],
                          "reference": {"image_id": "i", "tpm": {"pcrs": {"4": "a", "11": "b"}}}});
        assert!(allows(&policy, &json!({"pcrs": {"4": "a", "11": "b"}}), &data));
        assert!(!allows(&policy, &json!({"pcrs": {"4": "a"}}), &data));
    }

    #[test]
    fn a_policy_that_would_release_to_anybody_is_refused() {
        for (text, problem) in [
            ("package policy\nallow = true", "without any evidence"),
            ("package other\ndefault allow = false", "its package"),
            ("package policy\ndefault allow = ", "policy.rego line 2"),
        ] {
            let found = policy(text).err().unwrap();
            assert!(found.contains(problem), "{found}");
        }
    }

    #[test]
    fn roots_that_an_editor_marked_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let pem = include_str!("../../../keys/roots/amd/ask_ark_milan.pem").replace('\n', "\r\n");
        fs::write(folder.path().join("a.pem"), ["\u{feff}", &pem].concat()).unwrap();
        assert!(roots(folder.path()).is_ok());
        let utf16: Vec<u8> =
            ["\u{feff}", &pem].concat().encode_utf16().flat_map(u16::to_le_bytes).collect();
        fs::write(folder.path().join("a.pem"), utf16).unwrap();
        assert!(roots(folder.path()).err().unwrap().to_string().contains("UTF-16"));
    }

    #[test]
    fn only_true_is_a_yes() {
        for value in ["1", "\"true\"", "{\"a\": 1}"] {
            let policy = policy(&format!("package policy\nallow := {value}")).unwrap();
            assert!(!allows(&policy, &json!({}), &json!({})), "{value}");
        }
    }

    #[test]
    fn a_folder_without_roots_trusts_nobody() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(POLICY_FILE), "package policy\ndefault allow = false")
            .unwrap();
        let read = PolicyFolder::read(folder.path()).unwrap();
        assert_eq!((read.roots.ek_roots().count(), read.allow_sample), (0, false));
        fs::create_dir(folder.path().join(EK_ROOTS)).unwrap();
        fs::write(folder.path().join(EK_ROOTS).join("a.pem"), "no certificate").unwrap();
        assert!(matches!(PolicyFolder::read(folder.path()), Err(KeyHolderError::Roots { .. })));
    }
}
