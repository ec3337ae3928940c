//! The build side: from an agreement and the parties' contributions to one image's keys.

use std::collections::BTreeMap;

use cvm_layout::{
    manifest::{ImageId, SplitKey},
    names::Name,
};

use crate::{
    contribution::{OpenedContribution, WHAT},
    enrolment::{Mark, Marks},
    error::CeremonyError,
    split_key::{CombinedKey, EphemeralBuild, Half, Purpose, SplitKeyError, derive},
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

/// Makes E, the keys of one image and what marks its documents; e exists only in here.
///
/// `contributions`: one per party of the site, all for its role, in any order. They serve every
/// image of one build whose site has the same parties and role; drop them when it ends.
pub fn build_split_key(
    agreement: &Agreement,
    contributions: &[OpenedContribution],
    site: &Site,
    image_id: &ImageId,
) -> Result<(SplitKey, Keys, Marks), CeremonyError> {
    let parties = agreement.shares(site);
    let contributed = parties
        .iter()
        .map(|party| contribution_of(agreement, contributions, site, &party.name))
        .collect::<Result<Vec<_>, _>>()?;
    for extra in contributions {
        agreement.party(extra.party())?;
        site.check_party(extra.party())?;
    }
    let base_keys: Vec<_> =
        parties.iter().zip(&contributed).map(|(party, c)| (party.public, &c.base_key)).collect();
    let build = EphemeralBuild::generate()?;
    let mark = |(contribution, key): (&&OpenedContribution, _)| Mark {
        permit: contribution.permit.clone(),
        signature: contribution.permit_signature,
        key,
    };
    let marks =
        contributed.iter().zip(build.enrolment_keys(&base_keys, image_id)?).map(mark).collect();
    let (ephemeral, halves) = build.halves(&base_keys, image_id)?;
    let halves = parties.iter().map(|party| party.name.clone()).zip(halves).collect();
    let split_key = SplitKey { ephemeral, transcript: agreement.digest(), parties };
    let keys = Keys::derive(&split_key, &halves, image_id)?;
    Ok((split_key, keys, Marks(marks)))
}

fn contribution_of<'a>(
    agreement: &Agreement,
    contributions: &'a [OpenedContribution],
    site: &Site,
    party: &Name,
) -> Result<&'a OpenedContribution, CeremonyError> {
    let mut own = contributions.iter().filter(|c| c.party() == party);
    let contribution = own.next().ok_or_else(|| CeremonyError::NoContribution(party.clone()))?;
    if own.next().is_some() {
        return Err(CeremonyError::Duplicate { what: "contribution of", value: party.to_string() });
    }
    let (expected, found) = (agreement.digest(), contribution.permit.transcript);
    if expected != found {
        return Err(CeremonyError::OtherTranscript { what: WHAT, expected, found });
    }
    if contribution.base_key.role != site.role {
        let (party, found) = (party.clone(), contribution.base_key.role);
        return Err(CeremonyError::OtherRole { party, expected: site.role, found });
    }
    Ok(contribution)
}
