//! The demo with SQLite: nothing need be installed.

use std::ops::Range;
use std::time::Instant;

use farshore_engines::sqlite::sample;

use super::cast::{Cast, Opened};
use super::moment::Moment;
use super::process::Ending;
use super::stage::Stage;
use super::story::shown;
use super::{LOOK, SOON};

const FILE: &str = "shop.db";
const STANDBY: &str = "standby/shop.db";
const STATUS: [&str; 4] = ["standby", "status", "--to", "standby"];

/// It.
pub(super) struct Sqlite;

impl Cast for Sqlite {
    const ENGINE: &'static str = "sqlite";
    const OPTION: &'static str = "";
    const PROMPT: &'static str = "sqlite>";
    const WAY_BACK: &'static str = "The standby has the mistake too; the journal has the way back.";
    const SHOWN_BY: &'static str = "by how much they changed";
    const RESTORE: &'static [&'static str] = &[];
    const CAME_OF_IT: usize = 1;
    const COPY: &'static str = "before/shop.db";

    async fn open(&self, stage: &mut Stage) -> anyhow::Result<Opened> {
        let path = stage.folder().join(FILE);
        let what = format!("a SQLite database, {}", path.display());
        tokio::task::spawn_blocking(move || sample::make(&path)).await??;
        Ok(Opened { what, typed: String::new() })
    }

    fn place(&self, _: &Stage) -> Vec<String> {
        vec![Self::ENGINE.to_owned(), FILE.to_owned()]
    }

    fn init(&self, _: &Stage) -> Vec<String> {
        ["--path", FILE].map(str::to_owned).to_vec()
    }

    /// The shop made its database as it has to be.
    async fn apply(&self, _: &Stage, _: &[String]) -> anyhow::Result<String> {
        Ok(String::new())
    }

    fn follow(&self, stage: &mut Stage) -> anyhow::Result<String> {
        let run = ["standby", "run", "shop", "--to", "standby"];
        stage.start(None, &run, "standby.log", Ending::SERVICE)?;
        let text = "A standby follows the store: a copy that applications may read.";
        Ok(format!("   {text}\n\n   $ farshore {} &\n\n", run.join(" ")))
    }

    async fn followed(&self, stage: &Stage) -> anyhow::Result<String> {
        Ok(shown(&format!("farshore {}", STATUS.join(" ")), &stage.run(&STATUS).await?))
    }

    async fn standby_has(&self, stage: &Stage, orders: Range<u64>) -> anyhow::Result<()> {
        let deadline = Instant::now() + SOON;
        loop {
            // While it is being made there is no copy.
            match orders_in(stage, STANDBY, true).await {
                Ok((found, _)) if orders.contains(&found) => return Ok(()),
                found if Instant::now() > deadline => anyhow::bail!("the standby did not follow: {found:?}"),
                _ => tokio::time::sleep(LOOK).await,
            }
        }
    }

    fn found(moment: &Moment) -> String {
        format!("Transaction {} changed by far the most", moment.wrong)
    }

    async fn orders_in_copy(&self, stage: &Stage) -> anyhow::Result<(u64, String)> {
        orders_in(stage, Self::COPY, false).await
    }

    fn look(&self, stage: &Stage) -> String {
        format!("`cd {}` and type any of these commands.", stage.folder().display())
    }
}

async fn orders_in(stage: &Stage, copy: &str, is_written: bool) -> anyhow::Result<(u64, String)> {
    let copy = stage.folder().join(copy);
    Ok(tokio::task::spawn_blocking(move || sample::orders_in(&copy, is_written)).await??)
}
