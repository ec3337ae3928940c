//! Certificates of every vendor: bounded reading, extensions, and one path validation.
//!
//! rustls-webpki validates the path (RFC 5280 §6: signatures, dates, CA and usage, unknown critical
//! extensions, no loops); x509-cert reads the extensions in which vendors state what a key belongs
//! to.

mod algorithms;
mod certificate;
mod crl;
mod error;
mod path;
mod pem;
mod time;
mod words;

pub use self::{
    certificate::Certificate,
    crl::{crl_due, read_crls},
    error::X509Error,
    path::Path,
    time::parse_time,
};
pub(crate) use self::{crl::read_crl, pem::pem_apart, words::in_words};

/// More than any certificate of a device or a vendor; longer ones are refused unread.
pub const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;
/// The longest chain known is NVIDIA's, of five.
pub const MAX_CERTIFICATES: usize = 32;
/// The longest CRL known (Intel's platform CA) has some 100 KiB.
pub const MAX_CRL_BYTES: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;

    const NOW: u64 = 1_760_000_000; // 2025-10-09

    fn read(name: &str) -> Vec<Certificate> {
        let repository = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
        Certificate::read_all(&fs::read(repository.join(name)).unwrap()).unwrap()
    }

    #[test]
    fn files_joined_without_a_newline_lose_nothing() {
        let repository = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
        let pem = fs::read_to_string(repository.join("keys/roots/amd/ask_ark_milan.pem")).unwrap();
        let joined = [pem.trim_end(), pem.trim_end()].concat();
        let subjects = |pem: &str| -> Vec<String> {
            Certificate::read_all(pem.as_bytes())
                .unwrap()
                .iter()
                .map(Certificate::subject)
                .collect()
        };
        assert_eq!(subjects(&joined), [subjects(&pem), subjects(&pem)].concat());
        assert_eq!(subjects(&joined).len(), 4);
    }

    #[test]
    fn every_vendors_chain_leads_to_its_root() {
        for (leaf, authority) in [
            ("milan-virtee/vcek.der", "milan"),
            ("trustee-vlek/vlek.der", "milan_vlek"),
            ("turin-virtee-vcek-only/vcek.der", "turin_vcek"),
        ] {
            let leaf = read(&format!("tests/vectors/evidence/snp/{leaf}"));
            let authority = read(&format!("keys/roots/amd/ask_ark_{authority}.pem"));
            let path = Path { intermediates: &authority[..1], roots: &authority[1..], crls: &[] };
            let root = path.verify(&leaf[0], NOW).unwrap();
            assert!(root.subject().contains("ARK"), "{}", root.subject());
        }
        let chain = read("tests/vectors/evidence/gpu/h100-545.00-e2e/chain.pem");
        let roots = read("keys/roots/nvidia/verifier_device_root.pem");
        Path { intermediates: &chain[1..], roots: &roots, crls: &[] }
            .verify(&chain[0], NOW)
            .unwrap();
    }

    #[test]
    fn attack_another_root_an_expired_leaf_a_chain_without_its_middle() {
        let leaf = read("tests/vectors/evidence/snp/trustee-vlek/vlek.der");
        let [milan, genoa] = ["milan_vlek", "genoa_vlek"]
            .map(|name| read(&format!("keys/roots/amd/ask_ark_{name}.pem")));
        let verify = |intermediates, roots, now| {
            Path { intermediates, roots, crls: &[] }.verify(&leaf[0], now).cloned()
        };
        assert!(verify(&milan[..1], &milan[1..], NOW).is_ok());
        assert!(verify(&milan[..1], &genoa[1..], NOW).is_err());
        assert!(verify(&genoa[..1], &milan[1..], NOW).is_err());
        assert!(verify(&[], &milan[1..], NOW).is_err());
        assert!(verify(&milan[..1], &[], NOW).is_err());
        assert!(verify(&milan[..1], &milan[1..], 1_766_000_000).is_err(), "a VLEK lives one year");
        assert!(verify(&milan[..1], &leaf, NOW).is_err(), "a leaf is not its own root");
    }
}
