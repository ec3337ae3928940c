//! Where the site's data is mounted, and how.

use nix::mount::MsFlags;

/// Where the data is.
pub const USER_DATA: &str = "/user_data";

/// How everything of the host's is mounted.
pub(crate) const HOSTS_FLAGS: MsFlags =
    MsFlags::MS_RDONLY.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOSUID).union(MsFlags::MS_NOEXEC);
