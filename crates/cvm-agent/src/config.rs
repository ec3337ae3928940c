//! `agent.yaml` on p4: optional, strict.

use std::{ops::RangeInclusive, path::Path};

use cvm_base::read_bounded;
use cvm_layout::agent_conf::{CHECK_FREQUENCY_S, LEEWAY_S, MAX_CLOCK_WAIT_S, TOKEN_LIFETIME_S};
use serde::Deserialize;

use crate::error::SetupError;
use cvm_peer::verify::Clocks;

/// More than it can need, in bytes.
const MAX_BYTES: u64 = 16 * 1024;

/// How the agent behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where auditors may ask; nowhere by default.
    pub attest_port: Option<u16>,
    /// Seconds between two self-verifications.
    pub check_frequency_s: u64,
    /// Seconds that a token is valid.
    pub token_lifetime_s: u64,
    /// How peers' clocks may differ.
    pub clocks: Clocks,
    /// Bare SEV-SNP reports, for NVFLARE's own authorizer; none by default.
    pub snp_reports: Option<SnpReports>,
}

/// In which form the program `snpguest` writes a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnpReports {
    /// With the certificates that the host gave, after it: then a peer that was sealed too needs no
    /// service of AMD's.
    WithCertificates,
    /// The 1184 bytes alone, as every `snpguest` reads them.
    Alone,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    attest_port: Option<u16>,
    check_frequency_s: Option<u64>,
    token_lifetime_s: Option<u64>,
    leeway_s: Option<u64>,
    max_clock_wait_s: Option<u64>,
    snp_reports: Option<SnpReports>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            attest_port: None,
            check_frequency_s: 60,
            token_lifetime_s: 300,
            clocks: Clocks { leeway_s: 30, max_wait_s: 120 },
            snp_reports: None,
        }
    }
}

impl Config {
    /// Reads the file; the defaults where there is none.
    ///
    /// # Errors
    /// [`SetupError::Config`] or [`SetupError::File`].
    pub fn read(path: &Path) -> Result<Self, SetupError> {
        if !path.exists() {
            return Ok(Self::default());
        }
        let config = |problem| SetupError::Config { path: path.display().to_string(), problem };
        Self::parse(&read_bounded(path, MAX_BYTES)?).map_err(config)
    }

    /// Reads the file's bytes; the error is for people.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let file: File = serde_yaml::from_slice(bytes).map_err(|e| e.to_string())?;
        if file.version != 1 {
            return Err(format!("version {}, this program reads 1", file.version));
        }
        if file.attest_port == Some(0) {
            return Err("attest_port is 0, expected 1 to 65535".into());
        }
        let within = |member: &str,
                      value: Option<u64>,
                      default: u64,
                      range: RangeInclusive<u64>| match value {
            None => Ok(default),
            Some(value) if range.contains(&value) => Ok(value),
            Some(value) => {
                Err(format!("{member} is {value}, expected {} to {}", range.start(), range.end()))
            }
        };
        let default = Self::default();
        let Clocks { leeway_s, max_wait_s } = default.clocks;
        let (check, lifetime) = (default.check_frequency_s, default.token_lifetime_s);
        Ok(Self {
            attest_port: file.attest_port,
            check_frequency_s: within(
                "check_frequency_s",
                file.check_frequency_s,
                check,
                CHECK_FREQUENCY_S,
            )?,
            token_lifetime_s: within(
                "token_lifetime_s",
                file.token_lifetime_s,
                lifetime,
                TOKEN_LIFETIME_S,
            )?,
            clocks: Clocks {
                leeway_s: within("leeway_s", file.leeway_s, leeway_s, LEEWAY_S)?,
                max_wait_s: within(
                    "max_clock_wait_s",
                    file.max_clock_wait_s,
                    max_wait_s,
                    MAX_CLOCK_WAIT_S,
                )?,
            },
            snp_reports: file.snp_reports,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_is_strict() {
        let read = Config::parse(b"version: 1\nattest_port: 8444\nleeway_s: 0\n").unwrap();
        assert_eq!(
            (read.attest_port, read.clocks.leeway_s, read.check_frequency_s),
            (Some(8444), 0, 60)
        );
        assert_eq!(read.snp_reports, None);
        let read = Config::parse(b"version: 1\nsnp_reports: with-certificates\n").unwrap();
        assert_eq!(read.snp_reports, Some(SnpReports::WithCertificates));
        for bad in [
            "",
            "version: 2",
            "attest_port: 1",
            "version: 1\nmore: 1",
            "version: 1\nattest_port: 0",
            "version: 1\nattest_port: 70000",
            "version: 1\ncheck_frequency_s: 0",
            "version: 1\ntoken_lifetime_s: 3601",
            "version: 1\nleeway_s: -1",
            "version: 1\nversion: 1",
            "version: 1\nsnp_reports: true",
        ] {
            assert!(Config::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
