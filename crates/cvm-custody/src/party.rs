//! A party's folder: its keys, and what the party does with them.

use std::path::{Path, PathBuf};

use cvm_base::{Bytes32, sha256};
use cvm_ceremony::{
    Agreement, Card, CeremonyError, Contribution, Date, Draft, Enrolment, Invite, Join, Member,
    PartyRole, Permit, Permitter, Signed, Terms, Url,
    split_key::{BaseKey, Half, PartySecret, enrolment_key, half},
};
use cvm_layout::{
    manifest::{ImageId, Manifest, SplitKey, Stage},
    names::{Name, Role},
};
use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use crate::{
    certificate::{pem_digest, self_signed},
    error::CustodyError,
    vault::{
        Lock, NewFolder, SECRETS_FILE, Unlock, make_folder, open_secrets, random32, read, take32,
    },
};

/// The party's signed statement (public).
pub const PARTY_FILE: &str = "party.txt";
/// The key holder's TLS certificate (public).
pub const CERTIFICATE_FILE: &str = "tls.pem";
/// The release policy that the party's key holder applies; its digest goes into the transcript.
pub const POLICY_FILE: &str = "policy.rego";
/// What the party contributed: one folder per transcript, one file per role and build.
const CONTRIBUTIONS: &str = "contributions";
const MAGIC: &[u8] = b"flare-cvm/v1/party-secrets\n";

/// What a new party needs to say about itself.
pub struct NewParty {
    /// Its name.
    pub name: Name,
    /// What it owns.
    pub role: PartyRole,
    /// Where its key holder will listen.
    pub keyholder: Url,
    /// Its release policy, if it is known already; else put it at `policy.rego` before the
    /// ceremony.
    pub policy: Option<Vec<u8>>,
    /// The first day of its key holder's certificate.
    pub today: Date,
}

impl NewParty {
    /// Makes the party's keys and its folder, which must be empty or absent.
    pub fn create(self, folder: &Path, lock: &Lock) -> Result<Signed<Card>, CustodyError> {
        let new = NewFolder::at(folder)?;
        let seed = random32()?;
        let identity = SigningKey::from_bytes(&seed);
        let secret = PartySecret::generate()?;
        let (server, client) = (BaseKey::generate(Role::Server)?, BaseKey::generate(Role::Client)?);
        let tls = self_signed(&self.name, &self.keyholder, &self.today)?;
        let card = Card {
            name: self.name,
            role: self.role,
            identity: Bytes32 { 0: identity.verifying_key().to_bytes() },
            public: secret.public(),
            keyholder: self.keyholder,
            certificate_sha256: tls.sha256,
        };
        let card = Signed::sign(card, &identity)?;

        let mut secrets = Zeroizing::new(Vec::with_capacity(1024));
        for part in [
            MAGIC,
            seed.as_slice(),
            secret.as_bytes(),
            server.as_bytes(),
            client.as_bytes(),
            tls.key_pem.as_bytes(),
        ] {
            secrets.extend_from_slice(part);
        }
        new.write_secrets(&secrets, lock)?;
        new.write(PARTY_FILE, card.text().as_bytes(), 0o644)?;
        new.write(CERTIFICATE_FILE, tls.certificate_pem.as_bytes(), 0o644)?;
        if let Some(policy) = self.policy {
            new.write(POLICY_FILE, &policy, 0o644)?;
        }
        new.finish()?;
        Ok(card)
    }
}

/// A party with its secrets open.
pub struct Party {
    folder: PathBuf,
    card: Signed<Card>,
    identity: SigningKey,
    secret: PartySecret,
    server: BaseKey,
    client: BaseKey,
    certificate_pem: String,
    tls_key_pem: Zeroizing<String>,
}

impl Party {
    /// Opens a party's folder and checks that its files belong together.
    pub fn load(folder: &Path, unlock: &Unlock) -> Result<Self, CustodyError> {
        let card = Signed::<Card>::parse(&read(folder, PARTY_FILE)?)?;
        let certificate_pem =
            String::from_utf8(read(folder, CERTIFICATE_FILE)?).unwrap_or_default();
        let secrets = open_secrets(folder, unlock)?;
        let mismatch = |file: &str, field| CustodyError::Mismatch {
            path: folder.join(file).display().to_string(),
            statement: PARTY_FILE.into(),
            field,
        };
        let mut rest = secrets
            .strip_prefix(MAGIC)
            .ok_or_else(|| mismatch(SECRETS_FILE, "the kind of file"))?;
        let mut take = || take32(&mut rest).ok_or_else(|| mismatch(SECRETS_FILE, "length"));
        let identity = SigningKey::from_bytes(take()?);
        let secret = PartySecret::from_bytes(take()?);
        let server = BaseKey::from_bytes(Role::Server, take()?);
        let client = BaseKey::from_bytes(Role::Client, take()?);
        let tls_key_pem =
            std::str::from_utf8(rest).map_err(|_| mismatch(SECRETS_FILE, "the TLS key"))?;
        let tls_key_pem = Zeroizing::new(tls_key_pem.to_owned());

        let public = card.statement();
        if identity.verifying_key().to_bytes() != public.identity.0 {
            return Err(mismatch(SECRETS_FILE, "identity"));
        }
        if secret.public() != public.public {
            return Err(mismatch(SECRETS_FILE, "public"));
        }
        if pem_digest(&certificate_pem) != Some(public.certificate_sha256) {
            return Err(mismatch(CERTIFICATE_FILE, "certificate"));
        }
        let folder = folder.to_owned();
        Ok(Self { folder, card, identity, secret, server, client, certificate_pem, tls_key_pem })
    }

    /// Who it is.
    pub fn card(&self) -> &Card {
        self.card.statement()
    }

    /// Signs the key holder's audit log.
    pub fn identity(&self) -> &SigningKey {
        &self.identity
    }

    /// The key holder's certificate, PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The key holder's private key, PKCS #8 in PEM.
    pub fn tls_key_pem(&self) -> &Zeroizing<String> {
        &self.tls_key_pem
    }

    /// `b_i,role`.
    pub fn base_key(&self, role: Role) -> &BaseKey {
        match role {
            Role::Server => &self.server,
            Role::Client => &self.client,
        }
    }

    /// Every secret of the party by name, for a search in what anybody may read.
    pub fn secrets(&self) -> [(&'static str, Zeroizing<Vec<u8>>); 5] {
        let copy = |bytes: &[u8]| Zeroizing::new(bytes.to_vec());
        [
            ("identity", Zeroizing::new(self.identity.to_bytes().to_vec())),
            ("secret", copy(self.secret.as_bytes())),
            ("base key for servers", copy(self.server.as_bytes())),
            ("base key for clients", copy(self.client.as_bytes())),
            ("TLS key", copy(self.tls_key_pem.as_bytes())),
        ]
    }

    /// The party's half for an image and stage, from its manifest.
    pub fn half(
        &self,
        split_key: &SplitKey,
        role: Role,
        image_id: &ImageId,
        stage: Stage,
    ) -> Result<Half, CustodyError> {
        Ok(half(&self.secret, self.base_key(role), &split_key.ephemeral, image_id, stage)?)
    }

    /// Refuses a presented image whose build this party did not permit, or no longer does, and
    /// reference values that were not made in that build. `documents`: `reference.json` and
    /// `enrolment.txt`.
    pub fn admit(
        &self,
        agreement: &Agreement,
        manifest: &Manifest,
        documents: (&[u8], &[u8]),
        today: &Date,
    ) -> Result<(), CustodyError> {
        let (reference, enrolment) = documents;
        let ephemeral = &manifest.split_key.ephemeral;
        let key = enrolment_key(
            &self.secret,
            self.base_key(manifest.role),
            ephemeral,
            &manifest.image_id,
        )?;
        let permitter =
            Permitter { name: &self.card().name, identity: &self.card().identity, key: &key };
        let enrolment = Enrolment::parse(enrolment)?;
        Ok(enrolment.check(&permitter, agreement, manifest, reference, today)?)
    }

    /// The release policy of the folder.
    pub fn policy(&self) -> Result<Vec<u8>, CustodyError> {
        read(&self.folder, POLICY_FILE)
    }

    /// The party as it takes part in a ceremony now: its card and the policy of its folder.
    pub fn member(&self) -> Result<Member, CustodyError> {
        Ok(Member { card: self.card().clone(), policy_sha256: sha256(&self.policy()?) })
    }

    /// Invites to a ceremony on `terms`.
    pub fn invite(&self, terms: Terms) -> Result<Signed<Invite>, CustodyError> {
        Ok(Signed::sign(Invite { terms, inviter: self.member()? }, &self.identity)?)
    }

    /// Joins the ceremony of an invitation. Confirm the invitation's fingerprint with its author
    /// first.
    pub fn join(&self, invite: &Signed<Invite>) -> Result<Signed<Join>, CustodyError> {
        let join = Join { invite: invite.digest(), joiner: self.member()? };
        Ok(Signed::sign(join, &self.identity)?)
    }

    /// Signs a transcript that names this party with its own keys, and with its policy as it is now.
    pub fn sign(&self, draft: &mut Draft) -> Result<(), CustodyError> {
        let member = self.member()?;
        self.check_card(draft.transcript().party(&member.card.name)?, "transcript")?;
        if draft.transcript().party(&member.card.name)?.policy_sha256 != member.policy_sha256 {
            return Err(CustodyError::Mismatch {
                path: self.folder.join(POLICY_FILE).display().to_string(),
                statement: "the transcript".into(),
                field: "policy",
            });
        }
        Ok(draft.sign(&member.card.name, &self.identity)?)
    }

    /// Refuses a document that names this party with other keys.
    fn check_card(&self, member: &Member, what: &'static str) -> Result<(), CeremonyError> {
        if member.card == *self.card() {
            Ok(())
        } else {
            Err(CeremonyError::WrongKey { name: self.card().name.clone(), what })
        }
    }

    /// Seals this party's base key of `role` to the agreement's builder, for one build until that
    /// day.
    pub fn contribute(
        &self,
        agreement: &Agreement,
        role: Role,
        build: Name,
        not_after: Date,
    ) -> Result<Signed<Contribution>, CustodyError> {
        let name = self.card().name.clone();
        self.check_card(agreement.party(&name)?, "agreement")?;
        if !agreement
            .transcript()
            .terms
            .sites
            .iter()
            .any(|site| site.role == role && site.names(&name))
        {
            return Err(CeremonyError::NothingToOpen { party: name, role }.into());
        }
        let permit =
            Permit { transcript: agreement.digest(), party: name.clone(), role, build, not_after };
        let refuse = |reason: String| CeremonyError::Sealed { party: name.clone(), reason };
        let recipient: age::x25519::Recipient = agreement
            .builder()
            .recipient
            .as_str()
            .parse()
            .map_err(|reason: &str| refuse(reason.into()))?;
        let seal =
            |secret: &[u8]| age::encrypt(&recipient, secret).map_err(|e| refuse(e.to_string()));
        Ok(Contribution::sign(permit, self.base_key(role), &self.identity, seal)?)
    }

    /// Keeps a copy of a contribution in the folder, before it leaves: a build's name serves once.
    ///
    /// # Errors
    /// [`CustodyError::Contributed`] where one was kept for this build and role before.
    pub fn keep(&self, contribution: &Signed<Contribution>) -> Result<(), CustodyError> {
        let Permit { transcript, role, build, .. } = &contribution.statement().permit;
        let folder = self.folder.join(CONTRIBUTIONS).join(transcript.to_string());
        make_folder(&folder)?;
        let path = folder.join(format!("{role}.{build}.txt"));
        if cvm_base::write_new(&path, contribution.text().as_bytes(), 0o644)? {
            return Ok(());
        }
        Err(CustodyError::Contributed {
            build: build.clone(),
            role: *role,
            path: path.display().to_string(),
        })
    }
}
