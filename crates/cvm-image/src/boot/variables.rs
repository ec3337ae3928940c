//! The firmware's variable store: EDK2's format of authenticated variables.
//!
//! A fresh `OVMF_VARS_4M.fd` holds a firmware volume header, a variable store header and erased
//! flash; variables are appended (edk2 `MdeModulePkg/Include/Guid/VariableFormat.h`). Writing them
//! ourselves takes forty lines, and gives the same bytes each time.

use super::BootError;

/// A GUID as it lies in memory (first three fields little-endian).
pub(super) type Guid = [u8; 16];

/// 8be4df61-93ca-11d2-aa0d-00e098032b8c
pub(super) const GLOBAL: Guid =
    *b"\x61\xdf\xe4\x8b\xca\x93\xd2\x11\xaa\x0d\x00\xe0\x98\x03\x2b\x8c";
/// d719b2cb-3d3a-4596-a3bc-dad00e67656f
pub(super) const IMAGE_SECURITY: Guid =
    *b"\xcb\xb2\x19\xd7\x3a\x3d\x96\x45\xa3\xbc\xda\xd0\x0e\x67\x65\x6f";
/// f0a30bc7-af08-4556-99c4-001009c93a44: the switch that a person flips in the firmware's menu.
pub(super) const SECURE_BOOT_ENABLE: Guid =
    *b"\xc7\x0b\xa3\xf0\x08\xaf\x56\x45\x99\xc4\x00\x10\x09\xc9\x3a\x44";
/// c076ec0c-7028-4399-a072-71ee5c448b9f
pub(super) const CUSTOM_MODE: Guid =
    *b"\x0c\xec\x76\xc0\x28\x70\x99\x43\xa0\x72\x71\xee\x5c\x44\x8b\x9f";

/// aaf32c78-947b-439a-a180-2e144ec37792: a store whose variables have a time stamp.
const AUTHENTICATED_STORE: Guid =
    *b"\x78\x2c\xf3\xaa\x7b\x94\x9a\x43\xa1\x80\x2e\x14\x4e\xc3\x77\x92";
/// The length of a store's header, in bytes.
const STORE_HEADER: usize = 28;
const NON_VOLATILE: u32 = 1;
const BOOT_SERVICE: u32 = 2;
const RUNTIME: u32 = 4;
const TIME_BASED_AUTHENTICATED: u32 = 0x20;
/// 2010-01-01, the date of virt-firmware's first variables: an update needs a later one.
const TIME: [u8; 16] = *b"\xda\x07\x01\x01\0\0\0\0\0\0\0\0\0\0\0\0";

/// A variable to write.
pub(super) struct Variable<'a> {
    pub(super) name: &'a str,
    pub(super) vendor: Guid,
    /// Whether a change needs a signature, as that of a key database does.
    pub(super) authenticated: bool,
    pub(super) data: &'a [u8],
}

/// Appends `variables` to an empty store and gives the whole file back.
pub(super) fn fill(empty: &[u8], variables: &[Variable]) -> Result<Vec<u8>, BootError> {
    let broken = BootError::Variables;
    let store = store_offset(empty)?;
    let header = empty.get(store..store + STORE_HEADER).ok_or(broken("its header is cut off"))?;
    // Formatted and healthy (edk2's VARIABLE_STORE_FORMATTED, VARIABLE_STORE_HEALTHY).
    if header[20..22] != [0x5a, 0xfe] {
        return Err(broken("it is not formatted"));
    }
    let size = u32_at(header, 16).ok_or(broken("its header is cut off"))? as usize;
    let end = store + size;
    let mut at = store + STORE_HEADER;
    let room = empty.get(at..end).ok_or(broken("it ends before its stated size"))?;
    if room.iter().any(|byte| *byte != 0xff) {
        return Err(broken("it holds variables already"));
    }

    let mut file = empty.to_vec();
    for variable in variables {
        let bytes = record(variable);
        let slot = file.get_mut(at..at + bytes.len()).filter(|_| at + bytes.len() <= end);
        slot.ok_or(broken("the variables do not fit"))?.copy_from_slice(&bytes);
        at = (at + bytes.len()).next_multiple_of(4);
    }
    Ok(file)
}

/// The content of a variable in a store: of its last record, or empty where it is not set.
pub(super) fn read<'a>(file: &'a [u8], name: &str, vendor: &Guid) -> Result<&'a [u8], BootError> {
    const HEADER: usize = 60;
    let broken = BootError::Variables;
    let wanted: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    let (mut at, mut found) = (store_offset(file)? + STORE_HEADER, &[][..]);
    while let Some(header) = file.get(at..at + HEADER).filter(|header| header[..2] == [0xaa, 0x55])
    {
        let length = |at| u32_at(header, at).map_or(0, |length| length as usize);
        let (name, data) = (length(36), length(40));
        let record = file.get(at + HEADER..).and_then(|rest| rest.get(..name.checked_add(data)?));
        let record = record.ok_or(broken("a variable is longer than the store"))?;
        // State: added, and not deleted since.
        if header[2] == 0x3f && header[44..60] == vendor[..] && record[..name] == wanted[..] {
            found = &record[name..];
        }
        at = (at + HEADER + record.len()).next_multiple_of(4);
    }
    Ok(found)
}

/// Where the variable store begins: after the firmware volume's header, which states its length.
fn store_offset(file: &[u8]) -> Result<usize, BootError> {
    let broken = BootError::Variables;
    if file.get(40..44) != Some(b"_FVH") {
        return Err(broken("it does not begin with a firmware volume"));
    }
    let length = file.get(48..50).and_then(<[u8]>::first_chunk);
    let length = length.ok_or(broken("its header is cut off"))?;
    let store = usize::from(u16::from_le_bytes(*length));
    let kind = file.get(store..store + 16).ok_or(broken("its header is cut off"))?;
    if kind != AUTHENTICATED_STORE {
        return Err(broken("its variables are of another kind than authenticated ones"));
    }
    Ok(store)
}

/// The little-endian number at an offset.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// `AUTHENTICATED_VARIABLE_HEADER`, name, data.
fn record(variable: &Variable) -> Vec<u8> {
    let name: Vec<u8> =
        variable.name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    let (attributes, time) = match variable.authenticated {
        true => (NON_VOLATILE | BOOT_SERVICE | RUNTIME | TIME_BASED_AUTHENTICATED, TIME),
        false => (NON_VOLATILE | BOOT_SERVICE, [0; 16]),
    };
    let mut out = Vec::new();
    out.extend([0xaa, 0x55]); // start mark
    out.extend([0x3f, 0]); // state: added; reserved
    out.extend(attributes.to_le_bytes());
    out.extend([0; 8]); // monotonic count
    out.extend(time);
    out.extend([0; 4]); // public key index
    out.extend((name.len() as u32).to_le_bytes());
    out.extend((variable.data.len() as u32).to_le_bytes());
    out.extend(variable.vendor);
    out.extend(name);
    out.extend(variable.data);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_is_not_empty_or_no_store_is_refused() {
        let empty = std::fs::read("/usr/share/OVMF/OVMF_VARS_4M.fd").unwrap();
        let variable = [Variable { name: "a", vendor: GLOBAL, authenticated: false, data: &[1] }];
        let filled = fill(&empty, &variable).unwrap();
        assert_eq!(filled.len(), empty.len());
        assert_eq!(read(&filled, "a", &GLOBAL).unwrap(), [1]);
        assert_eq!(read(&filled, "b", &GLOBAL).unwrap(), [0; 0]);
        assert_eq!(read(&filled, "a", &IMAGE_SECURITY).unwrap(), [0; 0]);
        assert!(read(&[0; 100], "a", &GLOBAL).is_err());
        assert!(matches!(
            fill(&filled, &variable),
            Err(BootError::Variables("it holds variables already"))
        ));
        let large =
            [Variable { name: "a", vendor: GLOBAL, authenticated: false, data: &[1; 300_000] }];
        assert!(matches!(
            fill(&empty, &large),
            Err(BootError::Variables("the variables do not fit"))
        ));
        for length in [0, 40, 50, 80, 1000] {
            assert!(fill(&empty[..length], &variable).is_err(), "{length} bytes");
        }
    }
}
