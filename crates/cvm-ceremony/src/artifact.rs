//! Any artifact, by its first line: for tools that show files.

use cvm_base::Bytes32;
use serde::Serialize;

use crate::{
    contribution::{Contribution, WHAT},
    enrolment::Enrolment,
    error::CeremonyError,
    fingerprint::Fingerprint,
    statement::{Builder, Card, Invite, Join, Signed, Statement},
    text::{self, Document},
    transcript::{Draft, Transcript},
    values::{Date, Recipient, Url},
};

/// One artifact of a ceremony.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Artifact {
    /// A party's statement.
    Party(Card),
    /// A builder's statement.
    Builder(Builder),
    /// An invitation.
    Invite(Invite),
    /// The answer to one.
    Join(Join),
    /// A transcript, signed by some or all.
    Transcript(Transcript),
    /// A contribution, whose signature only an agreement can verify.
    Contribution(Contribution),
}

/// An artifact with what is asked of every artifact.
#[derive(Debug, Clone, Serialize)]
pub struct Described {
    /// The artifact.
    pub artifact: Artifact,
    /// SHA-256 of its body; T of a transcript.
    pub digest: Bytes32,
    /// Whose verified signatures it carries.
    pub signed_by: Vec<String>,
    /// Whose signatures are still missing, or need an agreement to be verified.
    pub unverified: Vec<String>,
}

impl Described {
    /// Reads any artifact and verifies the signatures that it can verify alone.
    pub fn parse(bytes: &[u8]) -> Result<Self, CeremonyError> {
        match text::kind(bytes) {
            Some(Builder::KIND) => statement(bytes, Artifact::Builder),
            Some(Invite::KIND) => statement(bytes, Artifact::Invite),
            Some(Join::KIND) => statement(bytes, Artifact::Join),
            Some(Transcript::KIND) => {
                let draft = Draft::parse(bytes)?;
                let unverified: Vec<_> = draft.missing().iter().map(ToString::to_string).collect();
                let names =
                    draft.transcript().parties.iter().map(|party| party.card.name.to_string());
                Ok(Self {
                    digest: draft.digest(),
                    signed_by: names.filter(|name| !unverified.contains(name)).collect(),
                    unverified,
                    artifact: Artifact::Transcript(draft.transcript().clone()),
                })
            }
            Some(Contribution::KIND) => {
                let (contribution, body, _) = text::parse::<Contribution>(bytes, 1)
                    .map_err(|source| CeremonyError::Text { what: WHAT, source })?;
                Ok(Self {
                    digest: text::digest(&body),
                    signed_by: Vec::new(),
                    unverified: vec![contribution.permit.party.to_string()],
                    artifact: Artifact::Contribution(contribution),
                })
            }
            // The error for any other text says that a party's statement does not begin like this.
            _ => statement(bytes, Artifact::Party),
        }
    }
}

fn statement<S: Statement + Clone>(
    bytes: &[u8],
    artifact: impl FnOnce(S) -> Artifact,
) -> Result<Described, CeremonyError> {
    let signed = Signed::<S>::parse(bytes)?;
    Ok(Described {
        digest: signed.digest(),
        signed_by: vec![signed.statement().signer().0.to_string()],
        unverified: Vec::new(),
        artifact: artifact(signed.statement().clone()),
    })
}

/// What the fuzzer `ceremony_artifact` runs, and a test over its seeds: any bytes are either
/// refused, or the one encoding of their content.
///
/// # Panics
///
/// When that does not hold.
#[doc(hidden)]
pub fn check_any_bytes(bytes: &[u8]) {
    let _ = Described::parse(bytes);
    let texts = [
        Signed::<Card>::parse(bytes).map(|s| s.text().to_owned()),
        Signed::<Builder>::parse(bytes).map(|s| s.text().to_owned()),
        Signed::<Invite>::parse(bytes).map(|s| s.text().to_owned()),
        Signed::<Join>::parse(bytes).map(|s| s.text().to_owned()),
        Draft::parse(bytes).map(|draft| draft.text()),
        Enrolment::parse(bytes).map(|enrolment| text::body(&enrolment)),
    ];
    let accepted: Vec<_> = texts.iter().flatten().collect();
    assert!(accepted.len() <= 1, "bytes of two kinds");
    assert!(accepted.iter().all(|text| text.as_bytes() == bytes), "a second encoding");
    if let Ok(text) = std::str::from_utf8(bytes) {
        check_value::<Url>(text, |_| true);
        check_value::<Date>(text, |_| true);
        check_value::<Recipient>(text, |_| true);
        // A fingerprint forgives how it is typed, so that only its length is certain.
        check_value::<Fingerprint>(text, |printed| printed.len() != 29);
    }
}

fn check_value<T: std::str::FromStr + ToString>(text: &str, must_match: impl Fn(&str) -> bool) {
    if let Ok(value) = text.parse::<T>() {
        let printed = value.to_string();
        assert!(printed == text || !must_match(&printed), "{text:?} was read as {printed:?}");
    }
}
