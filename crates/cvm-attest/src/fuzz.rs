//! The bodies of the fuzz targets, so that ordinary tests run them too. None may panic.

use crate::{
    eventlog::EventLog,
    tpm::{Public, parse_quote, parse_signature},
};

/// Bytes as a quote, as a signature and as a public area.
pub fn tpm_structure(bytes: &[u8]) {
    let _ = parse_quote(bytes).map(|quote| quote.selection.iter().map(ToString::to_string).collect::<Vec<_>>());
    let _ = parse_signature(bytes);
    if let Ok(public) = Public::parse(bytes) {
        let _ = (public.check_attestation_key(), public.check_endorsement_key(), public.name(), public.spki());
    }
}

/// Bytes as an event log.
pub fn event_log(bytes: &[u8]) {
    let Ok(log) = EventLog::parse(bytes) else { return };
    assert!(log.events().len() <= bytes.len() / 48, "an event takes at least 48 bytes");
    assert!(log.replay().len() <= 24);
    let _ = log.events().iter().map(|event| event.describe()).collect::<Vec<_>>();
}

/// Bytes as the handshake's parameters, as a certificate, as the policy's roots.
#[cfg(feature = "verifier")]
pub fn handshake(bytes: &[u8]) {
    if let Ok(params) = serde_json::from_slice(bytes) {
        let _ = crate::challenge(&params);
    }
    let _ = crate::Roots::default().verify_ek(bytes, 0);
    if let Ok(roots) = crate::Roots::from_pem(bytes) {
        let _ = roots.verify_ek(bytes, 0);
    }
}

/// Bytes as everything that is collateral or asks for it, and as a cache's index.
#[cfg(feature = "collateral")]
pub fn collateral(bytes: &[u8]) {
    use crate::collateral::{Cache, Key, content, wanted};
    if let Ok((key, stored)) = content::identify(bytes) {
        assert_eq!(Key::parse(key.kind(), &key.name()), Ok(key.clone()));
        assert!(content::check(&key, &stored).is_ok());
    }
    let _ = content::check(&Key::Rim("NV_GPU_DRIVER_GH100_545.00".into()), bytes);
    let _ = wanted::by_quote(bytes);
    let _ = wanted::by_snp_report(bytes, None);
    let _ = Cache::unpack(bytes, &[]);
}

/// Bytes as what devices and hosts answer.
#[cfg(feature = "collect")]
pub fn collected(bytes: &[u8]) {
    if let Ok(certificates) = crate::collect::parse_certificate_table(bytes) {
        assert!(certificates.len() <= 16);
    }
    let mut stream = Service(bytes);
    let _ = crate::collect::quote_over(&mut stream, &[0; 1024]);
}

/// A host that takes everything and sends these bytes.
#[cfg(feature = "collect")]
struct Service<'a>(&'a [u8]);

#[cfg(feature = "collect")]
impl std::io::Read for Service<'_> {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(to)
    }
}

#[cfg(feature = "collect")]
impl std::io::Write for Service<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
