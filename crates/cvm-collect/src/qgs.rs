//! A TDX quote from the host's quote generation service: Intel's `qgs_msg_lib.h`, version 1, framed
//! by a length.
//!
//! The host is not trusted here either: it can only refuse, or send a quote that nobody believes.

use std::io::{Read, Write};

use super::{CollectError, MAX_QUOTE_BYTES};

const NAME: &str = "the host's quote generation service";
/// `qgs_msg_header_t`: major and minor version, type, size, error.
const HEADER_BYTES: usize = 16;

/// Sends a TDREPORT and receives a quote over `stream`, whose time-outs bound the wait.
///
/// # Errors
/// [`CollectError`] with the service's error code, or for an answer that is no quote.
pub fn quote_over(
    stream: &mut (impl Read + Write),
    td_report: &[u8; 1024],
) -> Result<Vec<u8>, CollectError> {
    let failed = |action| move |error: std::io::Error| CollectError::refused(NAME, action, error);
    let fail = |problem: String| CollectError::answer(NAME, problem);
    let size = (HEADER_BYTES + 8 + td_report.len()) as u32;
    let mut request = size.to_be_bytes().to_vec();
    for field in [
        &1_u16.to_le_bytes()[..],
        &1_u16.to_le_bytes(),
        &0_u32.to_le_bytes(),
        &size.to_le_bytes(),
        &[0; 4],
    ] {
        request.extend_from_slice(field);
    }
    request.extend_from_slice(&(td_report.len() as u32).to_le_bytes());
    request.extend_from_slice(&0_u32.to_le_bytes());
    request.extend_from_slice(td_report);
    stream.write_all(&request).and_then(|()| stream.flush()).map_err(failed("take the request"))?;

    let mut length = [0; 4];
    stream.read_exact(&mut length).map_err(failed("answer"))?;
    let length = u32::from_be_bytes(length) as usize;
    if !(HEADER_BYTES..=MAX_QUOTE_BYTES).contains(&length) {
        return Err(fail(format!("a message of {length} bytes")));
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).map_err(failed("answer"))?;
    let u32_at =
        |at: usize| message.get(at..).and_then(<[u8]>::first_chunk).map(|v| u32::from_le_bytes(*v));
    let major = message.first_chunk().map(|v| u16::from_le_bytes(*v));
    match (major, u32_at(4), u32_at(8), u32_at(12)) {
        (Some(1), Some(1), Some(size), Some(0)) if size as usize == length => {}
        (Some(1), Some(1), _, Some(code)) if code != 0 => {
            return Err(CollectError::refused(NAME, "make a quote", format!("error {code:#x}")));
        }
        _ => return Err(fail("no response to a request for a quote".into())),
    }
    let (Some(id), Some(size)) = (u32_at(16), u32_at(20)) else {
        return Err(fail("cut off".into()));
    };
    let begin = (HEADER_BYTES + 8).checked_add(id as usize);
    let quote = begin.and_then(|begin| message.get(begin..begin.checked_add(size as usize)?));
    quote
        .filter(|quote| !quote.is_empty())
        .map(<[u8]>::to_vec)
        .ok_or_else(|| fail("a quote that is cut off".into()))
}
