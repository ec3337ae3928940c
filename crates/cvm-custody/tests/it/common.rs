//! Two parties, a builder, and their ceremony, through the library.

use std::path::Path;

use cvm_base::{Bytes16, Explain};
use cvm_ceremony::{Agreement, Date, Draft, PartyRole, Site, Terms, Transcript};
use cvm_custody::{BuilderSecrets, Lock, NewParty, Party, Unlock};
use cvm_layout::{
    manifest::ImageId,
    names::{Name, Role},
};
use tempfile::TempDir;

pub const BUILD: &str = "build-1";
pub const IMAGE: ImageId = Bytes16 { 0: [9; 16] };

/// The code of an error that must be one, or "no error".
pub fn code<T, E: Explain>(result: Result<T, E>) -> &'static str {
    result.err().map_or("no error", |error| error.code())
}

pub fn server1(agreement: &Agreement) -> &Site {
    agreement.site(&name("server1"), Role::Server).unwrap()
}

/// Replaces the first occurrence, which must exist.
pub fn change(text: &str, from: &str, to: &str) -> Vec<u8> {
    assert!(text.contains(from), "{from:?} in {text}");
    text.replacen(from, to, 1).into_bytes()
}

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// A site whose halves these parties hold; nobody named: all.
pub fn site(text: &str, role: Role, parties: &[&str]) -> Site {
    Site { name: name(text), role, parties: parties.iter().copied().map(name).collect() }
}

pub fn today() -> Date {
    "2026-11-22".parse().unwrap()
}

/// Of every permit in these tests.
pub fn last_day() -> Date {
    "2026-11-29".parse().unwrap()
}

pub fn party(folder: &Path, who: &str, role: PartyRole) -> Party {
    let new = NewParty {
        name: name(who),
        role,
        keyholder: "https://127.0.0.1:8443".parse().unwrap(),
        policy: Some(format!("package policy # of {who}\n").into_bytes()),
        today: today(),
    };
    new.create(folder, &Lock::KeyFile).unwrap();
    Party::load(folder, &Unlock::beside(folder)).unwrap()
}

pub struct Ceremony {
    pub dir: TempDir,
    pub model: Party,
    pub data: Party,
    pub builder: BuilderSecrets,
    pub agreement: Agreement,
}

impl Ceremony {
    pub fn terms(builder: &BuilderSecrets, nonce: u8) -> Terms {
        Terms {
            project: name("demo"),
            date: today(),
            epoch: 0,
            previous: None,
            nonce: Bytes16 { 0: [nonce; 16] },
            legal: None,
            system: vec![PartyRole::ModelOwner],
            builder: builder.statement().statement().clone(),
            sites: vec![site("server1", Role::Server, &[]), site("site-1", Role::Client, &[])],
        }
    }

    pub fn hold() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let model = party(&dir.path().join("model"), "model-owner", PartyRole::ModelOwner);
        let data = party(&dir.path().join("data"), "data-owner", PartyRole::DataOwner);
        let builder_dir = dir.path().join("builder");
        BuilderSecrets::create(&builder_dir, name("builder"), &Lock::KeyFile).unwrap();
        let builder = BuilderSecrets::load(&builder_dir, &Unlock::beside(&builder_dir)).unwrap();
        let agreement = agree(&model, &data, Self::terms(&builder, 1));
        Self { dir, model, data, builder, agreement }
    }
}

/// invite → join → each computes the transcript → one signs, the other co-signs.
pub fn agree(model: &Party, data: &Party, terms: Terms) -> Agreement {
    let invite = model.invite(terms).unwrap();
    let join = data.join(&invite).unwrap();
    let mut first =
        Draft::new(Transcript::from_statements(&invite, std::slice::from_ref(&join)).unwrap())
            .unwrap();
    model.sign(&mut first).unwrap();
    let mut second = Draft::parse(first.text().as_bytes()).unwrap();
    assert_eq!(*second.transcript(), Transcript::from_statements(&invite, &[join]).unwrap());
    assert_eq!(second.missing(), [name("data-owner")]);
    data.sign(&mut second).unwrap();
    second.complete().unwrap()
}
