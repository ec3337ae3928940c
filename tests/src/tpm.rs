//! The host's virtual TPM: swtpm with an endorsement key that a private CA certified.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, ensure};

use crate::run;

/// A TPM's state folder and the CA that vouches for its endorsement key.
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
        let roots = vec![ca.join("swtpm-localca-rootca-cert.pem"), ca.join("issuercert.pem")];
        let tpm = Self { state, roots };
        if tpm.state.join("tpm2-00.permall").exists() && tpm.roots.iter().all(|r| r.exists()) {
            return Ok(tpm);
        }
        fs::create_dir_all(&tpm.state)?;
        fs::create_dir_all(&ca)?;
        let (setup, localca, options) =
            (folder.join("setup.conf"), folder.join("localca.conf"), folder.join("localca.options"));
        let c = ca.display();
        fs::write(
            &localca,
            format!(
                "statedir = {c}\nsigningkey = {c}/signkey.pem\nissuercert = {c}/issuercert.pem\ncertserial = {c}/certserial\n"
            ),
        )?;
        fs::write(&options, "--platform-manufacturer flare-cvm\n--platform-version 1\n--platform-model laboratory\n")?;
        fs::write(
            &setup,
            format!(
                "create_certs_tool = /usr/bin/swtpm_localca\ncreate_certs_tool_config = {}\ncreate_certs_tool_options = {}\n",
                localca.display(),
                options.display()
            ),
        )?;
        run(Command::new("swtpm_setup")
            .args(["--tpm2", "--create-ek-cert", "--pcr-banks", "sha256", "--overwrite", "--tpmstate"])
            .arg(&tpm.state)
            .arg("--config")
            .arg(&setup))?;
        for root in &tpm.roots {
            ensure!(root.exists(), "swtpm_setup did not make {}", root.display());
        }
        Ok(tpm)
    }
}

#[cfg(test)]
mod tests {
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
