//! Stores of an earlier version. Their tables were believed, and their log did not say what a
//! decision changed.

use cvm_base::{Bytes, Bytes32, sha256};
use cvm_layout::manifest::ImageId;
use cvm_release_server::{Decision, Effect, Step};
use rusqlite::{Connection, params};

use super::{
    base::{SCHEMA, SqliteStore, Work},
    rows::stored_documents,
};
use crate::{error::KeyHolderError, memory::Memory};

/// What the earlier version remembered beside `images`.
const OLD: &str = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'seals')";
const DROP: &str = "DROP TABLE seals; DROP TABLE guests; DROP TABLE sessions;";

impl SqliteStore {
    /// Takes an earlier version's store over, once: logs what its tables say. Only images that the
    /// signed log enrolled count. A log that says what its decisions changed is left alone.
    pub(super) fn migrate(&self) -> Result<(), KeyHolderError> {
        self.write(|tx, memory| {
            let old: bool = tx.query_row(OLD, [], |row| row.get(0))?;
            if !old || memory.unstated.is_empty() || !memory.images.is_empty() {
                return Ok(((), Vec::new()));
            }
            let decisions = self.found(tx, memory)?;
            tx.execute_batch(DROP)?;
            tx.execute_batch(SCHEMA)?;
            Ok(((), decisions))
        })
    }

    fn found(&self, connection: &Connection, memory: &Memory) -> Work<Vec<Decision>> {
        let mut decisions = Vec::new();
        let guests: Vec<(String, [u8; 32])> = connection
            .prepare("SELECT image, guest FROM guests")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        for image in &memory.unstated {
            let Some(documents) = stored_documents(connection, image)? else { continue };
            let Ok(enrolled) = documents.check(&self.identity) else { continue };
            if enrolled.manifest.image_id != *image {
                continue;
            }
            let site = enrolled.manifest.site;
            let decision = |effect| Decision {
                effect: Some(effect),
                ..self.operator(
                    Step::Migrate,
                    Some(*image),
                    Some(site.clone()),
                    "as an earlier version left it".into(),
                )
            };
            decisions.push(decision(documents.effect()));
            for (header, share, may_move) in seals(connection, image)? {
                let share_sha256 = share.as_deref().map(sha256);
                if let Some(share) = share {
                    connection.execute(
                        "INSERT INTO shares VALUES (?1, ?2)",
                        params![image.to_string(), share],
                    )?;
                }
                decisions.push(decision(Effect::Sealed { header_sha256: header, share_sha256 }));
                decisions.extend(may_move.then(|| decision(Effect::MayMove)));
            }
            let named = guests.iter().filter(|(of, _)| *of == image.to_string());
            decisions.extend(
                named.map(|(_, guest)| decision(Effect::Released { guest: Some(Bytes(*guest)) })),
            );
        }
        Ok(decisions)
    }
}

/// Header, share, whether the image may move.
type OldSeal = (Bytes32, Option<Vec<u8>>, bool);

fn seals(connection: &Connection, image: &ImageId) -> rusqlite::Result<Vec<OldSeal>> {
    connection
        .prepare("SELECT header_sha256, share, may_move FROM seals WHERE image = ?1")?
        .query_map([image.to_string()], |row| Ok((Bytes(row.get(0)?), row.get(1)?, row.get(2)?)))?
        .collect()
}
