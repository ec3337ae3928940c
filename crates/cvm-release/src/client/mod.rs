//! The client as a typestate machine: `Client<Start>` → [`Challenged`] → [`Attested`].
//!
//! Each state offers only the requests that are legal in it. Consuming a reply moves to the next
//! state or fails, so that no step can be taken out of order. Nothing here touches a socket.

mod error;

use base64::{Engine, engine::general_purpose::STANDARD};
use cvm_base::{Bytes32, printable};
use cvm_layout::manifest::{ImageId, Stage};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use zeroize::Zeroizing;

pub use error::{Failure, ReleaseError};

use crate::{
    binding::Binding,
    jwe::TeeKey,
    messages::{
        Attestation, AuthRequest, Challenge, CompositeEvidence, ErrorInformation, Jwe, MachineRule,
        PresentImage, RegisterSeal, RuntimeData, SealAnswer, Tee, Token, VERSION,
    },
    paths,
};

/// The most bytes of a server's words that an error quotes.
const MAX_SHOWN: usize = 300;

/// How a request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Without a body.
    Get,
    /// With a JSON body.
    Post,
    /// With a JSON body.
    Put,
}

/// A request for a transport to carry.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// GET, POST or PUT.
    pub method: Method,
    /// Absolute path, ASCII.
    pub path: String,
    /// Value of the `Cookie` header.
    pub cookie: Option<String>,
    /// JSON; empty for GET.
    pub body: Vec<u8>,
}

/// What a transport brought back, at most [`paths::MAX_REPLY_BYTES`] of body.
#[derive(Debug, Clone, Default)]
pub struct Incoming {
    /// The HTTP status.
    pub status: u16,
    /// Values of the `Set-Cookie` headers.
    pub set_cookie: Vec<String>,
    /// The body.
    pub body: Vec<u8>,
}

/// What a key holder remembers of an image's job store (p5), and what it allows to its machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SealState {
    /// SHA-256 of the whole 1 MiB header area; `None` before the first boot registered one.
    pub header_sha256: Option<Bytes32>,
    /// What its policy allows to this machine.
    pub allowed: MachineRule,
    /// The image's keys need a machine's secret.
    pub bound: bool,
    /// Its share of that secret, while its operator allows the image to move: secret.
    pub share: Option<Zeroizing<[u8; 32]>>,
}

/// The exchange with one key holder, in state `S`.
pub struct Client<S>(S);

/// Nothing was sent.
pub struct Start {
    tee: Tee,
    key: TeeKey,
}

/// The challenge is here; evidence is due.
pub struct Challenged {
    key: TeeKey,
    cookie: String,
    nonce: String,
    extra_params: Value,
}

/// The key holder accepted the evidence.
pub struct Attested {
    key: TeeKey,
    cookie: String,
}

impl Client<Start> {
    /// Begins an exchange with a fresh P-256 key.
    pub fn new(tee: Tee) -> Result<Self, Failure> {
        let key = TeeKey::generate().map_err(|e| Failure::Local(e.to_string()))?;
        Ok(Self(Start { tee, key }))
    }

    /// POST `auth`. `extra_params` is what the kind of evidence sends ahead, `""` if nothing.
    pub fn auth_request(&self, extra_params: &str) -> Result<Outgoing, Failure> {
        let body = AuthRequest {
            version: VERSION.into(),
            tee: self.0.tee,
            extra_params: extra_params.into(),
        };
        post(paths::AUTH.into(), None, &body)
    }

    /// Consumes the challenge.
    pub fn challenged(self, reply: &Incoming) -> Result<Client<Challenged>, Failure> {
        let challenge: Challenge = accept(reply, "challenge")?;
        let length = STANDARD.decode(&challenge.nonce).map(|bytes| bytes.len());
        if length != Ok(32) {
            return Err(Failure::Protocol(format!(
                "the challenge's nonce is not 32 bytes of base64 ({length:?})"
            )));
        }
        let cookie =
            session_cookie(reply).ok_or_else(|| Failure::Protocol("no session cookie".into()))?;
        let Challenge { nonce, extra_params } = challenge;
        Ok(Client(Challenged { key: self.0.key, cookie, nonce, extra_params }))
    }
}

impl Client<Challenged> {
    /// What primary evidence must be bound to. `additional_evidence` is the text that
    /// [`Self::attest_request`] will be given, `""` if none.
    pub fn binding(&self, additional_evidence: &str) -> Binding {
        Binding::new(&self.runtime_data(), additional_evidence)
    }

    /// What devices beside the primary TEE must be bound to.
    pub fn device_binding(&self) -> Binding {
        Binding::of_devices(&self.runtime_data())
    }

    /// The key holder's answer to the request's `extra_params`; `""` if it has none.
    pub fn extra_params(&self) -> &str {
        self.0.extra_params.as_str().unwrap_or_default()
    }

    /// POST `attest`.
    pub fn attest_request(
        &self,
        primary_evidence: Value,
        additional_evidence: &str,
    ) -> Result<Outgoing, Failure> {
        let body = Attestation {
            init_data: None,
            runtime_data: self.runtime_data(),
            tee_evidence: CompositeEvidence {
                primary_evidence,
                additional_evidence: additional_evidence.into(),
            },
        };
        post(paths::ATTEST.into(), Some(self.0.cookie.clone()), &body)
    }

    /// Consumes the answer to [`Self::attest_request`].
    pub fn attested(self, reply: &Incoming) -> Result<Client<Attested>, Failure> {
        let Token { .. } = accept(reply, "token")?;
        // A server may move the session's state into a new cookie.
        let cookie = session_cookie(reply).unwrap_or(self.0.cookie);
        Ok(Client(Attested { key: self.0.key, cookie }))
    }

    fn runtime_data(&self) -> RuntimeData {
        RuntimeData { nonce: self.0.nonce.clone(), tee_pubkey: self.0.key.public() }
    }
}

impl Client<Attested> {
    /// GET of this party's half of an image's key, for this stage.
    pub fn half_request(&self, image: &ImageId, stage: Stage) -> Outgoing {
        self.get(format!("{}{}", paths::RESOURCE, paths::half(image, stage)))
    }

    /// Decrypts the answer to [`Self::half_request`]: 32 bytes, secret.
    pub fn half(&self, reply: &Incoming) -> Result<Zeroizing<[u8; 32]>, Failure> {
        let jwe: Jwe = accept(reply, "resource")?;
        self.secret(&jwe, "half")
    }

    fn secret(&self, jwe: &Jwe, what: &str) -> Result<Zeroizing<[u8; 32]>, Failure> {
        let plaintext = self.0.key.decrypt(jwe).map_err(|e| Failure::Protocol(e.to_string()))?;
        let mut secret = Zeroizing::new([0; 32]);
        if plaintext.len() != secret.len() {
            return Err(Failure::Protocol(format!(
                "the {what} is {} bytes long instead of 32",
                plaintext.len()
            )));
        }
        secret.copy_from_slice(&plaintext);
        Ok(secret)
    }

    /// PUT of the image's documents, for a key holder that does not know it.
    pub fn present_request(
        &self,
        image: &ImageId,
        documents: &PresentImage,
    ) -> Result<Outgoing, Failure> {
        let request =
            post(format!("{}{image}", paths::IMAGE), Some(self.0.cookie.clone()), documents)?;
        Ok(Outgoing { method: Method::Put, ..request })
    }

    /// Reads the answer to [`Self::present_request`].
    pub fn presented(&self, reply: &Incoming) -> Result<(), Failure> {
        done(reply)
    }

    /// GET of the party's statement about this CVM's attestation key.
    pub fn attestation_key_request(&self, image: &ImageId) -> Outgoing {
        self.get(format!("{}{image}", paths::ATTESTATION_KEY))
    }

    /// Reads the answer to [`Self::attestation_key_request`], whose signature is for others to
    /// verify; `None` from a stock Trustee, which makes no such statement.
    pub fn attestation_key(&self, reply: &Incoming) -> Result<Option<Value>, Failure> {
        if reply.status == 404 {
            Ok(None)
        } else {
            accept(reply, "attestation key's certificate").map(Some)
        }
    }

    /// GET of what the key holder remembers of the image's split-key partition.
    pub fn seal_request(&self, image: &ImageId) -> Outgoing {
        self.get(format!("{}{image}", paths::SEAL))
    }

    /// Reads the answer to [`Self::seal_request`]; `None` from a stock Trustee, which has no such
    /// memory.
    pub fn seal_state(&self, reply: &Incoming) -> Result<Option<SealState>, Failure> {
        if reply.status == 404 {
            return Ok(None);
        }
        let SealAnswer { header_sha256, machine } = accept(reply, "seal state")?;
        let share = machine.share.map(|jwe| self.secret(&jwe, "share")).transpose()?;
        Ok(Some(SealState { header_sha256, allowed: machine.allowed, bound: machine.bound, share }))
    }

    /// POST of the header that this boot made, and of the party's share of the machine's secret if
    /// there is one.
    pub fn register_seal_request(
        &self,
        image: &ImageId,
        header_sha256: Bytes32,
        share: Option<&[u8; 32]>,
    ) -> Result<Outgoing, Failure> {
        let share = share.map(|share| Zeroizing::new(hex::encode(share)));
        post(
            format!("{}{image}", paths::SEAL),
            Some(self.0.cookie.clone()),
            &RegisterSeal { header_sha256, share },
        )
    }

    /// Reads the answer to [`Self::register_seal_request`].
    pub fn seal_registered(&self, reply: &Incoming) -> Result<(), Failure> {
        done(reply)
    }

    fn get(&self, path: String) -> Outgoing {
        Outgoing {
            method: Method::Get,
            path,
            cookie: Some(self.0.cookie.clone()),
            body: Vec::new(),
        }
    }
}

fn post(path: String, cookie: Option<String>, body: &impl Serialize) -> Result<Outgoing, Failure> {
    let body = serde_json::to_vec(body).map_err(|e| Failure::Local(e.to_string()))?;
    Ok(Outgoing { method: Method::Post, path, cookie, body })
}

fn done(reply: &Incoming) -> Result<(), Failure> {
    if (200..300).contains(&reply.status) { Ok(()) } else { Err(refusal(reply)) }
}

fn accept<T: DeserializeOwned>(reply: &Incoming, what: &str) -> Result<T, Failure> {
    if reply.body.len() > paths::MAX_REPLY_BYTES {
        return Err(Failure::Protocol(format!(
            "the {what} is longer than {} bytes",
            paths::MAX_REPLY_BYTES
        )));
    }
    if reply.status != 200 {
        return Err(refusal(reply));
    }
    serde_json::from_slice(&reply.body)
        .map_err(|e| Failure::Protocol(format!("the {what} is malformed: {e}")))
}

fn refusal(reply: &Incoming) -> Failure {
    let status = reply.status;
    // Busy is not a decision; everything else is, and final.
    if matches!(status, 429 | 503) {
        return Failure::Busy { status };
    }
    match serde_json::from_slice::<ErrorInformation>(&reply.body) {
        Ok(info) => Failure::Refused {
            status,
            error_type: printable(&info.error_type, MAX_SHOWN),
            detail: printable(&info.detail, MAX_SHOWN),
        },
        Err(_) => Failure::Protocol(format!("HTTP status {status} without an error body")),
    }
}

/// `NAME=VALUE` of the session cookie, without its attributes.
fn session_cookie(reply: &Incoming) -> Option<String> {
    let pair = |header: &String| {
        let pair = header.split(';').next()?.trim();
        let value = pair.strip_prefix(paths::COOKIE)?.strip_prefix('=')?;
        let good = (1..=paths::MAX_COOKIE_CHARS).contains(&value.len())
            && value.bytes().all(|b| b.is_ascii_graphic() && b != b',');
        good.then(|| pair.to_owned())
    };
    reply.set_cookie.iter().find_map(pair)
}

/// Entry point for the fuzzer: every reply a client reads.
#[doc(hidden)]
pub fn fuzz_reply(bytes: &[u8]) {
    let Some((status, body)) = bytes.split_first() else { return };
    let reply = Incoming {
        status: if status & 1 == 0 { 200 } else { 401 },
        set_cookie: vec![
            String::from_utf8_lossy(body).into_owned(),
            format!("{}=x", paths::COOKIE),
        ],
        body: body.to_vec(),
    };
    let Ok(start) = Client::new(Tee::Tpm) else { return };
    if let Ok(challenged) = start.challenged(&reply) {
        let _ = challenged.binding("");
        let _ = challenged.attested(&reply);
    }
    if let Ok(key) = TeeKey::generate() {
        let attested = Client(Attested { key, cookie: String::new() });
        let _ = attested.half(&reply);
        let _ = attested.seal_state(&reply);
        let _ = attested.seal_registered(&reply);
        let _ = attested.attestation_key(&reply);
    }
}
