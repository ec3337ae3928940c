//! The CC manager that NVFLARE configured in a startup kit: what would fail at run time, or would
//! let an unattested peer pass, fails the build.

mod authorizers;
mod error;
mod kit;
mod policy;

use std::path::Path;

use cvm_layout::names::{Name, Role};
use serde_json::Value;

pub use error::ManagerError;
use kit::{Component, components};

use super::CcConfig;

const MANAGER: &str = "nvflare.app_opt.confidential_computing.cc_manager.CCManager";
/// NVFLARE's releases that flare-cvm was tested with, each by itself: the next one may change what
/// a sealed site relies on. With 2.9.0 sealed federations are booted; with the others the Python
/// package's tests ran against that release.
const TESTED: [&str; 4] = ["2.7.1", "2.7.2", "2.8.0", "2.9.0"];
/// Before this release the manager takes `verifiers`.
const NEW_STYLE: (u32, u32) = (2, 5);
/// What the manager calls the server, whatever its name is.
const SERVER: &str = "server";
/// What the manager takes for `verify_frequency` where nothing is said.
const FREQUENCY: u64 = 600;

/// The image's NVFLARE.
struct Nvflare {
    version: String,
    release: (u32, u32),
}

/// A kit, and what its CC manager must agree with.
pub struct ManagerCheck<'a> {
    /// The startup kit.
    pub kit: &'a Path,
    /// The site's role.
    pub role: Role,
    /// The site's name.
    pub site: &'a Name,
    /// The Python packages of the image, `NAME==VERSION` each.
    pub python: &'a [String],
    /// What the kit must follow from, where it is known.
    pub config: Option<&'a CcConfig>,
    /// Whether the image may hold an NVFLARE that flare-cvm was not tested with.
    pub allow_untested: bool,
}

/// Checks the kit's CC manager. Gives remarks: what only the running site can show.
pub fn check(check: &ManagerCheck) -> Result<Vec<String>, ManagerError> {
    let mut remarks = Vec::new();
    let nvflare = nvflare(check, &mut remarks)?;
    let components = components(check.kit, check.role)?;
    let is_manager = |c: &&Component| {
        c.path == MANAGER || (c.path.starts_with("flare_cvm.") && c.path.ends_with(".CVMManager"))
    };
    let mut managers = components.iter().filter(is_manager);
    let manager = managers.next().ok_or(ManagerError::NoManager { class: MANAGER })?;
    if let Some(second) = managers.next() {
        let (first, second) = (manager.place("path"), second.place("path"));
        return Err(ManagerError::Twice { first, second, problem: "a CC manager" });
    }
    if manager.args.contains_key("verifiers") {
        old_style(check, manager, nvflare.as_ref())?;
    } else {
        if let Some(old) = nvflare.as_ref().filter(|nvflare| nvflare.release < NEW_STYLE) {
            let expected = "the older argument `verifiers`";
            return Err(ManagerError::Style {
                place: manager.place("args"),
                version: old.version.clone(),
                expected,
            });
        }
        new_style(check, manager, &components, &mut remarks)?;
    }
    if let Some(config) = check.config {
        follows(check, config, manager, &components)?;
    }
    Ok(remarks)
}

/// Whether the kit names NVFLARE's own SNP authorizer.
pub fn names_snp_authorizer(kit: &Path, role: Role) -> Result<bool, ManagerError> {
    Ok(components(kit, role)?.iter().any(|component| component.path.ends_with(authorizers::SNP)))
}

/// The image's NVFLARE, if its version is known. One that was not tested is an error or a remark.
fn nvflare(
    check: &ManagerCheck,
    remarks: &mut Vec<String>,
) -> Result<Option<Nvflare>, ManagerError> {
    let version = check.python.iter().find_map(|package| package.strip_prefix("nvflare=="));
    let nvflare = version.and_then(|version| {
        let mut parts = version.split(|c: char| !c.is_ascii_digit());
        let release = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some(Nvflare { version: version.to_owned(), release })
    });
    if nvflare.as_ref().is_some_and(|nvflare| TESTED.contains(&nvflare.version.as_str())) {
        return Ok(nvflare);
    }
    let found = version.map_or("no NVFLARE".to_owned(), |version| format!("NVFLARE {version}"));
    if !check.allow_untested {
        let tested = TESTED.join(", ");
        return Err(ManagerError::Untested { found, tested });
    }
    remarks.push(format!("the image holds {found}, which flare-cvm was not tested with"));
    Ok(nvflare)
}

/// `verifiers`, before NVFLARE 2.5.
fn old_style(
    check: &ManagerCheck,
    manager: &Component,
    nvflare: Option<&Nvflare>,
) -> Result<(), ManagerError> {
    manager.only(&["verifiers"])?;
    policy::verifiers(check.kit, manager)?;
    match nvflare.filter(|nvflare| nvflare.release >= NEW_STYLE) {
        Some(newer) => Err(ManagerError::Style {
            place: manager.place("verifiers"),
            version: newer.version.clone(),
            expected: "cc_issuers_conf, cc_verifier_ids, verify_frequency and cc_enabled_sites",
        }),
        None => Ok(()),
    }
}

/// Issuers, verifiers, frequency and sites, from NVFLARE 2.5 on.
fn new_style(
    check: &ManagerCheck,
    manager: &Component,
    components: &[Component],
    remarks: &mut Vec<String>,
) -> Result<(), ManagerError> {
    manager.only(&[
        "cc_issuers_conf",
        "cc_verifier_ids",
        "verify_frequency",
        "cc_enabled_sites",
        "get_site_request_timeout",
        "get_token_request_timeout",
    ])?;
    let find = |place: String, id: &str| {
        let found = components.iter().find(|component| component.id == id);
        found.ok_or_else(|| ManagerError::NoComponent { place, id: super::section::cut(id) })
    };
    let frequency = frequency(manager)?;
    let mut authorizers: Vec<&Component> = Vec::new();
    for (id, token, place) in issuers(manager)? {
        if token >= frequency {
            return Err(ManagerError::Outlives { place, token, check: frequency });
        }
        authorizers.push(find(place, id)?);
    }
    let mut verifiers: Vec<&Component> = Vec::new();
    for (at, id) in manager
        .names("cc_verifier_ids", "a list of at least one component id")?
        .into_iter()
        .enumerate()
    {
        let verifier = find(manager.place(&format!("cc_verifier_ids[{at}]")), id)?;
        // One class is one namespace, and the manager refuses two verifiers of one namespace.
        if let Some(first) = verifiers.iter().find(|other| other.path == verifier.path) {
            let (first, second) = (first.place("path"), verifier.place("path"));
            return Err(ManagerError::Twice {
                first,
                second,
                problem: "a verifier of the same class",
            });
        }
        verifiers.push(verifier);
    }
    authorizers.extend(verifiers);
    authorizers.sort_by(|a, b| a.id.cmp(&b.id));
    authorizers.dedup_by(|a, b| a.id == b.id);
    for authorizer in authorizers {
        remarks.extend(authorizers::check(check.kit, check.python, authorizer)?);
    }
    for timeout in ["get_site_request_timeout", "get_token_request_timeout"] {
        if let Some(value) = manager.args.get(timeout)
            && !value.as_f64().is_some_and(|seconds| seconds > 0.0)
        {
            return manager.wrong(timeout, "a number of seconds above 0", value);
        }
    }
    sites(check, manager)
}

fn frequency(manager: &Component) -> Result<u64, ManagerError> {
    match manager.args.get("verify_frequency") {
        None => Ok(FREQUENCY),
        Some(value) => match value.as_u64().filter(|seconds| *seconds > 0) {
            Some(seconds) => Ok(seconds),
            None => manager.wrong("verify_frequency", "a whole number of seconds above 0", value),
        },
    }
}

/// Id, token's seconds and place of each entry of `cc_issuers_conf`.
fn issuers(manager: &Component) -> Result<Vec<(&str, u64, String)>, ManagerError> {
    const LIST: &str = "a list of at least one issuer";
    let value = manager.args.get("cc_issuers_conf").unwrap_or(&Value::Null);
    let entries = match value.as_array() {
        Some(entries) if !entries.is_empty() => entries,
        _ => return manager.wrong("cc_issuers_conf", LIST, value),
    };
    let mut issuers: Vec<(&str, u64, String)> = Vec::new();
    for (at, entry) in entries.iter().enumerate() {
        let argument = |key: &str| format!("cc_issuers_conf[{at}].{key}");
        let Some(map) = entry.as_object() else {
            return manager.wrong(&argument(""), "an object", entry);
        };
        kit::only(map, &["issuer_id", "token_expiration"], |key| manager.place(&argument(key)))?;
        let (id, seconds) = (&entry["issuer_id"], &entry["token_expiration"]);
        let Some(id) = id.as_str() else {
            return manager.wrong(&argument("issuer_id"), "a component id", id);
        };
        let Some(seconds) = seconds.as_u64().filter(|seconds| *seconds > 0) else {
            return manager.wrong(
                &argument("token_expiration"),
                "a whole number of seconds above 0",
                seconds,
            );
        };
        let place = manager.place(&argument("token_expiration"));
        if let Some((_, _, first)) = issuers.iter().find(|(other, _, _)| *other == id) {
            return Err(ManagerError::Twice {
                first: first.clone(),
                second: place,
                problem: "the same issuer",
            });
        }
        issuers.push((id, seconds, place));
    }
    Ok(issuers)
}

/// NVFLARE trusts a site without a token if its name is not in the list: so this site's own name
/// and the server's must be in it.
fn sites(check: &ManagerCheck, manager: &Component) -> Result<(), ManagerError> {
    let sites = manager.names("cc_enabled_sites", "a list of at least one site")?;
    let own = if check.role == Role::Server { SERVER } else { check.site.as_str() };
    for (name, consequence) in [
        (own, "no peer would ask this site for a token"),
        (SERVER, "a server without any proof would pass"),
    ] {
        if !sites.contains(&name) {
            let (missing, found) = (name.to_owned(), super::section::cut(&sites.join(", ")));
            return Err(ManagerError::Sites {
                place: manager.place("cc_enabled_sites"),
                missing,
                consequence,
                found,
            });
        }
    }
    Ok(())
}

/// The kit must follow from the `cc_config` that it is sealed with.
fn follows(
    check: &ManagerCheck,
    config: &CcConfig,
    manager: &Component,
    components: &[Component],
) -> Result<(), ManagerError> {
    let stale = |place: String, expected: String, found: String| {
        Err(ManagerError::Stale { place, expected, found })
    };
    if !manager.args.contains_key("verifiers") {
        let frequency = frequency(manager)?;
        if frequency != u64::from(config.check_frequency) {
            return stale(
                manager.place("verify_frequency"),
                config.check_frequency.to_string(),
                frequency.to_string(),
            );
        }
        let list = |issuers: Vec<(&str, u64)>| {
            issuers.iter().map(|(id, s)| format!("{id} ({s} s)")).collect::<Vec<_>>().join(", ")
        };
        let expected = list(
            config.issuers.iter().map(|i| (i.id.as_str(), i.token_expiration.into())).collect(),
        );
        let found =
            list(issuers(manager)?.into_iter().map(|(id, seconds, _)| (id, seconds)).collect());
        if found != expected {
            return stale(manager.place("cc_issuers_conf"), expected, found);
        }
    }
    for issuer in &config.issuers {
        let Some(component) =
            components.iter().find(|component| component.id == issuer.id.as_str())
        else {
            return stale("local/".into(), format!("the component {}", issuer.id), "none".into());
        };
        if component.path != issuer.path {
            return stale(component.place("path"), issuer.path.clone(), component.path.clone());
        }
        if component.args != issuer.args {
            let json = |args: &serde_json::Map<_, _>| {
                super::section::cut(&Value::Object(args.clone()).to_string())
            };
            return stale(component.place("args"), json(&issuer.args), json(&component.args));
        }
    }
    let file = kit::resources_file(check.kit);
    let resources = kit::read(check.kit, file)?;
    let allowed = resources.get("class_allow_list").and_then(Value::as_array);
    let allowed: Vec<&str> = allowed.into_iter().flatten().filter_map(Value::as_str).collect();
    match config.class_allow_list.iter().find(|class| !allowed.contains(&class.as_str())) {
        Some(class) => stale(
            format!("{file}: class_allow_list"),
            class.clone(),
            format!("{} others", allowed.len()),
        ),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
