//! Who may read `/metrics`: whoever has the role viewer, and while the catalog is away whoever was proved to have it before.
//!
//! What always holds: a token counts without the catalog only here, where nothing is said but what this process knows by itself; only if
//! this process saw the catalog vouch for it within `REMEMBERED`, and before its own end. A token that the catalog does not vouch
//! for is forgotten. Asking the catalog takes a turn as everywhere else, so that a flood of scrapes keeps nobody's record from it. What is remembered is the digest of a secret, never the secret.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::header;
use axum::http::request::Parts;
use chrono::Utc;
use farshore_catalog::access::{Role, SecretDigest};
use farshore_catalog::token::{Bearer, Token};

use crate::auth::{self, Who};
use crate::problem::Problem;
use crate::state::Shared;

/// How long a proof counts without the catalog: an outage over a night, not for ever.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// Tokens that are remembered: more programs than ever read one service's metrics.
const MOST: usize = 32;
/// How long the catalog may take to vouch for a token here. A collector waits for ten seconds as a rule.
const PATIENCE: Duration = Duration::from_secs(3);

struct Proof {
    digest: SecretDigest,
    token: Token,
    at: Instant,
}

/// Tokens that were proved.
#[derive(Default)]
pub struct Proved(Mutex<Vec<Proof>>);

impl std::fmt::Debug for Proved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proved").finish_non_exhaustive()
    }
}

impl Proved {
    fn forget(&self, bearer: &Bearer) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|proof| proof.token.id != bearer.id);
    }

    fn keep(&self, bearer: &Bearer, token: Token) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|proof| proof.token.id != bearer.id);
        if all.len() >= MOST {
            all.remove(0);
        }
        all.push(Proof { digest: bearer.secret.digest(), token, at: Instant::now() });
    }

    fn find(&self, bearer: &Bearer) -> Option<Token> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let proof = all.iter().find(|proof| proof.token.id == bearer.id)?;
        let valid = proof.digest.is(&bearer.secret.digest())
            && proof.at.elapsed() < REMEMBERED
            && proof.token.expires_at.is_none_or(|end| Utc::now() < end);
        valid.then(|| proof.token.clone())
    }
}

/// Who asks.
///
/// # Errors
/// When nobody is known who may.
pub async fn admit(web: &Shared, request: &Parts) -> Result<Who, Problem> {
    let turn = tokio::time::timeout(PATIENCE, web.asking.acquire()).await;
    let Ok(Ok(_turn)) = turn else {
        return bearer(request).map_or_else(|| Err(Problem::away()), |bearer| remembered(web, &bearer));
    };
    let Some(bearer) = bearer(request) else { return otherwise(web, request).await };
    let Ok(catalog) = web.catalog() else { return remembered(web, &bearer) };
    let token = match tokio::time::timeout(PATIENCE, catalog.token_proved(&bearer, Utc::now())).await {
        Ok(Ok(Some(token))) => token,
        // What fails is answered, counted and held up as everywhere else.
        Ok(Ok(None)) => {
            web.metrics.proved.forget(&bearer);
            return otherwise(web, request).await;
        }
        Ok(Err(why)) if !why.is_away() => return Err(why.into()),
        Ok(Err(_)) | Err(_) => return remembered(web, &bearer),
    };
    if let Ok(Err(why)) = tokio::time::timeout(PATIENCE, catalog.token_used(&token, Utc::now())).await {
        tracing::debug!(token = %token.name, error = %why, "the last use of a token could not be recorded");
    }
    web.metrics.proved.keep(&bearer, token.clone());
    Ok(who(token))
}

/// As everywhere else.
async fn otherwise(web: &Shared, request: &Parts) -> Result<Who, Problem> {
    auth::admit(web, Role::Viewer, request).await.map(|(who, _)| who)
}

fn remembered(web: &Shared, bearer: &Bearer) -> Result<Who, Problem> {
    web.metrics.proved.find(bearer).map(who).ok_or_else(Problem::away)
}

/// Every role may do what a viewer may.
fn who(token: Token) -> Who {
    let id = format!("token {}", token.id);
    Who { id, name: token.name.to_string(), role: token.role, database: token.database }
}

fn bearer(request: &Parts) -> Option<Bearer> {
    let value = request.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, text) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| text.trim().parse().ok())?
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use axum::http::Request;
    use farshore_catalog::token::Token;
    use farshore_catalog::{Catalog, Options};

    use super::*;
    use crate::problem::Kind;
    use crate::state::{Here, Web};

    fn asks(bearer: &Bearer) -> Parts {
        let value = format!("Bearer {}", bearer.text());
        Request::builder().header("authorization", value).body(()).unwrap().into_parts().0
    }

    /// As many ask as may: a scrape waits for its turn, and then is answered from what is remembered, or not at all.
    #[tokio::test]
    async fn a_scrape_does_not_pass_by_those_who_wait_for_the_catalog() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}/catalog.db", folder.path().display());
        let catalog = Catalog::open(&url, Options::default()).await.unwrap();
        let web = Web::new(Some(catalog.clone()), BTreeMap::new(), Here::default(), false, true);
        let (known, fresh) = (Bearer::mint().unwrap(), Bearer::mint().unwrap());
        for (bearer, name) in [(&known, "known"), (&fresh, "fresh")] {
            let token = Token {
                id: bearer.id,
                name: name.parse().unwrap(),
                role: Role::Viewer,
                database: None,
                created_at: Utc::now(),
                expires_at: None,
                last_used_at: None,
                revoked_at: None,
            };
            catalog.token_insert(&token, bearer.secret.digest()).await.unwrap();
        }
        assert_eq!(admit(&web, &asks(&known)).await.unwrap().name, "known");
        let all = u32::try_from(web.asking.available_permits()).unwrap();
        let turns = web.asking.acquire_many(all).await.unwrap();
        assert_eq!(admit(&web, &asks(&known)).await.unwrap().name, "known");
        let used = async || {
            let tokens = catalog.token_list().await.unwrap();
            tokens.into_iter().find(|token| token.name.to_string() == "fresh").unwrap().last_used_at
        };
        assert_eq!(admit(&web, &asks(&fresh)).await.unwrap_err().kind, Kind::CatalogAway);
        assert_eq!(used().await, None, "the catalog was asked");
        drop(turns);
        assert_eq!(admit(&web, &asks(&fresh)).await.unwrap().name, "fresh");
        assert!(used().await.is_some());
    }
}
