//! Where a server's NVFLARE reports to. NVFLARE's own configuration names the address (its
//! `StatsDReporter`, a job's MLflow or W&B receiver). The sealed machine adds an open port, and the
//! check that the Python package is there.

use super::{
    CcConfigError,
    section::{Item, Section},
};

/// A service outside that a server reports to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Monitor {
    /// Its key under `flare_cvm.monitors`.
    pub key: &'static str,
    /// The Python package that speaks to it.
    pub package: &'static str,
    /// Its port.
    pub port: Port,
}

/// A port that the firewall opens for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// Over TCP.
    Tcp(u16),
    /// Over UDP.
    Udp(u16),
}

/// Key, package and protocol.
type KnownMonitor = (&'static str, &'static str, fn(u16) -> Port);

const KNOWN: [KnownMonitor; 3] = [
    ("mlflow", "mlflow", Port::Tcp),
    ("statsd", "datadog", Port::Udp),
    ("wandb", "wandb", Port::Tcp),
];

/// Reads `flare_cvm.monitors`.
pub(super) fn read(item: Item) -> Result<Vec<Monitor>, CcConfigError> {
    const PORT: &str = "the port of the service, 1 to 65535";
    let mut section: Section = item.section(
        "a mapping of mlflow, statsd and wandb to ports",
        &["mlflow", "statsd", "tensorboard", "wandb"],
    )?;
    if let Some(item) = section.optional("tensorboard") {
        return item.refuse(
            "TensorBoard reads files, and those lie in the sealed workspace",
            "leave it out: NVFLARE's TBAnalyticsReceiver puts its events into the job's result, \
             which the project admin downloads",
        );
    }
    let monitor = |(key, package, port): KnownMonitor| {
        let item = section.optional(key)?;
        Some(item.number(PORT, 1..=65535).map(|number| Monitor {
            key,
            package,
            port: port(number as u16),
        }))
    };
    KNOWN.into_iter().filter_map(monitor).collect()
}
