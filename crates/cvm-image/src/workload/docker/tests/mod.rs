mod attacks;
mod good;

use std::{
    io::Write as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::PathBuf,
};

use cvm_base::{Explain as _, sha256};
use cvm_layout::names::Role;
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use super::*;

/// An entry of a layer: kind, name, link's target or content, mode.
type TarEntry<'a> = (EntryType, &'a str, &'a str, u32);

const FILE: EntryType = EntryType::Regular;
const FOLDER: EntryType = EntryType::Directory;

/// A tar as hostile as its entries: names are written as they are.
fn tar(entries: &[TarEntry]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (kind, name, text, mode) in entries {
        let content =
            if matches!(*kind, EntryType::Symlink | EntryType::Link) { "" } else { *text };
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        if content.is_empty() {
            header.as_old_mut().linkname[..text.len()].copy_from_slice(text.as_bytes());
        }
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn hex(bytes: &[u8]) -> String {
    sha256(bytes).to_string()
}

fn files(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, content) in entries {
        let mut header = Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, content.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn config(run: Value, layers: &[Vec<u8>]) -> Value {
    let ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", hex(layer))).collect();
    json!({
        "architecture": "amd64",
        "os": "linux",
        "config": run,
        "rootfs": { "type": "layers", "diff_ids": ids },
    })
}

/// As `docker save` before 25 writes it.
fn saved(config: &Value, layers: &[Vec<u8>]) -> Vec<(String, Vec<u8>)> {
    let config = config.to_string().into_bytes();
    let name = format!("{}.json", hex(&config));
    let mut entries = vec![(name.clone(), config)];
    let names: Vec<String> = (0..layers.len()).map(|at| format!("{at:064}/layer.tar")).collect();
    entries.extend(names.iter().cloned().zip(layers.iter().cloned()));
    let manifest = json!([{ "Config": name, "RepoTags": ["acme:1"], "Layers": names }]);
    entries.push(("manifest.json".into(), manifest.to_string().into_bytes()));
    entries
}

/// As the OCI image layout has it: layers compressed, and an index of two machines first.
fn oci(config: &Value, layers: &[Vec<u8>]) -> Vec<(String, Vec<u8>)> {
    let mut entries =
        vec![("oci-layout".to_owned(), b"{\"imageLayoutVersion\":\"1.0.0\"}".to_vec())];
    let mut blob = |bytes: Vec<u8>| {
        let digest = hex(&bytes);
        entries.push((format!("blobs/sha256/{digest}"), bytes));
        json!({ "digest": format!("sha256:{digest}") })
    };
    let config = blob(config.to_string().into_bytes());
    let compress = |(at, layer): (usize, &Vec<u8>)| {
        if at % 2 == 0 { gzip(layer) } else { zstd::bulk::compress(layer, 3).unwrap() }
    };
    let layers: Vec<Value> = layers.iter().enumerate().map(|layer| blob(compress(layer))).collect();
    let mut manifest = blob(json!({ "config": config, "layers": layers }).to_string().into_bytes());
    manifest["platform"] = json!({ "architecture": "amd64", "os": "linux" });
    let mut other = manifest.clone();
    other["platform"]["architecture"] = "arm64".into();
    let index = blob(json!({ "manifests": [other, manifest] }).to_string().into_bytes());
    entries.push(("index.json".into(), json!({ "manifests": [index] }).to_string().into_bytes()));
    entries
}

struct Unpacked {
    dir: tempfile::TempDir,
    result: Result<Workload, ArchiveError>,
}

impl Unpacked {
    fn of(archive: &[u8]) -> Self {
        Self::within(archive, 1 << 30)
    }

    fn within(archive: &[u8], limit: u64) -> Self {
        Self::on(archive, limit, false)
    }

    fn on(archive: &[u8], limit: u64, gpus: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("archive"), archive).unwrap();
        [path("site"), path("scratch")].iter().for_each(|folder| fs::create_dir(folder).unwrap());
        let result = unpack(&UnpackRequest {
            archive: &path("archive"),
            site: &path("site"),
            scratch: &path("scratch"),
            limit,
            role: Role::Client,
            user_config: vec![
                ("mine".parse().unwrap(), true),
                ("one.json".parse().unwrap(), false),
            ],
            model: true,
            gpus,
        });
        Self { dir, result }
    }

    fn root(&self, path: &str) -> PathBuf {
        self.dir.path().join("site").join(ROOT).join(path)
    }

    fn unit(&self) -> String {
        fs::read_to_string(self.dir.path().join("site").join(UNIT)).unwrap()
    }

    /// The refusal, after a check that nothing came out of it.
    fn refused(self) -> ArchiveError {
        assert!(!self.dir.path().join("site/workload").exists());
        self.result.expect_err("it must be refused")
    }
}

fn run() -> Value {
    json!({
        "User": "1000", "Env": ["PATH=/usr/bin:/bin", "GREETING=a \"b\" $c %d", "PYTHONPATH=/app"],
        "Entrypoint": ["start"], "Cmd": ["--name", "x y"], "WorkingDir": "/app",
        "Volumes": {"/tmp": {}}, "Labels": {"a": "b"}
    })
}

/// Three layers with everything that the specification knows.
fn layers() -> Vec<Vec<u8>> {
    vec![
        tar(&[
            (FOLDER, "./", "", 0o755),
            (FOLDER, "usr/", "", 0o755),
            (FOLDER, "usr/bin/", "", 0o755),
            (FILE, "usr/bin/su", "su", 0o4755),
            (FILE, "usr/bin/tool", "tool", 0o755),
            (EntryType::Symlink, "bin", "usr/bin", 0o777),
            (EntryType::Symlink, "usr/bin/start", "/usr/lib/start", 0o777),
            (FILE, "usr/lib/start", "#!/bin/sh", 0o755),
            (FILE, "etc/gone", "x", 0o644),
            (FILE, "etc/stays", "x", 0o600),
            (FILE, "var/cache/a/b", "x", 0o644),
            (FILE, "usr/lib/python3/site-packages/nvflare-2.8.1.dist-info/METADATA", "", 0o644),
        ]),
        tar(&[
            (FILE, "etc/.wh.gone", "", 0),
            (FILE, "var/cache/c", "new", 0o644),
            (FILE, "var/cache/.wh..wh..opq", "", 0),
            (EntryType::Link, "usr/bin/other", "usr/bin/tool", 0o755),
            // Through the link of the layer below, which leads to usr/bin.
            (FILE, "bin/late", "late", 0o000),
            (EntryType::Symlink, "escape", "../../../../etc/passwd", 0o777),
        ]),
        tar(&[
            (FILE, "usr/bin/tool", "second", 0o755),
            (FOLDER, "app", "", 0o1777),
            (FILE, "escape/.wh.x", "", 0),
        ]),
    ]
}

/// An archive of one layer beside a good program.
fn one(entries: &[TarEntry]) -> Vec<u8> {
    let program = [(FILE, "start", "x", 0o755)];
    let layer = tar(&[&program, entries].concat());
    files(&saved(
        &config(json!({ "Cmd": ["/start"] }), std::slice::from_ref(&layer)),
        std::slice::from_ref(&layer),
    ))
}
