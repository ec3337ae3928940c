//! What judges evidence, and who gave it: the verifier, or whoever presents the evidence.
//!
//! A vendor's certificates, lists and manifests may come with the evidence, because the vendor
//! signed them. A nonce, a token's keys and its issuer may not: whoever made the evidence may have
//! made them too.

use super::{Enclosed, EvidenceSet, Refusal, Terms, submodule::Submodule};
use crate::{
    NotChecked,
    files::{Form, UnpackError, unpack},
    gpu::Roots as GpuRoots,
    snp::SnpRoots,
    x509::{Certificate, X509Error},
};

/// What vouches for evidence, of whichever group, and what it must answer.
pub(super) struct Shared {
    pub(super) certificates: Vec<Certificate>,
    pub(super) crls: Vec<Vec<u8>>,
    pub(super) ocsp: Vec<Vec<u8>>,
    pub(super) rims: Vec<Vec<u8>>,
    pub(super) dcap: Vec<Vec<u8>>,
    pub(super) tcb_infos: Vec<Vec<u8>>,
    pub(super) qe_identities: Vec<Vec<u8>>,
    /// Those of the last three that the verifier gave: they come first.
    pub(super) given: [Vec<Vec<u8>>; 3],
    /// Whose signatures on tokens count.
    pub(super) keys: Vec<Vec<u8>>,
    pub(super) keys_from: From,
    pub(super) roots: Option<Vec<Certificate>>,
    /// Where the user's roots are not of AMD's form, SNP evidence is refused, and nothing else.
    pub(super) snp_roots: Result<SnpRoots, Refusal>,
    pub(super) gpu_roots: GpuRoots,
    /// The one nonce's possible bytes, hex first.
    pub(super) nonces: Vec<Vec<u8>>,
    nonce_from: From,
    /// What came with the evidence, was needed, and does not count.
    pub(super) unasked: Option<Refusal>,
    /// What came with the evidence, and was not needed.
    pub(super) unused: Vec<Refusal>,
}

/// Who gave something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    /// Nobody.
    Nobody,
    /// The verifier.
    Verifier,
    /// Whoever presents the evidence, and the verifier accepts that.
    Evidence,
    /// Whoever presents the evidence, and nobody said that it counts.
    EvidenceUnasked,
}

impl From {
    fn of(given: bool, enclosed: bool, wanted: bool) -> Self {
        match (given, enclosed, wanted) {
            (true, ..) => Self::Verifier,
            (false, false, _) => Self::Nobody,
            (false, true, true) => Self::Evidence,
            (false, true, false) => Self::EvidenceUnasked,
        }
    }
}

impl Shared {
    /// The nonce as a TPM answers it: whole, or its first 32 bytes, which is all that this
    /// program's own guests put into a quote (see [`cvm_evidence::tpm_nonce`]).
    pub(super) fn quoted_nonces(&self) -> Vec<Vec<u8>> {
        let short = self.nonces.iter().filter_map(|nonce| nonce.first_chunk::<32>());
        self.nonces.iter().cloned().chain(short.map(|nonce| nonce.to_vec())).collect()
    }

    /// Adds the nonce's text to a refusal that shows its bytes, where it was given as a text.
    pub(super) fn name_nonce(&self, refusal: &mut Refusal) {
        let text = self.nonces.first().filter(|nonce| !nonce.is_empty());
        let Some(text) =
            text.and_then(|nonce| Some((std::str::from_utf8(nonce).ok()?, hex::encode(nonce))))
        else {
            return;
        };
        if self.nonces.len() == 1 && refusal.reason.contains(&text.1) {
            refusal
                .reason
                .push_str(&format!(" ({:?}, the nonce given, is {} in hex)", text.0, text.1));
        }
    }

    /// Notes in the claims that nobody knows how old the evidence is, unless it answers the
    /// verifier's nonce.
    pub(super) fn dated(&self, mut submodule: Submodule) -> Submodule {
        let reason = match self.nonce_from {
            From::Verifier => return submodule,
            From::Evidence => "the nonce came with the evidence: its freshness was not checked",
            From::Nobody | From::EvidenceUnasked => "no nonce was given: freshness was not checked",
        };
        let claims = &mut submodule.claims;
        if claims.attests() && !claims.not_checked().iter().any(|entry| entry.check == "nonce") {
            claims.not_checked_mut().push(NotChecked::new("nonce", reason));
        }
        submodule
    }

    pub(super) fn read(set: &EvidenceSet, terms: &Terms) -> Result<Self, Refusal> {
        let all = |form| set.all(form).map(<[u8]>::to_vec).collect::<Vec<_>>();
        let refused = |name: &str, e: &X509Error| Refusal::new(name, e);
        let mut certificates = Vec::new();
        for (name, bytes) in set.loose(Form::Certificates) {
            certificates.extend(Certificate::read_all(bytes).map_err(|e| refused(name, &e))?);
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
        let (nonces, nonce_from, unasked, unused) = nonce(set, terms)?;
        let (keys, keys_from) = keys(set, terms)?;
        let unused = unused.into_iter().chain(unused_keys(set, keys_from)).collect();
        Ok(Self {
            certificates,
            crls: all(Form::Crl),
            ocsp: all(Form::Ocsp),
            rims: all(Form::Rim),
            dcap: all(Form::DcapCollateral),
            tcb_infos: all(Form::TcbInfo),
            qe_identities: all(Form::QeIdentity),
            given: [Form::DcapCollateral, Form::TcbInfo, Form::QeIdentity]
                .map(|form| set.given_by_the_verifier(form)),
            keys,
            keys_from,
            roots,
            snp_roots,
            gpu_roots,
            nonces,
            nonce_from,
            unasked,
            unused,
        })
    }
}

type Nonce = (Vec<Vec<u8>>, From, Option<Refusal>, Vec<Refusal>);

/// The nonce that everything must answer: the verifier's, or the only one among the evidence, if it
/// may count.
fn nonce(set: &EvidenceSet, terms: &Terms) -> Result<Nonce, Refusal> {
    let text =
        |bytes: &[u8]| std::str::from_utf8(bytes).unwrap_or_default().trim().to_ascii_lowercase();
    let enclosed: Vec<(&str, String)> =
        set.named(Form::Nonce).map(|(name, bytes)| (name, text(bytes))).collect();
    let from = From::of(terms.nonce.is_some(), !enclosed.is_empty(), terms.enclosed.nonce);
    match (from, &terms.nonce, &enclosed[..]) {
        (From::Verifier, Some(given), _) => {
            let given = given.trim();
            if given.is_empty() {
                let help = "a nonce is what makes evidence fresh: give the one that the machine \
                    was asked with";
                return Err(Refusal::input("the nonce", "it is empty", help));
            }
            let others = enclosed.iter().filter(|(_, text)| !text.eq_ignore_ascii_case(given));
            Ok((forms(given), from, None, others.map(|(name, _)| another_nonce(name)).collect()))
        }
        (From::Evidence, _, [(name, text), ..]) => {
            match enclosed.iter().find(|(_, other)| other != text) {
                Some((other, _)) => Err(two_nonces(name, other)),
                None => Ok((forms(text), from, None, vec![])),
            }
        }
        (From::EvidenceUnasked, _, [(name, _), ..]) => {
            Ok((vec![], from, Some(unasked_nonce(name)), vec![]))
        }
        _ => Ok((vec![], From::Nobody, None, vec![])),
    }
}

/// A nonce as people type it: hex, or the text's own bytes.
fn forms(text: &str) -> Vec<Vec<u8>> {
    let bytes = hex::decode(text).ok().filter(|bytes| !bytes.is_empty());
    bytes.into_iter().chain([text.as_bytes().to_vec()]).collect()
}

fn another_nonce(name: &str) -> Refusal {
    let reason = "it came with the evidence and is another nonce than the one given";
    let help = "if the machine was asked with that one, give it with --nonce";
    Refusal::input(name, reason, help)
}

fn two_nonces(name: &str, other: &str) -> Refusal {
    let reason =
        format!("{name} and {other} hold two nonces, and one machine's evidence answers one");
    let help = "give --nonce, the one that the machine was asked with";
    Refusal::policy("the nonce", UNASKED_NONCE, reason, help)
}

fn unasked_nonce(name: &str) -> Refusal {
    let reason = format!(
        "{name} came with the evidence, and no nonce was given: whoever replays evidence brings \
         its nonce"
    );
    let help = "give --nonce, the one that the machine was asked with; --nonce-from-evidence \
        believes the one that came along, which says nothing of freshness";
    Refusal::policy("the nonce", UNASKED_NONCE, reason, help)
}

/// A nonce came with the evidence.
const UNASKED_NONCE: &str = "ATT-420";

/// The keys that tokens are verified with.
fn keys(set: &EvidenceSet, terms: &Terms) -> Result<(Vec<Vec<u8>>, From), Refusal> {
    let mut given = Vec::new();
    for bytes in &terms.keys {
        let unreadable = |why: &str| {
            let help = "give the issuer's JWKS, or its public key in PEM";
            Refusal::input("the token keys", format!("{why} ({} bytes)", bytes.len()), help)
        };
        let unknown = || unreadable("no key set and no public key");
        let found = unpack(bytes).map_err(|error| match error {
            UnpackError::Unsupported(why) => unreadable(why),
            UnpackError::Unknown => unknown(),
        })?;
        let before = given.len();
        given.extend(
            found.pieces.into_iter().filter(|piece| piece.form.is_key()).map(|piece| piece.bytes),
        );
        if given.len() == before {
            return Err(unknown());
        }
    }
    let enclosed: Vec<_> =
        [Form::Jwks, Form::PublicKey].into_iter().flat_map(|form| set.all(form)).collect();
    let Enclosed { keys: wanted, .. } = terms.enclosed;
    let from = From::of(!terms.keys.is_empty(), !enclosed.is_empty(), wanted);
    match from {
        From::Verifier => Ok((given, from)),
        From::Evidence => Ok((enclosed.into_iter().map(<[u8]>::to_vec).collect(), from)),
        From::Nobody | From::EvidenceUnasked => Ok((vec![], from)),
    }
}

/// Key sets that came with the evidence, where others were given.
fn unused_keys(set: &EvidenceSet, from: From) -> Vec<Refusal> {
    let named = set.named(Form::Jwks).filter(|_| from == From::Verifier);
    let note = |(name, _): (&str, &[u8])| {
        let help = "if the issuer's keys are those, give them with --jwks";
        Refusal::input(name, "a key set that came with the evidence: those given count alone", help)
    };
    named.map(note).collect()
}
