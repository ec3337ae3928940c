//! Who vouches for Intel's platforms.

use super::TdxError;
use crate::x509::Certificate;

/// Intel SGX Root CA, which stands above every genuine platform.
pub const INTEL_ROOT_PEM: &[u8] = include_bytes!("../../../../keys/roots/intel/sgx_root_ca.pem");

/// [`INTEL_ROOT_PEM`], read.
///
/// # Errors
/// Never in a sound build; a test reads it.
pub fn intel_roots() -> Result<Vec<Certificate>, TdxError> {
    Certificate::read_all(INTEL_ROOT_PEM).map_err(TdxError::collateral)
}
