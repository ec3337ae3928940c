//! What lies where on the disk: `partitions/*.yaml`, the placed disk, and the signed documents on
//! p1 that describe one image.

pub mod manifest;
pub mod names;
pub mod signed;
pub mod site_conf;
