//! The three stages: from a distribution to the tree that every sealed image of a project shares.
//!
//! A stage is a folder with `stage.yaml`, a `rootfs/` overlay of plain files and `build.sh`.
//! [`build`] turns it into one qcow2 file ([`StageImage`]), which the next stage or provisioning
//! builds on.

mod build;
mod check;
mod driver;
mod edits;
pub(crate) mod erofs;
mod error;
mod gate;
mod image;
mod inputs;
pub mod kit;
mod modules;
mod profile;
mod programs;
mod python;
pub(crate) mod secrets;
mod spec;
mod wheel;

pub use build::{BuildRequest, BuiltStage, build};
pub use check::Check;
pub use driver::BuiltDriver;
pub use error::StageError;
pub use image::{StageImage, StageMeta};
pub use profile::Profile;
pub use spec::{PythonSpec, StageSpec};

#[cfg(test)]
mod tests;
