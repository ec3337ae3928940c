//! The ports that a kit's own configuration needs must be open in the site's firewall. So a bundle
//! that nobody can reach, or that reaches nobody, is found at build time.
//!
//! NVFLARE 2.7 to 2.9 writes addresses in four places (`nvflare.lighter.impl.static_file`): a
//! server's target, the overseer agent of 2.7, the relay that a client goes through, and the site's
//! own listener.

use std::path::Path;

use cvm_layout::names::Role;
use serde_json::Value;

use super::{KitError, copy::MAX_FILE_BYTES, request::KitRequest};

/// An address that the kit names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Address {
    Listens(u16),
    Connects(u16),
}

/// Reads the addresses of one file, or says what is wrong with it.
type Reader = fn(Role, &Value) -> Result<Vec<Address>, String>;

/// Checks that the site's lists hold every port that the kit names.
pub(super) fn check(request: &KitRequest) -> Result<(), KitError> {
    let conf = request.site_conf;
    let fed = format!("startup/fed_{}.json", request.role);
    let files: [(&str, Reader); 3] = [
        (&fed, of_servers),
        ("startup/relay__resources.json", of_relay),
        ("local/comm_config.json", of_listener),
    ];
    for (file, addresses) in files {
        let Some(config) = read(request.kit, file)? else { continue };
        let malformed = |problem| KitError::Malformed { file: file.to_owned(), problem };
        for address in addresses(request.role, &config).map_err(malformed)? {
            let (port, key, verb, allowed) = match address {
                Address::Listens(port) => {
                    (port, "allowed_ports", "listens on", &conf.allowed_ports)
                }
                Address::Connects(port) => {
                    (port, "allowed_out_ports", "connects to", &conf.allowed_out_ports)
                }
            };
            if !allowed.contains(&port) {
                return Err(KitError::ClosedPort {
                    file: file.into(),
                    verb,
                    port,
                    key,
                    allowed: allowed.clone(),
                });
            }
        }
    }
    Ok(())
}

fn read(kit: &Path, file: &str) -> Result<Option<Value>, KitError> {
    let path = kit.join(file);
    if !path.is_file() {
        return Ok(None);
    }
    let bytes = cvm_base::read_bounded(&path, MAX_FILE_BYTES)?;
    let config = serde_json::from_slice(&bytes);
    config.map(Some).map_err(|e| KitError::Malformed { file: file.into(), problem: e.to_string() })
}

/// `fed_server.json` or `fed_client.json`.
fn of_servers(role: Role, config: &Value) -> Result<Vec<Address>, String> {
    let of_role = match role {
        Role::Server => Address::Listens,
        Role::Client => Address::Connects,
    };
    let mut found = Vec::new();
    for server in config.get("servers").and_then(Value::as_array).into_iter().flatten() {
        if let Some(target) = server.pointer("/service/target") {
            found.push(of_role(port(target)?));
        }
        if let Some(admin) = server.get("admin_port").filter(|_| role == Role::Server) {
            found.push(Address::Listens(number(admin)?));
        }
    }
    if let Some(agent) = config.get("overseer_agent").filter(|agent| !agent.is_null()) {
        found.extend(of_overseer(role, agent)?);
    }
    if found.is_empty() {
        return Err(
            "it names no address: neither a server's target nor an overseer agent's sp_end_point"
                .into(),
        );
    }
    Ok(found)
}

/// Before NVFLARE 2.8 a client learns its server from here: `server1:8002:8003`, the ports of jobs
/// and of admins.
fn of_overseer(role: Role, agent: &Value) -> Result<Vec<Address>, String> {
    let class = agent.get("path").and_then(Value::as_str).unwrap_or_default();
    let Some(end) = agent.pointer("/args/sp_end_point").and_then(Value::as_str) else {
        return Err(format!(
            "its overseer agent {class:?} names no sp_end_point: a sealed site asks no overseer"
        ));
    };
    let ports = end.split(':').skip(1).map(|port| port.parse().ok()).collect::<Option<Vec<u16>>>();
    match (ports.as_deref(), role) {
        (Some([jobs, _]), Role::Client) => Ok(vec![Address::Connects(*jobs)]),
        (Some([jobs, admin]), Role::Server) => {
            Ok(vec![Address::Listens(*jobs), Address::Listens(*admin)])
        }
        _ => Err(format!("sp_end_point is {end:?}, expected HOST:PORT:ADMIN-PORT")),
    }
}

/// The relay between a client and its server.
fn of_relay(_: Role, config: &Value) -> Result<Vec<Address>, String> {
    let address = config.pointer("/relay_config/address").ok_or("relay_config has no address")?;
    Ok(vec![Address::Connects(port(address)?)])
}

/// The site's own listener (`listening_host`). One on the loopback needs no open port.
fn of_listener(_: Role, config: &Value) -> Result<Vec<Address>, String> {
    let resources = config.pointer("/internal/resources");
    let host =
        resources.and_then(|resources| resources.get("host")?.as_str()).unwrap_or("localhost");
    match resources.and_then(|resources| resources.get("port")) {
        Some(port) if !matches!(host, "localhost" | "127.0.0.1" | "::1") => {
            Ok(vec![Address::Listens(number(port)?)])
        }
        _ => Ok(Vec::new()),
    }
}

/// The port of `HOST:PORT`.
fn port(address: &Value) -> Result<u16, String> {
    let port = address.as_str().and_then(|text| text.rsplit_once(':')?.1.parse().ok());
    port.ok_or_else(|| format!("the address is {address}, expected \"HOST:PORT\""))
}

fn number(port: &Value) -> Result<u16, String> {
    let number = port.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
    number.ok_or_else(|| format!("the port is {port}, expected 1 to 65535"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What `nvflare provision` of 2.7.2 and of 2.9.0 writes for one project, whose server listens
    /// on 8102.
    #[test]
    fn a_kits_addresses_in_every_release() {
        let agent = json!({"path": "nvflare.ha.dummy_overseer_agent.DummyOverseerAgent",
                           "args": {"sp_end_point": "server1:8102:8103"}});
        let old = json!({"servers": [{"service": {"scheme": "tcp"}}], "overseer_agent": agent});
        let new = json!({"servers": [{"service": {"target": "server1:8102", "scheme": "tcp"}}]});
        for client in [&old, &new] {
            assert_eq!(of_servers(Role::Client, client), Ok(vec![Address::Connects(8102)]));
        }
        let server =
            json!({"servers": [{"service": {"target": "server1:8102"}, "admin_port": 8103}]});
        let both = [Address::Listens(8102), Address::Listens(8103)];
        assert_eq!(of_servers(Role::Server, &server), Ok(both.to_vec()));
        assert_eq!(of_servers(Role::Server, &old), Ok(both.to_vec()));
        let relay = json!({"relay_config": {"address": "relay-1:9002"}});
        assert_eq!(of_relay(Role::Client, &relay), Ok(vec![Address::Connects(9002)]));
        let listener =
            |host: &str| json!({"internal": {"resources": {"host": host, "port": 7001}}});
        assert_eq!(
            of_listener(Role::Client, &listener("site-1")),
            Ok(vec![Address::Listens(7001)])
        );
        assert_eq!(of_listener(Role::Client, &listener("localhost")), Ok(vec![]));
    }

    #[test]
    fn addresses_that_cannot_be_read_are_refused() {
        let overseer = json!({
            "path": "x.HttpOverseerAgent",
            "args": {"overseer_end_point": "https://o:8443/api/v1"},
        });
        for client in [
            json!({}),
            json!({"servers": [{"service": {"scheme": "tcp"}}]}),
            json!({"servers": [{"service": {"target": "server1"}}]}),
            json!({"servers": [{"service": {"target": 8002}}]}),
            json!({"overseer_agent": overseer}),
            json!({"overseer_agent": {"args": {"sp_end_point": "server1:8102"}}}),
        ] {
            of_servers(Role::Client, &client).unwrap_err();
        }
        of_relay(Role::Client, &json!({})).unwrap_err();
        of_listener(Role::Client, &json!({"internal": {"resources": {"host": "x", "port": 0}}}))
            .unwrap_err();
    }
}
