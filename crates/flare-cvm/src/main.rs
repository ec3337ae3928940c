//! flare-cvm
fn main() {}
