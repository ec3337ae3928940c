//! One build under way: what every step reads.

use std::path::PathBuf;

use cvm_base::Bytes;
use cvm_ceremony::Site;
use cvm_layout::{manifest::ImageId, site_conf::SiteConf};

use super::{ProvisionError, request::ProvisionRequest};
use crate::tool;

/// The programs that every build runs.
const TOOLS: [&str; 11] = [
    "objcopy",
    "sbsign",
    "openssl",
    "qemu-img",
    "qemu-io",
    "mkfs.ext4",
    "mformat",
    "mmd",
    "mcopy",
    "mkfs.erofs",
    "fsck.erofs",
];

/// What lies in the build's folder only until the disk is made.
pub(super) mod parts {
    /// p4's tree.
    pub const CONFIG_TREE: &str = "config";
    /// p1's content.
    pub const ESP: &str = "esp.img";
    /// p2's.
    pub const BOOT: &str = "boot.img";
    /// p3's first area.
    pub const ROOT: &str = "root.img";
    /// p4's.
    pub const CONFIG: &str = "config.img";
    /// p6's.
    pub const DATA: &str = "data.img";
    /// All of them but p4's tree.
    pub const IMAGES: [&str; 5] = [ESP, BOOT, ROOT, CONFIG, DATA];
}

pub(super) struct Build<'a> {
    pub(super) request: &'a ProvisionRequest<'a>,
    /// The site's configuration, with the delegate's port open.
    pub(super) site_conf: SiteConf,
    pub(super) image_id: ImageId,
    /// The folder that becomes the bundle.
    pub(super) folder: PathBuf,
}

impl Build<'_> {
    /// A file in the build's folder.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The exact size of p1, p2 or p6.
    pub(super) fn partition_bytes(&self, number: usize) -> Result<u64, ProvisionError> {
        let size = self.request.site.layout.exact_size(number);
        size.ok_or(ProvisionError::NeedsExactSize(number))
    }
}

/// Checks the request before any work begins. Gives the site as it was agreed on, and its
/// configuration.
pub(super) fn check<'a>(
    request: &'a ProvisionRequest,
) -> Result<(&'a Site, SiteConf), ProvisionError> {
    let mut conf = request.site.conf.clone();
    let agreement = request.ceremony.agreement;
    let agreed = agreement.site(&conf.site, conf.role)?;
    let base = &request.project.base.meta;
    if base.system.is_none() {
        return Err(ProvisionError::NoSystemVolume { stage: base.stage.clone() });
    }
    if let Some(config) = request.site.cc_config {
        config.check_surroundings(base)?;
    }
    if let Some(delegate) = request.site.delegate {
        delegate.check(agreement, agreed)?;
        delegate.open_port(&mut conf);
        tool::require(&["fakeroot"])?;
    }
    tool::require(&TOOLS)?;
    Ok((agreed, conf))
}

pub(super) fn random_image_id() -> Result<ImageId, ProvisionError> {
    let mut id = Bytes([0; 16]);
    getrandom::fill(&mut id.0).map_err(|e| ProvisionError::Random(e.to_string()))?;
    Ok(id)
}

/// A document's one encoding: JSON, indented, a newline at its end.
pub(super) fn document<T: serde::Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("our documents have only string keys");
    bytes.push(b'\n');
    bytes
}
