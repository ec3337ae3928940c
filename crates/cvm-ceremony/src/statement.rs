//! Signed statements: who somebody is, an invitation, and the answer to one.

use cvm_base::{Bytes16, Bytes32};
use cvm_layout::{
    manifest::KeyPurpose,
    names::{Name, Role},
};
use ed25519_dalek::{SigningKey, VerifyingKey};
use serde::Serialize;

use crate::{
    error::CeremonyError,
    fingerprint::Fingerprint,
    split_key::{SplitKeyError, check_public},
    text::{self, Document, Reader, SignatureLine, TextError, Writer},
    values::{Date, PartyRole, Recipient, Url},
};

/// The most sites of one ceremony.
pub const MAX_SITES: usize = 256;

/// A party, as it describes itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Card {
    /// Unique in a ceremony.
    pub name: Name,
    /// What it owns.
    pub role: PartyRole,
    /// Its Ed25519 public key.
    pub identity: Bytes32,
    /// S: its X25519 public key.
    pub public: Bytes32,
    /// Where its key holder listens.
    pub keyholder: Url,
    /// SHA-256 of the DER of its key holder's TLS certificate.
    pub certificate_sha256: Bytes32,
}

/// A party in one ceremony.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Member {
    /// Who it is.
    #[serde(flatten)]
    pub card: Card,
    /// SHA-256 of the release policy that its key holder will apply.
    pub policy_sha256: Bytes32,
}

/// Who builds the images: trusted while building.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Builder {
    /// Its name.
    pub name: Name,
    /// Its Ed25519 public key: signs manifests and reference values.
    pub identity: Bytes32,
    /// Contributions are sealed to this.
    pub recipient: Recipient,
}

/// A site (participant) of the federation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Site {
    /// Its name, as NVFLARE knows it.
    pub name: Name,
    /// What it does.
    pub role: Role,
    /// The names of those who hold halves of its image's key; an empty list means all parties.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parties: Vec<Name>,
}

impl Site {
    /// Whether this party holds a half of the site's image's key.
    pub fn names(&self, party: &Name) -> bool {
        self.parties.is_empty() || self.parties.contains(party)
    }

    /// Refuses a party that holds no half of the site's image's key.
    pub fn check_party(&self, party: &Name) -> Result<(), CeremonyError> {
        if self.names(party) {
            return Ok(());
        }
        Err(CeremonyError::NotOfSite {
            party: party.clone(),
            site: self.name.clone(),
            parties: self.parties.clone(),
        })
    }
}

/// What a ceremony is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Terms {
    /// The federation's project.
    pub project: Name,
    /// The day of the invitation, as the inviter states it.
    pub date: Date,
    /// 0 for the first ceremony, one more with each rotation.
    pub epoch: u32,
    /// T of the ceremony that this one replaces; none in epoch 0.
    pub previous: Option<Bytes32>,
    /// Makes the ceremony unique; random.
    pub nonce: Bytes16,
    /// SHA-256 of the legal agreement's document.
    pub legal: Option<Bytes32>,
    /// The roles whose halves open p3's `system` and `site`. Those of all parties open p5 and
    /// `state`.
    pub system: Vec<PartyRole>,
    /// Who builds.
    pub builder: Builder,
    /// The sites whose images are built, by name.
    pub sites: Vec<Site>,
}

impl Terms {
    /// What a party of this role helps to open.
    pub fn purposes(&self, role: PartyRole) -> Vec<KeyPurpose> {
        let system = self.system.contains(&role).then_some(KeyPurpose::System);
        system.into_iter().chain([KeyPurpose::Jobs]).collect()
    }

    pub(crate) fn check(&self) -> Result<(), CeremonyError> {
        if (self.epoch == 0) != self.previous.is_none() {
            return Err(CeremonyError::Epoch(self.epoch));
        }
        if self.system.is_empty() || !self.system.is_sorted_by(|a, b| a < b) {
            return Err(CeremonyError::Order("roles of the system key"));
        }
        check_identity(&self.builder.name, &self.builder.identity)?;
        if !(1..=MAX_SITES).contains(&self.sites.len()) {
            return Err(CeremonyError::Count {
                what: "sites",
                found: self.sites.len(),
                limit: MAX_SITES,
            });
        }
        for pair in self.sites.windows(2) {
            if let [a, b] = pair {
                if a.name == b.name {
                    return Err(CeremonyError::Duplicate {
                        what: "site",
                        value: a.name.to_string(),
                    });
                }
                if a.name > b.name {
                    return Err(CeremonyError::Order("sites"));
                }
            }
        }
        if self.sites.iter().any(|site| !site.parties.is_sorted_by(|a, b| a < b)) {
            return Err(CeremonyError::Order("parties of a site"));
        }
        Ok(())
    }
}

/// A new ceremony's nonce, from the system's random source.
pub fn fresh_nonce() -> Result<Bytes16, SplitKeyError> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(|e| SplitKeyError::Random(e.to_string()))?;
    Ok(Bytes16 { 0: nonce })
}

/// `invite`: the first statement of a ceremony.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Invite {
    /// What it is about.
    pub terms: Terms,
    /// Who invites.
    pub inviter: Member,
}

/// `join`: the answer to an invitation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Join {
    /// SHA-256 of the invitation's body.
    pub invite: Bytes32,
    /// Who joins.
    pub joiner: Member,
}

/// A statement whose signature was verified, with its exact text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed<S> {
    statement: S,
    digest: Bytes32,
    text: String,
}

/// A statement that carries its signer's public key.
pub trait Statement: Document {
    /// What it is called in messages.
    const WHAT: &'static str;
    /// Who signs it, with which Ed25519 public key.
    fn signer(&self) -> (&Name, &Bytes32);
    /// Whether its values are sound.
    fn check(&self) -> Result<(), CeremonyError>;
}

impl<S: Statement> Signed<S> {
    /// Signs `statement`; `key` must be its signer's.
    pub fn sign(statement: S, key: &SigningKey) -> Result<Self, CeremonyError> {
        statement.check()?;
        let (signer, identity) = statement.signer();
        if key.verifying_key().to_bytes() != identity.0 {
            return Err(CeremonyError::WrongKey { name: signer.clone(), what: S::WHAT });
        }
        let body = text::body(&statement);
        let line = SignatureLine { signer: signer.clone(), bytes: text::sign(key, &body) };
        let text = text::file(&body, &[line]);
        text::bound(text.len()).map_err(|source| CeremonyError::Text { what: S::WHAT, source })?;
        Ok(Self { digest: text::digest(&body), text, statement })
    }

    /// Reads a statement and verifies its signature under the key that it names.
    pub fn parse(bytes: &[u8]) -> Result<Self, CeremonyError> {
        let (statement, body, signatures) = text::parse::<S>(bytes, 1)
            .map_err(|source| CeremonyError::Text { what: S::WHAT, source })?;
        statement.check()?;
        let (signer, identity) = statement.signer();
        verify_one(S::WHAT, signer, identity, &body, &signatures)?;
        Ok(Self { digest: text::digest(&body), text: text::file(&body, &signatures), statement })
    }
}

impl<S> Signed<S> {
    pub(crate) fn verified(statement: S, body: &str, signatures: &[SignatureLine]) -> Self {
        Self { statement, digest: text::digest(body), text: text::file(body, signatures) }
    }

    /// What it says.
    pub fn statement(&self) -> &S {
        &self.statement
    }

    /// SHA-256 of its body.
    pub fn digest(&self) -> Bytes32 {
        self.digest
    }

    /// What its author reads aloud.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.digest)
    }

    /// The file.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// Exactly one signature, of `signer`, that verifies.
pub(crate) fn verify_one(
    what: &'static str,
    signer: &Name,
    identity: &Bytes32,
    body: &str,
    signatures: &[SignatureLine],
) -> Result<(), CeremonyError> {
    match signatures {
        [line] if line.signer == *signer => {
            if text::verifies(identity, body, &line.bytes) {
                Ok(())
            } else {
                Err(CeremonyError::Signature { signer: signer.clone(), what })
            }
        }
        _ => Err(CeremonyError::Signer { expected: signer.clone(), what }),
    }
}

fn check_identity(name: &Name, identity: &Bytes32) -> Result<(), CeremonyError> {
    match VerifyingKey::from_bytes(&identity.0) {
        Ok(key) if !key.is_weak() => Ok(()),
        _ => Err(CeremonyError::WeakIdentity(name.clone())),
    }
}

impl Card {
    pub(crate) fn check(&self) -> Result<(), CeremonyError> {
        check_identity(&self.name, &self.identity)?;
        Ok(check_public(&self.public)?)
    }
}

impl Statement for Card {
    const WHAT: &'static str = "party's statement";

    fn signer(&self) -> (&Name, &Bytes32) {
        (&self.name, &self.identity)
    }

    fn check(&self) -> Result<(), CeremonyError> {
        self.check()
    }
}

impl Statement for Builder {
    const WHAT: &'static str = "builder's statement";

    fn signer(&self) -> (&Name, &Bytes32) {
        (&self.name, &self.identity)
    }

    fn check(&self) -> Result<(), CeremonyError> {
        check_identity(&self.name, &self.identity)
    }
}

impl Statement for Invite {
    const WHAT: &'static str = "invitation";

    fn signer(&self) -> (&Name, &Bytes32) {
        self.inviter.card.signer()
    }

    fn check(&self) -> Result<(), CeremonyError> {
        self.terms.check()?;
        self.inviter.card.check()
    }
}

impl Statement for Join {
    const WHAT: &'static str = "join";

    fn signer(&self) -> (&Name, &Bytes32) {
        self.joiner.card.signer()
    }

    fn check(&self) -> Result<(), CeremonyError> {
        self.joiner.card.check()
    }
}

const HEX: &str = "64 hex digits";

impl Document for Card {
    const KIND: &'static str = "party";

    fn write(&self, w: &mut Writer) {
        w.field("party", &self.name);
        w.field("  role", self.role);
        w.field("  identity", self.identity);
        w.field("  public", self.public);
        w.field("  keyholder", &self.keyholder);
        w.field("  certificate", self.certificate_sha256);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, TextError> {
        Ok(Self {
            name: r.parse("party", "NAME")?,
            role: r.parse("  role", "model_owner or data_owner")?,
            identity: r.parse("  identity", HEX)?,
            public: r.parse("  public", HEX)?,
            keyholder: r.parse("  keyholder", "https://HOST:PORT")?,
            certificate_sha256: r.parse("  certificate", HEX)?,
        })
    }
}

impl Document for Member {
    const KIND: &'static str = "member";

    fn write(&self, w: &mut Writer) {
        self.card.write(w);
        w.field("  policy", self.policy_sha256);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, TextError> {
        Ok(Self { card: Card::read(r)?, policy_sha256: r.parse("  policy", HEX)? })
    }
}

impl Document for Builder {
    const KIND: &'static str = "builder";

    fn write(&self, w: &mut Writer) {
        w.field("builder", &self.name);
        w.field("  identity", self.identity);
        w.field("  recipient", &self.recipient);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, TextError> {
        Ok(Self {
            name: r.parse("builder", "NAME")?,
            identity: r.parse("  identity", HEX)?,
            recipient: r.parse("  recipient", "age1…")?,
        })
    }
}

fn words(roles: &[PartyRole]) -> String {
    roles.iter().map(PartyRole::to_string).collect::<Vec<_>>().join(" ")
}

const BOTH: [PartyRole; 2] = [PartyRole::ModelOwner, PartyRole::DataOwner];

impl Document for Terms {
    const KIND: &'static str = "terms";

    fn write(&self, w: &mut Writer) {
        w.field("project", &self.project);
        w.field("date", &self.date);
        w.field("epoch", self.epoch);
        w.optional("previous", self.previous);
        w.field("nonce", self.nonce);
        w.optional("legal", self.legal);
        w.field("system-key", words(&self.system));
        w.field("jobs-key", words(&BOTH));
        self.builder.write(w);
        for site in &self.sites {
            let parties: String = site.parties.iter().map(|party| format!(" {party}")).collect();
            w.field("site", format_args!("{} {}{parties}", site.name, site.role));
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, TextError> {
        Ok(Self {
            project: r.parse("project", "NAME")?,
            date: r.parse("date", "YYYY-MM-DD")?,
            epoch: r.parse("epoch", "a number")?,
            previous: r.optional("previous", HEX)?,
            nonce: r.parse("nonce", "32 hex digits")?,
            legal: r.optional("legal", HEX)?,
            system: r
                .field("system-key", "roles", |v| v.split(' ').map(|w| w.parse().ok()).collect())?,
            builder: {
                r.field("jobs-key", "model_owner data_owner", |v| {
                    (v == words(&BOTH)).then_some(())
                })?;
                Builder::read(r)?
            },
            sites: {
                let mut sites = Vec::new();
                while r.at("site") {
                    sites.push(r.field("site", "NAME server|client [PARTY …]", |v| {
                        let mut words = v.split(' ');
                        let (name, role) =
                            (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
                        let parties =
                            words.map(|party| party.parse().ok()).collect::<Option<_>>()?;
                        Some(Site { name, role, parties })
                    })?);
                }
                sites
            },
        })
    }
}

impl Document for Invite {
    const KIND: &'static str = "invite";

    fn write(&self, w: &mut Writer) {
        self.terms.write(w);
        self.inviter.write(w);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, TextError> {
        Ok(Self { terms: Terms::read(r)?, inviter: Member::read(r)? })
    }
}

impl Document for Join {
    const KIND: &'static str = "join";

    fn write(&self, w: &mut Writer) {
        w.field("invite", self.invite);
        self.joiner.write(w);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, TextError> {
        Ok(Self { invite: r.parse("invite", HEX)?, joiner: Member::read(r)? })
    }
}
