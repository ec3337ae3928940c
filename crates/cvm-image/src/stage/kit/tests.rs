use std::{os::unix::fs::PermissionsExt as _, path::PathBuf, process::Command};

use super::*;
use crate::stage::secrets::tests::scan_tree;
use cvm_base::Explain as _;
use cvm_layout::{manifest::GpuMechanism, names::Role, site_conf::SiteConf};

/// A small kit signed as NVFLARE signs, and what is around it.
struct Fixture {
    dir: tempfile::TempDir,
    kit: PathBuf,
}

fn openssl(arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

const RESOURCES: &str = r#"{
 "components": [{"id": "job_manager", "args": {"uri_root": "/tmp/nvflare/jobs-storage"}}],
 "snapshot_persistor": {
  "args": {"storage": {"args": {"root_dir": "/tmp/nvflare/snapshot-storage"}}}
 }
}"#;

impl Fixture {
    fn new(change: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let kit = dir.path().join("server1");
        for folder in ["startup", "local", "transfer"] {
            fs::create_dir_all(kit.join(folder)).unwrap();
        }
        let path = |name: &str| dir.path().join(name).display().to_string();
        let subject = |name: &str| format!("/CN={name}/O=demo/OU=server");
        openssl(&[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            &path("root.key"),
            "-out",
            &path("server1/startup/rootCA.pem"),
            "-subj",
            &subject("root"),
        ]);
        openssl(&[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            &path("server1/startup/server.key"),
            "-out",
            &path("server1/startup/server.crt"),
            "-subj",
            &subject("server1"),
        ]);
        let server =
            r#"{"servers": [{"service": {"target": "server1:8002"}, "admin_port": 8002}]}"#;
        fs::write(kit.join("startup/fed_server.json"), server).unwrap();
        fs::write(kit.join("startup/sub_start.sh"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(kit.join("startup/sub_start.sh"), fs::Permissions::from_mode(0o755))
            .unwrap();
        fs::write(kit.join("local/resources.json.default"), RESOURCES).unwrap();
        fs::write(
            kit.join("local/log_config.json.default"),
            r#"{"handlers": {"a": {"filename": "/applog/log.txt"}, "b": {}}}"#,
        )
        .unwrap();
        change(&kit);
        sign(&kit, &dir.path().join("root.key"));
        Self { dir, kit }
    }

    fn split(&self) -> Result<(PathBuf, PathBuf, SplitKit), KitError> {
        let conf: SiteConf = serde_yaml::from_str(
            "version: 1\nsite: server1\nrole: server\nallowed_ports: [8002]\nallowed_out_ports: \
             [443]\n",
        )
        .unwrap();
        let (config, site) = (self.dir.path().join("config"), self.dir.path().join("site"));
        let request = KitRequest {
            kit: &self.kit,
            role: Role::Server,
            site_conf: &conf,
            split_key_json: b"{}",
            extras: &[],
            gpu: None,
        };
        let keys = split(&request, &config, &site)?;
        Ok((config, site, keys))
    }
}

/// `nvflare.lighter.utils.sign_folders`, with OpenSSL.
fn sign(folder: &Path, key: &Path) {
    let mut list = serde_json::Map::new();
    let work = tempfile::tempdir().unwrap();
    let (name_file, out) = (work.path().join("name"), work.path().join("sig"));
    for entry in tree::entries(folder).unwrap() {
        let name = entry.file_name().unwrap().to_str().unwrap().to_owned();
        let signed = if entry.is_dir() {
            sign(&entry, key);
            fs::write(&name_file, &name).unwrap();
            &name_file
        } else {
            &entry
        };
        openssl(&[
            "dgst",
            "-sha256",
            "-sigopt",
            "rsa_padding_mode:pss",
            "-sigopt",
            "rsa_pss_saltlen:max",
            "-sign",
            key.to_str().unwrap(),
            "-out",
            out.to_str().unwrap(),
            signed.to_str().unwrap(),
        ]);
        let signature = base64::Engine::encode(
            &base64::engine::general_purpose::STANDARD,
            fs::read(&out).unwrap(),
        );
        list.insert(name, signature.into());
    }
    fs::write(folder.join("signature.json"), serde_json::to_vec(&list).unwrap()).unwrap();
}

#[test]
fn the_private_key_goes_to_the_site_volume_alone() {
    let fixture = Fixture::new(|_| ());
    let (config, site, split) = fixture.split().unwrap();
    let key = fs::read(site.join("keys/server.key")).unwrap();
    assert_eq!(split.private_keys[0].0, "server.key");
    assert!(*split.private_keys[0].1 == key && secrets::holds_private_key(&key));
    assert_eq!(
        site.join("keys/server.key").metadata().unwrap().permissions().mode() & 0o777,
        0o400
    );
    assert_eq!(
        config.join("kit/startup/server.key").metadata().unwrap().len(),
        0,
        "a placeholder to bind over"
    );

    let mut needles = secrets::Needles::default();
    needles.add_pem("server.key", &key);
    assert_eq!(scan_tree(&config, &needles), []);
    assert!(!scan_tree(&site, &needles).is_empty());

    for file in [
        "signature.json",
        "startup/rootCA.pem",
        "startup/sub_start.sh",
        "local/resources.json.default",
        "transfer/signature.json",
    ] {
        assert_eq!(
            fs::read(config.join("kit").join(file)).unwrap(),
            fs::read(fixture.kit.join(file)).unwrap(),
            "{file}"
        );
    }
    let rules = fs::read_to_string(config.join("nftables/site.nft")).unwrap();
    assert!(
        rules.contains("allowed_in { 8002 }")
            && rules.contains("allowed_out { 443 }")
            && rules.contains("dport 53")
    );
    assert!(!rules.contains("skuid"), "nothing in a running system without GPUs asks a key holder");
    let conf: SiteConf =
        serde_yaml::from_slice(&fs::read(config.join("site_conf.yaml")).unwrap()).unwrap();
    assert_eq!(conf.allowed_ports, [8002]);
    assert!(firewall::rules(&conf, Some(GpuMechanism::NvidiaCc)).contains("meta skuid 0 "));
}

#[test]
fn a_changed_added_or_linked_file_is_refused() {
    type Attack = fn(&Path);
    let cases: [(&str, Attack); 5] = [
        ("content", |kit| {
            fs::write(kit.join("startup/sub_start.sh"), "#!/bin/sh\nrm -rf /\n").unwrap()
        }),
        ("added", |kit| fs::write(kit.join("local/extra.json"), "{}").unwrap()),
        ("folder", |kit| fs::create_dir(kit.join("custom")).unwrap()),
        ("link", |kit| std::os::unix::fs::symlink("/etc/passwd", kit.join("transfer/x")).unwrap()),
        ("other root", |kit| {
            let (key, root) = (kit.join("../other.key"), kit.join("startup/rootCA.pem"));
            openssl(&[
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-keyout",
                key.to_str().unwrap(),
                "-out",
                root.to_str().unwrap(),
                "-subj",
                "/CN=root",
            ]);
        }),
    ];
    for (name, attack) in cases {
        let fixture = Fixture::new(|_| ());
        attack(&fixture.kit);
        let error = fixture.split().map(drop).unwrap_err();
        assert_eq!(error.code(), "KIT-004", "{name}: {error}");
    }
}

#[test]
fn mistakes_are_explained() {
    let code = |change: fn(&Path)| Fixture::new(change).split().map(drop).unwrap_err().code();
    assert_eq!(code(|kit| fs::remove_file(kit.join("startup/server.crt")).unwrap()), "KIT-001");
    assert_eq!(code(|kit| fs::write(kit.join("startup/server.key"), "none").unwrap()), "KIT-007");
    let steal = |kit: &Path| {
        fs::copy(kit.join("startup/server.key"), kit.join("local/backup.pem")).unwrap();
    };
    assert_eq!(code(steal), "KIT-005");
    let elsewhere = |kit: &Path| {
        fs::write(
            kit.join("local/resources.json.default"),
            RESOURCES.replace("/tmp/nvflare/jobs", "/tmp/nvflare/../jobs"),
        )
        .unwrap()
    };
    assert_eq!(code(elsewhere), "KIT-006");

    let port = |kit: &Path| {
        let config =
            r#"{"servers": [{"service": {"target": "server1:8102"}, "admin_port": 8002}]}"#;
        fs::write(kit.join("startup/fed_server.json"), config).unwrap();
    };
    let error = Fixture::new(port).split().map(drop).unwrap_err();
    assert_eq!(error.code(), "KIT-008");
    assert!(
        error.to_string().contains("8102") && error.to_string().contains("allowed_ports"),
        "{error}"
    );

    let unsigned = Fixture::new(|_| ());
    fs::remove_file(unsigned.kit.join("startup/signature.json")).unwrap();
    assert_eq!(unsigned.split().map(drop).unwrap_err().code(), "KIT-003");

    // As NVFLARE 2.7.0 and 2.7.1 leave it.
    let root_alone = Fixture::new(|_| ());
    fs::remove_file(root_alone.kit.join("signature.json")).unwrap();
    let error = root_alone.split().map(drop).unwrap_err();
    assert!(error.code() == "KIT-010" && error.help().contains("2.7.2"), "{error}");

    let listener = Fixture::new(|_| ());
    fs::write(listener.kit.join("local/comm_config.json"), "{}").unwrap();
    let error = listener.split().map(drop).unwrap_err();
    assert!(error.code() == "KIT-011" && error.help().contains("listening_host"), "{error}");

    let other = Fixture::new(|_| ());
    let conf: SiteConf = serde_yaml::from_str("version: 1\nsite: server2\nrole: server\n").unwrap();
    let request = KitRequest {
        kit: &other.kit,
        role: Role::Server,
        site_conf: &conf,
        split_key_json: b"{}",
        extras: &[],
        gpu: None,
    };
    let error = split(&request, &other.dir.path().join("c"), &other.dir.path().join("s"))
        .map(drop)
        .unwrap_err();
    assert!(error.code() == "KIT-002" && error.to_string().contains("server1"), "{error}");
}
