//! Each document has one encoding, and each byte of it is protected.

use cvm_ceremony::{Agreement, Contribution, Described, Invite, Join, Signed};
use cvm_layout::names::Role;

use crate::common::{BUILD, Ceremony, change, code, last_day, name};

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
