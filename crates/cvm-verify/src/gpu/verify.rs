//! Report, chain, nonce, firmware, manifests, measurements: the checks in their order, and what
//! they prove.

use std::collections::HashMap;

use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};
use cvm_base::{Bytes32, time::rfc3339};

use super::{
    ChainClaims, DeviceEvidence, DeviceFacts, GpuClaims, GpuError, LegacyClaims, Measres,
    OcspResponse, ReportClaims, Rim, RimClaims, Roots, SwitchClaims,
    chain::{TrustedPath, Window},
    claims::LegacyInputs,
    needed::Needed,
    ocsp,
    opaque::Field,
};
use crate::{NotChecked, x509::MAX_CERTIFICATES};

/// A machine has some ten firmware versions; a service that remembers more begins anew.
const MAX_REMEMBERED: usize = 1024;

/// Claims of either kind of device.
#[derive(Debug, Clone, PartialEq)]
pub enum DeviceClaims {
    /// A GPU.
    Gpu(GpuClaims),
    /// A switch.
    Switch(SwitchClaims),
}

/// What vouches for evidence besides NVIDIA's roots, as far as it is at hand.
#[derive(Debug, Clone, Copy, Default)]
pub struct Collateral<'a> {
    /// Manifests. If none is given, measurements are not compared, and the claims say so; if some
    /// are, those that the report needs must be among them.
    pub rims: &'a [Rim],
    /// OCSP responses for the certificates of devices and of manifests.
    pub ocsp: &'a [OcspResponse],
    /// DER revocation lists.
    pub crls: &'a [Vec<u8>],
}

/// Verifies one device's evidence at `now` (seconds since 1970 UTC).
///
/// # Errors
/// [`GpuError`], for the first check that fails. What could not be checked is in the claims'
/// `not_checked`.
pub fn verify(
    evidence: &DeviceEvidence,
    roots: &Roots,
    collateral: Collateral<'_>,
    nonce: Option<&[u8; 32]>,
    now: u64,
) -> Result<DeviceClaims, GpuError> {
    Verifier::new(roots, collateral).verify(evidence, nonce, now)
}

/// Verifies many reports: chains and manifests once, as long as they are valid; reports each time.
#[derive(Debug)]
pub struct Verifier<'a> {
    roots: &'a Roots,
    collateral: Collateral<'a>,
    /// By the chain's digest.
    devices: HashMap<Bytes32, Trusted>,
    /// By their place in the collateral.
    rims: HashMap<usize, Trusted>,
}

/// A chain that was verified, and for how long that holds.
#[derive(Debug, Clone)]
struct Trusted {
    window: Window,
    claims: ChainClaims,
    /// Certificates that OCSP said nothing of.
    missing: Vec<String>,
}

impl<'a> Verifier<'a> {
    /// Remembers nothing yet.
    pub fn new(roots: &'a Roots, collateral: Collateral<'a>) -> Self {
        Self { roots, collateral, devices: HashMap::new(), rims: HashMap::new() }
    }

    /// As [`verify`].
    ///
    /// # Errors
    /// As [`verify`].
    pub fn verify(
        &mut self,
        evidence: &DeviceEvidence,
        nonce: Option<&[u8; 32]>,
        now: u64,
    ) -> Result<DeviceClaims, GpuError> {
        let report = &evidence.report;
        // A key that NVIDIA's root vouches for …
        let chain = self.device(evidence, now)?;
        // … signed this report, …
        let (message, signature) = report.signed_parts();
        UnparsedPublicKey::new(
            &ECDSA_P384_SHA384_FIXED,
            evidence.chain.leaf.certificate.public_key(),
        )
        .verify(message, signature)
        .map_err(|_| GpuError::Signature)?;
        // … for this session, …
        if let Some(expected) = nonce.filter(|expected| *expected != report.nonce()) {
            return Err(GpuError::Nonce {
                expected: hex::encode(expected),
                found: hex::encode(report.nonce()),
            });
        }
        let mut not_checked = Vec::new();
        if nonce.is_none() {
            not_checked.push(NotChecked::new(
                "nonce",
                "no nonce was expected, so the report may be a replay",
            ));
        }
        check_fwid(evidence, &mut not_checked)?;
        note_ocsp("device", &chain, &mut not_checked);
        // … and is what NVIDIA released.
        let needed = Needed::of(report, &evidence.identity)?;
        let rims = self.compare(evidence, &needed, now, &mut not_checked)?;
        let claims = Claims {
            evidence,
            chain: chain.claims,
            nonce: nonce.is_some(),
            rims,
            needed,
            not_checked,
        };
        if evidence.identity.arch.is_switch() { claims.of_switch() } else { claims.of_gpu() }
    }

    fn device(&mut self, evidence: &DeviceEvidence, now: u64) -> Result<Trusted, GpuError> {
        if let Some(known) =
            self.devices.get(&evidence.chain_sha256).filter(|known| known.window.contains(now))
        {
            return Ok(known.clone());
        }
        let path =
            evidence.chain.verify("device", &self.roots.device, self.collateral.crls, now)?;
        // NVIDIA's responder knows everything but the attestation key's own certificate.
        let trusted = self.trust(&path, 1, now)?;
        if self.devices.len() >= MAX_REMEMBERED {
            self.devices.clear();
        }
        self.devices.insert(evidence.chain_sha256, trusted.clone());
        Ok(trusted)
    }

    fn rim(&mut self, at: usize, rim: &Rim, now: u64) -> Result<Trusted, GpuError> {
        if let Some(known) = self.rims.get(&at).filter(|known| known.window.contains(now)) {
            return Ok(known.clone());
        }
        let path = rim.verify(self.roots, self.collateral.crls, now)?;
        let trusted = self.trust(&path, 0, now)?;
        self.rims.insert(at, trusted.clone());
        Ok(trusted)
    }

    fn trust(&self, path: &TrustedPath, first: usize, now: u64) -> Result<Trusted, GpuError> {
        debug_assert!(path.links.len() <= MAX_CERTIFICATES + 1);
        let status = ocsp::check(path, first, self.collateral.ocsp, now)?;
        let claims = ChainClaims {
            expiration_date: rfc3339(path.expires),
            status: "valid".into(),
            ocsp_status: if status.good { "good" } else { "undefined" }.into(),
            revocation_reason: None,
            ocsp_nonce_matches: status.nonce_matches,
            ocsp_response_valid: status.good,
        };
        Ok(Trusted { window: path.window.and(status.window), claims, missing: status.missing })
    }

    /// The manifests that the report was compared with, in the order of `needed`.
    fn compare(
        &mut self,
        evidence: &DeviceEvidence,
        needed: &[Needed],
        now: u64,
        not_checked: &mut Vec<NotChecked>,
    ) -> Result<Vec<(&'a Rim, Trusted)>, GpuError> {
        let given = self.collateral.rims;
        if given.is_empty() {
            for Needed { id, .. } in needed {
                not_checked.push(NotChecked::new(
                    "rim",
                    &format!("{id} was not given: measurements were not compared"),
                ));
            }
            return Ok(Vec::new());
        }
        let chip_info = evidence.report.opaque.text(Field::ChipInfo)?;
        let chips: Vec<&str> = [Some(evidence.identity.chip.as_str()), chip_info.as_deref()]
            .into_iter()
            .flatten()
            .collect();
        let (mut compared, mut mismatches) = (Vec::<(&Rim, Trusted)>::new(), Vec::new());
        for needed in needed {
            let mut fitting = given.iter().enumerate().filter(|(_, rim)| needed.is(rim, &chips));
            let mismatch =
                |found: String| GpuError::RimMismatch { expected: needed.id.clone(), found };
            let (at, rim) = fitting.next().ok_or_else(|| {
                mismatch(given.iter().map(Rim::label).take(16).collect::<Vec<_>>().join(", "))
            })?;
            if fitting.any(|(_, other)| other != rim) {
                return Err(mismatch("two different ones that fit".into()));
            }
            let chain = self.rim(at, rim, now)?;
            note_ocsp(&needed.id, &chain, not_checked);
            if let Some(index) = compared.iter().find_map(|(other, _)| other.conflict(rim)) {
                return Err(GpuError::IndexConflict { index });
            }
            compared.push((rim, chain));
            mismatches.extend(rim.compare(&evidence.report, needed.source)?);
        }
        mismatches.sort_by_key(|mismatch| mismatch.index);
        if mismatches.is_empty() {
            Ok(compared)
        } else {
            Err(GpuError::Measurements { mismatches })
        }
    }
}

/// The firmware that the report names must be the one that the attestation key was certified for.
fn check_fwid(
    evidence: &DeviceEvidence,
    not_checked: &mut Vec<NotChecked>,
) -> Result<(), GpuError> {
    let Some(found) = evidence.report.opaque.get(Field::Fwid) else {
        not_checked.push(NotChecked::new(
            "fwid",
            "this firmware's reports name no firmware digest to compare",
        ));
        return Ok(());
    };
    let certified = evidence.identity.fwid.as_deref();
    if certified == Some(found) {
        return Ok(());
    }
    let expected = certified.map_or_else(|| "none".into(), hex::encode);
    Err(GpuError::Identity {
        what: "report's firmware digest",
        expected,
        found: hex::encode(found),
    })
}

fn note_ocsp(of: &str, chain: &Trusted, not_checked: &mut Vec<NotChecked>) {
    if !chain.missing.is_empty() {
        let reason = format!("{of}: no OCSP response for {}", chain.missing.join("; "));
        not_checked.push(NotChecked::new("ocsp", &reason));
    } else if !chain.claims.ocsp_nonce_matches {
        let reason = format!("{of}: it is not known with which nonce OCSP was asked");
        not_checked.push(NotChecked::new("ocsp-nonce", &reason));
    }
}

/// What the checks left, before it takes a kind's form.
struct Claims<'a> {
    evidence: &'a DeviceEvidence,
    chain: ChainClaims,
    nonce: bool,
    /// Empty when there were none to compare with.
    rims: Vec<(&'a Rim, Trusted)>,
    needed: Vec<Needed>,
    not_checked: Vec<NotChecked>,
}

impl Claims<'_> {
    fn of_gpu(self) -> Result<DeviceClaims, GpuError> {
        let (opaque, identity) = (&self.evidence.report.opaque, &self.evidence.identity);
        let measured = self.measured();
        let chains: Vec<&ChainClaims> =
            [&self.chain].into_iter().chain(self.rims.iter().map(|(_, rim)| &rim.claims)).collect();
        let all = |good: fn(&ChainClaims) -> bool| {
            chains.len() == 3 && chains.iter().all(|chain| good(chain))
        };
        let legacy = LegacyClaims::new(LegacyInputs {
            nonce: self.nonce,
            rims: measured,
            ocsp: all(ChainClaims::ocsp_good),
            ocsp_nonce: all(|chain| chain.ocsp_nonce_matches),
        });
        Ok(DeviceClaims::Gpu(GpuClaims {
            oemid: self.rims.first().map(|(rim, _)| rim.manufacturer_id().to_owned()),
            arch_check: true,
            driver_version: self.version(0),
            vbios_version: self.version(1),
            switch_pdis: opaque.switches_of_gpu()?,
            driver_rim: self.rim(0),
            vbios_rim: self.rim(1),
            vbios_index_no_conflict: measured,
            feature: opaque.feature()?,
            pdi: identity.pdi,
            legacy,
            report: self.report(),
            facts: self.facts("gpu"),
        }))
    }

    fn of_switch(self) -> Result<DeviceClaims, GpuError> {
        let opaque = &self.evidence.report.opaque;
        Ok(DeviceClaims::Switch(SwitchClaims {
            arch_check: true,
            bios_version: self.version(0),
            pdi: opaque.pdi_of_switch()?,
            gpu_pdis: opaque.gpus_of_switch()?,
            bios_rim: self.rim(0),
            report: self.report(),
            facts: self.facts("nvswitch"),
        }))
    }

    /// Whether the golden values were measured: with manifests, anything else is an error.
    fn measured(&self) -> bool {
        !self.rims.is_empty()
    }

    fn rim(&self, at: usize) -> RimClaims {
        self.rims
            .get(at)
            .map(|(_, rim)| RimClaims::of_a_verified_manifest(rim.claims.clone()))
            .unwrap_or_default()
    }

    fn version(&self, at: usize) -> String {
        self.needed.get(at).map(|needed| needed.version.clone()).unwrap_or_default()
    }

    fn report(&self) -> ReportClaims {
        ReportClaims {
            chain: self.chain.clone(),
            fwid_match: true,
            parsed: true,
            nonce_match: self.nonce,
            signature_verified: true,
        }
    }

    fn facts(self, device_type: &str) -> DeviceFacts {
        let (report, identity) = (&self.evidence.report, &self.evidence.identity);
        let measured = self.measured();
        DeviceFacts {
            arch: identity.arch,
            uuid: self.evidence.uuid.clone(),
            measurements: report
                .measurements()
                .iter()
                .map(|(at, value)| (*at, hex::encode(value)))
                .collect(),
            config: report.opaque.config(),
            unknown_fields: report.opaque.unknown(identity.arch.is_switch()),
            eat_nonce: hex::encode(report.nonce()),
            measres: if measured { Measres::Success } else { Measres::NotRun },
            secboot: measured.then_some(true),
            dbgstat: measured.then(|| "disabled".into()),
            hwmodel: identity.hwmodel.clone(),
            ueid: identity.ueid.clone(),
            device_type: device_type.into(),
            mismatches: None,
            rim_ids: self.needed.into_iter().map(|needed| needed.id).collect(),
            not_checked: self.not_checked,
        }
    }
}
