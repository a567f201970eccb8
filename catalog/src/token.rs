//! Tokens: what a program shows to be let in.
//!
//! What always holds: a token is found by its public id, and its secret is compared as a digest in constant time; one that is revoked
//! stays revoked, so that the record of who had access stays whole. A valid name belongs to one token.

use std::fmt;
use std::str::FromStr;

use chrono::TimeDelta;
use farshore_journal::{DatabaseName, ParseError};
use sqlx::any::AnyRow;
use sqlx::query;

use crate::access::{AccessName, Role, Secret, SecretDigest, fill, not_a};
use crate::connection::{in_local_txn, in_snapshot};
use crate::row::{Read as _, micros};
use crate::{Catalog, Error, Result, Time, Txn};

/// How a token's text begins, so that a scanner for lost secrets knows one.
const PREFIX: &str = "fsh_";

/// How exactly the last use is kept: a token that asks each second is not written each second.
const USE_KEPT: TimeDelta = TimeDelta::minutes(1);

/// Names a token in public: 64 random bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId([u8; 8]);

impl TokenId {
    /// A new one.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn mint() -> Result<Self> {
        let mut bytes = [0; 8];
        fill(&mut bytes)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for TokenId {
    type Err = ParseError;

    fn from_str(text: &str) -> std::result::Result<Self, ParseError> {
        let mut bytes = [0; 8];
        match hex::decode_to_slice(text, &mut bytes) {
            Ok(()) if !text.bytes().any(|byte| byte.is_ascii_uppercase()) => Ok(Self(bytes)),
            _ => Err(not_a("...", "token id (16 lower-case hexadecimal digits)")),
        }
    }
}

/// What a program shows: its token's id and secret, `fsh_<id>_<secret>`.
#[derive(Clone)]
pub struct Bearer {
    /// Which token.
    pub id: TokenId,
    /// Its secret.
    pub secret: Secret,
}

impl Bearer {
    /// A new one.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn mint() -> Result<Self> {
        Ok(Self { id: TokenId::mint()?, secret: Secret::mint()? })
    }

    /// The whole text, for whoever is to keep it.
    pub fn text(&self) -> String {
        format!("{PREFIX}{}_{}", self.id, self.secret.text())
    }
}

impl FromStr for Bearer {
    type Err = ParseError;

    fn from_str(text: &str) -> std::result::Result<Self, ParseError> {
        let parts = text.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_'));
        let (id, secret) = parts.ok_or_else(|| not_a("...", "token (fsh_ID_SECRET)"))?;
        Ok(Self { id: id.parse()?, secret: secret.parse()? })
    }
}

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its public id.
    pub id: TokenId,
    /// What it is called.
    pub name: AccessName,
    /// What it may do.
    pub role: Role,
    /// The only database that it may see; all when `None`.
    pub database: Option<DatabaseName>,
    /// When it was made.
    pub created_at: Time,
    /// From when on it is refused; never when `None`.
    pub expires_at: Option<Time>,
    /// When it was last let in, to a minute; `None` when it never was.
    pub last_used_at: Option<Time>,
    /// When it was revoked; `None` while it is not.
    pub revoked_at: Option<Time>,
}

impl Token {
    /// Whether it lets anybody in at `now`.
    pub fn is_valid(&self, now: Time) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|expires| now < expires)
    }
}

impl Catalog {
    /// Records a new token.
    ///
    /// # Errors
    /// [`Error::Conflict`] when a valid token has its name.
    pub async fn token_insert(&self, token: &Token, digest: SecretDigest) -> Result<()> {
        in_local_txn!(self, token_insert_in_txn(token, digest))
    }

    /// All tokens by name, the newest of a name first.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn token_list(&self) -> Result<Vec<Token>> {
        in_snapshot!(self, token_list_in_txn())
    }

    /// The token that this proves to be, when it is valid at `now`.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn token_proved(&self, bearer: &Bearer, now: Time) -> Result<Option<Token>> {
        in_snapshot!(self, token_proved_in_txn(bearer, now))
    }

    /// Records that a token was used at `now`, where nothing newer than a minute is known.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn token_used(&self, token: &Token, now: Time) -> Result<()> {
        if token.last_used_at.is_some_and(|last| now - last < USE_KEPT) {
            return Ok(());
        }
        in_local_txn!(self, token_used_in_txn(token.id, now))
    }

    /// Revokes the valid token of this name or id.
    ///
    /// # Errors
    /// [`Error::NoToken`] when there is none.
    pub async fn token_revoke(&self, name_or_id: &str, now: Time) -> Result<Token> {
        in_local_txn!(self, token_revoke_in_txn(name_or_id, now))
    }
}

/// As [`Catalog::token_insert`].
///
/// # Errors
/// [`Error::Conflict`] when a valid token has its name.
pub async fn token_insert_in_txn(txn: &mut Txn, token: &Token, digest: SecretDigest) -> Result<()> {
    let statement = "insert into access_token (id, name, role, secret_digest, database_name, created_at, expires_at, \
                     last_used_at, revoked_at) values ($1, $2, $3, $4, $5, $6, $7, $8, $9) on conflict do nothing";
    let bound = query(statement)
        .bind(token.id.to_string())
        .bind(token.name.to_string())
        .bind(token.role.word())
        .bind(digest.text())
        .bind(token.database.as_ref().map(ToString::to_string))
        .bind(micros(token.created_at))
        .bind(token.expires_at.map(micros))
        .bind(token.last_used_at.map(micros))
        .bind(token.revoked_at.map(micros));
    match txn.execute("token_insert", bound).await? {
        1 => Ok(()),
        _ => Err(Error::Conflict {
            what: "token",
            name: token.name.to_string(),
            reason: "a token that is not revoked has this name".to_owned(),
        }),
    }
}

/// As [`Catalog::token_list`].
///
/// # Errors
/// When the catalog is away.
pub async fn token_list_in_txn(txn: &mut Txn) -> Result<Vec<Token>> {
    let bound = query(
        "select id, name, role, database_name, created_at, expires_at, last_used_at, revoked_at from access_token \
         order by name, created_at desc, id",
    );
    txn.rows("token_list", bound).await?.iter().map(from_row).collect()
}

/// As [`Catalog::token_proved`].
///
/// # Errors
/// When the catalog is away.
pub async fn token_proved_in_txn(txn: &mut Txn, bearer: &Bearer, now: Time) -> Result<Option<Token>> {
    let statement = "select id, name, role, database_name, created_at, expires_at, last_used_at, revoked_at, \
                     secret_digest from access_token where id = $1";
    let row = txn.row("token_proved", query(statement).bind(bearer.id.to_string())).await?;
    // Whether there is such a token must not show in the time that the answer takes.
    let kept = match &row {
        Some(row) => SecretDigest::from_column("secret_digest", &row.text("secret_digest")?)?,
        None => SecretDigest::NOBODY,
    };
    let proved = bearer.secret.digest().is(&kept);
    let token = row.as_ref().map(from_row).transpose()?;
    Ok(token.filter(|token| proved && token.is_valid(now)))
}

async fn token_used_in_txn(txn: &mut Txn, id: TokenId, now: Time) -> Result<()> {
    let statement = "update access_token set last_used_at = $1 \
                     where id = $2 and (last_used_at is null or last_used_at < $1)";
    txn.execute("token_used", query(statement).bind(micros(now)).bind(id.to_string())).await.map(|_| ())
}

/// As [`Catalog::token_revoke`].
///
/// # Errors
/// [`Error::NoToken`] when there is none.
pub async fn token_revoke_in_txn(txn: &mut Txn, name_or_id: &str, now: Time) -> Result<Token> {
    let statement = "select id, name, role, database_name, created_at, expires_at, last_used_at, revoked_at \
                     from access_token where (name = $1 or id = $1) and revoked_at is null order by id";
    let missing = || Error::NoToken { name: name_or_id.chars().take(80).collect() };
    let rows = txn.rows("token_revoke", query(statement).bind(name_or_id.to_owned())).await?;
    let found = rows.iter().map(from_row).collect::<Result<Vec<_>>>()?;
    // A name may look like another token's id: the name is meant.
    let token = found.iter().find(|token| token.name.as_str() == name_or_id).or_else(|| found.first());
    let token = token.ok_or_else(missing)?;
    let statement = "update access_token set revoked_at = $1 where id = $2 and revoked_at is null";
    let bound = query(statement).bind(micros(now)).bind(token.id.to_string());
    match txn.execute("token_revoke", bound).await? {
        1 => Ok(Token { revoked_at: Some(now), ..token.clone() }),
        _ => Err(missing()),
    }
}

/// Revokes the token of this id, whatever others are called.
///
/// # Errors
/// [`Error::NoToken`] when there is none that is valid.
pub async fn token_revoke_id_in_txn(txn: &mut Txn, id: TokenId, now: Time) -> Result<Token> {
    let statement = "update access_token set revoked_at = $1 where id = $2 and revoked_at is null \
                     returning id, name, role, database_name, created_at, expires_at, last_used_at, revoked_at";
    let row = txn.row("token_revoke", query(statement).bind(micros(now)).bind(id.to_string())).await?;
    row.as_ref().map(from_row).transpose()?.ok_or_else(|| Error::NoToken { name: id.to_string() })
}

fn from_row(row: &AnyRow) -> Result<Token> {
    Ok(Token {
        id: row.parsed("id")?,
        name: row.parsed("name")?,
        role: row.parsed("role")?,
        database: row.maybe_parsed("database_name")?,
        created_at: row.time("created_at")?,
        expires_at: row.maybe_time("expires_at")?,
        last_used_at: row.maybe_time("last_used_at")?,
        revoked_at: row.maybe_time("revoked_at")?,
    })
}
