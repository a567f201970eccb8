//! How long requests took, by path of the router, method and status.
//!
//! What always holds: a path that is none of ours counts as `other`, and so does a method that is none of HTTP's own, so that whoever
//! asks for many paths makes no series.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;

use crate::metrics::Metrics;
use crate::metrics::families::HTTP;
use crate::metrics::text::Page;

/// Upper bounds of the buckets: from what memory answers to the longest that a request may take.
const BOUNDS: [f64; 7] = [0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 30.0];

#[derive(Debug, Default)]
struct Histogram {
    /// How many fell into each bucket, and no lower one.
    observed: [u64; BOUNDS.len()],
    sum: f64,
    count: u64,
}

/// What was observed since the process began.
#[derive(Debug, Default)]
pub struct Requests(Mutex<BTreeMap<(String, &'static str, u16), Histogram>>);

impl Requests {
    fn observe(&self, route: &str, method: &Method, status: u16, took: Duration) {
        let method = match *method {
            Method::GET => "GET",
            Method::POST => "POST",
            Method::PUT => "PUT",
            Method::PATCH => "PATCH",
            Method::DELETE => "DELETE",
            Method::HEAD => "HEAD",
            Method::OPTIONS => "OPTIONS",
            _ => "other",
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let histogram = all.entry((route.to_owned(), method, status)).or_default();
        let seconds = took.as_secs_f64();
        if let Some(bucket) = BOUNDS.iter().position(|bound| seconds <= *bound)
            && let Some(observed) = histogram.observed.get_mut(bucket)
        {
            *observed += 1;
        }
        histogram.sum += seconds;
        histogram.count += 1;
    }

    pub(super) fn write(&self, page: &mut Page) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for ((route, method, status), histogram) in &*all {
            let mut below = 0;
            let buckets: Vec<(f64, u64)> = BOUNDS
                .iter()
                .zip(histogram.observed)
                .map(|(bound, observed)| {
                    below += observed;
                    (*bound, below)
                })
                .collect();
            let values = [route.as_str(), method, &status.to_string()];
            page.histogram(&HTTP, &values, &buckets, (histogram.sum, histogram.count));
        }
    }
}

/// Carries a request through and observes how long that took.
pub async fn observe(State(metrics): State<Arc<Metrics>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let (method, began) = (request.method().clone(), Instant::now());
    let answer = next.run(request).await;
    let route = route.as_deref().unwrap_or("other");
    metrics.requests.observe(route, &method, answer.status().as_u16(), began.elapsed());
    answer
}
