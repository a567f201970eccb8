//! `farshore token`: who may ask the REST API. A secret is printed once, on standard output, and kept by nobody here.

use chrono::{DateTime, SecondsFormat, Utc};
use farshore_catalog::activity::{Activity, activity_append_in_txn};
use farshore_catalog::token::{Bearer, Token, token_insert_in_txn, token_revoke_in_txn};
use farshore_catalog::{Catalog, Error};
use farshore_journal::DatabaseName;
use serde::Serialize;

use crate::cli::TokenCommand;
use crate::cli::access::TokenCreateArgs;
use crate::cli::zone::Zone;
use crate::commands::{self, Context};
use crate::config::Config;
use crate::exit::Exit;
use crate::message::{Code, OperatorMessage, Safe, with_causes};
use crate::output::Row;
use crate::wiring;

/// A token, as `-o json` shows it.
#[derive(Debug, Serialize)]
struct Shown {
    id: String,
    name: String,
    role: String,
    database: Option<DatabaseName>,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    last_used_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
    valid: bool,
}

/// A token that was made just now, with what is shown once.
#[derive(Serialize)]
struct Made {
    #[serde(flatten)]
    token: Shown,
    secret: String,
}

impl Shown {
    fn new(token: Token, now: DateTime<Utc>) -> Self {
        Self {
            valid: token.is_valid(now),
            id: token.id.to_string(),
            name: token.name.to_string(),
            role: token.role.word().to_owned(),
            database: token.database,
            created_at: token.created_at,
            expires_at: token.expires_at,
            last_used_at: token.last_used_at,
            revoked_at: token.revoked_at,
        }
    }
}

impl Row for Shown {
    const HEADER: &'static [&'static str] =
        &["NAME", "ID", "ROLE", "DATABASE", "CREATED (UTC)", "EXPIRES", "LAST USED", "VALID"];

    fn cells(&self, zone: Zone) -> Vec<String> {
        let time = |time: Option<DateTime<Utc>>| {
            time.map_or_else(|| "never".to_owned(), |time| zone.show(time, SecondsFormat::Secs))
        };
        let valid = match (self.valid, self.revoked_at) {
            (true, _) => "yes",
            (false, Some(_)) => "revoked",
            (false, None) => "expired",
        };
        vec![
            self.name.clone(),
            self.id.clone(),
            self.role.clone(),
            self.database.as_ref().map_or_else(|| "all".to_owned(), ToString::to_string),
            time(Some(self.created_at)),
            time(self.expires_at),
            time(self.last_used_at),
            valid.to_owned(),
        ]
    }
}

/// Runs it.
///
/// # Errors
/// When the catalog is away, a name is taken, or there is no such token.
pub async fn run(context: &mut Context, command: TokenCommand) -> anyhow::Result<Exit> {
    let config = context.config()?;
    match command {
        TokenCommand::Create(args) => {
            let (token, bearer) = create(&config, args).await?;
            let secret = bearer.text();
            let made = Made { token: Shown::new(token, Utc::now()), secret: secret.clone() };
            context.output.one("farshore.token/1", &made, &secret)?;
        }
        TokenCommand::List => {
            let catalog = wiring::catalog(&config).await?;
            let now = Utc::now();
            let all = catalog.token_list().await.map_err(|why| wiring::catalog_away(&why))?;
            let shown: Vec<Shown> = all.into_iter().map(|token| Shown::new(token, now)).collect();
            context.output.list("farshore.tokens/1", &shown)?;
        }
        TokenCommand::Revoke { name } => {
            let catalog = wiring::catalog(&config).await?;
            let token = revoke(&catalog, name.as_str()).await?;
            context.output.list("farshore.tokens/1", &[Shown::new(token, Utc::now())])?;
        }
    }
    Ok(Exit::Done)
}

async fn create(config: &Config, args: TokenCreateArgs) -> Result<(Token, Bearer), OperatorMessage> {
    if let Some(database) = &args.database {
        commands::database(config, Some(database))?;
    }
    let catalog = wiring::catalog_made(config).await?;
    let now = Utc::now();
    let bearer = Bearer::mint().map_err(|why| not_changed(&why))?;
    let token = Token {
        id: bearer.id,
        name: args.name,
        role: args.role,
        database: args.database,
        created_at: now,
        expires_at: args.expires.map(|expires| now + expires.get()),
        last_used_at: None,
        revoked_at: None,
    };
    let detail = format!("{} ({}), role {}", token.name, token.id, token.role);
    let done = async {
        let mut txn = catalog.begin().await?;
        token_insert_in_txn(&mut txn, &token, bearer.secret.digest()).await?;
        activity_append_in_txn(&mut txn, &activity("token create", detail, token.database.clone())).await?;
        txn.commit().await
    };
    done.await.map_err(|why| not_changed(&why))?;
    Ok((token, bearer))
}

async fn revoke(catalog: &Catalog, name: &str) -> Result<Token, OperatorMessage> {
    let done = async {
        let mut txn = catalog.begin().await?;
        let token = token_revoke_in_txn(&mut txn, name, Utc::now()).await?;
        let detail = format!("{} ({}), role {}", token.name, token.id, token.role);
        activity_append_in_txn(&mut txn, &activity("token revoke", detail, token.database.clone())).await?;
        txn.commit().await?;
        Ok(token)
    };
    done.await.map_err(|why| not_changed(&why))
}

/// What somebody at this machine did.
pub(super) fn activity(what: &str, detail: String, database: Option<DatabaseName>) -> Activity {
    let uid = nix::unistd::getuid();
    let user = nix::unistd::User::from_uid(uid).ok().flatten();
    let user = user.map_or_else(|| format!("uid {uid}"), |user| user.name);
    Activity {
        at: Utc::now(),
        who: format!("{user}@{}", wiring::node()),
        what: what.to_owned(),
        database,
        detail,
    }
}

/// Why who may ask is as it was.
pub(super) fn not_changed(why: &Error) -> OperatorMessage {
    let unchanged = || Safe::Known("nothing was changed; who may ask is as it was".to_owned());
    match why {
        Error::NoToken { .. } => OperatorMessage::new(
            Code::TokenUnknown,
            why.to_string(),
            unchanged(),
            "`farshore token list` names those that are valid",
        ),
        Error::NoUser { .. } => OperatorMessage::new(
            Code::UserUnknown,
            why.to_string(),
            unchanged(),
            "`farshore user list` names them",
        ),
        Error::LastAdmin { name } => OperatorMessage::new(
            Code::LastAdmin,
            why.to_string(),
            unchanged(),
            format!(
                "`farshore user add NAME --role admin` first; or `farshore user password {name}`, which keeps out who knows the present one"
            ),
        ),
        Error::Conflict { what, name, .. } => OperatorMessage::new(
            Code::AccessNameTaken,
            format!("there is a {what} named {name} already"),
            unchanged(),
            match *what {
                "token" => format!("choose another name, or `farshore token revoke {name}` first"),
                _ => format!("choose another name, or `farshore user password {name}` for a new password"),
            },
        ),
        why if why.is_away() => {
            let message = wiring::catalog_away(why);
            // A commit whose answer was lost may have happened.
            let safe = match why {
                Error::Deadline { .. } | Error::Query { query: "commit", .. } => {
                    Safe::Unknown("the catalog did not say whether it was changed".to_owned())
                }
                _ => unchanged(),
            };
            OperatorMessage { safe, ..message }
        }
        why => OperatorMessage::new(
            Code::Unexpected,
            with_causes(why),
            unchanged(),
            "run it again with -v; if it stays, report it with that output",
        ),
    }
}
