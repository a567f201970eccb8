//! The processes that share this catalog, and when each was last heard of.

use sqlx::any::AnyRow;
use sqlx::query;

use crate::connection::{in_local_txn, in_snapshot};
use crate::row::{Read as _, micros};
use crate::{Catalog, Result, Time, Txn};

/// What a node may do: ship a database, do jobs, restore into folders of its machine, delete what no rule keeps, serve journals to standbys.
pub const ROLES: [&str; 5] = ["ships", "jobs", "restores", "expires", "serves"];

/// A running farshore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name in the configuration, or its machine's.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it does: words of [`ROLES`]; nothing of a node of an earlier version.
    pub roles: Vec<String>,
    /// When it started.
    pub started_at: Time,
    /// When it last said that it lives.
    pub heartbeat_at: Time,
}

impl Catalog {
    /// Records a node's start, or that it still lives.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn node_put(&self, node: &Node) -> Result<()> {
        in_local_txn!(self, node_put_in_txn(node))
    }

    /// All nodes by name.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn node_list(&self) -> Result<Vec<Node>> {
        in_snapshot!(self, node_list_in_txn())
    }
}

/// As [`Catalog::node_put`].
///
/// # Errors
/// When the catalog is away.
pub async fn node_put_in_txn(txn: &mut Txn, node: &Node) -> Result<()> {
    let statement = "insert into node (name, version, started_at, heartbeat_at, roles) values ($1, $2, $3, $4, $5) \
                     on conflict (name) do update set version = excluded.version, roles = excluded.roles, \
                     started_at = excluded.started_at, heartbeat_at = excluded.heartbeat_at";
    let bound = query(statement)
        .bind(node.name.clone())
        .bind(node.version.clone())
        .bind(micros(node.started_at))
        .bind(micros(node.heartbeat_at))
        .bind(node.roles.join(" "));
    txn.execute("node_put", bound).await.map(|_| ())
}

/// As [`Catalog::node_list`].
///
/// # Errors
/// When the catalog is away.
pub async fn node_list_in_txn(txn: &mut Txn) -> Result<Vec<Node>> {
    let bound = query("select name, version, roles, started_at, heartbeat_at from node order by name");
    txn.rows("node_list", bound).await?.iter().map(from_row).collect()
}

fn from_row(row: &AnyRow) -> Result<Node> {
    Ok(Node {
        name: row.text("name")?,
        version: row.text("version")?,
        roles: row.text("roles")?.split_ascii_whitespace().map(str::to_owned).collect(),
        started_at: row.time("started_at")?,
        heartbeat_at: row.time("heartbeat_at")?,
    })
}
