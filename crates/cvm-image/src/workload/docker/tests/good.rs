//! Archives that are unpacked, and what their workload becomes.

use super::*;

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
            "BindReadOnlyPaths=/opt/nvflare/site/keys/client.key:\
             /user_config/nvflare/startup/client.key",
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
        let visit = &mut |meta: &entries::EntryHeader, _: &mut dyn Read| {
            found.push((meta.shown(), meta.size, meta.position));
            Ok(())
        };
        entries::each_entry("a layer", stream, &Budget::new(1), visit).unwrap();
        assert_eq!(found, [("large".to_owned(), SIZE, start.len() as u64)]);
    }
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
        ("Entrypoint", json!(["/etc/stays"]), "a program"),
        ("Entrypoint", json!(["/user_config/nvflare/../../bin/x"]), "a program"),
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
