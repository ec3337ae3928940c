//! Paths and sizes that client and server share.

use cvm_layout::{
    manifest::{self, ImageId, Stage},
    p1::{self, MAX_EVENT_LOG_BYTES},
};

/// POST: asks for a challenge.
pub const AUTH: &str = "/kbs/v0/auth";
/// POST: answers the challenge with evidence.
pub const ATTEST: &str = "/kbs/v0/attest";
/// GET: prefix of every resource.
pub const RESOURCE: &str = "/kbs/v0/resource/";
/// GET, POST: prefix of the seal memory, which is ours and not Trustee's.
pub const SEAL: &str = "/flare-cvm/v1/seal/";
/// PUT: prefix under which a CVM presents its image's documents to be enrolled; ours.
pub const IMAGE: &str = "/flare-cvm/v1/image/";
/// GET: prefix of the party's statement about the CVM's attestation key; ours.
pub const ATTESTATION_KEY: &str = "/flare-cvm/v1/attestation-key/";
/// The session cookie's name.
pub const COOKIE: &str = "kbs-session-id";

/// The longest `auth` body that a server reads, in bytes: several times an EK certificate.
pub const MAX_AUTH_BYTES: usize = 16 * 1024;
/// The longest `attest` body that a server reads, in bytes: what p1's collateral, a boot's event
/// log and the evidence of eight GPUs (some 300 KiB) take together.
pub const MAX_ATTEST_BYTES: usize = 1024 * 1024;
/// The longest body of documents that a server reads: two of 64 KiB and their signatures, in
/// base64.
pub const MAX_IMAGE_BYTES: usize = 192 * 1024;
/// The longest reply that a client reads, in bytes.
pub const MAX_REPLY_BYTES: usize = 64 * 1024;
/// The longest token that a server makes and takes, in characters: it comes back in a header.
pub const MAX_TOKEN_CHARS: usize = MAX_REPLY_BYTES - 1024;
/// The longest value of a session cookie, in characters.
pub const MAX_COOKIE_CHARS: usize = 4096;

/// What `bytes` take in base64.
const fn base64(bytes: u64) -> u64 {
    bytes.div_ceil(3) * 4
}
// A server must be able to read what a CVM may have to show.
const _: () = assert!(
    p1::MAX_COLLATERAL_BYTES + base64(MAX_EVENT_LOG_BYTES) + 300 * 1024 < MAX_ATTEST_BYTES as u64
        && 2 * base64(manifest::MAX_BYTES) + 1024 < MAX_IMAGE_BYTES as u64
);

/// The longest body that a request may bring: whatever is longer is refused unread.
pub fn max_body(method: &str, path: &str) -> usize {
    match method {
        "POST" if path == ATTEST => MAX_ATTEST_BYTES,
        "PUT" if path.starts_with(IMAGE) => MAX_IMAGE_BYTES,
        _ => MAX_AUTH_BYTES,
    }
}

/// The resource path, without prefix, of a party's half of an image's key: `flare-cvm/half/IMAGE`
/// for its boot, `flare-cvm/running-half/IMAGE` for its running system.
pub fn half(image: &ImageId, stage: Stage) -> String {
    format!("flare-cvm/{}/{image}", kind(stage))
}

/// What [`half`] names.
pub fn parse_half(resource: &str) -> Option<(ImageId, Stage)> {
    let (kind_of, image) = resource.strip_prefix("flare-cvm/")?.split_once('/')?;
    let stage = [Stage::Boot, Stage::Running].into_iter().find(|stage| kind(*stage) == kind_of)?;
    Some((image.parse().ok()?, stage))
}

fn kind(stage: Stage) -> &'static str {
    match stage {
        Stage::Boot => "half",
        Stage::Running => "running-half",
    }
}
