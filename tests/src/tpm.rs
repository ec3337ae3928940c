//! The host's virtual TPM: swtpm with an endorsement key that a private CA certified.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use cvm_testkit::swtpm;

/// A TPM's state folder and the CA that vouches for its endorsement key.
#[derive(Debug, Clone)]
pub struct Tpm {
    /// swtpm's state; `launch_vm.sh` gets it as `CVM_TPM_STATE`.
    pub state: PathBuf,
    /// PEM files of the root and the issuer, for a key holder's policy.
    pub roots: Vec<PathBuf>,
}

impl Tpm {
    /// Manufactures a TPM under `folder`, or finds the one made there before.
    pub fn manufacture(folder: &Path) -> Result<Self> {
        let folder = std::path::absolute(folder)?;
        let (state, ca) = (folder.join("state"), folder.join("ca"));
        let tpm = Self { state, roots: swtpm::ca_files(&ca).to_vec() };
        if tpm.state.join("tpm2-00.permall").exists() && tpm.roots.iter().all(|r| r.exists()) {
            return Ok(tpm);
        }
        swtpm::manufacture(&folder, &ca, true);
        for root in &tpm.roots {
            ensure!(root.exists(), "swtpm_setup did not make {}", root.display());
        }
        Ok(tpm)
    }

    /// Another machine's TPM, of the same manufacturer.
    pub fn another(&self, folder: &Path) -> Result<Self> {
        let folder = std::path::absolute(folder)?;
        let ca = self
            .roots
            .first()
            .and_then(|root| root.parent())
            .context("the manufacturer's folder")?;
        let other = Self { state: folder.join("state"), roots: self.roots.clone() };
        if !other.state.join("tpm2-00.permall").exists() {
            swtpm::manufacture(&folder, ca, true);
        }
        Ok(other)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_tpm_is_manufactured_once() {
        let dir = tempfile::tempdir().unwrap();
        let tpm = Tpm::manufacture(dir.path()).unwrap();
        let state = fs::read(tpm.state.join("tpm2-00.permall")).unwrap();
        let again = Tpm::manufacture(dir.path()).unwrap();
        assert_eq!(fs::read(again.state.join("tpm2-00.permall")).unwrap(), state);
    }
}
