//! `farshore notify test`: whether a channel takes what would be told.

use serde::Serialize;

use crate::cli::notify::NotifyCommand;
use crate::cli::zone::Zone;
use crate::commands::Context;
use crate::exit::Exit;
use crate::message::{Code, OperatorMessage, Safe};
use crate::notify::{channel, testing};
use crate::output::Row;

/// A channel, as `-o json` shows it.
#[derive(Debug, Serialize)]
struct Shown {
    channel: String,
    taken: bool,
    problem: Option<String>,
}

impl Row for Shown {
    const HEADER: &'static [&'static str] = &["CHANNEL", "TAKEN", "PROBLEM"];

    fn cells(&self, _: Zone) -> Vec<String> {
        let taken = if self.taken { "yes" } else { "no" };
        vec![self.channel.clone(), taken.to_owned(), self.problem.clone().unwrap_or_else(|| "-".to_owned())]
    }
}

/// Runs it. Ends with 6 when a channel took nothing.
///
/// # Errors
/// When there is no such channel.
pub async fn run(context: &mut Context, command: NotifyCommand) -> anyhow::Result<Exit> {
    let NotifyCommand::Test { channel } = command;
    let config = context.config()?;
    let named = |name: &String| channel.as_ref().is_none_or(|channel| channel == name);
    let channels: Vec<_> = config.notify.channels.iter().filter(|(name, _)| named(name)).collect();
    if channels.is_empty() {
        let known: Vec<&str> = config.notify.channels.keys().map(String::as_str).collect();
        let next = match known.is_empty() {
            true => "add a [notify.NAME] table".to_owned(),
            false => format!("name one of: {}", known.join(", ")),
        };
        let happened = match &channel {
            Some(channel) => format!("no channel is named {channel} in {}", config.path.display()),
            None => format!("{} names no channel of notification", config.path.display()),
        };
        let safe = Safe::Known("nothing was sent".to_owned());
        return Err(OperatorMessage::new(Code::ChannelUnknown, happened, safe, next).into());
    }
    let client = channel::client().map_err(anyhow::Error::msg)?;
    let mut shown = Vec::new();
    for (name, settings) in channels {
        let taken = testing::send(&client, settings).await;
        shown.push(Shown { channel: name.clone(), taken: taken.is_ok(), problem: taken.err() });
    }
    context.output.list("farshore.notify-test/1", &shown)?;
    Ok(if shown.iter().all(|shown| shown.taken) { Exit::Done } else { Exit::Unreachable })
}
