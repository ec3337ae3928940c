//! The transcript that all parties sign, and the agreement: the transcript with all signatures.

use cvm_base::Bytes32;
use cvm_layout::{
    manifest::{KeyHolder, PartyShare, SplitKey},
    names::{Name, Role},
};
use ed25519_dalek::SigningKey;
use serde::Serialize;

use crate::{
    error::CeremonyError,
    fingerprint::Fingerprint,
    split_key::{MAX_PARTIES, check_public},
    statement::{Builder, Invite, Join, Member, Signed, Site, Terms},
    text::{self, Document, Reader, SignatureLine, TextError, Writer},
    values::PartyRole,
};

const WHAT: &str = "agreement";

/// What all parties sign. T is the SHA-256 of its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Transcript {
    /// SHA-256 of the invitation's body.
    pub invite: Bytes32,
    /// What the ceremony is about.
    pub terms: Terms,
    /// The parties, model owners first, then by name: halves are joined in this order.
    pub parties: Vec<Member>,
}

impl Transcript {
    /// What follows from an invitation and the answers to it: everybody computes the same.
    pub fn from_statements(
        invite: &Signed<Invite>,
        joins: &[Signed<Join>],
    ) -> Result<Self, CeremonyError> {
        let mut parties = vec![invite.statement().inviter.clone()];
        for join in joins {
            let Join { invite: found, joiner } = join.statement();
            if *found != invite.digest() {
                let (joiner, expected) = (joiner.card.name.clone(), invite.digest());
                return Err(CeremonyError::OtherInvite { joiner, expected, found: *found });
            }
            parties.push(joiner.clone());
        }
        parties.sort_by(|a, b| order(a).cmp(&order(b)));
        let transcript =
            Self { invite: invite.digest(), terms: invite.statement().terms.clone(), parties };
        transcript.check()?;
        Ok(transcript)
    }

    /// The party of this name.
    pub fn party(&self, name: &Name) -> Result<&Member, CeremonyError> {
        let found = self.parties.iter().find(|party| party.card.name == *name);
        found.ok_or_else(|| CeremonyError::NotAParty(name.clone()))
    }

    fn check(&self) -> Result<(), CeremonyError> {
        self.terms.check()?;
        if !(2..=MAX_PARTIES).contains(&self.parties.len()) {
            return Err(CeremonyError::Count {
                what: "parties",
                found: self.parties.len(),
                limit: MAX_PARTIES,
            });
        }
        for (i, party) in self.parties.iter().enumerate() {
            party.card.check()?;
            for other in self.parties.iter().take(i) {
                distinct("party", party.card.name.as_str(), other.card.name.as_str())?;
                distinct(
                    "identity",
                    &party.card.identity.to_string(),
                    &other.card.identity.to_string(),
                )?;
                distinct(
                    "public key",
                    &party.card.public.to_string(),
                    &other.card.public.to_string(),
                )?;
            }
        }
        if !self.parties.is_sorted_by(|a, b| order(a) < order(b)) {
            return Err(CeremonyError::Order("parties"));
        }
        const ROLES: [PartyRole; 2] = [PartyRole::ModelOwner, PartyRole::DataOwner];
        let lacks = |is_in: &dyn Fn(&Name) -> bool| {
            ROLES.into_iter().find(|role| {
                !self.parties.iter().any(|p| p.card.role == *role && is_in(&p.card.name))
            })
        };
        if let Some(role) = lacks(&|_| true) {
            return Err(CeremonyError::NoParty(role));
        }
        for site in &self.terms.sites {
            if let Some(stranger) = site.parties.iter().find(|name| self.party(name).is_err()) {
                return Err(CeremonyError::SiteOfStranger {
                    site: site.name.clone(),
                    party: stranger.clone(),
                });
            }
            if let Some(role) = lacks(&|name| site.names(name)) {
                return Err(CeremonyError::SiteWithout { site: site.name.clone(), role });
            }
        }
        Ok(())
    }
}

fn order(member: &Member) -> (PartyRole, &Name) {
    (member.card.role, &member.card.name)
}

fn distinct(what: &'static str, a: &str, b: &str) -> Result<(), CeremonyError> {
    if a == b { Err(CeremonyError::Duplicate { what, value: a.to_owned() }) } else { Ok(()) }
}

impl Document for Transcript {
    const KIND: &'static str = "transcript";

    fn write(&self, w: &mut Writer) {
        w.field("invite", self.invite);
        self.terms.write(w);
        for party in &self.parties {
            party.write(w);
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, TextError> {
        let invite = r.parse("invite", "64 hex digits")?;
        let terms = Terms::read(r)?;
        let mut parties = Vec::new();
        while r.at("party") {
            parties.push(Member::read(r)?);
        }
        Ok(Self { invite, terms, parties })
    }
}

/// A transcript that some parties have signed; every signature on it verifies.
#[derive(Debug, Clone)]
pub struct Draft {
    transcript: Transcript,
    body: String,
    /// In the parties' order, each party at most once.
    signatures: Vec<SignatureLine>,
}

impl Draft {
    /// Without signatures yet.
    pub fn new(transcript: Transcript) -> Result<Self, CeremonyError> {
        transcript.check()?;
        let body = text::body(&transcript);
        // Room for every signature: what all have signed must be readable.
        let all = transcript.parties.len() * text::MAX_SIGNATURE_LINE;
        text::bound(body.len() + all)
            .map_err(|source| CeremonyError::Text { what: WHAT, source })?;
        Ok(Self { body, transcript, signatures: Vec::new() })
    }

    /// Reads a transcript with the signatures of some or all parties.
    pub fn parse(bytes: &[u8]) -> Result<Self, CeremonyError> {
        let (transcript, body, signatures) = text::parse::<Transcript>(bytes, MAX_PARTIES)
            .map_err(|source| CeremonyError::Text { what: WHAT, source })?;
        transcript.check()?;
        let mut parties = transcript.parties.iter();
        for line in &signatures {
            let party = transcript.party(&line.signer)?;
            if !parties.any(|p| p.card.name == line.signer) {
                return Err(CeremonyError::Order("signatures"));
            }
            if !text::verifies(&party.card.identity, &body, &line.bytes) {
                return Err(CeremonyError::Signature { signer: line.signer.clone(), what: WHAT });
            }
        }
        Ok(Self { transcript, body, signatures })
    }

    /// What was signed.
    pub fn transcript(&self) -> &Transcript {
        &self.transcript
    }

    /// T.
    pub fn digest(&self) -> Bytes32 {
        text::digest(&self.body)
    }

    /// Adds the signature of the party `name`, whose secret key `key` must be.
    pub fn sign(&mut self, name: &Name, key: &SigningKey) -> Result<(), CeremonyError> {
        let party = self.transcript.party(name)?;
        if key.verifying_key().to_bytes() != party.card.identity.0 {
            return Err(CeremonyError::WrongKey { name: name.clone(), what: WHAT });
        }
        self.signatures.retain(|line| line.signer != *name);
        self.signatures
            .push(SignatureLine { signer: name.clone(), bytes: text::sign(key, &self.body) });
        let parties = &self.transcript.parties;
        self.signatures
            .sort_by_key(|line| parties.iter().position(|party| party.card.name == line.signer));
        Ok(())
    }

    /// Who has not signed yet.
    pub fn missing(&self) -> Vec<Name> {
        let signed = |name: &Name| self.signatures.iter().any(|line| line.signer == *name);
        self.transcript
            .parties
            .iter()
            .map(|party| &party.card.name)
            .filter(|name| !signed(name))
            .cloned()
            .collect()
    }

    /// The file.
    pub fn text(&self) -> String {
        text::file(&self.body, &self.signatures)
    }

    /// All parties have signed.
    pub fn complete(self) -> Result<Agreement, CeremonyError> {
        let missing = self.missing();
        if missing.is_empty() { Ok(Agreement(self)) } else { Err(CeremonyError::Unsigned(missing)) }
    }
}

/// A transcript that all its parties have signed.
#[derive(Debug, Clone)]
pub struct Agreement(Draft);

impl Agreement {
    /// Reads an agreement and verifies the signatures of all parties.
    pub fn parse(bytes: &[u8]) -> Result<Self, CeremonyError> {
        Draft::parse(bytes)?.complete()
    }

    /// What all parties signed.
    pub fn transcript(&self) -> &Transcript {
        &self.0.transcript
    }

    /// T.
    pub fn digest(&self) -> Bytes32 {
        self.0.digest()
    }

    /// T in its short form. To compare two agreements by machine, compare [`Self::digest`].
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.digest())
    }

    /// Who builds.
    pub fn builder(&self) -> &Builder {
        &self.0.transcript.terms.builder
    }

    /// The party of this name.
    pub fn party(&self, name: &Name) -> Result<&Member, CeremonyError> {
        self.0.transcript.party(name)
    }

    /// The file.
    pub fn text(&self) -> String {
        self.0.text()
    }

    /// The site of this name and role: the parties agreed to seal for it.
    pub fn site(&self, name: &Name, role: Role) -> Result<&Site, CeremonyError> {
        let sites = &self.transcript().terms.sites;
        let found = sites.iter().find(|site| site.name == *name && site.role == role);
        found.ok_or_else(|| CeremonyError::NotASite {
            site: name.clone(),
            role,
            agreed: sites
                .iter()
                .map(|site| format!("{} ({})", site.name, site.role))
                .collect::<Vec<_>>()
                .join(", "),
        })
    }

    /// The site's parties as its image's manifest names them, in the transcript's order.
    pub fn shares(&self, site: &Site) -> Vec<PartyShare> {
        let transcript = self.transcript();
        let share = |Member { card, policy_sha256 }: &Member| PartyShare {
            name: card.name.clone(),
            public: card.public,
            purposes: transcript.terms.purposes(card.role),
            keyholder: KeyHolder {
                url: card.keyholder.to_string(),
                certificate_sha256: card.certificate_sha256,
            },
            policy_sha256: *policy_sha256,
        };
        transcript.parties.iter().filter(|party| site.names(&party.card.name)).map(share).collect()
    }

    /// Refuses public components of an image that are not those that this agreement gives `site`. E
    /// is each image's own.
    pub fn check_split_key(&self, site: &Site, split_key: &SplitKey) -> Result<(), CeremonyError> {
        let (expected, found) = (self.digest(), split_key.transcript);
        if expected != found {
            return Err(CeremonyError::OtherTranscript { what: "image", expected, found });
        }
        let shares = self.shares(site);
        if shares.len() != split_key.parties.len() {
            return Err(CeremonyError::SplitKeyDiffers("the number of parties".into()));
        }
        for (expected, found) in shares.iter().zip(&split_key.parties) {
            if expected != found {
                return Err(CeremonyError::SplitKeyDiffers(format!("party {}", expected.name)));
            }
        }
        Ok(check_public(&split_key.ephemeral)?)
    }
}
