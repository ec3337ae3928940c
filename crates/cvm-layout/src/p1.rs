//! Our files on p1, the ESP, and how long what travels in evidence may be.

/// The image's manifest.
pub const MANIFEST: &str = "flare-cvm/manifest.json";
/// The builder's signature over it.
pub const MANIFEST_SIG: &str = "flare-cvm/manifest.sig";
/// p2's verity root.
pub const BOOT: &str = "flare-cvm/boot.json";
/// The builder's signature over it.
pub const BOOT_SIG: &str = "flare-cvm/boot.sig";
/// The measurements that the build predicted, for whoever asks the CVM. Its own boot does not need
/// them.
pub const REFERENCE: &str = "flare-cvm/reference.json";
/// The builder's signature over it.
pub const REFERENCE_SIG: &str = "flare-cvm/reference.sig";
/// Why key holders may enrol the image by what it presents: the parties' permits, and the build's
/// marks.
pub const ENROLMENT: &str = "flare-cvm/enrolment.txt";
/// Where key holders are today; the site may write it.
pub const ENDPOINTS: &str = "flare-cvm/endpoints.yaml";
/// What vendors publish about this machine; it travels in the evidence. The site may write it: a
/// verifier believes it only for its collector's signature. JSON, as `flare-cvm collateral pack`
/// writes it.
pub const COLLATERAL: &str = "flare-cvm/collateral.json";
/// The most bytes of [`COLLATERAL`]: with the rest of the evidence it must fit into a request of the
/// release protocol, and into a token between sites.
pub const MAX_COLLATERAL_BYTES: u64 = 512 * 1024;
/// The most bytes of a boot's event log, of a TPM or of a TD, that evidence carries beside
/// [`COLLATERAL`].
pub const MAX_EVENT_LOG_BYTES: u64 = 128 * 1024;
