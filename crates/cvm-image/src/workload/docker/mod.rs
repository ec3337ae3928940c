//! `docker_archive`: an image from `docker save` or in the OCI image layout, unpacked without
//! Docker into the `site` volume. It runs confined, instead of the guest's own NVFLARE.
//!
//! Layers are applied in memory ([`tree`]), so that nothing in an archive can name a place on the
//! builder's disk; only file contents are written, under numbers, and move to their places at the
//! end. Every layer's digest is compared. An image that could not run confined is refused.

mod archive;
mod bounds;
mod documents;
mod entries;
mod error;
mod image;
mod layer;
mod tree;
mod unit;

use std::{
    fs::{self, File},
    io::{self, Read, Seek},
    path::Path,
};

use cvm_base::interrupt;

pub use error::ArchiveError;
pub use image::UnpackRequest;
pub use layer::Cleared;

use crate::WorkError;
use archive::Archive;
use bounds::Budget;
use image::{LayeredImage, ROOT};
use layer::Layer;
use tree::Tree;

/// The drop-in for `nvflare.service`; a link in stage 2 leads here.
const UNIT: &str = "workload/nvflare.service.conf";

/// An unpacked workload.
#[derive(Debug)]
pub struct Workload {
    /// Its NVFLARE as `nvflare==VERSION`, where it has one.
    pub python: Vec<String>,
    /// What was left out.
    pub cleared: Cleared,
    /// How many layers it had.
    pub layers: usize,
}

/// Unpacks the archive into the tree of the `site` volume.
pub fn unpack(request: &UnpackRequest) -> Result<Workload, ArchiveError> {
    let contents = request.scratch.join("contents");
    fs::create_dir(&contents).map_err(WorkError::io("make", &contents))?;
    let place = |number: usize| contents.join(number.to_string());
    let mut count = 0;
    let mut keep = |content: &mut dyn Read, budget: &Budget| {
        interrupt::checkpoint();
        let path = place(count);
        let mut file = File::create_new(&path).map_err(WorkError::io("make", &path))?;
        io::copy(content, &mut file).map_err(|e| failed("a layer", &path, budget, e))?;
        count += 1;
        Ok(count - 1)
    };

    let source = File::open(request.archive).map_err(WorkError::io("open", request.archive))?;
    let source = expanded(source, request)?;
    let mut image = read(source, request.limit, &mut keep)?;
    let service = unit::write(&mut image, request, &mut |content| keep(content, &Budget::new(0)))?;

    let root = request.site.join(ROOT);
    let parent = root.parent().unwrap_or(request.site);
    fs::create_dir_all(parent).map_err(WorkError::io("make", parent))?;
    image.tree.write(&root, &place)?;
    let unit = request.site.join(UNIT);
    fs::write(&unit, service).map_err(WorkError::io("write", &unit))?;
    let versions =
        image.tree.names(&|name| name.starts_with("nvflare-") && name.ends_with(".dist-info"));
    let version = |name: &String| {
        name.trim_start_matches("nvflare-").trim_end_matches(".dist-info").to_owned()
    };
    let python = versions.iter().map(|name| format!("nvflare=={}", version(name))).collect();
    Ok(Workload { python, cleared: image.cleared, layers: image.layers })
}

/// Keeps a file's content under a number; the budget says why it could not be read.
type Keep<'a> = dyn FnMut(&mut dyn Read, &Budget) -> Result<usize, ArchiveError> + 'a;

/// Finds the archive's image and applies its layers.
fn read(
    source: impl Read + Seek,
    limit: u64,
    keep: &mut Keep,
) -> Result<LayeredImage, ArchiveError> {
    let budget = Budget::new(limit);
    let archive = Archive::open(source, &budget)?;
    let found = archive.image()?;
    let (mut tree, mut cleared) = (Tree::new(), Cleared::default());
    for (at, (name, diff_id)) in found.layers.iter().zip(&found.image.rootfs.diff_ids).enumerate() {
        let mut layer = Layer::new(name, at + 1, &mut tree, &mut cleared);
        archive.layer(name, diff_id, &budget, |stream| {
            layer.apply(stream, &budget, &mut |content| keep(content, &budget))
        })?;
    }
    Ok(LayeredImage {
        tree,
        run: found.image.config.unwrap_or_default(),
        cleared,
        layers: found.layers.len(),
    })
}

/// The archive without its own compression; a compressed one is expanded into a file first.
fn expanded(mut source: File, request: &UnpackRequest) -> Result<File, ArchiveError> {
    let broken = WorkError::io("read", request.archive);
    let mut start = [0; 512];
    let length = source
        .read(&mut start)
        .and_then(|count| source.rewind().map(|()| count))
        .map_err(broken)?;
    // A tar begins with a name, and has `ustar` at byte 257.
    if start.get(257..262) == Some(b"ustar") && length == start.len() {
        return Ok(source);
    }
    let path = request.scratch.join("archive.tar");
    let budget = Budget::new(request.limit);
    let mut file = File::create_new(&path).map_err(WorkError::io("make", &path))?;
    let failed = |error| failed("its compression", &path, &budget, error);
    let mut plain = archive::plain(source, &budget).map_err(failed)?;
    io::copy(&mut plain, &mut file).map_err(failed)?;
    file = File::open(&path).map_err(WorkError::io("open", &path))?;
    Ok(file)
}

/// Why a copy failed: either the disk is full, or the source is damaged.
fn failed(part: &str, to: &Path, budget: &Budget, error: io::Error) -> ArchiveError {
    match error.kind() {
        io::ErrorKind::StorageFull => WorkError::io("write", to)(error).into(),
        _ => budget.explain(part, &error),
    }
}

/// Reads any `bytes`, as an uncompressed archive and as a layer: the fuzz target.
///
/// # Panics
/// When a tree is accepted that has a name outside itself.
pub fn fuzz(bytes: &[u8]) {
    const LIMIT: u64 = 1 << 24;
    let mut sink = |content: &mut dyn Read, budget: &Budget| {
        io::copy(content, &mut io::sink()).map_err(|e| budget.explain("a layer", &e))?;
        Ok(0)
    };
    if let Ok(image) = read(io::Cursor::new(bytes), LIMIT, &mut sink) {
        inside(&image.tree);
    }
    let (mut tree, mut cleared, budget) = (Tree::new(), Cleared::default(), Budget::new(LIMIT));
    let mut layer = Layer::new("a layer", 1, &mut tree, &mut cleared);
    let _ = layer.apply(bytes, &budget, &mut |content| sink(content, &budget));
    inside(&tree);
}

/// No name of the tree leads anywhere but to an entry of its folder.
fn inside(tree: &Tree) {
    let bad =
        tree.names(&|name| name.is_empty() || name == "." || name == ".." || name.contains('/'));
    assert!(bad.is_empty(), "{bad:?}");
}

#[cfg(test)]
mod tests;
