//! The site's settings: `site_conf.yaml` on the verified p4, and where key holders are.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use cvm_layout::{
    manifest::Stage,
    names::Name,
    site_conf::{MAX_BYTES, SiteConf},
};
use cvm_release_https::{Endpoint, Holder, Limits, Resolve, SystemResolver};

use crate::{
    codes::{Code, Coded, Failure},
    manifest::VerifiedImage,
    platform::wait,
    release::{KeyHolder, failure_of},
};

const FILE: &str = "site_conf.yaml";
const LIMITS: Limits = Limits {
    resolve: wait::RESOLVE,
    connect: wait::CONNECT,
    request: wait::REQUEST,
    total: wait::KEY_HOLDER,
};

/// Reads the settings from the mounted p4.
pub fn read(config: &Path, verified: &VerifiedImage) -> Result<SiteConf, Failure> {
    let bytes = cvm_base::read_bounded(&config.join(FILE), MAX_BYTES).code(Code::SiteConf)?;
    parse(&bytes, verified).code(Code::SiteConf)
}

/// Parses the settings; they must be of this site.
pub fn parse(bytes: &[u8], verified: &VerifiedImage) -> Result<SiteConf, String> {
    let conf = SiteConf::parse(bytes).map_err(|e| e.to_string())?;
    let manifest = &verified.manifest;
    if conf.site == manifest.site && conf.role == manifest.role {
        return Ok(conf);
    }
    Err(format!(
        "it is of {} {}, the image of {} {}",
        conf.role, conf.site, manifest.role, manifest.site
    ))
}

/// One key holder for each party of the stage: identity from the manifest, address from
/// `endpoints.yaml` if it names one.
pub fn holders<'a>(
    verified: &'a VerifiedImage,
    conf: &SiteConf,
    stage: Stage,
) -> Result<BTreeMap<&'a Name, Box<dyn KeyHolder>>, Failure> {
    let proxy = verified.endpoints.proxy.as_ref().or(conf.proxy.as_ref());
    let parties = verified.manifest.asked(stage);
    let documents = verified.documents.presented().map(Arc::new);
    let holder = parties.map(|party| {
        let url = verified.endpoints.keyholders.get(&party.name).unwrap_or(&party.keyholder.url);
        let endpoint = Endpoint {
            party: party.name.to_string(),
            url: url.clone(),
            certificate_sha256: party.keyholder.certificate_sha256,
            proxy: proxy.cloned(),
        };
        let names = Names(conf.hosts_entries.clone());
        let mut holder = Holder::new(&endpoint, LIMITS, names).map_err(failure_of)?;
        if let Some(documents) = &documents {
            holder = holder.presenting(documents.clone());
        }
        Ok((&party.name, Box::new(holder) as Box<dyn KeyHolder>))
    });
    holder.collect()
}

/// The site's `hosts_entries` first, then DNS.
struct Names(BTreeMap<String, IpAddr>);

impl Resolve for Names {
    fn resolve(&self, host: &str, port: u16, limit: Duration) -> io::Result<Vec<SocketAddr>> {
        match self.0.get(host) {
            Some(address) => Ok(vec![SocketAddr::new(*address, port)]),
            None => SystemResolver.resolve(host, port, limit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::tests::verified;

    const GOOD: &str =
        "version: 1\nsite: server1\nrole: server\nhosts_entries: {owner.example: 10.0.2.2}\n";

    #[test]
    fn settings_are_of_this_site_and_forge_no_line() {
        let verified = verified();
        parse(GOOD.as_bytes(), &verified).unwrap();
        for (bad, what) in [
            (GOOD.replace("server1", "server2"), "server2"),
            (GOOD.replace("role: server", "role: client"), "client"),
            (GOOD.replace("version: 1", "version: 2"), "version"),
            (GOOD.replace("owner.example", "\"a\\n10.0.0.1 b\""), "hosts_entries"),
            (format!("{GOOD}unknown: 1\n"), "unknown"),
        ] {
            assert!(parse(bad.as_bytes(), &verified).unwrap_err().contains(what), "{bad}");
        }
    }

    #[test]
    fn an_address_can_be_overridden_and_must_be_https() {
        let mut verified = verified();
        let conf = parse(GOOD.as_bytes(), &verified).unwrap();
        assert_eq!(holders(&verified, &conf, Stage::Boot).ok().unwrap().len(), 2);
        let name: Name = "data-owner".parse().unwrap();
        verified.endpoints.keyholders.insert(name.clone(), "https://owner.example:1".into());
        assert_eq!(holders(&verified, &conf, Stage::Boot).ok().unwrap().len(), 2);
        verified.endpoints.keyholders.insert(name, "http://owner.example:1".into());
        assert_eq!(holders(&verified, &conf, Stage::Boot).err().unwrap().code, Code::Unreachable);
    }

    #[test]
    fn hosts_entries_come_before_dns() {
        let names = Names([("owner.example".to_owned(), IpAddr::from([10, 0, 2, 2]))].into());
        let found = names.resolve("owner.example", 443, Duration::ZERO).unwrap();
        assert_eq!(found, [SocketAddr::from(([10, 0, 2, 2], 443))]);
    }
}
