//! Names of events, and what they say about themselves.

use cvm_base::printable;

use super::{event_type, log::Record};

/// The longest name that is shown, in characters.
pub(super) const MAX_NAME: usize = 80;
/// The longest text that is kept, in characters: a kernel command line fits.
const MAX_TEXT: usize = 2048;

/// What an event's data says, and the bytes whose digest would prove it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventText<'a> {
    /// For people; printable ASCII.
    pub text: String,
    /// If these bytes hash to the event's digest, the text is what was measured.
    pub measured: &'a [u8],
}

/// The name of a TCG_EVENTTYPE (PC Client Profile 1.06, §10.4.1).
pub fn event_type_name(kind: u32) -> Option<&'static str> {
    Some(match kind {
        0x00 => "EV_PREBOOT_CERT",
        0x01 => "EV_POST_CODE",
        0x02 => "EV_UNUSED",
        0x03 => "EV_NO_ACTION",
        0x04 => "EV_SEPARATOR",
        0x05 => "EV_ACTION",
        0x06 => "EV_EVENT_TAG",
        0x07 => "EV_S_CRTM_CONTENTS",
        0x08 => "EV_S_CRTM_VERSION",
        0x09 => "EV_CPU_MICROCODE",
        0x0a => "EV_PLATFORM_CONFIG_FLAGS",
        0x0b => "EV_TABLE_OF_DEVICES",
        0x0c => "EV_COMPACT_HASH",
        0x0d => "EV_IPL",
        0x0e => "EV_IPL_PARTITION_DATA",
        0x0f => "EV_NONHOST_CODE",
        0x10 => "EV_NONHOST_CONFIG",
        0x11 => "EV_NONHOST_INFO",
        0x12 => "EV_OMIT_BOOT_DEVICE_EVENTS",
        0x13 => "EV_POST_CODE2",
        0x8000_0001 => "EV_EFI_VARIABLE_DRIVER_CONFIG",
        0x8000_0002 => "EV_EFI_VARIABLE_BOOT",
        0x8000_0003 => "EV_EFI_BOOT_SERVICES_APPLICATION",
        0x8000_0004 => "EV_EFI_BOOT_SERVICES_DRIVER",
        0x8000_0005 => "EV_EFI_RUNTIME_SERVICES_DRIVER",
        0x8000_0006 => "EV_EFI_GPT_EVENT",
        0x8000_0007 => "EV_EFI_ACTION",
        0x8000_0008 => "EV_EFI_PLATFORM_FIRMWARE_BLOB",
        0x8000_0009 => "EV_EFI_HANDOFF_TABLES",
        0x8000_000a => "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
        0x8000_000b => "EV_EFI_HANDOFF_TABLES2",
        0x8000_000c => "EV_EFI_VARIABLE_BOOT2",
        0x8000_000d => "EV_EFI_GPT_EVENT2",
        0x8000_0010 => "EV_EFI_HCRTM_EVENT",
        0x8000_00e0 => "EV_EFI_VARIABLE_AUTHORITY",
        0x8000_00e1 => "EV_EFI_SPDM_DEVICE_BLOB",
        0x8000_00e2 => "EV_EFI_SPDM_DEVICE_CONFIG",
        0x8000_00e3 => "EV_EFI_SPDM_DEVICE_POLICY",
        0x8000_00e4 => "EV_EFI_SPDM_DEVICE_AUTHORITY",
        _ => return None,
    })
}

impl<'a> Record<'a> {
    /// What the event's data can be read as, the likeliest first; none where it holds no text.
    pub fn texts(&self) -> Vec<EventText<'a>> {
        texts(self.kind, self.data)
    }
}

fn texts(kind: u32, data: &[u8]) -> Vec<EventText<'_>> {
    match kind {
        event_type::EFI_VARIABLE_DRIVER_CONFIG
        | event_type::EFI_VARIABLE_AUTHORITY
        | 0x8000_0002
        | 0x8000_000c => {
            let name = variable_name(data);
            if name.is_empty() { vec![] } else { vec![EventText { text: name, measured: data }] }
        }
        0x8000_0003..=0x8000_0005 => {
            image_path(data).map(|text| EventText { text, measured: data }).into_iter().collect()
        }
        event_type::IPL => ipl(data),
        0x05 | 0x07 | 0x08 | 0x0c | 0x12 | event_type::EFI_ACTION => {
            string(data).into_iter().collect()
        }
        _ => vec![],
    }
}

/// UEFI_VARIABLE_DATA: GUID, name length (u64), data length (u64), UTF-16 name.
pub fn variable_name(data: &[u8]) -> String {
    let length = data.get(16).map_or(0, |n| usize::from(*n).min(40));
    let name = data.get(32..32 + 2 * length).unwrap_or_default();
    printable(utf16(name), MAX_NAME)
}

/// The low bytes: what lies beyond ASCII becomes `?` in [`printable`] or another letter, never a
/// control.
fn utf16(data: &[u8]) -> Vec<u8> {
    data.chunks_exact(2).map(|unit| if let [low, 0] = unit { *low } else { b'?' }).collect()
}

/// Text with one byte or two for each character, with or without NUL at its end.
fn string(data: &[u8]) -> Option<EventText<'_>> {
    let starts_wide = matches!(data, [low, 0, ..] if *low != 0) && data.len().is_multiple_of(2);
    let wide = starts_wide && data.chunks_exact(2).take(8).all(|unit| matches!(unit, [_, 0]));
    let narrow = if wide { utf16(data) } else { data.to_vec() };
    let end = narrow.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
    let text = narrow.get(..end).unwrap_or_default();
    // Mostly letters, or it is not text.
    let readable = text.iter().filter(|b| (0x20..0x7f).contains(*b)).count();
    if text.is_empty() || readable * 4 < text.len() * 3 {
        return None;
    }
    Some(EventText { text: printable(text, MAX_TEXT), measured: data })
}

/// GRUB logs `grub_cmd: set x=1` and measures `set x=1`; others measure their text, or a file it
/// names.
fn ipl(data: &[u8]) -> Vec<EventText<'_>> {
    let Some(whole) = string(data) else { return vec![] };
    let bare = data.strip_suffix(&[0]).unwrap_or(data);
    let mut readings = vec![EventText { text: whole.text.clone(), measured: bare }, whole];
    for prefix in [&b"grub_cmd: "[..], b"kernel_cmdline: ", b"module_cmdline: "] {
        for data in [bare, data] {
            let command = data.strip_prefix(prefix).and_then(|rest| Some((rest, string(rest)?)));
            readings.extend(
                command.map(|(measured, reading)| EventText { text: reading.text, measured }),
            );
        }
    }
    readings
}

/// The file path in UEFI_IMAGE_LOAD_EVENT: address, length, link-time address, length of the device
/// path (u64 each), device path (UEFI 2.10 §10.3).
fn image_path(data: &[u8]) -> Option<String> {
    let mut path = data.get(32..)?;
    let mut found = String::new();
    // Every node has at least four bytes, so this ends.
    while let Some(([kind, subkind, low, high], _)) = path.split_first_chunk::<4>() {
        let length = usize::from(u16::from_le_bytes([*low, *high]));
        let (node, rest) = path.split_at_checked(length.max(4))?;
        // Media Device Path, File Path.
        if (*kind, *subkind) == (4, 4) {
            let name = utf16(node.get(4..)?);
            found.push_str(&printable(name.split(|b| *b == 0).next()?, MAX_TEXT));
        }
        path = rest;
    }
    (!found.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_paths_that_lie_about_their_length_end() {
        let header = [0; 32];
        for node in [[4, 4, 0, 0], [4, 4, 0xff, 0xff], [4, 4, 1, 0], [0x7f, 0xff, 4, 0]] {
            assert_eq!(image_path(&[&header[..], &node].concat()), None);
        }
        let file = [&header[..], &[4, 4, 10, 0], b"\\\0a\0\0\0", &[0x7f, 0xff, 4, 0]].concat();
        assert_eq!(image_path(&file).unwrap(), "\\a");
    }

    #[test]
    fn what_is_no_text_is_not_shown() {
        assert_eq!(string(&[0; 4]), None);
        assert_eq!(string(&[0xde, 0xad, 0xbe, 0xef]), None);
        assert_eq!(string(b"S\x001\x00\x00\x00").unwrap().text, "S1");
        let texts = ipl(b"grub_cmd: set a\0");
        assert!(texts.iter().any(|t| t.measured == b"set a" && t.text == "set a"));
    }
}
