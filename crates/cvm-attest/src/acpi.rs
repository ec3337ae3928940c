//! The host's ACPI tables: code that the host writes and the guest's kernel runs with its own
//! rights, before PID 1 ("BadAML"; `tests/host_acpi.rs` boots an attack).
//!
//! No verifier of evidence alone can accept them. What can is a comparison, with a value that
//! somebody vouches for, of the register that covers them: RTMR0 of a TD, PCR 1 of a TPM whose
//! firmware measures them. SEV-SNP's launch digest covers none. So claims list [`CHECK`] among
//! `not_checked` until such a comparison was made: by whoever asks [`crate::tee::phase`] about a
//! TD, with reference values, or by a policy, which then names it in its rule `checked`.

use cvm_base::Bytes;
use serde_json::{Value, json};

use crate::{AttestError, NotChecked, eventlog::EventLog, reference_set::FirmwareReference};

/// The check's name in `not_checked`, and in a policy's `accepted_not_checked` and `checked`.
pub const CHECK: &str = "acpi";

/// EV_POST_CODE, EV_PLATFORM_CONFIG_FLAGS, EV_POST_CODE2: as what firmware records the tables.
const EVENT_TYPES: [u32; 3] = [0x01, 0x0a, 0x13];
/// Such an event's data (TCG PC Client Platform Firmware Profile, EV_POSTCODE_INFO_ACPI_DATA).
const EVENT_DATA: &[u8] = b"ACPI DATA";

/// Of a launch digest, native or a paravisor's.
pub(crate) fn beside_a_launch_digest() -> NotChecked {
    NotChecked::new(
        CHECK,
        "host, not measured: no launch digest covers ACPI tables, whose code the kernel runs",
    )
}

/// Of a TD.
pub(crate) fn in_rtmr0() -> NotChecked {
    NotChecked::new(
        CHECK,
        "host: RTMR0 covers the ACPI tables, whose code the kernel runs, and was not compared",
    )
}

/// Of a TPM.
pub fn in_pcr1() -> NotChecked {
    let reason =
        "host: PCR 0 and 1, which show ACPI tables if firmware measures them, were not compared";
    NotChecked::new(CHECK, reason)
}

/// Of a machine that another verifier judged.
pub(crate) fn in_a_token() -> NotChecked {
    NotChecked::new(
        CHECK,
        "host: the token does not say that anything which covers the ACPI tables was compared",
    )
}

/// A comparison that covers the tables was made: the check leaves the claims of a kind.
pub(crate) fn compared(claims: &mut Value) {
    if let Some(list) = claims.get_mut("not_checked").and_then(Value::as_array_mut) {
        list.retain(|skipped| skipped["check"] != CHECK);
    }
}

/// There is nothing to compare a TD's claims from [`crate::tee::Vendors`] with: the check returns.
pub fn not_compared(claims: &mut Value) {
    if let Some(list) = claims.get_mut("not_checked").and_then(Value::as_array_mut) {
        list.push(json!(in_rtmr0()));
    }
}

impl FirmwareReference {
    /// What an event log leads to, for a policy to name. A log's texts are its writer's: it must be
    /// of a machine that the policy's owner trusts, or built like the one at the site.
    ///
    /// # Errors
    /// [`AttestError::Malformed`] for another form, and for firmware that measured no ACPI tables:
    /// PCR 1 is then the same whatever they hold, and naming it would accept them all.
    pub fn of_log(log: &[u8]) -> Result<Self, AttestError> {
        let log = EventLog::parse(log)?;
        let measured = log.events().iter().any(|event| {
            let data = event.data.strip_suffix(&[0]).unwrap_or(event.data);
            event.pcr == 1 && EVENT_TYPES.contains(&event.kind) && data == EVENT_DATA
        });
        if !measured {
            let problem = "its firmware measured no ACPI tables: PCR 1 is the same whatever the \
                host puts there";
            return Err(AttestError::malformed("event log", problem));
        }
        let values = log.replay();
        let at = |pcr: u8| values.get(&pcr).copied().unwrap_or(Bytes([0; 32]));
        Ok(Self { pcr0: at(0), pcr1: at(1) })
    }
}
