//! What holds of the repository as a whole, read from its sources.

mod guest_crates;
