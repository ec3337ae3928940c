//! Evidence that was recorded: a device for tests, and for looking at one machine's evidence on
//! another.
//!
//! ```text
//! folder/
//!   report.bin, certs.bin    SNP (certs.bin: the host's certificate table; may be missing)
//!   derived-key.bin          and the key that it derives: for tests
//!   quote.bin                or TDX
//!   gpu/0/report.bin, gpu/0/chain.pem, gpu/1/…    or GPUs
//! ```
//!
//! [`Recorded::write`] records a TPM's and Azure's evidence too, for verifiers. [`Recorded::open`]
//! does not read those: no key is left that could answer a challenge.

use std::path::{Path, PathBuf};

use cvm_base::{FileError, read_bounded, write_atomic};
use zeroize::Zeroizing;

use cvm_evidence::certificate_table::{MAX_TABLE_BYTES, certificate_table};

use crate::{
    bound::{MAX_QUOTE_BYTES, SNP_REPORT_BYTES, bound_to, host_certificates},
    device::{Device, Gpu, Kind, Raw, short_nonce},
    error::CollectError,
};

/// More GPUs than one machine has.
const MAX_GPUS: usize = 64;
/// More than an SPDM report (8 KiB) or a GPU's chain has.
const MAX_GPU_BYTES: u64 = 64 * 1024;

/// A folder with recorded evidence of one kind.
#[derive(Debug)]
pub struct Recorded {
    folder: PathBuf,
    kind: Kind,
    replay: bool,
}

impl Recorded {
    /// Opens a folder. It answers only the challenge that it was recorded for.
    ///
    /// # Errors
    /// [`CollectError::Absent`] for a folder without evidence.
    pub fn open(folder: &Path) -> Result<Self, CollectError> {
        let has = |name: &str| folder.join(name).is_file();
        let kind = match () {
            () if has("report.bin") => Kind::Snp,
            () if has("quote.bin") => Kind::Tdx,
            () if has("gpu/0/report.bin") => Kind::Gpu,
            () => {
                let problem = "neither report.bin, quote.bin nor gpu/0/report.bin".into();
                return Err(CollectError::Absent {
                    device: format!("recording in {}", folder.display()),
                    problem,
                });
            }
        };
        Ok(Self { folder: folder.into(), kind, replay: false })
    }

    /// Answers every challenge with what was recorded: a replay, which no verifier accepts.
    #[must_use]
    pub fn replaying(self) -> Self {
        Self { replay: true, ..self }
    }

    /// Records evidence into a folder, as `flare-cvm attest verify` reads it.
    ///
    /// # Errors
    /// [`CollectError::File`].
    pub fn write(folder: &Path, raw: &Raw) -> Result<(), CollectError> {
        let write = |name: &str, bytes: &[u8]| -> Result<(), CollectError> {
            let path = folder.join(name);
            let parent = path.parent().unwrap_or(folder);
            std::fs::create_dir_all(parent).map_err(|source| FileError::Io {
                action: "create",
                path: parent.to_owned(),
                source,
            })?;
            Ok(write_atomic(&path, bytes, 0o644)?)
        };
        match raw {
            Raw::Snp { report, certificates } => {
                write("report.bin", report)?;
                write("certs.bin", &certificate_table(certificates))
            }
            Raw::Tdx { quote } => write("quote.bin", quote),
            Raw::Gpus(gpus) => gpus.iter().enumerate().try_for_each(|(index, gpu)| {
                write(&format!("gpu/{index}/report.bin"), &gpu.report)?;
                write(&format!("gpu/{index}/chain.pem"), &gpu.certificates)
            }),
            Raw::Azure { hcl_report, quote, signature, pcrs } => {
                write("hcl.bin", hcl_report)?;
                write("quote.msg", quote)?;
                write("quote.sig", signature)?;
                write("pcrs.bin", pcrs.as_flattened())
            }
            Raw::Tpm { ak_public, quote } => {
                write("ak.pub", ak_public.as_ref())?;
                write("quote.msg", quote.message.as_ref())?;
                write("quote.sig", quote.signature.as_ref())?;
                write("pcrs.json", &serde_json::to_vec(&quote.pcrs).unwrap_or_default())
            }
        }
    }

    fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, CollectError> {
        Ok(read_bounded(&self.folder.join(name), limit)?)
    }

    fn check(&self, bytes: &[u8], asked: &[u8]) -> Result<(), CollectError> {
        let folder = self.folder.display().to_string();
        let Some(recorded) = bound_to(self.kind, bytes) else {
            return Err(CollectError::answer(
                folder,
                format!("{} bytes that are not evidence of its kind", bytes.len()),
            ));
        };
        if self.replay || recorded == asked {
            return Ok(());
        }
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Err(CollectError::Recorded { folder, recorded: hex(recorded), asked: hex(asked) })
    }
}

impl Device for Recorded {
    fn kind(&self) -> Kind {
        self.kind
    }

    fn evidence(&mut self, report_data: &[u8; 64]) -> Result<Raw, CollectError> {
        match self.kind {
            Kind::Tdx => {
                let quote = self.read("quote.bin", MAX_QUOTE_BYTES as u64)?;
                self.check(&quote, report_data)?;
                Ok(Raw::Tdx { quote })
            }
            Kind::Gpu => {
                let mut gpus = Vec::new();
                while gpus.len() < MAX_GPUS
                    && self.folder.join(format!("gpu/{}/report.bin", gpus.len())).is_file()
                {
                    let index = gpus.len();
                    let report = self.read(&format!("gpu/{index}/report.bin"), MAX_GPU_BYTES)?;
                    self.check(&report, &short_nonce(report_data))?;
                    gpus.push(Gpu {
                        uuid: format!("recorded-{index}"),
                        report,
                        certificates: self
                            .read(&format!("gpu/{index}/chain.pem"), MAX_GPU_BYTES)?,
                    });
                }
                Ok(Raw::Gpus(gpus))
            }
            _ => {
                let report = self.read("report.bin", SNP_REPORT_BYTES as u64)?;
                self.check(&report, report_data)?;
                let table = match self.folder.join("certs.bin").is_file() {
                    true => self.read("certs.bin", MAX_TABLE_BYTES as u64)?,
                    false => Vec::new(),
                };
                Ok(Raw::Snp { report, certificates: host_certificates(&table)? })
            }
        }
    }

    fn derived_key(&mut self) -> Result<Option<Zeroizing<[u8; 32]>>, CollectError> {
        if self.kind != Kind::Snp || !self.folder.join("derived-key.bin").is_file() {
            return Ok(None);
        }
        let bytes = Zeroizing::new(self.read("derived-key.bin", 32)?);
        let mut key = Zeroizing::new([0; 32]);
        if bytes.len() != key.len() {
            let problem = format!("a derived key of {} bytes, expected 32", bytes.len());
            return Err(CollectError::answer(self.folder.display().to_string(), problem));
        }
        key.copy_from_slice(&bytes);
        Ok(Some(key))
    }
}
