//! The XML signature of a manifest: XMLDSig 1.1, in the one profile that NVIDIA signs with.
//!
//! The profile: one `ds:Signature`, the last child of the root, with `SignedInfo`,
//! `SignatureValue`, `KeyInfo` and nothing else; C14N 1.1; ECDSA P-384 with SHA-384; one
//! `Reference` with the URI "" (the whole document), the transforms enveloped-signature and C14N
//! 1.1, digest SHA-384; `KeyInfo` with certificates only. Anything else is refused: no other
//! algorithm (no HMAC, no RSA, no `none`), no key in the document, no `Object`, `Id`, XPath or
//! XSLT. As the reference can only mean the whole document, and what is read afterwards comes from
//! the same parsed tree, a signature cannot be wrapped around something else.
//!
//! Why not the crate `bergshamra` 0.11.1: it brings 90 crates and 25 000 lines of its own
//! (encryption, HMAC, PKCS#11, a command line and an XML parser) for a profile of one page; the
//! strictness above would still have to be checked around it.

use base64::{Engine, engine::general_purpose::STANDARD};
use roxmltree::{Document, Node};

use super::canonical::{Problem, canonicalize};
use crate::x509::{Certificate, MAX_CERTIFICATES};

pub(super) const DSIG: &str = "http://www.w3.org/2000/09/xmldsig#";
const C14N_1_1: &str = "http://www.w3.org/2006/12/xml-c14n11";
const ECDSA_SHA384: &str = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384";
const SHA384: &str = "http://www.w3.org/2001/04/xmldsig-more#sha384";
const ENVELOPED: &str = "http://www.w3.org/2000/09/xmldsig#enveloped-signature";

/// A signature as it is in a document, and what must be checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Signature {
    /// Canonical `SignedInfo`: what was signed.
    pub signed_info: Vec<u8>,
    /// r ‖ s.
    pub value: Vec<u8>,
    /// The digest that `SignedInfo` states.
    pub digest: Vec<u8>,
    /// The canonical document without the signature: what that digest is of.
    pub signed: Vec<u8>,
    /// Out of `KeyInfo`, in its order.
    pub certificates: Vec<Certificate>,
}

/// Reads a document's signature.
pub(super) fn read(document: &Document<'_>) -> Result<Signature, Problem> {
    let root = document.root_element();
    let mut signatures =
        document.descendants().filter(|node| node.tag_name().name() == "Signature");
    let (Some(signature), None) = (signatures.next(), signatures.next()) else {
        return Err("not exactly one Signature".into());
    };
    if root.last_element_child() != Some(signature)
        || signature.tag_name().namespace() != Some(DSIG)
    {
        return Err("the ds:Signature is not the last child of the root".into());
    }
    let [signed_info, value, key_info] =
        children(signature, ["SignedInfo", "SignatureValue", "KeyInfo"])?;
    let [canonicalization, method, reference] =
        children(signed_info, ["CanonicalizationMethod", "SignatureMethod", "Reference"])?;
    algorithm(canonicalization, C14N_1_1)?;
    algorithm(method, ECDSA_SHA384)?;
    attributes(reference, &[("URI", "")])?;
    let [transforms, digest_method, digest] =
        children(reference, ["Transforms", "DigestMethod", "DigestValue"])?;
    let [enveloped, c14n] = children(transforms, ["Transform", "Transform"])?;
    algorithm(enveloped, ENVELOPED)?;
    algorithm(c14n, C14N_1_1)?;
    algorithm(digest_method, SHA384)?;
    for plain in [signature, signed_info, value, key_info, transforms, digest] {
        attributes(plain, &[])?;
    }
    Ok(Signature {
        signed_info: canonicalize(signed_info, None)?,
        value: base64(value)?,
        digest: base64(digest)?,
        signed: canonicalize(root, Some(signature))?,
        certificates: certificates(key_info)?,
    })
}

fn certificates(key_info: Node<'_, '_>) -> Result<Vec<Certificate>, Problem> {
    let [data] = children(key_info, ["X509Data"])?;
    attributes(data, &[])?;
    let mut certificates = Vec::new();
    for element in elements(data)? {
        if element.tag_name() != (DSIG, "X509Certificate").into()
            || certificates.len() == MAX_CERTIFICATES
        {
            return Err(format!(
                "X509Data holds something other than at most {MAX_CERTIFICATES} certificates"
            ));
        }
        attributes(element, &[])?;
        certificates.push(Certificate::from_der(&base64(element)?).map_err(|e| e.to_string())?);
    }
    Ok(certificates)
}

/// The child elements, which must be these, in DSIG's namespace and in this order, with only space
/// between.
fn children<'a, 'i, const N: usize>(
    of: Node<'a, 'i>,
    names: [&str; N],
) -> Result<[Node<'a, 'i>; N], Problem> {
    let found = elements(of)?;
    let wrong = || format!("{} does not hold exactly {}", of.tag_name().name(), names.join(", "));
    let found: [Node<'_, '_>; N] = found.try_into().map_err(|_| wrong())?;
    let right = |(node, name): (&Node<'_, '_>, &&str)| node.tag_name() == (DSIG, *name).into();
    if found.iter().zip(&names).all(right) { Ok(found) } else { Err(wrong()) }
}

/// The child elements, with only space between.
pub(super) fn elements<'a, 'i>(of: Node<'a, 'i>) -> Result<Vec<Node<'a, 'i>>, Problem> {
    let text =
        |child: &Node<'_, '_>| child.text().is_some_and(|text| !text.trim_ascii().is_empty());
    if of.children().any(|child| child.is_text() && text(&child)) {
        return Err(format!("{} holds text", of.tag_name().name()));
    }
    Ok(of.children().filter(Node::is_element).collect())
}

fn algorithm(of: Node<'_, '_>, expected: &str) -> Result<(), Problem> {
    if of.has_children() {
        return Err(format!("{} has parameters", of.tag_name().name()));
    }
    attributes(of, &[("Algorithm", expected)])
}

/// An element must have these attributes, without a namespace, and no other.
fn attributes(of: Node<'_, '_>, expected: &[(&str, &str)]) -> Result<(), Problem> {
    let found: Vec<_> = of.attributes().map(|a| (a.namespace(), a.name(), a.value())).collect();
    let expected: Vec<_> = expected.iter().map(|(name, value)| (None, *name, *value)).collect();
    if found == expected {
        return Ok(());
    }
    let shown: Vec<String> =
        found.iter().map(|(_, name, value)| format!("{name}={value:.80}")).collect();
    Err(format!(
        "{} has the attributes [{}], expected {expected:?}",
        of.tag_name().name(),
        shown.join(", ")
    ))
}

fn base64(of: Node<'_, '_>) -> Result<Vec<u8>, Problem> {
    let name = of.tag_name().name();
    if of.children().any(|child| !child.is_text()) || of.children().count() > 1 {
        return Err(format!("{name} holds more than one text"));
    }
    let text: Vec<u8> =
        of.text().unwrap_or_default().bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    STANDARD.decode(text).map_err(|e| format!("{name} is not base64: {e}"))
}
