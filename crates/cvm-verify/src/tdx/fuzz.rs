//! What only a fuzzer calls.

use super::{pck, qe, tcb};

/// What is otherwise only read after a signature was checked: the fuzzer cannot make one.
pub fn fuzz_signed_documents(bytes: &[u8]) {
    let _ = pck::PckExtension::parse(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = qe::QeIdentity::parse(text);
    let _ = tcb::TcbInfo::parse(text);
}
