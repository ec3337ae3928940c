//! The builder's folder, and how it opens contributions.

use std::path::{Path, PathBuf};

use age::secrecy::ExposeSecret;
use cvm_base::{
    Bytes32, FileError,
    interrupt::{PathGuard, guard_path},
};
use cvm_ceremony::{Agreement, Builder, CeremonyError, Contribution, OpenedContribution, Signed};
use cvm_layout::{
    manifest::ImageId,
    names::{Name, Role},
};
use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use crate::{
    error::CustodyError,
    vault::{
        Lock, NewFolder, SECRETS_FILE, Unlock, make_folder, open_secrets, random32, read, take32,
    },
};

/// The builder's signed statement: what parties get.
pub const BUILDER_FILE: &str = "builder.txt";
/// The records of what the builder sealed.
const BUILDS: &str = "builds";
const MAGIC: &[u8] = b"flare-cvm/v1/builder-secrets\n";

/// A builder's folder: `builder.txt` (public), `secrets.age` (Ed25519 seed and age identity),
/// `unlock.key`.
pub struct BuilderSecrets {
    folder: PathBuf,
    statement: Signed<Builder>,
    signing: SigningKey,
    identity: age::x25519::Identity,
}

impl BuilderSecrets {
    /// Makes a builder's keys and its folder, which must be empty or absent.
    pub fn create(folder: &Path, name: Name, lock: &Lock) -> Result<Signed<Builder>, CustodyError> {
        let new = NewFolder::at(folder)?;
        let seed = random32()?;
        let signing = SigningKey::from_bytes(&seed);
        let identity = age::x25519::Identity::generate();
        let builder = Builder {
            name,
            identity: Bytes32 { 0: signing.verifying_key().to_bytes() },
            recipient: identity
                .to_public()
                .to_string()
                .parse()
                .map_err(|_| weak("age made a recipient of another form"))?,
        };
        let statement = Signed::sign(builder, &signing)?;
        let text = identity.to_string();
        let mut secret = Zeroizing::new(Vec::with_capacity(256));
        for part in [MAGIC, seed.as_slice(), text.expose_secret().as_bytes()] {
            secret.extend_from_slice(part);
        }
        new.write_secrets(&secret, lock)?;
        new.write(BUILDER_FILE, statement.text().as_bytes(), 0o644)?;
        new.finish()?;
        Ok(statement)
    }

    /// Opens a builder's folder.
    pub fn load(folder: &Path, unlock: &Unlock) -> Result<Self, CustodyError> {
        let statement = Signed::<Builder>::parse(&read(folder, BUILDER_FILE)?)?;
        let secret = open_secrets(folder, unlock)?;
        let mismatch = |field| CustodyError::Mismatch {
            path: folder.join(SECRETS_FILE).display().to_string(),
            statement: BUILDER_FILE.into(),
            field,
        };
        let mut rest = secret.strip_prefix(MAGIC).ok_or_else(|| mismatch("the kind of file"))?;
        let signing = SigningKey::from_bytes(take32(&mut rest).ok_or_else(|| mismatch("length"))?);
        let identity = std::str::from_utf8(rest).ok().and_then(|text| text.parse().ok());
        let identity: age::x25519::Identity =
            identity.ok_or_else(|| mismatch("the age identity"))?;
        let builder = statement.statement();
        if signing.verifying_key().to_bytes() != builder.identity.0 {
            return Err(mismatch("identity"));
        }
        if identity.to_public().to_string() != builder.recipient.as_str() {
            return Err(mismatch("recipient"));
        }
        Ok(Self { folder: folder.to_owned(), statement, signing, identity })
    }

    /// Who the builder is.
    pub fn statement(&self) -> &Signed<Builder> {
        &self.statement
    }

    /// Signs manifests, boot statements and reference values (`cvm_layout::signed`).
    pub fn signing_key(&self) -> &SigningKey {
        &self.signing
    }

    /// Refuses a build's name that this builder has sealed the site's image under before.
    pub fn check_unused(
        &self,
        agreement: &Agreement,
        build: &Name,
        site: &Name,
    ) -> Result<(), CustodyError> {
        let path = self.record_of(agreement, build, site);
        if path.exists() { Err(used(build, site, &path)) } else { Ok(()) }
    }

    /// Records that the site's image was sealed under this build's name. If two do so at once, one
    /// fails. While the guard lives, an interruption removes the record.
    pub fn record(
        &self,
        agreement: &Agreement,
        build: &Name,
        site: &Name,
        image_id: &ImageId,
    ) -> Result<PathGuard, CustodyError> {
        let path = self.record_of(agreement, build, site);
        make_folder(path.parent().unwrap_or(&self.folder))?;
        if cvm_base::write_new(&path, format!("image {image_id}\n").as_bytes(), 0o644)? {
            return Ok(guard_path(&path));
        }
        Err(used(build, site, &path))
    }

    /// The image did not appear after all: its build's name may be used again.
    pub fn forget(
        &self,
        agreement: &Agreement,
        build: &Name,
        site: &Name,
    ) -> Result<(), CustodyError> {
        let path = self.record_of(agreement, build, site);
        let fail = |source| FileError::Io { action: "remove", path: path.clone(), source };
        Ok(std::fs::remove_file(&path).map_err(fail)?)
    }

    /// `builds/TRANSCRIPT/BUILD/SITE`: names hold no slash and begin with no dot.
    fn record_of(&self, agreement: &Agreement, build: &Name, site: &Name) -> PathBuf {
        [BUILDS, &agreement.digest().to_string(), build.as_str(), site.as_str()]
            .iter()
            .fold(self.folder.clone(), |path, part| path.join(part))
    }
}

fn used(build: &Name, site: &Name, path: &Path) -> CustodyError {
    CustodyError::BuildUsed {
        build: build.clone(),
        site: site.clone(),
        path: path.display().to_string(),
    }
}

fn weak(reason: &str) -> CustodyError {
    CustodyError::Locked { path: SECRETS_FILE.into(), reason: reason.into() }
}

/// Verifies a contribution and opens its base key.
///
/// Refused are: one of another ceremony, role or build; one that its party did not sign; one that
/// is sealed to another builder; a ciphertext that was made for another envelope.
pub fn open_contribution(
    bytes: &[u8],
    agreement: &Agreement,
    role: Role,
    build: &Name,
    builder: &BuilderSecrets,
) -> Result<OpenedContribution, CustodyError> {
    let (named, own) = (agreement.builder(), builder.statement.statement());
    if named != own {
        let (named, found) = (named.name.clone(), own.name.clone());
        return Err(CeremonyError::OtherBuilder { named, found }.into());
    }
    let signed = Contribution::parse(bytes, agreement)?;
    let contribution = signed.statement();
    contribution.check_use(role, build)?;
    let unsealed = age::decrypt(&builder.identity, &contribution.sealed).map_err(|e| {
        let party = contribution.permit.party.clone();
        CeremonyError::Sealed { party, reason: e.to_string() }
    })?;
    Ok(contribution.open(&Zeroizing::new(unsealed))?)
}
