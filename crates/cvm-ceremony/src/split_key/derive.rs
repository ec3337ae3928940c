//! The formulas.

use std::{collections::BTreeMap, hint::black_box};

use cvm_base::Bytes32;
use cvm_layout::{
    manifest::{ImageId, SplitKey, Stage},
    names::Name,
};
use hkdf::Hkdf;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use x25519_dalek::{PublicKey, StaticSecret};

use super::{
    error::SplitKeyError,
    purpose::{MAX_PARTIES, Purpose},
    secret::{BaseKey, CombinedKey, EnrolmentKey, Half, PartySecret, Secret, join},
};

/// The text of `W_i`.
const ENROLMENT: &str = "enrolment";

/// `e`: the build side's secret of one image. Using it consumes and wipes it.
pub struct EphemeralBuild(Secret);

impl EphemeralBuild {
    /// A new one from the system's random source.
    pub fn generate() -> Result<Self, SplitKeyError> {
        Secret::random().map(Self)
    }

    /// A given one, for test vectors.
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(Secret::copy_of(bytes))
    }

    /// The keys `W_i` of `parties` (their `S_i` and base keys), in their order.
    pub fn enrolment_keys(
        &self,
        parties: &[(Bytes32, &BaseKey)],
        image_id: &ImageId,
    ) -> Result<Vec<EnrolmentKey>, SplitKeyError> {
        let key = |(public, base_key): &(Bytes32, &BaseKey)| {
            agree(&self.0, public, base_key, ENROLMENT, image_id)
        };
        parties.iter().map(|party| key(party).map(EnrolmentKey)).collect()
    }

    /// E and the boot's halves of `parties` (their `S_i` and base keys), in their order.
    pub fn halves(
        self,
        parties: &[(Bytes32, &BaseKey)],
        image_id: &ImageId,
    ) -> Result<(Bytes32, Vec<Half>), SplitKeyError> {
        let halves = parties
            .iter()
            .map(|(public, base_key)| {
                agree(&self.0, public, base_key, stage_text(Stage::Boot), image_id).map(Half)
            })
            .collect::<Result<_, _>>()?;
        Ok((public_of(&self.0), halves))
    }
}

/// The key holder's side: `Q_i` of one image and stage, from the manifest's `ephemeral` (E).
pub fn half(
    secret: &PartySecret,
    base_key: &BaseKey,
    ephemeral: &Bytes32,
    image_id: &ImageId,
    stage: Stage,
) -> Result<Half, SplitKeyError> {
    agree(&secret.0, ephemeral, base_key, stage_text(stage), image_id).map(Half)
}

/// The key holder's side: `W_i` of one image, from the manifest's `ephemeral` (E).
pub fn enrolment_key(
    secret: &PartySecret,
    base_key: &BaseKey,
    ephemeral: &Bytes32,
    image_id: &ImageId,
) -> Result<EnrolmentKey, SplitKeyError> {
    agree(&secret.0, ephemeral, base_key, ENROLMENT, image_id).map(EnrolmentKey)
}

/// The CVM's side: `K_purpose` from the halves that the purpose needs, in the transcript's order.
///
/// [`derive()`] also picks and orders them by the manifest.
pub fn combine(
    transcript: &Bytes32,
    halves: &[&Half],
    purpose: Purpose,
    image_id: &ImageId,
) -> Result<CombinedKey, SplitKeyError> {
    if !(1..=MAX_PARTIES).contains(&halves.len()) {
        return Err(SplitKeyError::Count { found: halves.len(), purpose });
    }
    let ikm = join(halves);
    let info = info(purpose.as_str(), image_id);
    twice("combine", || hkdf(&transcript.0, &ikm, &info)).map(CombinedKey)
}

/// [`combine`] with the manifest's public components: picks the halves of the parties that take
/// part in `purpose`, in the manifest's order.
pub fn derive(
    split_key: &SplitKey,
    halves: &BTreeMap<Name, Half>,
    purpose: Purpose,
    image_id: &ImageId,
) -> Result<CombinedKey, SplitKeyError> {
    let needed = party_halves(split_key, purpose)
        .map(|party| {
            halves
                .get(party)
                .ok_or_else(|| SplitKeyError::MissingHalf { party: party.clone(), purpose })
        })
        .collect::<Result<Vec<_>, _>>()?;
    combine(&split_key.transcript, &needed, purpose, image_id)
}

/// The parties whose halves `purpose` needs, in order.
pub fn party_halves(split_key: &SplitKey, purpose: Purpose) -> impl Iterator<Item = &Name> {
    let needs = purpose.parties();
    split_key
        .parties
        .iter()
        .filter(move |party| party.purposes.contains(&needs))
        .map(|party| &party.name)
}

impl PartySecret {
    /// `S_i = s_i·G`.
    pub fn public(&self) -> Bytes32 {
        public_of(&self.0)
    }
}

/// Refuses a public key of low order (whatever the secret, the shared point would be zero).
pub fn check_public(public: &Bytes32) -> Result<(), SplitKeyError> {
    // A clamped scalar is a multiple of 8, the cofactor: any scalar shows it.
    shared(&Secret::copy_of(&[1; 32]), public).map(drop)
}

fn public_of(secret: &Secret) -> Bytes32 {
    Bytes32 { 0: PublicKey::from(&StaticSecret::from(*secret.bytes())).to_bytes() }
}

/// Two texts, so that a half for the boot says nothing about the half for the running system.
fn stage_text(stage: Stage) -> &'static str {
    match stage {
        Stage::Boot => "half",
        Stage::Running => "running-half",
    }
}

/// `Q_i`, `R_i` or `W_i` from either side: its own secret and the other side's public key.
fn agree(
    own: &Secret,
    other: &Bytes32,
    base_key: &BaseKey,
    text: &'static str,
    image_id: &ImageId,
) -> Result<Secret, SplitKeyError> {
    let info = info(text, image_id);
    twice(text, || {
        let point = shared(own, other)?;
        hkdf(base_key.as_bytes(), point.bytes(), &info)
    })
}

/// `X25519(secret, public)`, refused when it is zero.
fn shared(secret: &Secret, public: &Bytes32) -> Result<Secret, SplitKeyError> {
    let shared = StaticSecret::from(*secret.bytes()).diffie_hellman(&PublicKey::from(public.0));
    if !shared.was_contributory() {
        return Err(SplitKeyError::LowOrder(*public));
    }
    Ok(Secret::copy_of(shared.as_bytes()))
}

/// `"flare-cvm/v1/" ‖ purpose ‖ image_id`.
pub(super) fn info(purpose: &str, image_id: &ImageId) -> Vec<u8> {
    [b"flare-cvm/v1/", purpose.as_bytes(), &image_id.0].concat()
}

/// HKDF-SHA256 with 32 bytes of output.
pub(super) fn hkdf(salt: &[u8; 32], ikm: &[u8], info: &[u8]) -> Result<Secret, SplitKeyError> {
    // Only a wrong length could fail, and 32 bytes are one block.
    Secret::fill(|okm| Hkdf::<Sha256>::new(Some(salt), ikm).expand(info, okm))
        .map_err(|_| SplitKeyError::Fault("HKDF"))
}

/// Runs `compute` twice; a difference is a fault. `black_box` keeps the compiler from running it
/// once.
pub(super) fn twice(
    what: &'static str,
    compute: impl Fn() -> Result<Secret, SplitKeyError>,
) -> Result<Secret, SplitKeyError> {
    let first = black_box(&compute)()?;
    let second = black_box(&compute)()?;
    if bool::from(first.ct_eq(&second)) { Ok(first) } else { Err(SplitKeyError::Fault(what)) }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_computation_that_differs_the_second_time_is_a_fault() {
        let count = Cell::new(0);
        let glitch = || {
            count.set(count.get() + 1);
            Ok(Secret::copy_of(&[count.get(); 32]))
        };
        assert_eq!(twice("test", glitch).err(), Some(SplitKeyError::Fault("test")));
        assert_eq!(count.get(), 2, "really computed twice");
        assert!(twice("test", || Ok(Secret::copy_of(&[1; 32]))).is_ok());
    }
}
