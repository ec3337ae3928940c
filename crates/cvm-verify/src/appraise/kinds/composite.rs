//! What must hold for all pieces of evidence together: one nonce, and one machine.

use cvm_base::Bytes32;

use crate::{
    appraise::{Appraisal, EvidenceClaims, Refusal, trust::Shared},
    gpu::{GpuClaims, ResultPolicy, SwitchClaims, Topology},
    tdx::TdReport,
};

/// Refuses pieces of several machines.
pub(in crate::appraise) fn check_composite(appraisal: &mut Appraisal, shared: &Shared) {
    let refuse = |appraisal: &mut Appraisal, reason: &str, help: &str| {
        appraisal.refusals.push(Refusal::policy("the composite", "ATT-361", reason, help));
    };
    let attesters = appraisal.claims().filter(|(_, claims)| claims.attests()).count();
    if attesters > 1 && shared.nonces.is_empty() {
        refuse(
            appraisal,
            "pieces of evidence without a common nonce may be of several machines",
            "give the nonce that all were asked for with --nonce, or each machine's evidence at a \
             time",
        );
    }
    // Two guests of one chip are two machines as well.
    if let Some((first, second)) =
        differing(appraisal, chip).or_else(|| differing(appraisal, guest))
    {
        let reason = format!("{first} and {second} are of two machines");
        refuse(
            appraisal,
            &reason,
            "give one machine's evidence at a time: together, each would vouch for the other",
        );
    }
    if !appraisal.refusals.is_empty() {
        return;
    }
    let (gpus, switches) = devices(appraisal);
    let checked = match (gpus.len(), switches.len()) {
        (0, 0 | 1) => Ok(()),
        // One GPU too: in PPCIE mode it is never alone.
        _ => {
            Topology::check(&gpus, &switches).map(drop).map_err(|e| Refusal::new("the devices", &e))
        }
    };
    appraisal.refusals.extend(checked.err());
}

/// The names of the first two pieces of which `of` says something else.
fn differing<T: PartialEq>(
    appraisal: &Appraisal,
    of: fn(&EvidenceClaims) -> Option<T>,
) -> Option<(String, String)> {
    let mut all: Vec<_> =
        appraisal.claims().filter_map(|(name, claims)| Some((name, of(claims)?))).collect();
    all.dedup_by(|(_, second), (_, first)| first == second);
    Some((all.first()?.0.to_owned(), all.get(1)?.0.to_owned()))
}

/// The processor that evidence is of, by its vendor's name for it.
#[derive(PartialEq)]
enum Chip {
    Amd([u8; 64]),
    Intel([u8; 16]),
}

/// `None` where the host masks it.
fn chip(claims: &EvidenceClaims) -> Option<Chip> {
    let intel = match claims {
        EvidenceClaims::Sgx(claims) => Some(&claims.platform),
        claims => claims.tdx().map(|claims| &claims.platform),
    };
    match (claims.snp(), intel) {
        (Some(snp), _) => Some(Chip::Amd(snp.chip_id.0)).filter(|_| snp.chip_id.0 != [0; 64]),
        (_, Some(platform)) => {
            let id = platform.platform_provider_id.0;
            Some(Chip::Intel(id)).filter(|_| id != [0; 16])
        }
        _ => None,
    }
}

/// The guest that evidence is of: an SNP launch by its id, a TD by all that was measured of it.
#[derive(PartialEq)]
enum Guest {
    Snp(Bytes32),
    Td(Box<TdReport>),
}

fn guest(claims: &EvidenceClaims) -> Option<Guest> {
    match (claims.snp(), claims.tdx()) {
        (Some(snp), _) => Some(Guest::Snp(snp.report_id)),
        (_, Some(td)) => Some(Guest::Td(Box::new(td.quote.body.clone()))),
        _ => None,
    }
}

impl Appraisal {
    /// Lets one of NVIDIA's result policies judge every device that was verified here, and every
    /// verdict of NVIDIA's service. Each refusal names the policy.
    pub fn judge_devices(&mut self, name: &str, policy: &ResultPolicy) {
        let (gpus, switches) = devices(self);
        let tokens = self.claims().filter_map(|(_, claims)| match claims {
            EvidenceClaims::Nras(claims) => Some(claims.claim_set()),
            _ => None,
        });
        let tokens: Vec<_> = tokens.collect();
        let mut broken = Vec::new();
        for token in &tokens {
            broken.extend(policy.evaluate_set(token).err().unwrap_or_default());
        }
        // Without any device at all, the policy refuses that.
        if tokens.is_empty() || !gpus.is_empty() || !switches.is_empty() {
            broken.extend(policy.evaluate_devices(&gpus, &switches).err().unwrap_or_default());
        }
        for mismatch in broken {
            let help = "see NVIDIA's result policy; a claim that was not checked is never true";
            self.refusals.push(Refusal::policy(name, "ATT-363", mismatch.to_string(), help));
        }
    }
}

/// The claims of every GPU and every switch.
fn devices(appraisal: &Appraisal) -> (Vec<GpuClaims>, Vec<SwitchClaims>) {
    let (mut gpus, mut switches) = (Vec::new(), Vec::new());
    for (_, claims) in appraisal.claims() {
        match claims {
            EvidenceClaims::Gpu(claims) => gpus.push((**claims).clone()),
            EvidenceClaims::Switch(claims) => switches.push((**claims).clone()),
            _ => {}
        }
    }
    (gpus, switches)
}
