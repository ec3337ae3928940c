use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use cvm_base::{Explain as _, sha256};

use super::{
    inputs::{Inputs, Sources},
    *,
};

fn stages() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../stages")
}

fn request(stage: &str, base_image: Option<PathBuf>, output: PathBuf) -> BuildRequest {
    BuildRequest {
        stage_dir: stages().join(stage),
        base_image,
        base_digest: None,
        profile: None,
        programs: PathBuf::from("/nonexistent"),
        output,
        rebuild: false,
    }
}

fn run(request: &BuildRequest) -> Result<BuiltStage, StageError> {
    build(request, &mut |_| ())
}

#[test]
fn a_stage_without_changes_of_its_own_takes_its_base_over_and_is_cached() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("base.qcow2");
    let base_meta = image::tests::small(&base, "nvflare_cc_base");
    let request = request("provision_build", Some(base), dir.path().join("out/image.qcow2"));
    let built = run(&request).unwrap();
    assert!(!built.cached);
    assert_eq!(built.meta.stage, "provision_build");
    assert_eq!(built.meta.base_sha256, Some(base_meta.content_sha256));
    let verity = built.meta.system.clone().unwrap();
    assert_eq!(
        (verity.data_bytes, verity.total_bytes),
        (base_meta.system_bytes, built.meta.system_bytes)
    );
    let image = StageImage::open(&built.image).unwrap();
    assert_eq!(image.read_file("vmlinuz").unwrap(), vec![1; 70_000]);
    image.extract_system(&dir.path().join("system")).unwrap();

    assert!(run(&request).unwrap().cached);
    let again = run(&BuildRequest { rebuild: true, ..request }).unwrap();
    assert!(!again.cached && again.meta == built.meta, "the same inputs give the same image");
    assert_eq!(fs::read_dir(dir.path().join("out")).unwrap().count(), 1, "nothing temporary stays");
}

#[test]
fn a_wrong_base_is_explained_and_replaces_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    image::tests::small(&path("first.qcow2"), "nvidia_cc_base");
    image::tests::small(&path("second.qcow2"), "nvflare_cc_base");
    fs::write(path("out.qcow2"), "an earlier good image").unwrap();
    let build = |stage: &str, base: Option<&str>| {
        run(&request(stage, base.map(path), path("out.qcow2"))).unwrap_err()
    };

    let error = build("provision_build", Some("first.qcow2"));
    assert!(error.code() == "STG-009" && error.to_string().contains("nvidia_cc_base"), "{error}");
    assert_eq!(build("provision_build", None).code(), "STG-007");
    assert_eq!(build("nvidia_cc_base", Some("first.qcow2")).code(), "STG-008");
    assert_eq!(build("provision_build", Some("missing.qcow2")).code(), "STG-011");
    let other = BuildRequest {
        base_digest: Some(sha256(b"other")),
        ..request("provision_build", Some(path("second.qcow2")), path("out.qcow2"))
    };
    assert_eq!(run(&other).unwrap_err().code(), "STG-010");
    let unknown = BuildRequest {
        profile: Some("debian-99".into()),
        ..request("nvidia_cc_base", None, path("out.qcow2"))
    };
    assert_eq!(run(&unknown).unwrap_err().code(), "STG-012");
    assert_eq!(fs::read(path("out.qcow2")).unwrap(), b"an earlier good image");
}

#[test]
fn a_change_of_any_input_changes_the_digest() {
    let dir = tempfile::tempdir().unwrap();
    let stage = dir.path().join("stage");
    fs::create_dir_all(stage.join("rootfs/etc")).unwrap();
    fs::write(
        stage.join("stage.yaml"),
        "version: 1\nstage: a\nimage: a.qcow2\nprofile: debian-12\n",
    )
    .unwrap();
    fs::write(stage.join("rootfs/etc/x"), "1").unwrap();
    let gather = |sources: &Sources| {
        Inputs::gather(&stage, Profile::named("debian-12").unwrap(), None, sources)
            .unwrap()
            .digest()
    };
    let digest = |lock: &str| gather(&Sources { lock: lock.into(), ..Sources::default() });
    let mut seen = vec![digest(""), digest("lock")];
    let program = |content: &[u8]| {
        fs::write(dir.path().join("cvm-agent"), content).unwrap();
        let spec = StageSpec {
            programs: [("cvm-agent".to_owned(), "/usr/libexec/x".to_owned())].into(),
            ..StageSpec::read(&stage).unwrap()
        };
        gather(&Sources {
            programs: programs::read(&spec, dir.path()).unwrap(),
            ..Sources::default()
        })
    };
    seen.extend([program(b"1"), program(b"2")]);
    let wheel = |byte| {
        let (file, bytes, line) = Default::default();
        gather(&Sources {
            wheel: Some(wheel::Wheel { file, bytes, line, sha256: sha256(&[byte]) }),
            ..Sources::default()
        })
    };
    seen.extend([wheel(1), wheel(2)]);
    let x = stage.join("rootfs/etc/x");
    fs::write(&x, "2").unwrap();
    seen.push(digest(""));
    fs::set_permissions(&x, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    seen.push(digest(""));
    fs::remove_file(&x).unwrap();
    std::os::unix::fs::symlink("2", &x).unwrap();
    seen.push(digest(""));
    fs::write(
        stage.join("stage.yaml"),
        "version: 1\nstage: a\nimage: a.qcow2\nprofile: debian-12\nverity: true\n",
    )
    .unwrap();
    seen.push(digest(""));
    for (i, a) in seen.iter().enumerate() {
        assert!(!seen[..i].contains(a), "change {i} went unnoticed");
    }
    assert_eq!(digest(""), *seen.last().unwrap());
}

#[test]
fn programs_are_installed_and_a_missing_one_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let spec = StageSpec::read(&stages().join("nvflare_cc_base")).unwrap();
    let error = programs::read(&spec, dir.path()).err().unwrap();
    assert!(error.code() == "STG-016" && error.to_string().contains("cvm-agent"), "{error}");
    for name in spec.programs.keys() {
        fs::write(dir.path().join(name), name).unwrap();
    }
    let tree = dir.path().join("tree");
    programs::install(&programs::read(&spec, dir.path()).unwrap(), &tree).unwrap();
    let path = tree.join("usr/libexec/flare-cvm/cvm-agent");
    assert_eq!(fs::read_to_string(&path).unwrap(), "cvm-agent");
    assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o755);
}

/// A small disk that fills up: a tmpfs in a mount namespace of its own.
#[test]
fn a_full_disk_is_named_and_an_earlier_image_stays() {
    let dir = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1M", "tmpfs"])
        .arg(dir.path())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("skipped: this user may not mount a tmpfs");
        return;
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let base = elsewhere.path().join("base.qcow2");
    image::tests::small(&base, "nvflare_cc_base");
    let out = dir.path().join("out.qcow2");
    fs::write(&out, "an earlier good image").unwrap();
    fs::write(dir.path().join("filler"), vec![1; 990_000]).unwrap_or(());
    let error = run(&request("provision_build", Some(base), out.clone())).unwrap_err();
    let kept = fs::read(&out).unwrap();
    let left = fs::read_dir(dir.path()).unwrap().count();
    std::process::Command::new("umount").arg(dir.path()).status().unwrap();
    assert!(["WORK-004", "FILE-002"].contains(&error.code()), "{error}");
    assert_eq!((kept.as_slice(), left), (b"an earlier good image".as_slice(), 2));
}
