//! Files, sorted by what they are.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{Appraisal, Refusal, kinds, trust::Shared};
use crate::{
    files::{Form, MAX_FILE_BYTES, Piece, UnpackError, Unpacked, is_note, signs, unpack},
    gpu::GpuPolicy,
    quote::TpmPolicy,
    snp::SnpPolicy,
    tdx::{SgxPolicy, TdxPolicy},
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
    /// Files of token keys to trust: JWKS, or PEM public keys.
    pub keys: Vec<Vec<u8>>,
    /// Whose tokens are believed.
    pub issuer: Option<String>,
    /// What may come with the evidence, where it is not given here.
    pub enclosed: Enclosed,
    /// Whom tokens must be meant for.
    pub audience: Option<String>,
    /// Each kind's own rules.
    pub rules: Rules,
    /// Seconds since 1970 UTC.
    pub now: u64,
}

/// What judges evidence, and may come from the same hand as the evidence. By default nothing:
/// whoever made it may have made that too. What is allowed here stands in the claims'
/// `not_checked`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Enclosed {
    /// A nonce, which then binds the pieces to each other and proves no freshness.
    pub nonce: bool,
    /// Token keys.
    pub keys: bool,
    /// The issuer that a token names.
    pub issuer: bool,
}

/// Each kind's own rules; what is not given has its safe default. Read from JSON with unknown
/// members refused.
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
    /// Pieces that need not be understood, by name: a file's, or `FILE: MEMBER`. They stand in
    /// `not_checked`.
    pub accept_unread: BTreeSet<String>,
}

impl Rules {
    /// Whether a piece may stay unread: by its whole name, or its last part.
    pub(super) fn accepts_unread(&self, of: &str) -> bool {
        let last = of.rsplit_once('/').map_or(of, |(_, last)| last);
        self.accept_unread.contains(of) || self.accept_unread.contains(last)
    }
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
    /// Opaque data of types that are not known here are accepted.
    pub unknown_fields: bool,
}

impl Default for GpuRules {
    fn default() -> Self {
        let GpuPolicy { golden_values, nonce, ocsp, unknown_fields, .. } = GpuPolicy::default();
        Self { golden_values, nonce, ocsp, unknown_fields }
    }
}

impl From<GpuRules> for GpuPolicy {
    fn from(rules: GpuRules) -> Self {
        let GpuRules { golden_values, nonce, ocsp, unknown_fields } = rules;
        Self { golden_values, nonce, ocsp, unknown_fields, ..Self::default() }
    }
}

/// The files of one machine's evidence, and what vouches for it.
#[derive(Debug, Default)]
pub struct EvidenceSet {
    /// By group (a folder, or the loose files), then by form: name and bytes.
    groups: BTreeMap<String, Group>,
    count: usize,
    /// The names of the files that came from the verifier's own hand.
    given: BTreeSet<String>,
    /// What was presented and is not understood.
    unread: Vec<Refusal>,
    /// What lies beside it and is no evidence.
    left_out: Vec<Refusal>,
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
                "give one machine's evidence at a time, or each device's files in a folder of \
                 their own",
            )),
        }
    }

    /// [`Self::one`], where the evidence is nothing without it.
    pub(super) fn needed(&self, form: Form, by: &str) -> Result<&[u8], Refusal> {
        let missing = || {
            let reason = format!("{by} cannot be verified without {}", form.describe());
            Refusal::input(
                by,
                reason,
                "give that file too: it is told by its content, whatever its name",
            )
        };
        self.one(form)?.ok_or_else(missing)
    }
}

impl EvidenceSet {
    /// Adds a file as somebody presents it: what cannot be read is refused by [`Self::verify`],
    /// unless it is a note in a folder.
    pub fn present(&mut self, group: &str, name: &str, bytes: Vec<u8>) {
        let note = !group.is_empty() && is_note(name, &bytes);
        if let Err(refusal) = self.add(group, name, bytes) {
            let to = if note { &mut self.left_out } else { &mut self.unread };
            to.push(refusal);
        }
    }

    /// Notes what was presented and cannot be read at all.
    pub fn unread(&mut self, refusal: Refusal) {
        self.unread.push(refusal);
    }

    /// Notes what lies beside the evidence, is none, and was not used.
    pub fn leave_out(&mut self, refusal: Refusal) {
        self.left_out.push(refusal);
    }

    /// Adds a file of what vendors published, from the verifier's own hand: collateral alone
    /// counts, nothing else in it is evidence, a nonce or a key.
    pub fn add_collateral(&mut self, name: &str, bytes: Vec<u8>) {
        let Unpacked { pieces, .. } = match unpacked(name, &bytes) {
            Ok(found) => found,
            Err(refusal) => return self.left_out.push(refusal),
        };
        let files = &mut self.groups.entry(String::new()).or_default().0;
        for Piece { form, bytes } in pieces {
            if form.is_collateral() {
                self.given.insert(name.to_owned());
                files.entry(form).or_default().push((name.to_owned(), bytes));
            } else {
                let reason =
                    format!("{} in a collateral folder counts for nothing", form.describe());
                let help =
                    "give evidence as such, a nonce with --nonce, and a token's keys with --jwks";
                self.left_out.push(Refusal::input(name, reason, help));
            }
        }
    }

    /// Adds a file. Files of one `group` belong together; those of the group `""` go with every
    /// other as well, as far as they vouch for evidence and are none.
    ///
    /// # Errors
    /// [`Refusal`] for content that is none of [`Form`], and beyond 256 files.
    pub fn add(&mut self, group: &str, name: &str, bytes: Vec<u8>) -> Result<(), Refusal> {
        self.count += 1;
        match self.count.cmp(&(MAX_FILES + 1)) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => {
                let reason = format!(
                    "more than {MAX_FILES} files: this one and those behind it are not read"
                );
                return Err(Refusal::input(name, reason, "give one machine's evidence at a time"));
            }
            // One refusal says it.
            std::cmp::Ordering::Greater => return Ok(()),
        }
        let Unpacked { pieces, unread } = unpacked(name, &bytes)?;
        self.unread.extend(unread.into_iter().map(|part| {
            let help = "leave that part out, give it in a form that is known here, or accept it by name in a policy's \
                        accept_unread";
            Refusal::input(&format!("{name}: {}", part.at), part.why, help)
        }));
        let files = &mut self.groups.entry(group.to_owned()).or_default().0;
        for Piece { form, bytes } in pieces {
            files.entry(form).or_default().push((name.to_owned(), bytes));
        }
        Ok(())
    }

    /// Every file of a form, of all groups.
    pub fn all(&self, form: Form) -> impl Iterator<Item = &[u8]> {
        self.groups
            .values()
            .flat_map(move |group| group.all(form))
            .map(|(_, bytes)| bytes.as_slice())
    }

    /// The names of the files of a form, and their bytes.
    pub(super) fn named(&self, form: Form) -> impl Iterator<Item = (&str, &[u8])> {
        self.groups
            .values()
            .flat_map(move |group| group.all(form))
            .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
    }

    /// The files of a form that came from the verifier's own hand.
    pub(super) fn given(&self, form: Form) -> Vec<Vec<u8>> {
        let given = self.loose(form).iter().filter(|(name, _)| self.given.contains(name));
        given.map(|(_, bytes)| bytes.clone()).collect()
    }

    /// The loose files of a form.
    pub(super) fn loose(&self, form: Form) -> &[(String, Vec<u8>)] {
        self.groups.get("").map(|group| group.all(form)).unwrap_or_default()
    }

    /// What cannot be read, less signatures over files that can be: those are left out.
    fn unreadable(&self) -> (Vec<Refusal>, Vec<Refusal>) {
        let names = || {
            self.groups
                .values()
                .flat_map(|group| group.0.values().flatten())
                .map(|(name, _)| name.as_str())
        };
        self.unread.iter().cloned().partition(|unread| !names().any(|name| signs(&unread.of, name)))
    }

    /// Verifies everything. Claims stand in the appraisal even where a policy refuses them; where a
    /// verifier does, there are none to believe.
    pub fn verify(&self, terms: &Terms) -> Appraisal {
        let (mut unread, signatures) = self.unreadable();
        let left_out = self.left_out.iter().cloned().chain(signatures).collect();
        let mut appraisal = Appraisal { left_out, ..Appraisal::default() };
        let shared = match Shared::read(self, terms) {
            Ok(shared) => shared,
            Err(refusal) => {
                return Appraisal { refusals: [vec![refusal], unread].concat(), ..appraisal };
            }
        };
        appraisal.left_out.extend(shared.unused.iter().cloned());
        let attests =
            self.groups.values().any(|group| group.0.keys().any(|form| form.is_evidence()));
        for (name, group) in &self.groups {
            let of =
                |of: &str| if name.is_empty() { of.to_owned() } else { format!("{name}: {of}") };
            let found = if attests {
                kinds::verify(group, &shared, terms)
            } else {
                kinds::vouch(group, &shared, terms)
            };
            for verified in found.verified {
                match verified {
                    Ok(submodule) => appraisal.add(shared.dated(submodule)),
                    Err(refusal) => {
                        appraisal.refusals.push(Refusal { of: of(&refusal.of), ..refusal })
                    }
                }
            }
            let names = || group.0.values().flatten().map(|(name, _)| name);
            let (signatures, alone): (Vec<_>, Vec<_>) = found
                .unread
                .into_iter()
                .partition(|unread| names().any(|name| signs(&unread.of, name)));
            unread.extend(alone);
            appraisal.left_out.extend(signatures);
        }
        if appraisal.submods.is_empty() && appraisal.refusals.is_empty() {
            let help = "give a report, a quote, a log or a token; certificates and collateral only \
                vouch for one";
            appraisal.refusals.push(Refusal::input(
                "the files",
                "there is no evidence among them",
                help,
            ));
        }
        let (accepted, refused): (Vec<_>, Vec<_>) =
            unread.into_iter().partition(|unread| terms.rules.accepts_unread(&unread.of));
        appraisal.refusals.splice(0..0, summarized(refused));
        appraisal.refusals.extend(shared.unasked.clone());
        appraisal.refusals.iter_mut().for_each(|refusal| shared.name_nonce(refusal));
        appraisal.unread = accepted;
        kinds::check_composite(&mut appraisal, &shared);
        appraisal
    }
}

/// Of many files that are refused for one reason, the first few and how many more there are.
fn summarized(refused: Vec<Refusal>) -> Vec<Refusal> {
    const NAMED: usize = 8;
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut named = Vec::new();
    for refusal in refused {
        let count = counts.entry((refusal.code.clone(), refusal.help.clone())).or_default();
        *count += 1;
        if *count <= NAMED {
            named.push(refusal);
        }
    }
    named.extend(counts.into_iter().filter(|(_, count)| *count > NAMED).map(
        |((code, help), count)| {
            let (of, reason) = (
                format!("{} more", count - NAMED),
                format!("refused as the {NAMED} named before them"),
            );
            Refusal { of, code, reason, help }
        },
    ));
    named
}

/// Everything in a file, or why it is of no use.
fn unpacked(name: &str, bytes: &[u8]) -> Result<Unpacked, Refusal> {
    let size = bytes.len();
    unpack(bytes).map_err(|error| {
        let (problem, help) = match error {
            UnpackError::Unsupported(why) => (why, "give evidence of a kind that is verified here; \
                see --help"),
            UnpackError::Unknown if size > MAX_FILE_BYTES => ("it is too long", "no evidence is \
                that long"),
            UnpackError::Unknown => (
                "it is no evidence and no collateral that is known here",
                "reports, quotes, logs, certificates, lists, manifests, tokens and key sets are told by their content, \
                 also in hex, base64 or JSON; leave other files out, or accept this one by name in a policy's \
                 accept_unread",
            ),
        };
        Refusal::input(name, format!("{problem} ({size} bytes)"), help)
    })
}
