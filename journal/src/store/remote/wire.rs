//! What a receiver is asked and what it answers, as HTTP: the one place that knows both halves.
//!
//! ```text
//! PUT    /store/2/objects/KEY   content-length, farshore-blake3        created | exists
//! GET    /store/2/objects/KEY   range: bytes=FROM-LAST, or none        object
//! GET    /store/2/sizes/KEY                                            length, in farshore-length
//! DELETE /store/2/objects/KEY                                          deleted
//! GET    /store/2/list?prefix=&after=&limit=                           listed, as JSON
//! GET    /store/2/alive                                                alive
//! ```
//!
//! What always holds: an answer counts only by its header `farshore-answer`, whatever its status says; a failure says with `farshore-ambiguous` whether what
//! was asked may have taken effect, and its body is a reason for people. (Nothing is asked by HEAD: an answer to it may have no body, and so no reason.)

use std::ops::Range;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, RANGE};
use serde::{Deserialize, Serialize};

use crate::store::tails::Tails;
use crate::store::{Created, HasTails, Key, KeyPrefix, Listed, ObjectStore, Operation, StoreError};

mod tails;

pub use tails::{TailAnswer, TailAsked};

/// The word of an answer.
pub const ANSWER: HeaderName = HeaderName::from_static("farshore-answer");
/// `1` where what was asked may have taken effect.
pub const AMBIGUOUS: HeaderName = HeaderName::from_static("farshore-ambiguous");
/// The BLAKE3 digest of what is put, in hex.
pub const DIGEST: HeaderName = HeaderName::from_static("farshore-blake3");
/// The length of an object, in bytes.
pub const LENGTH: HeaderName = HeaderName::from_static("farshore-length");

/// Which store answers: the digest of its record, in hex, or `-` while it has none. Two ways to one receiver say the same.
pub const STORE: HeaderName = HeaderName::from_static("farshore-store");
/// `1` where a listing goes on behind its last object.
pub const MORE: HeaderName = HeaderName::from_static("farshore-more");

/// Most bytes of one object that is put: parts of backups are 16 MiB and segments a few times that.
pub const MOST_BYTES: u64 = 128 << 20;
/// Most objects in the answer to one listing; whoever wants more asks for what comes after.
pub const MOST_LISTED: usize = 100_000;

const OBJECTS: &str = "/store/2/objects/";
const SIZES: &str = "/store/2/sizes/";
const LIST: &str = "/store/2/list";
const ALIVE: &str = "/store/2/alive";

/// What a receiver is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// Whether it is there.
    Alive,
    /// To create an object of so many bytes with this digest.
    Create {
        /// The object.
        key: Key,
        /// Its length in bytes.
        length: u64,
        /// Of its bytes.
        digest: [u8; 32],
    },
    /// For an object, or a range of it.
    Get {
        /// The object.
        key: Key,
        /// Half-open; `None`: all of it.
        range: Option<Range<u64>>,
    },
    /// How long an object is.
    Size {
        /// The object.
        key: Key,
    },
    /// What there is.
    List {
        /// Below this.
        prefix: KeyPrefix,
        /// Behind this.
        after: Option<Key>,
        /// At most so many.
        limit: Option<usize>,
    },
    /// To delete an object.
    Delete {
        /// The object.
        key: Key,
    },
    /// Something about tails.
    Tail(TailAsked),
}

impl Asked {
    /// What it is called in errors.
    pub const fn operation(&self) -> Operation {
        match self {
            Self::Alive => Operation::Open,
            Self::Create { .. } => Operation::Create,
            Self::Get { .. } => Operation::Get,
            Self::Size { .. } => Operation::Size,
            Self::List { .. } => Operation::List,
            Self::Delete { .. } => Operation::Delete,
            Self::Tail(_) => Operation::Append,
        }
    }

    /// Whether it changes something where it is done.
    pub const fn writes(&self) -> bool {
        match self {
            Self::Create { .. } | Self::Delete { .. } => true,
            Self::Tail(asked) => asked.writes(),
            Self::Alive | Self::Get { .. } | Self::Size { .. } | Self::List { .. } => false,
        }
    }

    /// Whether it may be asked again, over another way, where its answer was lost.
    pub const fn may_be_repeated(&self) -> bool {
        match self {
            Self::Tail(asked) => asked.may_be_repeated(),
            _ => true,
        }
    }

    /// What it is about, in errors.
    pub fn what(&self) -> String {
        match self {
            Self::Alive => "the receiver".to_owned(),
            Self::Create { key, .. } | Self::Get { key, .. } | Self::Size { key } | Self::Delete { key } => {
                key.to_string()
            }
            Self::List { prefix, .. } => prefix.to_string(),
            Self::Tail(asked) => format!("the tails of {}", asked.folder()),
        }
    }

    /// Method, path with query, and headers of the question. A create's bytes are its body.
    pub fn to_http(&self) -> (Method, String, HeaderMap) {
        let mut headers = HeaderMap::new();
        let (method, path) = match self {
            Self::Alive => (Method::GET, ALIVE.to_owned()),
            Self::Create { key, length, digest } => {
                headers.insert(CONTENT_LENGTH, HeaderValue::from(*length));
                put_text(&mut headers, DIGEST, &hex::encode(digest));
                (Method::PUT, format!("{OBJECTS}{key}"))
            }
            Self::Get { key, range } => {
                if let Some(range) = range {
                    // An empty range has no last byte: it goes as one that nobody can have, and is refused as such.
                    let last = range.end.max(1) - 1;
                    put_text(&mut headers, RANGE, &format!("bytes={}-{last}", range.start));
                }
                (Method::GET, format!("{OBJECTS}{key}"))
            }
            Self::Size { key } => (Method::GET, format!("{SIZES}{key}")),
            Self::Delete { key } => (Method::DELETE, format!("{OBJECTS}{key}")),
            Self::Tail(asked) => return asked.to_http(),
            Self::List { prefix, after, limit } => {
                // Keys and prefixes need no escapes: `key` says which characters they have.
                let mut path = format!("{LIST}?prefix={}", prefix.folder().unwrap_or_default());
                if let Some(after) = after {
                    path.push_str(&format!("&after={after}"));
                }
                if let Some(limit) = limit {
                    path.push_str(&format!("&limit={limit}"));
                }
                (Method::GET, path)
            }
        };
        (method, path, headers)
    }

    /// Reads a question.
    ///
    /// # Errors
    /// In words, when it is none.
    pub fn read(
        method: &Method,
        path: &str,
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<Self, String> {
        if (method, path) == (&Method::GET, ALIVE) {
            return Ok(Self::Alive);
        }
        if (method, path) == (&Method::GET, LIST) {
            return listing(query.unwrap_or_default());
        }
        if let Some(asked) = TailAsked::read(method, path, query, headers)? {
            return Ok(Self::Tail(asked));
        }
        if query.is_some() {
            return Err("an object has no query".to_owned());
        }
        if let (&Method::GET, Some(key)) = (method, path.strip_prefix(SIZES)) {
            return Ok(Self::Size { key: Key::new(key).map_err(|why| why.to_string())? });
        }
        let key = path.strip_prefix(OBJECTS).ok_or("there is nothing at this path")?;
        let key = Key::new(key).map_err(|why| why.to_string())?;
        match method.as_str() {
            "PUT" => {
                let length = number(headers, CONTENT_LENGTH)?.ok_or("it has no content-length")?;
                let digest = text(headers, DIGEST)?.ok_or("it has no digest")?;
                let mut bytes = [0; 32];
                hex::decode_to_slice(digest, &mut bytes).map_err(|why| format!("its digest: {why}"))?;
                Ok(Self::Create { key, length, digest: bytes })
            }
            "GET" => Ok(Self::Get { key, range: text(headers, RANGE)?.map(range).transpose()? }),
            "DELETE" => Ok(Self::Delete { key }),
            _ => Err("an object takes PUT, GET and DELETE".to_owned()),
        }
    }
}

fn put_text(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // Made here of digits and letters.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, String> {
    let value = headers.get(&name).map(|value| value.to_str().map_err(|_| format!("{name} is no text")));
    value.transpose()
}

fn number(headers: &HeaderMap, name: HeaderName) -> Result<Option<u64>, String> {
    let of = |text: &str| text.parse().map_err(|_| format!("{name} is no number"));
    text(headers, name.clone())?.map(of).transpose()
}

/// `bytes=FROM-LAST`, and nothing else that RFC 9110 has.
fn range(text: &str) -> Result<Range<u64>, String> {
    let read = || {
        let (from, last) = text.strip_prefix("bytes=")?.split_once('-')?;
        Some(from.parse().ok()?..last.parse::<u64>().ok()?.checked_add(1)?)
    };
    read().ok_or_else(|| "its range does not read".to_owned())
}

fn listing(query: &str) -> Result<Asked, String> {
    let (mut prefix, mut after, mut limit) = (None, None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or("its query does not read")?;
        match name {
            "prefix" if prefix.is_none() => {
                prefix = Some(match value {
                    "" => KeyPrefix::ROOT,
                    folder => KeyPrefix::new(folder).map_err(|why| why.to_string())?,
                });
            }
            "after" if after.is_none() => after = Some(Key::new(value).map_err(|why| why.to_string())?),
            "limit" if limit.is_none() => {
                limit = Some(value.parse().map_err(|_| "its limit is no number")?);
            }
            _ => return Err("its query does not read".to_owned()),
        }
    }
    Ok(Asked::List { prefix: prefix.ok_or("it names no prefix")?, after, limit })
}

/// What a receiver answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is there.
    Alive,
    /// The object was made, and is durable.
    Created,
    /// An object is there.
    Exists,
    /// Bytes of an object.
    Object(Bytes),
    /// The length of an object, in bytes.
    Length(u64),
    /// Objects, sorted.
    Listed {
        /// They.
        listed: Vec<Listed>,
        /// Whether there are more behind the last.
        more: bool,
    },
    /// The object is not there any more.
    Deleted,
    /// Of tails.
    Tail(TailAnswer),
    /// It did not do what it was asked.
    Failed(Failure),
}

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure it is.
    pub word: Word,
    /// Whether what was asked may have taken effect.
    pub ambiguous: bool,
    /// For people; nothing secret.
    pub reason: String,
}

macro_rules! words {
    ($($(#[$doc:meta])* $variant:ident = $word:literal, $status:literal,)*) => {
        /// A kind of failure.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Word { $($(#[$doc])* $variant,)* }

        impl Word {
            const ALL: &'static [Self] = &[$(Self::$variant,)*];

            const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            const fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }
        }
    };
}

words! {
    /// The store says that the object is not there.
    NotFound = "not-found", 404,
    /// The range begins at or behind the object's end, or is empty.
    OutOfRange = "out-of-range", 416,
    /// The client's names do not allow it, or the store refused.
    Refused = "refused", 403,
    /// The directory is not there.
    NoStore = "no-store", 503,
    /// No space left.
    Full = "full", 507,
    /// The directory does not keep a store's promises.
    Unsafe = "unsafe", 500,
    /// The question does not read, or its bytes are not what it says.
    Malformed = "malformed", 400,
    /// Not now.
    Busy = "busy", 503,
}

impl Answer {
    /// A failure that changed nothing.
    pub fn refused(word: Word, reason: impl Into<String>) -> Self {
        Self::Failed(Failure { word, ambiguous: false, reason: reason.into() })
    }

    /// The first of a list, and whether there are more.
    pub fn listed(mut listed: Vec<Listed>, most: usize) -> Self {
        let more = listed.len() > most;
        listed.truncate(most);
        Self::Listed { listed, more }
    }

    /// That a store did not do it.
    pub fn failed(why: &StoreError) -> Self {
        Self::Failed(failure(why))
    }

    /// Status, headers and body.
    pub fn to_http(&self) -> (u16, HeaderMap, Bytes) {
        let mut headers = HeaderMap::new();
        let (status, word, body) = match self {
            Self::Alive => (200, "alive", Bytes::new()),
            Self::Created => (201, "created", Bytes::new()),
            Self::Exists => (200, "exists", Bytes::new()),
            Self::Object(bytes) => (200, "object", bytes.clone()),
            Self::Length(length) => {
                headers.insert(LENGTH, HeaderValue::from(*length));
                (200, "length", Bytes::new())
            }
            Self::Listed { listed, more } => {
                if *more {
                    headers.insert(MORE, HeaderValue::from_static("1"));
                }
                let rows: Vec<Row> = listed.iter().map(Row::of).collect();
                (200, "listed", serde_json::to_vec(&rows).unwrap_or_default().into())
            }
            Self::Deleted => (200, "deleted", Bytes::new()),
            Self::Tail(answer) => {
                let (word, body) = answer.to_http(&mut headers);
                (200, word, body)
            }
            Self::Failed(failure) => {
                if failure.ambiguous {
                    headers.insert(AMBIGUOUS, HeaderValue::from_static("1"));
                }
                (failure.word.status(), failure.word.word(), failure.reason.clone().into())
            }
        };
        headers.insert(ANSWER, HeaderValue::from_static(word));
        (status, headers, body)
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// In words, when it is none.
    pub fn read(headers: &HeaderMap, body: Bytes) -> Result<Self, String> {
        let word = text(headers, ANSWER)?.ok_or("it is no receiver's")?;
        Ok(match word {
            "alive" => Self::Alive,
            "created" => Self::Created,
            "exists" => Self::Exists,
            "object" => Self::Object(body),
            "length" => Self::Length(number(headers, LENGTH)?.ok_or("it has no length")?),
            "listed" => {
                let rows: Vec<Row> = serde_json::from_slice(&body).map_err(|why| why.to_string())?;
                let listed = rows.into_iter().map(Row::read).collect::<Result<_, _>>()?;
                Self::Listed { listed, more: headers.contains_key(MORE) }
            }
            "deleted" => Self::Deleted,
            failed => {
                if let Some(answer) = TailAnswer::read(failed, headers, &body)? {
                    return Ok(Self::Tail(answer));
                }
                let known = Word::ALL.iter().copied().find(|known| known.word() == failed);
                let word = known.ok_or("its word is of another version")?;
                let text = String::from_utf8_lossy(&body);
                // It ends up in logs and on terminals.
                let reason = text.chars().filter(|c| !c.is_control()).take(MOST_REASON).collect();
                Self::Failed(Failure { word, ambiguous: headers.contains_key(AMBIGUOUS), reason })
            }
        })
    }
}

/// Characters of a reason that are kept.
const MOST_REASON: usize = 1000;

/// A listed object.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    key: String,
    size: u64,
    /// Microseconds since 1970, UTC.
    modified: i64,
}

impl Row {
    fn of(listed: &Listed) -> Self {
        Self { key: listed.key.to_string(), size: listed.size, modified: listed.modified.timestamp_micros() }
    }

    fn read(self) -> Result<Listed, String> {
        let key = Key::new(self.key).map_err(|why| why.to_string())?;
        let modified: DateTime<Utc> =
            DateTime::from_timestamp_micros(self.modified).ok_or("a time that is none")?;
        Ok(Listed { key, size: self.size, modified })
    }
}

/// How many objects of a list are given at once, of so many that are wanted.
pub fn most(limit: Option<usize>) -> usize {
    limit.map_or(MOST_LISTED, |limit| limit.min(MOST_LISTED))
}

/// Asks a store what a receiver was asked. Who may ask is the caller's matter; `bytes` are a create's, whole and as long as it says.
pub async fn answer(store: &dyn ObjectStore, asked: &Asked, bytes: Bytes) -> Answer {
    let answered = match asked {
        Asked::Alive => Ok(Answer::Alive),
        Asked::Create { key, digest, .. } => {
            if blake3::hash(&bytes) != *digest {
                let reason = format!("the bytes of {key} arrived as others than were sent");
                return Answer::refused(Word::Malformed, reason);
            }
            let created = store.create(key, bytes).await;
            created.map(|created| match created {
                Created::New => Answer::Created,
                Created::Exists => Answer::Exists,
            })
        }
        Asked::Get { key, range: None } => store.get(key).await.map(Answer::Object),
        Asked::Get { key, range: Some(range) } => {
            store.get_range(key, range.clone()).await.map(Answer::Object)
        }
        Asked::Size { key } => store.size(key).await.map(Answer::Length),
        Asked::List { prefix, after, limit } => {
            let most = most(*limit);
            store.list(prefix, after.as_ref(), Some(most + 1)).await.map(|all| Answer::listed(all, most))
        }
        Asked::Delete { key } => store.delete(key).await.map(|()| Answer::Deleted),
        Asked::Tail(asked) => match store.tails() {
            HasTails::Yes(tails) | HasTails::ReadOnly(tails) => answer_tail(tails, asked).await,
            HasTails::Never => return Answer::refused(Word::Refused, "there are no tails here"),
        },
    };
    answered.unwrap_or_else(|why| Answer::failed(&why))
}

/// Whoever keeps tails for others begins them and appends to them himself: he must remember them.
async fn answer_tail(tails: &dyn Tails, asked: &TailAsked) -> Result<Answer, StoreError> {
    let answered = match asked {
        TailAsked::Begin { .. } | TailAsked::Append { .. } => {
            return Ok(Answer::refused(Word::Malformed, "nobody remembers a tail here"));
        }
        TailAsked::Close { folder } => tails.close(folder).await.map(|()| TailAnswer::Closed),
        TailAsked::Read { folder } => tails.read(folder).await.map(TailAnswer::Tails),
        TailAsked::Peek { folder } => tails.peek(folder).await.map(TailAnswer::Peeked),
        TailAsked::Folders { below } => tails.folders(below).await.map(TailAnswer::Folders),
        TailAsked::Remove { folder } => tails.remove(folder).await.map(|()| TailAnswer::Removed),
    };
    answered.map(Answer::Tail)
}

fn failure(why: &StoreError) -> Failure {
    let word = match why {
        StoreError::NotFound { .. } => Word::NotFound,
        StoreError::OutOfRange { .. } => Word::OutOfRange,
        StoreError::Refused { .. } | StoreError::Settings { .. } => Word::Refused,
        StoreError::Key(_) => Word::Malformed,
        StoreError::NoStore { .. } => Word::NoStore,
        StoreError::Full { .. } => Word::Full,
        StoreError::Unsafe { .. } => Word::Unsafe,
        StoreError::Unreachable { .. }
        | StoreError::TimedOut { .. }
        | StoreError::Busy { .. }
        | StoreError::Io { .. }
        | StoreError::Answer { .. } => Word::Busy,
    };
    Failure { word, ambiguous: why.is_ambiguous(), reason: said(why) }
}

/// What a failure says, with its cause.
fn said(why: &StoreError) -> String {
    match std::error::Error::source(why) {
        Some(cause) => format!("{why}: {cause}"),
        None => why.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    fn through(asked: &Asked) -> Result<Asked, String> {
        let (method, path, headers) = asked.to_http();
        let (path, query) = match path.split_once('?') {
            Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
            None => (path, None),
        };
        Asked::read(&method, &path, query.as_deref(), &headers)
    }

    #[test]
    fn each_question_is_read_as_it_was_asked() {
        let one = key("db/orders/in-0/journal/0000000000000001");
        for asked in [
            Asked::Alive,
            Asked::Create { key: one.clone(), length: 0, digest: [7; 32] },
            Asked::Create { key: one.clone(), length: u64::MAX, digest: [0xff; 32] },
            Asked::Get { key: one.clone(), range: None },
            Asked::Get { key: one.clone(), range: Some(0..1) },
            Asked::Get { key: one.clone(), range: Some(5..10) },
            Asked::Size { key: one.clone() },
            Asked::Delete { key: one.clone() },
            Asked::List { prefix: KeyPrefix::ROOT, after: None, limit: None },
            Asked::List { prefix: KeyPrefix::new("db/orders").unwrap(), after: Some(one), limit: Some(3) },
        ] {
            assert_eq!(through(&asked), Ok(asked));
        }
    }

    #[test]
    fn an_empty_range_stays_one_that_nothing_has() {
        for range in [0..0, 3..3] {
            let read = through(&Asked::Get { key: key("a"), range: Some(range.clone()) });
            match read {
                Ok(Asked::Get { range: Some(read), .. }) => {
                    assert!(read.is_empty() || range.start == 0, "{read:?}")
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_is_no_question_is_refused() {
        let none = HeaderMap::new();
        for (method, path, query) in [
            (Method::GET, "/", None),
            (Method::GET, "/store/1/objects/a", None),
            (Method::GET, "/store/2/objects/../a", None),
            (Method::GET, "/store/2/objects/", None),
            (Method::GET, "/store/2/objects/a", Some("b")),
            (Method::POST, "/store/2/objects/a", None),
            (Method::HEAD, "/store/2/objects/a", None),
            (Method::PUT, "/store/2/sizes/a", None),
            (Method::PUT, "/store/2/objects/a", None),
            (Method::GET, "/store/2/list", None),
            (Method::GET, "/store/2/list", Some("prefix=a&prefix=b")),
            (Method::GET, "/store/2/list", Some("prefix=..")),
            (Method::GET, "/store/2/list", Some("prefix=a&limit=-1")),
            (Method::DELETE, "/store/2/list", Some("prefix=a")),
        ] {
            let read = Asked::read(&method, path, query, &none);
            assert!(read.is_err(), "{method} {path} {query:?}: {read:?}");
        }
        let mut ranged = HeaderMap::new();
        for text in ["bytes=-5", "bytes=5-", "bytes=0-1,3-4", "bytes=0-18446744073709551615", "lines=0-1"] {
            ranged.insert(RANGE, HeaderValue::from_str(text).unwrap());
            assert!(Asked::read(&Method::GET, "/store/2/objects/a", None, &ranged).is_err(), "{text}");
        }
    }

    #[test]
    fn each_answer_is_read_as_it_was_given() {
        let listed = Listed {
            key: key("a/b"),
            size: 5,
            modified: DateTime::from_timestamp_micros(1_700_000_000_000_001).unwrap(),
        };
        let mut answers = vec![
            Answer::Alive,
            Answer::Created,
            Answer::Exists,
            Answer::Object(Bytes::from_static(b"not-found")),
            Answer::Length(u64::MAX),
            Answer::Listed { listed: vec![listed.clone()], more: true },
            Answer::Listed { listed: vec![listed], more: false },
            Answer::Deleted,
        ];
        for word in Word::ALL {
            for ambiguous in [false, true] {
                answers.push(Answer::Failed(Failure { word: *word, ambiguous, reason: "why".to_owned() }));
            }
        }
        for answer in answers {
            let (_, headers, body) = answer.to_http();
            assert_eq!(Answer::read(&headers, body), Ok(answer));
        }
    }

    #[test]
    fn what_somebody_in_between_made_up_is_no_answer() {
        let headers = HeaderMap::new();
        assert!(Answer::read(&headers, Bytes::from_static(b"<html>404 Not Found</html>")).is_err());
        let mut headers = HeaderMap::new();
        headers.insert(ANSWER, HeaderValue::from_static("moved"));
        assert!(Answer::read(&headers, Bytes::new()).is_err());
    }

    #[test]
    fn a_reason_holds_no_controls_and_is_short() {
        let (_, headers, _) = Answer::refused(Word::Busy, "").to_http();
        let body = Bytes::from("\u{1b}[31mred\n".to_owned() + &"x".repeat(5000));
        let Ok(Answer::Failed(failure)) = Answer::read(&headers, body) else { panic!() };
        assert!(failure.reason.starts_with("[31mred") && failure.reason.len() == MOST_REASON);
    }
}
