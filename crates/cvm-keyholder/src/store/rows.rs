//! The table of enrolled images' documents. A row is believed only if the log names its digests.

use cvm_base::sha256;
use cvm_layout::manifest::ImageId;
use cvm_release_server::{Decision, EnrolledImage};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::base::{SqliteStore, Work};
use crate::{documents::Documents, error::KeyHolderError, memory::KnownImage};

impl SqliteStore {
    /// An image's documents; refused if they are not those that were enrolled.
    pub(super) fn intact(
        &self,
        connection: &Connection,
        image: &ImageId,
        known: &KnownImage,
    ) -> Work<EnrolledImage> {
        let odd = |problem: &str| KeyHolderError::Row {
            image: image.to_string(),
            problem: problem.to_owned(),
        };
        let documents =
            stored_documents(connection, image)?.ok_or_else(|| odd("its documents are missing"))?;
        for (name, bytes, expected) in [
            ("manifest.json", &documents.manifest, known.manifest_sha256),
            ("reference.json", &documents.reference, known.reference_sha256),
        ] {
            let found = sha256(bytes);
            if found != expected {
                return Err(odd(&format!(
                    "{expected} was enrolled as its {name}, the store has {found}"
                ))
                .into());
            }
        }
        Ok(documents.check(&self.identity)?)
    }
}

/// The decision that enrols these documents, once they are in their table.
pub(super) fn insert(
    tx: &Transaction<'_>,
    image: &ImageId,
    documents: &Documents,
    decision: Decision,
) -> Work<Decision> {
    tx.execute(
        // The same documents again mend a row that was lost or damaged; the callers refuse others.
        "INSERT OR REPLACE INTO images VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            image.to_string(),
            documents.agreement,
            documents.manifest,
            documents.manifest_signature,
            documents.reference,
            documents.reference_signature,
            decision.time,
        ],
    )?;
    Ok(Decision { effect: Some(documents.effect()), ..decision })
}

/// The documents in an image's row, whatever they are.
pub(super) fn stored_documents(
    connection: &Connection,
    image: &ImageId,
) -> rusqlite::Result<Option<Documents>> {
    let sql = "SELECT agreement, manifest, manifest_signature, reference, reference_signature FROM \
        images WHERE image = ?1";
    let read = |row: &Row<'_>| {
        Ok(Documents {
            agreement: row.get(0)?,
            manifest: row.get(1)?,
            manifest_signature: row.get(2)?,
            reference: row.get(3)?,
            reference_signature: row.get(4)?,
        })
    };
    connection.query_row(sql, [image.to_string()], read).optional()
}
