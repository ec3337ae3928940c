//! p3 and p4: the volumes with their verity trees, and what is sealed.

use std::{
    fs::{self, File},
    io::Read as _,
    path::Path,
};

use cvm_base::{Bytes32, sha256};
use cvm_ceremony::{Keys, split_key::Purpose};
use cvm_layout::manifest::{ImageId, LUKS_HEADER_BYTES, RootPartition, Verity, Volume};
use cvm_seal::{DiskKey, MacKey, luks, verity};

use super::{
    ProvisionError,
    build::{Build, parts},
    contents::Contents,
};
use crate::{WorkError, memory::SecretFolder, stage::erofs};

/// The volumes of p3 and p4, and their verity trees.
pub(super) struct Volumes {
    /// p4.
    pub(super) config: Verity,
    /// p3's first area.
    pub(super) root: RootPartition,
}

impl Volumes {
    /// Makes p4, and seals the `system` and `site` volumes into p3 with the key for `system`.
    pub(super) fn make(
        build: &Build,
        contents: &Contents,
        keys: &Keys,
        secrets: &SecretFolder,
    ) -> Result<Self, ProvisionError> {
        let (tree, image) = (build.path(parts::CONFIG_TREE), build.path(parts::CONFIG));
        let config = verity_volume(&tree, &image, erofs::Owner::Root, &build.image_id)?;
        let site_image = secrets.join("site.img");
        let (tree, owner) = (&contents.site_tree, contents.site_owner);
        let site = verity_volume(tree, &site_image, owner, &build.image_id)?;
        let root = seal_root(build, site, keys, &site_image, &build.path(parts::ROOT))?;
        Ok(Self { config, root })
    }
}

/// An erofs of `tree` at `image`, followed by its verity tree.
fn verity_volume(
    tree: &Path,
    image: &Path,
    owner: erofs::Owner,
    id: &ImageId,
) -> Result<Verity, ProvisionError> {
    let bytes = erofs::make(tree, image, owner, id)?;
    Ok(verity::format(image, bytes, salt(id, &tree.to_string_lossy()))?)
}

/// A salt of its own for each volume of each image; public.
pub(super) fn salt(image_id: &ImageId, volume: &str) -> Bytes32 {
    let volume = volume.rsplit('/').next().unwrap_or(volume);
    sha256(format!("flare-cvm/v1/verity-salt/{volume}/{image_id}").as_bytes())
}

/// p3's first area: the project's `system` volume and then the site's own, in one LUKS2 container.
fn seal_root(
    build: &Build,
    site: Verity,
    keys: &Keys,
    site_image: &Path,
    area: &Path,
) -> Result<RootPartition, ProvisionError> {
    let base = build.request.project.base;
    let system = base
        .meta
        .system
        .clone()
        .ok_or_else(|| ProvisionError::NoSystemVolume { stage: base.meta.stage.clone() })?;
    let system_image = area.with_extension("system");
    base.extract_system(&system_image)?;
    let open = |path: &Path| File::open(path).map_err(WorkError::io("read", path));
    let mut plain = open(&system_image)?
        .take(system.total_bytes)
        .chain(open(site_image)?.take(site.total_bytes));
    let sealed = luks::seal(
        &mut plain,
        system.total_bytes + site.total_bytes,
        area,
        0,
        &DiskKey::new(keys.get(Purpose::System).as_bytes()),
        &MacKey::new(keys.get(Purpose::HeaderMacSystem).as_bytes()),
    )?;
    fs::remove_file(&system_image).map_err(WorkError::io("remove", &system_image))?;
    debug_assert_eq!(sealed.total_bytes, LUKS_HEADER_BYTES + system.total_bytes + site.total_bytes);
    Ok(RootPartition {
        sealed_bytes: sealed.total_bytes,
        site: Volume { offset: system.total_bytes, verity: site },
        system: Volume { offset: 0, verity: system },
        state_offset: 0, // placed later
    })
}
