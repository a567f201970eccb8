//! One way to tell somebody: a signed webhook, Slack's incoming webhook, or a mail ([`super::mail`]).
//!
//! What always holds: every wait has a deadline; a redirect is not followed, so that nothing is sent to where nobody configured; the address, its query
//! and the key are in no message of ours. One message tells all that it is given. A webhook's receiver proves that we sent it, and when: the header
//! `Farshore-Signature: v1=<hex>` is HMAC-SHA256 over `<timestamp>.<body>`, with the header `Farshore-Timestamp` in seconds since 1970.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use reqwest::{Client, Url, redirect};
use ring::hmac;
use serde::Serialize;

use super::mail;
use super::transition::Word;
use crate::config::notify::{ChannelConfig, is_acceptable};
use crate::config::secret::SecretSource;
use crate::message::{OperatorMessage, Safe};

/// How long the other side may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is told.
#[derive(Debug, Clone, Serialize)]
pub struct Telling {
    /// The shape's name.
    pub schema: &'static str,
    /// The same for each try to tell the same, so that a receiver can drop what it has.
    pub id: String,
    /// When it was seen.
    pub at: DateTime<Utc>,
    /// Of which database; null where it is of none.
    pub database: Option<String>,
    /// Of what: `state`, a kind of work, `catalog` or `test`.
    pub topic: String,
    /// How it stands.
    pub word: &'static str,
    /// How it stood when it was last told; null when it never was.
    pub was: Option<String>,
    /// Which service tells.
    pub node: String,
    /// In words.
    pub message: OperatorMessage,
}

/// The name of [`Telling`]'s shape.
pub const SCHEMA: &str = "farshore.notice/1";

/// Several that are told at once, as a webhook gets them.
#[derive(Debug, Serialize)]
struct Together<'a> {
    schema: &'static str,
    node: &'a str,
    /// Each as it would be by itself.
    notices: &'a [Telling],
}

/// The name of [`Together`]'s shape.
const SCHEMA_TOGETHER: &str = "farshore.notices/1";

/// How long a text for Slack becomes by what is added to it, in bytes: Slack cuts one behind 40 000 characters, and says that it took it all. The first one goes in any case, and is no longer than
/// three times [`CLIPPED`] characters of five bytes, with what stands around them.
const SLACK_TEXT: usize = 30_000;
/// How much of what happened, and of each of the other parts of a message, a text for Slack holds, in characters: causes may be of any length.
const CLIPPED: usize = 2000;

/// How much a message tells at most.
pub fn most(channel: &ChannelConfig) -> usize {
    match channel {
        ChannelConfig::Webhook { .. } | ChannelConfig::Mail(_) => 100,
        ChannelConfig::Slack { .. } => 30,
    }
}

/// How many of these, from the first, one message holds in full: one at the least.
pub fn fitting<'a>(channel: &ChannelConfig, tellings: impl IntoIterator<Item = &'a Telling>) -> usize {
    let ChannelConfig::Slack { .. } = channel else { return tellings.into_iter().count() };
    let mut length = 0_usize;
    let fits = |telling: &&Telling| {
        let is_first = length == 0;
        length = length.saturating_add(for_slack(std::slice::from_ref(telling)).len());
        is_first || length <= SLACK_TEXT
    };
    tellings.into_iter().take_while(fits).count()
}

/// A client for all channels.
///
/// # Errors
/// When TLS cannot be set up.
pub fn client() -> Result<Client, String> {
    let builder = Client::builder().timeout(PATIENCE).redirect(redirect::Policy::none());
    builder.user_agent(concat!("farshore/", env!("CARGO_PKG_VERSION"))).build().map_err(plain)
}

/// What a failure is, without the address: that may hold a secret.
fn plain(why: reqwest::Error) -> String {
    let why = why.without_url();
    crate::message::with_causes(&why)
}

/// An address out of a secret.
///
/// # Errors
/// In words that do not hold it.
pub fn address(text: &str) -> Result<Url, String> {
    let url: Url = text.parse().map_err(|_| "its address is no URL".to_owned())?;
    match is_acceptable(&url) {
        true => Ok(url),
        false => Err("its address is neither https nor on this machine".to_owned()),
    }
}

/// The pauses between the tries of one delivery: all end before the channel is told the same again. A relay of mails that said no, or nothing for long,
/// says the same a second later.
pub fn pauses(channel: &ChannelConfig) -> impl Iterator<Item = Duration> + use<> {
    let seconds: &[u64] = match channel {
        ChannelConfig::Webhook { .. } | ChannelConfig::Slack { .. } => &[1, 5],
        ChannelConfig::Mail(_) => &[],
    };
    seconds.iter().map(|seconds| Duration::from_secs(*seconds))
}

/// Tells all of it once, in one message, and says who of a mail's recipients was refused for good.
///
/// # Errors
/// In words, when the channel did not take it.
pub async fn send(
    client: &Client,
    channel: &ChannelConfig,
    tellings: &[Telling],
) -> Result<Vec<String>, String> {
    match channel {
        ChannelConfig::Webhook { url, secret } => {
            let body = match tellings {
                [telling] => serde_json::to_string(telling),
                notices => {
                    let node = notices.first().map_or("", |telling| &telling.node);
                    serde_json::to_string(&Together { schema: SCHEMA_TOGETHER, node, notices })
                }
            };
            let body = body.map_err(|why| why.to_string())?;
            let secret = secret.read().map_err(|why| why.to_string())?;
            let now = Utc::now().timestamp();
            let signature = signature(secret.expose().as_bytes(), now, &body);
            let headers = [("farshore-timestamp", now.to_string()), ("farshore-signature", signature)];
            post(client, url, &headers, body).await?;
        }
        ChannelConfig::Slack { url } => {
            let text = for_slack(tellings);
            post(client, url, &[], serde_json::json!({ "text": text }).to_string()).await?;
        }
        ChannelConfig::Mail(settings) => return mail::send(settings, tellings).await,
    }
    Ok(Vec::new())
}

async fn post(
    client: &Client,
    url: &SecretSource,
    headers: &[(&'static str, String)],
    body: String,
) -> Result<(), String> {
    let url = url.read().map_err(|why| why.to_string())?;
    let url = address(url.expose())?;
    let mut request = client.post(url).header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let answer = request.body(body).send().await.map_err(plain)?;
    match answer.status() {
        status if status.is_success() => Ok(()),
        status => Err(format!("it answered {status}")),
    }
}

/// What `Farshore-Signature` holds.
pub fn signature(secret: &[u8], timestamp: i64, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let tag = hmac::sign(&key, format!("{timestamp}.{body}").as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("v1={hex}")
}

/// What a person reads.
pub fn in_words(tellings: &[Telling]) -> String {
    let each: Vec<String> = tellings.iter().map(one_in_words).collect();
    match each.as_slice() {
        [one] => one.clone(),
        each => format!("{}\n\n{}", counted(tellings), each.join("\n\n")),
    }
}

fn one_in_words(telling: &Telling) -> String {
    let about = telling.database.as_deref().unwrap_or("farshore");
    let at = telling.at.to_rfc3339_opts(SecondsFormat::Secs, true);
    format!("{about}: {}\n{}\nSeen at {at} by {}", telling.word, telling.message, telling.node)
}

/// How many there are of each word, the worst first.
pub fn counted(tellings: &[Telling]) -> String {
    let of = |word: Word| tellings.iter().filter(|telling| Word::from_text(telling.word) == word).count();
    let counts =
        Word::ALL.into_iter().rev().map(|word| (of(word), word.text())).filter(|(count, _)| *count > 0);
    counts.map(|(count, word)| format!("{count} {word}")).collect::<Vec<_>>().join(", ")
}

/// What Slack shows: no part of a message is so long that nothing else has room.
fn for_slack(tellings: &[Telling]) -> String {
    let mut tellings = tellings.to_vec();
    for OperatorMessage { happened, safe, next, .. } in tellings.iter_mut().map(|one| &mut one.message) {
        let (Safe::Known(safe) | Safe::Unknown(safe)) = safe;
        for part in [happened, safe, next] {
            *part = clipped(part);
        }
    }
    escaped(&in_words(&tellings))
}

/// The beginning of a text, which says where it is cut.
fn clipped(text: &str) -> String {
    match text.chars().nth(CLIPPED) {
        None => text.to_owned(),
        Some(_) => text.chars().take(CLIPPED).chain(" ... (cut here)".chars()).collect(),
    }
}

/// Without Slack's control characters. Names are ours and hold none, causes may.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::message::Code;

    /// That a database stands so.
    pub fn telling(database: &str, word: &'static str) -> Telling {
        let at = DateTime::from_timestamp(1_790_000_000, 0).unwrap();
        Telling {
            schema: SCHEMA,
            id: format!("{database}/state/{}", at.timestamp_micros()),
            at,
            database: Some(database.to_owned()),
            topic: "state".to_owned(),
            word,
            was: None,
            node: "db2".to_owned(),
            message: OperatorMessage::new(
                Code::NotifyTest,
                format!("{database} is {word}"),
                Safe::Known("all".to_owned()),
                "nothing",
            ),
        }
    }

    #[test]
    fn several_are_told_in_one_text_that_begins_with_how_many_stand_how() {
        let tellings =
            [telling("a", "well"), telling("b", "failed"), telling("c", "unknown"), telling("d", "failed")];
        let text = in_words(&tellings);
        assert!(text.starts_with("1 unknown, 2 failed, 1 well\n\na: well\n"), "{text}");
        for telling in &tellings {
            assert!(text.contains(&in_words(std::slice::from_ref(telling))), "{text}");
        }
        assert!(in_words(&tellings[..1]).starts_with("a: well\n"));
    }

    #[test]
    fn slack_is_handed_no_more_than_it_shows_and_one_at_the_least() {
        let slack = ChannelConfig::Slack { url: SecretSource::File("slack.url".into()) };
        let with = |cause: String| {
            let mut telling = telling("orders", "failed");
            telling.message.happened = cause;
            telling
        };
        let short: Vec<Telling> = (0..30).map(|_| with("x".repeat(500))).collect();
        assert_eq!(fitting(&slack, &short), 30);
        // A cause of two thousand characters, of which Slack is sent five for each.
        let long: Vec<Telling> = (0..30).map(|_| with("&".repeat(2000))).collect();
        let fits = fitting(&slack, &long);
        assert!((1..30).contains(&fits), "{fits}");
        assert!(for_slack(&long[..fits]).len() < 40_000);
        assert_eq!(fitting(&slack, std::iter::empty()), 0);
        // However much there is of one, it is sent, begins as it does, and says that it is cut.
        let mut most = with("&".repeat(1 << 20));
        most.message.next = "<".repeat(1 << 20);
        most.message.safe = Safe::Unknown(">".repeat(1 << 20));
        assert_eq!(fitting(&slack, [&most, &most]), 1);
        let text = for_slack(&[most]);
        assert!(text.len() < 40_000 && text.contains("(cut here)"), "{}", text.len());
    }

    #[test]
    fn a_signature_is_hmac_sha256_over_timestamp_and_body() {
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac key
        assert_eq!(
            signature(b"key", 1_700_000_000, "{\"a\":1}"),
            "v1=a438e398bfafc57e4396bb7fc2304422f0f768e965d073ca313cb52e22e6ad03"
        );
    }

    #[test]
    fn nothing_is_sent_in_the_clear_to_another_machine() {
        for good in
            ["https://hooks.example/x", "http://127.0.0.1:8080/x", "http://localhost/x", "http://[::1]:1/"]
        {
            assert!(address(good).is_ok(), "{good}");
        }
        for bad in ["http://hooks.example/secret", "ftp://127.0.0.1/", "no url", "http://127.0.0.1.example/"]
        {
            let why = address(bad).unwrap_err();
            assert!(!why.contains("secret"), "{why}");
        }
    }
}
