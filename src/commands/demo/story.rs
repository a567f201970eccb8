//! The story, told once for every engine: a shop writes, its database is shipped, everything is deleted by mistake, the moment is found,
//! and the database is taken back to just before it, beside the one that goes on.
//!
//! What always holds: what stands behind a `$` was run as it stands there but for the form of its answer, and what stands below it was
//! its answer, or lines of it.

use std::time::{Duration, Instant};

use super::cast::Cast;
use super::moment::{excerpt, find};
use super::process::Ending;
use super::shop::Shop;
use super::stage::Stage;

/// How long the shop takes orders before something goes wrong.
const BUSINESS: Duration = Duration::from_secs(4);

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    pub orders_before: u64,
    pub orders_after_delete: u64,
    pub orders_restored: u64,
    pub restore_seconds: f64,
}

/// Tells it; the shop is open still.
///
/// # Errors
/// When a part of it does not do what it should: what it said is in the message.
pub(super) async fn tell<C: Cast>(
    cast: &C,
    stage: &mut Stage,
    say: &mut impl FnMut(&str) -> anyhow::Result<()>,
) -> anyhow::Result<(Told, Shop)> {
    let opened = cast.open(stage).await?;
    say(&format!("1  A shop keeps its orders in {}, and takes up to 100 a second.", opened.what))?;
    if !opened.typed.is_empty() {
        say(&opened.typed)?;
    }
    let place = cast.place(stage);
    let mut shop = Shop::open(stage, &words(&place))?;
    set_up(cast, stage, say).await?;
    ship(cast, stage, say).await?;

    let before = shop.told(stage, "count").await?;
    say(&format!(
        "4  {}: the shop holds {} orders. Somebody forgets a condition:\n\n   {} delete from orders;\n\n",
        before.at,
        before.orders,
        C::PROMPT
    ))?;
    let after = shop.told(stage, "delete").await?;
    say(&format!(
        "   {}: the shop holds {} orders. Their lines went with them.\n\n",
        after.at, after.orders
    ))?;

    cast.standby_has(stage, 0..before.orders).await?;
    say(&format!(
        "5  The shop goes on taking orders. {} When did it happen?\n   The transactions around that time, {}:\n\n",
        C::WAY_BACK,
        C::SHOWN_BY
    ))?;
    let moment = find(stage, &after.at).await?;
    let asked = ["points", "list", "shop", "--around", &after.at];
    say(&shown(&typed(&asked), &excerpt(&stage.run(&asked).await?, moment.wrong)))?;
    let found = C::found(&moment);
    say(&format!("   {found}. What is wanted is the database as of {}.\n\n", moment.before))?;

    say("6  First what a restore would do, then the restore: beside the shop, which goes on.\n\n")?;
    let xid = moment.before.to_string();
    let asked = [&["restore", "shop", "--xid", &xid, "--to", "before"], C::RESTORE].concat();
    let dry = [&asked[..], &["--dry-run"]].concat();
    say(&shown(&typed(&dry), &stage.run(&dry).await?))?;
    let restoring = Instant::now();
    let restored = stage.run(&asked).await?;
    let restore_seconds = restoring.elapsed().as_secs_f64();
    let lines: Vec<&str> = restored.lines().collect();
    let came_of_it = &lines[lines.len().saturating_sub(C::CAME_OF_IT)..];
    say(&shown(&typed(&asked), &came_of_it.join("\n")))?;
    let (orders_restored, last) = cast.orders_in_copy(stage).await?;
    let now = shop.told(stage, "count").await?;
    say(&format!(
        "   {} holds {orders_restored} orders, the last one placed at {last}; the shop itself now holds {}.\n   \
         The restore took {restore_seconds:.1} seconds.\n\n",
        C::COPY,
        now.orders
    ))?;
    if orders_restored < before.orders {
        anyhow::bail!("the copy holds {orders_restored} orders, and the shop held {}", before.orders);
    }

    say("7  And all that is stored is whole:\n\n")?;
    say(&shown("farshore verify shop", &stage.run(&["verify", "shop"]).await?))?;
    let told = Told {
        orders_before: before.orders,
        orders_after_delete: after.orders,
        orders_restored,
        restore_seconds,
    };
    Ok((told, shop))
}

/// The configuration, and what must be done at the database.
async fn set_up<C: Cast>(
    cast: &C,
    stage: &Stage,
    say: &mut impl FnMut(&str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    say("\n2  It is to be shipped into a store, here a directory.\n\n")?;
    let place = cast.init(stage);
    let asked =
        [&["init", "--name", "shop"], &words(&place)[..], &["--store", "file:store", "--no-input"]].concat();
    let (guidance, configuration) = stage.init(&asked, cast.configuration()).await?;
    say(&format!(
        "   $ {}\n\n   farshore.toml, without its comments and at a port that is free:\n\n",
        typed(&asked)
    ))?;
    say(&indented(&configuration))?;
    let statements: Vec<String> = serde_json::from_value(guidance["sql"].clone())?;
    let applied = cast.apply(stage, &statements).await?;
    say(&format!("\n{applied}"))
}

/// The service, and the standby where there is one.
async fn ship<C: Cast>(
    cast: &C,
    stage: &mut Stage,
    say: &mut impl FnMut(&str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    say(
        "3  The service ships every transaction as it is committed, and takes a first base backup by itself.\n\n   $ farshore -v run &\n\n",
    )?;
    stage.start(None, &["-v", "run"], "run.log", Ending::SERVICE)?;
    stage.wait("the first base backup", |status| status["backups"]["count"] != 0).await?;
    let status = ["status", "shop"];
    say(&shown(&typed(&status), &stage.run(&status).await?))?;
    let follows = cast.follow(stage)?;
    if !follows.is_empty() {
        say(&follows)?;
    }
    // The time is what is shown: orders come in meanwhile.
    tokio::time::sleep(BUSINESS).await;
    say(&format!("   {} seconds later:\n\n", BUSINESS.as_secs()))?;
    say(&shown(&typed(&status), &stage.run(&status).await?))?;
    let followed = cast.followed(stage).await?;
    if !followed.is_empty() {
        say(&followed)?;
    }
    Ok(())
}

/// A command of farshore's as a DBA types it.
fn typed(arguments: &[&str]) -> String {
    format!("farshore {}", arguments.join(" "))
}

/// A command as a DBA types it, and what it said.
pub(super) fn shown(command: &str, said: &str) -> String {
    format!("   $ {command}\n{}\n", indented(said))
}

pub(super) fn indented(text: &str) -> String {
    text.lines().map(|line| format!("   {line}\n")).collect()
}

pub(super) fn words(all: &[String]) -> Vec<&str> {
    all.iter().map(String::as_str).collect()
}
