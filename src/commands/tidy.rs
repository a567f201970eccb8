//! `farshore tidy`: deletes chunks that a merged segment replaces. It takes the configuration of a credential that may delete, which
//! the shipper's need not.

use farshore_journal::reader::Keyring;
use farshore_journal::tidy::{Tidied, TidyOptions, tidy};
use farshore_journal::{DatabaseName, heads};
use serde::Serialize;

use crate::cli::TidyArgs;
use crate::cli::zone::Zone;
use crate::commands::{self, Context};
use crate::config::quantity::ByteCount;
use crate::exit::Exit;
use crate::output::Row;
use crate::sources;
use crate::wiring::Purpose;

/// One incarnation in one store, as `-o json` shows it.
#[derive(Debug, Serialize)]
struct Shown {
    database: DatabaseName,
    store: String,
    incarnation: String,
    dry_run: bool,
    #[serde(flatten)]
    tidied: Tidied,
    /// Signed heads deleted, or that would be: those that newer ones supersede.
    heads: u64,
}

impl Row for Shown {
    const HEADER: &'static [&'static str] =
        &["DATABASE", "STORE", "INCARNATION", "SEGMENTS", "DELETED", "FREED", "KEPT", "REFUSED", "HEADS"];

    fn cells(&self, _zone: Zone) -> Vec<String> {
        let deleted = match self.dry_run {
            true => format!("{} (would be)", self.tidied.chunks),
            false => self.tidied.chunks.to_string(),
        };
        vec![
            self.database.to_string(),
            self.store.clone(),
            self.incarnation.clone(),
            self.tidied.segments.to_string(),
            deleted,
            ByteCount::new(self.tidied.bytes).to_string(),
            self.tidied.kept.to_string(),
            self.tidied.refused.len().to_string(),
            self.heads.to_string(),
        ]
    }
}

/// Runs it. Ends with 9 when a segment does not hold what it should: its chunks stay.
///
/// # Errors
/// When a store does not answer or the credential may not delete.
pub async fn run(context: &mut Context, args: TidyArgs) -> anyhow::Result<Exit> {
    let config = context.config()?;
    let options = TidyOptions::new(args.grace.get(), args.dry_run)?;
    let mut shown = Vec::new();
    for (name, settings) in commands::databases(&config, args.database.as_ref())? {
        for store in &settings.stores {
            for source in sources::all_for(&config, name, store, Purpose::Tidy).await? {
                let mut keys = Keyring::new(source.unlock().clone());
                let tidied = tokio::select! {
                    () = context.cancel.cancelled() => return Ok(Exit::Interrupted),
                    tidied = Box::pin(tidy(source.reader(), &mut keys, options)) => tidied?,
                };
                let superseded = tokio::select! {
                    () = context.cancel.cancelled() => return Ok(Exit::Interrupted),
                    superseded = Box::pin(heads::tidy(source.reader(), &settings.verify_keys, &settings.retired_keys, options)) => superseded?,
                };
                for unread in &superseded.unread {
                    tracing::warn!(database = %name, store = %store, object = %unread.object, error = unread.why, "it does not read: this head stays");
                }
                if superseded.given_up {
                    tracing::warn!(database = %name, store = %store, "so many objects at heads' names do not hold that the older ones were not looked at: `farshore verify` names them");
                }
                for refused in &tidied.refused {
                    tracing::error!(database = %name, store = %store, segment = refused.segment, "{}", refused.why);
                }
                shown.push(Shown {
                    database: name.clone(),
                    store: store.to_string(),
                    incarnation: source.record().incarnation.to_string(),
                    dry_run: args.dry_run,
                    tidied,
                    heads: superseded.deleted,
                });
            }
        }
    }
    context.output.list("farshore.tidy/1", &shown)?;
    Ok(if shown.iter().all(|shown| shown.tidied.refused.is_empty()) { Exit::Done } else { Exit::Findings })
}
