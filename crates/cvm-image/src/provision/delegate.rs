//! A server's CVM that holds keys for the clients' CVMs: the party's folder in its `site` volume.

use std::{
    fs,
    path::{Path, PathBuf},
};

use cvm_ceremony::{Agreement, Site};
use cvm_custody::{
    CERTIFICATE_FILE, PARTY_FILE, POLICY_FILE, Party, SECRETS_FILE, UNLOCK_FILE, Unlock,
};
use cvm_layout::{
    keyholder_conf::{self, KeyHolderConf},
    names::Role,
    site_conf::SiteConf,
};
use zeroize::Zeroizing;

use super::ProvisionError;
use crate::{WorkError, memory::Memory, stage::erofs};

/// The folders by which a party judges evidence: who may endorse a TPM, and vendors' collateral.
const FOLDERS: [&str; 2] = ["ek-roots", "collateral"];
/// The public key of whoever collected the collateral.
const COLLECTOR: &str = "collateral.pub";
/// How deep the folders are copied: `collateral/files`.
const DEPTH: usize = 2;
/// More than any file of a party's folder needs.
const MAX_FILE: u64 = 16 * 1024 * 1024;

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
    /// The folder does not open, lies on a disk, or was sealed before.
    pub fn open(folder: &Path, port: u16, memory: &Memory) -> Result<Self, ProvisionError> {
        if folder.join(PARTY_FILE).exists() && !folder.join(SECRETS_FILE).exists() {
            return Err(ProvisionError::DelegateSealed(folder.to_owned()));
        }
        // The files as well: a link may lead to a disk.
        for path in [folder.to_owned(), folder.join(SECRETS_FILE), folder.join(UNLOCK_FILE)] {
            memory.check(&path)?;
        }
        let party = Party::load(folder, &Unlock::beside(folder))?;
        Ok(Self { folder: folder.to_owned(), party, port })
    }

    /// Destroys the folder's secrets: from now on they lie in the sealed image and nowhere else.
    pub(super) fn destroy(&self) -> Result<(), ProvisionError> {
        for name in [UNLOCK_FILE, SECRETS_FILE] {
            let path = self.folder.join(name);
            // If it is a link, this empties the file that it leads to.
            let emptied = fs::OpenOptions::new().write(true).truncate(true).open(&path);
            emptied.map_err(WorkError::io("empty", &path))?;
            fs::remove_file(&path).map_err(WorkError::io("remove", &path))?;
        }
        Ok(())
    }

    /// Some client must need it. The server itself must open without it, because its secrets lie in
    /// the server's image.
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
            return refuse(
                "its folder has other keys or another policy.rego than the agreement names",
            );
        }
        if site.names(name) {
            return refuse(
                "the site itself needs its half, and would have to open before it can give it",
            );
        }
        if !agreement
            .transcript()
            .terms
            .sites
            .iter()
            .any(|site| site.role == Role::Client && site.names(name))
        {
            return refuse("no client site names it");
        }
        Ok(())
    }

    /// Opens its port in the site's firewall.
    pub(super) fn open_port(&self, conf: &mut SiteConf) {
        if !conf.allowed_ports.contains(&self.port) {
            conf.allowed_ports.push(self.port);
        }
    }

    /// Writes `keyholder.yaml` to p4's tree, and the party's folder without its store to the site
    /// volume's. Gives the owner of the site volume's files.
    pub(super) fn install(
        &self,
        config: &Path,
        site: &Path,
    ) -> Result<erofs::Owner, ProvisionError> {
        let to = site.join(keyholder_conf::FOLDER);
        make(&to)?;
        for name in [PARTY_FILE, CERTIFICATE_FILE, POLICY_FILE, SECRETS_FILE, UNLOCK_FILE] {
            copy(&self.folder.join(name), &to.join(name))?;
        }
        for folder in FOLDERS {
            copy_folder(&self.folder.join(folder), &to.join(folder), DEPTH)?;
        }
        if self.folder.join(COLLECTOR).exists() {
            copy(&self.folder.join(COLLECTOR), &to.join(COLLECTOR))?;
        }
        let conf = serde_yaml::to_string(&KeyHolderConf::on_port(self.port))
            .expect("our documents have only string keys");
        cvm_base::write_atomic(&config.join(keyholder_conf::FILE), conf.as_bytes(), 0o644)?;
        Ok(erofs::Owner::NvflareAndKeyHolder(keyholder_conf::FOLDER))
    }

    /// What must not be in any partition that the host can read.
    pub(super) fn secrets(&self) -> Vec<(String, Zeroizing<Vec<u8>>)> {
        let name = &self.party.card().name;
        let secrets = self
            .party
            .secrets()
            .into_iter()
            .map(|(what, secret)| (format!("{what} of {name}"), secret));
        let files = [UNLOCK_FILE, SECRETS_FILE].into_iter().filter_map(|file| {
            let bytes = cvm_base::read_bounded(&self.folder.join(file), MAX_FILE).ok()?;
            Some((format!("{file} of {name}"), Zeroizing::new(bytes)))
        });
        secrets.chain(files).collect()
    }
}

/// A folder for the key holder alone.
fn make(path: &Path) -> Result<(), ProvisionError> {
    use std::os::unix::fs::DirBuilderExt as _;
    Ok(fs::DirBuilder::new().mode(0o700).create(path).map_err(WorkError::io("make", path))?)
}

/// Copies the plain files of a folder that may be missing.
fn copy_folder(from: &Path, to: &Path, depth: usize) -> Result<(), ProvisionError> {
    if !from.is_dir() || depth == 0 {
        return Ok(());
    }
    make(to)?;
    for entry in fs::read_dir(from).map_err(WorkError::io("read the folder", from))? {
        let entry = entry.map_err(WorkError::io("read the folder", from))?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(WorkError::io("look at", &path))?;
        if kind.is_dir() {
            copy_folder(&path, &target, depth - 1)?;
        } else if kind.is_file() {
            copy(&path, &target)?;
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<(), ProvisionError> {
    let bytes = Zeroizing::new(cvm_base::read_bounded(from, MAX_FILE)?);
    Ok(cvm_base::write_atomic(to, &bytes, 0o400)?)
}

#[cfg(test)]
mod tests;
