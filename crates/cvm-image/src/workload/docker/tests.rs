use std::{
    io::Write as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::PathBuf,
};

use cvm_base::{Explain as _, sha256};
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use super::*;

/// An entry of a layer: kind, name, link's target or content, mode.
type Entry<'a> = (EntryType, &'a str, &'a str, u32);

const FILE: EntryType = EntryType::Regular;
const FOLDER: EntryType = EntryType::Directory;

/// A tar as hostile as its entries: names are written as they are.
fn tar(entries: &[Entry]) -> Vec<u8> {
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
    json!({ "architecture": "amd64", "os": "linux", "config": run, "rootfs": { "type": "layers", "diff_ids": ids } })
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

/// As the OCI image layout has it, layers compressed, behind an index of two machines.
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
        let result = unpack(&Unpack {
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
        "Entrypoint": ["start"], "Cmd": ["--name", "x y"], "WorkingDir": "/app", "Volumes": {"/tmp": {}},
        "Labels": {"a": "b"}
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

#[test]
fn layers_are_applied_in_order_from_either_layout_and_compression() {
    let (config, layers) = (config(run(), &layers()), layers());
    let (legacy, layout) = (files(&saved(&config, &layers)), files(&oci(&config, &layers)));
    for archive in [legacy.clone(), gzip(&legacy), layout.clone(), gzip(&layout)] {
        let unpacked = Unpacked::of(&archive);
        let workload = unpacked.result.as_ref().unwrap();
        assert_eq!((workload.layers, workload.cleared.set_id), (3, 1));
        assert_eq!(workload.python, ["nvflare==2.8.1"]);
        let text = |path: &str| fs::read_to_string(unpacked.root(path)).unwrap();
        assert_eq!((text("usr/bin/tool"), text("usr/bin/other")), ("second".into(), "tool".into()));
        assert_eq!((text("usr/bin/late"), text("var/cache/c")), ("late".into(), "new".into()));
        let there = |path: &str| unpacked.root(path).symlink_metadata().is_ok();
        assert!(!there("etc/gone") && there("etc/stays") && !there("var/cache/a"));
        let mode =
            |path: &str| unpacked.root(path).metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!(
            (mode("usr/bin/su"), mode("etc/stays"), mode("usr/bin/late")),
            (0o755, 0o600, 0o400)
        );
        assert_eq!(mode("app"), 0o1777);
        assert_eq!(fs::read_link(unpacked.root("bin")).unwrap(), Path::new("usr/bin"));
        for place in [
            "user_config/nvflare",
            "user_config/mine",
            "vault/workspace/nvflare",
            "opt/nvflare/site/model",
        ] {
            assert!(unpacked.root(place).is_dir(), "{place}");
        }
        assert!(
            unpacked.root("user_config/one.json").is_file()
                && unpacked.root("etc/resolv.conf").is_file()
        );
        let unit = unpacked.unit();
        for line in [
            "ExecStart=\"/usr/bin/start\" \"--name\" \"x y\"",
            "WorkingDirectory=/app",
            "Environment=\"GREETING=a \\\"b\\\" $c %%d\"",
            "Environment=\"PYTHONPATH=/app:/opt/nvflare/site/model/code\"",
            "Environment=\"HOME=/vault/workspace/nvflare\"",
            "BindReadOnlyPaths=/opt/nvflare/site/keys/client.key:/user_config/nvflare/startup/client.key",
            "BindReadOnlyPaths=/opt/nvflare/config/user_config/mine:/user_config/mine",
            "TemporaryFileSystem=",
            "TemporaryFileSystem=/run:mode=0755,nodev,nosuid,noexec",
        ] {
            assert!(unit.lines().any(|found| found == line), "{line} is not in\n{unit}");
        }
    }
}

#[test]
fn where_the_image_requires_gpus_the_drivers_libraries_are_found() {
    let of = |env: Value, gpus| {
        let config = config(json!({ "Env": env, "Entrypoint": ["/usr/bin/start"] }), &layers());
        Unpacked::on(&files(&saved(&config, &layers())), 1 << 30, gpus)
    };
    let cuda = "/usr/local/nvidia/lib64";
    for (env, expected) in [
        (json!([]), cuda),
        (json!(["LD_LIBRARY_PATH="]), cuda),
        (json!(["LD_LIBRARY_PATH=/opt/lib"]), "/opt/lib:/usr/local/nvidia/lib64"),
        (json!(["LD_LIBRARY_PATH=/usr/local/nvidia/lib64:/x"]), "/usr/local/nvidia/lib64:/x"),
    ] {
        let unpacked = of(env, true);
        let unit = unpacked.unit();
        for line in [
            format!("Environment=\"LD_LIBRARY_PATH={expected}\""),
            format!("BindReadOnlyPaths={cuda}"),
        ] {
            assert!(unit.lines().any(|found| found == line), "{line} is not in\n{unit}");
        }
        assert!(unpacked.root("usr/local/nvidia/lib64").is_dir());
    }
    let without = of(json!([]), false);
    assert!(!without.unit().contains("nvidia") && !without.root("usr/local/nvidia").exists());
}

#[test]
fn a_hard_link_is_one_file() {
    let layer = tar(&[
        (FILE, "a", "x", 0o755),
        (EntryType::Link, "b", "a", 0),
        (EntryType::Link, "c", "./a", 0),
    ]);
    let run = json!({ "Entrypoint": ["/a"] });
    let unpacked = Unpacked::of(&files(&saved(
        &config(run, std::slice::from_ref(&layer)),
        std::slice::from_ref(&layer),
    )));
    unpacked.result.as_ref().unwrap();
    let inode = |path: &str| unpacked.root(path).metadata().unwrap().ino();
    assert!(inode("a") == inode("b") && inode("b") == inode("c"));
}

/// An archive of one layer beside a good program.
fn one(entries: &[Entry]) -> Vec<u8> {
    let program = [(FILE, "start", "x", 0o755)];
    let layer = tar(&[&program, entries].concat());
    files(&saved(
        &config(json!({ "Cmd": ["/start"] }), std::slice::from_ref(&layer)),
        std::slice::from_ref(&layer),
    ))
}

#[test]
fn attack_names_and_links_that_leave_the_image() {
    for entries in [
        vec![(FILE, "../evil", "x", 0o644)],
        vec![(FILE, "a/../../evil", "x", 0o644)],
        vec![(FILE, "/etc/evil", "x", 0o644)],
        vec![(FILE, "a", "x", 0o644), (FILE, "a/b", "x", 0o644)],
        vec![(EntryType::Link, "evil", "../../etc/passwd", 0)],
        vec![(EntryType::Link, "evil", "/etc/passwd", 0)],
        vec![(EntryType::Link, "evil", "nothing", 0)],
        vec![(FOLDER, "d", "", 0o755), (EntryType::Link, "evil", "d", 0)],
        vec![(EntryType::Symlink, "evil", "", 0)],
        vec![
            (EntryType::Symlink, "a", "b", 0),
            (EntryType::Symlink, "b", "a", 0),
            (FILE, "a/x", "x", 0),
        ],
        vec![(FILE, ".wh.", "", 0)],
        vec![(EntryType::Link, "evil", ".wh..wh.plnk/1.2", 0)],
        vec![(FILE, ".wh.a/b", "", 0)],
        vec![(FILE, "./", "x", 0o644)],
    ] {
        let error = Unpacked::of(&one(&entries)).refused();
        assert_eq!(error.code(), "DKR-003", "{entries:?}: {error}");
    }
    let deep = "d/".repeat(40) + "f";
    let steps: Vec<String> = (0..5).map(|at| format!("l{at}")).collect();
    let mut entries = vec![(FILE, deep.as_str(), "x", 0o644)];
    let targets: Vec<String> = (0..5)
        .map(
            |at| if at == 0 { "d/".repeat(40) } else { format!("l{}/{}", at - 1, "d/".repeat(40)) },
        )
        .collect();
    entries.extend(
        steps
            .iter()
            .zip(&targets)
            .map(|(name, target)| (EntryType::Symlink, name.as_str(), target.as_str(), 0)),
    );
    entries.push((FILE, "l4/x", "x", 0o644));
    assert_eq!(Unpacked::of(&one(&entries)).refused().code(), "DKR-003");
}

#[test]
fn attack_a_link_of_the_image_as_a_way_out_of_it() {
    // Written by a naive program, the second entry would land in the builder's /tmp.
    let unpacked = Unpacked::of(&one(&[
        (EntryType::Symlink, "way", "/tmp", 0),
        (FILE, "way/flare-cvm-test-escaped", "x", 0o644),
        (EntryType::Symlink, "up", "../../../..", 0),
        (FILE, "up/flare-cvm-test-escaped-too", "x", 0o644),
    ]));
    unpacked.result.as_ref().unwrap();
    assert!(unpacked.root("tmp/flare-cvm-test-escaped").is_file());
    assert!(unpacked.root("flare-cvm-test-escaped-too").is_file());
    assert!(!Path::new("/tmp/flare-cvm-test-escaped").exists());
}

#[test]
fn attack_devices_and_other_special_files() {
    for kind in [
        EntryType::Char,
        EntryType::Block,
        EntryType::Fifo,
        EntryType::GNUSparse,
        EntryType::new(b'9'),
    ] {
        let error = Unpacked::of(&one(&[(kind, "dev/sda", "", 0o666)])).refused();
        assert_eq!(error.code(), "DKR-004", "{kind:?}: {error}");
    }
}

#[test]
fn attack_zip_bombs() {
    // More than the site's disk, spread over layers that hide each other.
    let layers: Vec<Vec<u8>> =
        ["x", "y", "z"].map(|c| tar(&[(FILE, "big", &c.repeat(1 << 20), 0o755)])).to_vec();
    let archive = files(&oci(&config(json!({ "Cmd": ["/big"] }), &layers), &layers));
    Unpacked::within(&archive, 4 << 20).result.as_ref().unwrap();
    assert_eq!(Unpacked::within(&archive, 3 << 20).refused().code(), "DKR-005");
    assert_eq!(Unpacked::within(&gzip(&vec![0; 5 << 20]), 3 << 20).refused().code(), "DKR-005");
    // A layer of zeros within the limit, but beyond every file system's ratio.
    let mut header = Header::new_ustar();
    header.set_size(100 << 20);
    header.set_mode(0o755);
    let mut layer = Builder::new(Vec::new());
    layer.append_data(&mut header, "zeros", io::repeat(0).take(100 << 20)).unwrap();
    let layers = [layer.into_inner().unwrap()];
    let archive = files(&oci(&config(json!({ "Cmd": ["/zeros"] }), &layers), &layers));
    let error = Unpacked::of(&archive).refused();
    assert_eq!(error.code(), "DKR-005", "{error}");
    assert!(error.to_string().contains("zip bomb"), "{error}");
}

#[test]
fn attack_a_name_as_long_as_the_memory() {
    let mut builder = Builder::new(Vec::new());
    for kind in [EntryType::GNULongName, EntryType::XHeader] {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(1 << 20);
        header.set_cksum();
        builder.append(&header, io::repeat(b'a').take(1 << 20)).unwrap();
    }
    let layer = builder.into_inner().unwrap();
    let error = Unpacked::of(&files(&saved(
        &config(run(), std::slice::from_ref(&layer)),
        std::slice::from_ref(&layer),
    )))
    .refused();
    assert_eq!(error.code(), "DKR-001", "{error}");
}

/// Archives that Docker itself loads; where they are from: `tests/vectors/docker/PROVENANCE.md`.
#[test]
fn archives_of_other_tools() {
    for name in ["git-archive-import", "outer", "crane", "jib", "skopeo"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/vectors/docker")
            .join(format!("{name}.tar"));
        let unpacked = Unpacked::of(&fs::read(path).unwrap());
        let workload = unpacked.result.as_ref().unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(
            (workload.layers, &workload.python[..]),
            (1, &["nvflare==2.7.1".to_owned()][..]),
            "{name}"
        );
    }
}

#[test]
fn attack_a_configuration_that_is_not_what_its_name_says() {
    for prefix in ["", "sha256:", "blobs/sha256/"] {
        let layers = layers();
        let mut entries = saved(&config(run(), &layers), &layers);
        let digest = entries[0].0.trim_end_matches(".json").to_owned();
        let manifest = String::from_utf8(entries.last().unwrap().1.clone()).unwrap();
        entries.last_mut().unwrap().1 =
            manifest.replace(&entries[0].0, &format!("{prefix}{digest}")).into_bytes();
        entries[0].0 = format!("{prefix}{digest}");
        Unpacked::of(&files(&entries)).result.unwrap();
        entries[0].1.push(b' ');
        assert_eq!(Unpacked::of(&files(&entries)).refused().code(), "DKR-002", "{prefix}");
    }
}

/// Names that one file of a layer has lead to AUFS's own folder; nothing else of AUFS is the
/// image's.
#[test]
fn aufs_metadata_is_passed_over() {
    let layer = tar(&[
        (FILE, ".wh..wh.aufs", "", 0o444),
        (FOLDER, ".wh..wh.orph/", "", 0o700),
        (FILE, ".wh..wh.plnk/17.2", "#!/bin/sh", 0o755),
        (FOLDER, "bin/", "", 0o755),
        (EntryType::Link, "bin/start", ".wh..wh.plnk/17.2", 0o755),
        (EntryType::Link, "bin/again", ".wh..wh.plnk/17.2", 0o755),
    ]);
    let layers = [layer];
    let run = json!({ "Cmd": ["/bin/start"] });
    let unpacked = Unpacked::of(&files(&saved(&config(run, &layers), &layers)));
    unpacked.result.as_ref().unwrap();
    assert_eq!(fs::read_to_string(unpacked.root("bin/again")).unwrap(), "#!/bin/sh");
    let names: Vec<_> =
        fs::read_dir(unpacked.root("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().starts_with(".wh.")), "{names:?}");
}

/// What is longer than a header's field says its size in a PAX record or in base 256, and reads the
/// same.
#[test]
fn a_size_beyond_a_headers_field() {
    const SIZE: u64 = 9 << 30;
    let mut pax = Header::new_ustar();
    pax.set_entry_type(EntryType::XHeader);
    let record = format!("19 size={SIZE}\n");
    assert_eq!(record.len(), 19);
    pax.set_size(record.len() as u64);
    pax.set_cksum();
    let mut content = record.into_bytes();
    content.resize(512, 0);
    for (extension, stated) in
        [([pax.as_bytes().as_slice(), &content].concat(), 0), (Vec::new(), SIZE)]
    {
        let mut header = Header::new_gnu();
        header.set_path("large").unwrap();
        header.set_mode(0o644);
        header.set_size(stated);
        header.set_cksum();
        let start = [extension.as_slice(), header.as_bytes()].concat();
        // Nine gigabytes of zeros, the file, and the block that ends the archive.
        let stream = io::Read::chain(&start[..], io::repeat(0).take(SIZE + 512));
        let mut found = Vec::new();
        let visit = &mut |meta: &entries::Meta, _: &mut dyn Read| {
            found.push((meta.shown(), meta.size, meta.position));
            Ok(())
        };
        entries::each("a layer", stream, &Budget::new(1), visit).unwrap();
        assert_eq!(found, [("large".to_owned(), SIZE, start.len() as u64)]);
    }
}

#[test]
fn attack_sizes_without_end() {
    for size in [u64::MAX, u64::MAX - 511, 1 << 63] {
        let mut header = Header::new_gnu();
        header.set_path("endless").unwrap();
        header.set_size(size);
        header.set_cksum();
        let refused =
            entries::each("a layer", header.as_bytes().as_slice(), &Budget::new(1), &mut |_, _| {
                Ok(())
            });
        assert_eq!(refused.unwrap_err().code(), "DKR-001");
    }
}

#[test]
fn attack_changed_layers_configurations_and_manifests() {
    let layers = layers();
    for make in [saved, oci] {
        let entries = make(&config(run(), &layers), &layers);
        for at in 0..entries.len() {
            let mut changed = entries.clone();
            let (name, content) = &mut changed[at];
            // The two that nothing names by a digest say what the others are.
            if ["manifest.json", "index.json", "oci-layout"].contains(&name.as_str()) {
                continue;
            }
            let last = content.len() - 1;
            content[last] ^= 1;
            let error = Unpacked::of(&files(&changed)).refused();
            assert!(["DKR-001", "DKR-002"].contains(&error.code()), "{}: {error}", changed[at].0);
        }
    }
    let mut wrong = config(run(), &layers);
    wrong["rootfs"]["diff_ids"][1] = format!("sha256:{}", "0".repeat(64)).into();
    assert_eq!(Unpacked::of(&files(&saved(&wrong, &layers))).refused().code(), "DKR-002");
}

#[test]
fn truncated_and_foreign_files_are_refused() {
    let archive = files(&saved(&config(run(), &layers()), &layers()));
    let packed = gzip(&archive);
    // The last kilobyte of a tar is padding.
    for end in (0..archive.len() - 1024).step_by(509) {
        assert_eq!(Unpacked::of(&archive[..end]).refused().code(), "DKR-001", "at {end}");
    }
    for end in (0..packed.len()).step_by(97) {
        assert_eq!(Unpacked::of(&packed[..end]).refused().code(), "DKR-001", "at {end}");
    }
    for foreign in [b"PK\x03\x04".as_slice(), &[0; 4096], b"\x1f\x8b\xff", b"FROM scratch\n"] {
        assert_eq!(Unpacked::of(foreign).refused().code(), "DKR-001");
    }
    let mut two = saved(&config(run(), &layers()), &layers());
    two.push(two[0].clone());
    assert_eq!(Unpacked::of(&files(&two)).refused().code(), "DKR-001");
}

#[test]
fn what_a_unit_cannot_say_is_refused_with_its_key() {
    let with = |key: &str, value: Value| {
        let mut run = run();
        run[key] = value;
        Unpacked::of(&files(&saved(&config(run, &layers()), &layers()))).refused().to_string()
    };
    for (key, value, word) in [
        ("Entrypoint", json!(["nothing-there"]), "nothing-there"),
        ("Entrypoint", json!(["/etc/stays"]), "no program"),
        ("Entrypoint", json!(["/user_config/nvflare/../../bin/x"]), "no program"),
        ("Cmd", json!(["a\u{1b}b"]), "control"),
        ("Env", json!(["A B=1"]), "A B=1"),
        ("Env", json!(["NOVALUE"]), "NOVALUE"),
        ("WorkingDir", json!("/a/../../b"), "/a/../../b"),
        ("WorkingDir", json!("/etc/stays"), "/etc/stays"),
        ("WorkingDir", json!("/with space"), "WorkingDir"),
        ("Volumes", json!({"/data": {}}), "/data"),
        ("StopSignal", json!("SIGRTMIN+3"), "SIGRTMIN"),
    ] {
        let text = with(key, value);
        assert!(text.contains(word), "{key}: {text}");
    }
    let mut nothing = run();
    (nothing["Entrypoint"], nothing["Cmd"]) = (Value::Null, Value::Null);
    let of = |config: &Value| Unpacked::of(&files(&saved(config, &layers()))).refused();
    assert_eq!(of(&config(nothing, &layers())).code(), "DKR-006");
    let mut arm = config(run(), &layers());
    arm["architecture"] = "arm64".into();
    assert!(of(&arm).to_string().contains("linux/arm64"));
    let mut entries = saved(&config(run(), &layers()), &layers());
    let twice: Value = serde_json::from_slice(&entries.last().unwrap().1).unwrap();
    entries.last_mut().unwrap().1 = json!([twice[0], twice[0]]).to_string().into_bytes();
    assert_eq!(Unpacked::of(&files(&entries)).refused().code(), "DKR-006");
    // The kit's own program is there only when the machine runs.
    let mut kits = run();
    kits["Entrypoint"] = json!(["/user_config/nvflare/startup/sub_start.sh", "--verify"]);
    let unpacked = Unpacked::of(&files(&saved(&config(kits, &layers()), &layers())));
    unpacked.result.as_ref().unwrap();
    assert!(
        unpacked
            .unit()
            .contains("ExecStart=\"/user_config/nvflare/startup/sub_start.sh\" \"--verify\"")
    );
}

#[test]
fn the_seeds_and_damaged_copies_of_them_break_nothing() {
    if std::env::var_os("UPDATE").is_some() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/docker_archive");
        fs::create_dir_all(&folder).unwrap();
        let layers: Vec<_> = layers();
        for (name, content) in [
            ("saved.tar", files(&saved(&config(run(), &layers), &layers))),
            ("oci.tar", files(&oci(&config(run(), &layers), &layers))),
            ("layer.tar", layers[1].clone()),
        ] {
            fs::write(folder.join(name), content).unwrap();
        }
    }
    cvm_testkit::seeds::each_seed("docker_archive", 300, fuzz);
}
