//! A contribution serves one ceremony, role, build and builder, until its last day.

use cvm_base::Explain as _;
use cvm_ceremony::{Contribution, build_split_key};
use cvm_custody::{BuilderSecrets, Lock, Party, Unlock, open_contribution};
use cvm_layout::names::Role;

use crate::common::{BUILD, Ceremony, IMAGE, agree, change, code, last_day, name, server1};

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
