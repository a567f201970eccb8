//! `farshore demo`: the main job in one command. A sample application writes; farshore ships what it writes; somebody deletes what
//! should have stayed; a DBA finds the moment and takes a copy of the database from just before it.
//!
//! What always holds: everything is real (the application, the service and each command are processes, and what is shown is what
//! they said); nothing is touched outside a new folder; what was started ends with the demo, and the folder goes, unless `--keep` says that
//! both stay.

pub mod stage;

use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use crate::cli::{DemoArgs, DemoEngine, Format};
use crate::commands::Context;
use crate::exit::Exit;
use crate::message::OperatorMessage;
use stage::{Shop, Stage};

/// How long anything of the demo may take.
const SOON: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// How long the shop takes orders before something goes wrong.
const BUSINESS: Duration = Duration::from_secs(4);
/// Transactions shown around the one that is looked for.
const AROUND: usize = 2;

/// What came of it, as `-o json` shows it.
#[derive(Debug, Serialize)]
struct Played {
    engine: &'static str,
    folder: String,
    kept: bool,
    orders_before: u64,
    orders_after_delete: u64,
    orders_restored: u64,
    restore_seconds: f64,
    seconds: f64,
}

/// Runs it.
///
/// # Errors
/// When a part of it does not do what it should: what it said is in the message.
pub async fn run(context: &mut Context, args: DemoArgs) -> anyhow::Result<Exit> {
    match args.engine {
        DemoEngine::Sqlite => {}
        DemoEngine::Postgres => return Err(OperatorMessage::not_built("demo --engine postgres").into()),
    }
    let cancel = context.cancel.clone();
    tokio::select! {
        () = cancel.cancelled() => Ok(Exit::Interrupted),
        played = Box::pin(play(context, args.keep)) => played,
    }
}

async fn play(context: &mut Context, keep: bool) -> anyhow::Result<Exit> {
    let begun = Instant::now();
    let mut stage = Stage::new(keep)?;
    let folder = stage.folder().display().to_string();
    let mut say = |text: &str| context.output.say(text);

    say(&format!(
        "1  A shop keeps its orders in a SQLite database, {folder}/shop.db, and takes 100 a second."
    ))?;
    let mut shop = Shop::open(&stage).await?;

    say(
        "\n2  It is to be shipped into a store, here a directory. `farshore init` writes such a farshore.toml:\n\n",
    )?;
    say(&indented(&stage.configure()?))?;
    say(
        "\n3  The service ships every transaction as it is committed, and takes a first base backup by itself.\n\n   $ farshore run &\n\n",
    )?;
    stage.start_service()?;
    stage.wait(SOON, "the first base backup", |status| status["backups"]["count"] != 0).await?;
    say(&shown("farshore status shop", &stage.run(&["status", "shop"]).await?))?;
    say(
        "   A standby follows the store: a copy that applications may read.\n\n   $ farshore standby run shop --to standby &\n\n",
    )?;
    stage.start_standby()?;
    tokio::time::sleep(BUSINESS).await;
    say(&format!("   {} seconds later:\n\n", BUSINESS.as_secs()))?;
    say(&shown("farshore status shop", &stage.run(&["status", "shop"]).await?))?;

    let status = ["standby", "status", "--to", "standby"];
    say(&shown(&format!("farshore {}", status.join(" ")), &stage.run(&status).await?))?;

    let before = shop.told("count").await?;
    say(&format!(
        "4  {}: the shop holds {} orders. Somebody forgets a condition:\n\n",
        before.at, before.orders
    ))?;
    say("   sqlite> delete from orders;\n\n")?;
    let after = shop.told("delete").await?;
    say(&format!(
        "   {}: the shop holds {} orders. Their lines went with them.\n\n",
        after.at, after.orders
    ))?;

    say(
        "5  The shop goes on taking orders. The standby has the mistake too; the journal has the way back. When did it happen? The\n   transactions around that time, by how much they changed:\n\n",
    )?;
    let wrong = find(&stage, &after.at).await?;
    stage.standby_has(SOON, 0..before.orders).await?;
    let command = format!("farshore points list shop --around {}", after.at);
    say(&shown(
        &command,
        &excerpt(&stage.run(&["points", "list", "shop", "--around", &after.at]).await?, wrong),
    ))?;
    say(&format!(
        "   Transaction {wrong} changed by far the most. What is wanted is the database as of {}.\n\n",
        wrong - 1
    ))?;

    say("6  First what a restore would do, then the restore: beside the shop, which goes on.\n\n")?;
    let xid = (wrong - 1).to_string();
    let asked = ["restore", "shop", "--xid", &xid, "--to", "before"];
    let command = format!("farshore {}", asked.join(" "));
    say(&shown(&format!("{command} --dry-run"), &stage.run(&[&asked[..], &["--dry-run"]].concat()).await?))?;
    let restoring = Instant::now();
    let restored = stage.run(&asked).await?;
    let restore_seconds = restoring.elapsed().as_secs_f64();
    say(&shown(&command, restored.lines().last().unwrap_or_default()))?;
    let (orders_restored, last) = stage.orders_in("before/shop.db", false).await?;
    let now = shop.told("count").await?;
    say(&format!(
        "   before/shop.db holds {orders_restored} orders, the last one placed at {last}; the shop itself now holds {}.\n   \
         The restore took {restore_seconds:.1} seconds.\n\n",
        now.orders
    ))?;

    say("7  And all that is stored is whole:\n\n")?;
    say(&shown("farshore verify shop", &stage.run(&["verify", "shop"]).await?))?;
    let seconds = begun.elapsed().as_secs_f64();
    shop.close().await?;
    if keep {
        say(&stage.leave()?)?;
    } else {
        stage.close().await;
        say(&format!(
            "Done in {seconds:.0} seconds. Nothing is left of it; `farshore demo --keep` leaves all of it running."
        ))?;
    }
    let played = Played {
        engine: "sqlite",
        folder,
        kept: keep,
        orders_before: before.orders,
        orders_after_delete: after.orders,
        orders_restored,
        restore_seconds,
        seconds,
    };
    if orders_restored < before.orders {
        anyhow::bail!("the copy holds {orders_restored} orders, and the shop held {}", before.orders);
    }
    if context.output.format() != Format::Table {
        context.output.one("farshore.demo/1", &played, "")?;
    }
    Ok(Exit::Done)
}

/// The transaction around this time that changed the most, once the journal holds what came behind it.
async fn find(stage: &Stage, at: &str) -> anyhow::Result<u64> {
    let deadline = Instant::now() + SOON;
    loop {
        let listed = stage.run(&["-o", "json", "points", "list", "shop", "--around", at]).await?;
        let listed: Value = serde_json::from_str(&listed)?;
        let commits = listed["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        let behind = commits.iter().any(|commit| commit["time"].as_str().is_some_and(|time| time > at));
        let largest = commits.iter().max_by_key(|commit| commit["changed_bytes"].as_u64());
        match largest.and_then(|commit| commit["xid"].as_u64()).filter(|_| behind) {
            Some(xid) => return Ok(xid),
            None if Instant::now() > deadline => {
                anyhow::bail!("the journal does not hold what was committed at {at}")
            }
            None => tokio::time::sleep(LOOK).await,
        }
    }
}

/// The lines of a list around a transaction.
fn excerpt(list: &str, xid: u64) -> String {
    let lines: Vec<&str> = list.lines().collect();
    let is_it = |line: &&&str| line.split_whitespace().any(|word| word.parse() == Ok(xid));
    let Some(at) = lines.iter().skip(1).find(is_it).and_then(|it| lines.iter().position(|line| line == it))
    else {
        return list.to_owned();
    };
    let from = at.saturating_sub(AROUND).max(1);
    let to = (at + AROUND + 1).min(lines.len());
    [&lines[..1], &lines[from..to]].concat().join("\n")
}

/// A command as a DBA would have typed it, and what it said.
fn shown(command: &str, said: &str) -> String {
    format!("   $ {command}\n{}\n", indented(said))
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("   {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_the_head_and_the_lines_around_the_one_that_is_looked_for() {
        let list = "TIME XID\na 10\nb 11\nc 12\nd 13\ne 14\nf 15\n";
        assert_eq!(excerpt(list, 13), "TIME XID\nb 11\nc 12\nd 13\ne 14\nf 15");
        assert_eq!(excerpt(list, 10), "TIME XID\na 10\nb 11\nc 12");
        assert_eq!(excerpt(list, 99), list);
    }
}
