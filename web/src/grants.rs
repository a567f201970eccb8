//! Changes of who may ask, for the REST API and for pages: tokens and users.
//!
//! What always holds: each change is one transaction with its entry in the record of activity, which names who changed it and by which way. A token's secret
//! leaves by [`token_make`] alone. Whoever takes a user's right to log in, or gives him another password, ends his sessions with it.

use chrono::{DateTime, TimeDelta, Utc};
use farshore_catalog::access::{AccessName, Role, Secret};
use farshore_catalog::activity::{Activity, activity_append_in_txn};
use farshore_catalog::session::session_begin_in_txn;
use farshore_catalog::token::{Bearer, Token, TokenId, token_insert_in_txn, token_revoke_id_in_txn};
use farshore_catalog::user::{
    PasswordHash, User, user_disable_in_txn, user_insert_in_txn, user_password_in_txn,
    user_password_own_in_txn,
};
use farshore_catalog::{Catalog, Result};
use farshore_journal::DatabaseName;

use crate::auth::Who;
use crate::login::LASTS;

/// The longest life of a token that ends: ten years.
pub const LONGEST: TimeDelta = TimeDelta::days(3650);

/// Who changes something, and how the record of activity says that he asked.
#[derive(Debug, Clone, Copy)]
pub struct By<'a> {
    /// Who.
    pub who: &'a Who,
    /// "the API", or "a page".
    pub way: &'static str,
}

impl By<'_> {
    /// An entry of the record of activity.
    pub fn did(
        &self,
        what: &str,
        database: Option<&DatabaseName>,
        detail: &str,
        at: DateTime<Utc>,
    ) -> Activity {
        Activity {
            at,
            who: self.who.name.clone(),
            what: what.to_owned(),
            database: database.cloned(),
            detail: format!("{detail}; via {}, by {}", self.way, self.who.id),
        }
    }
}

/// A token that is to be made.
#[derive(Debug, Clone)]
pub struct TokenWanted {
    /// What it is to be called.
    pub name: AccessName,
    /// What it may do.
    pub role: Role,
    /// The only database that it may see; all when `None`.
    pub database: Option<DatabaseName>,
    /// How long it lets anybody in; for ever when `None`.
    pub lasts: Option<TimeDelta>,
}

/// Makes a token; its secret is in the answer, and nowhere else.
///
/// # Errors
/// [`Error::Conflict`](farshore_catalog::Error::Conflict) when a token that is not revoked has its name.
pub async fn token_make(catalog: &Catalog, by: By<'_>, wanted: TokenWanted) -> Result<(Token, Bearer)> {
    let now = Utc::now();
    let bearer = Bearer::mint()?;
    let token = Token {
        id: bearer.id,
        name: wanted.name,
        role: wanted.role,
        database: wanted.database,
        created_at: now,
        expires_at: wanted.lasts.map(|lasts| now + lasts),
        last_used_at: None,
        revoked_at: None,
    };
    let mut txn = catalog.begin_local().await?;
    token_insert_in_txn(&mut txn, &token, bearer.secret.digest()).await?;
    activity_append_in_txn(&mut txn, &of_token(by, "token create", &token, now)).await?;
    txn.commit().await?;
    Ok((token, bearer))
}

/// Revokes a token.
///
/// # Errors
/// [`Error::NoToken`](farshore_catalog::Error::NoToken) when there is none of this id that is not revoked.
pub async fn token_revoke(catalog: &Catalog, by: By<'_>, id: TokenId) -> Result<Token> {
    let now = Utc::now();
    let mut txn = catalog.begin_local().await?;
    let token = token_revoke_id_in_txn(&mut txn, id, now).await?;
    activity_append_in_txn(&mut txn, &of_token(by, "token revoke", &token, now)).await?;
    txn.commit().await?;
    Ok(token)
}

fn of_token(by: By<'_>, what: &str, token: &Token, now: DateTime<Utc>) -> Activity {
    let detail = format!("{} ({}), role {}", token.name, token.id, token.role);
    by.did(what, token.database.as_ref(), &detail, now)
}

/// Adds a user.
///
/// # Errors
/// [`Error::Conflict`](farshore_catalog::Error::Conflict) when there is one of this name.
pub async fn user_add(
    catalog: &Catalog,
    by: By<'_>,
    name: AccessName,
    role: Role,
    password: &PasswordHash,
) -> Result<()> {
    let now = Utc::now();
    let user = User { name, role, disabled: false, created_at: now };
    let mut txn = catalog.begin_local().await?;
    user_insert_in_txn(&mut txn, &user, password).await?;
    let detail = format!("{}, role {}", user.name, user.role);
    activity_append_in_txn(&mut txn, &by.did("user add", None, &detail, now)).await?;
    txn.commit().await
}

/// Keeps a user out, or lets him in again.
///
/// # Errors
/// [`Error::NoUser`](farshore_catalog::Error::NoUser), and [`Error::LastAdmin`](farshore_catalog::Error::LastAdmin) when he alone may say who may ask.
pub async fn user_disable(catalog: &Catalog, by: By<'_>, name: &AccessName, disabled: bool) -> Result<()> {
    let what = if disabled { "user disable" } else { "user enable" };
    let mut txn = catalog.begin_local().await?;
    user_disable_in_txn(&mut txn, name, disabled).await?;
    activity_append_in_txn(&mut txn, &by.did(what, None, name.as_str(), Utc::now())).await?;
    txn.commit().await
}

/// Gives a user another password.
///
/// # Errors
/// [`Error::NoUser`](farshore_catalog::Error::NoUser).
pub async fn user_password(
    catalog: &Catalog,
    by: By<'_>,
    name: &AccessName,
    password: &PasswordHash,
) -> Result<()> {
    let mut txn = catalog.begin_local().await?;
    user_password_in_txn(&mut txn, name, password).await?;
    activity_append_in_txn(&mut txn, &by.did("user password", None, name.as_str(), Utc::now())).await?;
    txn.commit().await
}

/// Gives a user who showed his present password, `verified`, another one. All his sessions end, and the one that the secret proves begins. `None` when that is not
/// his password any more, or he is kept out: then nothing was changed.
///
/// # Errors
/// When the catalog is away.
pub async fn own_password(
    catalog: &Catalog,
    by: By<'_>,
    name: &AccessName,
    verified: &PasswordHash,
    password: &PasswordHash,
) -> Result<Option<Secret>> {
    let (now, secret) = (Utc::now(), Secret::mint()?);
    let mut txn = catalog.begin_local().await?;
    let done = user_password_own_in_txn(&mut txn, name, verified, password).await?
        && session_begin_in_txn(&mut txn, name, password, secret.digest(), now, now + LASTS).await?;
    if !done {
        return Ok(None);
    }
    activity_append_in_txn(&mut txn, &by.did("user password", None, &format!("{name}, his own"), now))
        .await?;
    txn.commit().await?;
    Ok(Some(secret))
}
