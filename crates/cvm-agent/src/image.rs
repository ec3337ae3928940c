//! What the running image says of itself: the documents that `cvm-init` left, and p4.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use cvm_base::{Explain as _, FileError, read_bounded};
use cvm_collateral::{Cache, read_public_key};
use cvm_layout::{manifest, p1};
use cvm_policy::{MAX_POLICY_BYTES, Policy};
use cvm_verify::ak_certificate::{AkCertificate, MAX_BYTES, MAX_CERTIFICATES};

use crate::{config::Config, error::SetupError};
use cvm_peer::{
    error::AgentRefusal,
    token::ImageDocuments,
    trust::{SignedImage, Trust},
    verify::{cross_policy, self_policy},
};

/// Where `cvm-init` leaves an image's documents.
pub const IMAGE: &str = "/run/flare-cvm/image";
/// p4.
pub const CONFIG: &str = "/opt/nvflare/config";
/// The boot's event log, in [`IMAGE`].
pub const EVENT_LOG: &str = "event_log";
/// What vendors published about this machine and its peers, in [`IMAGE`]: from p1, where the site
/// put it.
pub const COLLATERAL: &str = "collateral.json";
/// On p4: the public key of the collector of that, and of what comes with peers' evidence.
pub const COLLECTOR: &str = "collateral.pub";
const MAX_AGREEMENT: u64 = cvm_ceremony::MAX_BYTES;

/// Where things lie.
#[derive(Debug, Clone)]
pub struct Folders {
    /// [`IMAGE`].
    pub image: PathBuf,
    /// [`CONFIG`].
    pub config: PathBuf,
}

/// All that the running image says of itself, read and verified once.
pub struct OwnImage {
    /// Whom this federation believes.
    pub trust: Trust,
    /// This image.
    pub image: Arc<SignedImage>,
    /// Its documents, for tokens.
    pub documents: ImageDocuments,
    /// Who vouches for its attestation key.
    pub ak_certificates: Vec<AkCertificate>,
    /// What the firmware measured; empty where it could not be read.
    pub event_log: Vec<u8>,
    /// What vendors published about this machine; empty where nobody put it there.
    pub collateral: Vec<u8>,
    /// Why that does not count here; `None` where it counts, or where there is none.
    pub collateral_unused: Option<String>,
    /// How peers are judged.
    pub cross_policy: Policy,
    /// How this machine is judged.
    pub self_policy: Policy,
    /// `agent.yaml`.
    pub config: Config,
}

impl OwnImage {
    /// Reads and verifies everything.
    ///
    /// # Errors
    /// [`SetupError`], for what is missing or wrong first.
    pub fn read(folders: &Folders) -> Result<Self, SetupError> {
        let image = |name: &str, limit: u64| read_bounded(&folders.image.join(name), limit);
        let config = |name: &str, limit: u64| read_bounded(&folders.config.join(name), limit);
        let collateral = optional(image(COLLATERAL, p1::MAX_COLLATERAL_BYTES))?.unwrap_or_default();
        let agreement = config("agreement.txt", MAX_AGREEMENT)?;
        let (trust, collateral_unused) =
            trust(&agreement, &folders.config.join(COLLECTOR), &collateral)?;
        if image("builder.pub", 32)? != trust.builder().as_bytes() {
            let builder = trust.agreement().builder().name.clone();
            return Err(SetupError::Own(AgentRefusal::Document {
                document: "builder.pub",
                builder,
            }));
        }
        let documents = ImageDocuments {
            manifest: image("manifest.json", manifest::MAX_BYTES)?.into(),
            manifest_sig: image("manifest.sig", 64)?.into(),
            reference: image("reference.json", cvm_evidence::reference::MAX_BYTES as u64)?.into(),
            reference_sig: image("reference.sig", 64)?.into(),
        };
        let image_of_documents = trust.image(&documents).map_err(SetupError::Own)?;
        let certificates = image("ak_certificates.json", (MAX_BYTES * MAX_CERTIFICATES) as u64);
        let limit = MAX_POLICY_BYTES as u64;
        Ok(Self {
            cross_policy: cross_policy(optional(config("policies/cross.rego", limit))?.as_deref())?,
            self_policy: self_policy(optional(config("policies/self.rego", limit))?.as_deref())?,
            config: Config::read(&folders.config.join("agent.yaml"))?,
            ak_certificates: match optional(certificates)? {
                Some(bytes) => AkCertificate::parse_list(&bytes)?,
                None => Vec::new(),
            },
            // An SNP or TDX guest may have no log.
            event_log: optional(image(EVENT_LOG, p1::MAX_EVENT_LOG_BYTES))?.unwrap_or_default(),
            collateral,
            collateral_unused,
            image: image_of_documents,
            documents,
            trust,
        })
    }
}

/// Trust in the agreement's parties, and in the collector if p4 names one; with what it collected,
/// or why that does not count. p1 is the host's: what is there can help, and can stop nothing.
fn trust(
    agreement: &[u8],
    collector: &Path,
    collateral: &[u8],
) -> Result<(Trust, Option<String>), SetupError> {
    let trust = Trust::new(agreement)?;
    if !collector.exists() {
        let unused =
            (!collateral.is_empty()).then(|| format!("p4 names no collector ({COLLECTOR})"));
        return Ok((trust, unused));
    }
    let key = read_public_key(collector)?;
    let mut vendors = trust.vendors().map_err(SetupError::Own)?.clone().with_collectors(vec![key]);
    let mut unused = None;
    if !collateral.is_empty() {
        match Cache::unpack(collateral, &[key]) {
            Ok(cache) => vendors = vendors.with_collateral(cache),
            Err(error) => unused = Some(format!("{}: {error}", error.code())),
        }
    }
    Ok((trust.with_vendors(vendors), unused))
}

fn optional(read: Result<Vec<u8>, FileError>) -> Result<Option<Vec<u8>>, FileError> {
    match read {
        Ok(bytes) => Ok(Some(bytes)),
        Err(FileError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The earliest time that the clock can show: the day of the agreement, or when key holders signed
/// during this boot.
pub fn not_before(own: &OwnImage) -> u64 {
    let day = &own.trust.agreement().transcript().terms.date;
    let agreed = cvm_peer::clock::parse(&format!("{day}T00:00:00Z")).unwrap_or(0);
    let certified = own.trust.certified(&own.ak_certificates, &own.image.manifest);
    certified.iter().map(|statement| statement.issued_at).fold(agreed, u64::max)
}
