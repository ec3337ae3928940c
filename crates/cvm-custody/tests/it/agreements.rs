//! Attacks on how an agreement comes about: other keys, other policies, other invitations.

use cvm_base::Bytes32;
use cvm_ceremony::{Agreement, Draft, PartyRole, Transcript};
use cvm_layout::names::Role;

use crate::common::{BUILD, Ceremony, change, code, last_day, name, party};

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
