//! A machine's GPUs that do not exist, and what NVIDIA would have published for them. Whoever
//! includes this also includes `gpu/synthetic.rs` as `synthetic`.

use std::{path::Path, sync::Arc};

use cvm_base::time;
use cvm_collateral::{Cache, Item, Key, Writer};
use cvm_collect::{CollectError, Device as Source, Gpu, Kind, Raw};

use super::synthetic::{Device, World};

/// A machine's GPUs, which answer every challenge; `replayed` ones answer the nonce of a recording.
#[derive(Clone)]
pub struct Gpus {
    pub world: Arc<World>,
    pub devices: Vec<Device>,
    pub replayed: bool,
}

impl Source for Gpus {
    fn kind(&self) -> Kind {
        Kind::Gpu
    }

    fn evidence(&mut self, report_data: &[u8; 64]) -> Result<Raw, CollectError> {
        let nonce = *report_data.first_chunk().unwrap();
        let gpu = |device: &Device| {
            let device =
                if self.replayed { device.clone() } else { Device { nonce, ..device.clone() } };
            Gpu {
                uuid: format!("GPU-{}", hex::encode(&device.nonce[..4])),
                report: self.world.report(&device),
                certificates: self.world.chain(&device).into_bytes(),
            }
        };
        Ok(Raw::Gpus(self.devices.iter().map(gpu).collect()))
    }
}

/// Who signs what [`golden`] writes.
pub fn collector() -> ed25519_dalek::SigningKey {
    ed25519_dalek::SigningKey::from_bytes(&[9; 32])
}

/// The golden values of a Blackwell GPU's driver and VBIOS, as a cache has them.
pub fn golden(world: &World, folder: &Path) -> Cache {
    let golden: Vec<[u8; 48]> = Device::blackwell().measurements;
    let of = |range: std::ops::Range<u8>| -> Vec<(u8, &[u8], bool)> {
        range.map(|index| (index, &golden[usize::from(index)][..], true)).collect()
    };
    let mut writer = Writer::open(folder, collector(), &[]).unwrap();
    for (id, version, golden) in [
        ("NV_GPU_CC_DRIVER_GB100_575.32", "575.32", of(0..8)),
        ("NV_GPU_VBIOS_G525_0220_886_970088000F", "97.00.88.00.0F", of(8..16)),
    ] {
        let bytes = world.rim("GB100", version, &golden).into_bytes();
        let item = Item {
            key: Key::Rim(id.into()),
            bytes,
            source: "test".into(),
            fetched_at: time::now(),
        };
        assert!(writer.put(&item).unwrap());
    }
    Cache::open(folder, &[collector().verifying_key()]).unwrap()
}
