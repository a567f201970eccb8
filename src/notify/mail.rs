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

use super::channel::{Telling, counted, in_words};
use crate::config::notify::mail::{MailConfig, Relay, Secured};
use crate::message::with_causes;

/// How long a try may take, from the connection to the relay's last word.
const PATIENCE: Duration = Duration::from_secs(25);

/// How long each address of a relay may take to be reached.
const CONNECT: Duration = Duration::from_secs(8);

/// Tells all of it once, in one mail, and says for whom it was not taken.
///
/// # Errors
/// In words, when the relay did not take it for anybody.
pub async fn send(settings: &MailConfig, tellings: &[Telling]) -> Result<Vec<String>, String> {
    let mail = written(settings, tellings)?;
    match tokio::time::timeout(PATIENCE, hand_over(settings, &mail)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// The mail, as it is sent.
fn written(settings: &MailConfig, tellings: &[Telling]) -> Result<Vec<u8>, String> {
    let automatic = HeaderName::new_from_ascii_str("Auto-Submitted");
    let at = tellings.iter().map(|telling| telling.at).max().unwrap_or_default();
    let mut mail = Message::builder()
        .from(settings.from.clone())
        .date(SystemTime::from(at))
        .raw_header(HeaderValue::new(automatic, "auto-generated".to_owned()))
        .header(ContentType::TEXT_PLAIN);
    mail = match tellings {
        [telling] => {
            let about = telling.database.as_deref().unwrap_or("farshore");
            mail.message_id(Some(message_id(settings, &telling.id)))
                // What is told of one thing stands together, also where a mail of it was lost.
                .references(message_id(settings, &format!("{about}/{}", telling.topic)))
                .subject(format!("[farshore] {about}: {}", telling.word))
        }
        // What is told of many stands by itself: it belongs to no one thing's.
        tellings => mail
            .message_id(Some(message_id(settings, &id_of_all(tellings))))
            .subject(format!("[farshore] {}", counted(tellings))),
    };
    for to in &settings.to {
        mail = mail.to(to.clone());
    }
    let mail = mail.body(in_words(tellings)).map_err(|why| why.to_string())?;
    Ok(mail.formatted())
}

/// The same for the same ones.
fn id_of_all(tellings: &[Telling]) -> String {
    let ids: Vec<&str> = tellings.iter().map(|telling| telling.id.as_str()).collect();
    let digest = ring::digest::digest(&ring::digest::SHA256, ids.join("\n").as_bytes());
    let hex: String = digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("notices/{hex}")
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::channel::tests::telling;

    #[test]
    fn a_mail_of_several_says_how_many_stand_how_and_the_same_several_are_the_same_mail() {
        let settings = MailConfig {
            relay: Relay { host: "localhost".to_owned(), port: 25, secured: Secured::Local, user: None },
            password: None,
            from: "far@db2.example".parse().unwrap(),
            to: vec!["dba@example.com".parse().unwrap()],
        };
        let all = [telling("orders", "unknown"), telling("billing", "unknown"), telling("shop", "well")];
        let text = |tellings: &[Telling]| String::from_utf8(written(&settings, tellings).unwrap()).unwrap();
        let header =
            |text: &str, name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        let mail = text(&all);
        assert_eq!(header(&mail, "Subject: ").unwrap(), "[farshore] 2 unknown, 1 well");
        assert!(mail.contains("billing is unknown") && mail.contains("shop is well"), "{mail}");
        assert_eq!(header(&mail, "Message-ID: "), header(&text(&all), "Message-ID: "));
        assert_ne!(header(&mail, "Message-ID: "), header(&text(&all[..2]), "Message-ID: "));
        assert_eq!((header(&mail, "References: "), mail.contains("Auto-Submitted")), (None, true));
        assert_eq!(header(&text(&all[..1]), "Subject: ").unwrap(), "[farshore] orders: unknown");
    }
}
