//! What libcryptsetup says: kept for the error, and off the console.
//!
//! Without a callback libcryptsetup prints to stdout and stderr, which belong to the caller: in the
//! CVM they are the host's console.

use std::sync::{Mutex, Once, PoisonError};

use libcryptsetup_rs::{c_logging_callback, consts::vals::CryptLogLevel, set_log_callback};

static ERROR: Mutex<String> = Mutex::new(String::new());
static INSTALLED: Once = Once::new();

c_logging_callback!(callback, (), remember);

fn remember(level: CryptLogLevel, message: &str, _: Option<&mut ()>) {
    if level == CryptLogLevel::Error {
        *ERROR.lock().unwrap_or_else(PoisonError::into_inner) = message.into();
    }
}

/// Forgets earlier messages and collects from now on.
pub(crate) fn collect() {
    INSTALLED.call_once(|| set_log_callback::<()>(Some(callback), None));
    last();
}

/// The last error message since [`collect`], if any; taken, not copied.
pub(crate) fn last() -> Option<String> {
    let message = std::mem::take(&mut *ERROR.lock().unwrap_or_else(PoisonError::into_inner));
    (!message.is_empty()).then_some(message)
}
