//! The source: the host of a database that takes writes, and what it says of itself.
//!
//! What always holds: a source was no standby when it was asked, and its identity and history come from the connection that
//! will stream. What it does not do: decide whether it continues the journal (`crate::continuity` does).

use farshore_engines::log::POSTGRES;
use farshore_engines::postgres::log::history::TimelineHistory;
use farshore_engines::postgres::log::{LogShape, Major, SegmentBytes};
use farshore_engines::postgres::sql::Session;
use farshore_engines::postgres::wire::{ConnectParams, Connection, Host, SystemIdentity};

use crate::error::ShipError;
use crate::pipeline::incarnation::Identity;

/// A connected source and what it says of itself.
pub(super) struct Source {
    pub(super) host: Host,
    pub(super) connection: Connection,
    pub(super) sql: Session,
    pub(super) system: SystemIdentity,
    pub(super) history: TimelineHistory,
    pub(super) shape: LogShape,
}

impl Source {
    /// What its incarnation is known by.
    pub(super) fn identity(&self) -> Identity {
        Identity {
            engine: POSTGRES,
            text: self.system.system_identifier.to_string(),
            what: "system identifier",
            major: self.shape.major.number(),
            segment_bytes: self.shape.segment_bytes.get(),
        }
    }
}

/// The host that takes writes, with both kinds of connection. Of several, which a promotion beside a living primary leaves,
/// the one on the newest timeline: the service must not wait for a host that the others have left behind.
pub(super) async fn find_primary(params: &ConnectParams) -> Result<Source, ShipError> {
    let mut last = None;
    let mut found: Option<Source> = None;
    for host in params.hosts() {
        match connect(params, host).await {
            Ok(Some(source)) => {
                if found.as_ref().is_none_or(|found| found.system.timeline < source.system.timeline) {
                    found = Some(source);
                }
            }
            Ok(None) => {}
            Err(why) => last = Some(why),
        }
    }
    if let Some(found) = found {
        return Ok(found);
    }
    let hosts = params.hosts().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    Err(last.unwrap_or(ShipError::NoPrimary { hosts }))
}

async fn connect(params: &ConnectParams, host: &Host) -> Result<Option<Source>, ShipError> {
    let sql = Session::connect(params, host).await?;
    if sql.in_recovery().await? {
        return Ok(None);
    }
    let segment_bytes = SegmentBytes::new(sql.settings().await?.wal_segment_bytes)?;
    let mut connection = Connection::connect(params, host).await?;
    let system = connection.identify_system().await?;
    let history = match connection.timeline_history(system.timeline).await? {
        Some(file) => TimelineHistory::parse(system.timeline, &file.content)?,
        None => TimelineHistory::first(),
    };
    let major = Major::new(connection.server_version().major)?;
    let shape = LogShape { major, segment_bytes, system_identifier: system.system_identifier };
    Ok(Some(Source { host: host.clone(), connection, sql, system, history, shape }))
}
