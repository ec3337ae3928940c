//! Files, sorted by what they are.

use std::collections::{BTreeMap, BTreeSet};

use super::Refusal;
use crate::files::{Form, MAX_FILE_BYTES, Piece, UnpackError, Unpacked, is_note, signs, unpack};

/// More than any set has (8 GPUs and 4 switches of a few files each, and what vouches for them).
const MAX_FILES: usize = 256;

/// The files of one machine's evidence, and what vouches for it.
#[derive(Debug, Default)]
pub struct EvidenceSet {
    /// By group (a folder, or the loose files), then by form: name and bytes.
    pub(super) groups: BTreeMap<String, Group>,
    count: usize,
    /// The names of the files that the verifier gave.
    given: BTreeSet<String>,
    /// What was presented and is not understood.
    unread: Vec<Refusal>,
    /// What lies beside it and is not evidence.
    pub(super) left_out: Vec<Refusal>,
}

/// Files that belong together.
#[derive(Debug, Default)]
pub(super) struct Group(pub BTreeMap<Form, Vec<(String, Vec<u8>)>>);

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

    /// [`Self::one`], where nothing can be verified without it.
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

    /// Notes what lies beside the evidence, is not evidence itself, and was not used.
    pub fn leave_out(&mut self, refusal: Refusal) {
        self.left_out.push(refusal);
    }

    /// Adds a file of what vendors published, given by the verifier. Only collateral in it counts;
    /// evidence, nonces and keys do not.
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
    /// other as well, as far as they vouch for evidence and are not evidence themselves.
    ///
    /// # Errors
    /// [`Refusal`] for content of no known [`Form`], and for more than 256 files.
    pub fn add(&mut self, group: &str, name: &str, bytes: Vec<u8>) -> Result<(), Refusal> {
        self.count += 1;
        match self.count.cmp(&(MAX_FILES + 1)) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => {
                let reason = format!(
                    "more than {MAX_FILES} files: this one and those after it are not read"
                );
                return Err(Refusal::input(name, reason, "give one machine's evidence at a time"));
            }
            // One refusal says it.
            std::cmp::Ordering::Greater => return Ok(()),
        }
        let Unpacked { pieces, unread } = unpacked(name, &bytes)?;
        self.unread.extend(unread.into_iter().map(|part| {
            let help = "leave that part out, give it in a form that is known here, or accept it by \
                name in a policy's accept_unread";
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

    /// The files of a form that the verifier gave.
    pub(super) fn given_by_the_verifier(&self, form: Form) -> Vec<Vec<u8>> {
        let given = self.loose(form).iter().filter(|(name, _)| self.given.contains(name));
        given.map(|(_, bytes)| bytes.clone()).collect()
    }

    /// The loose files of a form.
    pub(super) fn loose(&self, form: Form) -> &[(String, Vec<u8>)] {
        self.groups.get("").map(|group| group.all(form)).unwrap_or_default()
    }

    /// What cannot be read, and apart from it signatures over files that can be read.
    pub(super) fn unreadable(&self) -> (Vec<Refusal>, Vec<Refusal>) {
        let names = || {
            self.groups
                .values()
                .flat_map(|group| group.0.values().flatten())
                .map(|(name, _)| name.as_str())
        };
        self.unread.iter().cloned().partition(|unread| !names().any(|name| signs(&unread.of, name)))
    }
}

/// Everything in a file, or why it cannot be used.
fn unpacked(name: &str, bytes: &[u8]) -> Result<Unpacked, Refusal> {
    let size = bytes.len();
    unpack(bytes).map_err(|error| {
        let (problem, help) = match error {
            UnpackError::Unsupported(why) => (
                why,
                "give evidence of a kind that is verified here; \
                see --help",
            ),
            UnpackError::Unknown if size > MAX_FILE_BYTES => (
                "it is too long",
                "no evidence is \
                that long",
            ),
            UnpackError::Unknown => (
                "it is neither evidence nor collateral that is known here",
                "reports, quotes, logs, certificates, lists, manifests, tokens and key sets are \
                 told by their content, also in hex, base64 or JSON; leave other files out, or \
                 accept this one by name in a policy's accept_unread",
            ),
        };
        Refusal::input(name, format!("{problem} ({size} bytes)"), help)
    })
}
