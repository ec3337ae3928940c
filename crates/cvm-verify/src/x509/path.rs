//! Path validation.

use std::time::Duration;

use rustls_pki_types::UnixTime;
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, RevocationCheckDepth,
    RevocationOptionsBuilder, UnknownStatusPolicy, anchor_from_trusted_cert,
};

use super::{Certificate, X509Error, algorithms::ALGORITHMS, crl::read_crl, words::in_words};

/// What vouches for a key, and what revokes it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Path<'a> {
    /// Between the end entity and a root, in any order; more than needed does no harm.
    pub intermediates: &'a [Certificate],
    /// Trusted, each alone.
    pub roots: &'a [Certificate],
    /// DER lists. A certificate that no list covers stays valid; a list that is expired is refused.
    pub crls: &'a [Vec<u8>],
}

impl Path<'_> {
    /// Finds a path from `leaf` to one of the roots, valid at `now` (seconds since 1970 UTC): that
    /// root.
    ///
    /// # Errors
    /// [`X509Error::Path`] with what was wrong; [`X509Error::Crl`] for a list that cannot be read.
    pub fn verify(&self, leaf: &Certificate, now: u64) -> Result<&Certificate, X509Error> {
        // No vendor's device certificate carries a usage of its own.
        self.find(leaf, &[], now, UnknownStatusPolicy::Allow)
    }

    /// [`verify`](Self::verify), where a certificate that lists extended key usages must list this
    /// one (the OID's DER content).
    ///
    /// # Errors
    /// As [`verify`](Self::verify).
    pub fn verify_for(
        &self,
        leaf: &Certificate,
        usage: &'static [u8],
        now: u64,
    ) -> Result<&Certificate, X509Error> {
        self.find(leaf, usage, now, UnknownStatusPolicy::Allow)
    }

    /// As [`Path::verify`], and every certificate below the root must be covered by one of the
    /// lists.
    ///
    /// # Errors
    /// As [`Path::verify`]; [`X509Error::Path`] also for a certificate that no list covers.
    pub fn verify_unrevoked(
        &self,
        leaf: &Certificate,
        now: u64,
    ) -> Result<&Certificate, X509Error> {
        if self.crls.is_empty() {
            return Err(X509Error::Crl { problem: "none was given".into() });
        }
        self.find(leaf, &[], now, UnknownStatusPolicy::Deny)
    }

    fn find(
        &self,
        leaf: &Certificate,
        usage: &'static [u8],
        now: u64,
        unknown: UnknownStatusPolicy,
    ) -> Result<&Certificate, X509Error> {
        let fail = |problem: String| X509Error::Path { subject: leaf.subject(), problem };
        let certificate = EndEntityCert::try_from(&leaf.der).map_err(|e| fail(in_words(&e)))?;
        let intermediates: Vec<_> = self.intermediates.iter().map(|c| c.der.clone()).collect();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        let lists = self.crls.iter().map(|der| read_crl(der)).collect::<Result<Vec<_>, _>>()?;
        let lists: Vec<&CertRevocationList<'_>> = lists.iter().collect();
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            options
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(unknown)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build()
        });
        // Each root is tried alone, so that the answer says which one it was. The reason of the one
        // that got furthest counts.
        let mut refused = (0, "no root is trusted".to_owned());
        let mut refuse = |reached, problem| {
            if reached > refused.0 {
                refused = (reached, problem);
            }
        };
        for root in self.roots {
            let anchor = anchor_from_trusted_cert(&root.der)
                .map_err(|e| fail(format!("the root: {}", in_words(&e))))?;
            // A root that is out of date vouches for nothing; RFC 5280 leaves that to whoever
            // trusts it.
            let (from, until) = root.validity();
            if !(from..=until).contains(&now.as_secs()) {
                refuse(2, format!("the root {} is not valid at this time", root.subject()));
                continue;
            }
            let path = certificate.verify_for_usage(
                ALGORITHMS,
                std::slice::from_ref(&anchor),
                &intermediates,
                now,
                KeyUsage::required_if_present(usage),
                revocation,
                None,
            );
            match path {
                Ok(_) => return Ok(root),
                Err(error @ webpki::Error::UnknownIssuer) => refuse(1, in_words(&error)),
                Err(error) => refuse(3, in_words(&error)),
            }
        }
        Err(fail(refused.1))
    }
}
