//! What the service takes from the party's folder, and how private its files must be.

use std::{path::Path, sync::Arc};

use cvm_base::{Bytes32, FileError, sha256};
use cvm_custody::Party;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio_rustls::TlsAcceptor;

use crate::error::KeyHolderError;

/// TLS with the party's key and certificate, and the SHA-256 that manifests pin.
pub(super) fn tls_acceptor(party: &Party) -> Result<(TlsAcceptor, Bytes32), KeyHolderError> {
    let fail = |e: String| KeyHolderError::Tls(e);
    let certificate = CertificateDer::from_pem_slice(party.certificate_pem().as_bytes())
        .map_err(|e| fail(e.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(party.tls_key_pem().as_bytes())
        .map_err(|e| fail(e.to_string()))?;
    let digest = sha256(&certificate);
    let config =
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                builder.with_no_client_auth().with_single_cert(vec![certificate], key)
            })
            .map_err(|e| fail(e.to_string()))?;
    Ok((TlsAcceptor::from(Arc::new(config)), digest))
}

/// Makes the store's folder, for its owner alone.
pub(super) fn private_folder(path: &Path) -> Result<(), KeyHolderError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| {
        FileError::Io { action: "make the folder", path: path.to_owned(), source }.into()
    })
}

/// Refuses a secret file that other users may read.
pub(super) fn secret_is_private(path: &Path) -> Result<(), KeyHolderError> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = std::fs::metadata(path).map_err(|source| FileError::Io {
        action: "look at",
        path: path.to_owned(),
        source,
    })?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyHolderError::Permissions { path: path.to_owned(), mode });
    }
    Ok(())
}
