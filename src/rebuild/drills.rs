//! Brings drills back into the catalog from their certificates in the stores.
//!
//! What always holds: only what a key signed that counts for the database is taken; what the catalog has that is certified stays as it is. Drills without a
//! certificate are in the catalog alone, and are lost with it.

use farshore_catalog::Catalog;
use farshore_journal::format::HeadStanding;
use farshore_journal::{JournalError, drills};

use super::Held;
use crate::config::DatabaseConfig;
use crate::drill::outcome;

/// Brings back those of these incarnations.
///
/// # Errors
/// When a store or the catalog does not answer. What was read until then is in the catalog.
pub async fn bring_back(catalog: &Catalog, settings: &DatabaseConfig, held: &[Held]) -> anyhow::Result<()> {
    let keys = outcome::verify_keys(settings);
    for held in held {
        let reader = held.source.reader();
        let (mut taken, mut passed_over) = (0_u64, 0_u64);
        for (id, _) in drills::list(reader).await? {
            if catalog.drill_get(id).await?.is_some_and(|known| known.signed.is_some()) {
                continue;
            }
            let certificate = match drills::read(reader, id).await {
                Ok(certificate) => certificate,
                Err(JournalError::Store(why)) if !why.is_not_found() => return Err(why.into()),
                Err(why) => {
                    passed_over += 1;
                    tracing::warn!(drill = %id, store = %held.store, error = %why, "a drill's certificate does not read");
                    continue;
                }
            };
            if certificate.standing(keys) != HeadStanding::Pinned {
                passed_over += 1;
                continue;
            }
            match outcome::row(certificate.said(), &held.store, Some(&certificate)) {
                Ok(drill) => {
                    catalog.drill_put(&drill).await?;
                    taken += 1;
                }
                Err(why) => {
                    passed_over += 1;
                    tracing::warn!(drill = %id, store = %held.store, why, "a drill's certificate is not understood");
                }
            }
        }
        if passed_over > 0 {
            tracing::warn!(store = %held.store, drills = passed_over, "certificates that no key of verify_keys signed, or that do not read, are not brought back");
        }
        if taken > 0 {
            tracing::info!(store = %held.store, drills = taken, "brought back from their certificates");
        }
    }
    Ok(())
}
