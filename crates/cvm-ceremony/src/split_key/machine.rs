//! The third factor: a secret that only one machine's TPM gives back.
//!
//! | value | is |
//! |---|---|
//! | `M` | 32 random bytes, made on the first boot, kept by the TPM under a PCR policy |
//! | `K'_purpose` | `HKDF(salt = M; ikm = K_purpose; info = "flare-cvm/v1/machine/" ‖ purpose ‖ image_id)` |
//! | `M_i` | party *i*'s share, in the transcript's order: `HKDF(salt = T; ikm = M; info = "flare-cvm/v1/machine-share/" ‖ name ‖ image_id)`, and for the last party M ⊕ all others |
//!
//! Every key holder keeps its share, so that the parties together, and nobody else, can move an
//! image to another machine. The shares follow from M: a first boot that died before it told every
//! key holder sends the same shares when it begins again.

use cvm_base::Bytes32;
use cvm_layout::{manifest::ImageId, names::Name};

use super::{
    derive::{hkdf, info, twice},
    error::SplitKeyError,
    purpose::Purpose,
    secret::{CombinedKey, MachineSecret, MachineShare, Secret},
};

impl MachineSecret {
    /// A new one from the system's random source.
    ///
    /// # Errors
    /// [`SplitKeyError::Random`].
    pub fn generate() -> Result<Self, SplitKeyError> {
        Secret::random().map(Self)
    }

    /// The one that follows from a key which a TEE derives for this image alone (SEV-SNP's
    /// MSG_KEY_REQ): each image has its own, whatever the TEE mixes in.
    ///
    /// # Errors
    /// [`SplitKeyError::Fault`].
    pub fn from_tee(derived_key: &[u8; 32], image_id: &ImageId) -> Result<Self, SplitKeyError> {
        let info = info("machine-tee", image_id);
        twice("machine secret", || hkdf(&[0; 32], derived_key, &info)).map(Self)
    }

    /// A share for each party, in the transcript's order: all of them give M back, fewer say
    /// nothing.
    ///
    /// # Errors
    /// [`SplitKeyError::Fault`].
    pub fn shares(
        &self,
        transcript: &Bytes32,
        parties: &[&Name],
        image_id: &ImageId,
    ) -> Result<Vec<MachineShare>, SplitKeyError> {
        let Some((_, others)) = parties.split_last() else { return Ok(vec![]) };
        let share = |party: &&Name| {
            let info = info(&format!("machine-share/{party}"), image_id);
            twice("machine share", || hkdf(&transcript.0, self.as_bytes(), &info)).map(MachineShare)
        };
        let mut shares = others.iter().map(share).collect::<Result<Vec<_>, _>>()?;
        let last =
            Self::join(shares.iter().chain([&MachineShare(Secret::copy_of(self.as_bytes()))]));
        shares.push(MachineShare(last.0));
        Ok(shares)
    }

    /// M from every party's share, in any order.
    pub fn join<'a>(shares: impl IntoIterator<Item = &'a MachineShare>) -> Self {
        let mut joined = Secret::copy_of(&[0; 32]);
        for share in shares {
            joined.xor(&share.0);
        }
        Self(joined)
    }
}

/// `K'_purpose`: a key that also needs this machine.
///
/// # Errors
/// [`SplitKeyError::Fault`].
pub fn bind(
    key: &CombinedKey,
    machine: &MachineSecret,
    purpose: Purpose,
    image_id: &ImageId,
) -> Result<CombinedKey, SplitKeyError> {
    let info = info(&format!("machine/{purpose}"), image_id);
    twice("machine", || hkdf(machine.as_bytes(), key.as_bytes(), &info)).map(CombinedKey)
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Bytes32 = Bytes32 { 0: [7; 32] };
    const IMAGE: ImageId = ImageId { 0: [9; 16] };

    fn names() -> Vec<Name> {
        ["alice", "bob", "carol"].map(|name| name.parse().unwrap()).to_vec()
    }

    #[test]
    fn a_tees_key_gives_each_image_a_secret_of_its_own() {
        let of = |key: u8, image| MachineSecret::from_tee(&[key; 32], image).unwrap();
        let first = of(1, &IMAGE);
        assert_eq!(first.as_bytes(), of(1, &IMAGE).as_bytes());
        assert_ne!(first.as_bytes(), of(2, &IMAGE).as_bytes(), "another chip");
        assert_ne!(first.as_bytes(), of(1, &ImageId { 0: [8; 16] }).as_bytes(), "another image");
        assert_ne!(
            first.as_bytes(),
            &[1; 32],
            "the TEE's key itself is kept from what derives further"
        );
    }

    #[test]
    fn all_shares_give_the_secret_back_and_they_are_the_same_each_time() {
        let machine = MachineSecret::from_bytes(&[3; 32]);
        let names = names();
        for count in 1..=3 {
            let parties: Vec<&Name> = names.iter().take(count).collect();
            let shares = machine.shares(&T, &parties, &IMAGE).unwrap();
            assert_eq!(MachineSecret::join(shares.iter().rev()).as_bytes(), machine.as_bytes());
            let again = machine.shares(&T, &parties, &IMAGE).unwrap();
            assert!(shares.iter().zip(&again).all(|(a, b)| a.as_bytes() == b.as_bytes()));
        }
    }

    #[test]
    fn attack_fewer_shares_are_another_secret() {
        let machine = MachineSecret::from_bytes(&[3; 32]);
        let names = names();
        let shares = machine.shares(&T, &names.iter().collect::<Vec<_>>(), &IMAGE).unwrap();
        for left_out in 0..3 {
            let rest =
                shares.iter().enumerate().filter(|(at, _)| *at != left_out).map(|(_, share)| share);
            assert_ne!(MachineSecret::join(rest).as_bytes(), machine.as_bytes());
        }
    }

    #[test]
    fn a_bound_key_differs_by_machine_purpose_and_image() {
        let key = CombinedKey::from_bytes(&[1; 32]);
        let bound = |machine: u8, purpose, image: u8| {
            let machine = MachineSecret::from_bytes(&[machine; 32]);
            *bind(&key, &machine, purpose, &ImageId { 0: [image; 16] }).unwrap().as_bytes()
        };
        let all = [
            *key.as_bytes(),
            bound(1, Purpose::Jobs, 1),
            bound(2, Purpose::Jobs, 1),
            bound(1, Purpose::State, 1),
            bound(1, Purpose::Jobs, 2),
        ];
        assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), all.len());
    }
}
