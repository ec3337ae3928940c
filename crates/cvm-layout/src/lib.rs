//! What lies where on the disk: `partitions/*.yaml`, the placed disk, and the signed documents on
//! p1 that describe one image.

pub mod agent_conf;
#[cfg(feature = "code-digest")]
pub mod code_digest;
#[cfg(feature = "esp")]
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
