//! How the agent in the CVM behaves: `flare_cvm.attest_port` and `flare_cvm.agent` become
//! `agent.yaml` on p4.

use cvm_layout::agent_conf::{CHECK_FREQUENCY_S, LEEWAY_S, MAX_CLOCK_WAIT_S, TOKEN_LIFETIME_S};
use serde::Serialize;

use super::{
    CcConfigError,
    section::{Item, Section},
};

/// `agent.yaml`. Values that are left out are the agent's defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct AgentConf {
    /// The TCP port at which anybody may challenge the running CVM; none by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attest_port: Option<u16>,
    /// Seconds between two self-verifications.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check_frequency_s: Option<u64>,
    /// Seconds that a token is valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_lifetime_s: Option<u64>,
    /// Seconds by which a peer's clock may differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leeway_s: Option<u64>,
    /// Seconds to wait for the token of a peer whose clock is ahead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_clock_wait_s: Option<u64>,
    /// Bare SEV-SNP reports, for NVFLARE's own authorizer: [`Self::for_kit`] asks for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snp_reports: Option<SnpReports>,
}

/// What `snpguest` writes into a report's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnpReports {
    /// The report and the chip's certificate, as sealed peers read it.
    WithCertificates,
    /// The report alone, as every `snpguest` reads it.
    Alone,
}

impl AgentConf {
    /// The file's name on p4.
    pub const FILE: &str = "agent.yaml";

    pub(super) fn read(port: Option<Item>, agent: Option<Item>) -> Result<Self, CcConfigError> {
        const PORT: &str = "a TCP port, 1 to 65535";
        const KEYS: [&str; 5] =
            ["check_frequency", "leeway", "max_clock_wait", "snp_reports", "token_lifetime"];
        const FORMS: [(&str, SnpReports); 2] =
            [("with-certificates", SnpReports::WithCertificates), ("alone", SnpReports::Alone)];
        let port = port.map(|item| item.number(PORT, 1..=65535)).transpose()?;
        let mut conf = Self { attest_port: port.map(|port| port as u16), ..Self::default() };
        let Some(item) = agent else { return Ok(conf) };
        let mut section = item.section(
            "a mapping with check_frequency, token_lifetime, leeway, max_clock_wait, snp_reports",
            &KEYS,
        )?;
        let seconds = |section: &mut Section, key: &str, expected: &'static str, range| {
            section.optional(key).map(|item| item.number(expected, range)).transpose()
        };
        conf.check_frequency_s =
            seconds(&mut section, "check_frequency", "seconds, 1 to 86400", CHECK_FREQUENCY_S)?;
        conf.token_lifetime_s =
            seconds(&mut section, "token_lifetime", "seconds, 1 to 3600", TOKEN_LIFETIME_S)?;
        conf.leeway_s = seconds(&mut section, "leeway", "seconds, 0 to 300", LEEWAY_S)?;
        conf.max_clock_wait_s =
            seconds(&mut section, "max_clock_wait", "seconds, 0 to 600", MAX_CLOCK_WAIT_S)?;
        let form = section.optional("snp_reports");
        conf.snp_reports =
            form.map(|item| item.one_of("with-certificates or alone", &FORMS)).transpose()?;
        Ok(conf)
    }

    /// The settings for a kit: the agent signs bare reports only if the kit names NVFLARE's SNP
    /// authorizer.
    #[must_use]
    pub fn for_kit(&self, names_snp_authorizer: bool) -> Self {
        let form = self.snp_reports.unwrap_or(SnpReports::WithCertificates);
        Self { snp_reports: names_snp_authorizer.then_some(form), ..self.clone() }
    }

    /// The file's content, unless every value is the default.
    pub fn yaml(&self) -> Option<String> {
        if *self == Self::default() {
            return None;
        }
        let settings = serde_yaml::to_string(self).expect("a mapping of numbers is YAML");
        Some(format!("version: 1\n{settings}"))
    }
}
