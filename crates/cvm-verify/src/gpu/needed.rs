//! Which manifests a report is to be compared with.

use super::{Arch, GpuError, Report, Rim, Source, identity::Identity, opaque::Field};

/// A manifest that a report is to be compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Needed {
    pub id: String,
    pub version: String,
    pub source: Source,
}

impl Needed {
    /// NVIDIA's naming (`get_driver_rim_id`, `get_vbios_rim_id` of its SDK).
    pub(super) fn of(report: &Report, identity: &Identity) -> Result<Vec<Self>, GpuError> {
        let opaque = &report.opaque;
        let text = |field| {
            let missing =
                || GpuError::malformed("opaque data of the report", format!("no {field:?}"));
            opaque.text(field)?.ok_or_else(missing)
        };
        let undotted = |version: &str| version.replace('.', "").to_ascii_uppercase();
        if identity.arch.is_switch() {
            let version = text(Field::VbiosVersion)?;
            // Reports of LS10 name no product; there is one.
            let id = format!("NV_SWITCH_BIOS_5612_0002_890_{}", undotted(&version));
            return Ok(vec![Self { id, version, source: Source::Firmware }]);
        }
        let driver = text(Field::DriverVersion)?;
        let prefix = match identity.arch {
            Arch::Hopper => "NV_GPU_DRIVER_GH100".to_owned(),
            _ => format!(
                "NV_GPU_CC_DRIVER_{}",
                opaque.text(Field::ChipInfo)?.unwrap_or_else(|| "GB100".into())
            ),
        };
        let vbios = opaque.gpu_vbios()?;
        let product = [text(Field::Project)?, text(Field::ProjectSku)?, text(Field::ChipSku)?];
        let product = product.join("_").to_ascii_uppercase();
        Ok(vec![
            Self { id: format!("{prefix}_{driver}"), version: driver, source: Source::Driver },
            Self {
                id: format!("NV_GPU_VBIOS_{product}_{}", undotted(&vbios)),
                version: vbios,
                source: Source::Firmware,
            },
        ])
    }

    /// The manifest's version and chip must be the report's; its name, where it has one, exactly
    /// this. A VBIOS's version is hex, which writers spell in either case.
    pub(super) fn is(&self, rim: &Rim, chips: &[&str]) -> bool {
        let version = match self.source {
            Source::Driver => rim.version() == self.version,
            Source::Firmware => rim.version().eq_ignore_ascii_case(&self.version),
        };
        let named = rim.id().is_none_or(|id| id.eq_ignore_ascii_case(&self.id));
        version && named && chips.contains(&rim.product())
    }
}
