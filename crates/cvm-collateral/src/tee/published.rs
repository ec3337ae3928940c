//! What vendors published, as far as it is at hand: in the local cache, and in the cache that
//! travelled in the evidence.

use ed25519_dalek::VerifyingKey;
use serde_json::{Value, json};

use crate::{
    cache::{Cache, Found},
    key::Key,
};
use cvm_evidence::trustee::COLLATERAL;
use cvm_verify::x509::Certificate;

/// The caches for one piece of evidence.
pub(super) struct Published<'a> {
    own: Option<&'a Cache>,
    travelled: Option<Cache>,
    /// What became of the one that travelled, for the claims.
    note: Option<Value>,
}

/// What vouches for a report.
#[derive(Default)]
pub(super) struct Endorsements {
    pub(super) certificates: Vec<Certificate>,
    pub(super) crls: Vec<Vec<u8>>,
}

impl<'a> Published<'a> {
    /// The local cache, and the evidence's own if one of `collectors` signed it.
    ///
    /// A cache that another collector signed is passed over, and the claims say so: a CVM shows the
    /// same bytes to every party's key holder, and parties need not trust the same collector.
    pub(super) fn new(own: Option<&'a Cache>, collectors: &[VerifyingKey], body: &Value) -> Self {
        let Some(packed) = body.get(COLLATERAL).filter(|packed| !packed.is_null()) else {
            return Self { own, travelled: None, note: None };
        };
        match Cache::unpack(packed.to_string().as_bytes(), collectors) {
            Ok(cache) => {
                let collector = cvm_base::Bytes(cache.signer().to_bytes());
                Self { own, travelled: Some(cache), note: Some(json!({ "collector": collector })) }
            }
            Err(error) => {
                Self { own, travelled: None, note: Some(json!({ "not_used": error.to_string() })) }
            }
        }
    }
}

impl Published<'_> {
    fn caches(&self) -> impl Iterator<Item = &Cache> {
        self.own.into_iter().chain(&self.travelled)
    }

    /// Revocation lists for a report, and the chip's certificate where none came with it.
    pub(super) fn by_amd(&self, report: &[u8], endorsed: bool, now: u64) -> Endorsements {
        let mut found = Endorsements::default();
        for piece in self.caches().flat_map(|cache| cache.for_snp_report(report, now)) {
            match piece.entry.key {
                Key::Vcek { .. } | Key::Vlek { .. } if !endorsed => {
                    found.certificates.extend(Certificate::from_der(piece.bytes).ok());
                }
                Key::AmdCrl(..) => found.crls.push(piece.bytes.to_vec()),
                _ => {}
            }
        }
        found
    }

    /// The collateral for a quote's platform: of two, the one that is valid for longer.
    pub(super) fn by_intel(&self, quote: &[u8], now: u64) -> Option<Found<'_>> {
        let found = self.caches().filter_map(|cache| cache.for_quote(quote, now));
        found.max_by_key(|found| found.entry.valid_until)
    }

    /// Says in the claims what became of the cache that travelled.
    pub(super) fn note_in(&self, claims: &mut Value) {
        if let Some(note) = &self.note {
            claims[COLLATERAL] = note.clone();
        }
    }
}
