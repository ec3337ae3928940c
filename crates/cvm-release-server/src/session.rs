//! A session between `auth` and `attest`: sealed, in the client's cookie.

use std::{
    fmt,
    time::{Duration, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use cvm_release::{messages::Tee, paths};
use serde::{Deserialize, Serialize};

use crate::{
    decision::{Reason, ReleaseRefusal},
    fault::Fault,
    keys::{COOKIE_CONTEXT, Random, SessionKeys},
};

/// How long a session lives after `auth`, in seconds.
pub const SESSION_SECONDS: u64 = 300;

/// A session's public name: 16 random bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionId(pub [u8; 16]);

impl SessionId {
    pub(crate) fn draw(random: &Random) -> Result<Self, Fault> {
        let mut id = [0; 16];
        random(&mut id)?;
        Ok(Self(id))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What `auth` decided and `attest` must know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CookieSession {
    pub id: SessionId,
    /// Unix seconds.
    pub expires: u64,
    pub tee: Tee,
    pub nonce: String,
    /// What the kind of evidence wants to see again; secret from the client.
    #[serde(with = "b64")]
    pub kept: Vec<u8>,
}

impl CookieSession {
    /// The cookie's value and its `Expires` date.
    pub(crate) fn cookie(
        &self,
        keys: &SessionKeys,
        random: &Random,
    ) -> Result<(String, String), Fault> {
        let plain = serde_json::to_vec(self).map_err(|e| Fault::new("writing a session", e))?;
        let value = B64.encode(keys.seal(COOKIE_CONTEXT, &plain, random)?);
        if value.len() > paths::MAX_COOKIE_CHARS {
            return Err(Fault::new("writing a session", "it does not fit a cookie"));
        }
        let expires = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(self.expires));
        Ok((value, expires))
    }

    /// Opens a cookie's value.
    pub(crate) fn open(value: &str, keys: &SessionKeys) -> Result<Self, ReleaseRefusal> {
        let forged = || {
            ReleaseRefusal::new(
                Reason::SessionForged,
                "the session cookie is not one of ours, or was changed",
            )
        };
        if value.len() > paths::MAX_COOKIE_CHARS {
            return Err(forged());
        }
        let sealed = B64.decode(value).map_err(|_| forged())?;
        let plain = keys.open(COOKIE_CONTEXT, &sealed).ok_or_else(forged)?;
        serde_json::from_slice(&plain).map_err(|_| forged())
    }
}

/// The session's value in a `Cookie` header.
pub(crate) fn cookie_value(header: &str) -> Option<&str> {
    header.split(';').find_map(|pair| pair.trim().strip_prefix(paths::COOKIE)?.strip_prefix('='))
}

mod b64 {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::{B64, Engine};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&B64.encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        B64.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// Entry point for the fuzzer: a `Cookie` header.
#[doc(hidden)]
pub fn fuzz_cookie(bytes: &[u8]) {
    let (Ok(header), Ok(keys)) = (std::str::from_utf8(bytes), SessionKeys::derive(&[7; 32])) else {
        return;
    };
    if let Some(value) = cookie_value(header) {
        let _ = CookieSession::open(value, &keys);
    }
    // Past the seal as well: what the parser would do if the key were lost.
    let _ = serde_json::from_slice::<CookieSession>(bytes);
}
