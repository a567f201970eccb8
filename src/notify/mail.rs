//! A channel of mails, over SMTP.
//!
//! What always holds: no password and no mail leaves before the way is encrypted, unless the relay is on this machine; a try has a deadline as a whole. A mail is one for all
//! recipients. It is taken when the relay took it for one of them at least: a mailbox that is gone, or full for weeks, neither keeps the others
//! from hearing of it, nor makes them hear the same each quarter of an hour. Who was refused is said.

use std::time::{Duration, SystemTime};

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::ClientId;
use lettre::{Message, transport::smtp::Error};

use super::channel::{Telling, in_words};
use crate::config::notify::mail::{MailConfig, Relay, Secured};
use crate::message::with_causes;

/// How long a try may take, from the connection to the relay's last word.
const PATIENCE: Duration = Duration::from_secs(25);

/// How long each address of a relay may take to be reached.
const CONNECT: Duration = Duration::from_secs(8);

/// Tells it once, and says for whom it was not taken.
///
/// # Errors
/// In words, when the relay did not take it for anybody.
pub async fn send(settings: &MailConfig, telling: &Telling) -> Result<Vec<String>, String> {
    let mail = written(settings, telling)?;
    match tokio::time::timeout(PATIENCE, hand_over(settings, &mail)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// The mail, as it is sent.
fn written(settings: &MailConfig, telling: &Telling) -> Result<Vec<u8>, String> {
    let about = telling.database.as_deref().unwrap_or("farshore");
    let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
    let mut mail = Message::builder()
        .from(settings.from.clone())
        .date(SystemTime::from(telling.at))
        .message_id(Some(message_id(settings, &telling.id)))
        // What is told of one thing stands together, also where a mail of it was lost.
        .references(message_id(settings, &format!("{about}/{}", telling.topic)))
        .raw_header(HeaderValue::new(automatic, "auto-generated".to_owned()))
        .subject(format!("[farshore] {about}: {}", telling.word))
        .header(ContentType::TEXT_PLAIN);
    for to in &settings.to {
        mail = mail.to(to.clone());
    }
    let mail = mail.body(in_words(telling)).map_err(|why| why.to_string())?;
    Ok(mail.formatted())
}

/// The same for the same, so that a mailbox may drop what it has.
fn message_id(settings: &MailConfig, id: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '.' };
    let id: String = id.chars().map(plain).collect();
    format!("<{id}@{}>", settings.from.email.domain())
}

/// Whom the relay refused.
async fn hand_over(settings: &MailConfig, mail: &[u8]) -> Result<Vec<String>, String> {
    let mut relay = connected(&settings.relay).await?;
    if let Some(user) = &settings.relay.user {
        let password = match &settings.password {
            Some(password) => password.read().map_err(|why| with_causes(&why))?.expose().to_owned(),
            None => return Err("it has a user and no password".to_owned()),
        };
        let login = relay.auth(DEFAULT_MECHANISMS, &Credentials::new(user.clone(), password)).await;
        login.map_err(|why| format!("it did not take the user and the password: {}", answered(&why)))?;
    }
    let from = Mail::new(Some(settings.from.email.clone()), Vec::new());
    relay.command(from).await.map_err(|why| format!("from {}: {}", settings.from.email, answered(&why)))?;
    let mut refused = Vec::new();
    for to in &settings.to {
        match relay.command(Rcpt::new(to.email.clone(), Vec::new())).await {
            Ok(_) => {}
            Err(why) if why.is_permanent() || why.is_transient() => {
                refused.push(format!("{}: {}", to.email, answered(&why)));
            }
            Err(why) => return Err(answered(&why)),
        }
    }
    if refused.len() == settings.to.len() {
        return Err(refused.join("; "));
    }
    relay.command(Data).await.map_err(|why| answered(&why))?;
    relay.message(mail).await.map_err(|why| answered(&why))?;
    // It has the mail: nobody waits for what it says to our leaving.
    Ok(refused)
}

async fn connected(relay: &Relay) -> Result<AsyncSmtpConnection, String> {
    let tls = || TlsParameters::new(relay.host.clone()).map_err(|why| with_causes(&why));
    let wrapped = match relay.secured {
        Secured::Wrapped => Some(tls()?),
        Secured::StartTls | Secured::Local => None,
    };
    let us = ClientId::Domain(crate::wiring::node());
    let address = (relay.host.as_str(), relay.port);
    let begun = AsyncSmtpConnection::connect_tokio1(address, Some(CONNECT), &us, wrapped, None).await;
    let mut begun = begun.map_err(|why| answered(&why))?;
    if relay.secured == Secured::StartTls {
        if !begun.can_starttls() {
            return Err("it does not offer STARTTLS, and nothing is sent in the clear".to_owned());
        }
        begun.starttls(tls()?, &us).await.map_err(|why| answered(&why))?;
    }
    Ok(begun)
}

/// What a relay said, or why it was not heard.
fn answered(why: &Error) -> String {
    why.to_string()
}
