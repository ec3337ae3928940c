//! The host's ACPI tables: code that the host writes and the guest's kernel runs with its own
//! rights, before PID 1 ("BadAML"; `tests/host_acpi.rs` boots an attack).
//!
//! Evidence alone does not show whether they are acceptable. The register that covers them must be
//! compared with a value that somebody vouches for: RTMR0 of a TD, or PCR 1 of a TPM whose firmware
//! measures them. SEV-SNP's launch digest does not cover them. So claims list [`CHECK`] among
//! `not_checked` until somebody compared: the caller of [`crate::measured::phase`] for a TD, with
//! reference values, or a policy, which then names it in its rule `checked`.

use crate::NotChecked;

/// The check's name in `not_checked`, and in a policy's `accepted_not_checked` and `checked`.
pub const CHECK: &str = "acpi";

/// For a launch digest, native or a paravisor's.
pub(crate) fn beside_a_launch_digest() -> NotChecked {
    NotChecked::new(
        CHECK,
        "host, not measured: no launch digest covers ACPI tables, whose code the kernel runs",
    )
}

/// For a TD, where there is nothing to compare RTMR0 with.
pub fn in_rtmr0() -> NotChecked {
    NotChecked::new(
        CHECK,
        "host: RTMR0 covers the ACPI tables, whose code the kernel runs, and was not compared",
    )
}

/// For a TPM.
pub fn in_pcr1() -> NotChecked {
    let reason =
        "host: PCR 0 and 1, which show ACPI tables if firmware measures them, were not compared";
    NotChecked::new(CHECK, reason)
}

/// For a machine that another verifier judged.
pub(crate) fn in_a_token() -> NotChecked {
    NotChecked::new(
        CHECK,
        "host: the token does not say that anything which covers the ACPI tables was compared",
    )
}

/// A comparison that covers the tables was made: the check leaves the claims' `not_checked`.
pub fn compared(not_checked: &mut Vec<NotChecked>) {
    not_checked.retain(|skipped| skipped.check != CHECK);
}
