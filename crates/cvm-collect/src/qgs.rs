//! A TDX quote from the host's quote generation service: Intel's `qgs_msg_lib.h`, version 1, framed
//! by a length.
//!
//! The host is not trusted here either: it can only refuse, or send a quote that nobody believes.

use std::io::{Read, Write};

use crate::{bound::MAX_QUOTE_BYTES, error::CollectError};
use cvm_evidence::{AttestError, tpm::Reader};

const NAME: &str = "the host's quote generation service";
/// `qgs_msg_header_t`: major and minor version, type, size, error.
const HEADER_BYTES: usize = 16;

/// Sends a TDREPORT and receives a quote over `stream`, whose time-outs bound the wait.
///
/// # Errors
/// [`CollectError`] with the service's error code, or for an answer that is not a quote.
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
    quote_in(&message)
}

/// The quote in a response: `qgs_msg_header_t`, the sizes of an id and of the quote, then both.
fn quote_in(message: &[u8]) -> Result<Vec<u8>, CollectError> {
    let fail = |problem: &str| CollectError::answer(NAME, problem);
    let mut r = Reader::new("response", message);
    let mut header = || Ok::<_, AttestError>((r.u16_le()?, r.u16_le()?, r.u32_le()?, r.u32_le()?));
    let (major, _minor, kind, size) = header().map_err(|_| fail("cut off"))?;
    let error = r.u32_le().map_err(|_| fail("cut off"))?;
    match (major, kind, error) {
        (1, 1, 0) if size as usize == message.len() => {}
        (1, 1, code) if code != 0 => {
            return Err(CollectError::refused(NAME, "make a quote", format!("error {code:#x}")));
        }
        _ => return Err(fail("not a response to a request for a quote")),
    }
    let mut sizes = || Ok::<_, AttestError>((r.u32_le()?, r.u32_le()?));
    let (id, size) = sizes().map_err(|_| fail("cut off"))?;
    let quote = r.take(id as usize).and_then(|_id| r.take(size as usize));
    match quote {
        Ok(quote) if !quote.is_empty() => Ok(quote.to_vec()),
        _ => Err(fail("a quote that is cut off")),
    }
}
