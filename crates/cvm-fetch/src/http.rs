//! One request over HTTPS: bounded in time and size, nothing followed.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use ureq::{
    Agent,
    http::{HeaderMap, Uri},
    tls::{Certificate, RootCerts, TlsConfig},
};

use crate::{
    error::FetchError,
    limits::Limits,
    request::{ServiceReply, ServiceRequest},
};

/// The proxy to ask services through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Proxy {
    /// As the environment says: `HTTPS_PROXY`, `NO_PROXY`.
    #[default]
    Environment,
    /// Nobody.
    Direct,
    /// `http://HOST:PORT`.
    Url(String),
}

/// What lies between this machine and the services.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// A proxy.
    pub proxy: Proxy,
    /// PEM: the authorities that sign the servers' certificates, instead of the public ones. For
    /// mirrors.
    pub authorities: Option<Vec<u8>>,
}

/// How one attempt failed.
pub(crate) enum Failure {
    /// It may work later; not before the time given.
    Transient {
        what: String,
        after: Option<Duration>,
        /// The whole service asks for a pause.
        busy: bool,
    },
    /// It will not work.
    Final(FetchError),
}

pub(crate) struct Http {
    agent: Agent,
}

impl Http {
    pub(crate) fn new(network: &Network, limits: &Limits) -> Result<Self, FetchError> {
        let setup = |what: &str, problem: String| FetchError::Setup { what: what.into(), problem };
        let roots = match &network.authorities {
            None => RootCerts::WebPki,
            Some(pem) => {
                let certificates = CertificateDer::pem_slice_iter(pem)
                    .take(1024)
                    .collect::<Result<Vec<_>, _>>()
                    .map_err(|e| setup("the certificate authorities", e.to_string()))?;
                if certificates.is_empty() {
                    return Err(setup("the certificate authorities", "no PEM certificate".into()));
                }
                RootCerts::new_with_certs(
                    &certificates
                        .iter()
                        .map(|der| Certificate::from_der(der).to_owned())
                        .collect::<Vec<_>>(),
                )
            }
        };
        let tls = TlsConfig::builder()
            .root_certs(roots)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("flare-cvm/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls)
            .max_response_header_size(64 * 1024)
            .timeout_connect(Some(limits.connect))
            .timeout_global(Some(limits.request));
        config = match &network.proxy {
            Proxy::Environment => config,
            Proxy::Direct => config.proxy(None),
            Proxy::Url(url) => config
                .proxy(Some(ureq::Proxy::new(url).map_err(|e| setup("the proxy", e.to_string()))?)),
        };
        Ok(Self { agent: config.build().into() })
    }

    /// Carries one request. `now` is for dates in `Retry-After`.
    pub(crate) fn get(&self, request: &ServiceRequest, now: u64) -> Result<ServiceReply, Failure> {
        let url = || request.url.clone();
        let mut response = self
            .agent
            .get(&request.url)
            .header("accept", request.accept)
            .call()
            .map_err(transient)?;
        let status = response.status().as_u16();
        let headers = response.headers();
        match status {
            200 => {}
            300..=399 => {
                let to: String =
                    header(headers, "location").unwrap_or_default().chars().take(200).collect();
                return Err(Failure::Final(FetchError::Redirect { url: url(), to }));
            }
            408 | 425 | 429 | 500..=599 => {
                let after = header(headers, "retry-after").and_then(|text| retry_after(text, now));
                let busy = matches!(status, 429 | 503);
                return Err(Failure::Transient { what: format!("status {status}"), after, busy });
            }
            _ => return Err(Failure::Final(FetchError::Refused { url: url(), status })),
        }
        let wrong = |problem: String| Failure::Final(FetchError::Wrong { url: url(), problem });
        if header(headers, "content-type")
            .is_some_and(|of| of.trim_start().to_ascii_lowercase().starts_with("text/html"))
        {
            return Err(wrong("a web page".into()));
        }
        let issuer_chain = match request.issuer_chain {
            None => String::new(),
            Some(name) => {
                header(headers, name).ok_or_else(|| wrong(format!("no header {name}")))?.to_owned()
            }
        };
        let body = response.body_mut().with_config().limit(request.limit).read_to_vec();
        let body = body.map_err(|error| match error {
            ureq::Error::BodyExceedsLimit(limit) => {
                Failure::Final(FetchError::TooLong { url: url(), limit })
            }
            other => transient(other),
        })?;
        Ok(ServiceReply { body, issuer_chain })
    }
}

/// Whether a base URL may be used: HTTPS, or this machine itself (doubles in tests, tunnels).
pub(crate) fn check_base(base: &str) -> Result<(), FetchError> {
    let fail =
        |problem: &str| FetchError::Setup { what: format!("{base:?}"), problem: problem.into() };
    let uri: Uri = base.parse().map_err(|_| fail("not a URL"))?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match uri.scheme_str() {
        _ if host.is_empty() || uri.query().is_some() || base.contains(['@', '#']) => {
            Err(fail("not https://HOST[:PORT]"))
        }
        Some("https") => Ok(()),
        Some("http") if local => Ok(()),
        _ => Err(fail("not https, and not this machine")),
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// RFC 9110 §10.2.3: seconds, or a date.
fn retry_after(text: &str, now: u64) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let then = httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(Duration::from_secs(then.as_secs().saturating_sub(now)))
}

fn transient(error: ureq::Error) -> Failure {
    Failure::Transient {
        what: error.to_string().chars().take(200).collect(),
        after: None,
        busy: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_or_this_machine() {
        for good in [
            "https://kdsintf.amd.com",
            "https://mirror:8443/kds",
            "http://127.0.0.1:1",
            "http://[::1]:1",
            "http://localhost",
        ] {
            check_base(good).unwrap();
        }
        for bad in [
            "http://mirror",
            "ftp://x",
            "",
            "/x",
            "https://",
            "https://u@h",
            "http://127.0.0.1.evil.example",
            "https://h?x=1",
        ] {
            assert!(check_base(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn retry_after_in_seconds_or_as_a_date() {
        let seconds = |text, now| retry_after(text, now).map(|d| d.as_secs());
        assert_eq!(seconds("120", 0), Some(120));
        assert_eq!(seconds(" 0 ", 0), Some(0));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_700), Some(77));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777 + 5), Some(0));
        assert_eq!(seconds("-1", 0), None);
        assert_eq!(seconds("soon", 0), None);
    }
}
