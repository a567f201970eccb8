//! Who looks at a page, and whether what he sends comes from a page of ours.
//!
//! What always holds: a page is shown to whoever shows a session's cookie, and to nobody by a token: browsers do not send those by
//! themselves. What changes something comes by a form of this place (`Sec-Fetch-Site`, or `Origin` where a browser is older than that) and
//! repeats the session's token, so that another site cannot have it sent. Whoever is not known is sent to log in, and back to where he
//! wanted to go only if that is a path of this service.

use axum::Extension;
use axum::extract::{FromRequest, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use farshore_catalog::access::{Role, Secret};

use crate::auth::{self, Proof, Who};
use crate::pages::frame::Theme;
use crate::pages::is_part;
use crate::problem::{Kind, Problem};
use crate::state::Shared;

/// The field of every form that repeats the session's token.
pub const FIELD: &str = "csrf";

/// The longest path that one is sent back to.
const PATH_BYTES: usize = 1024;

/// Somebody who has logged in, and how he wants to see it.
#[derive(Debug, Clone)]
pub struct Visitor {
    /// Who.
    pub who: Who,
    /// What says so.
    pub proof: Proof,
    /// What his forms repeat.
    pub csrf: String,
    /// Light or dark.
    pub theme: Theme,
    /// What he asks for.
    pub path: String,
}

impl Visitor {
    /// Whether he may do what a role may.
    pub fn may(&self, role: Role) -> bool {
        self.who.role.may(role)
    }
}

/// Lets through who has logged in and has at least `role`; others are sent to log in.
pub async fn admit(State((web, role)): State<(Shared, Role)>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    match look(&web, role, &parts).await {
        Ok(visitor) => {
            parts.extensions.insert(visitor.who.clone());
            parts.extensions.insert(visitor);
            next.run(Request::from_parts(parts, body)).await
        }
        Err(Refused::Unknown) if is_part(&parts.headers) => {
            Problem::new(Kind::NotAuthenticated, "the session is over: log in again").into_response()
        }
        Err(Refused::Unknown) => Redirect::to(&login_for(&parts.method, &parts.uri)).into_response(),
        Err(Refused::No(problem)) => problem.into_response(),
    }
}

enum Refused {
    Unknown,
    No(Problem),
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self::No(problem)
    }
}

async fn look(web: &Shared, role: Role, parts: &Parts) -> Result<Visitor, Refused> {
    let Some((who, secret)) = auth::session(web, &parts.headers).await? else { return Err(Refused::Unknown) };
    if !who.role.may(role) {
        let detail = format!("this takes the role {role}, and yours is {}", who.role);
        return Err(Problem::new(Kind::NotAllowed, detail).into());
    }
    same_place(&parts.method, &parts.headers)?;
    let path = parts.uri.path_and_query().map_or("/", axum::http::uri::PathAndQuery::as_str);
    Ok(Visitor {
        who,
        csrf: auth::csrf(&secret).text(),
        proof: Proof::Session(secret),
        theme: Theme::of(&parts.headers),
        path: path.to_owned(),
    })
}

/// Lets through what a page of ours sends, and whatever only looks.
pub async fn from_here(request: Request, next: Next) -> Response {
    match same_place(request.method(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// That a request that may change something comes from a page of this place.
fn same_place(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let here = match (text("sec-fetch-site"), text(header::ORIGIN.as_str()), text(header::HOST.as_str())) {
        (Some(site), ..) => site == "same-origin",
        (None, Some(origin), Some(host)) => origin.split_once("://").is_some_and(|(_, of)| of == host),
        _ => false,
    };
    match here {
        true => Ok(()),
        false => Err(Problem::new(Kind::NotAllowed, "this was not sent by a page of this service")
            .hint("open the page here and use its form")),
    }
}

/// Where somebody who is not known logs in, to be sent on afterwards.
fn login_for(method: &Method, uri: &Uri) -> String {
    // A form that was sent is not sent again by itself.
    let to =
        uri.path_and_query().filter(|_| *method == Method::GET).map(axum::http::uri::PathAndQuery::as_str);
    match to.and_then(local) {
        Some(to) if to != "/" => format!("/login?to={}", crate::pages::words::escaped(to)),
        _ => "/login".to_owned(),
    }
}

/// The path, when it leads to a page of this service and nowhere else.
pub fn local(path: &str) -> Option<&str> {
    let plain = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    let here = path.starts_with('/') && !path.starts_with("//") && path.len() <= PATH_BYTES;
    let useful = !["/login", "/logout", "/theme"].iter().any(|one| path.starts_with(one));
    (plain && here && useful).then_some(path)
}

/// The fields of a form that repeated its session's token. They do not print: one may be a password.
pub struct Posted(Vec<(String, String)>);

impl Posted {
    /// A field's value, without blanks around it; `None` when it is not there or empty.
    pub fn field(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(of, _)| of == name).map(|(_, value)| value.trim());
        found.filter(|value| !value.is_empty())
    }

    /// A field's value as it was typed, blanks and all: a password.
    pub fn exact(&self, name: &str) -> &str {
        self.0.iter().find(|(of, _)| of == name).map_or("", |(_, value)| value.as_str())
    }
}

/// A form's fields.
///
/// # Errors
/// [`Kind::Invalid`] when it is none.
pub async fn fields<S: Send + Sync>(request: Request, state: &S) -> Result<Vec<(String, String)>, Problem> {
    let wrong = || Problem::new(Kind::Invalid, "the form cannot be read");
    let axum::Form(fields) =
        axum::Form::<Vec<(String, String)>>::from_request(request, state).await.map_err(|_| wrong())?;
    Ok(fields)
}

impl<S: Send + Sync> FromRequest<S> for Posted {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let visitor = request.extensions().get::<Visitor>().cloned();
        // Behind `admit` somebody is always known; a path that was put elsewhere by mistake takes nothing.
        let visitor = visitor.ok_or_else(|| Problem::new(Kind::NotAuthenticated, "nobody is known"))?;
        let fields = fields(request, state).await?;
        let said =
            fields.iter().find(|(name, _)| name == FIELD).and_then(|(_, value)| value.parse::<Secret>().ok());
        let own: Option<Secret> = visitor.csrf.parse().ok();
        match said.zip(own).is_some_and(|(said, own)| said.digest().is(&own.digest())) {
            true => Ok(Self(fields)),
            false => Err(Problem::new(
                Kind::NotAllowed,
                "the form is missing its token, or it is another session's",
            )
            .hint("load the page again and send its form")),
        }
    }
}

/// The visitor of a handler.
pub type Seen = Extension<Visitor>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_to_another_place_after_he_logged_in() {
        for good in ["/", "/jobs", "/databases/orders?zoom=24h&pos=1:0/30", "/a//b"] {
            assert_eq!(local(good), Some(good), "{good}");
        }
        let long = format!("/{}", "a".repeat(PATH_BYTES));
        for bad in [
            "",
            "jobs",
            "//evil.example",
            "/\\evil.example",
            "/\t/evil.example",
            "/\n/evil",
            "https://evil.example",
            "\\\\evil",
            "/a b",
            "/ä",
            "/login?to=/login",
            "/logout",
            "/theme",
            &long,
        ] {
            assert_eq!(local(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn what_another_site_has_sent_is_refused_and_what_says_nothing_too() {
        let refused = |pairs: &[(&str, &str)]| {
            let headers = pairs
                .iter()
                .map(|(name, value)| (name.parse::<header::HeaderName>().unwrap(), value.parse().unwrap()));
            let mut all = HeaderMap::new();
            all.extend(headers);
            same_place(&Method::POST, &all).is_err()
        };
        assert!(!refused(&[("sec-fetch-site", "same-origin"), ("origin", "null")]));
        assert!(!refused(&[("origin", "https://db1:7432"), ("host", "db1:7432")]));
        assert!(refused(&[("sec-fetch-site", "cross-site")]));
        assert!(refused(&[("sec-fetch-site", "same-site"), ("origin", "https://db1"), ("host", "db1")]));
        assert!(refused(&[("sec-fetch-site", "none")]));
        assert!(refused(&[("origin", "https://evil"), ("host", "db1:7432")]));
        assert!(refused(&[("origin", "null"), ("host", "db1:7432")]));
        assert!(refused(&[("host", "db1:7432")]));
    }
}
