//! `kernel FOLDER`: unpacks the first stage's kernel and boot modules, for tests that boot a guest
//! of their own (`FLARE_CVM_TEST_KERNEL`). Builds the stages first, from the cache where nothing
//! changed.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use cvm_image::stage::StageImage;
use cvm_lab::scene::Scene;

fn main() -> Result<()> {
    let folder = PathBuf::from(std::env::args_os().nth(1).context("usage: kernel FOLDER")?);
    let scene = Scene::new("lab", 17_443, "small.yaml", |line| println!("{line}"));
    scene.stages()?;
    let image = StageImage::open(&scene.image("nvcc_image.qcow2"))?;
    let release = &image.meta.kernel;
    let write = |path: String, bytes: &[u8]| -> Result<()> {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().context("a folder above it")?)?;
        Ok(fs::write(path, bytes)?)
    };
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    write(format!("boot/vmlinuz-{release}"), &image.read_file("vmlinuz")?)?;
    let index = image.read_file(&format!("lib/modules/{release}/modules.dep"))?;
    for line in String::from_utf8_lossy(&index).lines() {
        let Some((module, _)) = line.split_once(':') else { continue };
        // The index names the whole kernel's modules; the image holds those of the boot.
        if let Ok(bytes) = image.read_file(&format!("lib/modules/{release}/{module}")) {
            write(format!("usr/lib/modules/{release}/{module}"), &bytes)?;
        }
    }
    write(format!("usr/lib/modules/{release}/modules.dep"), &index)
}
