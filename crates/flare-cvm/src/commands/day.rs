//! Today, as ceremonies date what they sign.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use cvm_ceremony::Date;

/// The day by this machine's clock (UTC).
pub(super) fn today() -> Result<Date> {
    in_days(0)
}

/// The day that many days from today.
pub(super) fn in_days(days: u16) -> Result<Date> {
    let now =
        SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_secs();
    Ok(Date::from_unix(now + u64::from(days) * 86_400))
}
