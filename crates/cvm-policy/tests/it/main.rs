//! Policies: the engine's bounds, the three that are written from reference values, and every
//! shipped one over nothing.

mod acpi;
mod emptied;
mod engine;
mod written;
