//! DCAP collateral: what Intel signs about platforms and quoting enclaves, and its validity.
//!
//! The container is dcap-qvl's `QuoteCollateralV3` in JSON: issuer chains as PEM, the two signed
//! documents as the text that was signed, lists and signatures in hex.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde::Deserialize;
use x509_cert::{
    crl::CertificateList,
    der::{Decode as _, asn1::UintRef},
};

use super::{TdxError, pck::read_chain, qe::QeIdentity, tcb::TcbInfo};
use crate::{
    claims::hex_bytes,
    files::signed_member,
    x509::{Certificate, MAX_CRL_BYTES, Path},
};

/// More than any collateral; longer input is refused unread.
pub const MAX_COLLATERAL_BYTES: usize = 4 * 1024 * 1024;
/// More than the platforms that one machine's evidence is of.
const MAX_COMBINATIONS: usize = 64;
const CRL_NUMBER: &str = "2.5.29.20";

/// Collateral as it arrives: bounded, and not yet believed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Collateral {
    #[serde(with = "hex_bytes")]
    root_ca_crl: Vec<u8>,
    #[serde(with = "hex_bytes")]
    pck_crl: Vec<u8>,
    tcb_info_issuer_chain: String,
    tcb_info: String,
    #[serde(with = "hex_bytes")]
    tcb_info_signature: Vec<u8>,
    qe_identity_issuer_chain: String,
    qe_identity: String,
    #[serde(with = "hex_bytes")]
    qe_identity_signature: Vec<u8>,
    #[serde(default)]
    pck_certificate_chain: Option<String>,
}

impl Collateral {
    /// Reads the JSON form. Its `pck_crl_issuer_chain` is not needed: the list must be signed by
    /// the CA that issued the platform's own certificate.
    ///
    /// # Errors
    /// [`TdxError::Collateral`].
    pub fn parse(json: &[u8]) -> Result<Self, TdxError> {
        if json.len() > MAX_COLLATERAL_BYTES {
            return Err(TdxError::collateral(format!(
                "{} bytes, at most {MAX_COLLATERAL_BYTES} allowed",
                json.len()
            )));
        }
        serde_json::from_slice(json).map_err(TdxError::collateral)
    }

    /// The TCB info's text, whoever signed it.
    pub(super) fn tcb_info(&self) -> &str {
        &self.tcb_info
    }

    /// Puts together what Intel's service answered separately: TCB info and QE identity (its
    /// bodies), revocation lists (DER) and the certificate that signed the two documents. Of
    /// several, every combination is made; which one fits a quote only its verification shows.
    pub fn assemble(
        tcb_infos: &[Vec<u8>],
        qe_identities: &[Vec<u8>],
        crls: &[Vec<u8>],
        certificates: &[Certificate],
    ) -> Vec<Result<Self, TdxError>> {
        match Self::combinations(tcb_infos, qe_identities, crls, certificates) {
            Ok(all) if all.is_empty() => {
                vec![Err(TdxError::collateral(
                    "beside TCB info and QE identity, the PCK CA's revocation list is needed",
                ))]
            }
            Ok(all) => all.into_iter().take(MAX_COMBINATIONS).map(Ok).collect(),
            Err(error) => vec![Err(error)],
        }
    }

    fn combinations(
        tcb_infos: &[Vec<u8>],
        qe_identities: &[Vec<u8>],
        crls: &[Vec<u8>],
        certificates: &[Certificate],
    ) -> Result<Vec<Self>, TdxError> {
        let missing = |what: &str| TdxError::collateral(format!("{what} is missing"));
        let root_ca_crls: Vec<_> =
            crls.iter().filter(|der| issued_by(der, "Intel SGX Root CA")).collect();
        if root_ca_crls.is_empty() {
            return Err(missing("the root CA's revocation list"));
        }
        let chains = signers(certificates);
        if chains.is_empty() {
            let signer = "the certificate of Intel's TCB signer (an answer's header has it)";
            return Err(missing(signer));
        }
        // An older list or signer may lie beside the valid one: their order decides nothing.
        let pairs = |crl| chains.iter().map(move |chain| (crl, chain));
        let heads: Vec<(&Vec<u8>, &String)> = root_ca_crls.into_iter().flat_map(pairs).collect();
        let signed = |document: &Vec<u8>, member: &'static str| {
            let (text, signature) =
                signed_member(document, member).ok_or_else(|| missing(member))?;
            Ok::<_, TdxError>((text, hex::decode(signature).map_err(TdxError::collateral)?))
        };
        if qe_identities.is_empty() {
            return Err(missing("the QE identity"));
        }
        if tcb_infos.is_empty() {
            return Err(missing("the TCB info"));
        }
        let mut all = Vec::new();
        for tcb_info in tcb_infos {
            let (tcb_info, tcb_info_signature) = signed(tcb_info, "tcbInfo")?;
            for qe_identity in qe_identities {
                let (qe_identity, qe_identity_signature) = signed(qe_identity, "enclaveIdentity")?;
                for pck_crl in crls.iter().filter(|der| issued_by(der, "Intel SGX PCK")) {
                    all.extend(heads.iter().map(|(root_ca_crl, chain)| Self {
                        root_ca_crl: (*root_ca_crl).clone(),
                        pck_crl: pck_crl.clone(),
                        tcb_info_issuer_chain: (*chain).clone(),
                        tcb_info: tcb_info.clone(),
                        tcb_info_signature: tcb_info_signature.clone(),
                        qe_identity_issuer_chain: (*chain).clone(),
                        qe_identity: qe_identity.clone(),
                        qe_identity_signature: qe_identity_signature.clone(),
                        pck_certificate_chain: None,
                    }));
                }
            }
        }
        Ok(all)
    }
}

fn issued_by(crl: &[u8], name: &str) -> bool {
    <CertificateList>::from_der(crl)
        .is_ok_and(|list| list.tbs_cert_list.issuer.to_string().contains(name))
}

/// The certificates of Intel's TCB signers, in PEM, each once.
fn signers(certificates: &[Certificate]) -> Vec<String> {
    let is_signer = |certificate: &&Certificate| certificate.subject().contains("SGX TCB Signing");
    let mut chains: Vec<_> =
        certificates.iter().filter(is_signer).map(Certificate::to_pem).collect();
    chains.sort();
    chains.dedup();
    chains
}

/// Collateral whose signatures and chains were verified once. Every use checks its dates again.
#[derive(Debug)]
pub(super) struct VerifiedCollateral {
    pub(super) tcb_info: TcbInfo,
    pub(super) qe_identity: QeIdentity,
    pub(super) crls: Vec<Vec<u8>>,
    pub(super) pck_chain: Option<Vec<u8>>,
    pub(super) root: Certificate,
    pub(super) root_crl_number: u64,
    pub(super) pck_crl_number: u64,
    /// Every part with the first and last second at which it is valid.
    dates: Vec<(&'static str, u64, u64)>,
}

impl VerifiedCollateral {
    pub(super) fn verify(
        collateral: &Collateral,
        roots: &[Certificate],
        now: u64,
    ) -> Result<Self, TdxError> {
        let crls = vec![collateral.root_ca_crl.clone(), collateral.pck_crl.clone()];
        let [root_crl, pck_crl] = [("the root CA's CRL", &crls[0]), ("the PCK CRL", &crls[1])]
            .map(|(what, der)| Crl::parse(what, der));
        let (root_crl, pck_crl) = (root_crl?, pck_crl?);
        let mut dates = vec![root_crl.dates, pck_crl.dates];
        check_dates(&dates, now)?;

        let signer = |what, chain: &str| signer(what, chain, roots, &crls[..1], now);
        let (tcb_signer, root) = signer("TCB info", &collateral.tcb_info_issuer_chain)?;
        let (qe_signer, qe_root) =
            match collateral.qe_identity_issuer_chain == collateral.tcb_info_issuer_chain {
                true => (tcb_signer.clone(), root.clone()),
                false => signer("QE identity", &collateral.qe_identity_issuer_chain)?,
            };
        let revoked = |root: &Certificate| root_crl.revoked.iter().any(|s| root.serial() == &s[..]);
        if revoked(&root) || revoked(&qe_root) {
            return Err(TdxError::collateral("the root CA revoked itself"));
        }

        // Signatures first: what is parsed below is Intel's.
        let Collateral { tcb_info, tcb_info_signature, .. } = collateral;
        check_signature("TCB info", &tcb_signer, tcb_info, tcb_info_signature)?;
        let Collateral { qe_identity, qe_identity_signature, .. } = collateral;
        check_signature("QE identity", &qe_signer, qe_identity, qe_identity_signature)?;
        let tcb_info = TcbInfo::parse(tcb_info)?;
        let qe_identity = QeIdentity::parse(qe_identity)?;
        dates.push(("TCB info", tcb_info.issue_date.0, tcb_info.next_update.0));
        dates.push(("QE identity", qe_identity.issue_date.0, qe_identity.next_update.0));
        for (what, certificate) in [
            ("the TCB info's signer", &tcb_signer),
            ("the QE identity's signer", &qe_signer),
            ("the root CA", &root),
            ("the root CA", &qe_root),
        ] {
            let (from, until) = certificate.validity();
            dates.push((what, from, until));
        }
        check_dates(&dates, now)?;
        Ok(Self {
            tcb_info,
            qe_identity,
            pck_chain: collateral.pck_certificate_chain.clone().map(String::into_bytes),
            root,
            root_crl_number: root_crl.number,
            pck_crl_number: pck_crl.number,
            crls,
            dates,
        })
    }

    /// Whether every part is valid at `now`.
    pub(super) fn check_dates(&self, now: u64) -> Result<(), TdxError> {
        check_dates(&self.dates, now)
    }

    /// Earliest and latest issue, earliest expiration.
    pub(super) fn window(&self) -> (u64, u64, u64) {
        let issues = || self.dates.iter().map(|(_, from, _)| *from);
        let expirations = self.dates.iter().map(|(.., until)| *until);
        let least = |least: Option<u64>| least.unwrap_or_default();
        (least(issues().min()), least(issues().max()), least(expirations.min()))
    }
}

/// The certificate that signed a document, and the root that it leads to. Intel signs both
/// documents with one certificate, directly below the root.
fn signer(
    what: &'static str,
    chain: &str,
    roots: &[Certificate],
    root_crl: &[Vec<u8>],
    now: u64,
) -> Result<(Certificate, Certificate), TdxError> {
    let fail = |cause| TdxError::Chain { what, cause };
    let signer = read_chain(chain.as_bytes()).map_err(fail)?.into_iter().next();
    let signer = signer.ok_or_else(|| TdxError::collateral(format!("{what} has no chain")))?;
    let path = Path { intermediates: &[], roots, crls: root_crl };
    let root = path.verify_unrevoked(&signer, now).map_err(fail)?.clone();
    // The root issues CAs too: they sign other things.
    if !signer.subject().contains("SGX TCB Signing") {
        return Err(TdxError::collateral(format!("{what} is signed by {}", signer.subject())));
    }
    Ok((signer, root))
}

/// What is read of a revocation list here; path validation checks its signature.
struct Crl {
    dates: (&'static str, u64, u64),
    number: u64,
    revoked: Vec<Vec<u8>>,
}

impl Crl {
    fn parse(what: &'static str, der: &[u8]) -> Result<Self, TdxError> {
        let fail = |problem: &dyn ToString| {
            TdxError::collateral(format!("{what}: {}", problem.to_string()))
        };
        if der.len() > MAX_CRL_BYTES {
            return Err(fail(&format!("{} bytes, at most {MAX_CRL_BYTES} allowed", der.len())));
        }
        let list = <CertificateList>::from_der(der).map_err(|e| fail(&e))?.tbs_cert_list;
        let until = list.next_update.ok_or_else(|| fail(&"no date of the next one"))?;
        let number = list
            .crl_extensions
            .iter()
            .flatten()
            .find(|extension| extension.extn_id.to_string() == CRL_NUMBER);
        let number = match number {
            Some(extension) => {
                UintRef::from_der(extension.extn_value.as_bytes()).map_err(|e| fail(&e))?
            }
            None => return Err(fail(&"no number")),
        };
        if number.as_bytes().len() > 8 {
            return Err(fail(&"a number of more than 8 bytes"));
        }
        Ok(Self {
            // The next one is due in the second `next_update`.
            dates: (
                what,
                list.this_update.to_unix_duration().as_secs(),
                until.to_unix_duration().as_secs().saturating_sub(1),
            ),
            number: number.as_bytes().iter().fold(0, |number, byte| number << 8 | u64::from(*byte)),
            revoked: list
                .revoked_certificates
                .unwrap_or_default()
                .iter()
                .map(|entry| entry.serial_number.as_bytes().to_vec())
                .collect(),
        })
    }
}

fn check_dates(dates: &[(&'static str, u64, u64)], now: u64) -> Result<(), TdxError> {
    match dates.iter().find(|(_, from, until)| !(*from..=*until).contains(&now)) {
        Some((what, from, until)) => Err(TdxError::Time { what, from: *from, until: *until, now }),
        None => Ok(()),
    }
}

fn check_signature(
    what: &'static str,
    signer: &Certificate,
    text: &str,
    signature: &[u8],
) -> Result<(), TdxError> {
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, signer.public_key())
        .verify(text.as_bytes(), signature)
        .map_err(|_| TdxError::Signature { what, key: "Intel's TCB signing key" })
}
