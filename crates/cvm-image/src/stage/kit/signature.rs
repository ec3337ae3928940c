//! A kit's own signatures, as `nvflare.lighter.utils.sign_folders` makes them: a `signature.json`
//! in each folder with an RSA-PSS (SHA-256, longest salt) signature of each file's content and each
//! folder's name by the project's root key.

use std::{collections::BTreeMap, fs, path::Path};

use base64::Engine as _;

use super::KitError;
use crate::{
    WorkError,
    tool::{self, Scratch},
    tree,
};

const SIGNATURES: &str = "signature.json";
/// The configuration of a participant's own listener; `StaticFileBuilder` writes it when all
/// builders are done.
const LISTENER: &str = "local/comm_config.json";
/// More than any kit needs.
const MAX_BYTES: u64 = 1024 * 1024;

/// Checks every file and folder of `kit` against the root certificate that lies in it.
///
/// As `sub_start.sh --verify` does, and it refuses the same: a file without a signature, a link.
pub(super) fn verify(kit: &Path) -> Result<(), KitError> {
    let work = Scratch::new()?;
    let root = kit.join("startup/rootCA.pem");
    let mut command = tool::command("openssl");
    command.args(["x509", "-pubkey", "-noout", "-in"]).arg(&root);
    let public = tool::run("openssl", "reading the kit's root certificate", command)?;
    let public_file = work.join("public.pem");
    fs::write(&public_file, public).map_err(WorkError::io("write", &public_file))?;
    folder(kit, kit, &Checker { public: &public_file, work: work.path() })
}

struct Checker<'a> {
    public: &'a Path,
    work: &'a Path,
}

fn folder(kit: &Path, path: &Path, checker: &Checker) -> Result<(), KitError> {
    let name = |path: &Path| path.strip_prefix(kit).unwrap_or(path).display().to_string();
    let list = path.join(SIGNATURES);
    if !list.is_file() {
        let folders_are_signed = path == kit && kit.join("startup").join(SIGNATURES).is_file();
        return Err(if folders_are_signed {
            KitError::RootNotSigned
        } else {
            KitError::NotSigned { file: name(&list) }
        });
    }
    let bytes = cvm_base::read_bounded(&list, MAX_BYTES)?;
    let signatures: BTreeMap<String, String> = serde_json::from_slice(&bytes)
        .map_err(|e| KitError::Malformed { file: name(&list), problem: e.to_string() })?;
    for entry in tree::entries(path)? {
        let own_name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let metadata = entry.symlink_metadata().map_err(WorkError::io("look at", &entry))?;
        let bad =
            |problem: &str| KitError::BadSignature { file: name(&entry), problem: problem.into() };
        if metadata.is_symlink() || !(metadata.is_file() || metadata.is_dir()) {
            return Err(bad("only plain files and folders are allowed"));
        }
        if metadata.is_file() && own_name == SIGNATURES {
            continue;
        }
        let unsigned = || match name(&entry) {
            file if file == LISTENER => KitError::WrittenAfterSigning { file },
            _ => bad("it has no signature"),
        };
        let signature = signatures.get(&own_name).ok_or_else(unsigned)?;
        let signature = base64::engine::general_purpose::STANDARD
            .decode(signature)
            .map_err(|_| bad("its signature is not base64"))?;
        let signed = if metadata.is_dir() {
            let file = checker.work.join("name");
            fs::write(&file, &own_name).map_err(WorkError::io("write", &file))?;
            file
        } else {
            entry.clone()
        };
        if !checker.matches(&signed, &signature)? {
            return Err(bad("the content is another"));
        }
        if metadata.is_dir() {
            folder(kit, &entry, checker)?;
        }
    }
    Ok(())
}

impl Checker<'_> {
    fn matches(&self, signed: &Path, signature: &[u8]) -> Result<bool, KitError> {
        let file = self.work.join("signature");
        fs::write(&file, signature).map_err(WorkError::io("write", &file))?;
        let mut command = tool::command("openssl");
        command.args([
            "dgst",
            "-sha256",
            "-sigopt",
            "rsa_padding_mode:pss",
            "-sigopt",
            "rsa_pss_saltlen:max",
        ]);
        command.arg("-verify").arg(self.public).arg("-signature").arg(&file).arg(signed);
        match tool::run("openssl", "checking a signature", command) {
            Ok(_) => Ok(true),
            Err(WorkError::Tool { .. }) => Ok(false),
            Err(other) => Err(other.into()),
        }
    }
}
