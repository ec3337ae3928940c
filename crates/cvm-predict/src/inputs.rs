//! The files that a boot from a disk measures.

/// The files that a boot measures.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The signed boot loader (`\EFI\BOOT\BOOTX64.EFI`).
    pub loader: &'a [u8],
    /// The signed UKI.
    pub uki: &'a [u8],
    /// Content of the variable PK, as of the others: EFI_SIGNATURE_LISTs without attributes; empty
    /// if absent.
    pub pk: &'a [u8],
    /// Content of KEK.
    pub kek: &'a [u8],
    /// Content of db.
    pub db: &'a [u8],
    /// Content of dbx.
    pub dbx: &'a [u8],
    /// The entry of db whose certificate signed loader and UKI: EFI_SIGNATURE_DATA, owner's GUID
    /// and DER.
    pub authority: &'a [u8],
}
