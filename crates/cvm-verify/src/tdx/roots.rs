//! Who vouches for Intel's platforms.

use super::TdxError;
use crate::x509::Certificate;

/// Intel SGX Root CA, to which every genuine platform's chain leads.
pub const INTEL_ROOT_PEM: &[u8] = include_bytes!("../../../../keys/roots/intel/sgx_root_ca.pem");

/// [`INTEL_ROOT_PEM`], read.
///
/// # Errors
/// None in a sound build; a test reads it.
pub fn intel_roots() -> Result<Vec<Certificate>, TdxError> {
    Certificate::read_all(INTEL_ROOT_PEM).map_err(TdxError::collateral)
}
