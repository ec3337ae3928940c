//! A running hash over the exchange's steps.

use std::fmt;

use cvm_base::{Bytes32, sha256};
use cvm_layout::manifest::{Manifest, Stage};

use crate::codes::{Code, Failure};

/// The steps that were taken, as one hash.
#[derive(Clone, Copy)]
pub(crate) struct Order {
    pub(crate) manifest_sha256: Bytes32,
    digest: Bytes32,
}

impl Order {
    pub(crate) fn begin(manifest: &Manifest, manifest_sha256: Bytes32, stage: Stage) -> Self {
        let mut order = Self { manifest_sha256, digest: manifest_sha256 };
        order.then("transcript", manifest.split_key.transcript);
        order.then("stage", format_args!("{stage:?}"));
        order
    }

    /// What the hash must be once every party of the stage has released.
    pub(crate) fn released(manifest: &Manifest, manifest_sha256: Bytes32, stage: Stage) -> Self {
        let mut order = Self::begin(manifest, manifest_sha256, stage);
        manifest.asked(stage).for_each(|party| order.then("half", &party.name));
        order
    }

    pub(crate) fn then(&mut self, step: &str, what: impl fmt::Display) {
        self.digest = sha256(format!("{} {step} {what}", self.digest).as_bytes());
    }

    pub(crate) fn check(&self, expected: Self) -> Result<(), Failure> {
        if self.digest == expected.digest {
            return Ok(());
        }
        Err(Failure::new(Code::Order, "the running hash of the exchange's steps differs"))
    }
}
