//! Folders of secrets: private, whole, locked, and never overwritten.

use std::os::unix::fs::PermissionsExt as _;

use cvm_ceremony::PartyRole;
use cvm_custody::{BuilderSecrets, Lock, NewParty, Party, Unlock};

use crate::common::{Ceremony, code, name, today};

#[test]
fn secrets_are_private_whole_locked_and_never_overwritten() {
    let c = Ceremony::hold();
    let folder = c.dir.path().join("model");
    let mode =
        |file: &str| std::fs::metadata(folder.join(file)).unwrap().permissions().mode() & 0o777;
    assert_eq!([mode(""), mode("secrets.age"), mode("unlock.key")], [0o700, 0o600, 0o600]);
    let again = |folder| {
        let new = NewParty {
            name: name("x"),
            role: PartyRole::ModelOwner,
            keyholder: "https://a:1".parse().unwrap(),
            policy: None,
            today: today(),
        };
        code(new.create(folder, &Lock::KeyFile))
    };
    assert_eq!(again(&folder), "CER-022");
    assert_eq!(code(BuilderSecrets::create(&folder, name("x"), &Lock::KeyFile)), "CER-022");
    // Another's key does not open them; mixed folders are noticed.
    assert_eq!(code(Party::load(&folder, &Unlock::beside(&c.dir.path().join("data")))), "CER-020");
    for file in ["secrets.age", "unlock.key"] {
        std::fs::copy(c.dir.path().join("data").join(file), folder.join(file)).unwrap();
    }
    assert_eq!(code(Party::load(&folder, &Unlock::beside(&folder))), "CER-021");
}

#[test]
fn a_passphrase_locks_too_and_a_wrong_one_does_not_open() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("builder");
    let word = |text: &str| zeroize::Zeroizing::new(text.to_owned());
    BuilderSecrets::create(&folder, name("builder"), &Lock::Passphrase(word("correct horse")))
        .unwrap();
    assert!(!folder.join("unlock.key").exists());
    BuilderSecrets::load(&folder, &Unlock::Passphrase(word("correct horse"))).unwrap();
    assert_eq!(
        code(BuilderSecrets::load(&folder, &Unlock::Passphrase(word("battery")))),
        "CER-020"
    );
}
