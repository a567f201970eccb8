//! Tokens, made and revoked by an admin's forms.
//!
//! What always holds: a token's secret is in the page that answers its making, and in no other: not in an address, not in the catalog, and no browser is let keep the page.

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use chrono::TimeDelta;
use farshore_catalog::Error;
use farshore_catalog::token::TokenId;
use farshore_journal::DatabaseName;

use super::form::Refused;
use super::{After, Made, by, show};
use crate::grants::{self, LONGEST, TokenWanted};
use crate::pages::visitor::{Posted, Visitor};
use crate::problem::{Kind, Problem};
use crate::state::Shared;

/// How long a token may be chosen to let in, beside for ever and a number that is typed: the word in the form, and days.
const TERMS: [(&str, i64); 3] = [("30", 30), ("90", 90), ("365", 365)];

/// Makes one.
///
/// # Errors
/// When the catalog is away. What was typed and is not taken is answered with the page.
pub async fn make(
    State(web): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    form: Posted,
) -> Result<Response, Problem> {
    let mut refused = Refused::of("token", &form, &["name", "role", "database", "lasts", "days"]);
    let (name, role) = (refused.name(&form), refused.role(&form));
    let database = match form.field("database").map(str::parse::<DatabaseName>) {
        None => Some(None),
        Some(Ok(name)) if web.catalog()?.database_find(&name).await?.is_some() => Some(Some(name)),
        Some(_) => {
            refused.add("database", "The catalog knows no database of this name.");
            None
        }
    };
    let lasts = match lasts(form.field("lasts").unwrap_or_default(), form.field("days")) {
        Ok(lasts) => Some(lasts),
        Err((field, problem)) => {
            refused.add(field, problem);
            None
        }
    };
    if let (Some(name), Some(role), Some(database), Some(lasts)) = (name, role, database, lasts) {
        let wanted = TokenWanted { name: name.clone(), role, database, lasts };
        match grants::token_make(web.catalog()?, by(&visitor), wanted).await {
            Ok((token, bearer)) => {
                let made = Made { name: token.name.to_string(), secret: bearer.text() };
                return show(&web, &visitor, After { made: Some(made), ..After::default() }).await;
            }
            Err(Error::Conflict { .. }) => {
                refused.add("name", format!("A token named {name} is there already. If you have just made it and did not see its secret: revoke it, and make it again."));
            }
            Err(why) => return Err(why.into()),
        }
    }
    show(&web, &visitor, After::refused(refused)).await
}

/// How long a token lets in; `None` for ever. A number of days that was typed and is not meant is no reason to make one that lasts otherwise.
fn lasts(chosen: &str, typed: Option<&str>) -> Result<Option<TimeDelta>, (&'static str, String)> {
    if chosen == "days" {
        let days = typed.and_then(|text| text.parse::<u16>().ok()).filter(|days| *days > 0);
        let lasts = days.map(|days| TimeDelta::days(days.into())).filter(|lasts| *lasts <= LONGEST);
        let wrong = || ("days", format!("A number of days, 1 to {}.", LONGEST.num_days()));
        return lasts.map(Some).ok_or_else(wrong);
    }
    if typed.is_some() {
        return Err(("days", "Choose “days” for these to count, or leave them empty.".to_owned()));
    }
    match TERMS.iter().find(|(word, _)| *word == chosen) {
        Some((_, days)) => Ok(Some(TimeDelta::days(*days))),
        None if chosen == "ever" => Ok(None),
        None => Err(("lasts", "Choose how long it lets in.".to_owned())),
    }
}

/// Revokes one.
///
/// # Errors
/// When there is none of this id that is not revoked, or the catalog is away.
pub async fn revoke(
    State(web): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(id): Path<String>,
    _form: Posted,
) -> Result<Response, Problem> {
    let unknown = |_| Problem::new(Kind::TokenUnknown, "the catalog knows no valid token of this id");
    let id: TokenId = id.parse().map_err(unknown)?;
    let token = grants::token_revoke(web.catalog()?, by(&visitor), id).await?;
    show(&web, &visitor, After::said(format!("{} lets nobody in any more.", token.name))).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_lasts_as_long_as_was_meant_and_what_is_not_clear_is_refused() {
        let days = |days| Ok(Some(TimeDelta::days(days)));
        for (chosen, typed, right) in [
            ("30", None, days(30)),
            ("90", None, days(90)),
            ("365", None, days(365)),
            ("ever", None, Ok(None)),
            ("days", Some("1"), days(1)),
            ("days", Some("3650"), days(3650)),
        ] {
            assert_eq!(lasts(chosen, typed), right, "{chosen} {typed:?}");
        }
        for (chosen, typed, field) in [
            ("days", None, "days"),
            ("days", Some("0"), "days"),
            ("days", Some("-1"), "days"),
            ("days", Some("3651"), "days"),
            ("days", Some("99999999999"), "days"),
            ("days", Some("7d"), "days"),
            ("90", Some("7"), "days"),
            ("ever", Some("7"), "days"),
            ("", None, "lasts"),
            ("31", None, "lasts"),
        ] {
            assert_eq!(lasts(chosen, typed).unwrap_err().0, field, "{chosen} {typed:?}");
        }
    }
}
