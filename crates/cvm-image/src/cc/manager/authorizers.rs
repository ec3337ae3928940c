//! What NVFLARE's own authorizers take and need.

use super::{ManagerError, kit::Component, policy};
use std::path::Path;

/// A class of NVFLARE 2.7 to 2.9.
struct KnownAuthorizer {
    class: &'static str,
    args: &'static [&'static str],
    /// The arguments that Python cannot do without.
    required: &'static [&'static str],
    /// What the guest must have and the build cannot see.
    needs: &'static str,
    /// Why it cannot run in a sealed machine, if it cannot.
    missing: Option<&'static str>,
    /// A Python package that it imports, beyond NVFLARE's own.
    package: Option<&'static str>,
}

/// NVFLARE starts these two with sudo.
const SUDO: Option<&str> =
    Some("sudo: it starts a program as root, and a sealed machine gives nobody root");

/// The authorizer whose `snpguest` is ours.
pub(super) const SNP: &str = "snp_authorizer.SNPAuthorizer";
/// Where the guest has `snpguest`: by its name on PATH, and where NVIDIA's guide puts it.
const SNPGUEST: [&str; 2] = ["snpguest", "/host/bin/snpguest"];
/// Where the service may write, and its authorizer can keep certificates.
const WRITABLE: [&str; 3] = ["/opt/certs", "/tmp/", "/opt/nvflare/workspace/"];

const PACKAGE: &str = "nvflare.app_opt.confidential_computing.";
const KNOWN: [KnownAuthorizer; 6] = [
    KnownAuthorizer {
        class: SNP,
        args: &[
            "max_nonce_history",
            "amd_certs_dir",
            "snpguest_binary",
            "cpu_model",
            "max_retries",
            "retry_interval",
            "cmd_timeout",
        ],
        required: &[],
        needs: "a machine with SEV-SNP; its tokens show a genuine guest, and not which image runs \
            in it",
        missing: None,
        package: Some("filelock"),
    },
    KnownAuthorizer {
        class: "tdx_authorizer.TDXAuthorizer",
        args: &["tdx_cli_command", "config_dir"],
        required: &["tdx_cli_command", "config_dir"],
        needs: "Intel's trust authority client in the image, and its service",
        missing: SUDO,
        package: None,
    },
    KnownAuthorizer {
        class: "gpu_authorizer.GPUAuthorizer",
        args: &["verifier_url", "policy_file", "max_nonce_history", "verifiers"],
        required: &[],
        needs: "NVIDIA's driver in the image, and NRAS",
        missing: None,
        package: Some("nv-attestation-sdk"),
    },
    KnownAuthorizer {
        class: "aci_authorizer.ACIAuthorizer",
        args: &["maa_endpoint", "retry_count", "retry_sleep"],
        required: &[],
        needs: "Azure's attestation container beside it, and MAA",
        missing: Some(
            "Azure's attestation container, which answers on port 8284 of an Azure container group \
             only",
        ),
        package: None,
    },
    KnownAuthorizer {
        class: "az_cvm_authorizer.AZCVMAuthorizer",
        args: &["attester_binary", "maa_endpoint"],
        required: &[],
        needs: "Azure's attestation client in the image, and MAA",
        missing: SUDO,
        package: None,
    },
    KnownAuthorizer {
        class: "mock_authorizer.MockAuthorizer",
        args: &[],
        required: &[],
        needs: "nothing, and proves nothing",
        missing: None,
        package: None,
    },
];
/// The package of our own authorizers.
const OURS: &str = "flare_cvm.";

/// The program and the folder must be there.
fn snp(component: &Component) -> Result<(), ManagerError> {
    use serde_json::Value;
    match component.args.get("snpguest_binary") {
        None => {}
        Some(Value::String(path)) if SNPGUEST.contains(&path.as_str()) => {}
        Some(other) => {
            return component.wrong(
                "snpguest_binary",
                "snpguest or /host/bin/snpguest: the guest has no other",
                other,
            );
        }
    }
    match component.args.get("amd_certs_dir") {
        None => Ok(()),
        Some(Value::String(path)) if WRITABLE.iter().any(|folder| path.starts_with(folder)) => {
            Ok(())
        }
        Some(other) => component.wrong(
            "amd_certs_dir",
            "/opt/certs, or a folder under /tmp or /opt/nvflare/workspace",
            other,
        ),
    }
}

/// Checks one authorizer. Gives what the build could not check.
pub(super) fn check(
    kit: &Path,
    python: &[String],
    component: &Component,
) -> Result<Option<String>, ManagerError> {
    if component.path.starts_with(OURS) {
        return Ok(None);
    }
    let class = component.path.strip_prefix(PACKAGE);
    let Some(known) = KNOWN.iter().find(|known| Some(known.class) == class) else {
        return Ok(Some(format!(
            "{} is of {}, which flare-cvm does not know",
            component.id, component.path
        )));
    };
    component.only(known.args)?;
    for argument in known.required {
        if !component.args.contains_key(*argument) {
            return component.wrong(
                argument,
                "a value: Python cannot make the component without it",
                &serde_json::Value::Null,
            );
        }
    }
    if component.args.contains_key("verifiers") {
        policy::verifiers(kit, component)?;
    }
    match component.args.get("policy_file") {
        None | Some(serde_json::Value::Null) => {}
        Some(serde_json::Value::String(path)) => {
            drop(policy::read(kit, path, &component.place("policy_file"))?)
        }
        Some(other) => {
            return component.wrong("policy_file", "the path of a file in the kit", other);
        }
    }
    if known.class == SNP {
        snp(component)?;
    }
    let installed =
        |package: &str| python.iter().any(|found| found.starts_with(&format!("{package}==")));
    // Nothing but NVFLARE's release is known about a workload's image.
    let unknown = known.class == SNP && python.len() <= 1;
    let package = known.package.filter(|package| !unknown && !installed(package));
    if let Some(missing) = known.missing.or(package) {
        let class = known.class.rsplit('.').next().unwrap_or_default();
        return Err(ManagerError::CannotRun { place: component.place("path"), class, missing });
    }
    Ok(Some(format!("{} needs {}", component.id, known.needs)))
}
