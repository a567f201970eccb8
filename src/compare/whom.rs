//! Whom a comparison is of: where both sides can be asked, what the catalog knows of the standby, and that both are of the journal's cluster.
//!
//! What always holds: nothing is begun with a standby that is delayed, does not follow, or is another cluster's.

use std::time::{Duration, Instant};

use chrono::Utc;
use farshore_catalog::Catalog;
use farshore_catalog::standby::Standby;
use farshore_engines::postgres::wire::{ConnectParams, Error, Password};
use farshore_journal::{DatabaseName, Timeline};

use super::sides::{self, said};
use super::{refused, unreached};
use crate::config::{DatabaseConfig, EngineConfig};
use crate::message::{Code, OperatorMessage, Safe};
use crate::wiring;

/// For how long a standby that does not follow is waited for: one that lost its connection comes again within a few seconds.
const COMES_AGAIN: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(500);

/// How both sides are reached.
///
/// # Errors
/// When the configuration does not say so.
pub fn ways(
    name: &DatabaseName,
    settings: &DatabaseConfig,
    standby: &str,
) -> Result<(ConnectParams, ConnectParams), OperatorMessage> {
    let EngineConfig::Postgres { password, .. } = &settings.engine else {
        return Err(refused(
            format!("{name} is a SQLite database, whose copies are not compared in this version"),
            "`farshore verify` proves what is stored of it".to_owned(),
        ));
    };
    let Some(url) = settings.compare.standbys.get(standby) else {
        let hint = format!(
            "write {standby} = \"postgresql://ROLE@HOST/postgres\" into [databases.{name}.compare.standbys]"
        );
        return Err(refused(
            format!("the configuration does not say where standby {standby} of {name} can be asked"),
            hint,
        ));
    };
    let unusable = |why: String| {
        refused(
            format!("the address of standby {standby} of {name} cannot be used: {why}"),
            "correct it in the configuration".to_owned(),
        )
    };
    let mut follows: ConnectParams = url.as_str().parse().map_err(|why: Error| unusable(why.to_string()))?;
    if let Some(source) = password {
        follows = follows.with_password(Password::new(wiring::secret(source)?));
    }
    let called = format!("farshore compare {name}");
    let primary = wiring::connect_params(name, settings)?.with_application_name(called.clone());
    Ok((primary, follows.with_application_name(called)))
}

/// What the catalog knows of the standby: it has to follow the journal, at once. One that comes again by itself is waited for.
///
/// # Errors
/// When it does not follow, or the catalog is away.
pub async fn known(
    catalog: &Catalog,
    name: &DatabaseName,
    standby: &str,
) -> Result<Standby, OperatorMessage> {
    let began = Instant::now();
    loop {
        let listed = catalog.standby_list(Some(name)).await.map_err(|why| wiring::catalog_away(&why))?;
        let Some(known) = listed.into_iter().find(|known| known.name == standby) else {
            return Err(OperatorMessage::new(
                Code::StandbyNotListed,
                format!("no standby of {name} is known as {standby}"),
                Safe::Known("nothing was compared".to_owned()),
                format!("`farshore standby list {name}` shows those that are known"),
            ));
        };
        if let Some(delay) = known.delay {
            return Err(refused(
                format!(
                    "standby {standby} of {name} is delayed by {} s: to be compared it would have to be sent what is held from it",
                    delay.as_secs()
                ),
                "compare one that is not delayed".to_owned(),
            ));
        }
        let state = known.shown(Utc::now());
        if state.is_sure() {
            return Ok(known);
        }
        if began.elapsed() > COMES_AGAIN {
            return Err(unreached(&format!(
                "standby {standby} of {name} does not follow the journal: it is {}",
                state.word()
            )));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// That both sides are of the cluster that the journal is of; the timeline that the primary writes.
///
/// # Errors
/// When one is not, or does not answer.
pub async fn same_cluster(
    name: &DatabaseName,
    standby: &str,
    (primary, follows): (&ConnectParams, &ConnectParams),
    identity: &str,
) -> Result<Timeline, OperatorMessage> {
    let mut timeline = None;
    for (which, params, in_recovery) in
        [("primary".to_owned(), primary, false), (format!("standby {standby}"), follows, true)]
    {
        let session = sides::connect(params, params.database(), in_recovery).await;
        let session = session.map_err(|why| unreached(&format!("the {which} of {name}: {why}")))?;
        let asked = async {
            let system = session.system_identifier().await?;
            Ok::<_, Error>((system, session.written_timeline().await?))
        };
        let (system, writes) =
            asked.await.map_err(|why| unreached(&format!("the {which} of {name}: {}", said(&why))))?;
        if system.to_string() != identity {
            return Err(refused(
                format!(
                    "the {which} of {name} is another cluster than its journal: {system}, and not {identity}"
                ),
                "correct its address in the configuration".to_owned(),
            ));
        }
        timeline = timeline.or(writes);
    }
    timeline
        .ok_or_else(|| unreached(&format!("the primary of {name} does not say on which timeline it writes")))
}
