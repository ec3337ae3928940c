//! The platform's certificate (PCK): what Intel says about a machine (SGX PCK Certificate and CRL
//! Profile Specification, §1.3.5).

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use cvm_base::Bytes;
use x509_cert::der::{
    Decode as _, Error, Reader as _, SliceReader,
    asn1::{AnyRef, ObjectIdentifier},
};

use super::TdxError;
use crate::x509::{Certificate, Path, X509Error};

const SGX_EXTENSION: &str = "1.2.840.113741.1.13.1";
const PPID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1.1");
const TCB: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1.2");
const PCE_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1.3");
const FMSPC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1.4");
const SGX_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1.5");
const PLATFORM_INSTANCE_ID: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1.6");
const CONFIGURATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1.7");
const DYNAMIC_PLATFORM: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1.7.1");
const CACHED_KEYS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1.7.2");
const SMT_ENABLED: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1.7.3");
/// The security versions of components 1 to 16 are 2.1 to 2.16; these follow.
const PCE_SVN: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113741.1.13.1.2.17");

/// A real chain has 4 KiB.
const MAX_CHAIN_BYTES: usize = 64 * 1024;
/// More entries than the extension or a part of it has.
const MAX_ENTRIES: usize = 64;

/// What the certificate's SGX extension says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PckExtension {
    pub(super) ppid: Bytes<16>,
    /// The SGX TCB components' security versions.
    pub(super) components: [u8; 16],
    pub(super) pce_svn: u16,
    pub(super) pce_id: Bytes<2>,
    pub(super) fmspc: Bytes<6>,
    pub(super) sgx_type: u8,
    pub(super) platform_instance_id: Option<Bytes<16>>,
    pub(super) dynamic_platform: Option<bool>,
    pub(super) cached_keys: Option<bool>,
    pub(super) smt_enabled: Option<bool>,
}

/// A platform's certificate whose chain was verified.
#[derive(Debug)]
pub(super) struct Pck {
    key: Vec<u8>,
    pub(super) extension: PckExtension,
    /// First and last second at which the whole chain is valid.
    pub(super) validity: (u64, u64),
}

impl Pck {
    /// Verifies `chain`: the PCK certificate, the CA above it, and one of the roots.
    ///
    /// With lists, both certificates must be covered by one of them; without, revocation is not
    /// checked.
    pub(super) fn verify(
        chain: &[u8],
        roots: &[Certificate],
        crls: &[Vec<u8>],
        now: u64,
    ) -> Result<Self, TdxError> {
        if chain.len() > MAX_CHAIN_BYTES {
            let found = chain.len();
            return Err(TdxError::pck(format!(
                "a chain of {found} bytes, at most {MAX_CHAIN_BYTES} allowed"
            )));
        }
        let cause = |cause| TdxError::Chain { what: "the platform's certificate (PCK)", cause };
        let chain = read_chain(chain).map_err(cause)?;
        let [leaf, ca, top] = &chain[..] else {
            return Err(TdxError::pck(format!(
                "a chain of {} certificates, expected 3",
                chain.len()
            )));
        };
        if !roots.contains(top) {
            return Err(TdxError::pck(format!(
                "its chain ends in {}, which is not a trusted root",
                top.subject()
            )));
        }
        for (certificate, phrase) in [(leaf, "SGX PCK Certificate"), (ca, "SGX PCK ")] {
            if !certificate.subject().contains(phrase) {
                return Err(TdxError::pck(format!("{} is not an {phrase}", certificate.subject())));
            }
        }
        let path = Path {
            intermediates: std::slice::from_ref(ca),
            roots: std::slice::from_ref(top),
            crls,
        };
        let root =
            if crls.is_empty() { path.verify(leaf, now) } else { path.verify_unrevoked(leaf, now) };
        let root = root.map_err(cause)?;
        let validity = [leaf, ca, root].map(Certificate::validity);
        Ok(Self {
            key: leaf.public_key().to_vec(),
            extension: sgx_extension(leaf)?,
            validity: validity.iter().fold((0, u64::MAX), |(from, until), dates| {
                (from.max(dates.0), until.min(dates.1))
            }),
        })
    }

    /// Whether the platform's key signed the quoting enclave's report.
    pub(super) fn check_signature(
        &self,
        report: &[u8; 384],
        signature: &[u8; 64],
    ) -> Result<(), TdxError> {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.key)
            .verify(report, signature)
            .map_err(|_| TdxError::Signature {
                what: "the quoting enclave's report",
                key: "the platform's key (PCK)",
            })
    }
}

/// The FMSPC (the family of platforms) of a PCK certificate that is not yet believed: TCB info is
/// filed under it.
///
/// # Errors
/// [`TdxError::Pck`] for a certificate without it.
pub fn fmspc(pck: &Certificate) -> Result<[u8; 6], TdxError> {
    Ok(sgx_extension(pck)?.fmspc.0)
}

pub(super) fn sgx_extension(pck: &Certificate) -> Result<PckExtension, TdxError> {
    let extension = pck.extension(SGX_EXTENSION).map_err(TdxError::pck)?;
    PckExtension::parse(extension.ok_or_else(|| TdxError::pck("no SGX extension"))?)
}

/// The certificates of a chain in PEM; some end in a NUL.
pub(super) fn read_chain(pem: &[u8]) -> Result<Vec<Certificate>, X509Error> {
    Certificate::read_all(pem.strip_suffix(&[0]).unwrap_or(pem))
}

impl PckExtension {
    pub(super) fn parse(der: &[u8]) -> Result<Self, TdxError> {
        let fail = |e: Error| TdxError::pck(format!("its SGX extension: {e}"));
        let extension = Entries::parse(der).map_err(fail)?;
        let bytes = |oid| extension.required(oid).map(|value| value.value());
        let tcb = Entries::of(extension.required(TCB)?).map_err(fail)?;
        let mut components = [0; 16];
        for (component, arc) in components.iter_mut().zip(1..) {
            let oid = TCB.push_arc(arc).map_err(|e| TdxError::pck(e.to_string()))?;
            *component = tcb.required(oid)?.decode_as().map_err(fail)?;
        }
        let configuration = extension
            .optional(CONFIGURATION)
            .map(Entries::of)
            .transpose()
            .map_err(fail)?
            .unwrap_or_default();
        let flag = |oid| {
            configuration.optional(oid).map(|value| value.value().iter().any(|byte| *byte != 0))
        };
        Ok(Self {
            ppid: fixed("PPID", bytes(PPID)?)?,
            components,
            pce_svn: tcb.required(PCE_SVN)?.decode_as().map_err(fail)?,
            pce_id: fixed("PCE id", bytes(PCE_ID)?)?,
            fmspc: fixed("FMSPC", bytes(FMSPC)?)?,
            sgx_type: fixed::<1>("SGX type", bytes(SGX_TYPE)?)?.0[0],
            platform_instance_id: extension
                .optional(PLATFORM_INSTANCE_ID)
                .map(|value| fixed("platform instance id", value.value()))
                .transpose()?,
            dynamic_platform: flag(DYNAMIC_PLATFORM),
            cached_keys: flag(CACHED_KEYS),
            smt_enabled: flag(SMT_ENABLED),
        })
    }
}

/// SEQUENCE OF SEQUENCE { id, value }, each id once.
#[derive(Default)]
struct Entries<'a>(Vec<(ObjectIdentifier, AnyRef<'a>)>);

impl<'a> Entries<'a> {
    fn parse(der: &'a [u8]) -> Result<Self, Error> {
        Self::of(AnyRef::from_der(der)?)
    }

    fn of(sequence: AnyRef<'a>) -> Result<Self, Error> {
        use x509_cert::der::{ErrorKind, Tag, Tagged as _};
        sequence.tag().assert_eq(Tag::Sequence)?;
        let mut reader = SliceReader::new(sequence.value())?;
        let mut entries: Vec<(ObjectIdentifier, AnyRef<'a>)> = Vec::new();
        while !reader.is_finished() {
            let entry = AnyRef::decode(&mut reader)?;
            entry.tag().assert_eq(Tag::Sequence)?;
            let mut fields = SliceReader::new(entry.value())?;
            let (id, value) =
                (ObjectIdentifier::decode(&mut fields)?, AnyRef::decode(&mut fields)?);
            if !fields.is_finished()
                || entries.len() == MAX_ENTRIES
                || entries.iter().any(|(known, _)| *known == id)
            {
                return Err(ErrorKind::Value { tag: Tag::Sequence }.into());
            }
            entries.push((id, value));
        }
        Ok(Self(entries))
    }

    fn optional(&self, id: ObjectIdentifier) -> Option<AnyRef<'a>> {
        self.0.iter().find(|(found, _)| *found == id).map(|(_, value)| *value)
    }

    fn required(&self, id: ObjectIdentifier) -> Result<AnyRef<'a>, TdxError> {
        self.optional(id).ok_or_else(|| TdxError::pck(format!("its SGX extension has no {id}")))
    }
}

fn fixed<const N: usize>(what: &str, bytes: &[u8]) -> Result<Bytes<N>, TdxError> {
    bytes
        .try_into()
        .map(Bytes)
        .map_err(|_| TdxError::pck(format!("its {what} has {} bytes, expected {N}", bytes.len())))
}
