use super::*;

fn ours() -> Driver {
    Driver::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../stages/nvidia_cc_base/nvidia"))
        .unwrap()
}

fn read(change: impl Fn(String) -> String) -> Result<Driver, StageError> {
    let dir = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(ours().folder.join("driver.yaml")).unwrap();
    fs::write(dir.path().join("driver.yaml"), change(text)).unwrap();
    Driver::read(dir.path().to_owned())
}

#[test]
fn the_repositorys_own_driver_extends_its_stage() {
    let driver = ours();
    let mut stage = StageSpec::read(driver.folder.parent().unwrap()).unwrap();
    let before = stage.clone();
    driver.extend(&mut stage);
    assert!(
        stage.system_modules.ends_with(&["nvidia".into(), "nvidia-uvm".into()]),
        "{:?}",
        stage.system_modules
    );
    assert_eq!(stage.gate.last(), Some(&Check::NvidiaDriver));
    assert_eq!(stage.remove, before.remove);
    assert!(driver.overlay().is_dir());
    assert!(
        driver.spec.toolchain.iter().any(|package| package.contains(KERNEL)),
        "headers of the image's own kernel"
    );
}

#[test]
fn nonsense_is_refused() {
    for (from, to, word) in [
        ("version: 1", "version: 2", "version 2"),
        ("suite:", "suites:", "suites"),
        ("source: /", "source: ", "absolute"),
        ("from: /usr/lib/firmware", "from: /../usr/lib/firmware", "'..'"),
        ("gate: [", "gate: [no-such-check, ", "no-such-check"),
    ] {
        let error = read(|text| text.replacen(from, to, 1)).err().unwrap().to_string();
        assert!(error.contains(word) && error.contains("driver.yaml"), "{error} should say {word}");
    }
    read(|text| text).unwrap();
}

#[test]
fn a_file_goes_to_its_own_place_or_the_named_one() {
    let (packages, tree) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let library = packages.path().join("usr/lib/current/libx.so.1");
    fs::create_dir_all(library.parent().unwrap()).unwrap();
    fs::write(library.with_file_name("libx.so.1.550"), "x").unwrap();
    std::os::unix::fs::symlink("libx.so.1.550", &library).unwrap();
    let file =
        |from: &str, to: Option<&str>| DriverFile { from: from.into(), to: to.map(str::to_owned) };
    copy(packages.path(), &file("/usr/lib/*/libx.so.1", Some("/usr/lib")), tree.path()).unwrap();
    copy(packages.path(), &file("/usr/lib/current/libx.so.1.550", None), tree.path()).unwrap();
    for place in ["usr/lib/libx.so.1", "usr/lib/current/libx.so.1.550"] {
        let place = tree.path().join(place);
        assert!(place.is_file() && !place.is_symlink(), "{}", place.display());
    }
    for (pattern, count) in [("/usr/lib/*/lib*", "matches 2"), ("/gone", "matches 0")] {
        let error =
            copy(packages.path(), &file(pattern, None), tree.path()).unwrap_err().to_string();
        assert!(error.contains(count), "{error}");
    }
}
