//! NVIDIA's devices and their reference manifests.

use crate::{
    NotChecked,
    appraise::{
        EvidenceClaims, ManifestClaims, Refusal, Terms,
        set::Group,
        submodule::{Submodule, Verified},
        trust::Shared,
    },
    files::Form,
    gpu::{self, DeviceClaims, DeviceEvidence, GpuError, GpuPolicy, OcspResponse, Rim},
    x509::Certificate,
};

pub(super) fn report(report: &[u8], group: &Group, shared: &Shared, terms: &Terms) -> Verified {
    let fail = |e: &_| Refusal::new("the device's report", e);
    let names_nvidia = |bytes: &[u8]| {
        Certificate::read_all(bytes)
            .is_ok_and(|all| all.iter().any(|c| c.subject().contains("NVIDIA")))
    };
    let chains: Vec<_> =
        group.all(Form::Certificates).iter().filter(|(_, bytes)| names_nvidia(bytes)).collect();
    let chain = match chains[..] {
        [(_, chain)] => chain.as_slice(),
        _ => group.needed(Form::Certificates, "a device's report")?,
    };
    let evidence = DeviceEvidence::parse(report, chain).map_err(|e| fail(&e))?;
    device(&evidence, group, shared, terms)
}

pub(super) fn device(
    evidence: &DeviceEvidence,
    group: &Group,
    shared: &Shared,
    terms: &Terms,
) -> Verified {
    let fail = |e: &_| Refusal::new("the device's report", e);
    let own = group.all(Form::Rim).iter().map(|(_, bytes)| bytes.as_slice());
    let texts: Vec<&[u8]> = if group.has(Form::Rim) {
        own.collect()
    } else {
        shared.rims.iter().map(Vec::as_slice).collect()
    };
    let rims = texts.into_iter().map(|xml| Rim::parse(xml, None)).collect::<Result<Vec<_>, _>>();
    let rims = rims.map_err(|e| Refusal::new("a reference manifest", &e))?;
    let ocsp =
        shared.ocsp.iter().map(|der| OcspResponse::parse(der, None)).collect::<Result<Vec<_>, _>>();
    let ocsp = ocsp.map_err(|e| Refusal::new("an OCSP response", &e))?;
    let collateral = gpu::Collateral { rims: &rims, ocsp: &ocsp, crls: &shared.crls };
    // A device answers the first 32 bytes of a longer nonce (the release protocol's has 48).
    let verify = |nonce: Option<&[u8; 32]>| {
        gpu::verify(evidence, &shared.gpu_roots, collateral, nonce, terms.now)
    };
    let forms = || shared.nonces.iter().filter_map(|nonce| nonce.first_chunk::<32>());
    let verified = match shared.nonces.first() {
        None => verify(None),
        // A nonce in hex is also text of twice the length; few ask with that.
        Some(nonce) => {
            match forms().map(|form| verify(Some(form))).find(|tried| !is_another_nonce(tried)) {
                Some(verified) => verified,
                None if nonce.len() < 32 => {
                    return Err(Refusal::input(
                        "the device's report",
                        "a device answers a nonce of 32 bytes, and the one given is shorter",
                        "give the 64 hex digits that the device was asked with",
                    ));
                }
                None => verify(forms().next()),
            }
        }
    };
    let claims = verified.map_err(|e| fail(&e))?;
    let policy = GpuPolicy::from(terms.rules.gpu);
    let (claims, verdict) = match claims {
        DeviceClaims::Gpu(claims) => {
            let verdict = policy.check(&claims);
            (EvidenceClaims::Gpu(Box::new(claims)), verdict)
        }
        DeviceClaims::Switch(claims) => {
            let verdict = policy.check_switch(&claims);
            (EvidenceClaims::Switch(Box::new(claims)), verdict)
        }
    };
    Ok(Submodule::judged(claims, verdict))
}

fn is_another_nonce(tried: &Result<DeviceClaims, GpuError>) -> bool {
    matches!(tried, Err(GpuError::Nonce { .. }))
}

pub(super) fn rim(name: &str, xml: &[u8], shared: &Shared, now: u64) -> Verified {
    let fail = |e: &_| Refusal::new(name, e);
    let rim = Rim::parse(xml, None).map_err(|e| fail(&e))?;
    rim.check(&shared.gpu_roots, now).map_err(|e| fail(&e))?;
    let unattested = "a manifest alone was given: no device was attested";
    let claims = EvidenceClaims::Manifest(ManifestClaims {
        product: rim.product().into(),
        version: rim.version().into(),
        golden_values: rim.golden_values(),
        not_checked: vec![NotChecked::new("report", unattested)],
    });
    Ok(claims.into())
}
