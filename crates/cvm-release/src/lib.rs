//! cvm-release
