//! The files that pages load: style, script, and htmx, all in this program.
//!
//! What always holds: a file is known by its content: its address holds a digest, so that a browser may keep it for ever and never shows a
//! new page in an old style. What the script does: parts of a page are fetched anew, and **a page that is not fetched anew says so by
//! itself**, greys every state that it shows and calls it unknown.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::extract::{Path, RawQuery};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest as _, Sha256};

use crate::problem::{Kind, Problem};

/// Name, kind and content.
const FILES: &[(&str, &str, &[u8])] = &[
    ("farshore.css", "text/css; charset=utf-8", include_bytes!("../../assets/farshore.css")),
    ("farshore.js", "text/javascript; charset=utf-8", include_bytes!("../../assets/farshore.js")),
    ("htmx.js", "text/javascript; charset=utf-8", include_bytes!("../../assets/vendor/htmx-2.0.11.min.js")),
    ("icon.svg", "image/svg+xml", include_bytes!("../../assets/icon.svg")),
];

/// Kept for a year: its address is of its content.
const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

struct File {
    kind: &'static str,
    bytes: &'static [u8],
    digest: String,
    address: String,
}

static BY_NAME: LazyLock<BTreeMap<&'static str, File>> = LazyLock::new(|| {
    let file = |(name, kind, bytes): &(&'static str, &'static str, &'static [u8])| {
        let digest = hex::encode(Sha256::digest(bytes).get(..8).unwrap_or_default());
        let address = format!("/assets/{name}?d={digest}");
        (*name, File { kind, bytes, digest, address })
    };
    FILES.iter().map(file).collect()
});

/// The address of a file; of one that is not there, a path that answers 404.
pub fn address(name: &str) -> &'static str {
    BY_NAME.get(name).map_or("/assets/none", |file| file.address.as_str())
}

/// A file.
pub async fn file(Path(name): Path<String>, RawQuery(query): RawQuery) -> Response {
    let Some(file) = BY_NAME.get(name.as_str()) else {
        return Problem::new(Kind::PathUnknown, "there is no such file").into_response();
    };
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static(file.kind))];
    let mut answer = (kind, file.bytes).into_response();
    // Asked for by another name than that of its content, it may change.
    if query.as_deref().and_then(|query| query.strip_prefix("d=")) == Some(file.digest.as_str()) {
        answer.headers_mut().insert(HeaderName::from_static("cache-control"), FOR_EVER);
    }
    answer
}

/// What browsers ask for though no page names it.
pub async fn icon() -> Response {
    file(Path("icon.svg".to_owned()), RawQuery(None)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vendored_file_is_the_one_that_its_readme_names() {
        let readme = include_str!("../../assets/vendor/README.md");
        let digest = hex::encode(Sha256::digest(BY_NAME["htmx.js"].bytes));
        assert!(readme.contains(&digest), "{digest}");
    }

    #[test]
    fn no_file_of_ours_names_another_place() {
        for (name, _, bytes) in FILES.iter().filter(|(name, ..)| *name != "htmx.js") {
            let text = String::from_utf8_lossy(bytes).replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains("://"), "{name}");
        }
    }
}
