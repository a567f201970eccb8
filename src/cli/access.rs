//! The arguments of `farshore token` and `farshore user`.
//!
//! What always holds: no password and no secret is an argument; other users of the machine can read those.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use farshore_catalog::access::{AccessName, Role};
use farshore_journal::DatabaseName;

use crate::config::quantity::{QuantityError, Span};

/// The longest that a token is valid, in days: ten years.
const LONGEST_DAYS: u64 = 3660;

/// `farshore token`
#[derive(Debug, Clone, Subcommand)]
pub enum TokenCommand {
    /// Make a token, and print its secret, once: only its digest is kept
    #[command(before_help = "Examples:
  farshore token create grafana --role viewer
  farshore token create nightly-drill --role operator --expires 90d --database orders > token")]
    Create(TokenCreateArgs),
    /// List tokens, without their secrets
    #[command(before_help = "Examples:\n  farshore token list -o json")]
    List,
    /// Let a token be refused from now on, for ever
    #[command(before_help = "Examples:\n  farshore token revoke grafana")]
    Revoke {
        /// The token's name or id
        #[arg(value_name = "NAME_OR_ID", value_parser = parse_name)]
        name: AccessName,
    },
}

/// `farshore token create`
#[derive(Debug, Clone, Args)]
pub struct TokenCreateArgs {
    /// What it is called: 1 to 63 of a-z, 0-9, ., _ and -
    #[arg(value_parser = parse_name)]
    pub name: AccessName,
    /// What it may do: viewer looks, operator asks for what changes no database, restorer for what changes one, admin says who may
    #[arg(long, value_parser = parse_role)]
    pub role: Role,
    /// For how long it is valid, as 30d; without it until it is revoked
    #[arg(long, value_name = "TIME", value_parser = parse_expires)]
    pub expires: Option<Span>,
    /// The only database that it may see
    #[arg(long, value_name = "DB")]
    pub database: Option<DatabaseName>,
}

/// `farshore user`
#[derive(Debug, Clone, Subcommand)]
pub enum UserCommand {
    /// Add somebody who logs in with a password
    #[command(before_help = "Examples:
  farshore user add ana --role admin
  farshore user add ana --role viewer --password-file ./password")]
    Add {
        /// Who
        #[arg(value_parser = parse_name)]
        name: AccessName,
        /// What he may do
        #[arg(long, value_parser = parse_role)]
        role: Role,
        /// Where the password is
        #[command(flatten)]
        password: PasswordArgs,
    },
    /// List users
    #[command(before_help = "Examples:\n  farshore user list")]
    List,
    /// Keep somebody out; his sessions end
    #[command(before_help = "Examples:\n  farshore user disable ana")]
    Disable {
        /// Who
        #[arg(value_parser = parse_name)]
        name: AccessName,
    },
    /// Let somebody in again
    #[command(before_help = "Examples:\n  farshore user enable ana")]
    Enable {
        /// Who
        #[arg(value_parser = parse_name)]
        name: AccessName,
    },
    /// Give somebody another password; his sessions end
    #[command(before_help = "Examples:\n  farshore user password ana")]
    Password {
        /// Who
        #[arg(value_parser = parse_name)]
        name: AccessName,
        /// Where the password is
        #[command(flatten)]
        password: PasswordArgs,
    },
}

/// Where a password comes from: a file, else `FARSHORE_USER_PASSWORD`, else it is asked for at the terminal.
#[derive(Debug, Clone, Args)]
pub struct PasswordArgs {
    /// A file that holds it; without it FARSHORE_USER_PASSWORD of the environment, else it is asked for
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

fn parse_name(text: &str) -> Result<AccessName, String> {
    text.parse().map_err(|why: farshore_journal::ParseError| why.to_string())
}

fn parse_role(text: &str) -> Result<Role, String> {
    text.parse().map_err(|why: farshore_journal::ParseError| why.to_string())
}

fn parse_expires(text: &str) -> Result<Span, String> {
    let expires: Span = text.parse().map_err(|why: QuantityError| why.to_string())?;
    match expires.get().as_secs() / 86_400 {
        0..=LONGEST_DAYS => Ok(expires),
        _ => Err(format!("at most {LONGEST_DAYS}d; leave it out for a token that does not expire")),
    }
}
