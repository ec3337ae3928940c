//! Policies: the engine's bounds, and the three that are written from reference values.

mod engine;
mod written;
