//! A participant's startup kit, split into what anybody may read (p4) and its private key (p3).
//!
//! The kit stays as NVFLARE signed it, so that `sub_start.sh --verify` passes in the guest: nothing
//! is rewritten. Where the kit names paths for jobs and logs, the service's mount namespace puts
//! the sealed partitions (`stages/nvflare_cc_base/rootfs/etc/systemd/system/nvflare.service`).

mod error;
mod extra;
mod ports;
mod signature;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use cvm_layout::{manifest::GpuMechanism, names::Role, site_conf::SiteConf};
use serde_json::Value;
use zeroize::Zeroizing;

use super::{secrets, tree};
use crate::{WorkError, tool};
pub use error::KitError;
pub use extra::Extra;

/// The largest file of a kit.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;
/// Where a kit's job store and snapshots lie, and where p5 is bound.
const JOBS: &str = "/tmp/nvflare/";
/// Where a kit's logs go, and where `state`'s logs are bound.
const LOGS: &str = "/applog/";

/// What is to be split.
pub struct KitRequest<'a> {
    /// The participant's folder below `prod_NN`.
    pub kit: &'a Path,
    /// What it must be a kit for.
    pub role: Role,
    /// The site's configuration: becomes `site_conf.yaml` and the site's firewall rules.
    pub site_conf: &'a SiteConf,
    /// Becomes `split_key.json`: public components only.
    pub split_key_json: &'a [u8],
    /// What else goes to p4.
    pub extras: &'a [Extra],
    /// The GPUs that the running system shows to the key holders.
    pub gpu: Option<GpuMechanism>,
}

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
        firewall(request.site_conf, request.gpu).as_bytes(),
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

/// The certificate must bear the site's name: the parties agreed to seal for that site.
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

/// What the kit writes must land on the sealed partitions.
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
        // A plain name lands in the workspace, which is sealed as well.
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
            problem: "is no private key in PEM form".into(),
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
        copy_file(&entry, &target, &name)?;
    }
    Ok(())
}

/// Copies a file that anybody may read; `name` is for the error.
fn copy_file(from: &Path, to: &Path, name: &str) -> Result<(), KitError> {
    let bytes = Zeroizing::new(cvm_base::read_bounded(from, MAX_FILE_BYTES)?);
    if secrets::holds_private_key(&bytes) {
        return Err(KitError::UnexpectedKey { file: name.into() });
    }
    let metadata = from.metadata().map_err(WorkError::io("look at", from))?;
    let mode = if metadata.permissions().mode() & 0o100 != 0 { 0o755 } else { 0o644 };
    Ok(cvm_base::write_atomic(to, &bytes, mode)?)
}

/// The site's part of the firewall: its ports, name servers where it may connect anywhere, and the
/// key holders' for `cvm-jobs` where the image requires GPUs.
fn firewall(conf: &SiteConf, gpu: Option<GpuMechanism>) -> String {
    let mut text =
        "# The site's ports, from its site_conf.yaml; /etc/nftables.conf includes this.\n"
            .to_owned();
    for (set, ports) in
        [("allowed_in", &conf.allowed_ports), ("allowed_out", &conf.allowed_out_ports)]
    {
        if !ports.is_empty() {
            let list = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
            text += &format!("add element inet filter {set} {{ {list} }}\n");
        }
    }
    if !conf.allowed_out_udp_ports.is_empty() {
        let list =
            conf.allowed_out_udp_ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
        text += &format!("add rule inet filter site_out udp dport {{ {list} }} accept\n");
    }
    if !(conf.allowed_out_ports.is_empty() && conf.allowed_out_udp_ports.is_empty()) {
        text += "add rule inet filter site_out udp dport 53 accept\nadd rule inet filter site_out \
            tcp dport 53 accept\n";
    }
    if gpu.is_some() {
        // By its user: nobody knows today at which ports key holders will answer
        // (`endpoints.yaml`), and root here is the sealed system's own programs.
        text += "add rule inet filter site_out meta skuid 0 meta l4proto { tcp, udp } ct state new \
            accept\n";
    }
    text
}

#[cfg(test)]
mod tests;
