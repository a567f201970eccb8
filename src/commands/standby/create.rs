//! `farshore standby create`: a copy of a PostgreSQL database that follows its journal.
//!
//! What always holds: it is restored as `restore --latest` restores, held against signed heads, and then has no target: it follows one server, as a copy of one incarnation. It is not
//! started here: as which user, at which address and with how much memory it runs is its machine's matter.

use std::fmt::Write as _;

use farshore_applier::restore::RestoreOptions;
use farshore_catalog::job::NewJob;
use farshore_journal::{DatabaseName, IncarnationId};

use crate::cli::restore::{History, Target};
use crate::cli::standby::{StandbyCreateArgs, parse_standby};
use crate::commands::restore::{self, Chosen};
use crate::commands::{self, Context};
use crate::config::EngineConfig;
use crate::config::quantity::Span;
use crate::exit::Exit;
use crate::message::{Code, OperatorMessage, Safe};
use crate::wiring;

/// Runs it.
///
/// # Errors
/// As a restore to the latest state.
pub(super) async fn run(context: &mut Context, args: StandbyCreateArgs) -> anyhow::Result<Exit> {
    let config = context.config()?;
    let (name, settings) = commands::database(&config, Some(&args.database))?;
    if !matches!(settings.engine, EngineConfig::Postgres { .. }) {
        return Err(OperatorMessage::new(
            Code::RestoreUnreachable,
            format!("{name} is a SQLite database: its copies read the store, and follow no server"),
            Safe::Known("nothing was written".to_owned()),
            format!("`farshore standby run {name} --to DIR` makes one and keeps it up to date"),
        )
        .into());
    }
    let directory = std::path::absolute(&args.to)?;
    let standby = args.name.clone().unwrap_or_else(wiring::node);
    if let Err(why) = parse_standby(&standby) {
        return Err(OperatorMessage::new(
            Code::RestoreUnreachable,
            format!("this machine is called {standby}, which is no name of a standby: {why}"),
            Safe::Known("nothing was written".to_owned()),
            "name it with --name",
        )
        .into());
    }
    // Incarnations are each store's own: a copy from another store is none of what it is served.
    let store = args.store.clone().or_else(|| settings.stores.first().cloned());
    let history = History { store, incarnation: None };
    let chosen = Box::pin(Chosen::open(&config, (name, settings), &Target::Latest, &history)).await?;
    let binding = (name, chosen.source.record().incarnation);
    let follow = conninfo(&args.server, &standby, binding, args.apply_delay);
    let job = restore::job_into(name, (&Target::Latest, &history), None, &directory);
    let options = |_: &_| {
        let options = restore::options(settings, directory.clone(), None);
        Ok(RestoreOptions { follow: Some(follow.clone()), resume: args.resume, ..options })
    };
    let done = restore::done(context, (&config, name), chosen, NewJob { ..job }, options).await?;
    let Some(done) = done else { return Ok(Exit::Interrupted) };
    let mut text = restore::describe(&done.planned, context.output.zone());
    let place = done.restored.directory.display();
    let _ = writeln!(text, "standby    {place}, of incarnation {}", done.planned.source.record().number);
    let _ = writeln!(text, "known as   {standby}");
    let _ = writeln!(
        text,
        "before it starts, open in {place}/postgresql.conf and pg_hba.conf what is closed there: addresses, users, memory"
    );
    let _ = writeln!(text, "start      pg_ctl -D {place} start");
    let _ = writeln!(text, "then       farshore standby list {name}");
    done.end(context, &text).await?;
    Ok(Exit::Done)
}

/// What it connects with: what was given, what tells it from others, unless that was given too, and its journal from another.
pub(super) fn conninfo(
    server: &str,
    standby: &str,
    (database, incarnation): (&DatabaseName, IncarnationId),
    delay: Option<Span>,
) -> String {
    let mut whole = server.trim().to_owned();
    if !whole
        .split_whitespace()
        .any(|word| word == "application_name" || word.starts_with("application_name="))
    {
        let _ = write!(whole, " application_name={standby}");
    }
    let _ = write!(whole, " options='-c farshore.database={database} -c farshore.incarnation={incarnation}");
    if let Some(delay) = delay {
        let _ = write!(whole, " -c farshore.apply_delay={}ms", delay.get().as_millis());
    }
    whole.push('\'');
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standby_says_who_it_is_unless_that_was_written_and_of_which_incarnation() {
        let (database, id) = ("orders".parse().unwrap(), "0123456789abcdef0123456789abcdef");
        let incarnation = id.parse().unwrap();
        let made = |server: &str| conninfo(server, "oslo", (&database, incarnation), None);
        let bound = format!("options='-c farshore.database=orders -c farshore.incarnation={id}'");
        assert_eq!(made("host=db port=5440"), format!("host=db port=5440 application_name=oslo {bound}"));
        assert_eq!(made("host=db application_name = me"), format!("host=db application_name = me {bound}"));
        assert!(made("host=application_name").contains(" application_name=oslo"));
        let late = conninfo("host=db", "oslo", (&database, incarnation), Some("4h".parse().unwrap()));
        assert!(
            late.ends_with(&format!("{} -c farshore.apply_delay=14400000ms'", bound.trim_end_matches('\''))),
            "{late}"
        );
    }
}
