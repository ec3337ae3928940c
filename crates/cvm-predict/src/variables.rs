//! Secure Boot variables (UEFI 2.10 §32.4.1), and how firmware measures them (TCG PFP 1.05
//! §10.4.6).

use cvm_evidence::tpm::Reader;

use crate::{
    error::PredictError,
    inputs::Inputs,
    ovmf::{Guid, guid},
    pe::{Pe, contains},
};

const GLOBAL: Guid = guid(0x8be4df61, 0x93ca, 0x11d2, 0xaa0d_00e098032b8c);
const IMAGE_SECURITY: Guid = guid(0xd719b2cb, 0x3d3a, 0x4596, 0xa3bc_dad00e67656f);
const CERT_X509: Guid = guid(0xa5c059a1, 0x94e4, 0x4aa7, 0x87b5_ab155c2bf072);

/// The EV_EFI_VARIABLE_DRIVER_CONFIG events, with Secure Boot on: name and what is hashed.
pub(crate) fn configuration(inputs: &Inputs<'_>) -> [(&'static str, Vec<u8>); 5] {
    [
        ("SecureBoot", variable_data(&GLOBAL, "SecureBoot", &[1])),
        ("PK", variable_data(&GLOBAL, "PK", inputs.pk)),
        ("KEK", variable_data(&GLOBAL, "KEK", inputs.kek)),
        ("db", variable_data(&IMAGE_SECURITY, "db", inputs.db)),
        ("dbx", variable_data(&IMAGE_SECURITY, "dbx", inputs.dbx)),
    ]
}

/// The same with Secure Boot off and no keys enrolled: no variable exists.
pub(crate) fn no_configuration() -> [(&'static str, Vec<u8>); 5] {
    let of = |guid, name| (name, variable_data(guid, name, &[]));
    [
        of(&GLOBAL, "SecureBoot"),
        of(&GLOBAL, "PK"),
        of(&GLOBAL, "KEK"),
        of(&IMAGE_SECURITY, "db"),
        of(&IMAGE_SECURITY, "dbx"),
    ]
}

/// What is hashed in the EV_EFI_VARIABLE_AUTHORITY event, after a check that the entry is one of
/// db's and that its certificate signed both images.
pub(crate) fn authority(
    inputs: &Inputs<'_>,
    images: [&Pe<'_>; 2],
) -> Result<Vec<u8>, PredictError> {
    let entries = x509_entries(inputs.db)
        .map_err(|p| PredictError::Variable { name: "db", problem: p.into() })?;
    if !entries.contains(&inputs.authority) {
        return Err(PredictError::Variable {
            name: "db",
            problem: "the authority is not one of its entries".into(),
        });
    }
    // EFI_SIGNATURE_DATA: owner's GUID, then the certificate.
    let der = inputs.authority.get(16..).unwrap_or_default();
    for image in images {
        if der.is_empty() || !contains(image.certificates(), der) {
            return Err(PredictError::NotAuthorised { image: image.image });
        }
    }
    Ok(variable_data(&IMAGE_SECURITY, "db", inputs.authority))
}

/// UEFI_VARIABLE_DATA: GUID, characters in the name, bytes of data, name in UTF-16, data.
fn variable_data(guid: &Guid, name: &str, data: &[u8]) -> Vec<u8> {
    let mut out = guid.to_vec();
    out.extend((name.len() as u64).to_le_bytes());
    out.extend((data.len() as u64).to_le_bytes());
    out.extend(name.encode_utf16().flat_map(u16::to_le_bytes));
    out.extend(data);
    out
}

/// Every EFI_SIGNATURE_DATA of the lists that hold X.509 certificates.
fn x509_entries(mut lists: &[u8]) -> Result<Vec<&[u8]>, &'static str> {
    let mut entries = Vec::new();
    while !lists.is_empty() {
        let mut r = Reader::at("EFI_SIGNATURE_LIST", lists, 16);
        let mut field =
            || r.u32_le().map(|field| field as usize).map_err(|_| "a list's header is cut off");
        let (size, header, entry) = (field()?, field()?, field()?);
        let list = lists.get(..size).filter(|_| size >= 28).ok_or("a list's size is wrong")?;
        let body = list
            .get(28..)
            .and_then(|body| body.get(header..))
            .ok_or("a list's header size is wrong")?;
        if entry < 16 || body.len() % entry != 0 {
            return Err("an entry's size is wrong");
        }
        if list.starts_with(&CERT_X509) {
            entries.extend(body.chunks_exact(entry));
        }
        lists = lists.get(size..).unwrap_or_default();
    }
    Ok(entries)
}
