//! OVMF's table of GUIDs (edk2, `OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm`).
//!
//! The table ends 32 bytes before the image does and is read from its end. Each entry is its data,
//! its length with these 18 bytes, and its GUID. The last entry's length is that of the table.

/// An EFI_GUID as it lies in memory.
pub(crate) type Guid = [u8; 16];

const FOOTER: Guid = guid(0x96b582de, 0x1fb2, 0x45f7, 0xbaea_a366c55a082d);

/// A GUID from its text: the first three groups are little endian in memory.
pub(crate) const fn guid(a: u32, b: u16, c: u16, rest: u64) -> Guid {
    let ([a0, a1, a2, a3], [b0, b1], [c0, c1]) =
        (a.to_le_bytes(), b.to_le_bytes(), c.to_le_bytes());
    let [d0, d1, d2, d3, d4, d5, d6, d7] = rest.to_be_bytes();
    [a0, a1, a2, a3, b0, b1, c0, c1, d0, d1, d2, d3, d4, d5, d6, d7]
}

/// The entries of the table: GUID and data.
pub(crate) struct GuidTable<'a>(Vec<(&'a Guid, &'a [u8])>);

impl<'a> GuidTable<'a> {
    /// Reads the table at the end of a firmware image.
    ///
    /// # Errors
    /// What is wrong with it, to follow "the firmware: ".
    pub(crate) fn read(image: &'a [u8]) -> Result<Self, &'static str> {
        const NONE: &str = "it has no table of GUIDs at its end";
        let end = image.len().checked_sub(32).and_then(|end| image.get(..end)).ok_or(NONE)?;
        let (before, length, _) = entry(end).filter(|(_, _, guid)| **guid == FOOTER).ok_or(NONE)?;
        let start = before.len().checked_sub(length).ok_or("its table is longer than it")?;
        let mut rest = before.get(start..).unwrap_or_default();
        let mut found = Vec::new();
        while let Some((before, length, guid)) = entry(rest) {
            let (next, data) = before
                .len()
                .checked_sub(length)
                .and_then(|start| before.split_at_checked(start))
                .ok_or("an entry of its table is longer than the table")?;
            found.push((guid, data));
            rest = next;
        }
        Ok(Self(found))
    }

    /// The data of the last entry with this GUID.
    pub(crate) fn find(&self, guid: &Guid) -> Option<&'a [u8]> {
        self.0.iter().find(|(found, _)| *found == guid).map(|(_, data)| *data)
    }
}

/// The bytes before the last entry's length and GUID, the length of its data, its GUID.
fn entry(bytes: &[u8]) -> Option<(&[u8], usize, &Guid)> {
    let (rest, guid) = bytes.split_last_chunk::<16>()?;
    let (rest, length) = rest.split_last_chunk::<2>()?;
    let length = usize::from(u16::from_le_bytes(*length)).checked_sub(18)?;
    Some((rest, length, guid))
}
