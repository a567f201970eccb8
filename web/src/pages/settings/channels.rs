//! A test of a channel of notification, by an admin's button.

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::{After, Told, by, show};
use crate::api::channel::tested;
use crate::channels::Sent;
use crate::guard::Turn;
use crate::pages::visitor::{Posted, Visitor};
use crate::problem::Problem;
use crate::state::Shared;

/// Sends it, and says whether it was taken.
///
/// # Errors
/// When there is no such channel, or the catalog is away: then nothing was sent.
pub async fn test(
    State(web): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Extension(turn): Extension<Turn>,
    Path(name): Path<String>,
    _form: Posted,
) -> Result<Response, Problem> {
    let sent = tested(&web, by(&visitor), &turn, &name).await?;
    turn.take(&web).await;
    let (status, problem) = match sent {
        Sent::Taken => (StatusCode::OK, None),
        Sent::NotTaken(why) => (StatusCode::OK, Some(why)),
        Sent::Busy => (
            StatusCode::CONFLICT,
            Some(
                "another test of it is under way, or was just now, and nothing was sent: try again in half a minute"
                    .to_owned(),
            ),
        ),
    };
    let told = Told { channel: name, problem };
    show(&web, &visitor, After { told: Some(told), status, ..After::default() }).await
}
