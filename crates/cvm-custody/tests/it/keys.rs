//! What the two halves of a ceremony open, and that one half alone opens nothing.

use std::collections::BTreeMap;

use cvm_base::Bytes32;
use cvm_ceremony::{
    Agreement, Keys, build_split_key,
    split_key::{Half, Purpose, SplitKeyError, combine, derive},
};
use cvm_custody::{Party, open_contribution};
use cvm_layout::{
    manifest::{KeyPurpose, Stage},
    names::Role,
};

use crate::common::{BUILD, Ceremony, IMAGE, code, last_day, name, server1};

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
