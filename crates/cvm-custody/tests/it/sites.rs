//! Sites whose halves only some of the parties hold: a server, two hospitals, and the server's own
//! key holder.

use std::{collections::BTreeMap, path::Path};

use cvm_ceremony::{
    Agreement, Draft, OpenedContribution, PartyRole, Site, Terms, Transcript, build_split_key,
    split_key::{Purpose, SplitKeyError, derive},
};
use cvm_custody::{BuilderSecrets, CustodyError, Lock, Party, Unlock, open_contribution};
use cvm_layout::{
    manifest::{KeyPurpose, Stage},
    names::Role,
};
use tempfile::TempDir;

use crate::common::{BUILD, Ceremony, IMAGE, code, last_day, name, party, site};

struct Federation {
    _dir: TempDir,
    builder: BuilderSecrets,
    parties: [Party; 4],
}

impl Federation {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("builder");
        BuilderSecrets::create(&folder, name("builder"), &Lock::KeyFile).unwrap();
        let builder = BuilderSecrets::load(&folder, &Unlock::beside(&folder)).unwrap();
        let new = |who: &str, role| party(&Path::join(dir.path(), who), who, role);
        let parties = [
            new("model-owner", PartyRole::ModelOwner),
            new("server1-keyholder", PartyRole::ModelOwner),
            new("hospital-1", PartyRole::DataOwner),
            new("hospital-2", PartyRole::DataOwner),
        ];
        Self { _dir: dir, builder, parties }
    }

    fn agree(&self, sites: Vec<Site>) -> Result<Agreement, CustodyError> {
        let [inviter, joiners @ ..] = &self.parties;
        let invite = inviter.invite(Terms { sites, ..Ceremony::terms(&self.builder, 1) })?;
        let joins =
            joiners.iter().map(|party| party.join(&invite)).collect::<Result<Vec<_>, _>>()?;
        let mut draft = Draft::new(Transcript::from_statements(&invite, &joins)?)?;
        self.parties.iter().try_for_each(|party| party.sign(&mut draft))?;
        Ok(Agreement::parse(draft.text().as_bytes())?)
    }

    fn opened(&self, agreement: &Agreement, who: usize, role: Role) -> OpenedContribution {
        let text = self.parties[who]
            .contribute(agreement, role, name(BUILD), last_day())
            .unwrap()
            .text()
            .to_owned();
        open_contribution(text.as_bytes(), agreement, role, &name(BUILD), &self.builder).unwrap()
    }
}

fn sites() -> Vec<Site> {
    vec![
        site("server1", Role::Server, &["hospital-1", "hospital-2", "model-owner"]),
        site("site-1", Role::Client, &["hospital-1", "server1-keyholder"]),
        site("site-2", Role::Client, &["hospital-2", "server1-keyholder"]),
    ]
}

#[test]
fn each_image_is_opened_by_its_own_sites_parties_in_the_transcripts_order() {
    let f = Federation::new();
    let agreement = f.agree(sites()).unwrap();
    assert!(agreement.text().contains("\nsite: site-1 client hospital-1 server1-keyholder\n"));
    let site_1 = agreement.site(&name("site-1"), Role::Client).unwrap();
    let halves = [f.opened(&agreement, 2, Role::Client), f.opened(&agreement, 1, Role::Client)];
    let (split_key, ..) = build_split_key(&agreement, &halves, site_1, &IMAGE).unwrap();
    let names: Vec<_> = split_key.parties.iter().map(|share| share.name.as_str()).collect();
    assert_eq!(names, ["server1-keyholder", "hospital-1"], "model owners first");
    assert_eq!(split_key.parties[0].purposes, [KeyPurpose::System, KeyPurpose::Jobs]);
    agreement.check_split_key(site_1, &split_key).unwrap();
    // The same components are not those of another site.
    let site_2 = agreement.site(&name("site-2"), Role::Client).unwrap();
    assert_eq!(code(agreement.check_split_key(site_2, &split_key)), "CER-019");
    assert_eq!(code(agreement.site(&name("site-1"), Role::Server)), "CER-026");
}

/// The delegate's secrets are the server's, and so those of whoever opens the server's image.
#[test]
fn attack_a_delegate_alone_opens_a_clients_state() {
    let f = Federation::new();
    let agreement = f.agree(sites()).unwrap();
    let site_1 = agreement.site(&name("site-1"), Role::Client).unwrap();
    let contributions =
        [f.opened(&agreement, 1, Role::Client), f.opened(&agreement, 2, Role::Client)];
    let (split_key, keys, _) = build_split_key(&agreement, &contributions, site_1, &IMAGE).unwrap();
    for stage in [Stage::Boot, Stage::Running] {
        let half = f.parties[1].half(&split_key, Role::Client, &IMAGE, stage).unwrap();
        let alone = BTreeMap::from([(name("server1-keyholder"), half)]);
        for purpose in
            [Purpose::State, Purpose::HeaderMacState, Purpose::Jobs, Purpose::HeaderMacJobs]
        {
            assert!(matches!(
                derive(&split_key, &alone, purpose, &IMAGE),
                Err(SplitKeyError::MissingHalf { party, .. }) if party == name("hospital-1")
            ));
        }
        // What it can open is the model owner's code.
        let system = derive(&split_key, &alone, Purpose::System, &IMAGE).unwrap();
        assert_eq!(system.as_bytes() == keys.get(Purpose::System).as_bytes(), stage == Stage::Boot);
    }
}

#[test]
fn attack_a_half_of_a_party_that_the_site_does_not_name() {
    let f = Federation::new();
    let agreement = f.agree(sites()).unwrap();
    let site_1 = agreement.site(&name("site-1"), Role::Client).unwrap();
    let own = || [f.opened(&agreement, 1, Role::Client), f.opened(&agreement, 2, Role::Client)];
    let foreign = || f.opened(&agreement, 3, Role::Client);
    let build = |contributions: Vec<_>| build_split_key(&agreement, &contributions, site_1, &IMAGE);
    let [keyholder, hospital] = own();
    assert_eq!(code(build(vec![keyholder, hospital, foreign()])), "CER-027");
    let [keyholder, _] = own();
    assert_eq!(code(build(vec![keyholder, foreign()])), "CER-016");
    // Nothing of the server's would open with the base key of its own key holder.
    assert_eq!(
        code(f.parties[1].contribute(&agreement, Role::Server, name(BUILD), last_day())),
        "CER-030"
    );
}

#[test]
fn a_site_needs_known_parties_of_both_roles() {
    let f = Federation::new();
    for (parties, expected) in [
        (["hospital-1", "hospital-3"].as_slice(), "CER-028"),
        (&["hospital-1", "hospital-2"], "CER-029"),
        (&["model-owner"], "CER-029"),
        (&["hospital-1", "hospital-1", "model-owner"], "CER-006"),
        (&["hospital-1", "model-owner"], "no error"),
    ] {
        assert_eq!(code(f.agree(vec![site("a", Role::Server, parties)])), expected, "{parties:?}");
    }
}

#[test]
fn nobody_named_means_all_parties_and_the_text_says_no_more_than_before() {
    let f = Federation::new();
    let agreement = f.agree(vec![site("a", Role::Server, &[])]).unwrap();
    assert!(agreement.text().contains("\nsite: a server\n"));
    let site = agreement.site(&name("a"), Role::Server).unwrap();
    assert_eq!(agreement.shares(site).len(), 4);
}

#[test]
fn a_ceremony_too_long_to_be_read_is_not_begun() {
    let f = Federation::new();
    let many = (0..256).map(|n| {
        let long = format!("site-{n:03}-{}", "x".repeat(50));
        let parties = ["hospital-1", "hospital-2", "model-owner", "server1-keyholder"];
        site(&long, Role::Client, &parties)
    });
    let many: Vec<_> = many.collect();
    assert_eq!(code(f.agree(many.clone())), "no error");
    let long = |n: usize| name(&format!("{n:02}{}", "p".repeat(62)));
    let many = many
        .into_iter()
        .map(|site| Site { parties: (0..16).map(long).collect(), ..site })
        .collect();
    assert_eq!(code(f.agree(many)), "CER-201");
}

/// `cargo test -p cvm-custody --test it -- --ignored record` writes the fuzzer's seed anew.
#[test]
#[ignore = "writes the fuzzer's seed"]
fn record() {
    let seed =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/ceremony_artifact/sites.txt");
    std::fs::write(seed, Federation::new().agree(sites()).unwrap().text()).unwrap();
}
