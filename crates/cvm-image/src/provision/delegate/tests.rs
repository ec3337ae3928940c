use std::os::unix::fs::PermissionsExt as _;

use cvm_base::Explain as _;
use cvm_ceremony::{Date, Draft, PartyRole, Terms, Transcript, fresh_nonce};
use cvm_custody::{BuilderSecrets, Lock, NewParty};
use cvm_layout::names::Name;

use super::*;
use crate::{
    boot::fat,
    provision::cleartext::search_for,
    stage::secrets::{Needles, tests::scan_tree},
};

const PARTIES: [(&str, PartyRole); 3] = [
    ("owner", PartyRole::ModelOwner),
    ("delegate", PartyRole::ModelOwner),
    ("hospital", PartyRole::DataOwner),
];

/// Swap is allowed: these secrets are the tests' own.
fn memory() -> Memory {
    Memory::at(Path::new(Memory::DEFAULT), true).unwrap()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn site(text: &str, role: Role, parties: &[&str]) -> Site {
    Site { name: name(text), role, parties: parties.iter().copied().map(name).collect() }
}

/// Makes three parties' folders, and their agreement.
fn agree(folder: &Path, sites: Vec<Site>) -> Agreement {
    let today: Date = "2026-11-22".parse().unwrap();
    let parties = PARTIES.map(|(who, role)| {
        let at = folder.join(who);
        if !at.exists() {
            let keyholder = "https://server1:8443".parse().unwrap();
            let policy = Some(b"package policy\n".to_vec());
            let new = NewParty { name: name(who), role, keyholder, policy, today: today.clone() };
            new.create(&at, &Lock::KeyFile).unwrap();
        }
        Party::load(&at, &Unlock::beside(&at)).unwrap()
    });
    let at = folder.join("builder");
    if !at.exists() {
        BuilderSecrets::create(&at, name("builder"), &Lock::KeyFile).unwrap();
    }
    let builder = BuilderSecrets::load(&at, &Unlock::beside(&at)).unwrap();
    let terms = Terms {
        project: name("p"),
        date: today,
        epoch: 0,
        previous: None,
        nonce: fresh_nonce().unwrap(),
        legal: None,
        system: vec![PartyRole::ModelOwner],
        builder: builder.statement().statement().clone(),
        sites,
    };
    let invite = parties[0].invite(terms).unwrap();
    let joins = [&parties[1], &parties[2]].map(|party| party.join(&invite).unwrap());
    let mut draft = Draft::new(Transcript::from_statements(&invite, &joins).unwrap()).unwrap();
    parties.iter().for_each(|party| party.sign(&mut draft).unwrap());
    draft.complete().unwrap()
}

fn good() -> Vec<Site> {
    vec![
        site("server1", Role::Server, &["hospital", "owner"]),
        site("site-1", Role::Client, &["delegate", "hospital"]),
    ]
}

#[test]
fn a_delegate_serves_clients_and_is_not_needed_by_its_own_server() {
    let dir = tempfile::tempdir_in(Memory::DEFAULT).unwrap();
    let check = |sites: Vec<Site>, at: &str| {
        let agreement = agree(dir.path(), sites);
        let server = agreement
            .transcript()
            .terms
            .sites
            .iter()
            .find(|site| site.name.as_str() == at)
            .unwrap();
        let delegate = Delegate::open(&dir.path().join("delegate"), 8443, &memory()).unwrap();
        delegate.check(&agreement, server).err().map(|e| (e.code(), e.to_string()))
    };
    assert_eq!(check(good(), "server1"), None);
    let (client, all) = (
        site("site-1", Role::Client, &["delegate", "hospital"]),
        ["delegate", "hospital", "owner"],
    );
    for (sites, at, problem) in [
        (good(), "site-1", "only a server's CVM"),
        (
            vec![site("server1", Role::Server, &[]), client.clone()],
            "server1",
            "the site itself needs its half",
        ),
        (
            vec![site("server1", Role::Server, &all), client],
            "server1",
            "the site itself needs its half",
        ),
        (
            vec![site("server1", Role::Server, &["hospital", "owner"])],
            "server1",
            "no client site names it",
        ),
    ] {
        let (code, text) = check(sites, at).unwrap();
        assert!(code == "PRO-008" && text.contains(problem), "{code} {text}");
    }
    let agreement = agree(dir.path(), good());
    fs::write(dir.path().join("delegate/policy.rego"), "package policy\n# another\n").unwrap();
    let delegate = Delegate::open(&dir.path().join("delegate"), 8443, &memory()).unwrap();
    let server = agreement.site(&name("server1"), Role::Server).unwrap();
    assert!(
        delegate
            .check(&agreement, server)
            .unwrap_err()
            .to_string()
            .contains("other keys or another policy")
    );
}

#[test]
fn what_serves_goes_into_the_site_volume_and_nothing_else() {
    let dir = tempfile::tempdir_in(Memory::DEFAULT).unwrap();
    agree(dir.path(), good());
    let folder = dir.path().join("delegate");
    for new in ["ek-roots", "collateral/files/deeper"] {
        fs::create_dir_all(folder.join(new)).unwrap();
    }
    let judging = [
        "ek-roots/root.pem",
        "ek-roots/a.crl",
        "collateral/index.json",
        "collateral/files/a",
        "collateral.pub",
    ];
    let others =
        ["collateral/files/deeper/a", "keyholder.sqlite", "ALLOW-SAMPLE-EVIDENCE-FOR-TESTS"];
    for file in judging.iter().chain(&others) {
        fs::write(folder.join(file), "x").unwrap();
    }
    let [config, site] = ["config", "site"].map(|name| dir.path().join(name));
    [&config, &site].into_iter().for_each(|folder| fs::create_dir(folder).unwrap());
    let delegate = Delegate::open(&folder, 8443, &memory()).unwrap();
    assert_eq!(
        delegate.install(&config, &site).unwrap(),
        erofs::Owner::NvflareAndKeyHolder("keyholder")
    );
    let installed = site.join("keyholder");
    let mut names: Vec<_> =
        fs::read_dir(&installed).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    let expected = [
        "collateral",
        "collateral.pub",
        "ek-roots",
        "party.txt",
        "policy.rego",
        "secrets.age",
        "tls.pem",
    ];
    assert_eq!(names, [&expected[..], &["unlock.key"]].concat());
    assert!(judging.iter().all(|file| installed.join(file).is_file()));
    assert!(!others.iter().any(|file| installed.join(file).exists()));
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!([mode(&installed), mode(&installed.join("unlock.key"))], [0o700, 0o400]);
    assert_eq!(
        Delegate::open(&installed, 8443, &memory()).unwrap().party.card(),
        delegate.party.card()
    );
    let yaml = fs::read(config.join("keyholder.yaml")).unwrap();
    assert_eq!(KeyHolderConf::parse(&yaml).unwrap(), KeyHolderConf::on_port(8443));
    assert_eq!(fs::read_dir(&config).unwrap().count(), 1, "nothing else on p4");
    let mut conf =
        SiteConf::parse(b"version: 1\nsite: a\nrole: server\nallowed_ports: [8002]\n").unwrap();
    delegate.open_port(&mut conf);
    delegate.open_port(&mut conf);
    assert_eq!(conf.allowed_ports, [8002, 8443]);
}

#[test]
fn attack_a_delegate_that_outlives_its_build() {
    let dir = tempfile::tempdir_in(Memory::DEFAULT).unwrap();
    agree(dir.path(), good());
    let folder = dir.path().join("delegate");
    // On a disk its secrets would outlive their deletion.
    let on_disk = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let open = |folder: &Path| Delegate::open(folder, 8443, &memory());
    assert_eq!(open(on_disk.path()).err().unwrap().code(), "MEM-001");
    // A link must not lead there either.
    let (key, moved) = (folder.join("unlock.key"), on_disk.path().join("unlock.key"));
    fs::copy(&key, &moved).unwrap();
    fs::remove_file(&key).unwrap();
    std::os::unix::fs::symlink(&moved, &key).unwrap();
    assert_eq!(open(&folder).err().unwrap().code(), "MEM-001");
    fs::remove_file(&key).unwrap();
    fs::copy(&moved, &key).unwrap();
    let delegate = open(&folder).unwrap();
    delegate.destroy().unwrap();
    assert!(!folder.join("secrets.age").exists() && !folder.join("unlock.key").exists());
    assert!(folder.join("party.txt").exists(), "what is public stays");
    assert_eq!(open(&folder).err().unwrap().code(), "PRO-010");
}

#[test]
fn attack_a_delegates_secret_in_a_cleartext_partition() {
    let dir = tempfile::tempdir_in(Memory::DEFAULT).unwrap();
    agree(dir.path(), good());
    let delegate = Delegate::open(&dir.path().join("delegate"), 8443, &memory()).unwrap();
    let secrets = delegate.secrets();
    assert_eq!(secrets.len(), 7);
    let mut needles = Needles::default();
    secrets.iter().for_each(|(name, secret)| needles.add_pem(name, secret));
    let archive = zstd::bulk::compress(b"", 1).unwrap();
    for (what, secret) in &secrets {
        let file = [("p", [b"lead ".as_slice(), secret, &[b' '; 4096]].concat())]
            .map(|(n, b)| (n.to_owned(), b))
            .into();
        let image = dir.path().join("p4.img");
        fs::write(&image, fat::make(4 << 20, "P4", &file).unwrap()).unwrap();
        let error = search_for(&needles, &[("p4", image)], &archive).unwrap_err();
        assert!(
            error.code() == "PRO-006" && error.to_string().starts_with("p4"),
            "{what}: {error}"
        );
    }
    // What is public about the party may be there.
    let public = dir.path().join("public");
    fs::create_dir(&public).unwrap();
    for file in ["party.txt", "tls.pem", "policy.rego"] {
        fs::copy(dir.path().join("delegate").join(file), public.join(file)).unwrap();
    }
    assert_eq!(scan_tree(&public, &needles), []);
}
