//! One file per resource. A handler reads its parameters, asks the catalog once or twice, and answers.

pub mod activity;
pub mod backup;
pub mod channel;
pub mod compare;
pub mod database;
pub mod drill;
pub mod expire;
pub mod exposure;
pub mod job;
pub mod lag;
pub mod node;
pub mod plan;
pub mod points;
pub mod protection;
pub mod resolve;
pub mod restore;
pub mod schedule;
pub mod session;
pub mod shape;
pub mod standby;
pub mod stream;
pub mod throttle;
pub mod token;
pub mod verify;

use farshore_catalog::Catalog;
use farshore_catalog::incarnation::Incarnation;
use farshore_catalog::range::JournalRange;
use farshore_journal::DatabaseName;

use crate::auth::Who;
use crate::problem::{Kind, Problem};

/// A database's name in a path.
///
/// # Errors
/// [`Kind::DatabaseUnknown`] when it can be nobody's, or is not there for whoever asks.
pub(crate) fn named(text: &str, who: &Who) -> Result<DatabaseName, Problem> {
    let unknown = || {
        Problem::new(Kind::DatabaseUnknown, "no database of this name")
            .hint("GET /api/v1/databases lists them")
    };
    let name: DatabaseName = text.parse().map_err(|_| unknown())?;
    match who.sees(&name) {
        true => Ok(name),
        false => Err(unknown()),
    }
}

/// An incarnation of a database and what is stored of it: the one that is named by number or id, else the current one.
pub(crate) async fn incarnation_of(
    catalog: &Catalog,
    database: &DatabaseName,
    asked: Option<&str>,
) -> Result<(Incarnation, Vec<JournalRange>), Problem> {
    // Distinguishes a database that is not there from one of which nothing is stored.
    let unknown = || Problem::from(farshore_catalog::Error::NoDatabase { name: database.clone() });
    let known = catalog.incarnation_list(database).await?;
    if known.is_empty() && catalog.database_find(database).await?.is_none() {
        return Err(unknown());
    }
    let found = match asked {
        None => known.last(),
        Some(asked) => known.iter().find(|one| {
            one.id.to_string() == asked || asked.parse().is_ok_and(|number: u64| one.number == Some(number))
        }),
    };
    let incarnation = found.cloned().ok_or_else(|| {
        Problem::new(Kind::IncarnationUnknown, "the catalog knows no such incarnation of this database")
            .hint("GET /api/v1/databases/{name} names the current one and the former ones")
    })?;
    let ranges = catalog.range_list(incarnation.id).await?;
    Ok((incarnation, ranges))
}
