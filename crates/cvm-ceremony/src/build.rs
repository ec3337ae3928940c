//! The build side: from an agreement and the parties' contributions to one image's keys.

use std::collections::BTreeMap;

use cvm_layout::{
    manifest::{ImageId, SplitKey},
    names::Name,
};

use crate::{
    contribution::{OpenedContribution, WHAT},
    error::CeremonyError,
    split_key::{BaseKey, CombinedKey, EphemeralBuild, Half, Purpose, SplitKeyError, derive},
    statement::Site,
    transcript::Agreement,
};

/// One image's keys, by purpose. Wiped on drop.
#[derive(Debug)]
pub struct Keys {
    system: CombinedKey,
    state: CombinedKey,
    jobs: CombinedKey,
    mac_system: CombinedKey,
    mac_state: CombinedKey,
    mac_jobs: CombinedKey,
}

impl Keys {
    /// All keys of one image from all parties' halves.
    pub fn derive(
        split_key: &SplitKey,
        halves: &BTreeMap<Name, Half>,
        image_id: &ImageId,
    ) -> Result<Self, SplitKeyError> {
        let key = |purpose| derive(split_key, halves, purpose, image_id);
        Ok(Self {
            system: key(Purpose::System)?,
            state: key(Purpose::State)?,
            jobs: key(Purpose::Jobs)?,
            mac_system: key(Purpose::HeaderMacSystem)?,
            mac_state: key(Purpose::HeaderMacState)?,
            mac_jobs: key(Purpose::HeaderMacJobs)?,
        })
    }

    /// The key of `purpose`.
    pub fn get(&self, purpose: Purpose) -> &CombinedKey {
        match purpose {
            Purpose::System => &self.system,
            Purpose::State => &self.state,
            Purpose::Jobs => &self.jobs,
            Purpose::HeaderMacSystem => &self.mac_system,
            Purpose::HeaderMacState => &self.mac_state,
            Purpose::HeaderMacJobs => &self.mac_jobs,
        }
    }
}

/// Makes E and the keys of one image: e lives only in here.
///
/// `contributions`: one per party of the site, all for its role, in any order. They serve every
/// image of one build whose site has the same parties and role; drop them when it ends.
pub fn build_split_key(
    agreement: &Agreement,
    contributions: &[OpenedContribution],
    site: &Site,
    image_id: &ImageId,
) -> Result<(SplitKey, Keys), CeremonyError> {
    let parties = agreement.shares(site);
    let base_keys = parties
        .iter()
        .map(|party| Ok((party.public, base_key(agreement, contributions, site, &party.name)?)))
        .collect::<Result<Vec<_>, CeremonyError>>()?;
    for extra in contributions {
        agreement.party(&extra.party)?;
        site.check_party(&extra.party)?;
    }
    let (ephemeral, halves) = EphemeralBuild::generate()?.halves(&base_keys, image_id)?;
    let halves = parties.iter().map(|party| party.name.clone()).zip(halves).collect();
    let split_key = SplitKey { ephemeral, transcript: agreement.digest(), parties };
    let keys = Keys::derive(&split_key, &halves, image_id)?;
    Ok((split_key, keys))
}

fn base_key<'a>(
    agreement: &Agreement,
    contributions: &'a [OpenedContribution],
    site: &Site,
    party: &Name,
) -> Result<&'a BaseKey, CeremonyError> {
    let mut own = contributions.iter().filter(|c| c.party == *party);
    let contribution = own.next().ok_or_else(|| CeremonyError::NoContribution(party.clone()))?;
    if own.next().is_some() {
        return Err(CeremonyError::Duplicate { what: "contribution of", value: party.to_string() });
    }
    let (expected, found) = (agreement.digest(), contribution.transcript);
    if expected != found {
        return Err(CeremonyError::OtherTranscript { what: WHAT, expected, found });
    }
    if contribution.base_key.role != site.role {
        let (party, found) = (party.clone(), contribution.base_key.role);
        return Err(CeremonyError::OtherRole { party, expected: site.role, found });
    }
    Ok(&contribution.base_key)
}
