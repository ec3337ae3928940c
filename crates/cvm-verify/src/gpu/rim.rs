//! Reference integrity manifests: NVIDIA's golden values for a driver or a VBIOS, a signed SWID
//! tag.
//!
//! ISO/IEC 19770-2:2015 in TCG's Reference Integrity Manifest profile, as NVIDIA writes it. What is
//! read is held to that form exactly (in place of the schema validation of NVIDIA's SDK): root,
//! `Entity`, `Meta`, `Payload` of `Resource`s, signature; unknown attributes of a measurement are
//! refused.

use std::collections::BTreeMap;

use aws_lc_rs::{
    digest,
    signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey},
};
use roxmltree::Node;

use super::{
    GpuError, Mismatch, Roots, Source, canonical,
    chain::{Chain, TrustedPath},
    report::Report,
    xmldsig::{self, elements},
};

const SWID: &str = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd";
const TCG_RIM: &str = "https://trustedcomputinggroup.org/resource/\
    tcg-reference-integrity-manifest-rim-information-model/";
/// The namespace of the `HashN` attributes.
const SHA384: &str = "http://www.w3.org/2001/04/xmlenc#sha384";
/// The longest list of alternatives known has 4.
const MAX_ALTERNATIVES: usize = 64;
/// The measurement that nobody vouches for where decoder 0 is fused off.
const NVDEC0_MEASUREMENT: u8 = 35;

/// A manifest that was read, and not yet believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rim {
    id: Option<String>,
    version: String,
    product: String,
    manufacturer_id: String,
    /// By index, counted from 0; only those that must match.
    golden: BTreeMap<u8, Golden>,
    signature: xmldsig::Signature,
    chain: Chain,
}

/// What a measurement may be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Golden {
    name: String,
    alternatives: Vec<Vec<u8>>,
}

impl Rim {
    /// Reads a manifest. `id` is the name under which NVIDIA's service gave it out, if that is
    /// known.
    ///
    /// # Errors
    /// [`GpuError::RimSignature`] for XML or a signature outside of the profile,
    /// [`GpuError::Malformed`] for content outside of it, [`GpuError::Chain`] for certificates that
    /// form no chain.
    pub fn parse(xml: &[u8], id: Option<&str>) -> Result<Self, GpuError> {
        let label = id.unwrap_or("(not named)");
        let unsigned =
            |problem| GpuError::RimSignature { rim: label.chars().take(80).collect(), problem };
        let malformed =
            |problem: String| GpuError::Malformed { what: "reference manifest", problem };
        let document = canonical::read(xml).map_err(unsigned)?;
        let mut signature = xmldsig::read(&document).map_err(unsigned)?;
        let root = document.root_element();
        let children = elements(root).map_err(malformed)?;
        let mut names = children.iter().map(|child| child.tag_name().name()).collect::<Vec<_>>();
        names.dedup_by(|a, b| a == b && *a == "Entity");
        if root.tag_name() != (SWID, "SoftwareIdentity").into()
            || names != ["Entity", "Meta", "Payload", "Signature"]
        {
            return Err(malformed(format!("{} of {}", root.tag_name().name(), names.join(", "))));
        }
        let child = |name: &str| {
            let mut found = children.iter().filter(|node| node.tag_name() == (SWID, name).into());
            found.next().copied().ok_or_else(|| malformed(format!("no {name} of ISO 19770-2")))
        };
        let meta = child("Meta")?;
        let text = |name: &str| attribute(meta, (None, name)).map_err(malformed);
        let certificates = std::mem::take(&mut signature.certificates);
        Ok(Self {
            id: id.map(str::to_owned),
            version: text("colloquialVersion")?,
            product: text("product")?,
            manufacturer_id: attribute(meta, (Some(TCG_RIM), "FirmwareManufacturerId"))
                .map_err(malformed)?,
            golden: payload(child("Payload")?).map_err(malformed)?,
            chain: Chain::new(label, certificates)?,
            signature,
        })
    }

    /// The driver's or VBIOS's version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The chip: `GH100`, `LS10`, ….
    pub fn product(&self) -> &str {
        &self.product
    }

    /// The name under which NVIDIA's service gave it out, if that is known.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// IANA's enterprise number of the maker of the firmware: NVIDIA's is 5703.
    pub fn manufacturer_id(&self) -> &str {
        &self.manufacturer_id
    }

    /// How many measurements must match.
    pub fn golden_values(&self) -> usize {
        self.golden.len()
    }

    /// The measurements of a report that differ from this manifest's golden values. This is not a
    /// verdict: neither need be genuine, nor does an empty answer say that the manifest is the
    /// report's.
    pub fn compare(&self, report: &Report, source: Source) -> Result<Vec<Mismatch>, GpuError> {
        let exempt = report.opaque.nvdec0_disabled()?;
        let mut mismatches = Vec::new();
        for (index, golden) in &self.golden {
            // SPDM counts from 1, manifests from 0.
            let measured = index.checked_add(1).and_then(|index| report.measurements().get(&index));
            let matches = measured.is_some_and(|measured| golden.alternatives.contains(measured));
            if matches || (exempt && *index == NVDEC0_MEASUREMENT) {
                continue;
            }
            let first = golden.alternatives.first();
            mismatches.push(Mismatch {
                index: *index,
                golden_size: first.map_or(0, Vec::len),
                golden_value: first.map_or_else(String::new, hex::encode),
                runtime_size: measured.map_or(0, Vec::len),
                runtime_value: measured.map_or_else(|| "NA".into(), hex::encode),
                measurement_source: source,
                name: golden.name.clone(),
            });
        }
        Ok(mismatches)
    }

    /// Checks signature and chain at `now`, as whoever puts manifests into a cache does.
    ///
    /// # Errors
    /// [`GpuError::RimSignature`] or [`GpuError::Chain`].
    pub fn check(&self, roots: &Roots, now: u64) -> Result<(), GpuError> {
        self.verify(roots, &[], now).map(drop)
    }

    /// A measurement that both hold: then neither says what it must be.
    pub(super) fn conflict(&self, other: &Self) -> Option<u8> {
        self.golden.keys().copied().find(|index| other.golden.contains_key(index))
    }

    /// Which one, for errors.
    pub(super) fn label(&self) -> String {
        self.id.clone().unwrap_or_else(|| format!("{} {}", self.product, self.version))
    }

    pub(super) fn verify(
        &self,
        roots: &Roots,
        crls: &[Vec<u8>],
        now: u64,
    ) -> Result<TrustedPath, GpuError> {
        let unsigned =
            |problem: &str| GpuError::RimSignature { rim: self.label(), problem: problem.into() };
        if digest::digest(&digest::SHA384, &self.signature.signed).as_ref()
            != self.signature.digest.as_slice()
        {
            return Err(unsigned("its content does not hash to the digest that was signed"));
        }
        let key = UnparsedPublicKey::new(
            &ECDSA_P384_SHA384_FIXED,
            self.chain.leaf.certificate.public_key(),
        );
        key.verify(&self.signature.signed_info, &self.signature.value)
            .map_err(|_| unsigned("the signature does not verify under its certificate's key"))?;
        self.chain.verify(&format!("manifest {}", self.label()), &roots.rim, crls, now)
    }
}

fn payload(payload: Node<'_, '_>) -> Result<BTreeMap<u8, Golden>, String> {
    let mut golden = BTreeMap::new();
    let mut seen = [false; 256];
    for resource in elements(payload)? {
        if resource.tag_name() != (SWID, "Resource").into() || resource.has_children() {
            return Err(format!("Payload holds {}", resource.tag_name().name()));
        }
        let (index, active, value) = measurement(resource)?;
        match seen.get_mut(usize::from(index)) {
            Some(seen) if !*seen => *seen = true,
            _ => return Err(format!("measurement {index} is there twice")),
        }
        if active {
            golden.insert(index, value);
        }
    }
    if golden.is_empty() { Err("no golden values".into()) } else { Ok(golden) }
}

fn measurement(resource: Node<'_, '_>) -> Result<(u8, bool, Golden), String> {
    let text = |name| attribute(resource, (None, name));
    let number =
        |name| text(name)?.parse::<u8>().map_err(|_| format!("{name} is not a number up to 255"));
    if text("type")? != "Measurement" {
        return Err("a Resource that is not a Measurement".into());
    }
    let (index, alternatives, size) =
        (number("index")?, usize::from(number("alternatives")?), number("size")?);
    let active = match text("active")?.as_str() {
        "True" => true,
        "False" => false,
        other => return Err(format!("measurement {index} is {other:?}, neither True nor False")),
    };
    if alternatives == 0 || alternatives > MAX_ALTERNATIVES {
        return Err(format!("measurement {index} has {alternatives} alternatives"));
    }
    // Exactly these attributes: a Hash beyond the stated number, or anything else, would be read by
    // some only.
    if resource.attributes().len() != 6 + alternatives {
        return Err(format!("measurement {index} has attributes of no known meaning"));
    }
    let hash = |at: usize| {
        let hash = hex::decode(attribute(resource, (Some(SHA384), &format!("Hash{at}")))?);
        hash.ok()
            .filter(|hash| hash.len() == usize::from(size))
            .ok_or(format!("Hash{at} is not of {size} bytes"))
    };
    let alternatives = (0..alternatives).map(hash).collect::<Result<_, _>>()?;
    Ok((index, active, Golden { name: text("name")?, alternatives }))
}

fn attribute(of: Node<'_, '_>, (namespace, name): (Option<&str>, &str)) -> Result<String, String> {
    let mut found = of.attributes().filter(|a| a.namespace() == namespace && a.name() == name);
    let value =
        found.next().map(|a| a.value()).filter(|value| !value.is_empty() && value.len() <= 256);
    value.map(str::to_owned).ok_or_else(|| format!("{} has no usable {name}", of.tag_name().name()))
}
