//! Several GPUs and switches as one machine.
//!
//! NVIDIA's `ppcie-verifier` (`validate_topology.py`) checks the fabric of a protected-PCIe
//! machine: eight GPUs, four switches; each GPU is connected to all four, each switch to the same
//! eight. Here, too: one nonce, no device twice, one driver, one mode; and a GPU that says it runs
//! in PPCIE mode is never accepted without its switches, since its links to the other GPUs are in
//! clear.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Feature, GpuClaims, GpuError, Pdi, SwitchClaims};
use crate::NotChecked;

/// GPUs and switches of a protected-PCIe machine (HGX H100 and H200, eight GPUs).
const PPCIE: (usize, usize) = (8, 4);

/// What holds of the set as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// How many, as in Trustee's claims of class `ppcie`.
    pub gpu_count: usize,
    /// How many, as in Trustee's claims of class `ppcie`.
    pub switch_count: usize,
    /// The nonce of all, hex.
    pub nonce: String,
    /// The driver of all.
    pub driver_version: String,
    /// The mode of all, where the firmware states one.
    pub mode: Option<Feature>,
    /// The checks that were not made.
    pub not_checked: Vec<NotChecked>,
}

impl Topology {
    /// Checks verified claims of one machine's devices against each other.
    ///
    /// # Errors
    /// [`GpuError::Topology`] for the first rule that is broken.
    pub fn check(gpus: &[GpuClaims], switches: &[SwitchClaims]) -> Result<Self, GpuError> {
        let first = gpus.first().ok_or_else(|| broken("no GPU".into()))?;
        let nonces = gpus
            .iter()
            .map(|gpu| &gpu.facts.eat_nonce)
            .chain(switches.iter().map(|switch| &switch.facts.eat_nonce));
        same("nonce", nonces)?;
        same("driver", gpus.iter().map(|gpu| &gpu.driver_version))?;
        same("model", gpus.iter().map(|gpu| format!("{:?}", gpu.facts.arch)))?;
        same("mode", gpus.iter().map(|gpu| format!("{:?}", gpu.feature)))?;
        let devices = gpus
            .iter()
            .map(|gpu| gpu.facts.ueid.as_str())
            .chain(switches.iter().map(|switch| switch.facts.ueid.as_str()));
        different("device", devices)?;
        // A device that was re-keyed has a new UEID; it is still the same one.
        different("GPU", gpus.iter().filter_map(|gpu| gpu.pdi))?;
        different("switch", switches.iter().filter_map(|switch| switch.pdi))?;
        let mut not_checked = Vec::new();
        if !gpus.iter().all(|gpu| gpu.report.nonce_match)
            || !switches.iter().all(|switch| switch.report.nonce_match)
        {
            not_checked.push(NotChecked::new(
                "nonce",
                "no nonce was expected; all devices have the same one",
            ));
        }
        if first.feature == Some(Feature::Ppcie) {
            check_fabric(gpus, switches, &mut not_checked)?;
        } else if !switches.is_empty() {
            not_checked.push(NotChecked::new(
                "fabric",
                "the GPUs are not in PPCIE mode, where the fabric is known",
            ));
        }
        Ok(Self {
            gpu_count: gpus.len(),
            switch_count: switches.len(),
            nonce: first.facts.eat_nonce.clone(),
            driver_version: first.driver_version.clone(),
            mode: first.feature,
            not_checked,
        })
    }
}

fn check_fabric(
    gpus: &[GpuClaims],
    switches: &[SwitchClaims],
    not_checked: &mut Vec<NotChecked>,
) -> Result<(), GpuError> {
    count("GPUs in PPCIE mode", gpus.len(), PPCIE.0)?;
    count("switches of GPUs in PPCIE mode", switches.len(), PPCIE.1)?;
    let own = |switch: &SwitchClaims| {
        switch.pdi.ok_or_else(|| broken(format!("switch {} has no PDI", switch.facts.ueid)))
    };
    let present: BTreeSet<Pdi> = switches.iter().map(own).collect::<Result<_, _>>()?;
    for gpu in gpus {
        let connected: BTreeSet<Pdi> = gpu.switch_pdis.iter().copied().collect();
        if connected != present {
            let (gpu, connected, present) = (&gpu.facts.ueid, list(&connected), list(&present));
            return Err(broken(format!(
                "GPU {gpu} is connected to switches [{connected}], present are [{present}]"
            )));
        }
    }
    let mut known: Option<BTreeSet<Pdi>> = None;
    for switch in switches {
        let connected: BTreeSet<Pdi> = switch.gpu_pdis.iter().copied().collect();
        if connected.len() != PPCIE.0 || known.as_ref().is_some_and(|known| *known != connected) {
            let (switch, connected) = (&switch.facts.ueid, list(&connected));
            let expected = known.map_or_else(|| "8 GPUs".into(), |known| list(&known));
            return Err(broken(format!(
                "switch {switch} is connected to GPUs [{connected}], expected [{expected}]"
            )));
        }
        known = Some(connected);
    }
    // NVIDIA's verifier goes no further; whether a GPU's certificate has the name that switches
    // know it by is not documented, so that they do not match is said rather than refused.
    let certified: BTreeSet<Pdi> = gpus.iter().filter_map(|gpu| gpu.pdi).collect();
    if known != Some(certified) {
        let reason = "the switches name their GPUs otherwise than the GPUs' certificates do";
        not_checked.push(NotChecked::new("gpu-pdis", reason));
    }
    Ok(())
}

fn broken(problem: String) -> GpuError {
    GpuError::Topology { problem }
}

fn count(what: &str, found: usize, expected: usize) -> Result<(), GpuError> {
    if found == expected {
        return Ok(());
    }
    Err(broken(format!("{found} {what}, {expected} expected")))
}

fn same<T: PartialEq + std::fmt::Display>(
    what: &str,
    values: impl Iterator<Item = T>,
) -> Result<(), GpuError> {
    let mut first = None;
    for value in values {
        match &first {
            Some(first) if *first != value => {
                return Err(broken(format!("one device has {what} {first}, another one {value}")));
            }
            Some(_) => {}
            None => first = Some(value),
        }
    }
    Ok(())
}

fn different<T: Ord + std::fmt::Display>(
    what: &str,
    values: impl Iterator<Item = T>,
) -> Result<(), GpuError> {
    let mut seen = BTreeSet::new();
    for value in values {
        if seen.contains(&value) {
            return Err(broken(format!("{what} {value} is there twice")));
        }
        seen.insert(value);
    }
    Ok(())
}

fn list(pdis: &BTreeSet<Pdi>) -> String {
    pdis.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
