//! The whole ceremony of two parties, and the attacks on it.
#![cfg(feature = "artifacts")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::{collections::BTreeMap, os::unix::fs::PermissionsExt};

use common::{BUILD, Ceremony, agree, last_day, name, party, today};
use cvm_base::{Bytes16, Bytes32, Explain};
use cvm_ceremony::{
    Agreement, BuilderSecrets, CeremonyError, Contribution, Described, Draft, Invite, Join, Keys,
    Lock, NewParty, Party, PartyRole, Signed, Site, Transcript, Unlock, build_split_key,
    open_contribution,
    split_key::{Half, Purpose, SplitKeyError, combine, derive},
};
use cvm_layout::{
    manifest::{ImageId, KeyPurpose, Stage},
    names::Role,
};

const IMAGE: ImageId = Bytes16 { 0: [9; 16] };

fn code<T>(result: Result<T, CeremonyError>) -> &'static str {
    result.err().map_or("no error", |error| error.code())
}

fn server1(agreement: &Agreement) -> &Site {
    agreement.site(&name("server1"), Role::Server).unwrap()
}

/// Replaces the first occurrence, which must exist.
fn change(text: &str, from: &str, to: &str) -> Vec<u8> {
    assert!(text.contains(from), "{from:?} in {text}");
    text.replacen(from, to, 1).into_bytes()
}

#[test]
fn two_parties_hold_a_ceremony_and_both_halves_open_what_the_build_sealed() {
    let c = Ceremony::hold();
    let agreement = Agreement::parse(c.agreement.text().as_bytes()).unwrap();
    let opened: Vec<_> = [&c.model, &c.data]
        .map(|p| {
            let text = p
                .contribute(&agreement, Role::Server, name(BUILD), last_day())
                .unwrap()
                .text()
                .to_owned();
            open_contribution(text.as_bytes(), &agreement, Role::Server, &name(BUILD), &c.builder)
                .unwrap()
        })
        .into();
    let (split_key, keys, _) =
        build_split_key(&agreement, &opened, server1(&agreement), &IMAGE).unwrap();
    agreement.check_split_key(server1(&agreement), &split_key).unwrap();
    assert_eq!(split_key.parties[0].purposes, [KeyPurpose::System, KeyPurpose::Jobs]);
    assert_eq!(split_key.parties[1].purposes, [KeyPurpose::Jobs]);

    let halves: BTreeMap<_, _> = [&c.model, &c.data]
        .map(|p| {
            (p.card().name.clone(), p.half(&split_key, Role::Server, &IMAGE, Stage::Boot).unwrap())
        })
        .into();
    let again = Keys::derive(&split_key, &halves, &IMAGE).unwrap();
    for purpose in Purpose::ALL {
        assert_eq!(keys.get(purpose).as_bytes(), again.get(purpose).as_bytes(), "{purpose}");
    }
    assert_eq!(
        Purpose::ALL
            .map(|p| *keys.get(p).as_bytes())
            .iter()
            .collect::<std::collections::BTreeSet<_>>()
            .len(),
        6
    );
    // A client's base key gives another half.
    let other = c.model.half(&split_key, Role::Client, &IMAGE, Stage::Boot).unwrap();
    assert_ne!(other.as_bytes(), halves[&name("model-owner")].as_bytes());
}

/// The claim that neither company alone opens p5, at the level of keys.
#[test]
fn neither_partys_half_alone_derives_the_key_of_jobs() {
    neither_half_alone_derives(Purpose::Jobs, Purpose::HeaderMacJobs);
}

/// And `state`: workspace, logs and journal of the data owner's site.
#[test]
fn neither_partys_half_alone_derives_the_key_of_state() {
    neither_half_alone_derives(Purpose::State, Purpose::HeaderMacState);
}

fn neither_half_alone_derives(disk: Purpose, mac: Purpose) {
    let c = Ceremony::hold();
    for role in [Role::Server, Role::Client] {
        let site = match role {
            Role::Server => server1(&c.agreement),
            Role::Client => c.agreement.site(&name("site-1"), Role::Client).unwrap(),
        };
        let opened: Vec<_> = [&c.model, &c.data]
            .map(|p| {
                let signed = p.contribute(&c.agreement, role, name(BUILD), last_day()).unwrap();
                open_contribution(
                    signed.text().as_bytes(),
                    &c.agreement,
                    role,
                    &name(BUILD),
                    &c.builder,
                )
                .unwrap()
            })
            .into();
        let (split_key, keys, _) = build_split_key(&c.agreement, &opened, site, &IMAGE).unwrap();
        // A boot's halves, and those that a running system with GPUs is given.
        for stage in [Stage::Boot, Stage::Running] {
            let half = |party: &Party, role| party.half(&split_key, role, &IMAGE, stage).unwrap();
            let (model, data) = (half(&c.model, role), half(&c.data, role));
            for purpose in [disk, mac] {
                let both =
                    combine(&split_key.transcript, &[&model, &data], purpose, &IMAGE).unwrap();
                let built = both.as_bytes() == keys.get(purpose).as_bytes();
                assert_eq!(
                    built,
                    stage == Stage::Boot,
                    "{role} {purpose}: the builder knows the boot's"
                );
                for (own, party) in [(&model, &c.model), (&data, &c.data)] {
                    // The program refuses, naming the party whose half is missing.
                    let only = BTreeMap::from([(
                        party.card().name.clone(),
                        Half::from_bytes(own.as_bytes()),
                    )]);
                    assert!(matches!(
                        derive(&split_key, &only, purpose, &IMAGE),
                        Err(SplitKeyError::MissingHalf { party: missing, .. }) if missing != party.card().name
                    ));
                    // A program of one's own: everything that the party has, in place of the
                    // other's half.
                    let zero = Half::from_bytes(&[0; 32]);
                    let mine = [&half(party, Role::Server), &half(party, Role::Client), &zero];
                    for label in Purpose::ALL {
                        for a in mine {
                            let tried = [&[a][..], &[a, mine[0]], &[a, mine[1]], &[a, mine[2]]];
                            for halves in tried {
                                let key =
                                    combine(&split_key.transcript, halves, label, &IMAGE).unwrap();
                                assert_ne!(key.as_bytes(), both.as_bytes(), "{role} {label}");
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A header that one party could authenticate would be one that it could replace.
#[test]
fn only_system_opens_without_all_parties_of_the_site() {
    for purpose in Purpose::ALL {
        let alone = matches!(purpose, Purpose::System | Purpose::HeaderMacSystem);
        assert_eq!(purpose.parties() == KeyPurpose::System, alone, "{purpose}");
    }
}

#[test]
fn a_swapped_party_key_is_refused() {
    let c = Ceremony::hold();
    let mallory = party(&c.dir.path().join("mallory"), "data-owner", PartyRole::DataOwner);
    // In the transcript, under the old signatures.
    let (genuine, forged) = (c.data.card(), mallory.card());
    for (from, to) in [(genuine.public, forged.public), (genuine.identity, forged.identity)] {
        let text = change(&c.agreement.text(), &from.to_string(), &to.to_string());
        assert_eq!(code(Agreement::parse(&text)), "CER-001");
    }
    // Between the parties: Mallory answers the invitation as the data owner, and the model owner
    // signs.
    let invite = c.model.invite(Ceremony::terms(&c.builder, 2)).unwrap();
    let (joined, intercepted) = (mallory.join(&invite).unwrap(), c.data.join(&invite).unwrap());
    assert_ne!(joined.fingerprint(), intercepted.fingerprint(), "what the two read to each other");
    let mut draft = Draft::new(Transcript::from_statements(&invite, &[joined]).unwrap()).unwrap();
    c.model.sign(&mut draft).unwrap();
    // The real data owner will not sign a transcript with another's key under its name.
    assert_eq!(code(c.data.sign(&mut draft)), "CER-003");
    // Neither will it contribute to an agreement that somebody else signed in its name.
    mallory.sign(&mut draft).unwrap();
    let agreement = draft.complete().unwrap();
    assert_eq!(
        code(c.data.contribute(&agreement, Role::Server, name(BUILD), last_day())),
        "CER-003"
    );
}

#[test]
fn a_contribution_replayed_from_another_ceremony_role_or_build_is_refused() {
    let c = Ceremony::hold();
    let other = agree(&c.model, &c.data, Ceremony::terms(&c.builder, 7));
    let replayed = c.data.contribute(&other, Role::Server, name(BUILD), last_day()).unwrap();
    let open = |text: &[u8], role, build: &str| {
        open_contribution(text, &c.agreement, role, &name(build), &c.builder)
    };
    assert_eq!(code(open(replayed.text().as_bytes(), Role::Server, BUILD)), "CER-012");
    // Edited to name this ceremony.
    let edited =
        change(replayed.text(), &other.digest().to_string(), &c.agreement.digest().to_string());
    assert_eq!(code(open(&edited, Role::Server, BUILD)), "CER-001");

    let good = c.data.contribute(&c.agreement, Role::Server, name(BUILD), last_day()).unwrap();
    assert_eq!(code(open(good.text().as_bytes(), Role::Server, BUILD)), "no error");
    assert_eq!(code(open(good.text().as_bytes(), Role::Client, BUILD)), "CER-014");
    assert_eq!(code(open(good.text().as_bytes(), Role::Server, "build-2")), "CER-015");
}

#[test]
fn a_sealed_base_key_lifted_into_anothers_envelope_is_refused() {
    let c = Ceremony::hold();
    let sealed_of =
        |text: &str| text.lines().find(|l| l.starts_with("sealed: ")).unwrap().to_owned();
    let data = c.data.contribute(&c.agreement, Role::Server, name(BUILD), last_day()).unwrap();
    let client = c.data.contribute(&c.agreement, Role::Client, name(BUILD), last_day()).unwrap();
    let mut stolen = client.statement().clone();
    stolen.sealed.clone_from(&data.statement().sealed);
    assert_ne!(stolen.binding(), data.statement().binding());
    // The same party signs the lifted ciphertext: the signature is good, the binding is not.
    let text = change(client.text(), &sealed_of(client.text()), &sealed_of(data.text()));
    let body_end = text.windows(5).position(|w| w == b"\nend\n").unwrap() + 5;
    let signed = [cvm_ceremony::SIGNED_CONTEXT, &text[..body_end]].concat();
    let signature = ed25519_dalek::Signer::sign(c.data.identity(), &signed).to_bytes();
    let forged = [
        &text[..body_end],
        format!("signature data-owner: {}\n", hex::encode(signature)).as_bytes(),
    ]
    .concat();
    let result = open_contribution(&forged, &c.agreement, Role::Client, &name(BUILD), &c.builder);
    assert_eq!(code(result), "CER-018");
}

#[test]
fn a_policy_digest_changed_after_signing_is_refused() {
    let c = Ceremony::hold();
    let policy = c.agreement.transcript().parties[1].policy_sha256;
    let text =
        change(&c.agreement.text(), &policy.to_string(), &Bytes32 { 0: [1; 32] }.to_string());
    assert_eq!(code(Agreement::parse(&text)), "CER-001");
    // Nor does a party sign when its policy file is another by then.
    let invite = c.model.invite(Ceremony::terms(&c.builder, 3)).unwrap();
    let join = c.data.join(&invite).unwrap();
    let mut draft = Draft::new(Transcript::from_statements(&invite, &[join]).unwrap()).unwrap();
    std::fs::write(c.dir.path().join("data/policy.rego"), "package policy\nallow = true\n")
        .unwrap();
    assert_eq!(code(c.data.sign(&mut draft)), "CER-021");
}

#[test]
fn an_agreement_with_a_missing_or_foreign_signature_is_refused() {
    let c = Ceremony::hold();
    let text = c.agreement.text();
    let line = |who: &str| {
        text.lines().find(|l| l.starts_with(&format!("signature {who}"))).unwrap().to_owned() + "\n"
    };
    let (model, data) = (line("model-owner"), line("data-owner"));
    assert_eq!(code(Agreement::parse(&change(&text, &data, ""))), "CER-004");
    assert_eq!(
        code(Agreement::parse(&change(&text, &(model.clone() + &data), &(data.clone() + &model)))),
        "CER-006"
    );
    assert_eq!(
        code(Agreement::parse(&change(&text, &data, &data.replace("data-owner", "somebody")))),
        "CER-013"
    );
    assert_eq!(
        code(Agreement::parse(&change(&text, &data, &model.replace("model-owner", "data-owner")))),
        "CER-001"
    );
    assert_eq!(code(Agreement::parse(&change(&text, &data, &(data.clone() + &data)))), "CER-006");
}

#[test]
fn a_role_or_builder_mismatch_is_refused() {
    let c = Ceremony::hold();
    let folder = c.dir.path().join("builder-2");
    BuilderSecrets::create(&folder, name("builder"), &Lock::KeyFile).unwrap();
    let other = BuilderSecrets::load(&folder, &Unlock::beside(&folder)).unwrap();
    let signed = c.model.contribute(&c.agreement, Role::Server, name(BUILD), last_day()).unwrap();
    let result = open_contribution(
        signed.text().as_bytes(),
        &c.agreement,
        Role::Server,
        &name(BUILD),
        &other,
    );
    assert_eq!(code(result), "CER-017");

    let open = |p: &Party, role| {
        let signed = p.contribute(&c.agreement, role, name(BUILD), last_day()).unwrap();
        open_contribution(signed.text().as_bytes(), &c.agreement, role, &name(BUILD), &c.builder)
            .unwrap()
    };
    let build = |opened: &[_]| build_split_key(&c.agreement, opened, server1(&c.agreement), &IMAGE);
    assert_eq!(
        code(build(&[open(&c.model, Role::Server), open(&c.data, Role::Client)])),
        "CER-014"
    );
    assert_eq!(code(build(&[open(&c.model, Role::Server)])), "CER-016");
    let twice =
        [open(&c.model, Role::Server), open(&c.model, Role::Server), open(&c.data, Role::Server)];
    assert_eq!(code(build(&twice)), "CER-005");
}

#[test]
fn attack_a_builds_name_used_twice() {
    let c = Ceremony::hold();
    let site_1 = name("site-1");
    let (used, free) = (name(BUILD), name("build-2"));
    c.builder.check_unused(&c.agreement, &used, &site_1).unwrap();
    drop(c.builder.record(&c.agreement, &used, &site_1, &IMAGE).unwrap());
    assert_eq!(code(c.builder.check_unused(&c.agreement, &used, &site_1)), "CER-034");
    assert_eq!(code(c.builder.record(&c.agreement, &used, &site_1, &IMAGE).map(drop)), "CER-034");
    c.builder.forget(&c.agreement, &used, &site_1).unwrap();
    drop(c.builder.record(&c.agreement, &used, &site_1, &IMAGE).unwrap());
    // The build's other sites, another build, and another ceremony are others.
    c.builder.check_unused(&c.agreement, &used, &name("server1")).unwrap();
    c.builder.check_unused(&c.agreement, &free, &site_1).unwrap();
    c.builder
        .check_unused(&agree(&c.model, &c.data, Ceremony::terms(&c.builder, 9)), &used, &site_1)
        .unwrap();

    let contribute =
        |role, build: &str| c.data.contribute(&c.agreement, role, name(build), last_day()).unwrap();
    c.data.keep(&contribute(Role::Server, BUILD)).unwrap();
    let again = c.data.keep(&contribute(Role::Server, BUILD)).unwrap_err();
    assert_eq!(again.code(), "CER-033");
    c.data.keep(&contribute(Role::Client, BUILD)).unwrap();
    c.data.keep(&contribute(Role::Server, "build-2")).unwrap();
}

#[test]
fn attack_a_contribution_after_its_last_day() {
    let c = Ceremony::hold();
    let signed = c.data.contribute(&c.agreement, Role::Server, name(BUILD), last_day()).unwrap();
    let permit = &signed.statement().permit;
    permit.check_day(&last_day()).unwrap();
    assert_eq!(code(permit.check_day(&"2026-11-30".parse().unwrap())), "CER-031");
    assert_eq!(code(permit.check_day(&"2027-01-01".parse().unwrap())), "CER-031");
    // A later day takes the party's signature, and so does another permit.
    let longer = change(signed.text(), "not-after: 2026-11-29", "not-after: 2027-11-29");
    assert_eq!(code(Contribution::parse(&longer, &c.agreement)), "CER-001");
}

#[test]
fn a_join_of_another_invitation_or_of_the_inviter_is_refused() {
    let c = Ceremony::hold();
    let (one, two) = (Ceremony::terms(&c.builder, 4), Ceremony::terms(&c.builder, 5));
    let (one, two) = (c.model.invite(one).unwrap(), c.model.invite(two).unwrap());
    let join = c.data.join(&two).unwrap();
    assert_eq!(code(Transcript::from_statements(&one, &[join])), "CER-011");
    let own = c.model.join(&one).unwrap();
    assert_eq!(code(Transcript::from_statements(&one, &[own])), "CER-005");
    assert_eq!(code(Transcript::from_statements(&one, &[])), "CER-008");
    let second = party(&c.dir.path().join("second"), "second", PartyRole::ModelOwner);
    let join = second.join(&one).unwrap();
    assert_eq!(code(Transcript::from_statements(&one, &[join])), "CER-007");
}

#[test]
fn an_image_of_another_agreement_is_not_enrolled() {
    let c = Ceremony::hold();
    let open = |p: &Party| {
        let signed = p.contribute(&c.agreement, Role::Server, name(BUILD), last_day()).unwrap();
        open_contribution(
            signed.text().as_bytes(),
            &c.agreement,
            Role::Server,
            &name(BUILD),
            &c.builder,
        )
        .unwrap()
    };
    let server1 = server1(&c.agreement);
    let (good, ..) =
        build_split_key(&c.agreement, &[open(&c.model), open(&c.data)], server1, &IMAGE).unwrap();
    let check = |change: &dyn Fn(&mut cvm_layout::manifest::SplitKey)| {
        let mut split_key = good.clone();
        change(&mut split_key);
        code(c.agreement.check_split_key(server1, &split_key))
    };
    assert_eq!(check(&|_| ()), "no error");
    assert_eq!(check(&|s| s.transcript.0[0] ^= 1), "CER-012");
    assert_eq!(check(&|s| s.parties[1].purposes.clear()), "CER-019");
    assert_eq!(check(&|s| s.parties[1].policy_sha256.0[0] ^= 1), "CER-019");
    assert_eq!(check(&|s| s.parties.swap(0, 1)), "CER-019");
    assert_eq!(check(&|s| drop(s.parties.pop())), "CER-019");
    assert_eq!(check(&|s| s.ephemeral = Bytes32 { 0: [0; 32] }), "CER-101");
}

#[test]
fn every_byte_of_every_artifact_is_protected() {
    let c = Ceremony::hold();
    let invite = c.model.invite(Ceremony::terms(&c.builder, 6)).unwrap();
    let join = c.data.join(&invite).unwrap();
    let contribution =
        c.data.contribute(&c.agreement, Role::Server, name(BUILD), last_day()).unwrap();
    type Refuses<'a> = &'a dyn Fn(&[u8]) -> bool;
    let cases: [(&str, Refuses<'_>); 4] = [
        (invite.text(), &|b| Signed::<Invite>::parse(b).is_err()),
        (join.text(), &|b| Signed::<Join>::parse(b).is_err()),
        (&c.agreement.text(), &|b| Agreement::parse(b).is_err()),
        (contribution.text(), &|b| Contribution::parse(b, &c.agreement).is_err()),
    ];
    for (text, refuses) in cases {
        assert!(!refuses(text.as_bytes()));
        for i in 0..text.len() {
            let mut bytes = text.as_bytes().to_vec();
            bytes[i] ^= 1;
            assert!(refuses(&bytes), "byte {i} of {text}");
            assert!(refuses(&text.as_bytes()[..i]), "cut at {i}");
        }
    }
}

#[test]
fn a_second_encoding_of_the_same_statement_is_malformed() {
    let c = Ceremony::hold();
    let text = c.model.invite(Ceremony::terms(&c.builder, 9)).unwrap().text().to_owned();
    let identity = c.model.card().identity.to_string();
    let changes = [
        ("epoch: 0", "epoch: 00"),
        ("epoch: 0", "epoch: +0"),
        ("epoch: 0", "epoch:  0"),
        ("epoch: 0\n", "epoch: 0 \n"),
        ("epoch: 0\n", "epoch: 0\r\n"),
        ("epoch: 0\n", "epoch: 0\n\n"),
        ("epoch: 0\n", "epoch: 0\nepoch: 0\n"),
        ("epoch: 0\n", "epoch: 0\ncomment: x\n"),
        ("legal: none", "legal: "),
        ("legal: none\n", ""),
        ("site: server1 server", "site: server1  server"),
        ("site: server1 server", "site: server1 server "),
        ("site: server1 server", "site: server1 server data-owner,model-owner"),
        ("system-key: model_owner", "system-key: model_owner model_owner x"),
        ("jobs-key: model_owner data_owner", "jobs-key: model_owner"),
        ("  role: model_owner", "role: model_owner"),
        (identity.as_str(), &identity.to_uppercase()),
        ("date: 2026-11-22", "date: 2026-11-2"),
        ("nonce: 0909", "nonce: 909"),
        ("end\n", "end\nend\n"),
        ("end\n", ""),
    ];
    for (from, to) in changes {
        assert_eq!(
            code(Signed::<Invite>::parse(&change(&text, from, to))),
            "CER-201",
            "{from:?} to {to:?}"
        );
    }
    // Well-formed, and not what the rules of a ceremony allow.
    for (from, to, expected) in [
        ("epoch: 0", "epoch: 1", "CER-010"),
        ("system-key: model_owner", "system-key: data_owner model_owner", "CER-006"),
        ("site: server1 server", "site: site-1 server", "CER-005"),
        ("site: server1 server", "site: zzz server", "CER-006"),
        ("site: server1 server", "site: server1 server b a", "CER-006"),
        ("site: server1 server", "site: server1 server a a", "CER-006"),
        (identity.as_str(), &"0".repeat(64), "CER-009"),
    ] {
        assert_eq!(
            code(Signed::<Invite>::parse(&change(&text, from, to))),
            expected,
            "{from:?} to {to:?}"
        );
    }
}

#[test]
fn an_invitation_does_not_pass_as_a_join_and_show_knows_each_kind() {
    let c = Ceremony::hold();
    let invite = c.model.invite(Ceremony::terms(&c.builder, 8)).unwrap();
    assert_eq!(code(Signed::<Join>::parse(invite.text().as_bytes())), "CER-201");
    assert_eq!(Described::parse(invite.text().as_bytes()).unwrap().signed_by, ["model-owner"]);
    let described = Described::parse(c.agreement.text().as_bytes()).unwrap();
    assert_eq!((described.digest, described.signed_by.len()), (c.agreement.digest(), 2));
    assert!(Described::parse(b"flare-cvm/v1/other\nend\n").is_err());
    assert!(Described::parse(b"").is_err());
}

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
