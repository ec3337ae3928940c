//! What to ask whom: pure functions from a key to requests, and from their answers to a piece.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use cvm_base::{Bytes32, sha256};
use serde::Deserialize;

use crate::error::FetchError;
use cvm_collateral::{Answer, Key, QuoteCollateral, is_rim_id};

/// A vendor's service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// AMD's key distribution service (AMD 57230).
    AmdKds,
    /// Intel's provisioning certification service, API version 4.
    IntelPcs,
    /// Where Intel's root publishes its revocation list.
    IntelRoot,
    /// NVIDIA's reference manifests.
    NvidiaRim,
}

/// Where each service is: the vendor's own, or a mirror that answers the same paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bases {
    /// [`Service::AmdKds`].
    pub amd_kds: String,
    /// [`Service::IntelPcs`].
    pub intel_pcs: String,
    /// [`Service::IntelRoot`].
    pub intel_root: String,
    /// [`Service::NvidiaRim`].
    pub nvidia_rim: String,
}

impl Default for Bases {
    fn default() -> Self {
        Self {
            amd_kds: "https://kdsintf.amd.com".into(),
            intel_pcs: "https://api.trustedservices.intel.com".into(),
            intel_root: "https://certificates.trustedservices.intel.com".into(),
            nvidia_rim: "https://rim.attestation.nvidia.com".into(),
        }
    }
}

impl Bases {
    fn of(&self, service: Service) -> &str {
        let base = match service {
            Service::AmdKds => &self.amd_kds,
            Service::IntelPcs => &self.intel_pcs,
            Service::IntelRoot => &self.intel_root,
            Service::NvidiaRim => &self.nvidia_rim,
        };
        base.trim_end_matches('/')
    }
}

/// One GET request, and what its answer must be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceRequest {
    /// Who is asked.
    pub service: Service,
    /// The whole URL.
    pub url: String,
    /// What is asked for.
    pub accept: &'static str,
    /// The header of the answer that carries the issuer's chain, where one must.
    pub issuer_chain: Option<&'static str>,
    /// The most bytes of body that are read.
    pub limit: u64,
}

/// An answer with status 200.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceReply {
    /// The body.
    pub body: Vec<u8>,
    /// The header that [`ServiceRequest::issuer_chain`] names; empty without.
    pub issuer_chain: String,
}

/// The requests that give `key`, in the order in which [`assemble`] wants their answers.
///
/// # Errors
/// [`FetchError::NotOffered`] for what no service gives away: a VLEK.
pub fn requests(key: &Key, bases: &Bases) -> Result<Vec<ServiceRequest>, FetchError> {
    let get = |service: Service, path: String, accept, limit| ServiceRequest {
        service,
        url: format!("{}{path}", bases.of(service)),
        accept,
        issuer_chain: None,
        limit,
    };
    Ok(match key {
        Key::Vcek { product, hwid, tcb } => {
            let fmc = tcb.fmc.map(|fmc| format!("fmcSPL={fmc}&")).unwrap_or_default();
            let (bl, tee, snp, ucode) = (tcb.boot_loader, tcb.tee, tcb.snp, tcb.microcode);
            let levels = format!("{fmc}blSPL={bl}&teeSPL={tee}&snpSPL={snp}&ucodeSPL={ucode}");
            let path = format!("/vcek/v1/{}/{}?{levels}", product.as_str(), hex::encode(hwid));
            vec![get(Service::AmdKds, path, "*/*", key.limit())]
        }
        Key::Vlek { .. } => return Err(FetchError::NotOffered),
        Key::AmdChain(signer, product) => {
            let path = format!("/{}/v1/{}/cert_chain", signer.as_str(), product.as_str());
            vec![get(Service::AmdKds, path, "*/*", key.limit())]
        }
        Key::AmdCrl(signer, product) => {
            let path = format!("/{}/v1/{}/crl", signer.as_str(), product.as_str());
            vec![get(Service::AmdKds, path, "*/*", key.limit())]
        }
        Key::Dcap { tee, fmspc, ca } => {
            let (tee, ca) = (tee.as_str(), ca.as_str());
            let json = "application/json";
            let mut tcb = get(
                Service::IntelPcs,
                format!("/{tee}/certification/v4/tcb?fmspc={}", hex::encode(fmspc)),
                json,
                256 * 1024,
            );
            tcb.issuer_chain = Some("TCB-Info-Issuer-Chain");
            let mut qe = get(
                Service::IntelPcs,
                format!("/{tee}/certification/v4/qe/identity"),
                json,
                64 * 1024,
            );
            qe.issuer_chain = Some("SGX-Enclave-Identity-Issuer-Chain");
            let path = format!("/sgx/certification/v4/pckcrl?ca={ca}&encoding=der");
            let mut pck = get(Service::IntelPcs, path, "*/*", 1024 * 1024);
            pck.issuer_chain = Some("SGX-PCK-CRL-Issuer-Chain");
            let root = get(Service::IntelRoot, "/IntelSGXRootCA.der".into(), "*/*", 1024 * 1024);
            vec![tcb, qe, pck, root]
        }
        Key::Rim(id) if is_rim_id(id) => {
            // Base64 is a third longer, and JSON surrounds it.
            let limit = key.limit() / 2 * 3;
            vec![get(Service::NvidiaRim, format!("/v1/rim/{id}"), "application/json", limit)]
        }
        Key::Rim(_) => return Err(FetchError::NotOffered),
    })
}

/// Makes the piece out of the answers to [`requests`], in the form in which a cache stores it.
///
/// # Errors
/// What is wrong with one of them.
pub fn assemble(key: &Key, replies: &[&ServiceReply]) -> Result<Vec<u8>, String> {
    match (key, replies) {
        (Key::Dcap { .. }, [tcb, qe, pck, root]) => {
            let [tcb, qe, pck, root] = [*tcb, *qe, *pck, *root]
                .map(|reply| Answer { body: &reply.body, issuer_chain: &reply.issuer_chain });
            Ok(QuoteCollateral::assemble(tcb, qe, pck, root)?.to_json())
        }
        (Key::Rim(id), [reply]) => rim(id, &reply.body),
        (Key::Dcap { .. } | Key::Rim(_), _) => Err("an answer is missing".into()),
        (_, [reply]) => Ok(reply.body.clone()),
        _ => Err("an answer is missing".into()),
    }
}

/// NVIDIA's answer: `{"id", "rim": base64, "sha256": of the decoded bytes, "rim_format": "TCG",
/// …}`.
fn rim(id: &str, body: &[u8]) -> Result<Vec<u8>, String> {
    #[derive(Deserialize)]
    struct Rim {
        id: String,
        rim: String,
        sha256: Option<String>,
    }
    let answer: Rim =
        serde_json::from_slice(body).map_err(|e| format!("not the service's JSON: {e}"))?;
    if answer.id != id {
        return Err(format!(
            "the service sent {:?}",
            answer.id.chars().take(128).collect::<String>()
        ));
    }
    let bytes = STANDARD.decode(answer.rim).map_err(|e| format!("the member rim: {e}"))?;
    if let Some(expected) = answer.sha256 {
        let expected: Bytes32 = expected.parse().map_err(|e| format!("the member sha256: {e}"))?;
        if sha256(&bytes) != expected {
            return Err(format!("its digest is {}, the service says {expected}", sha256(&bytes)));
        }
    }
    Ok(bytes)
}
