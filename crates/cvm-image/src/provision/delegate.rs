//! A server's CVM that holds keys for the clients' CVMs: the party's folder in its `site` volume.

use std::{
    fs,
    path::{Path, PathBuf},
};

use cvm_ceremony::{
    Agreement, CERTIFICATE_FILE, PARTY_FILE, POLICY_FILE, Party, SECRETS_FILE, Site, UNLOCK_FILE, Unlock,
};
use cvm_layout::{
    keyholder_conf::{self, KeyHolderConf},
    names::Role,
    site_conf::SiteConf,
};
use zeroize::Zeroizing;

use super::ProvisionError;
use crate::{WorkError, stage::erofs};

/// The folder of those who may endorse a TPM, in a party's folder.
const EK_ROOTS: &str = "ek-roots";
/// More than any file of a party's folder needs.
const MAX_FILE: u64 = 1024 * 1024;

/// A party whose key holder runs in the CVM that is being sealed.
pub struct Delegate {
    folder: PathBuf,
    party: Party,
    port: u16,
}

impl Delegate {
    /// Opens the party's folder with the key file in it: nobody types a passphrase into a CVM.
    ///
    /// # Errors
    /// The ceremony's, where the folder does not open.
    pub fn open(folder: &Path, port: u16) -> Result<Self, ProvisionError> {
        let party = Party::load(folder, &Unlock::beside(folder))?;
        Ok(Self { folder: folder.to_owned(), party, port })
    }

    /// It must be of use to a client, and the server must open without it: its secrets lie in the server's image.
    pub(super) fn check(&self, agreement: &Agreement, site: &Site) -> Result<(), ProvisionError> {
        let name = &self.party.card().name;
        let refuse = |problem: &str| {
            let (party, site) = (name.clone(), site.name.clone());
            Err(ProvisionError::Delegate { party, site, problem: problem.into() })
        };
        if site.role != Role::Server {
            return refuse("only a server's CVM holds keys for others");
        }
        if *agreement.party(name)? != self.party.member()? {
            return refuse("its folder has other keys or another policy.rego than the agreement names");
        }
        if site.names(name) {
            return refuse("the site itself needs its half, and would have to open before it can give it");
        }
        if !agreement.transcript().terms.sites.iter().any(|site| site.role == Role::Client && site.names(name)) {
            return refuse("no client site names it");
        }
        Ok(())
    }

    /// Lets others reach it.
    pub(super) fn open_port(&self, conf: &mut SiteConf) {
        if !conf.allowed_ports.contains(&self.port) {
            conf.allowed_ports.push(self.port);
        }
    }

    /// Writes `keyholder.yaml` to p4's tree and what serves to the site volume's, never the store: who the files of
    /// the site volume belong to.
    pub(super) fn install(&self, config: &Path, site: &Path) -> Result<erofs::Owner, ProvisionError> {
        let to = site.join(keyholder_conf::FOLDER);
        let make = |path: &Path| {
            use std::os::unix::fs::DirBuilderExt as _;
            fs::DirBuilder::new().mode(0o700).create(path).map_err(WorkError::io("make", path))
        };
        make(&to)?;
        for name in [PARTY_FILE, CERTIFICATE_FILE, POLICY_FILE, SECRETS_FILE, UNLOCK_FILE] {
            copy(&self.folder.join(name), &to.join(name))?;
        }
        let roots = self.folder.join(EK_ROOTS);
        if roots.is_dir() {
            make(&to.join(EK_ROOTS))?;
            for entry in fs::read_dir(&roots).map_err(WorkError::io("read the folder", &roots))? {
                let file = entry.map_err(WorkError::io("read the folder", &roots))?;
                if file.path().extension().is_some_and(|extension| extension == "pem") {
                    copy(&file.path(), &to.join(EK_ROOTS).join(file.file_name()))?;
                }
            }
        }
        let conf =
            serde_yaml::to_string(&KeyHolderConf::on_port(self.port)).expect("our documents have only string keys");
        cvm_base::write_atomic(&config.join(keyholder_conf::FILE), conf.as_bytes(), 0o644)?;
        Ok(erofs::Owner::NvflareAndKeyHolder(keyholder_conf::FOLDER))
    }

    /// What must stand in no partition that the host can read.
    pub(super) fn secrets(&self) -> Vec<(String, Zeroizing<Vec<u8>>)> {
        let name = &self.party.card().name;
        let secrets = self.party.secrets().into_iter().map(|(what, secret)| (format!("{what} of {name}"), secret));
        let files = [UNLOCK_FILE, SECRETS_FILE].into_iter().filter_map(|file| {
            let bytes = cvm_base::read_bounded(&self.folder.join(file), MAX_FILE).ok()?;
            Some((format!("{file} of {name}"), Zeroizing::new(bytes)))
        });
        secrets.chain(files).collect()
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), ProvisionError> {
    let bytes = Zeroizing::new(cvm_base::read_bounded(from, MAX_FILE)?);
    Ok(cvm_base::write_atomic(to, &bytes, 0o400)?)
}

#[cfg(test)]
mod tests;
