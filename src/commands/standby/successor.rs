//! Whether the server that a former primary is to take blocks from is the one whose log the journal has.
//!
//! What always holds: it is of the directory's cluster, on the journal's newest timeline, and its history left each timeline before where the journal's did. `pg_rewind` asks for the first alone: of
//! two standbys that were promoted it would take the one's blocks, and the other's log would be replayed over them.
//! What it does not do: two that were promoted at the very same position, of which each is on the same timeline, are not told apart by their histories.

use std::path::PathBuf;

use farshore_applier::former::Left;
use farshore_engines::postgres::log::history::TimelineHistory;
use farshore_engines::postgres::wire::{ConnectParams, Connection, Error, Password};

use super::backfresh::refused;
use crate::message::{OperatorMessage, with_causes};

/// As for other programs that speak to PostgreSQL.
const PASSWORD: &str = "PGPASSWORD";
/// What leads PostgreSQL's programs to another server than what they are given says, and is not looked for here.
pub(super) const ELSEWHERE: [&str; 6] =
    ["PGHOST", "PGHOSTADDR", "PGPORT", "PGSERVICE", "PGDATABASE", "PGUSER"];

/// Refuses one that is not.
///
/// # Errors
/// When it does not answer, or has another history.
pub(super) async fn is_the_journals(from: &str, system: u64, journal: &Left) -> Result<(), OperatorMessage> {
    let mut params = ConnectParams::of_conninfo(from).map_err(|why| unread(&with_causes(&why)))?;
    let [host] = params.hosts() else {
        return Err(unread("it names several hosts, and which one answers may change"));
    };
    let host = host.clone();
    if let Some(content) = passfile(&params) {
        params = params.with_passfile(content);
    }
    if let Ok(password) = std::env::var(PASSWORD)
        && !params.names_password()
    {
        params = params.with_password(Password::new(password));
    }
    let params = params.with_application_name("farshore backfresh");
    let asked = async {
        let mut connection = Connection::connect_to_database(&params, &host).await?;
        let identity = connection.identify_system().await?;
        let history = connection.timeline_history(identity.timeline).await;
        connection.close().await;
        Ok::<_, Error>((identity, history?))
    };
    let (identity, file) =
        Box::pin(asked).await.map_err(|why| unasked(&host.to_string(), &with_causes(&why)))?;
    if identity.system_identifier != system {
        let what = format!(
            "the server at {host} is of cluster {}, and the directory of {system}",
            identity.system_identifier
        );
        return Err(another(what));
    }
    let told = match file {
        None => TimelineHistory::first(),
        Some(file) => TimelineHistory::parse(identity.timeline, &file.content)
            .map_err(|why| unasked(&host.to_string(), &why.to_string()))?,
    };
    if told.timeline() != journal.newest {
        let what = format!(
            "the server at {host} is on timeline {}, and the journal's newest is {}",
            told.timeline(),
            journal.newest
        );
        return Err(another(what));
    }
    if !journal.is_history(&told) {
        let what = format!(
            "the server at {host} is on timeline {} as the journal is, and came to it another way: it was promoted elsewhere",
            told.timeline()
        );
        return Err(another(what));
    }
    Ok(())
}

/// The password file that PostgreSQL's programs would read.
fn passfile(params: &ConnectParams) -> Option<String> {
    let named = params
        .passfile_path()
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("PGPASSFILE").map(PathBuf::from));
    let file = named.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".pgpass")))?;
    std::fs::read_to_string(file).ok()
}

fn unread(why: &str) -> OperatorMessage {
    refused(
        format!("what --from says is not read here: {why}"),
        "name one server, with its host and user, as `host=HOST port=PORT user=USER dbname=postgres`",
    )
}

fn unasked(host: &str, why: &str) -> OperatorMessage {
    refused(
        format!("whether the server at {host} is the one whose log the journal has is not known: {why}"),
        "start it, and name a superuser of it in --from (or one who may read its files and has REPLICATION); it needs a `max_wal_senders` above 0",
    )
}

fn another(what: String) -> OperatorMessage {
    refused(what, "name the server that the journal is shipped from, or a standby of it, in --from")
}
