//! What the tests of several crates share. It fails by panicking, as tests do.

pub mod bounded;
pub mod seeds;
pub mod swtpm;
