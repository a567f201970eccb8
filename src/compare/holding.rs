//! A standby held while it is compared: the wish in the catalog, its beats, and whoever serves it.
//!
//! What always holds: a wish of this process says once a second that it lives, for as long as this value does; dropped it falls silent, and lapses. What is said of rows never rests on it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use farshore_catalog::Catalog;
use farshore_catalog::hold::{Hold, HoldAnswer};
use farshore_journal::{CompareId, DatabaseName, Offset};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::message::{Code, OperatorMessage, Safe};
use crate::serving::holds::LAPSE;
use crate::wiring;

/// How often the holder says that it lives, and while it waits for an answer looks for one.
const BEAT: Duration = Duration::from_secs(1);
const ASKS: Duration = Duration::from_millis(100);
/// How long whoever serves may take to answer: it looks once a second.
const ANSWER: Duration = Duration::from_secs(20);

/// A standby that is held.
pub struct Holding {
    catalog: Catalog,
    hold: u64,
    standby: String,
    ceiling: Arc<watch::Sender<Option<Offset>>>,
    answer: watch::Receiver<Option<HoldAnswer>>,
    _beats: JoinSet<()>,
}

impl Holding {
    /// Has one held where it is; what was sent to it so far is in the answer.
    ///
    /// # Errors
    /// When somebody else has it held, the catalog is away, or nobody answers who serves it.
    pub async fn take(
        catalog: &Catalog,
        (database, standby): (&DatabaseName, &str),
        of: CompareId,
    ) -> Result<(Self, HoldAnswer), OperatorMessage> {
        let mut word = [0; 8];
        word.copy_from_slice(&of.as_bytes()[..8]);
        let wanted = Hold {
            database: database.clone(),
            standby: standby.to_owned(),
            hold: u64::from_le_bytes(word) >> 1,
            holder: format!("comparison {of} on {}", wiring::node()),
            beat: 1,
            ceiling: None,
            answer: None,
        };
        taken(catalog, &wanted).await?;
        let (ceiling, wish) = watch::channel(None);
        let (answers, answer) = watch::channel(None);
        let ceiling = Arc::new(ceiling);
        let mut beats = JoinSet::new();
        beats.spawn(beat(catalog.clone(), wanted.hold, wish, answers));
        let (catalog, standby) = (catalog.clone(), standby.to_owned());
        let mut held = Self { catalog, hold: wanted.hold, standby, ceiling, answer, _beats: beats };
        match held.wait(None).await {
            Ok(answer) => Ok((held, answer)),
            Err(why) => {
                held.release().await;
                Err(why)
            }
        }
    }

    /// Lets it have log up to there, and waits until that is known to whoever serves it.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn raise(&mut self, ceiling: Offset) -> Result<HoldAnswer, OperatorMessage> {
        self.ceiling.send_replace(Some(ceiling));
        self.wait(Some(ceiling)).await
    }

    async fn wait(&mut self, least: Option<Offset>) -> Result<HoldAnswer, OperatorMessage> {
        let is_it = |answer: &Option<HoldAnswer>| {
            answer.as_ref().is_some_and(|answer| least.is_none_or(|least| answer.at >= least))
        };
        let waited = tokio::time::timeout(ANSWER, self.answer.wait_for(is_it)).await;
        let answer = waited.ok().and_then(Result::ok).and_then(|answer| answer.clone());
        answer.ok_or_else(|| self.unanswered())
    }

    fn unanswered(&self) -> OperatorMessage {
        OperatorMessage::new(
            Code::CompareUnreached,
            format!(
                "whoever serves standby {} did not say within {} seconds that it holds it",
                self.standby,
                ANSWER.as_secs()
            ),
            Safe::Known("nothing was compared, and nothing was changed on either side".to_owned()),
            "see with `farshore standby list` whether it is connected, and serve it with this version and this catalog",
        )
    }

    /// Gives it back.
    pub async fn release(self) {
        let Self { catalog, hold, standby, _beats: mut beats, .. } = self;
        beats.shutdown().await;
        let released = tokio::time::timeout(ANSWER, catalog.hold_release(hold)).await;
        if !matches!(released, Ok(Ok(()))) {
            tracing::warn!(
                standby,
                lapse_seconds = LAPSE.as_secs(),
                "the catalog does not take back that a standby is held: that lapses by itself"
            );
        }
    }
}

/// Writes the wish down; one whose holder is silent is replaced.
async fn taken(catalog: &Catalog, wanted: &Hold) -> Result<(), OperatorMessage> {
    let away = |why: farshore_catalog::Error| wiring::catalog_away(&why);
    let mut silent: Option<(Hold, Instant)> = None;
    loop {
        let found = catalog.hold_take(wanted).await.map_err(away)?;
        if found.hold == wanted.hold {
            return Ok(());
        }
        match &silent {
            Some((known, since)) if (known.hold, known.beat) == (found.hold, found.beat) => {
                if since.elapsed() >= LAPSE {
                    tracing::warn!(
                        standby = found.standby,
                        holder = found.holder,
                        "a hold whose holder is silent is replaced"
                    );
                    catalog.hold_drop(&found).await.map_err(away)?;
                    silent = None;
                    continue;
                }
            }
            Some(_) => {
                return Err(OperatorMessage::new(
                    Code::CompareTaken,
                    format!("standby {} is held by another: {}", found.standby, found.holder),
                    Safe::Known("nothing was compared, and nothing was changed on either side".to_owned()),
                    "wait until that has ended, and ask again",
                ));
            }
            None => silent = Some((found, Instant::now())),
        }
        tokio::time::sleep(BEAT).await;
    }
}

/// Says that the holder lives, and hears what is answered.
async fn beat(
    catalog: Catalog,
    hold: u64,
    mut wish: watch::Receiver<Option<Offset>>,
    answers: watch::Sender<Option<HoldAnswer>>,
) {
    let (mut beat, mut said) = (1_u64, None);
    let mut spoke = Instant::now();
    loop {
        let ceiling = *wish.borrow_and_update();
        let is_new = said != Some(ceiling);
        if is_new || spoke.elapsed() >= BEAT {
            (beat, spoke) = (beat.saturating_add(1), Instant::now());
        }
        match catalog.hold_beat(hold, beat, ceiling).await {
            Ok(Some(found)) => {
                said = Some(ceiling);
                answers.send_if_modified(|answer| {
                    std::mem::replace(answer, found.answer.clone()) != found.answer
                });
            }
            // It lapsed and was another's; who waits finds out by the time.
            Ok(None) => return tracing::warn!(hold, "a standby is not held any more for this comparison"),
            Err(why) => tracing::debug!(error = %why, "that a standby is to be held cannot be said"),
        }
        let awaits = answers.borrow().as_ref().is_none_or(|answer| ceiling.is_some_and(|at| answer.at < at));
        tokio::select! {
            () = tokio::time::sleep(if awaits { ASKS } else { BEAT }) => {}
            changed = wish.changed() => if changed.is_err() { return },
        }
    }
}
