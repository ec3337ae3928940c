//! Each kind of evidence, from a group's files to claims.

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Appraisal, Refusal, Submodule,
    set::{EvidenceSet, Group, Shared, Terms},
};
use crate::{
    NotChecked,
    azure::{AzureEvidence, Hardware, HardwareKind, HclReport, QuoteFiles},
    eventlog::{Log, Registers},
    files::Form,
    gpu::{self, DeviceClaims, DeviceEvidence, Expectation, GpuClaims, GpuPolicy, Rim, SwitchClaims, Topology},
    snp::{self, SigningKey, SnpEvidence, SnpExpected, SnpPolicy, SnpReport, VerifiedChain},
    tdx::{self, DcapVerifier, Quote, TdxEvidence, TdxPolicy},
    token::{self, DetachedEat, Expected, ItaPolicy, KeySet, MaaPolicy, NrasPolicy, Rules, Token},
    tpm::quote::{self, AttestationKey, Nonce, PcrValues, QuoteEvidence, TpmPolicy},
    x509::Certificate,
};

type Verified = Result<Submodule, Refusal>;

/// Every piece of evidence in a group.
pub(super) fn verify(group: &Group, shared: &Shared, terms: &Terms) -> Result<Vec<Submodule>, Refusal> {
    let mut found = Vec::new();
    if group.has(Form::KbsEvidence) {
        found.extend(kbs(group, shared, terms)?);
    }
    if group.has(Form::HclReport) {
        found.push(azure(group, shared, terms)?);
    } else {
        if let Some(report) = group.one(Form::SnpReport)? {
            found.push(snp(report, certificates(group, shared)?, shared, terms)?);
        }
        if let Some(quote) = group.one(Form::TdxQuote)? {
            found.push(tdx(quote, group, shared, terms)?);
        }
        if let Some(quote) = group.one(Form::SgxQuote)? {
            found.push(sgx(quote, group, shared, terms)?);
        }
        if group.has(Form::TpmQuote) {
            found.push(tpm(group, terms)?);
        } else if group.has(Form::EventLog) && !group.has(Form::TdxQuote) {
            found.push(event_log(group)?);
        }
    }
    if let Some(report) = group.one(Form::GpuReport)? {
        found.push(device(report, group, shared, terms)?);
    }
    for (name, bytes) in group.all(Form::Jwt) {
        found.push(jwt(name, bytes, shared, terms)?);
    }
    for (name, bytes) in group.all(Form::DetachedEat) {
        found.push(nras(name, bytes, shared, terms)?);
    }
    // Nothing but what vouches: then that itself is looked at.
    if found.is_empty() && !group.has(Form::PcrValues) {
        for (name, bytes) in group.all(Form::Rim) {
            found.push(rim(name, bytes, shared, terms.now)?);
        }
        if found.is_empty() && group.has(Form::Certificates) {
            found.extend(endorsement(group, shared, terms.now));
        }
    }
    Ok(found)
}

/// What holds of all pieces together: one nonce, and devices that are one machine's.
pub(super) fn check_composite(set: &EvidenceSet, appraisal: &mut Appraisal) {
    let devices = claims_of(appraisal, "nvidia");
    let switches = claims_of(appraisal, "nvswitch");
    let cpu = appraisal.claims().any(|(name, _, _)| name.starts_with("cpu"));
    let nonce_given = appraisal.claims().all(|(_, _, claims)| {
        let entries = claims.get("not_checked").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        !entries.iter().any(|entry| matches!(entry["check"].as_str(), Some("nonce" | "report-data")))
    });
    if cpu && !(devices.is_empty() && switches.is_empty()) && !nonce_given {
        appraisal.refusals.push(Refusal::policy(
            "the composite",
            "ATT-361",
            "CPU and GPU evidence without a common nonce may be of two machines",
            "give the nonce that both were asked for with --nonce",
        ));
    }
    let gpus: Vec<GpuClaims> = devices.into_iter().filter_map(|claims| serde_json::from_value(claims).ok()).collect();
    let switches: Vec<SwitchClaims> =
        switches.into_iter().filter_map(|claims| serde_json::from_value(claims).ok()).collect();
    let reports = set.all(Form::GpuReport).count();
    if reports > 1
        && appraisal.refusals.is_empty()
        && let Err(error) = Topology::check(&gpus, &switches, Expectation::default())
    {
        appraisal.refusals.push(Refusal::new("the devices", &error));
    }
}

fn claims_of(appraisal: &Appraisal, kind: &str) -> Vec<Value> {
    appraisal.claims().filter(|(_, of, _)| *of == kind).map(|(_, _, claims)| claims.clone()).collect()
}

fn submodule(prefix: &'static str, kind: &'static str, claims: &impl Serialize) -> Verified {
    let claims = serde_json::to_value(claims)
        .map_err(|e| Refusal::input(kind, format!("its claims cannot be written: {e}"), "report this"))?;
    Ok(Submodule { prefix, kind, claims, refusals: vec![] })
}

impl Submodule {
    fn judged<E: cvm_base::Explain + std::fmt::Display>(mut self, verdict: Result<(), E>) -> Self {
        self.refusals.extend(verdict.err().map(|error| Refusal::new(self.kind, &error)));
        self
    }
}

fn certificates(group: &Group, shared: &Shared) -> Result<Vec<Certificate>, Refusal> {
    let mut found = Vec::new();
    for (name, bytes) in group.all(Form::Certificates) {
        found.extend(Certificate::read_all(bytes).map_err(|e| Refusal::new(name, &e))?);
    }
    let own: Vec<_> = found.iter().map(|c| c.der().to_vec()).collect();
    found.extend(shared.certificates.iter().filter(|c| !own.iter().any(|der| der == c.der())).cloned());
    // Other vendors' chains may lie beside it.
    found.retain(|c| c.subject().contains("Advanced Micro Devices"));
    Ok(found)
}

/// The nonce's form that the evidence shows, padded with zeros; another one, if none is.
fn report_data(shared: &Shared, found: &[u8]) -> Option<[u8; 64]> {
    let padded = |nonce: &Vec<u8>| {
        let mut data = [0; 64];
        data.get_mut(..nonce.len())?.copy_from_slice(nonce);
        Some(data)
    };
    let forms: Vec<[u8; 64]> = shared.nonces.iter().filter_map(padded).collect();
    // A nonce that is longer than the field can be nobody's answer.
    let never = (!shared.nonces.is_empty()).then_some([0xff; 64]);
    forms.iter().find(|form| form[..] == *found).or(forms.first()).copied().or(never)
}

fn snp(report: &[u8], certificates: Vec<Certificate>, shared: &Shared, terms: &Terms) -> Verified {
    let report = SnpReport::parse(report).map_err(|e| Refusal::new("the SNP report", &e))?;
    snp_parsed(report, certificates, shared, terms)
}

fn snp_parsed(report: SnpReport, certificates: Vec<Certificate>, shared: &Shared, terms: &Terms) -> Verified {
    let fail = |e: &_| Refusal::new("the SNP report", e);
    let report_data = report_data(shared, &report.report_data);
    let expected = SnpExpected { report_data: report_data.as_ref(), host_data: None };
    let evidence = SnpEvidence { report, certificates };
    let roots = shared.snp_roots.as_ref().map_err(Clone::clone)?;
    let claims = snp::verify(&evidence, roots, &shared.crls, &expected, terms.now).map_err(|e| fail(&e))?;
    Ok(submodule("cpu", "snp", &claims)?.judged(terms.rules.snp.check(&claims)))
}

/// A VCEK or VLEK without a report.
fn endorsement(group: &Group, shared: &Shared, now: u64) -> Option<Submodule> {
    let all = certificates(group, shared).ok()?;
    let roots = shared.snp_roots.as_ref().ok()?;
    let verified = [SigningKey::Vcek, SigningKey::Vlek]
        .into_iter()
        .find_map(|kind| VerifiedChain::verify(&all, kind, roots, &shared.crls, now).ok())?;
    let claims = json!({
        "signing_key": verified.signing_key(),
        "not_checked": [NotChecked::new("report", "certificates alone were given: nothing was attested")],
    });
    Some(Submodule { prefix: "collateral", kind: "snp-certificates", claims, refusals: vec![] })
}

/// Runs `verify` with the collateral that is at hand: the group's own, or whichever of the shared ones fits. Also
/// says whether there was any.
fn with_collateral<T>(
    group: &Group,
    shared: &Shared,
    now: u64,
    verify: impl Fn(&DcapVerifier) -> Result<T, Refusal>,
) -> Result<(T, bool), Refusal> {
    let fail = |e: &_| Refusal::new("the DCAP collateral", e);
    let roots = match &shared.roots {
        Some(roots) => roots.clone(),
        None => tdx::intel_roots().map_err(|e| fail(&e))?,
    };
    let candidates: Vec<&[u8]> = match group.all(Form::DcapCollateral) {
        [] => shared.dcap.iter().map(Vec::as_slice).collect(),
        own => own.iter().map(|(_, bytes)| bytes.as_slice()).collect(),
    };
    if candidates.is_empty() {
        return Ok((verify(&DcapVerifier::new(roots, None, now).map_err(|e| fail(&e))?)?, false));
    }
    let attempt = |bytes: &[u8]| {
        let collateral = tdx::Collateral::parse(bytes).map_err(|e| fail(&e))?;
        verify(&DcapVerifier::new(roots.clone(), Some(&collateral), now).map_err(|e| fail(&e))?)
    };
    // A folder of collateral holds several platforms'; the last reason stands where none fits.
    let mut last = None;
    for bytes in candidates {
        match attempt(bytes) {
            Ok(verified) => return Ok((verified, true)),
            Err(refusal) => last = Some(refusal),
        }
    }
    Err(last.unwrap_or_else(|| Refusal::input("the DCAP collateral", "there is none", "give it")))
}

fn tdx(quote: &[u8], group: &Group, shared: &Shared, terms: &Terms) -> Verified {
    let fail = |e: &_| Refusal::new("the TDX quote", e);
    let log = match group.one(Form::EventLog)? {
        Some(log) => Some(log),
        None => group.one(Form::DstackLog)?,
    };
    let evidence = TdxEvidence::parse(quote, log).map_err(|e| fail(&e))?;
    let (claims, _) = with_collateral(group, shared, terms.now, |verifier| {
        // REPORTDATA ends the TD report; where that lies depends on the version, so the claims say what it is.
        let unbound = verifier.verify(&evidence, None, terms.now).map_err(|e| fail(&e))?;
        match report_data(shared, &shown_report_data(&unbound)) {
            None => Ok(unbound),
            Some(data) => verifier.verify(&evidence, Some(&data), terms.now).map_err(|e| fail(&e)),
        }
    })?;
    Ok(submodule("cpu", "tdx", &claims)?.judged(terms.rules.tdx.check(&claims)))
}

/// The claims' own REPORT_DATA, wherever the layout has it.
fn shown_report_data(claims: &impl Serialize) -> Vec<u8> {
    let claims = serde_json::to_value(claims).unwrap_or_default();
    let text = ["/report_data", "/quote/body/report_data"].iter().find_map(|at| claims.pointer(at)?.as_str());
    text.and_then(|text| hex::decode(text).ok()).unwrap_or_default()
}

fn sgx(quote: &[u8], group: &Group, shared: &Shared, terms: &Terms) -> Verified {
    let fail = |e: &_| Refusal::new("the SGX quote", e);
    let quote = Quote::parse(quote).map_err(|e| fail(&e))?;
    let (claims, _) = with_collateral(group, shared, terms.now, |verifier| {
        let unbound = verifier.verify_sgx(&quote, None, terms.now).map_err(|e| fail(&e))?;
        match report_data(shared, &shown_report_data(&unbound)) {
            None => Ok(unbound),
            Some(data) => verifier.verify_sgx(&quote, Some(&data), terms.now).map_err(|e| fail(&e)),
        }
    })?;
    submodule("cpu", "sgx", &claims)
}

fn azure(group: &Group, shared: &Shared, terms: &Terms) -> Verified {
    let fail = |e: &_| Refusal::new("the Azure evidence", e);
    let hcl = group.needed(Form::HclReport, "Azure evidence")?;
    let hardware = match HclReport::parse(hcl).map_err(|e| fail(&e))?.kind() {
        HardwareKind::Snp => Hardware::Snp(None),
        HardwareKind::Tdx => Hardware::Tdx(group.needed(Form::TdxQuote, "Azure evidence over TDX")?.to_vec()),
    };
    let quote = QuoteFiles {
        message: group.needed(Form::TpmQuote, "Azure evidence")?,
        signature: group.needed(Form::TpmSignature, "Azure evidence")?,
        pcrs: group.needed(Form::PcrValues, "Azure evidence")?,
    };
    let mut evidence = AzureEvidence::parse(hcl, quote, hardware).map_err(|e| fail(&e))?;
    if let Some(log) = group.one(Form::EventLog)? {
        evidence = evidence.with_event_log(log.to_vec());
    }
    azure_bound(&evidence, group, shared, terms)
}

fn azure_bound(evidence: &AzureEvidence, group: &Group, shared: &Shared, terms: &Terms) -> Verified {
    let fail = |e: &_| Refusal::new("the Azure evidence", e);
    let policy = TpmPolicy::default();
    let mut bound = Err(Refusal::input(
        "the Azure evidence",
        "no nonce was given: a quote without one may be anybody's replay",
        "give the nonce that the quote answers with --nonce",
    ));
    for nonce in &shared.nonces {
        bound = evidence.check_binding(nonce, &policy).map_err(|e| fail(&e));
        if bound.is_ok() {
            break;
        }
    }
    let bound = bound?;
    match bound.kind {
        HardwareKind::Snp => {
            let roots = shared.snp_roots.as_ref().map_err(Clone::clone)?;
            let claims = bound.verify_snp(&certificates(group, shared)?, roots, &shared.crls, terms.now);
            let claims = claims.map_err(|e| fail(&e))?;
            let hardware = submodule("cpu", "snp", &claims)?;
            let rules = SnpPolicy { max_vmpl: 0, ..terms.rules.snp.clone() };
            let claims_json = bound.claims(hardware.claims);
            let whole = Submodule { prefix: "cpu", kind: "az-snp-vtpm", claims: claims_json, refusals: vec![] };
            Ok(whole.judged(rules.check(&claims)))
        }
        HardwareKind::Tdx => {
            let refuse = |e: &_| Refusal::new("the TD quote", e);
            let quote = TdxEvidence::parse(bound.hardware_report, None).map_err(|e| refuse(&e))?;
            let (claims, has_collateral) = with_collateral(group, shared, terms.now, |verifier| {
                let report_data = bound.expected_report_data();
                verifier.verify(&quote, Some(&report_data), terms.now).map_err(|e| refuse(&e))
            })?;
            let hardware = submodule("cpu", "tdx", &claims)?;
            // Azure's TDs run a paravisor that handles #VE itself, and its quotes travel without collateral: what
            // was not checked for that stands in the claims, for a policy to refuse.
            let rules = TdxPolicy {
                require_septve_disable: false,
                allow_unknown_tcb: !has_collateral,
                ..terms.rules.tdx.clone()
            };
            let claims_json = bound.claims(hardware.claims);
            let whole = Submodule { prefix: "cpu", kind: "az-tdx-vtpm", claims: claims_json, refusals: vec![] };
            Ok(whole.judged(rules.check(&claims)))
        }
    }
}

fn tpm(group: &Group, terms: &Terms) -> Verified {
    let fail = |e: &_| Refusal::new("the TPM quote", e);
    let message = group.needed(Form::TpmQuote, "a TPM quote")?;
    let signature = group.needed(Form::TpmSignature, "a TPM quote")?;
    let key = match group.one(Form::TpmPublic)? {
        Some(key) => key,
        None => group.needed(Form::PublicKey, "a TPM quote")?,
    };
    let key = AttestationKey::parse(key).map_err(|e| Refusal::new("the attestation key", &e))?;
    let mut evidence = QuoteEvidence::parse(message, signature, key).map_err(|e| fail(&e))?;
    if let Some(pcrs) = group.one(Form::PcrValues)? {
        evidence = evidence.with_pcrs(PcrValues::parse(pcrs).map_err(|e| Refusal::new("the PCR values", &e))?);
    }
    if let Some(log) = group.one(Form::EventLog)? {
        evidence = evidence.with_event_log(log).map_err(|e| Refusal::new("the event log", &e))?;
    }
    let nonce = terms.nonce.as_deref().map(Nonce::from_text);
    let claims = quote::verify(&evidence, nonce.as_ref(), None, &TpmPolicy::default(), terms.now);
    let claims = claims.map_err(|e| fail(&e))?;
    Ok(Submodule { prefix: "tpm", kind: "tpm", claims: claims.members(), refusals: vec![] })
}

/// A log without a quote: what it leads to, and whether that is what the given register values say.
fn event_log(group: &Group) -> Verified {
    let fail = |reason: String| {
        Refusal::input("the event log", reason, "the log or the values were changed, or belong to two boots")
    };
    let bytes = group.needed(Form::EventLog, "an event log")?;
    let log = Log::parse(bytes, Registers::Pcrs).map_err(|e| Refusal::new("the event log", &e))?;
    let given = group.one(Form::PcrValues)?.map(PcrValues::parse).transpose();
    let given = given.map_err(|e| Refusal::new("the PCR values", &e))?;
    let mut banks = serde_json::Map::new();
    for bank in log.banks() {
        let values = log.replay(*bank).unwrap_or_default();
        for (register, value) in &values {
            let shown = given.as_ref().and_then(|given| given.get(*bank, *register));
            if shown.is_some_and(|shown| shown != value) {
                let shown = shown.map(ToString::to_string).unwrap_or_default();
                return Err(fail(format!(
                    "it replays {} PCR {register} to {value}, but the values say {shown}",
                    bank.name()
                )));
            }
        }
        let values = values.iter().map(|(register, value)| (register.to_string(), json!(value.to_string())));
        banks.insert(bank.name().into(), Value::Object(values.collect()));
    }
    let mut not_checked = vec![NotChecked::new("quote", "no quote was given: nobody vouches for this log")];
    if given.is_none() {
        not_checked.push(NotChecked::new("pcr-values", "no register values were given to compare with"));
    }
    let claims = json!({ "events": log.records().len(), "pcrs": banks, "not_checked": not_checked });
    Ok(Submodule { prefix: "collateral", kind: "event-log", claims, refusals: vec![] })
}

fn device(report: &[u8], group: &Group, shared: &Shared, terms: &Terms) -> Verified {
    let fail = |e: &_| Refusal::new("the device's report", e);
    let names_nvidia =
        |bytes: &[u8]| Certificate::read_all(bytes).is_ok_and(|all| all.iter().any(|c| c.subject().contains("NVIDIA")));
    let chains: Vec<_> = group.all(Form::Certificates).iter().filter(|(_, bytes)| names_nvidia(bytes)).collect();
    let chain = match chains[..] {
        [(_, chain)] => chain.as_slice(),
        _ => group.needed(Form::Certificates, "a device's report")?,
    };
    let evidence = DeviceEvidence::parse(report, chain).map_err(|e| fail(&e))?;
    verify_device(&evidence, group, shared, terms)
}

fn verify_device(evidence: &DeviceEvidence, group: &Group, shared: &Shared, terms: &Terms) -> Verified {
    let fail = |e: &_| Refusal::new("the device's report", e);
    let own = group.all(Form::Rim).iter().map(|(_, bytes)| bytes.as_slice());
    let texts: Vec<&[u8]> =
        if group.has(Form::Rim) { own.collect() } else { shared.rims.iter().map(Vec::as_slice).collect() };
    let rims = texts.into_iter().map(|xml| Rim::parse(xml, None)).collect::<Result<Vec<_>, _>>();
    let rims = rims.map_err(|e| Refusal::new("a reference manifest", &e))?;
    let collateral = gpu::Collateral { rims: &rims, ocsp: &[], crls: &shared.crls };
    let nonces: Vec<[u8; 32]> = shared.nonces.iter().filter_map(|nonce| nonce.as_slice().try_into().ok()).collect();
    // A nonce that is not 32 bytes long can be no device's answer.
    let nonce = nonces.first().copied().or_else(|| (!shared.nonces.is_empty()).then_some([0; 32]));
    let claims =
        gpu::verify(evidence, &shared.gpu_roots, collateral, nonce.as_ref(), terms.now).map_err(|e| fail(&e))?;
    let policy = GpuPolicy::from(terms.rules.gpu);
    match &claims {
        DeviceClaims::Gpu(claims) => Ok(submodule("gpu", "nvidia", claims)?.judged(policy.check(claims))),
        DeviceClaims::Switch(claims) => {
            Ok(submodule("switch", "nvswitch", claims)?.judged(policy.check_switch(claims)))
        }
    }
}

fn rim(name: &str, xml: &[u8], shared: &Shared, now: u64) -> Verified {
    let fail = |e: &_| Refusal::new(name, e);
    let rim = Rim::parse(xml, None).map_err(|e| fail(&e))?;
    rim.check(&shared.gpu_roots, now).map_err(|e| fail(&e))?;
    let claims = json!({
        "product": rim.product(), "version": rim.version(), "golden_values": rim.golden_values(),
        "not_checked": [NotChecked::new("report", "a manifest alone was given: no device was attested")],
    });
    Ok(Submodule { prefix: "collateral", kind: "nvidia-rim", claims, refusals: vec![] })
}

/// The issuer's rules; where nobody named an issuer, the token's own word stands, and the claims say so.
fn issuer_rules(token: &Token, terms: &Terms) -> Result<(Rules, Vec<NotChecked>), Refusal> {
    let claims = token.unverified_claims().map_err(|e| Refusal::new("the token", &e))?;
    let own = claims.get("iss").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut not_checked = Vec::new();
    if terms.issuer.is_none() {
        not_checked.push(NotChecked::new("issuer", "nobody named the issuer that is expected; give --issuer"));
    }
    let mut rules = Rules::new(terms.issuer.clone().unwrap_or(own));
    rules.audience = terms.audience.clone();
    Ok((rules, not_checked))
}

fn key_set(name: &str, shared: &Shared) -> Result<KeySet, Refusal> {
    let [keys] = &shared.keys[..] else {
        let reason = format!(
            "{name} cannot be verified without the issuer's keys: expected one key set, found {}",
            shared.keys.len()
        );
        return Err(Refusal::input(name, reason, "give the issuer's JWKS (or PEM public key) file too"));
    };
    let keys = KeySet::parse(keys).map_err(|e| Refusal::new("the key set", &e))?;
    Ok(match &shared.roots {
        Some(roots) => keys.with_roots(roots.clone()),
        None => keys,
    })
}

fn with_not_checked(mut claims: Value, more: Vec<NotChecked>) -> Value {
    if let (Some(list), Ok(Value::Array(more))) =
        (claims.get_mut("not_checked").and_then(Value::as_array_mut), serde_json::to_value(more))
    {
        list.extend(more);
    }
    claims
}

fn jwt(name: &str, bytes: &[u8], shared: &Shared, terms: &Terms) -> Verified {
    let fail = |e: &_| Refusal::new(name, e);
    let token = Token::parse(bytes.trim_ascii()).map_err(|e| fail(&e))?;
    let (rules, not_checked) = issuer_rules(&token, terms)?;
    let keys = key_set(name, shared)?;
    let expected = Expected { nonce: shared.nonces.first().map(Vec::as_slice), report_data: None };
    let claims = token.unverified_claims().map_err(|e| fail(&e))?;
    let (kind, claims) = if claims.contains_key("x-ms-ver") || claims.contains_key("x-ms-attestation-type") {
        // Which kind of TEE is acceptable is the reader's matter; all that Azure knows are read.
        let types = ["sgx", "sevsnpvm", "tdxvm", "azurevm"].map(str::to_owned).to_vec();
        let policy = MaaPolicy { rules: rules.clone(), types, ..MaaPolicy::new(rules.issuer) };
        let claims = token::verify_maa(&token, &keys, &policy, &expected, terms.now).map_err(|e| fail(&e))?;
        ("maa", claims.to_json())
    } else {
        let policy = ItaPolicy { rules: rules.clone(), ..ItaPolicy::new(rules.issuer) };
        let claims = token::verify_ita(&token, &keys, &policy, &expected, terms.now).map_err(|e| fail(&e))?;
        ("ita", claims.to_json())
    };
    let claims = with_not_checked(claims.get(kind).cloned().unwrap_or_default(), not_checked);
    Ok(Submodule { prefix: "token", kind, claims, refusals: vec![] })
}

fn nras(name: &str, bytes: &[u8], shared: &Shared, terms: &Terms) -> Verified {
    let fail = |e: &_| Refusal::new(name, e);
    let bundle = DetachedEat::parse(bytes).map_err(|e| fail(&e))?;
    let (rules, not_checked) = issuer_rules(&bundle.overall, terms)?;
    let keys = key_set(name, shared)?;
    let expected = Expected { nonce: shared.nonces.first().map(Vec::as_slice), report_data: None };
    let policy = NrasPolicy { rules: rules.clone(), ..NrasPolicy::new(rules.issuer) };
    let claims = token::verify_nras(&bundle, &keys, &policy, &expected, terms.now).map_err(|e| fail(&e))?;
    let claims = with_not_checked(claims.to_json().get("nras").cloned().unwrap_or_default(), not_checked);
    Ok(Submodule { prefix: "token", kind: "nras", claims, refusals: vec![] })
}

/// Evidence in the forms that KBS clients send.
fn kbs(group: &Group, shared: &Shared, terms: &Terms) -> Result<Vec<Submodule>, Refusal> {
    let mut found = Vec::new();
    for (name, bytes) in group.all(Form::KbsEvidence) {
        let fail = |e: &_| Refusal::new(name, e);
        let unknown = || {
            Refusal::input(name, format!("{name} is no evidence body that is known here"), "give the files themselves")
        };
        let body: Value = serde_json::from_slice(bytes).map_err(|_| unknown())?;
        let has = |member: &str| body.get(member).is_some();
        if has("attestation_report") {
            let evidence = SnpEvidence::from_kbs(&body).map_err(|e| Refusal::new(name, &e))?;
            let report = evidence.report.clone();
            let mut all = evidence.certificates;
            all.extend(certificates(group, shared)?);
            found.push(snp_parsed(report, all, shared, terms)?);
        } else if has("device_evidence_list") {
            for device in DeviceEvidence::parse_set(bytes).map_err(|e| Refusal::new(name, &e))? {
                found.push(verify_device(&device, group, shared, terms)?);
            }
        } else if has("hcl_report") || (has("quote") && has("report")) {
            let kind = if has("td_quote") { HardwareKind::Tdx } else { HardwareKind::Snp };
            let evidence = AzureEvidence::from_json(kind, &body).map_err(|e| fail(&e))?;
            found.push(azure_bound(&evidence, group, shared, terms)?);
        } else {
            return Err(unknown());
        }
    }
    Ok(found)
}
