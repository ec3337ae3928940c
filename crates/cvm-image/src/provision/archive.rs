//! A bundle as one file, `SITE.tgz` with a folder `cvm_ID/`, as NVFLARE's packager expects it.
//!
//! Nearly all of it is ciphertext, which does not compress: the gzip stream stores its blocks (see
//! [`super::gzip`]).

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use cvm_base::interrupt;

use super::{ProvisionError, files, gzip::Stored};
use crate::{WorkError, tool};

/// The public documents that the key holders need: copies lie beside the archive.
const ENROLMENT: [&str; 4] =
    [files::MANIFEST, files::MANIFEST_SIG, files::REFERENCE, files::REFERENCE_SIG];
/// 1980-01-01: the date of everything in a bundle.
const DATE: u64 = 315_532_800;

/// Where the copy of a bundle's document lies beside its archive: `SITE.manifest.json` beside
/// `SITE.tgz`.
pub fn document_beside(archive: &Path, document: &str) -> PathBuf {
    let mut name = archive.with_extension("").into_os_string();
    name.push(".");
    name.push(document);
    name.into()
}

/// Writes the bundle in `folder` to `archive`, below the folder `inner`, whole or not at all; then
/// the documents for the key holders beside it.
pub(super) fn write(
    folder: &Path,
    inner: &str,
    archive: &Path,
    replace: bool,
) -> Result<(), ProvisionError> {
    interrupt::checkpoint();
    let parent = tool::folder_of(archive);
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    let temporary = tempfile::Builder::new()
        .prefix(".flare-cvm-")
        .permissions(open)
        .tempfile_in(parent)
        .map_err(WorkError::io("create a temporary file in", parent))?;
    let _guard = interrupt::guard_path(temporary.path());
    pack(folder, inner, BufWriter::with_capacity(1 << 20, temporary.as_file()))
        .and_then(|()| temporary.as_file().sync_all())
        .map_err(WorkError::io("write", archive))?;
    interrupt::checkpoint();
    let persisted =
        if replace { temporary.persist(archive) } else { temporary.persist_noclobber(archive) };
    match persisted {
        Ok(_) => {}
        Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(ProvisionError::Exists(archive.into()));
        }
        Err(e) => return Err(WorkError::io("put the bundle at", archive)(e.error).into()),
    }
    File::open(parent).and_then(|f| f.sync_all()).map_err(WorkError::io("sync", parent))?;
    for name in ENROLMENT {
        let from = folder.join(name);
        let bytes = fs::read(&from).map_err(WorkError::io("read", &from))?;
        cvm_base::write_atomic(&document_beside(archive, name), &bytes, 0o644)?;
    }
    Ok(())
}

/// Packs the folder; the same files give the same bytes.
fn pack(folder: &Path, inner: &str, to: impl Write) -> io::Result<()> {
    let mut archive = tar::Builder::new(Stored::new(to)?);
    let mut names: Vec<_> =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<_>>()?;
    names.sort();
    let mut header = header(tar::EntryType::Directory, 0, 0o755);
    archive.append_data(&mut header, format!("{inner}/"), io::empty())?;
    for name in names {
        let path = folder.join(&name);
        let metadata = path.symlink_metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other(format!("{} is not a plain file", path.display())));
        }
        let mode = if std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o100 != 0
        {
            0o755
        } else {
            0o644
        };
        let mut header = self::header(tar::EntryType::Regular, metadata.len(), mode);
        archive.append_data(&mut header, Path::new(inner).join(&name), File::open(&path)?)?;
        interrupt::checkpoint();
    }
    archive.into_inner()?.finish()?.flush()
}

/// A header without an owner, and always with the same date.
fn header(kind: tar::EntryType, length: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(length);
    header.set_mode(mode);
    header.set_mtime(DATE);
    header.set_uid(0);
    header.set_gid(0);
    header
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use cvm_base::Explain as _;

    use super::*;

    /// What a bundle's folder looks like, with a small disk.
    fn bundle(dir: &Path) -> PathBuf {
        let folder = dir.join("bundle");
        fs::create_dir(&folder).unwrap();
        for name in [files::DISK, files::CODE, files::VARS, files::LAUNCH, files::README]
            .into_iter()
            .chain(ENROLMENT)
        {
            fs::write(folder.join(name), name.repeat(1000)).unwrap();
        }
        fs::set_permissions(
            folder.join(files::LAUNCH),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        folder
    }

    #[test]
    fn tar_unpacks_the_bundle_and_the_documents_lie_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, archive) = (bundle(dir.path()), dir.path().join("site-1.example.tgz"));
        write(&folder, "cvm_0123456789ab", &archive, false).unwrap();
        let out = dir.path().join("out");
        fs::create_dir(&out).unwrap();
        let status = Command::new("tar")
            .args(["-C", out.to_str().unwrap(), "-xzf", archive.to_str().unwrap()])
            .status();
        assert!(status.unwrap().success());
        let inner = out.join("cvm_0123456789ab");
        for entry in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap()) {
            let unpacked = inner.join(entry.file_name());
            assert_eq!(fs::read(&unpacked).unwrap(), fs::read(entry.path()).unwrap());
            assert_eq!(
                unpacked.metadata().unwrap().permissions(),
                entry.metadata().unwrap().permissions()
            );
        }
        let manifest = dir.path().join("site-1.example.manifest.json");
        assert_eq!(document_beside(&archive, files::MANIFEST), manifest);
        assert_eq!(fs::read(&manifest).unwrap(), fs::read(folder.join(files::MANIFEST)).unwrap());
        assert!(manifest.with_extension("sig").is_file(), "where `keyholder enroll` looks for it");
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&archive.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o644);
    }

    #[test]
    fn an_archive_replaces_another_only_when_told_and_is_the_same_again() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, archive) = (bundle(dir.path()), dir.path().join("a.tgz"));
        fs::write(&archive, "earlier").unwrap();
        assert_eq!(write(&folder, "cvm_1", &archive, false).unwrap_err().code(), "PRO-002");
        assert_eq!(fs::read(&archive).unwrap(), b"earlier");
        write(&folder, "cvm_1", &archive, true).unwrap();
        let first = fs::read(&archive).unwrap();
        write(&folder, "cvm_1", &archive, true).unwrap();
        assert!(first == fs::read(&archive).unwrap());
        std::os::unix::fs::symlink("/etc/passwd", folder.join("link")).unwrap();
        assert!(write(&folder, "cvm_1", &archive, true).is_err());
        assert!(first == fs::read(&archive).unwrap());
        let left = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, 2 + ENROLMENT.len(), "no temporary file stays");
    }
}
