//! What a host can say to its guest beside the disk, the network and the clock: strings, variables
//! and devices, as arguments of QEMU and as bytes of the firmware's variable store.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};

/// systemd's vendor GUID of EFI variables: 8cf2644b-4b0b-428f-9387-6d876050dc67.
pub const SYSTEMD: [u8; 16] = *b"\x4b\x64\xf2\x8c\x0b\x4b\x8f\x42\x93\x87\x6d\x87\x60\x50\xdc\x67";

/// A string in the firmware's SMBIOS table of type 11, where systemd and its stub look for what a
/// host tells them.
pub fn smbios_string(text: &str) -> [String; 2] {
    ["-smbios".into(), format!("type=11,value={}", text.replace(',', ",,"))]
}

/// A file in QEMU's fw_cfg.
pub fn fw_cfg(name: &str, file: &Path) -> [String; 2] {
    ["-fw_cfg".into(), format!("name={name},file={}", file.display())]
}

/// Plants a variable in a store of authenticated variables (edk2
/// `MdeModulePkg/Include/Guid/VariableFormat.h`), as anybody with the file can: it is visible at
/// run time, and text is in UTF-16.
pub fn plant_variable(store: &Path, name: &str, vendor: &[u8; 16], text: &str) -> Result<()> {
    const HEADER: usize = 60;
    const NON_VOLATILE_BOOT_RUNTIME: u32 = 7;
    let wide =
        |text: &str| text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let mut file = fs::read(store)?;
    ensure!(file.get(40..44) == Some(b"_FVH"), "{} is no variable store", store.display());
    let mut at = usize::from(u16::from_le_bytes([file[48], file[49]])) + 28;
    while file.get(at..at + 2).context("the store's end")? == [0xaa, 0x55] {
        let length = |field: usize| {
            u32::from_le_bytes(file[at + field..at + field + 4].try_into().unwrap_or_default())
        };
        at = (at + HEADER + length(36) as usize + length(40) as usize).next_multiple_of(4);
    }
    let (name, data) = (wide(name), wide(text));
    let mut record = vec![0xaa, 0x55, 0x3f, 0];
    record.extend(NON_VOLATILE_BOOT_RUNTIME.to_le_bytes());
    record.resize(36, 0);
    record.extend((name.len() as u32).to_le_bytes());
    record.extend((data.len() as u32).to_le_bytes());
    record.extend(vendor);
    record.extend([name, data].concat());
    let room = file.get_mut(at..at + record.len()).context("room in the store")?;
    ensure!(room.iter().all(|byte| *byte == 0xff), "the store has no room behind its variables");
    room.copy_from_slice(&record);
    Ok(fs::write(store, file)?)
}
