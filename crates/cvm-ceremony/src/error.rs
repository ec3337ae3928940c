//! Why a ceremony's artifact was refused.

use cvm_base::{Bytes32, Explain};
use cvm_layout::names::{Name, Role};

use crate::{
    fingerprint::Fingerprint,
    split_key::SplitKeyError,
    text::TextError,
    values::{Date, PartyRole},
};

/// An artifact was refused, or could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CeremonyError {
    /// Not well-formed.
    #[error("the {what} is malformed: {source}")]
    Text {
        /// The artifact.
        what: &'static str,
        /// Where and why.
        source: TextError,
    },
    /// A derivation or a public key was refused.
    #[error(transparent)]
    SplitKey(#[from] SplitKeyError),
    /// A signature does not verify.
    #[error("the signature of {signer} on the {what} does not verify")]
    Signature {
        /// Who should have signed.
        signer: Name,
        /// The artifact.
        what: &'static str,
    },
    /// Somebody else signed, or nobody.
    #[error("the {what} must carry one signature, of {expected}")]
    Signer {
        /// Who should have signed.
        expected: Name,
        /// The artifact.
        what: &'static str,
    },
    /// The secret key at hand is not that of the named signer.
    #[error("the {what} names another public key for {name} than the secret key at hand has")]
    WrongKey {
        /// Who was to sign.
        name: Name,
        /// The artifact.
        what: &'static str,
    },
    /// Parties have not signed the transcript yet.
    #[error("the agreement lacks the signature of {}", join(.0))]
    Unsigned(Vec<Name>),
    /// A value that must be unique occurs twice.
    #[error("the {what} {value} occurs twice")]
    Duplicate {
        /// Of what.
        what: &'static str,
        /// Which.
        value: String,
    },
    /// Not in the one order that the encoding allows.
    #[error("the {0} are not in their canonical order")]
    Order(&'static str),
    /// No party has this role.
    #[error("no {0} takes part: the job store's key needs a model owner and a data owner")]
    NoParty(PartyRole),
    /// None, or more than a ceremony may have.
    #[error("{found} {what}: expected 1 to {limit}")]
    Count {
        /// Of what.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// The most.
        limit: usize,
    },
    /// An Ed25519 key of small order, or bytes that are not a point.
    #[error("the identity of {0} is not a sound Ed25519 public key")]
    WeakIdentity(Name),
    /// Epoch 0 names no transcript, a later one must.
    #[error(
        "epoch {0} with the wrong `previous`: epoch 0 has none, every later epoch names the \
         transcript that it replaces"
    )]
    Epoch(u32),
    /// A join that answers another invitation.
    #[error("{joiner} joined another invitation: expected {expected}, found {found}")]
    OtherInvite {
        /// Who joined.
        joiner: Name,
        /// The SHA-256 of this invitation.
        expected: Bytes32,
        /// What the join names.
        found: Bytes32,
    },
    /// Bound to another ceremony.
    #[error(
        "the {what} belongs to another ceremony: expected transcript {expected}, found {found}"
    )]
    OtherTranscript {
        /// The artifact.
        what: &'static str,
        /// This ceremony's T.
        expected: Bytes32,
        /// The artifact's T.
        found: Bytes32,
    },
    /// Not a party of this ceremony.
    #[error("{0} is not a party of this ceremony")]
    NotAParty(Name),
    /// The agreement does not name this site, or names it with another role.
    #[error("the agreement names no site {site} with role {role}; it names {agreed}")]
    NotASite {
        /// The site.
        site: Name,
        /// Its role.
        role: Role,
        /// The sites that the agreement names.
        agreed: String,
    },
    /// Others hold the halves of this site's image's key.
    #[error("{party} holds no half for site {site}: the agreement names {}", join(.parties))]
    NotOfSite {
        /// Who is not a party of the site.
        party: Name,
        /// The site.
        site: Name,
        /// Its parties.
        parties: Vec<Name>,
    },
    /// A site names a party that takes no part in the ceremony.
    #[error("site {site} names {party}, who is not a party of this ceremony")]
    SiteOfStranger {
        /// The site.
        site: Name,
        /// Whom it names.
        party: Name,
    },
    /// A site's parties are not of both roles.
    #[error(
        "site {site} names no {role}: its job store's key needs a model owner and a data owner"
    )]
    SiteWithout {
        /// The site.
        site: Name,
        /// Which role is missing.
        role: PartyRole,
    },
    /// No site of the role names the party.
    #[error("no site with role {role} names {party}: nothing would open with its base key")]
    NothingToOpen {
        /// The party.
        party: Name,
        /// The role.
        role: Role,
    },
    /// A contribution for images of the other role.
    #[error("the contribution of {party} is for a {found}, this image is a {expected}")]
    OtherRole {
        /// Whose.
        party: Name,
        /// The image's role.
        expected: Role,
        /// The contribution's role.
        found: Role,
    },
    /// A contribution made for another build.
    #[error("the contribution of {party} is for build {found}, this is build {expected}")]
    OtherBuild {
        /// Whose.
        party: Name,
        /// This build.
        expected: Name,
        /// The contribution's build.
        found: Name,
    },
    /// A party's contribution is missing.
    #[error("the contribution of {0} is missing")]
    NoContribution(Name),
    /// The builder's secrets are not those of the builder whom the transcript names.
    #[error(
        "the transcript names the builder {named}, these secrets are another builder's ({found})"
    )]
    OtherBuilder {
        /// The transcript's builder.
        named: Name,
        /// Whose secrets they are.
        found: Name,
    },
    /// What is sealed in a contribution does not open or belongs to another envelope.
    #[error("the sealed base key of {party} does not open: {reason}")]
    Sealed {
        /// Whose.
        party: Name,
        /// What went wrong.
        reason: String,
    },
    /// An image's public components differ from the agreement.
    #[error("the image's split key differs from the agreement in {0}")]
    SplitKeyDiffers(String),
    /// The fingerprint read aloud is another one.
    #[error("the fingerprint of the {what} of {author} is {found}, not the expected {expected}")]
    Fingerprint {
        /// The statement.
        what: &'static str,
        /// Who should have made it.
        author: Name,
        /// What its author read, or what was given; several joined by commas.
        expected: String,
        /// What the file at hand has.
        found: Fingerprint,
    },
    /// Nobody compared the fingerprint.
    #[error("the fingerprint of the {what} of {author} was not confirmed")]
    Unconfirmed {
        /// The statement.
        what: &'static str,
        /// Who should have made it.
        author: Name,
    },
    /// A party's permit for a build has ended.
    #[error("{party} permitted build {build} until {not_after}, today is {today}")]
    Expired {
        /// Who permitted it.
        party: Name,
        /// The build.
        build: Name,
        /// The permit's last day.
        not_after: Date,
        /// The clock's.
        today: Date,
    },
    /// A presented image that a party did not permit.
    #[error("{party} permits no enrolment by presentation: {problem}")]
    NotAdmitted {
        /// Whose permit it is about.
        party: Name,
        /// Why.
        problem: &'static str,
    },
    /// A document is not the one whose digest the parties signed.
    #[error("{path} is not the legal agreement of the {what}: that names {}, the file has SHA-256 \
        {found}", digest(.expected))]
    Legal {
        /// The document.
        path: String,
        /// What names another.
        what: &'static str,
        /// What it names.
        expected: Option<Bytes32>,
        /// The document's.
        found: Bytes32,
    },
}

fn digest(value: &Option<Bytes32>) -> String {
    value.map_or_else(|| "none".into(), |digest| digest.to_string())
}

fn join(names: &[Name]) -> String {
    names.iter().map(Name::as_str).collect::<Vec<_>>().join(", ")
}

impl Explain for CeremonyError {
    fn code(&self) -> &'static str {
        match self {
            Self::Text { source, .. } => source.code(),
            Self::SplitKey(error) => error.code(),
            Self::Signature { .. } => "CER-001",
            Self::Signer { .. } => "CER-002",
            Self::WrongKey { .. } => "CER-003",
            Self::Unsigned(_) => "CER-004",
            Self::Duplicate { .. } => "CER-005",
            Self::Order(_) => "CER-006",
            Self::NoParty(_) => "CER-007",
            Self::Count { .. } => "CER-008",
            Self::WeakIdentity(_) => "CER-009",
            Self::Epoch(_) => "CER-010",
            Self::OtherInvite { .. } => "CER-011",
            Self::OtherTranscript { .. } => "CER-012",
            Self::NotAParty(_) => "CER-013",
            Self::OtherRole { .. } => "CER-014",
            Self::OtherBuild { .. } => "CER-015",
            Self::NoContribution(_) => "CER-016",
            Self::OtherBuilder { .. } => "CER-017",
            Self::Sealed { .. } => "CER-018",
            Self::SplitKeyDiffers(_) => "CER-019",
            Self::Fingerprint { .. } => "CER-024",
            Self::Unconfirmed { .. } => "CER-025",
            Self::NotASite { .. } => "CER-026",
            Self::NotOfSite { .. } => "CER-027",
            Self::SiteOfStranger { .. } => "CER-028",
            Self::SiteWithout { .. } => "CER-029",
            Self::NothingToOpen { .. } => "CER-030",
            Self::Expired { .. } => "CER-031",
            Self::NotAdmitted { .. } => "CER-032",
            Self::Legal { .. } => "CER-035",
        }
    }

    fn help(&self) -> String {
        match self {
            Self::Text { source, .. } => source.help(),
            Self::SplitKey(error) => error.help(),
            Self::Signature { .. } => {
                "the file was changed after it was signed, or somebody forged it: get it again \
                 from its author and compare fingerprints by voice"
                    .into()
            }
            Self::Signer { expected, .. } => format!(
                "ask {expected} for the file as the program \
                wrote it"
            ),
            Self::WrongKey { .. } => "check that you gave your own party's folder, and that the \
                file carries the key you sent"
                .into(),
            Self::Unsigned(names) => {
                format!("send the file to {} to run `flare-cvm ceremony agree`", join(names))
            }
            Self::Duplicate { .. } => "each name and each key may occur once: a party cannot take \
                part twice"
                .into(),
            Self::Order(_) => "only the program's own encoding is accepted: make the file with \
                `flare-cvm ceremony`"
                .into(),
            Self::NoParty(role) => format!("have a {role} join the ceremony"),
            Self::Count { .. } => "change the ceremony's participants or sites".into(),
            Self::WeakIdentity(name) => format!(
                "do not go on: {name}'s key was replaced, or its \
                program is broken"
            ),
            Self::Epoch(_) => "give the transcript of the epoch that this one replaces".into(),
            Self::OtherInvite { .. } => "the two sides hold different invitations: compare \
                fingerprints by voice, then join again"
                .into(),
            Self::OtherTranscript { .. } => {
                "use the agreement and the contributions of the same ceremony; a file replayed \
                 from another one is refused"
                    .into()
            }
            Self::NotAParty(_) => "check the agreement with `flare-cvm ceremony show`".into(),
            Self::NotASite { .. } => "the parties must agree to every site: hold the ceremony \
                again with it, or check the site's name and role"
                .into(),
            Self::NotOfSite { .. } | Self::NothingToOpen { .. } => {
                "`flare-cvm ceremony show` prints whose halves open which site; other parties can \
                 only be agreed on in a new ceremony"
                    .into()
            }
            Self::SiteOfStranger { party, .. } => format!(
                "have {party} join, or name another \
                party in `--site NAME=ROLE:PARTY,PARTY`"
            ),
            Self::SiteWithout { role, .. } => format!(
                "add a {role} to `--site \
                NAME=ROLE:PARTY,PARTY`, or name nobody there: then all parties hold a half"
            ),
            Self::OtherRole { party, expected, .. } => format!(
                "ask {party} to run `flare-cvm \
                ceremony contribute --role {expected}`"
            ),
            Self::OtherBuild { party, expected, .. } => {
                format!(
                    "a contribution serves one build: ask {party} for one made with `--build \
                    {expected}`"
                )
            }
            Self::NoContribution(party) => format!(
                "ask {party} to run `flare-cvm ceremony \
                contribute` and give its file too"
            ),
            Self::OtherBuilder { named, .. } => format!(
                "build with the builder folder of {named}, \
                or hold a new ceremony"
            ),
            Self::Sealed { party, .. } => {
                format!(
                    "it may be sealed to another builder or copied out of another envelope: \
                    ask {party} to contribute again"
                )
            }
            Self::SplitKeyDiffers(_) => "this image was not built under this agreement: do not \
                enrol it"
                .into(),
            Self::Fingerprint { author, .. } => {
                format!(
                    "somebody may have replaced the file on its way: get it again from \
                    {author} by another way, and do not go on before the two agree"
                )
            }
            Self::Unconfirmed { author, .. } => {
                format!(
                    "call {author}, have the fingerprint read aloud, and give it with \
                    --expect-fingerprint (or --yes if the file came by a way that nobody else can \
                    change)"
                )
            }
            Self::Expired { party, .. } => {
                format!(
                    "ask {party} for a contribution to a new build, or check this machine's \
                    clock; an operator can enrol an image at any time: `flare-cvm keyholder \
                    enroll`"
                )
            }
            Self::NotAdmitted { .. } => {
                "compare the image's manifest.json and reference.json with the builder's by \
                 another way, then enrol it by hand: `flare-cvm keyholder enroll`"
                    .into()
            }
            Self::Legal { .. } => "read the document that the others mean before you sign: do not \
                go on before all name the same one"
                .into(),
        }
    }
}
