//! What `docker save` would write, without Docker.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::run;

/// Makes `folder/app.tar.gz`: an image of one layer, the folder `root`, with `config` as its run
/// configuration.
pub fn save(folder: &Path, root: &Path, config: &Value) -> Result<PathBuf> {
    let save = folder.join("save");
    fs::create_dir_all(&save)?;
    let layer = save.join("layer.tar");
    run(Command::new("tar").arg("-C").arg(root).arg("-cf").arg(&layer).arg("."))?;
    let document = json!({
        "architecture": "amd64", "os": "linux", "config": config,
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer)?)] }
    });
    fs::write(save.join("config"), document.to_string())?;
    let name = format!("{}.json", sha256(&save.join("config"))?);
    fs::rename(save.join("config"), save.join(&name))?;
    let manifest = json!([{ "Config": name, "RepoTags": ["acme:1"], "Layers": ["layer.tar"] }]);
    fs::write(save.join("manifest.json"), manifest.to_string())?;
    let archive = folder.join("app.tar.gz");
    run(Command::new("tar").arg("-C").arg(&save).arg("-czf").arg(&archive).arg("."))?;
    Ok(archive)
}

fn sha256(path: &Path) -> Result<String> {
    let line = run(Command::new("sha256sum").arg(path))?;
    Ok(line.split_whitespace().next().context("a digest")?.to_owned())
}
