//! The archive's own tar: where each of its files lies, and an image's layers in it, each verified.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io::{self, BufReader, Read, Seek, SeekFrom},
    rc::Rc,
};

use flate2::read::MultiGzDecoder;
use sha2::{Digest as _, Sha256};
use tar::EntryType;

use super::{
    ArchiveError,
    bounds::{Budget, Consumed, Plain},
    documents::{self, Descriptor, ImageConfig, MAX_BYTES, MAX_LAYERS, OciDocument, SavedImage},
    entries,
};

/// No archive of one image has more files.
const MAX_FILES: usize = 10_000;
const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The largest window that a zstd layer may ask memory for: 128 MiB, as its own tools allow.
const ZSTD_WINDOW: u32 = 27;

/// An uncompressed archive with its table of contents.
pub(super) struct Archive<R> {
    source: RefCell<R>,
    files: BTreeMap<String, Place>,
}

/// Where a file lies, or which other file it is the same as: older versions of Docker save a layer
/// that occurs twice in this way.
enum Place {
    At { offset: u64, length: u64 },
    Same(String),
}

/// An image in an archive.
pub(super) struct FoundImage {
    pub(super) image: ImageConfig,
    /// File names of the layers, the lowest first.
    pub(super) layers: Vec<String>,
}

/// A stream without its compression, and the budget that it counts against.
pub(super) fn plain<'a>(source: impl Read + 'a, budget: &'a Budget) -> io::Result<Plain<'a>> {
    let consumed = Rc::new(Cell::new(0));
    let mut source = BufReader::new(Consumed { inner: source, count: Rc::clone(&consumed) });
    let start = io::BufRead::fill_buf(&mut source)?;
    let inner: Box<dyn Read> = if start.starts_with(&GZIP) {
        Box::new(MultiGzDecoder::new(source))
    } else if start.starts_with(&ZSTD) {
        let mut decoder = zstd::Decoder::with_buffer(source)?;
        decoder.window_log_max(ZSTD_WINDOW)?;
        Box::new(decoder)
    } else {
        Box::new(source)
    };
    Ok(Plain { inner, consumed, produced: 0, budget, hash: Rc::new(RefCell::new(Sha256::new())) })
}

fn corrupt<T>(part: &str, problem: impl Into<String>) -> Result<T, ArchiveError> {
    Err(ArchiveError::Corrupt { part: part.into(), problem: problem.into() })
}

fn refused<T>(
    key: &'static str,
    found: impl Into<String>,
    reason: &'static str,
) -> Result<T, ArchiveError> {
    Err(ArchiveError::Refused { key, found: found.into(), reason })
}

impl<R: Read + Seek> Archive<R> {
    /// Reads the table of contents. `budget` only words the error here.
    pub(super) fn open(mut source: R, budget: &Budget) -> Result<Self, ArchiveError> {
        const PART: &str = "the table of contents";
        let mut files = BTreeMap::new();
        entries::each_entry(PART, BufReader::new(&mut source), budget, &mut |meta, _| {
            let name = String::from_utf8_lossy(&meta.name).trim_start_matches("./").to_owned();
            let place = match meta.kind {
                EntryType::Regular => Place::At { offset: meta.position, length: meta.size },
                EntryType::Directory => return Ok(()),
                EntryType::Link => Place::Same(String::from_utf8_lossy(&meta.link).into_owned()),
                EntryType::Symlink => {
                    Place::Same(beside(&name, &String::from_utf8_lossy(&meta.link)))
                }
                _ => {
                    return corrupt(
                        PART,
                        format!("{:?} is neither a file nor a folder", meta.shown()),
                    );
                }
            };
            if files.len() >= MAX_FILES {
                return corrupt(PART, format!("it has more than {MAX_FILES} files"));
            }
            match files.insert(name, place) {
                None => Ok(()),
                Some(_) => corrupt(PART, format!("{:?} is in it twice", meta.shown())),
            }
        })?;
        Ok(Self { source: RefCell::new(source), files })
    }

    /// The bytes of one file.
    fn file(&self, name: &str) -> Result<Slice<'_, R>, ArchiveError> {
        let place = match self.files.get(name) {
            Some(Place::Same(other)) => self.files.get(other),
            place => place,
        };
        match place {
            Some(Place::At { offset, length }) => {
                Ok(Slice { source: &self.source, at: *offset, left: *length })
            }
            _ => corrupt(name, "it is not in the archive"),
        }
    }

    /// A small file, whole.
    fn document(&self, name: &str) -> Result<Vec<u8>, ArchiveError> {
        let slice = self.file(name)?;
        if slice.left > MAX_BYTES {
            return corrupt(name, "it is longer than the 4 MiB of a description");
        }
        let (length, mut bytes) = (slice.left, Vec::new());
        match { slice }.read_to_end(&mut bytes) {
            Ok(count) if count as u64 == length => Ok(bytes),
            Ok(_) => corrupt(name, "the archive ends in it"),
            Err(error) => corrupt(name, error.to_string()),
        }
    }

    /// A small file that is named by its digest.
    fn verified(&self, name: &str, expected: &str) -> Result<Vec<u8>, ArchiveError> {
        let bytes = self.document(name)?;
        same(name, expected, Sha256::new_with_prefix(&bytes))?;
        Ok(bytes)
    }

    /// The one image of the archive.
    pub(super) fn image(&self) -> Result<FoundImage, ArchiveError> {
        let found = if self.files.contains_key("manifest.json") {
            self.saved()?
        } else if self.files.contains_key("index.json") {
            self.oci()?
        } else {
            return corrupt("the table of contents", "it has neither manifest.json nor index.json");
        };
        let platform = &found.image.platform;
        if !platform.fits() {
            let (os, architecture) = (&platform.os, &platform.architecture);
            return refused(
                "architecture",
                format!("{os}/{architecture}"),
                "the CVM runs linux/amd64",
            );
        }
        let (layers, ids) = (found.layers.len(), found.image.rootfs.diff_ids.len());
        if layers == 0 || layers > MAX_LAYERS || layers != ids {
            let problem = format!(
                "it names {layers} layers and {ids} digests, expected as many, 1 to {MAX_LAYERS}"
            );
            return corrupt("the image's configuration", problem);
        }
        Ok(found)
    }

    /// The image as `docker save` writes it; newer versions add an OCI layout over the same blobs.
    fn saved(&self) -> Result<FoundImage, ArchiveError> {
        const NAME: &str = "manifest.json";
        let saved: Vec<SavedImage> = documents::parse(NAME, &self.document(NAME)?)?;
        let [saved] = saved.as_slice() else {
            return refused("images", saved.len().to_string(), "a workload is one image: save one");
        };
        // Docker, skopeo and crane name the configuration by its digest. Jib does not, and nothing
        // else says what the digest was.
        let name = saved.config.rsplit('/').next().unwrap_or_default();
        let digest = name.strip_suffix(".json").unwrap_or(name);
        let digest = digest.strip_prefix("sha256:").unwrap_or(digest);
        let config = match documents::is_sha256(digest) {
            true => self.verified(&saved.config, digest)?,
            false => self.document(&saved.config)?,
        };
        Ok(FoundImage {
            image: documents::parse(&saved.config, &config)?,
            layers: saved.layers.clone(),
        })
    }

    /// The image as the OCI image layout has it.
    fn oci(&self) -> Result<FoundImage, ArchiveError> {
        const NAME: &str = "index.json";
        let mut index: OciDocument = documents::parse(NAME, &self.document(NAME)?)?;
        // An index may lead to another index: that of one image for several machines.
        for _ in 0..3 {
            let mut fitting: Vec<&Descriptor> = index
                .manifests
                .iter()
                .filter(|m| m.platform.as_ref().is_none_or(|p| p.fits()))
                .collect();
            let (Some(only), true) = (fitting.pop(), fitting.is_empty()) else {
                let found = (fitting.len() + 1).min(index.manifests.len());
                return refused(
                    "images",
                    found.to_string(),
                    "a workload is one image for linux/amd64: save one",
                );
            };
            let manifest: OciDocument = documents::parse(&only.digest, &self.blob(&only.digest)?)?;
            if let Some(config) = &manifest.config {
                let image = documents::parse(&config.digest, &self.blob(&config.digest)?)?;
                let layers = manifest
                    .layers
                    .iter()
                    .map(|layer| blob_name(&layer.digest))
                    .collect::<Result<_, _>>()?;
                return Ok(FoundImage { image, layers });
            }
            index = manifest;
        }
        corrupt(NAME, "it leads from index to index")
    }

    fn blob(&self, digest: &str) -> Result<Vec<u8>, ArchiveError> {
        self.verified(&blob_name(digest)?, documents::sha256_of("index.json", digest)?)
    }

    /// Hands a layer's tar stream to `apply`, and then compares what it read with the digests: the
    /// blob's own, if its name has one, and the unpacked layer's.
    pub(super) fn layer(
        &self,
        name: &str,
        diff_id: &str,
        budget: &Budget,
        apply: impl FnOnce(&mut dyn Read) -> Result<(), ArchiveError>,
    ) -> Result<(), ArchiveError> {
        let diff_id = documents::sha256_of("the image's configuration", diff_id)?;
        let broken = |error: io::Error| budget.explain(name, &error);
        if let Some(expected) = name.strip_prefix("blobs/sha256/") {
            same(name, expected, hashed(self.file(name)?).map_err(broken)?)?;
        }
        let mut stream = plain(self.file(name)?, budget).map_err(broken)?;
        let hash = Rc::clone(&stream.hash);
        apply(&mut stream)?;
        // What follows a tar's last entry is hashed too.
        io::copy(&mut stream, &mut io::sink()).map_err(broken)?;
        let hash = hash.borrow().clone();
        same(name, diff_id, hash)
    }
}

fn blob_name(digest: &str) -> Result<String, ArchiveError> {
    Ok(format!("blobs/sha256/{}", documents::sha256_of("index.json", digest)?))
}

/// The file that a link in the table of contents means. `..` can only lead to another of its files.
fn beside(name: &str, link: &str) -> String {
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." | "" => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn hashed(mut stream: impl Read) -> io::Result<Sha256> {
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(hash),
            count => hash.update(buffer.get(..count).unwrap_or_default()),
        }
    }
}

fn same(part: &str, expected: &str, hash: Sha256) -> Result<(), ArchiveError> {
    let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if found == expected {
        return Ok(());
    }
    Err(ArchiveError::Digest { part: part.into(), expected: expected.into(), found })
}

/// A file of the archive, read in place.
struct Slice<'a, R> {
    source: &'a RefCell<R>,
    at: u64,
    left: u64,
}

impl<R: Read + Seek> Read for Slice<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let (buffer, _) = buffer.split_at_mut(wanted);
        let mut source = self.source.borrow_mut();
        source.seek(SeekFrom::Start(self.at))?;
        let count = source.read(buffer)?;
        if count == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}
