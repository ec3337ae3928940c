//! Which genuine guests are accepted.

use std::{collections::BTreeSet, fmt::Display};

use serde::{Deserialize, Serialize};

use super::{FirmwareVersion, Product, SigningKey, SnpClaims, SnpError, TcbFloor};
use cvm_evidence::tcb::Shortfall;

/// What a relying party accepts. The default refuses what breaks a guest's confidentiality by
/// design: debug access and migration agents.
///
/// SMT is allowed by default, because every cloud's guests allow it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SnpPolicy {
    /// Accept guests whose memory the host may read.
    pub allow_debug: bool,
    /// Accept guests that may be moved by a migration agent, which learns their keys.
    pub allow_migration_agent: bool,
    /// Accept guests that share a core's threads with others.
    pub allow_smt: bool,
    /// Accept guests with memory of CXL devices.
    pub allow_cxl: bool,
    /// Accept guests whose launch policy has bits that the ABI known here reserves.
    pub allow_unknown_policy_bits: bool,
    /// Accept reports in which firmware says anything, anywhere, that the ABI known here reserves.
    pub allow_unknown_fields: bool,
    /// Require the guest to be bound to one socket.
    pub require_single_socket: bool,
    /// Require the machine's memory to be free of aliases (AMD-SB-3015, BadRAM).
    pub require_alias_check: bool,
    /// The highest VMPL accepted. The default is 1: under a paravisor at VMPL 0 a guest's kernel
    /// runs at 1, and AWS's reports say 1. An image without a paravisor runs at 0, and its owner
    /// may require that.
    pub max_vmpl: u8,
    /// The oldest report version. Version 2 names no processor; only the certificate states its
    /// product.
    pub min_report_version: u32,
    /// The least ABI version that the guest's policy must ask for: major, minor.
    pub min_abi: (u8, u8),
    /// The oldest firmware that may run.
    pub min_firmware: FirmwareVersion,
    /// The least guest security version, from its ID block.
    pub min_guest_svn: u32,
    /// The least REPORTED_TCB and LAUNCH_TCB of each product and stepping; what it does not name is
    /// refused. An empty one judges nothing: whoever leaves it so compares with reference values,
    /// or names the check as left out.
    pub min_tcb: TcbFloor,
    /// Products that are not accepted.
    pub refused_products: BTreeSet<Product>,
    /// Kinds of endorsement keys that are not accepted.
    pub refused_signing_keys: BTreeSet<SigningKey>,
}

impl Default for SnpPolicy {
    fn default() -> Self {
        Self {
            allow_debug: false,
            allow_migration_agent: false,
            allow_smt: true,
            allow_cxl: false,
            allow_unknown_policy_bits: false,
            allow_unknown_fields: true,
            require_single_socket: false,
            require_alias_check: false,
            max_vmpl: 1,
            min_report_version: 2,
            min_abi: (0, 0),
            min_firmware: FirmwareVersion::default(),
            min_guest_svn: 0,
            min_tcb: TcbFloor::default(),
            refused_products: BTreeSet::new(),
            refused_signing_keys: BTreeSet::new(),
        }
    }
}

impl SnpPolicy {
    /// Whether these claims are acceptable.
    ///
    /// # Errors
    /// [`SnpError::Policy`] for the first rule that refuses them.
    pub fn check(&self, claims: &SnpClaims) -> Result<(), SnpError> {
        self.check_allowed(claims)?;
        self.check_unknown(claims)?;
        let single_socket = !self.require_single_socket || claims.policy_single_socket;
        accept(single_socket, "policy_single_socket", false, true)?;
        let unaliased = !self.require_alias_check || claims.platform_alias_check_complete;
        accept(unaliased, "platform_alias_check_complete", false, true)?;
        accept(claims.vmpl <= self.max_vmpl, "vmpl", claims.vmpl, at_most(self.max_vmpl))?;
        self.check_versions(claims)?;
        let (product, key) = (claims.product, claims.signing_key);
        accept(!self.refused_products.contains(&product), "product", product, "another product")?;
        accept(
            !self.refused_signing_keys.contains(&key),
            "signing_key",
            key,
            "another kind of key",
        )?;
        match self.min_tcb.is_empty() {
            true => Ok(()),
            false => Ok(self.min_tcb.check(&claims.shown_tcb())?),
        }
    }

    /// What the guest policy and the platform may allow.
    fn check_allowed(&self, claims: &SnpClaims) -> Result<(), SnpError> {
        for (accepted, check) in [
            (self.allow_debug || !claims.policy_debug_allowed, "policy_debug_allowed"),
            (self.allow_migration_agent || !claims.policy_migrate_ma, "policy_migrate_ma"),
            (self.allow_smt || !claims.policy_smt_allowed, "policy_smt_allowed"),
            (self.allow_smt || !claims.platform_smt_enabled, "platform_smt_enabled"),
            (self.allow_cxl || !claims.policy_cxl_allowed, "policy_cxl_allowed"),
        ] {
            accept(accepted, check, true, false)?;
        }
        Ok(())
    }

    /// What the ABI reserves.
    fn check_unknown(&self, claims: &SnpClaims) -> Result<(), SnpError> {
        let of_policy = claims.unknown_guest_policy();
        accept(
            self.allow_unknown_policy_bits || of_policy.is_none(),
            "unknown",
            of_policy.unwrap_or_default(),
            "no bit of the guest policy that is not known",
        )?;
        let any = claims
            .unknown
            .first()
            .filter(|_| !self.allow_unknown_fields)
            .filter(|_| of_policy.is_none());
        accept(
            any.is_none(),
            "unknown",
            any.map_or("", String::as_str),
            "no field that is not known",
        )
    }

    fn check_versions(&self, claims: &SnpClaims) -> Result<(), SnpError> {
        let abi = (claims.policy_abi_major, claims.policy_abi_minor);
        let version = claims.report_version;
        accept(
            version >= self.min_report_version,
            "report_version",
            version,
            at_least(self.min_report_version),
        )?;
        let (major, minor) = self.min_abi;
        accept(
            abi >= self.min_abi,
            "policy_abi",
            format!("{}.{}", abi.0, abi.1),
            at_least(format!("{major}.{minor}")),
        )?;
        let firmware = claims.current_version;
        accept(
            firmware >= self.min_firmware,
            "current_version",
            firmware,
            at_least(self.min_firmware),
        )?;
        let svn = claims.guest_svn;
        accept(svn >= self.min_guest_svn, "guest_svn", svn, at_least(self.min_guest_svn))
    }
}

impl From<Shortfall> for SnpError {
    fn from(shortfall: Shortfall) -> Self {
        match shortfall {
            Shortfall::Unnamed { chip } => Self::Policy {
                check: "product",
                found: chip.to_string(),
                required: "one that min_tcb names".into(),
            },
            Shortfall::Below { version, component, found, least, .. } => Self::Policy {
                check: if version == "launch" { "launch_tcb" } else { "reported_tcb" },
                found: format!("{component} {found}"),
                required: at_least(least),
            },
        }
    }
}

fn accept(
    accepted: bool,
    check: &'static str,
    found: impl Display,
    required: impl Display,
) -> Result<(), SnpError> {
    match accepted {
        true => Ok(()),
        false => Err(SnpError::Policy {
            check,
            found: found.to_string(),
            required: required.to_string(),
        }),
    }
}

fn at_least(value: impl Display) -> String {
    format!("at least {value}")
}

fn at_most(value: impl Display) -> String {
    format!("at most {value}")
}
