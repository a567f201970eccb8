//! Users, added, kept out, let in again and given another password by an admin's forms.
//!
//! What always holds: nobody changes himself here: keeping himself out would leave him with half a page, and his own password takes the present one (`own.rs`).

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use farshore_catalog::Error;
use farshore_catalog::access::{AccessName, Role};

use super::form::Refused;
use super::{After, by, show};
use crate::guard::Turn;
use crate::pages::visitor::{Posted, Visitor};
use crate::problem::{Kind, Problem};
use crate::state::Shared;
use crate::{auth, grants, login};

/// Adds one.
///
/// # Errors
/// When the catalog is away. What was typed and is not taken is answered with the page.
pub async fn add(
    State(web): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Extension(turn): Extension<Turn>,
    form: Posted,
) -> Result<Response, Problem> {
    let mut refused = Refused::of("user", &form, &["name", "role"]);
    let (name, role) = (refused.name(&form), refused.role(&form));
    let password = refused.password(&form);
    if let (Some(name), Some(role), Some(password)) = (name, role, password) {
        match login::hashed(&web, &turn, password.to_owned()).await? {
            Err(why) => refused.add("password", sentence(&why.to_string())),
            Ok(hash) => {
                still(&web, &visitor).await?;
                match grants::user_add(web.catalog()?, by(&visitor), name.clone(), role, &hash).await {
                    Ok(()) => {
                        let said = format!("{name} may log in now, as {role}.");
                        return show(&web, &visitor, After::said(said)).await;
                    }
                    Err(Error::Conflict { .. }) => {
                        refused.add("name", format!("There is a user named {name} already."));
                    }
                    Err(why) => return Err(why.into()),
                }
            }
        }
    }
    show(&web, &visitor, After::refused(refused)).await
}

/// Keeps one out.
///
/// # Errors
/// When there is none of this name, or the catalog is away.
pub async fn disable(
    State(web): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
    form: Posted,
) -> Result<Response, Problem> {
    let name = named(&name)?;
    let mut refused = Refused::of(&format!("disable-{name}"), &form, &[]);
    if is_self(&visitor, &name) {
        refused.add("button", "That is you: another admin can keep you out.");
        return show(&web, &visitor, After::refused(refused)).await;
    }
    match grants::user_disable(web.catalog()?, by(&visitor), &name, true).await {
        Ok(()) => {
            let said = format!("{name} is kept out now, and logged out everywhere.");
            show(&web, &visitor, After::said(said)).await
        }
        Err(why @ Error::LastAdmin { .. }) => {
            refused.add("button", format!("{} Add another admin first.", sentence(&why.to_string())));
            show(&web, &visitor, After::refused(refused)).await
        }
        Err(why) => Err(why.into()),
    }
}

/// Lets one in again.
///
/// # Errors
/// As [`disable`].
pub async fn enable(
    State(web): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Path(name): Path<String>,
    _form: Posted,
) -> Result<Response, Problem> {
    let name = named(&name)?;
    grants::user_disable(web.catalog()?, by(&visitor), &name, false).await?;
    show(&web, &visitor, After::said(format!("{name} may log in again, with the password as it was."))).await
}

/// Gives one another password.
///
/// # Errors
/// As [`disable`].
pub async fn password(
    State(web): State<Shared>,
    Extension(visitor): Extension<Visitor>,
    Extension(turn): Extension<Turn>,
    Path(name): Path<String>,
    form: Posted,
) -> Result<Response, Problem> {
    let name = named(&name)?;
    let mut refused = Refused::of(&format!("password-{name}"), &form, &[]);
    if is_self(&visitor, &name) {
        refused.add("password", "That is you: change your own password at the top of this page.");
    } else if let Some(password) = refused.password(&form) {
        match login::hashed(&web, &turn, password.to_owned()).await? {
            Err(why) => refused.add("password", sentence(&why.to_string())),
            Ok(hash) => {
                still(&web, &visitor).await?;
                grants::user_password(web.catalog()?, by(&visitor), &name, &hash).await?;
                let said = format!("{name} has another password now, and is logged out everywhere.");
                return show(&web, &visitor, After::said(said)).await;
            }
        }
    }
    show(&web, &visitor, After::refused(refused)).await
}

/// Whether he is still let in as an admin: his request may have waited for its turn to hash, and a revocation counts at once.
async fn still(web: &Shared, visitor: &Visitor) -> Result<(), Problem> {
    match auth::still(web, &visitor.proof).await? {
        Some(who) if who.role.may(Role::Admin) => Ok(()),
        _ => Err(Problem::new(Kind::NotAuthenticated, "the session is over: nothing was changed")),
    }
}

/// A user's name in a path.
fn named(text: &str) -> Result<AccessName, Problem> {
    text.parse().map_err(|_| Problem::new(Kind::UserUnknown, "no user can have this name"))
}

fn is_self(visitor: &Visitor, name: &AccessName) -> bool {
    visitor.who.name == name.as_str()
}

/// What an error says, as a sentence.
pub(super) fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}
