//! The ports that a kit's own configuration needs must be open in the site's firewall: a bundle
//! that nobody can reach, or that reaches nobody, is found at build time.

use cvm_layout::names::Role;
use serde_json::Value;

use super::{KitError, KitRequest, MAX_FILE_BYTES};

pub(super) fn check(request: &KitRequest) -> Result<(), KitError> {
    let file = format!("startup/fed_{}.json", request.role);
    let bytes = cvm_base::read_bounded(&request.kit.join(&file), MAX_FILE_BYTES)?;
    let config: Value = serde_json::from_slice(&bytes)
        .map_err(|e| KitError::Malformed { file: file.clone(), problem: e.to_string() })?;
    let conf = request.site_conf;
    let (key, verb, allowed) = match request.role {
        Role::Server => ("allowed_ports", "listens on", &conf.allowed_ports),
        Role::Client => ("allowed_out_ports", "connects to", &conf.allowed_out_ports),
    };
    let port_of = |server: &Value| {
        let target = server.pointer("/service/target").and_then(Value::as_str).unwrap_or_default();
        let own = target.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        let admin = server.get("admin_port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
        [own, admin.filter(|_| request.role == Role::Server)]
    };
    let servers = config.get("servers").and_then(Value::as_array).into_iter().flatten();
    match servers.flat_map(port_of).flatten().find(|port: &u16| !allowed.contains(port)) {
        Some(port) => Err(KitError::ClosedPort { file, verb, port, key, allowed: allowed.clone() }),
        None => Ok(()),
    }
}
