//! Archives that are hostile, damaged or something else.

use super::*;

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

#[test]
fn attack_sizes_without_end() {
    for size in [u64::MAX, u64::MAX - 511, 1 << 63] {
        let mut header = Header::new_gnu();
        header.set_path("endless").unwrap();
        header.set_size(size);
        header.set_cksum();
        let refused = entries::each_entry(
            "a layer",
            header.as_bytes().as_slice(),
            &Budget::new(1),
            &mut |_, _| Ok(()),
        );
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
