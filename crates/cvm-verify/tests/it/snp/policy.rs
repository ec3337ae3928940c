//! Each rule of the policy alone.

use cvm_verify::snp::{FirmwareVersion, Product, SigningKey, SnpClaims, SnpError, SnpPolicy};

use super::{NOW, check, evidence};

fn claims(change: impl FnOnce(&mut SnpClaims)) -> SnpClaims {
    let mut claims = check(&evidence("milan-virtee"), NOW).unwrap();
    change(&mut claims);
    claims
}

fn policy(change: impl FnOnce(&mut SnpPolicy)) -> SnpPolicy {
    let mut policy = SnpPolicy::default();
    change(&mut policy);
    policy
}

fn refused_by(policy: &SnpPolicy, claims: &SnpClaims) -> Option<&'static str> {
    match policy.check(claims) {
        Ok(()) => None,
        Err(SnpError::Policy { check, .. }) => Some(check),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn the_default_refuses_what_breaks_confidentiality_by_design() {
    let default = SnpPolicy::default();
    assert_eq!(refused_by(&default, &claims(|_| {})), None);
    assert_eq!(
        refused_by(&default, &claims(|c| c.policy_debug_allowed = true)),
        Some("policy_debug_allowed")
    );
    assert_eq!(
        refused_by(&default, &claims(|c| c.policy_migrate_ma = true)),
        Some("policy_migrate_ma")
    );
    assert_eq!(
        refused_by(&default, &claims(|c| c.policy_cxl_allowed = true)),
        Some("policy_cxl_allowed")
    );
    assert_eq!(refused_by(&default, &claims(|c| c.vmpl = 1)), None);
    assert_eq!(refused_by(&default, &claims(|c| c.vmpl = 2)), Some("vmpl"));
}

#[test]
fn each_rule_refuses_what_it_names() {
    let floor = |text: &str| policy(|p| p.min_tcb = text.parse().unwrap());
    let firmware = FirmwareVersion { major: 1, minor: 52, build: 5 };
    for (rule, check) in [
        (policy(|p| p.allow_smt = false), "policy_smt_allowed"),
        (policy(|p| p.require_single_socket = true), "policy_single_socket"),
        (policy(|p| p.require_alias_check = true), "platform_alias_check_complete"),
        (policy(|p| p.min_report_version = 3), "report_version"),
        (policy(|p| p.min_abi = (0, 1)), "policy_abi"),
        (policy(|p| p.min_abi = (1, 0)), "policy_abi"),
        (policy(|p| p.min_firmware = firmware), "current_version"),
        (policy(|p| p.min_guest_svn = 1), "guest_svn"),
        (policy(|p| p.refused_products = [Product::Milan].into()), "product"),
        (policy(|p| p.refused_signing_keys = [SigningKey::Vcek].into()), "signing_key"),
        (floor("milan=4.0.8.115"), "reported_tcb"),
        (floor("milan=3.1.8.115"), "reported_tcb"),
        (floor("milan=3.0.9.115"), "reported_tcb"),
        (floor("milan=3.0.8.116"), "reported_tcb"),
        // A floor for others only is not a free pass; and nobody knows this report's stepping.
        (floor("genoa=3.0.8.115"), "product"),
        (floor("milan-b1=3.0.8.115"), "product"),
    ] {
        assert_eq!(refused_by(&rule, &claims(|_| {})), Some(check), "{rule:?}");
    }
    let exactly = policy(|p| {
        p.min_tcb = "milan=3.0.8.115".parse().unwrap();
        p.min_firmware = FirmwareVersion { build: 4, ..firmware };
        p.refused_products = [Product::Genoa, Product::Siena, Product::Turin].into();
        p.refused_signing_keys = [SigningKey::Vlek].into();
    });
    assert_eq!(refused_by(&exactly, &claims(|_| {})), None);
    // Firmware that was updated under a guest had launched and measured it before.
    assert_eq!(refused_by(&exactly, &claims(|c| c.launch_tcb.snp = 7)), Some("launch_tcb"));
    let no_smt = policy(|p| p.allow_smt = false);
    assert_eq!(
        refused_by(&no_smt, &claims(|c| c.policy_smt_allowed = false)),
        Some("platform_smt_enabled")
    );
    let alone = claims(|c| (c.policy_smt_allowed, c.platform_smt_enabled) = (false, false));
    assert_eq!(refused_by(&no_smt, &alone), None);
}

#[test]
fn policies_are_strict_json() {
    let text = r#"{"allow_debug":true,"max_vmpl":0,"min_abi":[1,55],"refused_products":["Siena"],
        "min_tcb":{"Milan":{"bootloader":4,"tee":0,"snp":24,"microcode":219}}}"#;
    let read: SnpPolicy = serde_json::from_str(text).unwrap();
    assert!(read.allow_debug && read.allow_smt && !read.allow_migration_agent);
    assert_eq!((read.max_vmpl, read.min_abi), (0, (1, 55)));
    let again: SnpPolicy = serde_json::from_str(&serde_json::to_string(&read).unwrap()).unwrap();
    assert_eq!(again, read);
    for bad in [
        r#"{"allow_debugging":true}"#,
        r#"{"refused_products":["Rome"]}"#,
        r#"{"min_tcb":{"Milan":{"snp":1}}}"#,
    ] {
        assert!(serde_json::from_str::<SnpPolicy>(bad).is_err(), "{bad}");
    }
}
