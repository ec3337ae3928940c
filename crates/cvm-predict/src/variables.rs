//! Secure Boot variables (UEFI 2.10 §32.4.1) and how firmware measures them (TCG PFP 1.05 §10.4.6).

use super::{
    Inputs, PredictError,
    pe::{Pe, contains},
};

// EFI_GUIDs in memory order.
const GLOBAL: [u8; 16] =
    [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0, 0xe0, 0x98, 0x03, 0x2b, 0x8c];
const IMAGE_SECURITY: [u8; 16] = [
    0xcb, 0xb2, 0x19, 0xd7, 0x3a, 0x3d, 0x96, 0x45, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f,
];
const CERT_X509: [u8; 16] = [
    0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72,
];

/// The EV_EFI_VARIABLE_DRIVER_CONFIG events, with Secure Boot on: name and what is hashed.
pub(super) fn configuration(inputs: &Inputs<'_>) -> [(&'static str, Vec<u8>); 5] {
    [
        ("SecureBoot", variable_data(&GLOBAL, "SecureBoot", &[1])),
        ("PK", variable_data(&GLOBAL, "PK", inputs.pk)),
        ("KEK", variable_data(&GLOBAL, "KEK", inputs.kek)),
        ("db", variable_data(&IMAGE_SECURITY, "db", inputs.db)),
        ("dbx", variable_data(&IMAGE_SECURITY, "dbx", inputs.dbx)),
    ]
}

/// The same with Secure Boot off and no keys enrolled: no variable exists.
pub(super) fn no_configuration() -> [(&'static str, Vec<u8>); 5] {
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
pub(super) fn authority(
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
fn variable_data(guid: &[u8; 16], name: &str, data: &[u8]) -> Vec<u8> {
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
        let field = |at: usize| {
            let field = lists
                .get(at..at + 4)
                .and_then(|b| b.try_into().ok())
                .ok_or("a list's header is cut off")?;
            Ok::<_, &str>(u32::from_le_bytes(field) as usize)
        };
        let (size, header, entry) = (field(16)?, field(20)?, field(24)?);
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
