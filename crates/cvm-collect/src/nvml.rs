//! NVIDIA GPUs in confidential-computing mode, through NVML (`libnvidia-ml.so.1`, opened at run
//! time).

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use nvml_wrapper::error::NvmlError;

use crate::{
    bound::check_bound,
    device::{Device, Gpu, Kind, Raw, short_nonce},
    error::CollectError,
};

/// More GPUs than one machine has.
const MAX_GPUS: u32 = 64;
/// Where the driver puts it.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// Every GPU that the driver lists.
pub struct Nvml(nvml_wrapper::Nvml);

impl Nvml {
    /// Opens the driver's library, or the one at `library`.
    ///
    /// # Errors
    /// [`CollectError::Absent`] without the library or without a driver.
    pub fn open(library: Option<&Path>) -> Result<Self, CollectError> {
        let path = library.unwrap_or(Path::new(LIBRARY));
        let opened = nvml_wrapper::Nvml::builder().lib_path(path.as_os_str()).init();
        opened.map(Self).map_err(|error| CollectError::Absent {
            device: path.display().to_string(),
            problem: error.to_string(),
        })
    }

    /// Lets all GPUs take work (`nvidia-smi conf-compute -srs 1`). In confidential-computing mode
    /// they take none until then. The caller must have seen them attest.
    ///
    /// # Errors
    /// [`CollectError::Refused`] with the driver's reason, or where the driver still reports them
    /// as not ready.
    pub fn make_ready(&self) -> Result<(), CollectError> {
        const ACTION: &str = "let the GPUs take work";
        let ready = || -> Result<bool, NvmlError> {
            // The state is the system's; NVML's wrapper asks for it through any of its devices.
            let device = self.0.device_by_index(0)?;
            device.set_confidential_compute_state(true)?;
            device.get_confidential_compute_state()
        };
        match ready().map_err(|error| CollectError::refused(LIBRARY, ACTION, error))? {
            true => Ok(()),
            false => Err(CollectError::refused(LIBRARY, ACTION, "they are still not ready")),
        }
    }

    fn gpu(&self, index: u32, nonce: [u8; 32]) -> Result<Gpu, CollectError> {
        let name = format!("GPU {index}");
        let read = || -> Result<(String, Vec<u8>, Vec<u8>), NvmlError> {
            let device = self.0.device_by_index(index)?;
            let report =
                device.confidential_compute_gpu_attestation_report(nonce)?.attestation_report;
            let chain = device.confidential_compute_gpu_certificate()?.attestation_cert_chain;
            Ok((device.uuid()?, report, chain))
        };
        // The wrapper cuts its arrays at the lengths that the library states, and panics if one is
        // too long.
        let read = catch_unwind(AssertUnwindSafe(read))
            .map_err(|_| CollectError::answer(&name, "a length beyond its buffer"))?;
        let (uuid, report, mut certificates) = read.map_err(|error| {
            let problem = match error {
                NvmlError::NotSupported => "it is not in confidential-computing mode".to_owned(),
                other => other.to_string(),
            };
            CollectError::refused(&name, "attest", problem)
        })?;
        check_bound(&name, Kind::Gpu, &report, &nonce)?;
        // The text's length may count the NUL after it.
        certificates
            .truncate(certificates.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
        if !certificates.starts_with(b"-----BEGIN CERTIFICATE-----") {
            return Err(CollectError::answer(&name, "a certificate chain that is not PEM"));
        }
        Ok(Gpu { uuid, report, certificates })
    }
}

impl Device for Nvml {
    fn kind(&self) -> Kind {
        Kind::Gpu
    }

    fn evidence(&mut self, report_data: &[u8; 64]) -> Result<Raw, CollectError> {
        let count = self
            .0
            .device_count()
            .map_err(|error| CollectError::refused(LIBRARY, "list its GPUs", error))?;
        match count {
            0 => Err(CollectError::Absent {
                device: "NVIDIA GPU".into(),
                problem: "the driver lists none".into(),
            }),
            1..=MAX_GPUS => {
                let nonce = short_nonce(report_data);
                Ok(Raw::Gpus(
                    (0..count).map(|index| self.gpu(index, nonce)).collect::<Result<_, _>>()?,
                ))
            }
            _ => Err(CollectError::answer(
                LIBRARY,
                format!("{count} GPUs, at most {MAX_GPUS} expected"),
            )),
        }
    }
}
