//! One's own password, changed by whoever shows the present one.
//!
//! What always holds: guessing the present password is held up as a login is, and counts as one that failed; all sessions of the user end with the old password, and the
//! one that goes on here is new, with a cookie of its own.

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::form::Refused;
use super::users::sentence;
use super::{After, by, show};
use crate::auth::{self, Peer};
use crate::guard::Turn;
use crate::pages::visitor::{Posted, Visitor};
use crate::problem::{Kind, Problem};
use crate::state::Shared;
use crate::{grants, login, password};

/// Changes it.
///
/// # Errors
/// When the catalog is away. What is not taken is answered with the page.
pub async fn password(
    State(web): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Extension(Peer(address)): Extension<Peer>,
    Extension(turn): Extension<Turn>,
    form: Posted,
) -> Result<Response, Problem> {
    let mut refused = Refused::of("own", &form, &[]);
    let present = form.exact("present").to_owned();
    if present.is_empty() {
        refused.add("present", "Your present password is missing.");
    }
    let Some(password) = refused.password(&form).filter(|_| !present.is_empty()) else {
        return show(&web, &visitor, After::refused(refused)).await;
    };
    // Of one that is not taken nobody learns whether the present one was right.
    if let Err(why) = password::fits(password) {
        refused.add("password", sentence(&why.to_string()));
        return show(&web, &visitor, After::refused(refused)).await;
    }
    let (user, verified) = match login::proved(&web, &turn, address, &visitor.who.name, present).await {
        Ok(proved) => proved,
        Err(problem) if problem.kind == Kind::NotAuthenticated => {
            refused.add("present", "This is not your present password.");
            return show(&web, &visitor, After::refused(refused)).await;
        }
        Err(problem) if problem.kind == Kind::TooManyAttempts => {
            let seconds = problem.retry_after.unwrap_or(60);
            refused.add(
                "present",
                format!("Too many attempts failed from this address: try again in {seconds} s."),
            );
            let after = After { status: StatusCode::TOO_MANY_REQUESTS, ..After::refused(refused) };
            return show(&web, &visitor, after).await;
        }
        Err(problem) => return Err(problem),
    };
    let hash = match login::hashed(&web, &turn, password.to_owned()).await? {
        Ok(hash) => hash,
        Err(why) => {
            refused.add("password", sentence(&why.to_string()));
            return show(&web, &visitor, After::refused(refused)).await;
        }
    };
    let secret = grants::own_password(web.catalog()?, by(&visitor), &user.name, &verified, &hash).await?;
    let Some(secret) = secret else {
        refused
            .add("present", "Somebody gave you another password, or keeps you out, just now: log in again.");
        return show(&web, &visitor, After::refused(refused)).await;
    };
    let visitor = Visitor { csrf: auth::csrf(&secret).text(), ..visitor };
    let said = "Your password is changed. Your other sessions have ended; this one goes on.".to_owned();
    // Whatever becomes of the page: it is changed, and the browser gets its new session.
    let mut answer = match show(&web, &visitor, After::said(said)).await {
        Ok(answer) => answer,
        Err(problem) => {
            problem.hint("your password was changed all the same, and this session goes on").into_response()
        }
    };
    if let Ok(value) = HeaderValue::from_str(&login::cookie(&web, &secret)) {
        answer.headers_mut().insert(header::SET_COOKIE, value);
    }
    Ok(answer)
}
