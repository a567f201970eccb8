//! Local users: people who log in with a password, kept as an argon2id hash that whoever writes it here has made.
//!
//! What always holds: a user who is disabled or gets another password has no session left, in the same transaction. The last admin who may log in is not
//! disabled, by whichever way it is asked: who knows his password is kept out by giving him another.

use sqlx::any::AnyRow;
use sqlx::query;

use crate::access::{AccessName, Role};
use crate::connection::{in_local_txn, in_snapshot};
use crate::row::{Read as _, micros};
use crate::session::session_end_all_in_txn;
use crate::{Catalog, Error, Result, Time, Txn};

/// A user, without his password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// What he is called.
    pub name: AccessName,
    /// What he may do.
    pub role: Role,
    /// Whether he is kept out.
    pub disabled: bool,
    /// When he was added.
    pub created_at: Time,
}

/// What is kept of a password: its hash in PHC notation. It does not print.
#[derive(Clone)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// Takes a text in PHC notation.
    pub const fn new(phc: String) -> Self {
        Self(phc)
    }

    /// The text, for whoever verifies a password.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Catalog {
    /// Records a new user.
    ///
    /// # Errors
    /// [`Error::Conflict`] when there is one of this name.
    pub async fn user_insert(&self, user: &User, password: &PasswordHash) -> Result<()> {
        in_local_txn!(self, user_insert_in_txn(user, password))
    }

    /// All users by name.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn user_list(&self) -> Result<Vec<User>> {
        in_snapshot!(self, user_list_in_txn())
    }

    /// The user of this name and what is kept of his password.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn user_find(&self, name: &AccessName) -> Result<Option<(User, PasswordHash)>> {
        in_snapshot!(self, user_find_in_txn(name))
    }

    /// Keeps a user out, or lets him in again. Kept out, his sessions end.
    ///
    /// # Errors
    /// [`Error::NoUser`] when there is none of this name, [`Error::LastAdmin`] when he alone may say who may ask.
    pub async fn user_disable(&self, name: &AccessName, disabled: bool) -> Result<()> {
        in_local_txn!(self, user_disable_in_txn(name, disabled))
    }

    /// Gives a user another password; his sessions end.
    ///
    /// # Errors
    /// [`Error::NoUser`] when there is none of this name.
    pub async fn user_password(&self, name: &AccessName, password: &PasswordHash) -> Result<()> {
        in_local_txn!(self, user_password_in_txn(name, password))
    }

    /// Whether anybody could be let in at all: there is a valid token, or a user who is not disabled.
    ///
    /// # Errors
    /// When the catalog is away.
    pub async fn access_is_given(&self, now: Time) -> Result<bool> {
        in_snapshot!(self, access_is_given_in_txn(now))
    }
}

/// As [`Catalog::user_insert`].
///
/// # Errors
/// [`Error::Conflict`] when there is one of this name.
pub async fn user_insert_in_txn(txn: &mut Txn, user: &User, password: &PasswordHash) -> Result<()> {
    let statement = "insert into access_user (name, role, password_hash, disabled, created_at) \
                     values ($1, $2, $3, $4, $5) on conflict do nothing";
    let bound = query(statement)
        .bind(user.name.to_string())
        .bind(user.role.word())
        .bind(password.expose().to_owned())
        .bind(i64::from(user.disabled))
        .bind(micros(user.created_at));
    match txn.execute("user_insert", bound).await? {
        1 => Ok(()),
        _ => Err(Error::Conflict {
            what: "user",
            name: user.name.to_string(),
            reason: "there is one of this name".to_owned(),
        }),
    }
}

/// As [`Catalog::user_list`].
///
/// # Errors
/// When the catalog is away.
pub async fn user_list_in_txn(txn: &mut Txn) -> Result<Vec<User>> {
    let bound = query("select name, role, disabled, created_at from access_user order by name");
    txn.rows("user_list", bound).await?.iter().map(from_row).collect()
}

/// As [`Catalog::user_find`].
///
/// # Errors
/// When the catalog is away.
pub async fn user_find_in_txn(txn: &mut Txn, name: &AccessName) -> Result<Option<(User, PasswordHash)>> {
    let statement = "select name, role, disabled, created_at, password_hash from access_user where name = $1";
    let row = txn.row("user_find", query(statement).bind(name.to_string())).await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some((from_row(&row)?, PasswordHash(row.text("password_hash")?))))
}

/// As [`Catalog::user_disable`].
///
/// # Errors
/// As there.
pub async fn user_disable_in_txn(txn: &mut Txn, name: &AccessName, disabled: bool) -> Result<()> {
    if disabled {
        // Two admins who disable each other at once: the second waits here for the first, and then finds himself the last.
        let all =
            query("update access_user set disabled = disabled where role = $1").bind(Role::Admin.word());
        txn.execute("user_disable", all).await?;
        if let (Some((user, _)), false) =
            (user_find_in_txn(txn, name).await?, another_admin_in_txn(txn, name).await?)
            && user.role == Role::Admin
            && !user.disabled
        {
            return Err(Error::LastAdmin { name: name.to_string() });
        }
    }
    let bound = query("update access_user set disabled = $1 where name = $2")
        .bind(i64::from(disabled))
        .bind(name.to_string());
    changed(txn.execute("user_disable", bound).await?, name)?;
    session_end_all_in_txn(txn, name).await
}

/// Whether an admin who may log in is left beside this one.
async fn another_admin_in_txn(txn: &mut Txn, name: &AccessName) -> Result<bool> {
    let statement =
        "select count(*) as others from access_user where role = $1 and disabled = 0 and name <> $2";
    let bound = query(statement).bind(Role::Admin.word()).bind(name.to_string());
    let row = txn.row("user_disable", bound).await?;
    row.map_or(Ok(false), |row| Ok(row.integer("others")? > 0))
}

/// As [`Catalog::user_password`].
///
/// # Errors
/// [`Error::NoUser`] when there is none of this name.
pub async fn user_password_in_txn(txn: &mut Txn, name: &AccessName, password: &PasswordHash) -> Result<()> {
    let bound = query("update access_user set password_hash = $1 where name = $2")
        .bind(password.expose().to_owned())
        .bind(name.to_string());
    changed(txn.execute("user_password", bound).await?, name)?;
    session_end_all_in_txn(txn, name).await
}

/// Gives a user who showed his present password another one; his sessions end. False when that was not his password any more, or he is kept out.
///
/// # Errors
/// When the catalog is away.
pub async fn user_password_own_in_txn(
    txn: &mut Txn,
    name: &AccessName,
    verified: &PasswordHash,
    password: &PasswordHash,
) -> Result<bool> {
    let statement =
        "update access_user set password_hash = $1 where name = $2 and password_hash = $3 and disabled = 0";
    let bound = query(statement)
        .bind(password.expose().to_owned())
        .bind(name.to_string())
        .bind(verified.expose().to_owned());
    if txn.execute("user_password", bound).await? != 1 {
        return Ok(false);
    }
    session_end_all_in_txn(txn, name).await?;
    Ok(true)
}

/// As [`Catalog::access_is_given`].
///
/// # Errors
/// When the catalog is away.
pub async fn access_is_given_in_txn(txn: &mut Txn, now: Time) -> Result<bool> {
    let statement = "select (select count(*) from access_token where revoked_at is null \
                     and (expires_at is null or expires_at > $1)) + \
                     (select count(*) from access_user where disabled = 0) as given";
    let row = txn.row("access_is_given", query(statement).bind(micros(now))).await?;
    row.map_or(Ok(false), |row| Ok(row.integer("given")? > 0))
}

fn changed(count: u64, name: &AccessName) -> Result<()> {
    match count {
        1 => Ok(()),
        _ => Err(Error::NoUser { name: name.to_string() }),
    }
}

fn from_row(row: &AnyRow) -> Result<User> {
    Ok(User {
        name: row.parsed("name")?,
        role: row.parsed("role")?,
        disabled: row.flag("disabled")?,
        created_at: row.time("created_at")?,
    })
}
