//! What a verified report says, laid out like Trustee's `snp` claims.

use cvm_base::{Bytes, Bytes16, Bytes32};
use serde::{Deserialize, Serialize};

use super::{
    Chip, FirmwareVersion, Product, ShownTcb, SigningKey, SnpReport, Stepping, Tcb, VerifiedChain,
    report::unknown_bits,
};
use crate::NotChecked;

/// What a report, its endorsement key and AMD's root proved.
///
/// The first part has Trustee's names and encodings (`deps/verifier/src/snp`); `init_data` is
/// HOST_DATA there. Numbers of 64 bits are 16 hex digits, because JSON readers round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnpClaims {
    /// The launch digest.
    pub measurement: Bytes<48>,
    /// What the guest wanted signed.
    pub report_data: Bytes<64>,
    /// HOST_DATA: what the host gave at launch.
    pub init_data: Bytes32,
    /// Zero when the host masks it. Vouched for by a VCEK only.
    pub chip_id: Bytes<64>,
    /// The least ABI version that the guest asks for.
    pub policy_abi_major: u8,
    /// The least ABI version that the guest asks for.
    pub policy_abi_minor: u8,
    /// The guest may run on machines with SMT.
    pub policy_smt_allowed: bool,
    /// The guest may have a migration agent.
    pub policy_migrate_ma: bool,
    /// The host may read the guest's memory.
    pub policy_debug_allowed: bool,
    /// The guest runs on one socket only.
    pub policy_single_socket: bool,
    /// REPORTED_TCB, which the certificate vouches for.
    pub reported_tcb_bootloader: u8,
    /// REPORTED_TCB.
    pub reported_tcb_tee: u8,
    /// REPORTED_TCB.
    pub reported_tcb_snp: u8,
    /// REPORTED_TCB.
    pub reported_tcb_microcode: u8,
    /// SMT is on.
    pub platform_smt_enabled: bool,
    /// Transparent memory encryption is on.
    pub platform_tsme_enabled: bool,

    /// REPORTED_TCB; Turin only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported_tcb_fmc: Option<u8>,
    /// The machine's family.
    pub product: Product,
    /// The chip's revision, as AMD names it (`B1`): the report's word, since version 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stepping: Option<Stepping>,
    /// As the certificate spells it, in a VCEK with a stepping, which need not be the chip's.
    pub product_name: String,
    /// Which key signed.
    pub signing_key: SigningKey,
    /// The cloud that AMD gave the VLEK to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csp_id: Option<String>,
    /// The privilege level that the requester named.
    pub vmpl: u8,
    /// The report's version.
    pub report_version: u32,
    /// The guest's security version.
    pub guest_svn: u32,
    /// The guest policy as a whole.
    pub policy: Bytes<8>,
    /// Memory of CXL devices may be used.
    pub policy_cxl_allowed: bool,
    /// Memory must be encrypted with AES-256-XTS.
    pub policy_mem_aes_256_xts: bool,
    /// Power measurement must be off.
    pub policy_rapl_disabled: bool,
    /// Ciphertext must be hidden from the host.
    pub policy_ciphertext_hiding: bool,
    /// The firmware's page moving and swapping commands are off.
    pub policy_page_swap_disabled: bool,
    /// Memory has error correction.
    pub platform_ecc_enabled: bool,
    /// Power measurement is off.
    pub platform_rapl_disabled: bool,
    /// Ciphertext is hidden from the host.
    pub platform_ciphertext_hiding: bool,
    /// No memory module answers at two addresses (AMD-SB-3015, BadRAM).
    pub platform_alias_check_complete: bool,
    /// Trusted devices may be attached (SEV-TIO).
    pub platform_tio_enabled: bool,
    /// From the ID block.
    pub family_id: Bytes16,
    /// From the ID block.
    pub image_id: Bytes16,
    /// SHA-384 of the ID block's key.
    pub id_key_digest: Bytes<48>,
    /// SHA-384 of the author's key.
    pub author_key_digest: Bytes<48>,
    /// An author key was given.
    pub author_key_en: bool,
    /// The host disabled the use of the VCEK.
    pub mask_chip_key: bool,
    /// This guest, as long as it runs.
    pub report_id: Bytes32,
    /// Its migration agent; all ones when there is none.
    pub report_id_ma: Bytes32,
    /// Of the firmware that runs.
    pub current_tcb: Tcb,
    /// Of the firmware that cannot be rolled back.
    pub committed_tcb: Tcb,
    /// Of the firmware at launch.
    pub launch_tcb: Tcb,
    /// The firmware that runs.
    pub current_version: FirmwareVersion,
    /// The firmware that cannot be rolled back.
    pub committed_version: FirmwareVersion,
    /// Mitigations verified at launch; since version 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launch_mit_vector: Option<Bytes<8>>,
    /// Mitigations verified now; since version 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_mit_vector: Option<Bytes<8>>,
    /// SHA-256 of the ARK's certificate.
    pub root_sha256: Bytes32,
    /// SHA-256 of the VCEK's or VLEK's certificate.
    pub certificate_sha256: Bytes32,
    /// What the ABI reserves and the chip signed all the same, by name: `PLATFORM_INFO bit 6`. A
    /// newer firmware says something there that this program does not know. Bits of the guest
    /// policy come first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
    /// Checks that were not made.
    pub not_checked: Vec<NotChecked>,
}

/// How [`SnpClaims::unknown`] names the guest policy.
const GUEST_POLICY: &str = "guest policy";

impl SnpClaims {
    /// A bit of the guest policy whose meaning is not known: it may allow the host what no policy
    /// here accepts.
    pub(super) fn unknown_guest_policy(&self) -> Option<&str> {
        self.unknown.iter().map(String::as_str).find(|name| name.starts_with(GUEST_POLICY))
    }

    pub(super) fn new(
        report: &SnpReport,
        chain: &VerifiedChain,
        product: Product,
        reported: Tcb,
        not_checked: Vec<NotChecked>,
    ) -> Self {
        let policy = |bit| report.policy.bit(bit);
        let platform = |bit: u32| report.platform >> bit & 1 == 1;
        let (policy_abi_major, policy_abi_minor) = report.policy.abi();
        let mut unknown = unknown_bits(GUEST_POLICY, report.policy.unknown_bits());
        unknown.extend(report.unknown.iter().cloned());
        for (field, bytes) in [
            ("CURRENT_TCB", report.current_tcb),
            ("REPORTED_TCB", report.reported_tcb),
            ("COMMITTED_TCB", report.committed_tcb),
            ("LAUNCH_TCB", report.launch_tcb),
        ] {
            unknown.extend(Tcb::unknown(field, bytes, product));
        }
        Self {
            measurement: Bytes(report.measurement),
            report_data: Bytes(report.report_data),
            init_data: Bytes(report.host_data),
            chip_id: Bytes(report.chip_id),
            policy_abi_major,
            policy_abi_minor,
            policy_smt_allowed: policy(16),
            policy_migrate_ma: policy(18),
            policy_debug_allowed: policy(19),
            policy_single_socket: policy(20),
            reported_tcb_bootloader: reported.bootloader,
            reported_tcb_tee: reported.tee,
            reported_tcb_snp: reported.snp,
            reported_tcb_microcode: reported.microcode,
            platform_smt_enabled: platform(0),
            platform_tsme_enabled: platform(1),
            reported_tcb_fmc: reported.fmc,
            product,
            stepping: report.cpuid.map(|cpuid| Stepping::from_cpuid(cpuid.model, cpuid.stepping)),
            product_name: chain.endorsement.product_name.clone(),
            signing_key: chain.endorsement.kind,
            csp_id: chain.endorsement.csp_id.clone(),
            vmpl: report.vmpl,
            report_version: report.version,
            guest_svn: report.guest_svn,
            policy: Bytes(report.policy.bits().to_be_bytes()),
            policy_cxl_allowed: policy(21),
            policy_mem_aes_256_xts: policy(22),
            policy_rapl_disabled: policy(23),
            policy_ciphertext_hiding: policy(24),
            policy_page_swap_disabled: policy(25),
            platform_ecc_enabled: platform(2),
            platform_rapl_disabled: platform(3),
            platform_ciphertext_hiding: platform(4),
            platform_alias_check_complete: platform(5),
            platform_tio_enabled: platform(7),
            family_id: Bytes(report.family_id),
            image_id: Bytes(report.image_id),
            id_key_digest: Bytes(report.id_key_digest),
            author_key_digest: Bytes(report.author_key_digest),
            author_key_en: report.author_key_en,
            mask_chip_key: report.mask_chip_key,
            report_id: Bytes(report.report_id),
            report_id_ma: Bytes(report.report_id_ma),
            current_tcb: Tcb::from_bytes(report.current_tcb, product),
            committed_tcb: Tcb::from_bytes(report.committed_tcb, product),
            launch_tcb: Tcb::from_bytes(report.launch_tcb, product),
            current_version: report.current,
            committed_version: report.committed,
            launch_mit_vector: report.mitigations.map(|(launch, _)| Bytes(launch.to_be_bytes())),
            current_mit_vector: report.mitigations.map(|(_, current)| Bytes(current.to_be_bytes())),
            root_sha256: chain.root_sha256,
            certificate_sha256: chain.certificate_sha256,
            unknown,
            not_checked,
        }
    }

    /// REPORTED_TCB: what the certificate vouches for.
    pub fn reported_tcb(&self) -> Tcb {
        Tcb {
            fmc: self.reported_tcb_fmc,
            bootloader: self.reported_tcb_bootloader,
            tee: self.reported_tcb_tee,
            snp: self.reported_tcb_snp,
            microcode: self.reported_tcb_microcode,
        }
    }

    /// What a [`TcbFloor`](super::TcbFloor) is compared with.
    pub fn shown_tcb(&self) -> ShownTcb {
        let chip = Chip { product: self.product, stepping: self.stepping };
        ShownTcb { chip, reported: self.reported_tcb(), launch: self.launch_tcb }
    }
}
