//! Whom to tell: `[notify.NAME]`, a table for each channel, and `heartbeat_url` of a database.
//!
//! What always holds: an address is https, or on this machine; what is secret (a key, an address that is one) comes from a file or the environment, and an
//! address that stands in the configuration is not shown in a message about it.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;
use url::{Host, Url};

use super::diagnose::ConfigProblem;
use super::secret::{Secret, SecretSource};
use super::{Judge, document};

/// How a channel is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelKind {
    /// A signed POST of JSON.
    Webhook,
    /// Slack's incoming webhook, and what speaks it.
    Slack,
}

/// A channel.
#[derive(Clone)]
pub struct ChannelConfig {
    /// How it is spoken to.
    pub kind: ChannelKind,
    /// Its address.
    pub url: SecretSource,
    /// What a webhook is signed with.
    pub secret: Option<SecretSource>,
}

/// All channels, by name.
#[derive(Clone, Default)]
pub struct NotifyConfig {
    /// By name.
    pub channels: BTreeMap<String, ChannelConfig>,
}

/// Whether something may be sent there: over TLS, or without leaving this machine.
pub fn is_acceptable(url: &Url) -> bool {
    let local = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    url.scheme() == "https" || (url.scheme() == "http" && local)
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
            channels.insert(name.to_string(), ChannelConfig { kind: channel.kind, url, secret });
        }
        Ok(NotifyConfig { channels })
    }

    /// An address from the environment, a file or the configuration itself.
    pub(super) fn address(
        &mut self,
        key: &str,
        span: std::ops::Range<usize>,
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
