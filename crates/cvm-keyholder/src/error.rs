//! What may go wrong when a key holder starts or its operator works on it.

use std::path::PathBuf;

use cvm_attest::{AttestError, collateral::CacheError};
use cvm_base::{Bytes16, Bytes32, Explain, FileError, time::rfc3339};
use cvm_ceremony::CeremonyError;
use cvm_custody::CustodyError;
use cvm_layout::{names::Name, site_conf::ConfError};
use cvm_release::server::{MAX_REASON, Subject};

use crate::memory::Withdrawal;

/// A key holder's operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyHolderError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The agreement, or another document of the ceremony.
    #[error(transparent)]
    Ceremony(#[from] CeremonyError),
    /// The party's folder, or its unlocking.
    #[error(transparent)]
    Custody(#[from] CustodyError),
    /// A delegated key holder's `keyholder.yaml`.
    #[error("{}: {source}", path.display())]
    Conf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ConfError,
    },
    /// A secret file is readable by others.
    #[error("{} is readable by other users (mode {mode:o})", path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The store failed.
    #[error("the store {}: {problem}", path.display())]
    Store {
        /// The SQLite file.
        path: PathBuf,
        /// What SQLite said.
        problem: String,
    },
    /// No room for what must be written before anything is released.
    #[error("the store {}: there is no room left for its log", path.display())]
    Full {
        /// The SQLite file.
        path: PathBuf,
    },
    /// The policy cannot be used.
    #[error("the policy {}: {problem}", path.display())]
    Policy {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Endorsement roots cannot be used.
    #[error("the endorsement roots in {}: {source}", path.display())]
    Roots {
        /// The folder.
        path: PathBuf,
        /// What is wrong with them.
        source: AttestError,
    },
    /// Vendors' collateral cannot be used.
    #[error("the collateral in {}: {source}", path.display())]
    Collateral {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        source: CacheError,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The TLS certificate or key in the party's folder cannot be used.
    #[error("the TLS identity cannot be used: {0}")]
    Tls(String),
    /// A document's signature is not the builder's.
    #[error("{document} is not signed by the agreement's builder {builder}")]
    Signature {
        /// Which document.
        document: &'static str,
        /// The builder that the agreement names.
        builder: Name,
    },
    /// A document is malformed.
    #[error("{document} is malformed: {problem}")]
    Document {
        /// Which document.
        document: &'static str,
        /// Expected and found.
        problem: String,
    },
    /// The documents belong to different images.
    #[error("the reference values belong to {field} {found}, the manifest to {expected}")]
    OtherImage {
        /// What differs.
        field: &'static str,
        /// The manifest's.
        expected: String,
        /// The reference's.
        found: String,
    },
    /// The agreement is between others.
    #[error("the agreement does not name this party {0} with this folder's keys")]
    NotOurs(Name),
    /// Another manifest is enrolled under this image id.
    #[error("image {image} is enrolled already with the manifest {enrolled}")]
    Enrolled {
        /// The image.
        image: Bytes16,
        /// SHA-256 of the enrolled manifest.
        enrolled: Bytes32,
    },
    /// No such image.
    #[error("image {0} is not enrolled here")]
    NotEnrolled(Bytes16),
    /// The image is free to move anyway.
    #[error("image {0} is not bound to a machine")]
    NotBound(Bytes16),
    /// The audit log was changed.
    #[error("the audit log is not intact: {0}")]
    Log(#[from] crate::log::Tampering),
    /// A row is not what the log says, or the log says nothing of it.
    #[error("the store's row of image {image} is not used: {problem}")]
    Row {
        /// The image, as the row names it.
        image: String,
        /// Expected and found.
        problem: String,
    },
    /// The clock has fallen behind the log.
    #[error("the clock says {}, and the last entry of the log is of {}", rfc3339(*now), rfc3339(*last))]
    Clock {
        /// Unix seconds.
        now: u64,
        /// The entry's.
        last: u64,
    },
    /// The party took its consent back.
    #[error("{subject} was {withdrawal}")]
    Withdrawn {
        /// From what.
        subject: Subject,
        /// When and why.
        withdrawal: Withdrawal,
    },
    /// It did not.
    #[error("{0} is not withdrawn")]
    NotWithdrawn(Subject),
    /// A reason that does not fit the log.
    #[error("the reason is longer than {MAX_REASON} characters")]
    Reason,
    /// The process cannot be protected.
    #[error("{doing}: {source}")]
    Protect {
        /// What was tried.
        doing: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// Anything else on our side.
    #[error("{doing}: {problem}")]
    Internal {
        /// What was being done.
        doing: &'static str,
        /// What went wrong.
        problem: String,
    },
}

impl Explain for KeyHolderError {
    fn code(&self) -> &'static str {
        match self {
            Self::File(e) => e.code(),
            Self::Ceremony(e) => e.code(),
            Self::Custody(e) => e.code(),
            Self::Conf { source, .. } => source.code(),
            Self::Permissions { .. } => "KEY-001",
            Self::Store { .. } => "KEY-002",
            Self::Full { .. } => "KEY-022",
            Self::Policy { .. } => "KEY-003",
            Self::Roots { .. } => "KEY-004",
            Self::Collateral { source, .. } => source.code(),
            Self::Listen { .. } => "KEY-005",
            Self::Tls(_) => "KEY-006",
            Self::Signature { .. } => "KEY-007",
            Self::Document { .. } => "KEY-008",
            Self::OtherImage { .. } => "KEY-009",
            Self::NotOurs(_) => "KEY-010",
            Self::Enrolled { .. } => "KEY-011",
            Self::NotEnrolled(_) => "KEY-012",
            Self::NotBound(_) => "KEY-015",
            Self::Log(_) => "KEY-013",
            Self::Internal { .. } => "KEY-014",
            Self::Row { .. } => "KEY-016",
            Self::Clock { .. } => "KEY-017",
            Self::Withdrawn { .. } => "KEY-018",
            Self::NotWithdrawn(_) => "KEY-019",
            Self::Reason => "KEY-020",
            Self::Protect { .. } => "KEY-021",
        }
    }

    fn help(&self) -> String {
        match self {
            Self::File(e) => return e.help(),
            Self::Ceremony(e) => return e.help(),
            Self::Custody(e) => return e.help(),
            Self::Conf { source, .. } => return source.help(),
            Self::Permissions { path, .. } => {
                return format!("this file opens the party's half of every image: run `chmod 600 {}`", path.display());
            }
            Self::Listen { source, .. } => match source.kind() {
                std::io::ErrorKind::AddrInUse => "another program listens there, perhaps this key \
                    holder already: stop it or choose another --listen",
                std::io::ErrorKind::PermissionDenied => "ports below 1024 are reserved: choose a \
                    higher one",
                std::io::ErrorKind::AddrNotAvailable => "this machine has no such address: use one \
                    of `ip addr`, or 0.0.0.0 for all",
                _ => "--listen takes ADDRESS:PORT",
            },
            Self::Store { .. } => "check the folder's permissions and free space; a damaged store \
                can be replaced by a backup, or removed: then enrol the images again (their seals \
                are forgotten)",
            Self::Full { .. } => "free space on its disk: until then nothing is released, clients \
                are told to try again, and refusals stand on the console alone",
            Self::Policy { .. } => "the policy folder holds policy.rego (package policy, default \
                allow = false); `opa check` finds mistakes in it",
            Self::Collateral { source, .. } => return source.help(),
            Self::Roots { .. } => "put the PEM certificates of the TPM manufacturers that you trust into ek-roots/ of the policy folder",
            Self::Tls(_) => "the party's folder is damaged: restore tls.pem and secrets.age from a \
                backup",
            Self::Signature { .. } => "the bundle is not from the builder you agreed on, or was \
                changed: ask for it again",
            Self::Document { .. } => "the file is of another kind or version than this program \
                reads",
            Self::OtherImage { .. } => "take manifest.json and reference.json from the same bundle",
            Self::NotOurs(_) => "give the agreement that this party signed, and this party's own folder",
            Self::Enrolled { .. } => "an image id is used once: provision the site again to get a \
                new one",
            Self::NotBound(_) => "it boots on any machine whose evidence the policy accepts; \
                nothing has to be allowed",
            Self::NotEnrolled(_) => "`flare-cvm keyholder images` lists the enrolled images; enrol \
                this one first",
            Self::Log(_) => "somebody changed the store: keep it as evidence, compare with a \
                backup, and find out who had access",
            Self::Row { .. } => "somebody changed the store, or its file is damaged: `flare-cvm \
                keyholder log verify` says whether the log is intact; enrolling the image again \
                repairs its row",
            Self::Clock { .. } => "set this machine's clock; while it is behind, sessions and \
                revocation lists that are over would count again. If an earlier clock was ahead, \
                wait, or move the store away and enrol the images again",
            Self::Withdrawn { .. } => "`flare-cvm keyholder withdraw --undo` gives the consent \
                again; `keyholder images` lists what is withdrawn",
            Self::NotWithdrawn(_) => "`flare-cvm keyholder images` lists what is withdrawn",
            Self::Reason => "say it shorter, and keep the long version beside the log",
            Self::Protect { .. } => "the kernel or a sandbox forbids it; nothing secret is opened \
                in a process that others could read",
            Self::Internal { .. } => "this is a fault of the system or of this program",
        }
        .into()
    }
}
