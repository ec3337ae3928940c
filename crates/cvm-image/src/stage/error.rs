//! What goes wrong while a stage is built or read.

use std::path::PathBuf;

use cvm_base::{Bytes32, Explain, FileError};

use crate::WorkError;

/// A stage could not be built, or its image could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// A tool or the operating system failed.
    #[error(transparent)]
    Work(#[from] WorkError),
    /// Building a stage needs root.
    #[error("building a stage needs root, and this is user {uid}")]
    NotRoot {
        /// The user's id.
        uid: u32,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// `stage.yaml` is not what this program understands.
    #[error("{path}: {problem}", path = path.display())]
    Spec {
        /// The file.
        path: PathBuf,
        /// Where and what.
        problem: String,
    },
    /// The stage builds on another, and none was given.
    #[error("stage {stage} builds on {base}, and no base image was given")]
    BaseMissing {
        /// This stage.
        stage: String,
        /// The stage it names as its base.
        base: String,
    },
    /// A base was given to a stage that has none.
    #[error(
        "stage {stage} builds on nothing, but the base image {path} was given",
        path = path.display()
    )]
    BaseUnwanted {
        /// This stage.
        stage: String,
        /// What was given.
        path: PathBuf,
    },
    /// The base is of another stage.
    #[error("{path} is an image of stage {found}, expected {expected}", path = path.display())]
    WrongBase {
        /// What was given.
        path: PathBuf,
        /// Its stage.
        found: String,
        /// The stage that is needed.
        expected: String,
    },
    /// An image's content does not have the expected digest.
    #[error("{path} has the content {found}, expected {expected}", path = path.display())]
    WrongDigest {
        /// The image.
        path: PathBuf,
        /// What its content hashes to.
        found: Bytes32,
        /// What it should be.
        expected: Bytes32,
    },
    /// The file is not a stage's image.
    #[error("{path} is not a stage image: {problem}", path = path.display())]
    NotAnImage {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// A profile that this program does not know.
    #[error("profile {found:?} is unknown, expected one of: {known}")]
    UnknownProfile {
        /// What was asked for.
        found: String,
        /// What there is.
        known: String,
    },
    /// The machine's apt configuration names no mirror of the distribution.
    #[error("the apt configuration of this machine has no source of the suite {suite}")]
    NoAptSource {
        /// The distribution's suite.
        suite: &'static str,
    },
    /// No source of the machine has the driver that the profile adds.
    #[error("NVIDIA's driver is not in {looked_at}: {problem}")]
    NoDriver {
        /// Apt's sources.
        looked_at: String,
        /// What apt said.
        problem: String,
    },
    /// A program of this repository that the stage installs is not there.
    #[error("stage {stage} installs {name}, which is not in {folder}", folder = folder.display())]
    Program {
        /// The stage.
        stage: String,
        /// The program.
        name: String,
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// A path in a tree is not what the stage expects.
    #[error("{path}: {problem}")]
    Tree {
        /// The path in the guest.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// The finished tree breaks a rule.
    #[error("gate {id} of stage {stage}: {problem}")]
    Gate {
        /// The stage.
        stage: String,
        /// The check.
        id: &'static str,
        /// What it found.
        problem: String,
    },
}

impl Explain for StageError {
    fn code(&self) -> &'static str {
        match self {
            Self::Work(e) => e.code(),
            Self::NotRoot { .. } => "STG-004",
            Self::File(error) => error.code(),
            Self::Spec { .. } => "STG-006",
            Self::BaseMissing { .. } => "STG-007",
            Self::BaseUnwanted { .. } => "STG-008",
            Self::WrongBase { .. } => "STG-009",
            Self::WrongDigest { .. } => "STG-010",
            Self::NotAnImage { .. } => "STG-011",
            Self::UnknownProfile { .. } => "STG-012",
            Self::NoAptSource { .. } => "STG-013",
            Self::Tree { .. } => "STG-014",
            Self::Gate { .. } => "STG-015",
            Self::Program { .. } => "STG-016",
            Self::NoDriver { .. } => "STG-017",
        }
    }

    fn help(&self) -> String {
        match self {
            Self::Work(e) => e.help(),
            Self::NotRoot { .. } => "run as root (sudo flare-cvm build …); only building stages \
                needs it"
                .into(),
            Self::File(error) => error.help(),
            Self::Spec { .. } => "compare with the stage.yaml files of this repository's stages/ \
                folder; unknown keys are refused so that a misspelt one cannot weaken an \
                image"
                .into(),
            Self::BaseMissing { base, .. } => format!(
                "build {base} first and pass its image: \
                --base-image ../{base}/IMAGE.qcow2"
            ),
            Self::BaseUnwanted { .. } => "leave --base-image out, or build another stage".into(),
            Self::WrongBase { expected, .. } => format!(
                "pass the image that `flare-cvm build \
                {expected}` made"
            ),
            Self::WrongDigest { .. } => "the file was damaged or replaced, or another digest was \
                meant: build the base again, or correct --base-digest"
                .into(),
            Self::NotAnImage { .. } => "pass a .qcow2 file that `flare-cvm build` made".into(),
            Self::UnknownProfile { .. } => "leave --profile out, or choose one of these".into(),
            Self::NoAptSource { suite } => format!(
                "add a source of {suite} below \
                /etc/apt/sources.list.d, run apt-get update, and build again"
            ),
            Self::NoDriver { .. } => "the mirror of this machine's own source of the distribution \
                must carry that suite with these components (Debian's mirrors do); a mirror that \
                does not can be replaced below /etc/apt/sources.list.d, or another suite and its \
                packages named in stages/nvidia_cc_base/nvidia/driver.yaml"
                .into(),
            Self::Program { name, .. } => format!(
                "cargo build --release -p {name}, or say \
                --programs FOLDER with the folder that it lies in"
            ),
            Self::Tree { .. } => "the distribution's packages changed, or stage.yaml names \
                something that is not there: correct stage.yaml"
                .into(),
            Self::Gate { .. } => "the image would not be what its stage promises, so it was not \
                made: find what brought this into the tree"
                .into(),
        }
    }
}
