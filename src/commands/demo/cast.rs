//! What is an engine's own in the demo. The story is one and the same ([`super::story`]).

use std::ops::Range;

use super::moment::Moment;
use super::stage::Stage;

/// A database that was made.
pub(super) struct Opened {
    /// What it is.
    pub what: String,
    /// What was typed for it, where that is worth a word.
    pub typed: String,
}

/// A database of some engine and what belongs to it.
pub(super) trait Cast {
    /// The engine's name, as `--engine` has it.
    const ENGINE: &'static str;
    /// What is typed behind `farshore demo` for it.
    const OPTION: &'static str;
    /// What stands before a statement that somebody types.
    const PROMPT: &'static str;
    /// Who else has the mistake by now, and what has the way back.
    const WAY_BACK: &'static str;
    /// By what the list of transactions shows the one that is looked for.
    const SHOWN_BY: &'static str;
    /// What a restore is told beside its target and `--to before`.
    const RESTORE: &'static [&'static str];
    /// Lines at the end of what a restore says that say what became of it.
    const CAME_OF_IT: usize;
    /// What the restored copy is called.
    const COPY: &'static str;

    /// More lines of the configuration, behind a line of it.
    fn configuration(&self) -> Option<(&'static str, String)> {
        None
    }

    /// Makes the database with some orders in it.
    async fn open(&self, stage: &mut Stage) -> anyhow::Result<Opened>;

    /// Where the shop finds it, in words behind [`super::shop::SAMPLE`].
    fn place(&self, stage: &Stage) -> Vec<String>;

    /// What `farshore init` is told of it.
    fn init(&self, stage: &Stage) -> Vec<String>;

    /// Does what `init` says must be done; what is typed for that.
    async fn apply(&self, stage: &Stage, statements: &[String]) -> anyhow::Result<String>;

    /// Starts a standby; what is typed for that. Nothing where the engine has none.
    fn follow(&self, stage: &mut Stage) -> anyhow::Result<String>;

    /// What is asked of a standby once it followed for a while, and what it says.
    async fn followed(&self, stage: &Stage) -> anyhow::Result<String>;

    /// Waits until the standby, if there is one, holds so many orders.
    async fn standby_has(&self, stage: &Stage, orders: Range<u64>) -> anyhow::Result<()>;

    /// What tells the transaction that is looked for from others.
    fn found(moment: &Moment) -> String;

    /// How many orders the restored copy holds, and when the last one was placed.
    async fn orders_in_copy(&self, stage: &Stage) -> anyhow::Result<(u64, String)>;

    /// How to look at what is left running.
    fn look(&self, stage: &Stage) -> String;
}
