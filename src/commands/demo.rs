//! `farshore demo`: the main job in one command. A sample application writes; farshore ships what it writes; somebody deletes what
//! should have stayed; a DBA finds the moment and takes a copy of the database from just before it.
//!
//! What always holds: everything is real (the application, the database's server where it has one, the service and each command are
//! processes, and what is shown is what they said); nothing is touched outside a new folder; what was started ends with the demo, however
//! that ends, and the folder goes, unless `--keep` says that both stay once all of it was played.

mod cast;
mod folder;
mod moment;
mod postgres;
mod process;
pub mod shop;
mod sqlite;
mod stage;
mod story;
mod unprivileged;

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::cli::{DemoArgs, DemoEngine, Format};
use crate::commands::Context;
use crate::exit::Exit;
use crate::message::{Code, OperatorMessage, Safe};
use cast::Cast;
use postgres::Postgres;
use shop::Shop;
use sqlite::Sqlite;
use stage::Stage;
use story::{Told, words};

/// How long anything of the demo may take.
const SOON: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);

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
/// When there is nothing to play it with, or a part of it does not do what it should: what it said is in the message.
pub async fn run(context: &mut Context, args: DemoArgs) -> anyhow::Result<Exit> {
    match args.engine {
        DemoEngine::Sqlite => Box::pin(play(context, &Sqlite, args.keep)).await,
        DemoEngine::Postgres => {
            let user = unprivileged::user()?;
            let cast = Postgres::find(args.bin_dir.as_deref()).await?;
            if let Some(user) = user {
                let text = "PostgreSQL does not run as root: all of this runs as the user";
                context.output.say(&format!("{text} {}.\n", user.name))?;
                return unprivileged::again_as(&user, &context.cancel).await;
            }
            Box::pin(play(context, &cast, args.keep)).await
        }
    }
}

/// Sets the stage, has the story told on it, and clears it.
async fn play<C: Cast>(context: &mut Context, cast: &C, keep: bool) -> anyhow::Result<Exit> {
    let begun = Instant::now();
    let mut stage = Stage::new().map_err(|why| failed(&why, "nothing was begun"))?;
    let folder = stage.folder().display().to_string();
    let cancel = context.cancel.clone();
    let mut say = |text: &str| Ok(context.output.say(text)?);
    let told = tokio::select! {
        () = cancel.cancelled() => None,
        told = Box::pin(story::tell(cast, &mut stage, &mut say)) => Some(told),
    };
    let seconds = begun.elapsed().as_secs_f64();
    let told = match told {
        Some(Ok((told, shop))) if keep => leave(cast, &mut stage, shop, &mut say).await.map(|()| Some(told)),
        Some(Ok((told, shop))) => shop.close().await.map(|()| Some(told)),
        Some(Err(why)) => Err(why),
        None => say("\nInterrupted: what was started is told to end, and the folder goes.").map(|()| None),
    };
    let is_left = keep && matches!(told, Ok(Some(_)));
    let cleared = if is_left { Ok(()) } else { stage.close().await };
    let whole = match cleared {
        Ok(()) => {
            "what was started has ended, and its folder is gone; nothing outside of it was touched".to_owned()
        }
        Err(why) => format!("what was started has ended, but {why}; nothing outside of it was touched"),
    };
    let Some(told) = told.map_err(|why| failed(&why, &whole))? else { return Ok(Exit::Interrupted) };
    if !is_left {
        say(&format!(
            "Done in {seconds:.0} seconds. Nothing is left of it; `farshore demo{} --keep` leaves all of it running.",
            C::OPTION
        ))?;
    }
    if context.output.format() != Format::Table {
        context.output.one("farshore.demo/1", &Played::of::<C>(told, folder, keep, seconds), "")?;
    }
    Ok(Exit::Done)
}

/// Leaves all of it running, with a shop that nobody tells anything.
async fn leave<C: Cast>(
    cast: &C,
    stage: &mut Stage,
    shop: Shop,
    say: &mut impl FnMut(&str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    shop.close().await?;
    let shop = Shop::alone(stage, &words(&cast.place(stage)))?;
    let look = cast.look(stage);
    let end = stage.leave(shop)?;
    say(&format!("All of it goes on: {look}\n{end}"))
}

fn failed(why: &anyhow::Error, safe: &str) -> OperatorMessage {
    OperatorMessage::new(
        Code::DemoFailed,
        format!("the demo was not played to its end: {why:#}"),
        Safe::Known(safe.to_owned()),
        "mend what it says and run it again; if it says nothing that can be mended, report it",
    )
}

impl Played {
    fn of<C: Cast>(told: Told, folder: String, kept: bool, seconds: f64) -> Self {
        Self {
            engine: C::ENGINE,
            folder,
            kept,
            orders_before: told.orders_before,
            orders_after_delete: told.orders_after_delete,
            orders_restored: told.orders_restored,
            restore_seconds: told.restore_seconds,
            seconds,
        }
    }
}
