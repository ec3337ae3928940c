//! TCG event logs (PC Client Platform Firmware Profile 1.05, §10), of every bank and form.
//!
//! [`EventLog`] is the SHA-256 bank of a TPM's log, which the rest of flare-cvm uses. [`Log`] is a
//! log of any banks, and of a TDX guest's registers.
//!
//! | module | content |
//! |---|---|
//! | `log` | [`Log`], [`Record`]: the parser |
//! | `sha256` | [`EventLog`], [`Event`], [`PredictedEvent`] |
//! | `replay` | replay in any bank, [`LoggedEvent`] |
//! | `describe`, [`event_type`] | names of events, and their texts |
//! | `explain` | [`Difference`] of two lists of measurements |

mod describe;
pub mod event_type;
mod explain;
mod log;
mod replay;
mod sha256;

pub use describe::{EventText, event_type_name, variable_name};
pub use explain::{Difference, first_difference, likely_cause};
pub use log::{Form, Log, MAX_BYTES, Record, Registers};
pub use replay::LoggedEvent;
pub use sha256::{Event, EventLog, PredictedEvent, extend};
