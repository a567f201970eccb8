//! Who may connect: passwords read from their files, and again when one changed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use farshore_engines::postgres::serve::{Secrets, Verifier};

use crate::config::secret::Secret;
use crate::config::serve::ServeConfig;

/// How often it is looked whether a file changed.
const LOOK: Duration = Duration::from_secs(10);

/// The users' verifiers.
pub struct Known {
    last: Mutex<Option<Read>>,
}

struct Read {
    at: Instant,
    texts: BTreeMap<String, Secret>,
    secrets: Arc<Secrets>,
}

impl Known {
    /// Nothing was read yet.
    pub fn new() -> Self {
        Self { last: Mutex::new(None) }
    }

    /// As the files are; at most ten seconds late. A user whose password cannot be read is nobody until it can, and that is said.
    pub fn now(&self, config: &ServeConfig) -> Arc<Secrets> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(read) = &*last
            && read.at.elapsed() < LOOK
        {
            return Arc::clone(&read.secrets);
        }
        let mut texts = BTreeMap::new();
        for (name, user) in &config.users {
            match user.password.read() {
                Ok(text) => {
                    texts.insert(name.clone(), text);
                }
                Err(why) => {
                    tracing::error!(user = name, error = %why, "this user is let in nowhere until his password can be read");
                }
            }
        }
        let at = Instant::now();
        if let Some(read) = last.as_mut()
            && read.texts == texts
        {
            read.at = at;
            return Arc::clone(&read.secrets);
        }
        let known = texts.iter().filter_map(|(name, text)| match verifier(text.expose()) {
            Some(verifier) => Some((name.clone(), verifier)),
            None => {
                tracing::error!(user = name, "no verifier can be made of this user's password");
                None
            }
        });
        let secrets = Arc::new(Secrets::new(known.collect()));
        *last = Some(Read { at, texts, secrets: Arc::clone(&secrets) });
        secrets
    }
}

/// Of a password, or of a verifier as `pg_authid` has it: as PostgreSQL takes either.
fn verifier(text: &str) -> Option<Verifier> {
    text.parse().or_else(|_| Verifier::of(text)).ok()
}
