//! A measurement that differs from its golden values.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whose golden value a measurement differs from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// The driver's manifest.
    Driver,
    /// The VBIOS's, or the switch's BIOS's.
    Firmware,
}

/// A measurement that differs from each of its golden values. Its JSON is NVIDIA's
/// `x-nvidia-mismatch-measurement-records`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mismatch {
    /// Counted from 0, as manifests do; SPDM counts from 1.
    pub index: u8,
    /// Bytes of the first golden value.
    pub golden_size: usize,
    /// The first golden value, hex.
    pub golden_value: String,
    /// Bytes measured; 0 when the report has no such measurement.
    pub runtime_size: usize,
    /// What was measured, hex; `NA` when the report has no such measurement.
    pub runtime_value: String,
    /// Whose golden value.
    pub measurement_source: Source,
    /// Its name in the manifest.
    pub name: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, name, golden_value, runtime_value, measurement_source, .. } = self;
        write!(
            f,
            "{index} ({name}, {measurement_source:?}): expected {golden_value:.16}…, measured \
             {runtime_value:.16}…"
        )
    }
}
