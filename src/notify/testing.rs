//! A test of a channel: the same telling for `farshore notify test`, for the dashboard's button and for the REST API.

use std::sync::Arc;

use chrono::Utc;
use farshore_web::{Channel, Channels};
use reqwest::Client;

use crate::config::Config;
use crate::config::notify::{ChannelConfig, ChannelKind};
use crate::message::{Code, OperatorMessage, Safe};
use crate::notify::channel::{self, SCHEMA, Telling};
use crate::wiring;

/// What a test tells.
fn telling() -> Telling {
    let (at, node) = (Utc::now(), wiring::node());
    Telling {
        schema: SCHEMA,
        id: format!("{node}/test/{}", at.timestamp_micros()),
        at,
        database: None,
        topic: "test".to_owned(),
        word: "well",
        was: None,
        message: OperatorMessage::new(
            Code::NotifyTest,
            format!("somebody on {node} sends a test"),
            Safe::Known("nothing changed".to_owned()),
            "nothing need be done",
        ),
        node,
    }
}

/// Sends a test once.
///
/// # Errors
/// In words, when the channel did not take it, or not for everybody.
pub async fn send(client: &Client, settings: &ChannelConfig) -> Result<(), String> {
    match channel::send(client, settings, &[telling()]).await?.as_slice() {
        [] => Ok(()),
        refused => Err(format!("it was taken for others, and not for {}", refused.join("; "))),
    }
}

/// What the service's pages and its API may know of the configuration's channels. Where there is no client to speak to them, each says so when it is tested.
pub fn channels(config: &Arc<Config>) -> Channels {
    let known = config.notify.channels.iter();
    let known =
        known.map(|(name, settings)| Channel { name: name.clone(), kind: spelt(settings.kind()) }).collect();
    let (config, client) = (Arc::clone(config), channel::client());
    Channels::new(
        known,
        Arc::new(move |name| {
            let (config, client) = (Arc::clone(&config), client.clone());
            Box::pin(async move {
                let settings = config.notify.channels.get(&name);
                send(&client?, settings.ok_or("the configuration has no channel of this name")?).await
            })
        }),
    )
}

/// A channel's kind, as the configuration spells it.
fn spelt(kind: ChannelKind) -> String {
    format!("{kind:?}").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_called_what_the_configuration_calls_it() {
        for word in ["webhook", "slack", "mail"] {
            let kind: ChannelKind = serde_json::from_value(word.into()).unwrap();
            assert_eq!(spelt(kind), word);
        }
    }
}
