//! A person's login, for the API and for the page: the name and the password are checked, and a session begins.
//!
//! What always holds: a login that fails says the same and takes the same time, whether the name, the password or the user's being
//! disabled was the reason; an address with too many failures is refused before its password is looked at, also where it asks many times at once. While a
//! password is checked, which takes a processor and no catalog, the turn is others'; no more than [`password::AT_ONCE`] are at once.

use std::net::IpAddr;
use std::time::Instant;

use chrono::{TimeDelta, Utc};
use farshore_catalog::access::{AccessName, Role, Secret};
use farshore_catalog::user::{PasswordHash, User};

use crate::auth;
use crate::guard::Turn;
use crate::password::{self, PasswordError};
use crate::problem::{Kind, Problem};
use crate::state::Shared;

/// How long a login lasts: a working day.
pub const LASTS: TimeDelta = TimeDelta::hours(12);

/// A session that has begun.
#[derive(Debug)]
pub struct Begun {
    /// The user's name.
    pub name: AccessName,
    /// What he may do.
    pub role: Role,
    /// The header that gives the browser its cookie.
    pub cookie: String,
    /// What requests that change something must repeat.
    pub csrf: String,
}

/// Checks who somebody is, and begins his session.
///
/// # Errors
/// [`Kind::NotAuthenticated`] when he is not, [`Kind::TooManyAttempts`] when his address failed too often.
pub async fn begin(
    web: &Shared,
    turn: &Turn,
    address: IpAddr,
    name: &str,
    password: String,
) -> Result<Begun, Problem> {
    let (user, kept) = proved(web, turn, address, name, password).await?;
    let secret = Secret::mint()?;
    let now = Utc::now();
    if !web.catalog()?.session_begin(&user.name, &kept, secret.digest(), now, now + LASTS).await? {
        web.attempts.failed(address, Instant::now());
        return Err(failed());
    }
    Ok(Begun {
        name: user.name,
        role: user.role,
        cookie: cookie(web, &secret),
        csrf: auth::csrf(&secret).text(),
    })
}

/// The header that gives a browser the cookie of a session that has begun.
pub fn cookie(web: &Shared, secret: &Secret) -> String {
    let seconds = u64::try_from(LASTS.num_seconds()).unwrap_or(0);
    auth::set_cookie(web.secure, &secret.text(), seconds)
}

fn failed() -> Problem {
    Problem::new(Kind::NotAuthenticated, "the name or the password is wrong, or the user is disabled")
}

/// The user whose password this is, and what is kept of it.
///
/// # Errors
/// As [`begin`].
pub async fn proved(
    web: &Shared,
    turn: &Turn,
    address: IpAddr,
    name: &str,
    password: String,
) -> Result<(User, PasswordHash), Problem> {
    if let Some(problem) = auth::too_many(web, address, Instant::now()) {
        return Err(problem);
    }
    let name: Option<AccessName> = name.parse().ok();
    let known = match &name {
        Some(name) => web.catalog()?.user_find(name).await?,
        None => None,
    };
    turn.give_back();
    let checking = web.checking.clone().acquire_owned().await.map_err(|why| fault(&why))?;
    // Others of this address may have failed while this one waited.
    if let Some(problem) = auth::too_many(web, address, Instant::now()) {
        drop(checking);
        turn.take(web).await;
        return Err(problem);
    }
    let kept = known.as_ref().map(|(_, kept)| kept.clone());
    let checked = tokio::task::spawn_blocking(move || {
        // The permit comes back with the answer: whoever hangs up meanwhile frees it only once his password was checked.
        (password::verify(&password, kept.as_ref()), checking)
    });
    let (right, checking) = checked.await.map_err(|why| fault(&why))?;
    let known = known.filter(|(user, _)| right && !user.disabled);
    if known.is_none() {
        // Counted before the next password is checked.
        web.attempts.failed(address, Instant::now());
    }
    drop(checking);
    turn.take(web).await;
    known.ok_or_else(failed)
}

/// What is to be kept of a new password, made in turn with those that are checked; in the words of [`PasswordError`] why it is not taken.
///
/// # Errors
/// A fault of ours.
pub async fn hashed(
    web: &Shared,
    turn: &Turn,
    password: String,
) -> Result<Result<PasswordHash, PasswordError>, Problem> {
    // Before anything is waited for or hashed.
    if let Err(why) = password::fits(&password) {
        return Ok(Err(why));
    }
    turn.give_back();
    let checking = web.checking.clone().acquire_owned().await.map_err(|why| fault(&why))?;
    let hashed = tokio::task::spawn_blocking(move || (password::hash(&password), checking));
    let (hashed, checking) = hashed.await.map_err(|why| fault(&why))?;
    drop(checking);
    turn.take(web).await;
    Ok(hashed)
}

fn fault(why: &dyn std::error::Error) -> Problem {
    Problem::new(Kind::Unexpected, "farshore could not do this").because(why)
}
