//! What is wrong with a startup kit.

use std::path::PathBuf;

use cvm_base::Explain;
use cvm_layout::names::Role;

/// A startup kit cannot be sealed.
#[derive(Debug, thiserror::Error)]
pub enum KitError {
    /// Not a kit of this role.
    #[error("{kit} is not a startup kit of a {role}: {missing} is missing", kit = kit.display())]
    NotAKit {
        /// The folder.
        kit: PathBuf,
        /// What was expected.
        role: Role,
        /// The file that would be there.
        missing: String,
    },
    /// The kit is another participant's.
    #[error(
        "the startup kit {kit} belongs to {found:?}, expected {expected:?}",
        kit = kit.display()
    )]
    OtherSite {
        /// The folder.
        kit: PathBuf,
        /// The name in its certificate.
        found: String,
        /// The site's name.
        expected: String,
    },
    /// The kit carries no signatures at all.
    #[error("the startup kit is not signed: {file} is missing")]
    NotSigned {
        /// Which `signature.json`.
        file: String,
    },
    /// Only the kit's folders are signed, not the kit itself.
    #[error(
        "the startup kit's folders are signed, but signature.json of the kit itself is missing"
    )]
    RootNotSigned,
    /// NVFLARE writes this file after it signed the kit.
    #[error(
        "{file} of the startup kit has no signature: NVFLARE writes it after it signed the kit"
    )]
    WrittenAfterSigning {
        /// The file.
        file: String,
    },
    /// A signature is wrong or missing.
    #[error("{file} of the startup kit does not match its signature: {problem}")]
    BadSignature {
        /// The file.
        file: String,
        /// What is wrong.
        problem: String,
    },
    /// A private key is where none is expected.
    #[error("{file} holds a private key, and would lie where anybody can read it")]
    UnexpectedKey {
        /// The file.
        file: String,
    },
    /// The job store would lie outside p5, or logs outside `state`.
    #[error("{file} of the startup kit writes to {found}, expected a path below {expected}")]
    OtherPath {
        /// The file.
        file: String,
        /// The path it names.
        found: String,
        /// Where a sealed site writes.
        expected: &'static str,
    },
    /// The site's firewall would close what the kit needs.
    #[error("{file} of the startup kit {verb} port {port}, and {key} is {allowed:?}")]
    ClosedPort {
        /// The file.
        file: String,
        /// What it does with the port.
        verb: &'static str,
        /// The port.
        port: u16,
        /// The list that lacks it.
        key: &'static str,
        /// What that list holds.
        allowed: Vec<u16>,
    },
    /// The user's configuration has something that p4 cannot hold.
    #[error("{path} {problem}", path = path.display())]
    NotPlain {
        /// The file.
        path: PathBuf,
        /// What it is.
        problem: String,
    },
    /// A file cannot be read as what it should be.
    #[error("{file} of the startup kit: {problem}")]
    Malformed {
        /// The file.
        file: String,
        /// Why.
        problem: String,
    },
    /// A tool or the operating system failed.
    #[error(transparent)]
    Work(#[from] crate::WorkError),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] cvm_base::FileError),
}

impl Explain for KitError {
    fn code(&self) -> &'static str {
        match self {
            Self::NotAKit { .. } => "KIT-001",
            Self::OtherSite { .. } => "KIT-002",
            Self::NotSigned { .. } => "KIT-003",
            Self::BadSignature { .. } => "KIT-004",
            Self::UnexpectedKey { .. } => "KIT-005",
            Self::OtherPath { .. } => "KIT-006",
            Self::Malformed { .. } => "KIT-007",
            Self::ClosedPort { .. } => "KIT-008",
            Self::NotPlain { .. } => "KIT-009",
            Self::RootNotSigned => "KIT-010",
            Self::WrittenAfterSigning { .. } => "KIT-011",
            Self::Work(error) => error.code(),
            Self::File(error) => error.code(),
        }
    }

    fn help(&self) -> String {
        match self {
            Self::NotAKit { .. } => {
                "give the participant's own folder below prod_NN that `nvflare \
                provision` made"
                    .into()
            }
            Self::OtherSite { .. } => "give this site's kit, or correct the site's name in its \
                configuration"
                .into(),
            Self::NotSigned { .. } => "NVFLARE signs the kits of participants with a cc_config: \
                add one, and CCBuilder and SignatureBuilder, to project.yml \
                (tests/demo/project.yml shows how)"
                .into(),
            Self::RootNotSigned => "NVFLARE 2.7.0 and 2.7.1 do not sign a kit as a whole, so a \
                file could be added to it: provision it again with NVFLARE 2.7.2 or later"
                .into(),
            Self::WrittenAfterSigning { .. } => "NVFLARE makes it for a participant with a \
                listening_host: take that out of project.yml and provision again; a sealed site's \
                jobs run in its own machine and need no listener"
                .into(),
            Self::BadSignature { .. } => "the kit was changed after `nvflare provision` made it; \
                provision it again and change nothing in it"
                .into(),
            Self::UnexpectedKey { .. } => "only the participant's own key may be in a kit, and \
                none in user_config: take this file out"
                .into(),
            Self::OtherPath { .. } => "leave NVFLARE's own paths in the project's template: the \
                sealed site puts the encrypted partitions there"
                .into(),
            Self::Malformed { .. } => "provision the kit again".into(),
            Self::ClosedPort { key, port, .. } => format!(
                "add {port} to {key} of the site's \
                configuration, or provision the kit with a port that is in it"
            ),
            Self::NotPlain { .. } => "user_config takes plain files and folders: put large or \
                special ones into the site's data (p6)"
                .into(),
            Self::Work(error) => error.help(),
            Self::File(error) => error.help(),
        }
    }
}
