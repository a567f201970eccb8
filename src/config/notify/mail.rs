//! A channel that writes mails: the relay that takes them, and from whom to whom.
//!
//! What always holds: what leaves this machine is encrypted, and the relay proves who it is; a password never stands in the address.

use std::ops::Range;

use lettre::Address;
use lettre::message::Mailbox;
use toml::Spanned;
use url::Url;

use super::{SecretSource, is_local};
use crate::config::diagnose::ConfigProblem;
use crate::config::{Judge, address, document};

/// One mailing list reaches more people than that, and is kept up to date where people come and go.
const MOST_RECIPIENTS: usize = 10;

/// How the way to the relay is kept from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secured {
    /// TLS from the first byte: `smtps`, port 465 (RFC 8314, section 3.3).
    Wrapped,
    /// `STARTTLS`, and nothing without it: `smtp` to another machine, port 587 (RFC 6409, section 3.1).
    StartTls,
    /// Not at all: `smtp` on this machine, port 25.
    Local,
}

/// Who takes mails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay {
    /// Its name or address, as its certificate has it.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whom it knows us as; none when it asks nobody.
    pub user: Option<String>,
    /// How the way there is secured.
    pub secured: Secured,
}

/// A channel that writes mails.
#[derive(Clone)]
pub struct MailConfig {
    /// Who takes them.
    pub relay: Relay,
    /// The user's password.
    pub password: Option<SecretSource>,
    /// From whom.
    pub from: Mailbox,
    /// To whom: one at least.
    pub to: Vec<Mailbox>,
}

impl Relay {
    /// Reads `smtps://[USER@]HOST[:PORT]` or `smtp://...`.
    ///
    /// # Errors
    /// In words that do not hold the text.
    fn parse(text: &str) -> Result<Self, &'static str> {
        let url: Url = text.parse().map_err(|_| "not an address")?;
        if url.password().is_some() {
            return Err("a password in the address of a relay");
        }
        let secured = match url.scheme() {
            "smtps" => Secured::Wrapped,
            "smtp" if is_local(&url) => Secured::Local,
            "smtp" => Secured::StartTls,
            _ => return Err("neither smtps nor smtp"),
        };
        let is_bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or("an address without a host")?;
        if !is_bare {
            return Err("more than a user, a host and a port in the address of a relay");
        }
        let usual = match secured {
            Secured::Wrapped => 465,
            Secured::StartTls => 587,
            Secured::Local => 25,
        };
        let user = match url.username() {
            "" => None,
            user => Some(address::decode(user).ok_or("a user that is no text")?),
        };
        // A certificate has an IPv6 address without its brackets.
        let host = host.trim_matches(['[', ']']).to_owned();
        Ok(Self { host, port: url.port().unwrap_or(usual), user, secured })
    }
}

impl Judge<'_> {
    pub(super) fn mail(
        &mut self,
        name: &str,
        span: Range<usize>,
        channel: document::Channel,
    ) -> Result<MailConfig, ConfigProblem> {
        if channel.secret_file.is_some() || channel.url_file.is_some() {
            return Err(self
                .problem(span, "mails are not signed, and a relay's address is no secret")
                .hint("`url = \"smtps://USER@HOST\"` and `password_file`"));
        }
        let Some(url) = channel.url else {
            return Err(self
                .problem(span, format!("channel `{name}` has no `url`"))
                .hint("url = \"smtps://USER@HOST\""));
        };
        let relay = Relay::parse(url.get_ref()).map_err(|what| {
            let mut problem = self.problem(url.span(), what);
            problem.place.iter_mut().for_each(|place| place.text = None);
            problem
                .hint("smtps://USER@HOST[:465], or smtp://USER@HOST[:587] for STARTTLS; the password stands in the file that `password_file` names")
        })?;
        let key = format!("notify.{name}.password");
        let password = self.secret(&key, span.clone(), channel.password_file, None)?;
        if relay.user.is_none() != password.is_none() {
            return Err(self
                .problem(url.span(), "a user and a password go together")
                .hint("smtps://USER@HOST, and `password_file`"));
        }
        let (Some(from), Some(to)) = (channel.from, channel.to) else {
            return Err(self
                .problem(span, format!("channel `{name}` needs `from` and `to`"))
                .hint("from = \"farshore@example.com\", to = [\"dba@example.com\"]"));
        };
        if to.get_ref().is_empty() || to.get_ref().len() > MOST_RECIPIENTS {
            return Err(self
                .problem(to.span(), format!("`to` names nobody, or more than {MOST_RECIPIENTS}"))
                .hint("a mailing list reaches more"));
        }
        let from = self.mailbox(&from)?;
        let to = to.get_ref().iter().map(|one| self.mailbox(one)).collect::<Result<_, _>>()?;
        Ok(MailConfig { relay, password, from, to })
    }

    fn mailbox(&self, written: &Spanned<String>) -> Result<Mailbox, ConfigProblem> {
        let plain = |address: &Address| address.user().is_ascii() && address.domain().is_ascii();
        let parsed = written.get_ref().parse::<Mailbox>().ok().filter(|mailbox| plain(&mailbox.email));
        parsed.ok_or_else(|| {
            self.problem(written.span(), "not a mail address").hint("NAME@HOST, or \"Somebody <NAME@HOST>\"")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relay(host: &str, port: u16, user: Option<&str>, secured: Secured) -> Relay {
        Relay { host: host.to_owned(), port, user: user.map(str::to_owned), secured }
    }

    #[test]
    fn an_address_says_how_the_way_is_secured_and_only_this_machine_goes_without() {
        for (text, right) in [
            ("smtps://farshore@mail.example", relay("mail.example", 465, Some("farshore"), Secured::Wrapped)),
            ("smtp://a%40b@mail.example", relay("mail.example", 587, Some("a@b"), Secured::StartTls)),
            ("smtp://mail.example:25", relay("mail.example", 25, None, Secured::StartTls)),
            ("smtp://127.0.0.1:2525/", relay("127.0.0.1", 2525, None, Secured::Local)),
            ("smtp://localhost", relay("localhost", 25, None, Secured::Local)),
            ("smtp://[::1]", relay("::1", 25, None, Secured::Local)),
            ("smtp://127.0.0.1.example", relay("127.0.0.1.example", 587, None, Secured::StartTls)),
            ("smtps://[2001:db8::1]:25", relay("2001:db8::1", 25, None, Secured::Wrapped)),
        ] {
            assert_eq!(Relay::parse(text), Ok(right), "{text}");
        }
        for text in [
            "smtp://user:T0SECRET@mail.example",
            "smtps://mail.example/T0SECRET",
            "smtp://mail.example?tls=none",
            "https://mail.example",
            "mail.example",
            "smtps://",
        ] {
            let what = Relay::parse(text).unwrap_err();
            assert!(!what.contains("T0SECRET"), "{text}: {what}");
        }
    }
}
