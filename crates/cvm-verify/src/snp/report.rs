//! The attestation report (SEV-SNP ABI 56860, §7.3, table `ATTESTATION_REPORT`).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Product, SigningKey, SnpError};

/// A report's size, of every version.
pub const REPORT_BYTES: usize = 1184;
/// What is signed: everything in front of the signature.
pub(super) const SIGNED_BYTES: usize = 0x2a0;
/// The bits of `PLATFORM_INFO` that have a meaning: 0 to 5 and 7.
const PLATFORM_BITS: u64 = 0b1011_1111;
/// The header of the runtime data that follows the report in Azure's HCL report.
const AZURE_HEADER_BYTES: usize = 20;

/// The guest policy of the launch (SEV-SNP ABI, §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestPolicy(u64);

impl GuestPolicy {
    /// Bits that the ABI gives no meaning, or the one that it reserves as one, cleared.
    pub(super) fn unknown_bits(self) -> u64 {
        const MEANINGLESS: u64 = !0 << 26;
        const RESERVED_ONE: u64 = 1 << 17;
        (self.0 & MEANINGLESS) | (!self.0 & RESERVED_ONE)
    }

    /// The policy's bits, as the launch gave them.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The least ABI version that the guest asks for: major, minor.
    pub fn abi(self) -> (u8, u8) {
        let [minor, major, ..] = self.0.to_le_bytes();
        (major, minor)
    }

    pub(super) fn bit(self, bit: u32) -> bool {
        self.0 >> bit & 1 == 1
    }
}

/// A firmware's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirmwareVersion {
    /// Major version of the ABI.
    pub major: u8,
    /// Minor version of the ABI.
    pub minor: u8,
    /// Build number.
    pub build: u8,
}

impl fmt::Display for FirmwareVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.build)
    }
}

/// CPUID of the machine; reports say it since version 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpuid {
    /// Family and extended family.
    pub family: u8,
    /// Model and extended model.
    pub model: u8,
    /// Stepping.
    pub stepping: u8,
}

/// A report that was read, and not yet believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnpReport {
    signed: [u8; SIGNED_BYTES],
    /// r and s, each 48 bytes, big endian.
    pub(super) signature: [u8; 96],
    /// 2 to 5.
    pub version: u32,
    /// The guest's security version, from its ID block.
    pub guest_svn: u32,
    /// The guest policy.
    pub policy: GuestPolicy,
    /// From the ID block.
    pub family_id: [u8; 16],
    /// From the ID block.
    pub image_id: [u8; 16],
    /// The privilege level that the requester named, 0 to 3. Software at a lower level cannot name
    /// a higher.
    pub vmpl: u8,
    pub(super) current_tcb: [u8; 8],
    /// `PLATFORM_INFO`.
    pub(super) platform: u64,
    /// An author key's digest is present.
    pub author_key_en: bool,
    /// The host disabled the use of the VCEK.
    pub mask_chip_key: bool,
    /// Which key signed.
    pub signing_key: SigningKey,
    /// What the guest wanted signed.
    pub report_data: [u8; 64],
    /// The launch digest.
    pub measurement: [u8; 48],
    /// What the host gave at launch.
    pub host_data: [u8; 32],
    /// SHA-384 of the ID block's key.
    pub id_key_digest: [u8; 48],
    /// SHA-384 of the author's key.
    pub author_key_digest: [u8; 48],
    /// This guest, as long as it runs.
    pub report_id: [u8; 32],
    /// Its migration agent; all ones when there is none.
    pub report_id_ma: [u8; 32],
    pub(super) reported_tcb: [u8; 8],
    /// Since version 3.
    pub cpuid: Option<Cpuid>,
    /// Zero when the host masks it.
    pub chip_id: [u8; 64],
    pub(super) committed_tcb: [u8; 8],
    /// Of the firmware that runs.
    pub current: FirmwareVersion,
    /// Of the firmware that cannot be rolled back.
    pub committed: FirmwareVersion,
    pub(super) launch_tcb: [u8; 8],
    /// Mitigations verified at launch and now; since version 5.
    pub mitigations: Option<(u64, u64)>,
    /// Fields that the ABI of this version reserves as zero, and that are not: `PLATFORM_INFO bit
    /// 6`. The chip signed them, so a report with them is genuine, and says something that this
    /// program does not know.
    pub unknown: Vec<String>,
}

impl SnpReport {
    /// Reads a report of version 2 to 5 and nothing after it, but for one documented case: the
    /// 20-byte header of Azure's runtime data, which follows the report in an HCL report ("Guest
    /// attestation for confidential VMs", `IGVM_REQUEST_DATA`). Whoever cuts one out with it keeps
    /// a valid report.
    ///
    /// # Errors
    /// [`SnpError::Malformed`] for another length, or a value without which nothing can be
    /// verified; [`SnpError::Version`].
    pub fn parse(bytes: &[u8]) -> Result<Self, SnpError> {
        match bytes.split_at_checked(REPORT_BYTES) {
            Some((report, [])) => Self::parse_exact(report),
            Some((report, rest)) if is_azure_header(rest) => Self::parse_exact(report),
            _ => Err(fail(format!("{} bytes, {REPORT_BYTES} expected", bytes.len()))),
        }
    }

    fn parse_exact(bytes: &[u8]) -> Result<Self, SnpError> {
        let fields = Fields(bytes);
        let version = fields.u32(0)?;
        if !(2..=5).contains(&version) {
            return Err(SnpError::Version { found: version });
        }
        let key_info = fields.u32(0x48)?;
        let platform = fields.u64(0x40)?;
        let mut unknown = unknown_bits("PLATFORM_INFO", platform & !PLATFORM_BITS);
        unknown.extend(unknown_bits("KEY_INFO", u64::from(key_info >> 5) << 5));
        let cpuid = if version == 2 { None } else { Some(fields.cpuid()?) };
        let mitigations = match version {
            5 => Some((fields.u64(0x1f8)?, fields.u64(0x200)?)),
            _ => None,
        };
        unknown.extend(fields.reserved(cpuid.is_some(), mitigations.is_some()));
        let algorithm = fields.u32(0x34)?;
        if algorithm != 1 {
            let problem =
                format!("signature algorithm {algorithm}; only 1 (P-384, SHA-384) exists");
            return Err(fail(problem));
        }
        fields.zero(SIGNED_BYTES + 144, REPORT_BYTES - SIGNED_BYTES - 144)?;
        Ok(Self {
            signed: fields.array(0)?,
            signature: fields.signature()?,
            version,
            guest_svn: fields.u32(4)?,
            policy: GuestPolicy(fields.u64(8)?),
            family_id: fields.array(0x10)?,
            image_id: fields.array(0x20)?,
            vmpl: vmpl(fields.u32(0x30)?)?,
            current_tcb: fields.array(0x38)?,
            platform,
            author_key_en: key_info & 1 == 1,
            mask_chip_key: key_info >> 1 & 1 == 1,
            signing_key: signing_key(key_info)?,
            report_data: fields.array(0x50)?,
            measurement: fields.array(0x90)?,
            host_data: fields.array(0xc0)?,
            id_key_digest: fields.array(0xe0)?,
            author_key_digest: fields.array(0x110)?,
            report_id: fields.array(0x140)?,
            report_id_ma: fields.array(0x160)?,
            reported_tcb: fields.array(0x180)?,
            cpuid,
            chip_id: fields.array(0x1a0)?,
            committed_tcb: fields.array(0x1e0)?,
            current: fields.firmware(0x1e8)?,
            committed: fields.firmware(0x1ec)?,
            launch_tcb: fields.array(0x1f0)?,
            mitigations,
            unknown,
        })
    }

    /// The bytes that the signature covers.
    pub fn signed(&self) -> &[u8] {
        &self.signed
    }

    /// The product, if the report says it: since version 3.
    pub(super) fn product(&self) -> Result<Option<Product>, SnpError> {
        let Some(Cpuid { family, model, .. }) = self.cpuid else { return Ok(None) };
        let product = Product::from_cpuid(family, model).ok_or_else(|| {
            SnpError::product(format!(
                "the report's CPUID family {family:#04x}, model {model:#04x} is not one that \
                 this program knows"
            ))
        })?;
        Ok(Some(product))
    }
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    /// The bytes that the ABI reserves as zero, and that are not, by name.
    fn reserved(&self, has_cpuid: bool, has_mitigations: bool) -> Vec<String> {
        let after_cpuid = if has_cpuid { 0x18b } else { 0x188 };
        let after_tcbs = if has_mitigations { 0x208 } else { 0x1f8 };
        let reserved =
            [0x4c..0x50, after_cpuid..0x1a0, 0x1eb..0x1ec, 0x1ef..0x1f0, after_tcbs..SIGNED_BYTES];
        let set = |at: &usize| self.0.get(*at).is_some_and(|byte| *byte != 0);
        reserved.into_iter().flatten().filter(set).map(|at| format!("byte {at:#x}")).collect()
    }

    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N], SnpError> {
        let field = self.0.get(at..).and_then(<[u8]>::first_chunk);
        field.copied().ok_or_else(|| fail(format!("nothing at {at:#x}")))
    }

    fn u32(&self, at: usize) -> Result<u32, SnpError> {
        self.array(at).map(u32::from_le_bytes)
    }

    fn u64(&self, at: usize) -> Result<u64, SnpError> {
        self.array(at).map(u64::from_le_bytes)
    }

    fn zero(&self, at: usize, count: usize) -> Result<(), SnpError> {
        let reserved = self.0.get(at..).and_then(|rest| rest.get(..count)).unwrap_or(&[1]);
        match reserved.iter().position(|byte| *byte != 0) {
            None => Ok(()),
            Some(offset) => {
                Err(fail(format!("the reserved byte at {:#x} is not zero", at + offset)))
            }
        }
    }

    fn firmware(&self, at: usize) -> Result<FirmwareVersion, SnpError> {
        let [build, minor, major] = self.array(at)?;
        Ok(FirmwareVersion { major, minor, build })
    }

    fn cpuid(&self) -> Result<Cpuid, SnpError> {
        let [family, model, stepping] = self.array(0x188)?;
        Ok(Cpuid { family, model, stepping })
    }

    /// The ABI's r and s are 72 bytes each, little endian; crypto libraries want the curve's 48,
    /// big endian.
    fn signature(&self) -> Result<[u8; 96], SnpError> {
        let mut signature = [0; 96];
        for (at, target) in
            [SIGNED_BYTES, SIGNED_BYTES + 72].into_iter().zip(signature.chunks_exact_mut(48))
        {
            self.zero(at + 48, 24)?;
            let number: [u8; 48] = self.array(at)?;
            target.iter_mut().zip(number.iter().rev()).for_each(|(to, from)| *to = *from);
        }
        Ok(signature)
    }
}

fn fail(problem: String) -> SnpError {
    SnpError::malformed("report", problem)
}

/// Its own length and that of the data after it, version, type 2 (SNP), hash (1 SHA-256, 2 -384, 3
/// -512).
fn is_azure_header(bytes: &[u8]) -> bool {
    let Ok(header) = <[u8; AZURE_HEADER_BYTES]>::try_from(bytes) else { return false };
    let word = |index: usize| {
        let word = header.chunks_exact(4).nth(index).and_then(|word| word.first_chunk());
        word.copied().map_or(0, u32::from_le_bytes)
    };
    word(4).checked_add(20) == Some(word(0))
        && matches!(word(1), 1..=2)
        && word(2) == 2
        && matches!(word(3), 1..=3)
}

/// A name for each bit that is set.
pub(super) fn unknown_bits(field: &str, bits: u64) -> Vec<String> {
    (0..u64::BITS)
        .filter(|bit| bits >> bit & 1 == 1)
        .map(|bit| format!("{field} bit {bit}"))
        .collect()
}

fn vmpl(value: u32) -> Result<u8, SnpError> {
    match value {
        0..=3 => Ok(value.to_le_bytes()[0]),
        // SNP_HV_REPORT_REQ: its REPORT_DATA is zero, and it proves nothing about who asks.
        u32::MAX => Err(fail("the host asked for this report, not the guest".into())),
        _ => Err(fail(format!("VMPL {value}; 0 to 3 exist"))),
    }
}

fn signing_key(key_info: u32) -> Result<SigningKey, SnpError> {
    match key_info >> 2 & 0b111 {
        0 => Ok(SigningKey::Vcek),
        1 => Ok(SigningKey::Vlek),
        7 => Err(fail("the report is not signed (SIGNING_KEY is none)".into())),
        _ => Err(fail(format!("KEY_INFO {key_info:#x} names a key that does not exist"))),
    }
}
