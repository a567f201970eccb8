//! What an answer over HTTP means, read before the client library flattens it.
//!
//! The library maps every 404 to "not found" and every 409 to "already exists"; and it repeats a conditional put whose
//! connection broke. Each would be a false statement about an object. So its connection is wrapped: an answer that is
//! no success becomes a [`Refusal`] with the provider's code, and a broken request that may have been received is
//! marked so that only reads are repeated.
//!
//! Always: bodies of errors are read up to a bound; texts that leave here hold status, code and the shape of a failure,
//! never an address with its query or a header.

use std::error::Error;
use std::fmt;

use async_trait::async_trait;
use futures::StreamExt;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};

/// Most of an error's body that is read, in bytes. Providers send a few hundred.
const MAX_BODY: usize = 16 * 1024;

/// An answer other than success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    status: u16,
    /// The provider's code, such as `NoSuchKey`; `None` when the answer had no body that holds one.
    code: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.code {
            Some(code) => write!(f, "it answered {} {code}", self.status),
            None => write!(f, "it answered {}", self.status),
        }
    }
}

impl Error for Refusal {}

/// What a failure says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The provider says this object is not there.
    NoObject,
    /// The condition of a create failed: an object is there.
    Exists,
    /// The range begins behind the object's end.
    OutOfRange,
    /// The bucket, container or account is not there.
    NoStore(String),
    /// Credentials or rights, or an object lock.
    Refused(String),
    /// The request cannot work with these settings.
    Settings(String),
    /// Try again later.
    Busy { reason: String, ambiguous: bool },
    /// No connection, or it broke.
    Unreachable { reason: String, ambiguous: bool },
    /// No answer in time.
    TimedOut,
    /// No space, or a quota reached.
    Full,
    /// Anything else.
    Strange { reason: String, ambiguous: bool },
}

impl Refusal {
    /// Sources: <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>,
    /// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html>,
    /// <https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes>,
    /// <https://cloud.google.com/storage/docs/xml-api/reference-status>.
    fn meaning(&self) -> Meaning {
        let reason = self.to_string();
        let code = self.code.as_deref().unwrap_or_default();
        match (self.status, code) {
            (404, "NoSuchKey" | "BlobNotFound") => Meaning::NoObject,
            (404, "NoSuchBucket" | "ContainerNotFound" | "ResourceNotFound" | "AccountNotFound") => {
                Meaning::NoStore(reason)
            }
            // Without a code it may be a proxy, a wrong endpoint or an answer to HEAD: a doubt, not an absence.
            (404, _) => Meaning::Strange { reason, ambiguous: false },
            (304 | 412, _) => Meaning::Exists,
            (409, "BlobAlreadyExists" | "BlobImmutableDueToPolicy") => Meaning::Exists,
            // Another conditional request for the key is in flight: nothing was decided.
            (409, _) => Meaning::Busy { reason, ambiguous: false },
            (416, _) => Meaning::OutOfRange,
            (_, "QuotaExceeded" | "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded") | (507, _) => {
                Meaning::Full
            }
            (401 | 403, _) | (400, "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired") => {
                Meaning::Refused(reason)
            }
            (300..=399, _) => Meaning::Settings(format!("{reason}; is the region or endpoint right?")),
            (429, _) => Meaning::Busy { reason, ambiguous: false },
            (408 | 500..=599, _) => Meaning::Busy { reason, ambiguous: true },
            // Also a success whose body reports a failure.
            (200..=299, _) => Meaning::Busy { reason, ambiguous: true },
            (400, "RequestTimeout") => Meaning::Busy { reason, ambiguous: true },
            _ => Meaning::Strange { reason, ambiguous: false },
        }
    }
}

/// What a failure of the client library says.
pub(super) fn meaning(error: &object_store::Error) -> Meaning {
    let mut at: Option<&(dyn Error + 'static)> = Some(error);
    let mut shape: Option<HttpErrorKind> = None;
    let mut last = String::new();
    while let Some(inner) = at {
        if let Some(refusal) = inner.downcast_ref::<Refusal>() {
            return refusal.meaning();
        }
        if let Some(http) = inner.downcast_ref::<HttpError>() {
            shape = Some(http.kind());
        }
        if inner.source().is_none() && shape.is_some() {
            // The innermost cause of a transport failure: "connection refused", a certificate's fault. No address.
            last = inner.to_string();
        }
        at = inner.source();
    }
    match (shape, error) {
        (Some(HttpErrorKind::Timeout), _) => Meaning::TimedOut,
        (Some(HttpErrorKind::Connect), _) => Meaning::Unreachable { reason: last, ambiguous: false },
        (Some(_), _) => Meaning::Unreachable { reason: last, ambiguous: true },
        // Found by the library itself, in an answer that was a success: an item of a batch delete.
        (None, object_store::Error::NotFound { .. }) => Meaning::NoObject,
        (None, object_store::Error::UnknownConfigurationKey { key, .. }) => {
            Meaning::Settings(format!("no option goes by {key:?}"))
        }
        (None, error) => Meaning::Strange { reason: kind(error).into(), ambiguous: true },
    }
}

/// The kind of an error of the library, without its text: that may hold an address with a signature.
fn kind(error: &object_store::Error) -> &'static str {
    use object_store::Error as E;
    match error {
        E::NotFound { .. } => "something is not there",
        E::InvalidPath { .. } => "a name in it is no path",
        E::NotSupported { .. } | E::NotImplemented { .. } => "it cannot do this",
        E::AlreadyExists { .. } | E::Precondition { .. } | E::NotModified { .. } => "a condition failed",
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => "it refused",
        _ => "the answer could not be read, or credentials could not be had",
    }
}

/// Connects like the library's own connector, and reads answers as this module says.
#[derive(Debug, Default)]
pub(super) struct Connector(ReqwestConnector);

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Reader(self.0.connect(options)?)))
    }
}

#[derive(Debug)]
struct Reader(HttpClient);

#[async_trait]
impl HttpService for Reader {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let reads = matches!(request.method().as_str(), "GET" | "HEAD");
        let answer = match self.0.execute(request).await {
            Ok(answer) => answer,
            // The library holds a request that broke off to be unsent and repeats it; but its bytes may have arrived.
            Err(error) if !reads && error.kind() == HttpErrorKind::Request => {
                return Err(HttpError::new(HttpErrorKind::Unknown, error));
            }
            Err(error) => return Err(error),
        };
        let status = answer.status().as_u16();
        if (200..=299).contains(&status) {
            return Ok(answer);
        }
        let mut body = Vec::new();
        let mut parts = answer.into_body().bytes_stream();
        while body.len() < MAX_BODY
            && let Some(Ok(part)) = parts.next().await
        {
            body.extend_from_slice(&part);
        }
        body.truncate(MAX_BODY);
        let refusal = Refusal { status, code: code(&body) };
        // `Interrupted` is what the library repeats for reads and for nothing else; `Unknown` it never repeats.
        let again = reads && matches!(refusal.meaning(), Meaning::Busy { .. });
        let shape = if again { HttpErrorKind::Interrupted } else { HttpErrorKind::Unknown };
        Err(HttpError::new(shape, refusal))
    }
}

/// The provider's code in an error's body: `<Code>NoSuchKey</Code>`. Only letters and digits, so that a hostile body
/// cannot put a text of its own into messages.
fn code(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let (_, rest) = text.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    let code = code.trim();
    ((1..=64).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_alphanumeric()))
        .then(|| code.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, code: &str) -> Meaning {
        Refusal { status, code: (!code.is_empty()).then(|| code.to_owned()) }.meaning()
    }

    #[test]
    fn only_the_code_for_a_missing_object_means_not_found() {
        assert_eq!(refusal(404, "NoSuchKey"), Meaning::NoObject);
        assert_eq!(refusal(404, "BlobNotFound"), Meaning::NoObject);
        for code in ["NoSuchBucket", "ContainerNotFound"] {
            assert!(matches!(refusal(404, code), Meaning::NoStore(_)), "{code}");
        }
        for code in ["", "NotFound", "NoSuchUpload"] {
            assert!(matches!(refusal(404, code), Meaning::Strange { .. }), "{code}");
        }
        assert!(matches!(refusal(403, "AccessDenied"), Meaning::Refused(_)));
    }

    #[test]
    fn a_conflict_in_flight_is_not_taken_for_an_existing_object() {
        assert_eq!(refusal(412, "PreconditionFailed"), Meaning::Exists);
        assert_eq!(refusal(409, "BlobAlreadyExists"), Meaning::Exists);
        for code in ["ConditionalRequestConflict", "OperationAborted", ""] {
            assert!(matches!(refusal(409, code), Meaning::Busy { ambiguous: false, .. }), "{code}");
        }
    }

    #[test]
    fn an_answer_of_a_broken_server_leaves_a_create_in_doubt() {
        for status in [500, 502, 503, 504, 408] {
            assert!(matches!(refusal(status, ""), Meaning::Busy { ambiguous: true, .. }), "{status}");
        }
        assert!(matches!(refusal(429, ""), Meaning::Busy { ambiguous: false, .. }));
    }

    #[test]
    fn a_body_gives_a_code_of_letters_and_digits_or_none() {
        assert_eq!(code(b"<Error><Code>NoSuchKey</Code></Error>"), Some("NoSuchKey".into()));
        for body in [&b""[..], b"<Code>", b"<Code></Code>", b"<Code>a b</Code>", b"\xff<Code>a</Code>"] {
            assert_eq!(code(body), None);
        }
    }
}
