//! A project's own Secure Boot keys, the signatures made with them, and the firmware that knows no
//! other keys.
//!
//! PK, KEK and db are made once per project. No key of Microsoft or of a distribution is enrolled:
//! the firmware starts what this project signed and nothing else.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use cvm_base::{read_bounded, write_atomic};

use super::{
    BootError,
    variables::{self, CUSTOM_MODE, GLOBAL, Guid, IMAGE_SECURITY, SECURE_BOOT_ENABLE, Variable},
};
use crate::{
    WorkError, host,
    tool::{self, Scratch},
};

/// f1a7ec00-0000-4000-8000-000000000001: the owner of the enrolled certificates.
pub const OWNER: [u8; 16] = *b"\x00\xec\xa7\xf1\x00\x00\x00\x40\x80\x00\x00\x00\x00\x00\x00\x01";
/// a5c059a1-94e4-4aa7-87b5-ab155c2bf072: EFI_CERT_X509_GUID.
const X509: Guid = *b"\xa1\x59\xc0\xa5\xe4\x94\xa7\x4a\x87\xb5\xab\x15\x5c\x2b\xf0\x72";
/// c1c41626-504c-4092-aca9-41f936934328: EFI_CERT_SHA256_GUID.
const SHA256: Guid = *b"\x26\x16\xc4\xc1\x4c\x50\x92\x40\xac\xa9\x41\xf9\x36\x93\x43\x28";
const OVMF_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd";
const OVMF_VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
const SYSTEMD_BOOT: &str = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi";
const ROLES: [&str; 3] = ["PK", "KEK", "db"];

/// The folder of a project's Secure Boot keys: `{PK,KEK,db}.{key,crt,der}`, the keys mode 0600.
#[derive(Debug, Clone)]
pub struct Keys {
    folder: PathBuf,
}

/// The firmware and its variables as a bundle has them, and what PCR 7 measures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firmware {
    /// `OVMF_CODE.fd`.
    pub code: Vec<u8>,
    /// `OVMF_VARS.fd`: Secure Boot on, this project's keys enrolled.
    pub variables: Vec<u8>,
    /// The four key databases.
    pub databases: Databases,
}

/// The raw contents of the Secure Boot variables: `EFI_SIGNATURE_LIST`s (UEFI 2.10, 32.4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Databases {
    /// `PK`.
    pub pk: Vec<u8>,
    /// `KEK`.
    pub kek: Vec<u8>,
    /// `db`.
    pub db: Vec<u8>,
    /// `dbx`: one entry that matches nothing, because some firmware wants the variable to exist.
    pub dbx: Vec<u8>,
    /// db's first `EFI_SIGNATURE_DATA` (owner GUID ‖ certificate): the authority that PCR 7
    /// records. The certificate of whoever signed the image's own kernel modules comes after it.
    pub db_authority: Vec<u8>,
}

impl Databases {
    /// Reads the databases back from a bundle's `OVMF_VARS.fd`.
    ///
    /// # Errors
    /// [`BootError::Variables`] for bytes that are not a variable store.
    pub fn read(store: &[u8]) -> Result<Self, BootError> {
        let content = |name, vendor| variables::read(store, name, vendor).map(<[u8]>::to_vec);
        let db = content("db", &IMAGE_SECURITY)?;
        let db_authority = first_entry(&db).unwrap_or_default().to_vec();
        Ok(Self {
            pk: content("PK", &GLOBAL)?,
            kek: content("KEK", &GLOBAL)?,
            dbx: content("dbx", &IMAGE_SECURITY)?,
            db,
            db_authority,
        })
    }
}

impl Keys {
    /// Opens the keys in `folder`, or makes them (RSA-3072, self-signed) where `folder` does not
    /// exist.
    pub fn open_or_create(folder: &Path) -> Result<Self, BootError> {
        if !folder.exists() {
            create(folder)?;
        }
        let keys = Self { folder: folder.to_owned() };
        for role in ROLES {
            for suffix in ["key", "crt", "der"] {
                let path = keys.path(role, suffix);
                let meta = fs::metadata(&path)
                    .map_err(|e| keys.refuse(format!("{role}.{suffix}: {e}")))?;
                if suffix == "key" && meta.permissions().mode() & 0o077 != 0 {
                    return Err(keys.refuse(format!(
                        "{role}.key is open to others: chmod 600 {}",
                        path.display()
                    )));
                }
            }
        }
        Ok(keys)
    }

    /// Signs an EFI program with db's key. `name` names the program in an error.
    pub fn sign(&self, name: &'static str, program: &[u8]) -> Result<Vec<u8>, BootError> {
        let scratch = Scratch::new()?;
        let (from, to) = (scratch.join("unsigned.efi"), scratch.join("signed.efi"));
        write_atomic(&from, program, 0o600)?;
        let mut command = tool::command("sbsign");
        command.arg("--key").arg(self.path("db", "key")).arg("--cert").arg(self.path("db", "crt"));
        command.arg("--output").arg(&to).arg(&from);
        tool::run("sbsign", "signing an EFI program", command)?;
        let signed = read_bounded(&to, 256 << 20)?;
        if signed.len() <= program.len() {
            return Err(BootError::Efi { what: name, problem: "sbsign added no signature".into() });
        }
        Ok(signed)
    }

    /// The distribution's systemd-boot, signed: p1's `EFI/BOOT/BOOTX64.EFI`.
    pub fn signed_loader(&self) -> Result<Vec<u8>, BootError> {
        self.sign("systemd-boot", &boot_program(SYSTEMD_BOOT, "systemd-boot")?)
    }

    /// The distribution's OVMF with these keys enrolled, and the certificate of whoever signed the
    /// image's own kernel modules: db is where the kernel looks for it (its keyring `.platform`).
    pub fn firmware(&self, module_signer: Option<&[u8]>) -> Result<Firmware, BootError> {
        let der = |role| read_bounded(&self.path(role, "der"), 64 * 1024).map_err(BootError::from);
        let db_authority = [&OWNER[..], &der("db")?].concat();
        let signer = module_signer.map(|der| [&OWNER[..], der].concat());
        let certificates = std::iter::once(db_authority.clone()).chain(signer);
        let databases = Databases {
            pk: signature_list(X509, &[&OWNER[..], &der("PK")?].concat()),
            kek: signature_list(X509, &[&OWNER[..], &der("KEK")?].concat()),
            db: certificates
                .map(|certificate| signature_list(X509, &certificate))
                .collect::<Vec<_>>()
                .concat(),
            dbx: signature_list(SHA256, &[&OWNER[..], &cvm_base::sha256(b"").0].concat()),
            db_authority,
        };
        let database = |name, vendor, data| Variable { name, vendor, authenticated: true, data };
        let switch = |name, vendor, data| Variable { name, vendor, authenticated: false, data };
        let filled = variables::fill(
            &package_file(OVMF_VARS, "ovmf")?,
            &[
                database("PK", GLOBAL, &databases.pk),
                database("KEK", GLOBAL, &databases.kek),
                database("db", IMAGE_SECURITY, &databases.db),
                database("dbx", IMAGE_SECURITY, &databases.dbx),
                switch("SecureBootEnable", SECURE_BOOT_ENABLE, &[1]),
                switch("CustomMode", CUSTOM_MODE, &[0]),
            ],
        )?;
        Ok(Firmware { code: package_file(OVMF_CODE, "ovmf")?, variables: filled, databases })
    }

    fn path(&self, role: &str, suffix: &str) -> PathBuf {
        self.folder.join(format!("{role}.{suffix}"))
    }

    fn refuse(&self, problem: String) -> BootError {
        BootError::Keys { path: self.folder.clone(), problem }
    }
}

/// Makes the folder with all its keys, or not at all.
fn create(folder: &Path) -> Result<(), BootError> {
    let parent = tool::folder_of(folder);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(parent)
        .map_err(WorkError::io("make", parent))?;
    let scratch = Scratch::in_folder(parent)?;
    let made = scratch.join("keys");
    fs::DirBuilder::new().mode(0o700).create(&made).map_err(WorkError::io("make", made.clone()))?;
    for role in ROLES {
        let path = |suffix| made.join(format!("{role}.{suffix}"));
        let mut command = tool::command("openssl");
        command.args(["req", "-x509", "-newkey", "rsa:3072", "-noenc", "-sha256", "-days", "7300"]);
        command.arg("-subj").arg(format!("/CN=flare-cvm Secure Boot {role}/"));
        command.arg("-keyout").arg(path("key")).arg("-out").arg(path("crt"));
        tool::run("openssl", "making a Secure Boot key", command)?;
        let private = fs::Permissions::from_mode(0o600);
        fs::set_permissions(path("key"), private).map_err(WorkError::io("protect", path("key")))?;
        let mut command = tool::command("openssl");
        command
            .args(["x509", "-outform", "DER"])
            .arg("-in")
            .arg(path("crt"))
            .arg("-out")
            .arg(path("der"));
        tool::run("openssl", "encoding a certificate", command)?;
    }
    match fs::rename(&made, folder) {
        // Another program was faster: its keys are now the project's.
        Err(_) if folder.is_dir() => Ok(()),
        renamed => Ok(renamed.map_err(WorkError::io("make", folder))?),
    }
}

/// One `EFI_SIGNATURE_LIST` with one signature.
fn signature_list(kind: Guid, signature: &[u8]) -> Vec<u8> {
    let size = signature.len() as u32;
    let header = [(28 + size).to_le_bytes(), [0; 4], size.to_le_bytes()].concat();
    [&kind[..], &header, signature].concat()
}

/// The first signature of the first list.
fn first_entry(lists: &[u8]) -> Option<&[u8]> {
    // EFI_SIGNATURE_LIST: type, then the lengths of the list, of a further header and of an entry.
    let list = variables::u32_at(lists, 16)?;
    lists.get(28..list as usize)
}

/// One of systemd's EFI programs. It must add nothing from the host to the kernel's command line.
pub(super) fn boot_program(path: &str, what: &'static str) -> Result<Vec<u8>, BootError> {
    let program = package_file(path, "systemd-boot-efi")?;
    if host::takes_command_line(&program) {
        let problem = "takes a kernel command line from SMBIOS (systemd 254 and later)".into();
        return Err(BootError::HostChannel { what, problem });
    }
    Ok(program)
}

fn package_file(path: &str, package: &'static str) -> Result<Vec<u8>, BootError> {
    if !Path::new(path).exists() {
        return Err(BootError::MissingFile { path: path.into(), package });
    }
    Ok(read_bounded(Path::new(path), 64 << 20)?)
}

#[cfg(test)]
mod tests {
    use cvm_base::Explain;

    use super::*;

    #[test]
    fn keys_are_made_once_and_guarded() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("keys/secure-boot");
        let keys = Keys::open_or_create(&folder).unwrap();
        let firmware = keys.firmware(None).unwrap();
        assert_eq!(Keys::open_or_create(&folder).unwrap().firmware(None).unwrap(), firmware);
        assert_eq!(firmware.databases.db[28..], firmware.databases.db_authority);
        assert_eq!(Databases::read(&firmware.variables).unwrap(), firmware.databases);
        // A signer of modules comes after the project's own certificate, and changes nothing else.
        let with_signer = keys.firmware(Some(b"its certificate")).unwrap().databases;
        let db = [
            firmware.databases.db.clone(),
            signature_list(X509, &[&OWNER[..], b"its certificate"].concat()),
        ];
        assert_eq!(with_signer, Databases { db: db.concat(), ..firmware.databases.clone() });
        let variables = keys.firmware(Some(b"its certificate")).unwrap().variables;
        assert_eq!(Databases::read(&variables).unwrap(), with_signer);
        assert_eq!(
            fs::read_dir(folder.parent().unwrap()).unwrap().count(),
            1,
            "no temporary folder stays"
        );

        let signed = keys.signed_loader().unwrap();
        let program = dir.path().join("boot.efi");
        fs::write(&program, &signed).unwrap();
        let verify = |key: &Path| {
            let mut command = std::process::Command::new("sbverify");
            command.arg("--cert").arg(key).arg(&program).output().unwrap().status.success()
        };
        assert!(verify(&folder.join("db.crt")));
        assert!(!verify(&folder.join("KEK.crt")), "another key's signature");

        fs::set_permissions(folder.join("db.key"), fs::Permissions::from_mode(0o644)).unwrap();
        let error = Keys::open_or_create(&folder).unwrap_err();
        assert!(error.code() == "BOOT-012" && error.to_string().contains("chmod 600"), "{error}");
        fs::remove_file(folder.join("KEK.der")).unwrap();
        assert_eq!(Keys::open_or_create(&folder).unwrap_err().code(), "BOOT-012");
    }

    #[test]
    fn programs_that_start_at_the_same_time_get_the_same_keys() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("secure-boot");
        let certificates = std::thread::scope(|scope| {
            let open = || {
                Keys::open_or_create(&folder).map(|keys| fs::read(keys.path("db", "der")).unwrap())
            };
            [scope.spawn(open), scope.spawn(open)].map(|thread| thread.join().unwrap().unwrap())
        });
        assert!(certificates[0] == certificates[1]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary folder stays");
    }

    #[test]
    fn a_signature_list_is_what_the_specification_draws() {
        let list = signature_list(SHA256, &[&OWNER[..], &[0xab; 32]].concat());
        assert_eq!(list.len(), 76);
        assert_eq!(list[16..28], [76, 0, 0, 0, 0, 0, 0, 0, 48, 0, 0, 0]);
    }
}
