//! Files, sorted by what they are.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Appraisal, Refusal, kinds};
use crate::{
    files::{Form, MAX_FILE_BYTES, Piece, UnpackError, unpack},
    gpu::{GpuPolicy, Roots as GpuRoots},
    snp::{SnpPolicy, SnpRoots},
    tdx::{SgxPolicy, TdxPolicy},
    tpm::quote::TpmPolicy,
    x509::Certificate,
};

/// More than any set has (8 GPUs and 4 switches of a few files each, and what vouches for them).
const MAX_FILES: usize = 256;

/// What evidence is judged by.
#[derive(Debug, Default)]
pub struct Terms {
    /// What every piece must be bound to, as people type it: hex, or a text's own bytes.
    pub nonce: Option<String>,
    /// PEM or DER certificates to trust instead of the vendors' own.
    pub roots: Option<Vec<u8>>,
    /// Whose tokens are believed; without it the issuer is not checked, and the claims say so.
    pub issuer: Option<String>,
    /// Whom tokens must be meant for.
    pub audience: Option<String>,
    /// Each kind's own rules.
    pub rules: Rules,
    /// Seconds since 1970 UTC.
    pub now: u64,
}

/// Each kind's own rules; what is not given has its safe default. Read from JSON with unknown members refused.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// SEV-SNP.
    pub snp: SnpPolicy,
    /// TDX.
    pub tdx: TdxPolicy,
    /// SGX.
    pub sgx: SgxPolicy,
    /// TPM quotes; of Azure's vTPM as well.
    pub tpm: TpmPolicy,
    /// NVIDIA: whether golden values, a nonce and OCSP are required.
    pub gpu: GpuRules,
}

/// [`GpuPolicy`] as a file gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GpuRules {
    /// Measurements must have been compared with NVIDIA's golden values.
    pub golden_values: bool,
    /// A nonce must have been expected.
    pub nonce: bool,
    /// Every certificate must have a good OCSP response.
    pub ocsp: bool,
}

impl Default for GpuRules {
    fn default() -> Self {
        let GpuPolicy { golden_values, nonce, ocsp, .. } = GpuPolicy::default();
        Self { golden_values, nonce, ocsp }
    }
}

impl From<GpuRules> for GpuPolicy {
    fn from(rules: GpuRules) -> Self {
        let GpuRules { golden_values, nonce, ocsp } = rules;
        Self { golden_values, nonce, ocsp, ..Self::default() }
    }
}

/// The files of one machine's evidence, and what vouches for it.
#[derive(Debug, Default)]
pub struct EvidenceSet {
    /// By group (a folder, or the loose files), then by form: name and bytes.
    groups: BTreeMap<String, Group>,
    count: usize,
}

/// Files that belong together.
#[derive(Debug, Default)]
pub(super) struct Group(BTreeMap<Form, Vec<(String, Vec<u8>)>>);

impl Group {
    pub(super) fn all(&self, form: Form) -> &[(String, Vec<u8>)] {
        self.0.get(&form).map(Vec::as_slice).unwrap_or_default()
    }

    pub(super) fn has(&self, form: Form) -> bool {
        self.0.contains_key(&form)
    }

    /// The only file of a form; two make it unclear which one belongs to what.
    pub(super) fn one(&self, form: Form) -> Result<Option<&[u8]>, Refusal> {
        match self.all(form) {
            [] => Ok(None),
            [(_, bytes)] => Ok(Some(bytes)),
            [(first, _), (second, _), ..] => Err(Refusal::input(
                second,
                format!("{first} and {second} are both {}", form.describe()),
                "give one machine's evidence at a time, or each device's files in a folder of their own",
            )),
        }
    }

    /// [`Self::one`], where the evidence is nothing without it.
    pub(super) fn needed(&self, form: Form, by: &str) -> Result<&[u8], Refusal> {
        let missing = || {
            let reason = format!("{by} cannot be verified without {}", form.describe());
            Refusal::input(by, reason, "give that file too: it is told by its content, whatever its name")
        };
        self.one(form)?.ok_or_else(missing)
    }
}

impl EvidenceSet {
    /// Adds a file. Files of one `group` belong together; those of the group `""` go with every other as well,
    /// as far as they vouch for evidence and are none.
    ///
    /// # Errors
    /// [`Refusal`] for content that is none of [`Form`], and beyond 256 files.
    pub fn add(&mut self, group: &str, name: &str, bytes: Vec<u8>) -> Result<(), Refusal> {
        if self.count == MAX_FILES {
            let reason = format!("more than {MAX_FILES} files");
            return Err(Refusal::input(name, reason, "give one machine's evidence at a time"));
        }
        let size = bytes.len();
        let pieces = unpack(&bytes).map_err(|error| {
            let (problem, help) = match error {
                UnpackError::Unsupported(why) => (why, "give evidence of a kind that is verified here; see --help"),
                UnpackError::Unknown if size > MAX_FILE_BYTES => ("it is too long", "no evidence is that long"),
                UnpackError::Unknown => (
                    "it is no evidence and no collateral that is known here",
                    "reports, quotes, logs, certificates, lists, manifests, tokens and key sets are told by their \
                     content, also in hex, base64 or JSON; leave other files out",
                ),
            };
            Refusal::input(name, format!("{problem} ({size} bytes)"), help)
        })?;
        let files = &mut self.groups.entry(group.to_owned()).or_default().0;
        for Piece { form, bytes } in pieces {
            files.entry(form).or_default().push((name.to_owned(), bytes));
        }
        self.count += 1;
        Ok(())
    }

    /// Every file of a form, of all groups.
    pub fn all(&self, form: Form) -> impl Iterator<Item = &[u8]> {
        self.groups.values().flat_map(move |group| group.all(form)).map(|(_, bytes)| bytes.as_slice())
    }

    /// Whether a group has anything that attests, and not only what vouches for it.
    pub fn attests(&self, group: &str) -> bool {
        const EVIDENCE: [Form; 10] = [
            Form::SnpReport,
            Form::TdxQuote,
            Form::SgxQuote,
            Form::HclReport,
            Form::TpmQuote,
            Form::EventLog,
            Form::GpuReport,
            Form::Jwt,
            Form::DetachedEat,
            Form::KbsEvidence,
        ];
        self.groups.get(group).is_some_and(|group| EVIDENCE.iter().any(|form| group.has(*form)))
    }

    /// Verifies everything. Claims stand in the appraisal even where a policy refuses them; where a verifier
    /// does, there are none to believe.
    pub fn verify(&self, terms: &Terms) -> Appraisal {
        let mut appraisal = Appraisal::default();
        let shared = match Shared::read(self, terms) {
            Ok(shared) => shared,
            Err(refusal) => return Appraisal { refusals: vec![refusal], ..appraisal },
        };
        for (name, group) in &self.groups {
            match kinds::verify(group, &shared, terms) {
                Ok(submodules) => submodules.into_iter().for_each(|submodule| appraisal.add(submodule)),
                Err(refusal) => appraisal.refusals.push(Refusal {
                    of: if name.is_empty() { refusal.of.clone() } else { format!("{name}: {}", refusal.of) },
                    ..refusal
                }),
            }
        }
        if appraisal.submods.is_empty() && appraisal.refusals.is_empty() {
            let help = "give a report, a quote, a log or a token; certificates and collateral only vouch for one";
            appraisal.refusals.push(Refusal::input("the files", "there is no evidence among them", help));
        }
        kinds::check_composite(&mut appraisal);
        appraisal
    }
}

/// What vouches for evidence, of whichever group.
pub(super) struct Shared {
    pub(super) certificates: Vec<Certificate>,
    pub(super) crls: Vec<Vec<u8>>,
    pub(super) ocsp: Vec<Vec<u8>>,
    pub(super) rims: Vec<Vec<u8>>,
    pub(super) dcap: Vec<Vec<u8>>,
    pub(super) tcb_infos: Vec<Vec<u8>>,
    pub(super) qe_identities: Vec<Vec<u8>>,
    pub(super) keys: Vec<Vec<u8>>,
    pub(super) roots: Option<Vec<Certificate>>,
    /// Where the user's roots are none of AMD's form, SNP evidence is refused, and nothing else.
    pub(super) snp_roots: Result<SnpRoots, Refusal>,
    pub(super) gpu_roots: GpuRoots,
    /// The nonce's possible bytes, hex first.
    pub(super) nonces: Vec<Vec<u8>>,
}

impl Shared {
    /// The nonce as a TPM answers it: whole, or its first 32 bytes, which is all that this program's own guests put
    /// into a quote (see [`crate::tpm_nonce`]).
    pub(super) fn quoted_nonces(&self) -> Vec<Vec<u8>> {
        let short = self.nonces.iter().filter_map(|nonce| nonce.first_chunk::<32>());
        self.nonces.iter().cloned().chain(short.map(|nonce| nonce.to_vec())).collect()
    }

    fn read(set: &EvidenceSet, terms: &Terms) -> Result<Self, Refusal> {
        let owned = |form| set.groups.get("").map(|group| group.all(form).iter().map(|(_, b)| b.clone()).collect());
        let all = |form| set.all(form).map(<[u8]>::to_vec).collect::<Vec<_>>();
        let refused = |name: &str, e: &crate::x509::X509Error| Refusal::new(name, e);
        let loose: Vec<Vec<u8>> = owned(Form::Certificates).unwrap_or_default();
        let mut certificates = Vec::new();
        for bytes in &loose {
            certificates.extend(Certificate::read_all(bytes).map_err(|e| refused("certificates", &e))?);
        }
        let roots = terms.roots.as_deref().map(Certificate::read_all).transpose();
        let roots = roots.map_err(|e| refused("the roots", &e))?;
        let snp_roots = match &terms.roots {
            Some(bytes) => SnpRoots::from_pem(bytes),
            None => SnpRoots::amd().cloned(),
        }
        .map_err(|e| Refusal::new("the roots", &e));
        let gpu_roots = match &terms.roots {
            Some(bytes) => GpuRoots::from_pem(bytes, bytes),
            None => GpuRoots::nvidia(),
        }
        .map_err(|e| Refusal::new("the roots", &e))?;
        let mut nonces = Vec::new();
        if terms.nonce.as_deref().is_some_and(|nonce| nonce.trim().is_empty()) {
            let help = "a nonce is what makes evidence fresh: give the one that the machine was asked with";
            return Err(Refusal::input("the nonce", "it is empty", help));
        }
        for text in terms.nonce.iter().cloned().chain(set.all(Form::Nonce).filter_map(utf8)) {
            nonces.extend(hex::decode(text.trim()).ok().filter(|bytes| !bytes.is_empty()));
            nonces.push(text.trim().as_bytes().to_vec());
        }
        Ok(Self {
            certificates,
            crls: all(Form::Crl),
            ocsp: all(Form::Ocsp),
            rims: all(Form::Rim),
            dcap: all(Form::DcapCollateral),
            tcb_infos: all(Form::TcbInfo),
            qe_identities: all(Form::QeIdentity),
            keys: all(Form::Jwks).into_iter().chain(all(Form::PublicKey)).collect(),
            roots,
            snp_roots,
            gpu_roots,
            nonces,
        })
    }
}

fn utf8(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}
