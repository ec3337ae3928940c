//! `cvm-init`: PID 1 of the initramfs. `main.rs` tells the story; this library holds its chapters,
//! so that tests and fuzz targets reach them.

pub mod codes;
pub mod console;
pub mod esp;
pub mod net;
pub mod platform;
