//! Policies: the engine's bounds, and the three that are written from reference values.

#[cfg(feature = "verifier")]
mod acpi;
mod engine;
mod written;
