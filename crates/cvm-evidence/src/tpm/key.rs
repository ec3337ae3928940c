//! A TPM key's public value.

/// A public key's type and value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// RSA.
    Rsa {
        /// The modulus, big-endian, its highest bit set.
        modulus: Vec<u8>,
        /// The public exponent.
        exponent: u32,
    },
    /// NIST P-256; coordinates big-endian.
    P256 {
        /// x ‖ y, 64 bytes.
        point: [u8; 64],
    },
    /// NIST P-384; coordinates big-endian.
    P384 {
        /// x ‖ y, 96 bytes.
        point: [u8; 96],
    },
}
