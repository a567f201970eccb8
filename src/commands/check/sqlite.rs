//! Looks at a SQLite database's file and at what is around it, for `check` to judge.
//!
//! What always holds: nothing is written, and nothing is made beside the file. Descriptors of it are opened and closed here, which drops
//! this process's locks on it: `check` is a process of its own, and the one that follows the database is another, so no hold is lost.

use std::path::Path;

use farshore_engines::sqlite::look::{Looked, look};
use farshore_journal::DatabaseName;
use nix::unistd::{AccessFlags, access};

use crate::check::sqlite::{SpoolFacts, SqliteFacts};
use crate::config::{Config, DatabaseConfig};

/// The facts of one SQLite database.
pub(super) async fn gather(
    config: &Config,
    name: &DatabaseName,
    database: &DatabaseConfig,
    path: &Path,
) -> SqliteFacts {
    let asked = path.to_owned();
    // `None` when the looking itself broke off.
    let looked = tokio::task::spawn_blocking(move || look(&asked)).await.ok();
    let found: Option<&Looked> = looked.as_ref().and_then(|looked| looked.as_ref().ok());
    let device = found.map(|looked| [looked.device]);
    SqliteFacts {
        path: path.to_owned(),
        user: nix::unistd::geteuid().as_raw(),
        free_bytes: found.and_then(|looked| super::free_bytes(&looked.path)),
        spool: spool(&config.service.room(name)),
        stores: Box::pin(super::ask_stores(
            config,
            name,
            database,
            device.as_ref().map(|device| &device[..]),
        ))
        .await,
        heads: Some(super::head_keys(database)),
        signed: super::signed_to(config, name, database).await,
        looked,
    }
}

/// The folder is made by `run`: until then what is there above it tells.
fn spool(folder: &Path) -> SpoolFacts {
    let there = folder.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    SpoolFacts {
        folder: folder.to_owned(),
        there: there.to_owned(),
        writable: Some(access(there, AccessFlags::W_OK | AccessFlags::X_OK).is_ok()),
        free_bytes: super::free_bytes(there),
    }
}
