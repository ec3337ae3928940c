//! Who vouches for devices and manifests.

use super::GpuError;
use crate::x509::Certificate;

const DEVICE_ROOT: &[u8] = include_bytes!("../../../../keys/roots/nvidia/verifier_device_root.pem");
const RIM_ROOT: &[u8] = include_bytes!("../../../../keys/roots/nvidia/verifier_RIM_root.pem");

/// Who is trusted to vouch for devices, and who for their firmware's golden values; by default
/// nobody.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Roots {
    pub(super) device: Vec<Certificate>,
    pub(super) rim: Vec<Certificate>,
}

impl Roots {
    /// NVIDIA's: `NVIDIA Device Identity CA` and `NVIDIA CoRIM signing Root CA`.
    ///
    /// # Errors
    /// None: the files are part of this program, and a test reads them.
    pub fn nvidia() -> Result<Self, GpuError> {
        Self::from_pem(DEVICE_ROOT, RIM_ROOT)
    }

    /// Others: PEM or DER certificates, each trusted alone.
    ///
    /// # Errors
    /// [`GpuError::Malformed`].
    pub fn from_pem(device: &[u8], rim: &[u8]) -> Result<Self, GpuError> {
        let read = |bytes| {
            Certificate::read_all(bytes).map_err(|e| GpuError::malformed("roots", e.to_string()))
        };
        Ok(Self { device: read(device)?, rim: read(rim)? })
    }
}
