//! A party's folder: its keys, and what it does with them.

use std::path::{Path, PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use cvm_base::{Bytes32, sha256};
use cvm_layout::{
    manifest::{ImageId, Manifest, SplitKey, Stage},
    names::{Name, Role},
};
use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use crate::{
    contribution::Contribution,
    enrolment::{Enrolment, Permit, SignatureBytes},
    error::CeremonyError,
    split_key::{BaseKey, Half, PartySecret, enrolment_key, half},
    statement::{Card, Invite, Join, Member, Signed, Terms},
    text::{self, SignatureLine},
    transcript::{Agreement, Draft},
    values::{Date, PartyRole, Url},
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
/// What the party contributed: a folder per transcript, a file per role and build.
const CONTRIBUTIONS: &str = "contributions";
const MAGIC: &[u8] = b"flare-cvm/v1/party-secrets\n";
/// How long the key holder's certificate says it is valid. The image pins it, so that only a new
/// ceremony can replace it.
const CERTIFICATE_YEARS: u16 = 20;

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
    pub fn create(self, folder: &Path, lock: &Lock) -> Result<Signed<Card>, CeremonyError> {
        let new = NewFolder::at(folder)?;
        let seed = random32()?;
        let identity = SigningKey::from_bytes(&seed);
        let secret = PartySecret::generate()?;
        let (server, client) = (BaseKey::generate(Role::Server)?, BaseKey::generate(Role::Client)?);
        let tls = certificate(&self.name, &self.keyholder, &self.today)?;
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

struct Tls {
    certificate_pem: String,
    key_pem: Zeroizing<String>,
    sha256: Bytes32,
}

/// A self-signed P-256 server certificate for the URL's host.
fn certificate(name: &Name, url: &Url, today: &Date) -> Result<Tls, CeremonyError> {
    let fail = |error: rcgen::Error| CeremonyError::Certificate(error.to_string());
    let (year, month, day) = today.parts();
    // 29 February may not exist twenty years on.
    let date = |year: u16| rcgen::date_time_ymd(year.into(), month, day.min(28));
    let mut params = rcgen::CertificateParams::new([url.host().to_owned()]).map_err(fail)?;
    params.not_before = date(year);
    params.not_after = date(year + CERTIFICATE_YEARS);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, format!("flare-cvm key holder of {name}"));
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let key = rcgen::KeyPair::generate().map_err(fail)?;
    let certificate = params.self_signed(&key).map_err(fail)?;
    Ok(Tls {
        certificate_pem: certificate.pem(),
        key_pem: Zeroizing::new(key.serialize_pem()),
        sha256: sha256(certificate.der()),
    })
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
    pub fn load(folder: &Path, unlock: &Unlock) -> Result<Self, CeremonyError> {
        let card = Signed::<Card>::parse(&read(folder, PARTY_FILE)?)?;
        let certificate_pem =
            String::from_utf8(read(folder, CERTIFICATE_FILE)?).unwrap_or_default();
        let secrets = open_secrets(folder, unlock)?;
        let mismatch = |file: &str, field| CeremonyError::Mismatch {
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
    ) -> Result<Half, CeremonyError> {
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
    ) -> Result<(), CeremonyError> {
        let (reference, enrolment) = documents;
        let ephemeral = &manifest.split_key.ephemeral;
        let key = enrolment_key(
            &self.secret,
            self.base_key(manifest.role),
            ephemeral,
            &manifest.image_id,
        )?;
        let own = (&self.card().name, &self.card().identity, &key);
        Enrolment::parse(enrolment)?.check(own, agreement, manifest, reference, today)
    }

    /// The release policy of the folder.
    pub fn policy(&self) -> Result<Vec<u8>, CeremonyError> {
        read(&self.folder, POLICY_FILE)
    }

    /// The party as it takes part in a ceremony now: its card and the policy of its folder.
    pub fn member(&self) -> Result<Member, CeremonyError> {
        Ok(Member { card: self.card().clone(), policy_sha256: sha256(&self.policy()?) })
    }

    /// Invites to a ceremony on `terms`.
    pub fn invite(&self, terms: Terms) -> Result<Signed<Invite>, CeremonyError> {
        Signed::sign(Invite { terms, inviter: self.member()? }, &self.identity)
    }

    /// Joins the ceremony of an invitation. Confirm the invitation's fingerprint with its author
    /// first.
    pub fn join(&self, invite: &Signed<Invite>) -> Result<Signed<Join>, CeremonyError> {
        Signed::sign(Join { invite: invite.digest(), joiner: self.member()? }, &self.identity)
    }

    /// Signs a transcript, once this party stands in it with its own keys and its policy as it is
    /// now.
    pub fn sign(&self, draft: &mut Draft) -> Result<(), CeremonyError> {
        let own = self.member()?;
        self.check_own(draft.transcript().party(&own.card.name)?, "transcript")?;
        if draft.transcript().party(&own.card.name)?.policy_sha256 != own.policy_sha256 {
            return Err(CeremonyError::Mismatch {
                path: self.folder.join(POLICY_FILE).display().to_string(),
                statement: "the transcript".into(),
                field: "policy",
            });
        }
        draft.sign(&own.card.name, &self.identity)
    }

    fn check_own(&self, member: &Member, what: &'static str) -> Result<(), CeremonyError> {
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
    ) -> Result<Signed<Contribution>, CeremonyError> {
        let name = self.card().name.clone();
        self.check_own(agreement.party(&name)?, "agreement")?;
        if !agreement
            .transcript()
            .terms
            .sites
            .iter()
            .any(|site| site.role == role && site.names(&name))
        {
            return Err(CeremonyError::NothingToOpen { party: name, role });
        }
        let permit =
            Permit { transcript: agreement.digest(), party: name.clone(), role, build, not_after };
        let permit_signature =
            SignatureBytes { 0: text::sign(&self.identity, &text::body(&permit)) };
        let mut envelope = Contribution { permit, permit_signature, sealed: Vec::new() };
        let refuse = |reason: String| CeremonyError::Sealed { party: name.clone(), reason };
        let recipient: age::x25519::Recipient = agreement
            .builder()
            .recipient
            .as_str()
            .parse()
            .map_err(|reason: &str| refuse(reason.into()))?;
        let mut secret = Zeroizing::new(Vec::with_capacity(64));
        secret.extend_from_slice(&envelope.binding().0);
        secret.extend_from_slice(self.base_key(role).as_bytes());
        envelope.sealed = age::encrypt(&recipient, &secret).map_err(|e| refuse(e.to_string()))?;
        let body = text::body(&envelope);
        let line = SignatureLine { signer: name, bytes: text::sign(&self.identity, &body) };
        Ok(Signed::verified(envelope, &body, &[line]))
    }

    /// Keeps a copy of a contribution in the folder, before it leaves: a build's name serves once.
    ///
    /// # Errors
    /// [`CeremonyError::Contributed`] where one was kept for this build and role before.
    pub fn keep(&self, contribution: &Signed<Contribution>) -> Result<(), CeremonyError> {
        let Permit { transcript, role, build, .. } = &contribution.statement().permit;
        let folder = self.folder.join(CONTRIBUTIONS).join(transcript.to_string());
        make_folder(&folder)?;
        let path = folder.join(format!("{role}.{build}.txt"));
        if cvm_base::write_new(&path, contribution.text().as_bytes(), 0o644)? {
            return Ok(());
        }
        Err(CeremonyError::Contributed {
            build: build.clone(),
            role: *role,
            path: path.display().to_string(),
        })
    }
}

/// SHA-256 of the DER of the one certificate in a PEM text.
fn pem_digest(pem: &str) -> Option<Bytes32> {
    let inner = pem
        .trim()
        .strip_prefix("-----BEGIN CERTIFICATE-----")?
        .strip_suffix("-----END CERTIFICATE-----")?;
    let compact: String = inner.split_ascii_whitespace().collect();
    Some(sha256(&STANDARD.decode(compact).ok()?))
}
