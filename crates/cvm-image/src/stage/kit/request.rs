//! What a kit is split for.

use std::path::Path;

use cvm_layout::{manifest::GpuMechanism, names::Role, site_conf::SiteConf};

use super::Extra;

/// A kit, and what its parts are made for.
pub struct KitRequest<'a> {
    /// The participant's folder below `prod_NN`.
    pub kit: &'a Path,
    /// The role that the kit must have.
    pub role: Role,
    /// The site's configuration, which becomes `site_conf.yaml` and the site's firewall rules.
    pub site_conf: &'a SiteConf,
    /// The bytes of `split_key.json`: public components only.
    pub split_key_json: &'a [u8],
    /// What else goes to p4.
    pub extras: &'a [Extra],
    /// The GPUs whose evidence the running system shows to the key holders.
    pub gpu: Option<GpuMechanism>,
}
