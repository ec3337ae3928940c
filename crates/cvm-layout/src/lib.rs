//! What lies where on the disk: `partitions/*.yaml`, the placed disk, the signed documents on p1 and
//! p4 that describe one image, and the bounded readers of what the host may have changed: the
//! partition table and p1's file system.

pub mod agent_conf;
pub mod code_digest;
pub mod esp;
pub mod gpt;
pub mod keyholder_conf;
pub mod layout;
pub mod manifest;
pub mod names;
pub mod p1;
pub mod signed;
pub mod site_conf;
pub mod yaml;
