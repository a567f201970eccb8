//! Which incarnation a source continues by its identity, and founding a new one.

use chrono::Utc;
use farshore_journal::format::body::IncarnationRecord;
use farshore_journal::registry::{Founding, Repository};

use super::Pipeline;
use crate::error::ShipError;
use crate::founding::Witness;

/// What a source calls itself.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    /// Its engine's name.
    pub engine: &'static str,
    /// The identity, in the engine's own words.
    pub text: String,
    /// What the identity is, for people.
    pub what: &'static str,
    /// The engine's major version.
    pub major: u32,
    /// Bytes of one of its log segments.
    pub segment_bytes: u64,
}

impl Pipeline {
    /// The incarnation that this source continues by its identity, or the first one.
    pub(super) async fn incarnation(
        &self,
        repository: &Repository,
        identity: &Identity,
        witness: &impl Witness,
    ) -> Result<IncarnationRecord, ShipError> {
        let records = repository.incarnations(&self.config.database).await?;
        match records.last() {
            Some(record) if record.identity == identity.text && record.engine == identity.engine => {
                Ok(record.clone())
            }
            Some(record) => {
                let reason =
                    format!("the {} changed from {} to {}", identity.what, record.identity, identity.text);
                // As it should be where the database was made anew, and an operator's slip when the address is another database's.
                tracing::error!(database = %self.config.database, reason, "a new incarnation begins");
                self.found(repository, identity, record.number + 1, &reason).await
            }
            None => {
                self.store.check_new(witness, "it holds nothing of this database").await?;
                self.found(repository, identity, 0, "first").await
            }
        }
    }

    pub(super) async fn found(
        &self,
        repository: &Repository,
        identity: &Identity,
        number: u64,
        reason: &str,
    ) -> Result<IncarnationRecord, ShipError> {
        let founding = Founding {
            database: &self.config.database,
            number,
            engine: identity.engine,
            identity: &identity.text,
            major: identity.major,
            segment_bytes: identity.segment_bytes,
            now: &Utc::now().to_rfc3339(),
            reason,
        };
        Ok(repository.found_incarnation(founding).await?)
    }
}
