//! A participant's startup kit, split into what anybody may read (p4) and the private key (p3).
//!
//! The kit stays as NVFLARE signed it, so that `sub_start.sh --verify` passes in the guest: nothing
//! is rewritten. The service's mount namespace puts the sealed partitions at the paths that the kit
//! names for jobs and logs (`stages/nvflare_cc_base/rootfs/etc/systemd/system/nvflare.service`).

mod copy;
mod error;
mod extra;
mod firewall;
mod ports;
mod request;
mod signature;

use std::{fs, path::Path};

use serde_json::Value;
use zeroize::Zeroizing;

use super::secrets;
use crate::{WorkError, tool, tree};
use copy::MAX_FILE_BYTES;

pub use error::KitError;
pub use extra::Extra;
pub use request::KitRequest;

/// Where a kit's job store and snapshots lie, and where p5 is bound.
const JOBS: &str = "/tmp/nvflare/";
/// Where a kit's logs go, and where `state`'s logs are bound.
const LOGS: &str = "/applog/";

/// The private part, for the search in the cleartext partitions.
pub struct SplitKit {
    /// File name (`server.key`) and PEM text of each private key.
    pub private_keys: Vec<(String, Zeroizing<Vec<u8>>)>,
}

/// Checks a kit and writes p4's tree to `config` and the site volume's tree to `site`, both new.
///
/// p4: `site_conf.yaml`, `split_key.json`, `nftables/site.nft`, the extras, and `kit/`, in which an
/// empty file stands for the private key. Site volume: `keys/server.key` or `keys/client.key`.
pub fn split(request: &KitRequest, config: &Path, site: &Path) -> Result<SplitKit, KitError> {
    let key_name = format!("{}.key", request.role);
    check_shape(request, &key_name)?;
    signature::verify(request.kit)?;
    check_owner(request)?;
    check_paths(request.kit)?;
    ports::check(request)?;

    let keys = site.join("keys");
    fs::create_dir_all(&keys).map_err(WorkError::io("make", &keys))?;
    let key = take_key(request.kit, &format!("startup/{key_name}"))?;
    cvm_base::write_atomic(&keys.join(&key_name), &key, 0o400)?;
    copy_public(request.kit, &config.join("kit"), request.kit, &format!("startup/{key_name}"))?;

    extra::copy(request.extras, config)?;

    let rules = config.join("nftables");
    fs::create_dir_all(&rules).map_err(WorkError::io("make", &rules))?;
    cvm_base::write_atomic(
        &rules.join("site.nft"),
        firewall::rules(request.site_conf, request.gpu).as_bytes(),
        0o644,
    )?;
    let yaml = serde_yaml::to_string(request.site_conf).map_err(|e| KitError::Malformed {
        file: "site_conf.yaml".into(),
        problem: e.to_string(),
    })?;
    cvm_base::write_atomic(&config.join("site_conf.yaml"), yaml.as_bytes(), 0o644)?;
    cvm_base::write_atomic(&config.join("split_key.json"), request.split_key_json, 0o644)?;
    Ok(SplitKit { private_keys: vec![(key_name, key)] })
}

fn check_shape(request: &KitRequest, key_name: &str) -> Result<(), KitError> {
    let role = request.role;
    let files = [
        format!("startup/fed_{role}.json"),
        format!("startup/{role}.crt"),
        format!("startup/{key_name}"),
        "startup/rootCA.pem".into(),
        "startup/sub_start.sh".into(),
        "local/resources.json.default".into(),
    ];
    match files.into_iter().find(|file| !request.kit.join(file).is_file()) {
        Some(missing) => Err(KitError::NotAKit { kit: request.kit.into(), role, missing }),
        None => Ok(()),
    }
}

/// The certificate must have the site's name: the parties agreed to seal for that site.
fn check_owner(request: &KitRequest) -> Result<(), KitError> {
    let mut command = tool::command("openssl");
    command.args(["x509", "-noout", "-subject", "-nameopt", "multiline,utf8,-esc_msb", "-in"]);
    command.arg(request.kit.join(format!("startup/{}.crt", request.role)));
    let subject = tool::run("openssl", "reading the kit's certificate", command)?;
    let subject = String::from_utf8_lossy(&subject).into_owned();
    let found = subject
        .lines()
        .find_map(|line| line.trim().strip_prefix("commonName")?.split_once("= "))
        .map(|(_, n)| n);
    let expected = request.site_conf.site.as_str();
    if found == Some(expected) {
        return Ok(());
    }
    let found = found.unwrap_or_default().to_owned();
    Err(KitError::OtherSite { kit: request.kit.into(), found, expected: expected.into() })
}

/// What the kit's programs write must land on the sealed partitions.
fn check_paths(kit: &Path) -> Result<(), KitError> {
    let read = |file: &str| -> Result<Value, KitError> {
        let bytes = cvm_base::read_bounded(&kit.join(file), MAX_FILE_BYTES)?;
        serde_json::from_slice(&bytes)
            .map_err(|e| KitError::Malformed { file: file.into(), problem: e.to_string() })
    };
    let below = |file: &str, found: &str, expected: &'static str| {
        let is_below = found.starts_with(expected) && !found.split('/').any(|part| part == "..");
        let found = found.to_owned();
        if is_below {
            Ok(())
        } else {
            Err(KitError::OtherPath { file: file.into(), found, expected })
        }
    };
    let file = "local/resources.json.default";
    let resources = read(file)?;
    let snapshots = resources.pointer("/snapshot_persistor/args/storage/args/root_dir");
    let components = resources.get("components").and_then(Value::as_array).into_iter().flatten();
    let stores = components.filter(|c| c.get("id").and_then(Value::as_str) == Some("job_manager"));
    for path in stores.filter_map(|store| store.pointer("/args/uri_root")).chain(snapshots) {
        below(file, path.as_str().unwrap_or_default(), JOBS)?;
    }
    let file = "local/log_config.json.default";
    if kit.join(file).is_file() {
        let config = read(file)?;
        let handlers = config.get("handlers").and_then(Value::as_object).into_iter().flatten();
        let names = handlers.filter_map(|(_, handler)| handler.get("filename")?.as_str());
        // A plain name is in the workspace, which is sealed as well.
        for name in names.filter(|name| name.contains('/')) {
            below(file, name, LOGS)?;
        }
    }
    Ok(())
}

fn take_key(kit: &Path, file: &str) -> Result<Zeroizing<Vec<u8>>, KitError> {
    let key = Zeroizing::new(cvm_base::read_bounded(&kit.join(file), MAX_FILE_BYTES)?);
    if !secrets::holds_private_key(&key) {
        return Err(KitError::Malformed {
            file: file.into(),
            problem: "is not a private key in PEM form".into(),
        });
    }
    Ok(key)
}

/// Copies what is public; a private key anywhere else than in `key_file` is an error.
fn copy_public(kit: &Path, to: &Path, from: &Path, key_file: &str) -> Result<(), KitError> {
    fs::create_dir_all(to).map_err(WorkError::io("make", to))?;
    for entry in tree::entries(from)? {
        let target = to.join(entry.file_name().unwrap_or_default());
        let name = entry.strip_prefix(kit).unwrap_or(&entry).display().to_string();
        if entry.is_dir() {
            copy_public(kit, &target, &entry, key_file)?;
            continue;
        }
        if name == key_file {
            cvm_base::write_atomic(&target, b"", 0o644)?;
            continue;
        }
        copy::public_file(&entry, &target, &name)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
