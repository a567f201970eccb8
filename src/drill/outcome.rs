//! What a drill comes to, and where that is kept: the verdict, the certificate, the catalog's row, and the message.
//!
//! What always holds: the verdict is a pure function of what was found; the certificate is stored before the catalog is told, and is never replaced; a drill that is not certified
//! says so and why. The catalog being away changes no verdict.

use std::time::Duration;

use chrono::{DateTime, Utc};
use farshore_catalog::Catalog;
use farshore_catalog::drill::Drill;
use farshore_journal::format::certificate::{
    CheckOutcome, DrillCheck, DrillStatement, DrillVerdict, statement_text,
};
use farshore_journal::format::{Certificate, SigningKey, VerifyKeys};
use farshore_journal::{DatabaseName, drills};
use farshore_shipper::crash_point;

use super::Course;
use crate::config::{Config, DatabaseConfig, StoreName};
use crate::exit::Exit;
use crate::message::{Code, OperatorMessage, Safe};
use crate::wiring::{self, Purpose};

/// How long a store is given to take a certificate, and a catalog to take a row.
const STORING: Duration = Duration::from_secs(120);
const TELLING: Duration = Duration::from_secs(10);

/// What a drill came to.
#[derive(Debug)]
pub struct Came {
    /// All of it.
    pub statement: DrillStatement,
    /// The store's name.
    pub store: String,
    /// The certificate, if it is in the store.
    pub certificate: Option<Certificate>,
    /// Why it is not.
    pub uncertified: Option<String>,
    /// What is not as it should be, and how a run that ends with this ends.
    pub message: Option<OperatorMessage>,
}

impl Came {
    /// How a run ends.
    pub fn exit(&self) -> Exit {
        self.message.as_ref().map_or(Exit::Done, |message| message.code.exit())
    }
}

/// The verdict. `failed`: the restore did. A required check must have passed, any other must not have failed.
pub fn verdict(
    failed: bool,
    checks: &[DrillCheck],
    recovery_us: Option<u64>,
    objective_us: Option<u64>,
) -> DrillVerdict {
    let holds = |check: &DrillCheck| match check.outcome {
        CheckOutcome::Passed => true,
        CheckOutcome::Failed => false,
        CheckOutcome::NotLookedAt => !check.required,
    };
    // A recovery that was not measured to its end did not come to it.
    let (false, true, false, Some(recovery)) =
        (failed, checks.iter().all(holds), checks.is_empty(), recovery_us)
    else {
        return DrillVerdict::Failed;
    };
    match objective_us {
        Some(objective) if recovery > objective => DrillVerdict::Breached,
        _ => DrillVerdict::Passed,
    }
}

/// The keys whose certificates count for a database.
pub fn verify_keys(settings: &DatabaseConfig) -> &VerifyKeys {
    if settings.drill.verify_keys.is_empty() { &settings.verify_keys } else { &settings.drill.verify_keys }
}

/// The key that signs, read now; none where none is configured.
///
/// # Errors
/// When it does not read, or nobody who has this configuration would believe what it signs.
pub(super) fn signing_key(
    name: &DatabaseName,
    settings: &DatabaseConfig,
) -> Result<Option<SigningKey>, OperatorMessage> {
    let Some(path) = settings.drill.signing_key.as_ref().or(settings.signing_key.as_ref()) else {
        return Ok(None);
    };
    wiring::signing_key(path, verify_keys(settings)).map(Some).map_err(|why| {
        OperatorMessage::new(
            Code::SecretUnreadable,
            format!("the drill of {name} would have no certificate: {why}"),
            Safe::Known("nothing was begun".to_owned()),
            "make the key readable for this user, and its public half one of verify_keys; or leave signing_key out, and drills are not certified",
        )
    })
}

/// Signs, stores and tells what a drill came to.
pub(super) async fn certify(
    config: &Config,
    catalog: Option<&Catalog>,
    course: Course<'_>,
    key: Option<SigningKey>,
) -> Came {
    let statement = course.statement();
    let store = course.held.store.clone();
    let stored = match key {
        None => Err("no signing_key is configured".to_owned()),
        Some(key) => signed(config, &store, &statement, &key).await,
    };
    crash_point!("drill-certified");
    let has_no_key = course.settings.drill.signing_key.is_none() && course.settings.signing_key.is_none();
    let (certificate, uncertified) = match stored {
        Ok(certificate) => (Some(certificate), None),
        Err(why) => (None, Some(why)),
    };
    let mut came = Came { statement, store, certificate, uncertified, message: None };
    tell(catalog, &came).await;
    came.message = message(&came, &course, has_no_key);
    came
}

async fn signed(
    config: &Config,
    store: &str,
    statement: &DrillStatement,
    key: &SigningKey,
) -> Result<Certificate, String> {
    let certificate = Certificate::sign(statement.clone(), key).map_err(|why| why.to_string())?;
    let name: StoreName = store.parse()?;
    let (opened, _) = wiring::open_store(config, &name, Purpose::Append).map_err(|why| why.happened)?;
    let trouble = |why: &farshore_journal::store::StoreError| {
        tracing::warn!(store, error = %why, "the store does not take the drill's certificate yet");
    };
    let put = drills::put(&*opened, &certificate, &trouble);
    match tokio::time::timeout(STORING, Box::pin(put)).await {
        Ok(Ok(())) => Ok(certificate),
        Ok(Err(why)) => Err(format!("the store {store} did not take it: {why}")),
        Err(_) => Err(format!("the store {store} did not take it in {} s", STORING.as_secs())),
    }
}

async fn tell(catalog: Option<&Catalog>, came: &Came) {
    let Some(catalog) = catalog else { return };
    let drill = match row(&came.statement, &came.store, came.certificate.as_ref()) {
        Ok(drill) => Drill { uncertified: came.uncertified.clone(), ..drill },
        Err(why) => return tracing::warn!(why, "the catalog is not told of the drill"),
    };
    match tokio::time::timeout(TELLING, catalog.drill_put(&drill)).await {
        Ok(Ok(())) => {}
        Ok(Err(why)) => {
            tracing::warn!(error = %why, "the catalog is not told of the drill; where it has a certificate, `farshore catalog rebuild` finds it")
        }
        Err(_) => tracing::warn!(
            "the catalog does not answer, and is not told of the drill; where it has a certificate, `farshore catalog rebuild` finds it"
        ),
    }
}

/// A drill as the catalog keeps it.
///
/// # Errors
/// In words, when its times are none.
pub fn row(said: &DrillStatement, store: &str, certificate: Option<&Certificate>) -> Result<Drill, String> {
    let time = |text: &str| text.parse::<DateTime<Utc>>().map_err(|_| format!("{text:?} is no time"));
    let statement = match certificate {
        Some(certificate) => certificate.text().to_owned(),
        None => statement_text(said).map_err(|why| why.to_string())?,
    };
    Ok(Drill {
        id: said.drill,
        database: said.database.clone(),
        store: store.to_owned(),
        incarnation: said.incarnation,
        verdict: said.verdict,
        began: time(&said.began)?,
        ended: time(&said.ended)?,
        recovery: said.recovery_us.map(Duration::from_micros),
        objective: said.objective_us.map(Duration::from_micros),
        replayed: said
            .measured
            .replay_us
            .map(Duration::from_micros)
            .zip(said.target.as_ref().map(|target| target.replay_bytes)),
        statement,
        signed: certificate.map(|certificate| (certificate.key, certificate.signature)),
        uncertified: None,
    })
}

/// Of a drill that did not pass as it should, what is to be said.
fn message(came: &Came, course: &Course<'_>, has_no_key: bool) -> Option<OperatorMessage> {
    let said = &came.statement;
    let (id, name) = (said.drill, &said.database);
    let seconds = |us: Option<u64>| {
        us.map_or_else(|| "?".to_owned(), |us| format!("{:.1} s", Duration::from_micros(us).as_secs_f64()))
    };
    if let Some(failed) = &course.failure {
        return Some(failed.message.clone());
    }
    if said.verdict == DrillVerdict::Failed {
        let not_well = said.checks.iter().filter(|check| {
            check.outcome == CheckOutcome::Failed
                || (check.required && check.outcome == CheckOutcome::NotLookedAt)
        });
        let not_well: Vec<String> =
            not_well.map(|check| format!("{}: {}", check.name, check.detail)).collect();
        return Some(OperatorMessage::new(
            Code::DrillFailed,
            format!("the drill {id} of {name} restored and opened a copy whose checks failed: {}", not_well.join("; ")),
            Safe::Known(
                "the database was not touched and the copy is removed; the copy stood at exactly the planned position, so what the check finds was stored like this"
                    .to_owned(),
            ),
            format!("`farshore drill show {id}` names every check; look whether the database itself has the same fault"),
        ));
    }
    if let Some(why) = &course.left {
        return Some(left(name, why));
    }
    if said.verdict == DrillVerdict::Breached {
        return Some(OperatorMessage::new(
            Code::DrillBreached,
            format!(
                "the drill {id} of {name} passed, and took {} where rto = {}",
                seconds(said.recovery_us),
                seconds(said.objective_us)
            ),
            Safe::Known("the copy was whole; recovering takes longer than was promised".to_owned()),
            "take base backups more often, restore on a faster machine, or state the rto that holds",
        ));
    }
    let why = came.uncertified.as_ref().filter(|_| !has_no_key)?;
    Some(OperatorMessage::new(
        Code::DrillUncertified,
        format!("the drill {id} of {name} passed, and has no certificate: {why}"),
        Safe::Known(
            "the verdict is in the catalog, where there is one; nothing proves it to others".to_owned(),
        ),
        "mend what it says, and drill again",
    ))
}

/// A drill's copy is still there.
pub(super) fn left(name: &DatabaseName, why: &str) -> OperatorMessage {
    OperatorMessage::new(
        Code::DrillLeft,
        format!("the copy of a drill of {name} was not removed: {why}"),
        Safe::Known(
            "the database and the store were not touched; the copy takes space, and a server may run in it"
                .to_owned(),
        ),
        "remove what it names; the next drill, and the next start of a service, try it too",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(outcome: CheckOutcome, required: bool) -> DrillCheck {
        DrillCheck { name: String::new(), outcome, required, detail: String::new() }
    }

    #[test]
    fn a_drill_passes_only_when_its_restore_and_every_required_check_did() {
        use CheckOutcome::{Failed, NotLookedAt, Passed};
        use DrillVerdict as V;
        let ok = check(Passed, true);
        let with = |more: DrillCheck| vec![ok.clone(), more];
        let in_time = (Some(10), Some(20));
        for (failed, checks, (recovery, objective), wanted) in [
            (false, vec![ok.clone()], in_time, V::Passed),
            (false, vec![ok.clone()], (Some(20), Some(20)), V::Passed),
            (false, vec![ok.clone()], (Some(21), Some(20)), V::Breached),
            (false, vec![ok.clone()], (Some(21), None), V::Passed),
            (false, vec![ok.clone()], (None, Some(20)), V::Failed),
            (true, vec![ok.clone()], in_time, V::Failed),
            (false, Vec::new(), in_time, V::Failed),
            (false, with(check(NotLookedAt, false)), in_time, V::Passed),
            (false, with(check(NotLookedAt, true)), in_time, V::Failed),
            (false, with(check(Failed, false)), in_time, V::Failed),
            (false, with(check(Failed, true)), (Some(21), Some(20)), V::Failed),
        ] {
            assert_eq!(
                verdict(failed, &checks, recovery, objective),
                wanted,
                "{failed} {checks:?} {recovery:?}"
            );
        }
    }
}
