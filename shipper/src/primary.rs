//! Which of a database's hosts is its primary.
//!
//! Always: of several hosts that take writes, which a promotion beside a living primary leaves, the one on the newest timeline
//! is the primary, whatever the order of the hosts; who ships, who moves slots and who takes backups must not differ in it.

use farshore_engines::postgres::sql::Session;
use farshore_engines::postgres::wire::{ConnectParams, Host};
use farshore_journal::Position;

/// A primary that answers.
#[derive(Debug)]
pub struct Primary {
    /// Which host it is.
    pub host: Host,
    /// A session there.
    pub sql: Session,
    /// Its timeline, and how far its log was flushed when it was asked.
    pub flushed: Position,
}

/// Finds it.
///
/// # Errors
/// Why there is none: the last host's own words when one does not answer.
pub async fn find(params: &ConnectParams) -> Result<Primary, String> {
    let mut found: Option<Primary> = None;
    let mut away = "no host of it is a primary that answers".to_owned();
    for host in params.hosts() {
        let sql = match Session::connect(params, host).await {
            Ok(sql) => sql,
            Err(why) => {
                away = why.to_string();
                continue;
            }
        };
        if !matches!(sql.in_recovery().await, Ok(false)) {
            continue;
        }
        let Ok(flushed) = sql.current_position().await else { continue };
        if found.as_ref().is_none_or(|found| found.flushed.timeline < flushed.timeline) {
            found = Some(Primary { host: host.clone(), sql, flushed });
        }
    }
    found.ok_or(away)
}
