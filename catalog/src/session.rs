//! Sessions: a person who logged in and has not logged out, known by the digest of his cookie's secret.
//!
//! What always holds: a session lets in only while its time is not over and its user is not disabled; the role is the user's of now,
//! not of when he logged in. What guards against requests that another site makes a browser send follows from the cookie's secret
//! ([`Secret::derived`]), so that nothing here helps whoever reads the catalog.

use sqlx::query;

use crate::access::{AccessName, Secret, SecretDigest};
use crate::connection::{in_local_txn, in_snapshot};
use crate::row::{Read as _, micros};
use crate::user::{PasswordHash, User, user_find_in_txn};
use crate::{Catalog, Result, Time, Txn};

/// Somebody who is logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Who.
    pub user: User,
    /// Since when.
    pub created_at: Time,
    /// Until when.
    pub expires_at: Time,
}

impl Catalog {
    /// Begins a session of a user whose password was found to be that of `verified`; those whose time is over at `created_at` are
    /// forgotten. False when he got another password meanwhile, or is kept out.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn session_begin(
        &self,
        user: &AccessName,
        verified: &PasswordHash,
        secret: SecretDigest,
        created_at: Time,
        expires_at: Time,
    ) -> Result<bool> {
        in_local_txn!(self, session_begin_in_txn(user, verified, secret, created_at, expires_at))
    }

    /// The session that this secret proves, when it is valid at `now`.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn session_proved(&self, secret: &Secret, now: Time) -> Result<Option<Session>> {
        in_snapshot!(self, session_proved_in_txn(secret, now))
    }

    /// Ends a session; nothing happens when there is none.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn session_end(&self, secret: SecretDigest) -> Result<()> {
        in_local_txn!(self, session_end_in_txn(secret))
    }
}

/// As [`Catalog::session_begin`].
///
/// # Errors
/// When the catalog is away.
pub async fn session_begin_in_txn(
    txn: &mut Txn,
    user: &AccessName,
    verified: &PasswordHash,
    secret: SecretDigest,
    created_at: Time,
    expires_at: Time,
) -> Result<bool> {
    // Whoever changes the password, or keeps him out, meanwhile is waited for; behind him this finds another hash, or is found among the sessions that end.
    let held =
        "update access_user set disabled = disabled where name = $1 and password_hash = $2 and disabled = 0";
    let held = query(held).bind(user.to_string()).bind(verified.expose().to_owned());
    if txn.execute("session_begin", held).await? != 1 {
        return Ok(false);
    }
    let over = query("delete from access_session where user_name = $1 and expires_at <= $2");
    txn.execute("session_begin", over.bind(user.to_string()).bind(micros(created_at))).await?;
    let statement = "insert into access_session (id, user_name, created_at, expires_at) \
                     select $1, name, $2, $3 from access_user where name = $4 and password_hash = $5 and disabled = 0";
    let bound = query(statement)
        .bind(secret.text())
        .bind(micros(created_at))
        .bind(micros(expires_at))
        .bind(user.to_string())
        .bind(verified.expose().to_owned());
    Ok(txn.execute("session_begin", bound).await? == 1)
}

/// As [`Catalog::session_proved`].
///
/// # Errors
/// When the catalog is away.
pub async fn session_proved_in_txn(txn: &mut Txn, secret: &Secret, now: Time) -> Result<Option<Session>> {
    let statement = "select user_name, created_at, expires_at from access_session where id = $1";
    // Found by the digest: what the time of a search tells of one is no help in finding a secret that has it.
    let row = txn.row("session_proved", query(statement).bind(secret.digest().text())).await?;
    let Some(row) = row else { return Ok(None) };
    let Some((user, _)) = user_find_in_txn(txn, &row.parsed("user_name")?).await? else { return Ok(None) };
    let session = Session { user, created_at: row.time("created_at")?, expires_at: row.time("expires_at")? };
    Ok(Some(session).filter(|session| now < session.expires_at && !session.user.disabled))
}

/// As [`Catalog::session_end`].
///
/// # Errors
/// When the catalog is away.
pub async fn session_end_in_txn(txn: &mut Txn, secret: SecretDigest) -> Result<()> {
    let bound = query("delete from access_session where id = $1").bind(secret.text());
    txn.execute("session_end", bound).await.map(|_| ())
}

/// Ends all sessions of a user.
///
/// # Errors
/// When the catalog is away.
pub async fn session_end_all_in_txn(txn: &mut Txn, user: &AccessName) -> Result<()> {
    let bound = query("delete from access_session where user_name = $1").bind(user.to_string());
    txn.execute("session_end", bound).await.map(|_| ())
}
