//! cvm-init
fn main() {}
