//! The split key and the key ceremony that sets it up.

pub mod split_key;
