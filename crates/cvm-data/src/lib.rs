//! The site's own data in the guest, at `/user_data` as NVFLARE's guide has it: the disk that the
//! host attached for it, or else p6; and in it the export that its `ext_mount.conf` names.
//!
//! All of it belongs to the host: read-only, without devices, set-id bits or programs, and nothing
//! that NVFLARE's start waits for without a bound.

pub mod disk;
mod error;
pub mod export;
pub mod nfs;

pub use error::DataError;

/// Where the data stands.
pub const USER_DATA: &str = "/user_data";

use nix::mount::MsFlags;

/// How everything of the host's is mounted.
const FLAGS: MsFlags =
    MsFlags::MS_RDONLY.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOSUID).union(MsFlags::MS_NOEXEC);
