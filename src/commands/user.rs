//! `farshore user`: people who log in with a password. It comes from a file, the environment or the terminal, never from an argument.

mod prompt;

use chrono::{DateTime, SecondsFormat, Utc};
use farshore_catalog::access::AccessName;
use farshore_catalog::activity::activity_append_in_txn;
use farshore_catalog::user::{
    PasswordHash, User, user_disable_in_txn, user_insert_in_txn, user_password_in_txn,
};
use farshore_web::password;
use serde::Serialize;

use crate::cli::UserCommand;
use crate::cli::access::PasswordArgs;
use crate::cli::zone::Zone;
use crate::commands::Context;
use crate::commands::token::{activity, not_changed};
use crate::config::Config;
use crate::config::secret::{Secret, SecretSource};
use crate::exit::Exit;
use crate::message::{Code, OperatorMessage, Safe};
use crate::output::Row;
use crate::wiring;

/// The environment variable that a password may be in.
const VARIABLE: &str = "FARSHORE_USER_PASSWORD";

/// A user, as `-o json` shows him.
#[derive(Debug, Serialize)]
struct Shown {
    name: String,
    role: String,
    disabled: bool,
    created_at: DateTime<Utc>,
}

impl From<User> for Shown {
    fn from(user: User) -> Self {
        Self {
            name: user.name.to_string(),
            role: user.role.word().to_owned(),
            disabled: user.disabled,
            created_at: user.created_at,
        }
    }
}

impl Row for Shown {
    const HEADER: &'static [&'static str] = &["NAME", "ROLE", "DISABLED", "CREATED (UTC)"];

    fn cells(&self, zone: Zone) -> Vec<String> {
        let disabled = if self.disabled { "yes" } else { "no" };
        let created = zone.show(self.created_at, SecondsFormat::Secs);
        vec![self.name.clone(), self.role.clone(), disabled.to_owned(), created]
    }
}

/// What is to be done to a user.
enum Change {
    Add(User, PasswordHash),
    Disable(AccessName, bool),
    Password(AccessName, PasswordHash),
}

/// Runs it. All but `list` print nothing but the user as he is now.
///
/// # Errors
/// When the catalog is away, the name is taken or nobody's, or the password is not taken.
pub async fn run(context: &mut Context, command: UserCommand) -> anyhow::Result<Exit> {
    let config = context.config()?;
    let change = match command {
        UserCommand::List => {
            let catalog = wiring::catalog(&config).await?;
            let all = catalog.user_list().await.map_err(|why| wiring::catalog_away(&why))?;
            let shown: Vec<Shown> = all.into_iter().map(Shown::from).collect();
            context.output.list("farshore.users/1", &shown)?;
            return Ok(Exit::Done);
        }
        UserCommand::Add { name, role, password } => {
            let hash = hashed(context, password).await?;
            Change::Add(User { name, role, disabled: false, created_at: Utc::now() }, hash)
        }
        UserCommand::Disable { name } => Change::Disable(name, true),
        UserCommand::Enable { name } => Change::Disable(name, false),
        UserCommand::Password { name, password } => Change::Password(name, hashed(context, password).await?),
    };
    let user = apply(&config, change).await?;
    context.output.list("farshore.users/1", &[Shown::from(user)])?;
    Ok(Exit::Done)
}

async fn apply(config: &Config, change: Change) -> Result<User, OperatorMessage> {
    let catalog = match &change {
        Change::Add(..) => wiring::catalog_made(config).await?,
        Change::Disable(..) | Change::Password(..) => wiring::catalog(config).await?,
    };
    let done = async {
        let mut txn = catalog.begin().await?;
        let (what, name, detail) = match &change {
            Change::Add(user, hash) => {
                user_insert_in_txn(&mut txn, user, hash).await?;
                ("user add", &user.name, format!("{}, role {}", user.name, user.role))
            }
            Change::Disable(name, disabled) => {
                user_disable_in_txn(&mut txn, name, *disabled).await?;
                (if *disabled { "user disable" } else { "user enable" }, name, name.to_string())
            }
            Change::Password(name, hash) => {
                user_password_in_txn(&mut txn, name, hash).await?;
                ("user password", name, name.to_string())
            }
        };
        activity_append_in_txn(&mut txn, &activity(what, detail, None)).await?;
        txn.commit().await?;
        let found = catalog.user_find(name).await?;
        found.map(|(user, _)| user).ok_or_else(|| farshore_catalog::Error::NoUser { name: name.to_string() })
    };
    done.await.map_err(|why| not_changed(&why))
}

/// The password as it is kept.
async fn hashed(context: &Context, args: PasswordArgs) -> Result<PasswordHash, OperatorMessage> {
    let may_ask = !context.global.no_input;
    let work = move || {
        let password = given(args, may_ask)?;
        password::hash(password.expose()).map_err(|why| refused(&why.to_string()))
    };
    // The terminal and the hash both hold up a thread.
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(refused("it could not be read")))
}

fn given(args: PasswordArgs, may_ask: bool) -> Result<Secret, OperatorMessage> {
    if let Some(path) = args.password_file {
        return SecretSource::File(path).read().map_err(|why| refused(&why.to_string()));
    }
    if let Ok(text) = std::env::var(VARIABLE) {
        return Ok(Secret::new(text));
    }
    if !may_ask {
        return Err(refused("it was not given, and nothing may be asked"));
    }
    prompt::twice().map_err(|why| refused(&why.to_string()))
}

fn refused(why: &str) -> OperatorMessage {
    OperatorMessage::new(
        Code::PasswordRefused,
        format!("the password is not taken: {why}"),
        Safe::Known("nothing was changed; who may ask is as it was".to_owned()),
        format!("give it in a file with --password-file, in {VARIABLE}, or at a terminal"),
    )
}
