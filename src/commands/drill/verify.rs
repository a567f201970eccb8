//! `farshore drill verify`: whether a certificate holds, by the public key alone.
//!
//! What always holds: the catalog is not asked; a certificate whose key nobody pinned is not called good, whoever signed it.

use std::path::Path;

use farshore_journal::format::{Certificate, FormatError, HeadStanding, VerifyKey, VerifyKeys};
use farshore_journal::store::StoreError;
use farshore_journal::{DrillId, JournalError, drills};
use serde::Serialize;

use super::shown::verdict;
use crate::cli::drill::Which;
use crate::commands::Context;
use crate::config::Config;
use crate::drill::outcome;
use crate::exit::Exit;
use crate::message::{Code, OperatorMessage, Safe};
use crate::sources;

#[derive(Debug, Serialize)]
struct Holds {
    holds: bool,
    key: VerifyKey,
    statement: serde_json::Value,
}

pub(super) async fn run(context: &mut Context, which: Which, keys: Vec<VerifyKey>) -> anyhow::Result<Exit> {
    // With a file and a key nothing else is needed.
    let config = match (&which, keys.is_empty()) {
        (Which::File(_), false) => None,
        _ => Some(context.config()?),
    };
    let certificate = match (&which, &config) {
        (Which::File(path), _) => of_file(path)?,
        (Which::Drill(drill), Some(config)) => of_store(config, *drill).await?,
        (Which::Drill(drill), None) => return Err(super::unknown(*drill).into()),
    };
    let said = certificate.said();
    let pinned = match (keys.is_empty(), &config) {
        (true, Some(config)) => {
            config.databases.get(&said.database).map(|settings| outcome::verify_keys(settings).clone())
        }
        _ => Some(VerifyKeys::new(keys)),
    };
    let pinned = pinned.unwrap_or_default();
    match certificate.standing(&pinned) {
        HeadStanding::Pinned => {}
        HeadStanding::Broken => {
            return Err(bad("the key that it names did not sign this: it was changed").into());
        }
        HeadStanding::UnknownKey => {
            let why = format!(
                "it is signed by {}, which is none of the keys that count here: anyone can make one",
                certificate.key
            );
            return Err(bad(&why).into());
        }
    }
    let statement = serde_json::from_str(certificate.text())?;
    let text = format!(
        "the certificate holds: {} signed that the drill {} of {}, {}, {}\n",
        certificate.key,
        said.drill,
        said.database,
        said.began,
        verdict(said.verdict)
    );
    let holds = Holds { holds: true, key: certificate.key, statement };
    context.output.one("farshore.drill-verify/1", &holds, &text)?;
    Ok(Exit::Done)
}

fn bad(why: &str) -> OperatorMessage {
    OperatorMessage::new(
        Code::CertificateBad,
        format!("the certificate does not hold: {why}"),
        Safe::Known("it proves nothing; nothing was changed".to_owned()),
        "take it from the store anew, or name the right public key with --key",
    )
}

fn of_file(path: &Path) -> Result<Certificate, OperatorMessage> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let limit = farshore_journal::format::certificate::CERTIFICATE_BYTES + 1;
    let read = std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    if let Err(why) = read {
        return Err(OperatorMessage::new(
            Code::DrillUnknown,
            format!("{} cannot be read: {why}", path.display()),
            Safe::Known("nothing was changed".to_owned()),
            "name a certificate's file, or a drill's id of 32 hexadecimal digits",
        ));
    }
    Certificate::decode(&bytes).map_err(|why: FormatError| bad(&why.to_string()))
}

/// Looks in each incarnation of each database in each of its stores.
async fn of_store(config: &Config, drill: DrillId) -> anyhow::Result<Certificate> {
    let mut unread = None;
    for name in config.databases.keys() {
        for (_, held) in sources::held_in_each(config, name).await {
            let held = match held {
                Ok(held) => held,
                Err(why) => {
                    unread = unread.or(Some(why));
                    continue;
                }
            };
            for one in held {
                match drills::read(one.source.reader(), drill).await {
                    Ok(certificate) => return Ok(certificate),
                    Err(JournalError::Store(StoreError::NotFound { .. })) => {}
                    Err(why @ (JournalError::Object { .. } | JournalError::Misplaced { .. })) => {
                        return Err(bad(&why.to_string()).into());
                    }
                    Err(why) => unread = unread.or(Some(why.into())),
                }
            }
        }
    }
    // What one store does not say could be in it.
    Err(unread.unwrap_or_else(|| super::unknown(drill).into()))
}
