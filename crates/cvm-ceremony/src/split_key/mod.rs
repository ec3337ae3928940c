//! The split key: public components in the image, one half per party, and a key that only all
//! needed halves together give. Pure: no files, no clock, no network.
//!
//! # Notation and byte encodings
//!
//! G is the X25519 base point (RFC 7748); points and secrets are its 32-byte encodings. HKDF is
//! HKDF-SHA256 (RFC 5869) with 32 bytes of output. `‖` joins bytes; texts are ASCII without a
//! terminator or length. `image_id` is 16 raw bytes, so that every `info` parses from its end.
//!
//! | value | is |
//! |---|---|
//! | `s_i`, `S_i` | party *i*'s secret and its public point `s_i·G` |
//! | `b_i,role` | party *i*'s base key for the role, 32 random bytes |
//! | `e`, `E` | one image's ephemeral secret and its public point `e·G` |
//! | `P_i` | `X25519(e, S_i) = X25519(s_i, E)`; an all-zero result is refused |
//! | `Q_i` | `HKDF(b_i,role; P_i; "flare-cvm/v1/half" ‖ image_id)` |
//! | `R_i` | as `Q_i` with `"flare-cvm/v1/running-half"` |
//! | `W_i` | as `Q_i` with `"flare-cvm/v1/enrolment"` |
//! | `T` | SHA-256 of the ceremony's transcript, without its signatures |
//! | `K_purpose` | `HKDF(T; Q_1 ‖ … ‖ Q_n; "flare-cvm/v1/" ‖ purpose ‖ image_id)` |
//!
//! HKDF takes salt, input key material and info. Where an image requires GPUs, `R_i` takes the place
//! of `Q_i` in the keys of p5 and `state`. `W_i` is never released: it is the build's mark on what
//! may enrol itself.
//!
//! The halves of `K_purpose` are those of the parties that take part in the purpose, in the
//! transcript's order: for `system` the owners that the agreement names, for `state` and `jobs`
//! all parties of the site; a header's MAC key needs the same halves as its area's key.
//! (Images whose manifest has version 1 or 2 made the keys of `state` from `system`'s halves.)
//! `tests/vectors/split-key.json` holds vectors and `tests/split_key.py` an independent
//! implementation.
//!
//! # Against faults
//!
//! Every derivation runs twice and the results are compared in constant time: a glitch that skips
//! or bends one computation gives an error, not a key that an attacker can work back from.

mod derive;
mod error;
mod machine;
mod purpose;
mod secret;
mod self_test;

pub use derive::{
    EphemeralBuild, check_public, combine, derive, enrolment_key, half, party_halves,
};
pub use error::SplitKeyError;
pub use machine::bind;
pub use purpose::{MAX_PARTIES, Purpose};
pub use secret::{
    BaseKey, CombinedKey, EnrolmentKey, Half, MachineSecret, MachineShare, PartySecret,
};
pub use self_test::{SelfTestError, self_test};
