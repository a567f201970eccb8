//! Whom to tell: `[notify.NAME]`, a table for each channel, and `heartbeat_url` of a database.
//!
//! What always holds: what leaves this machine is encrypted; what is secret (a key, an address that is one) comes from a file or the environment, and an
//! address that stands in the configuration is not shown in a message about it.

pub mod mail;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use url::{Host, Url};

use super::diagnose::ConfigProblem;
use super::secret::{Secret, SecretSource};
use super::{Judge, document};
use mail::MailConfig;

/// How a channel is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelKind {
    /// A signed POST of JSON.
    Webhook,
    /// Slack's incoming webhook, and what speaks it.
    Slack,
    /// A mail, over SMTP.
    Mail,
}

/// A channel.
#[derive(Clone)]
pub enum ChannelConfig {
    /// [`ChannelKind::Webhook`].
    Webhook {
        /// Its address.
        url: SecretSource,
        /// What it is signed with.
        secret: SecretSource,
    },
    /// [`ChannelKind::Slack`].
    Slack {
        /// Its address.
        url: SecretSource,
    },
    /// [`ChannelKind::Mail`].
    Mail(Box<MailConfig>),
}

impl ChannelConfig {
    /// How it is spoken to.
    pub fn kind(&self) -> ChannelKind {
        match self {
            Self::Webhook { .. } => ChannelKind::Webhook,
            Self::Slack { .. } => ChannelKind::Slack,
            Self::Mail(_) => ChannelKind::Mail,
        }
    }
}

/// All channels, by name.
#[derive(Clone, Default)]
pub struct NotifyConfig {
    /// By name.
    pub channels: BTreeMap<String, ChannelConfig>,
}

/// Whether something may be sent there: over TLS, or without leaving this machine.
pub fn is_acceptable(url: &Url) -> bool {
    url.scheme() == "https" || (url.scheme() == "http" && is_local(url))
}

/// Whether it is this machine. A scheme that the library does not know has its host as a name, whatever it is.
fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => {
            name == "localhost" || name.parse().is_ok_and(|address: Ipv4Addr| address.is_loopback())
        }
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

impl Judge<'_> {
    pub(super) fn notify(
        &mut self,
        written: BTreeMap<super::StoreName, Spanned<document::Channel>>,
    ) -> Result<NotifyConfig, ConfigProblem> {
        let mut channels = BTreeMap::new();
        for (name, channel) in written {
            let span = channel.span();
            let channel = channel.into_inner();
            let name = name.to_string();
            let judged = match channel.kind {
                ChannelKind::Mail => ChannelConfig::Mail(Box::new(self.mail(&name, span, channel)?)),
                ChannelKind::Webhook | ChannelKind::Slack => self.hook(&name, span, channel)?,
            };
            channels.insert(name, judged);
        }
        Ok(NotifyConfig { channels })
    }

    fn hook(
        &mut self,
        name: &str,
        span: Range<usize>,
        channel: document::Channel,
    ) -> Result<ChannelConfig, ConfigProblem> {
        if channel.password_file.is_some() || channel.from.is_some() || channel.to.is_some() {
            return Err(self.problem(span, "`password_file`, `from` and `to` are for `kind = \"mail\"`"));
        }
        let key = format!("notify.{name}");
        let secret = self.secret(&format!("{key}.secret"), span.clone(), channel.secret_file, None)?;
        if channel.kind == ChannelKind::Slack && secret.is_some() {
            return Err(self
                .problem(span, "Slack takes no signature")
                .hint("leave `secret_file` out; its address is the secret"));
        }
        if channel.kind == ChannelKind::Webhook && secret.is_none() {
            return Err(self.problem(span, format!("webhook `{name}` has no `secret_file`")).hint(
                "name a file of one line that the receiver has too: notifications are signed with it",
            ));
        }
        let url = self.address(&key, span.clone(), channel.url.as_ref(), channel.url_file)?;
        let Some(url) = url else {
            return Err(self.problem(span, format!("channel `{name}` has neither `url` nor `url_file`")));
        };
        Ok(match secret {
            Some(secret) => ChannelConfig::Webhook { url, secret },
            None => ChannelConfig::Slack { url },
        })
    }

    /// An address from the environment, a file or the configuration itself.
    pub(super) fn address(
        &mut self,
        key: &str,
        span: Range<usize>,
        written: Option<&Spanned<String>>,
        file: Option<std::path::PathBuf>,
    ) -> Result<Option<SecretSource>, ConfigProblem> {
        if let Some(written) = written {
            let acceptable = written.get_ref().parse().is_ok_and(|url: Url| is_acceptable(&url));
            if !acceptable {
                let mut problem = self.problem(written.span(), "not an https address");
                // An address may be a secret.
                problem.place.iter_mut().for_each(|place| place.text = None);
                return Err(problem.hint("https://HOST/PATH, or http:// on this machine alone"));
            }
        }
        let secret = self.secret(&format!("{key}.url"), span, file, None)?;
        Ok(secret.or_else(|| written.map(|text| SecretSource::Url(Secret::new(text.get_ref())))))
    }
}
