//! What a receiver is asked about tails, as HTTP. See [`Tails`](crate::store::tails::Tails) for what each means.
//!
//! ```text
//! POST   /store/2/tails/FOLDER                                 begun, its id in farshore-tail
//! PUT    /store/2/tails/FOLDER/ID?order=&at=&free=KEY          appended
//! GET    /store/2/tails/FOLDER                                 tails: what stands in them
//! GET    /store/2/firsts/FOLDER                                peeked: what they begin with, closed in farshore-closed
//! DELETE /store/2/tails/FOLDER                                 removed
//! POST   /store/2/closed/FOLDER                                closed
//! GET    /store/2/folders/FOLDER                               folders, as JSON
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};
use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};

use super::{number, put_text, text};
use crate::store::tails::{MAX_TAILS, PEEKED, Peeked, Standing, TAIL_BYTES};
use crate::store::{Key, KeyPrefix};

/// The id of a tail that was begun.
const TAIL: HeaderName = HeaderName::from_static("farshore-tail");
const TAILS: &str = "/store/2/tails/";
const CLOSED: &str = "/store/2/closed/";
const FIRSTS: &str = "/store/2/firsts/";
/// `1` where a folder that was peeked at is closed.
const IS_CLOSED: HeaderName = HeaderName::from_static("farshore-closed");
const FOLDERS: &str = "/store/2/folders/";
/// Most characters of an id.
const MAX_ID: usize = 64;

/// A question about tails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TailAsked {
    /// To make a tail in a folder.
    Begin {
        /// Where.
        folder: KeyPrefix,
    },
    /// To append the body to a tail that this receiver began.
    Append {
        /// Where it is.
        folder: KeyPrefix,
        /// Which.
        id: String,
        /// How many were appended to it before: any other than the next is refused.
        order: u64,
        /// Where the bytes begin.
        at: u64,
        /// What must not be there.
        free: Key,
        /// Of the bytes.
        length: u64,
    },
    /// To close a folder.
    Close {
        /// Which.
        folder: KeyPrefix,
    },
    /// What stands in a folder.
    Read {
        /// Which.
        folder: KeyPrefix,
    },
    /// What the tails of a folder begin with.
    Peek {
        /// Which.
        folder: KeyPrefix,
    },
    /// Which folders there are.
    Folders {
        /// Right below this.
        below: KeyPrefix,
    },
    /// To delete a folder.
    Remove {
        /// Which.
        folder: KeyPrefix,
    },
}

impl TailAsked {
    /// The folder that it is about.
    pub fn folder(&self) -> &KeyPrefix {
        match self {
            Self::Begin { folder }
            | Self::Append { folder, .. }
            | Self::Close { folder }
            | Self::Read { folder }
            | Self::Peek { folder }
            | Self::Folders { below: folder }
            | Self::Remove { folder } => folder,
        }
    }

    /// Whether it changes something where it is done.
    pub const fn writes(&self) -> bool {
        !matches!(self, Self::Read { .. } | Self::Peek { .. } | Self::Folders { .. })
    }

    /// Whether it may be asked again where its answer was lost (T2).
    pub const fn may_be_repeated(&self) -> bool {
        !matches!(self, Self::Append { .. })
    }

    pub(super) fn to_http(&self) -> (Method, String, HeaderMap) {
        let mut headers = HeaderMap::new();
        let name = self.folder().folder().unwrap_or_default();
        let (method, path) = match self {
            Self::Begin { .. } => (Method::POST, format!("{TAILS}{name}")),
            Self::Append { id, order, at, free, length, .. } => {
                headers.insert(CONTENT_LENGTH, HeaderValue::from(*length));
                (Method::PUT, format!("{TAILS}{name}/{id}?order={order}&at={at}&free={free}"))
            }
            Self::Close { .. } => (Method::POST, format!("{CLOSED}{name}")),
            Self::Read { .. } => (Method::GET, format!("{TAILS}{name}")),
            Self::Peek { .. } => (Method::GET, format!("{FIRSTS}{name}")),
            Self::Folders { .. } => (Method::GET, format!("{FOLDERS}{name}")),
            Self::Remove { .. } => (Method::DELETE, format!("{TAILS}{name}")),
        };
        (method, path, headers)
    }

    /// Reads a question, if the path is one of these.
    ///
    /// # Errors
    /// In words, when it is none all the same.
    pub(super) fn read(
        method: &Method,
        path: &str,
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<Option<Self>, String> {
        let folder = |text: &str| match KeyPrefix::new(text) {
            Ok(folder) if folder.folder().is_some() && !text.ends_with('/') => Ok(folder),
            Ok(_) => Err("it names no folder".to_owned()),
            Err(why) => Err(why.to_string()),
        };
        let asked = if let Some(name) = path.strip_prefix(CLOSED) {
            (method == Method::POST).then_some(Self::Close { folder: folder(name)? })
        } else if let Some(name) = path.strip_prefix(FIRSTS) {
            (method == Method::GET).then_some(Self::Peek { folder: folder(name)? })
        } else if let Some(name) = path.strip_prefix(FOLDERS) {
            (method == Method::GET).then_some(Self::Folders { below: folder(name)? })
        } else if let Some(name) = path.strip_prefix(TAILS) {
            match method.as_str() {
                "PUT" => return append(name, query.unwrap_or_default(), headers, folder).map(Some),
                "POST" => Some(Self::Begin { folder: folder(name)? }),
                "GET" => Some(Self::Read { folder: folder(name)? }),
                "DELETE" => Some(Self::Remove { folder: folder(name)? }),
                _ => None,
            }
        } else {
            return Ok(None);
        };
        match (asked, query) {
            (Some(asked), None) => Ok(Some(asked)),
            (Some(_), Some(_)) => Err("a folder of tails has no query".to_owned()),
            (None, _) => Err("a folder of tails does not take that".to_owned()),
        }
    }
}

fn append(
    name: &str,
    query: &str,
    headers: &HeaderMap,
    folder: impl Fn(&str) -> Result<KeyPrefix, String>,
) -> Result<TailAsked, String> {
    let (name, id) = name.rsplit_once('/').ok_or("it names no tail")?;
    if id.is_empty() || id.len() > MAX_ID || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err("it names no tail".to_owned());
    }
    let (mut order, mut at, mut free) = (None, None, None);
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some(("order", value)) if order.is_none() => order = value.parse().ok(),
            Some(("at", value)) if at.is_none() => at = value.parse().ok(),
            Some(("free", value)) if free.is_none() => free = Key::new(value).ok(),
            _ => return Err("its query does not read".to_owned()),
        }
    }
    let (Some(order), Some(at), Some(free)) = (order, at, free) else {
        return Err("its query lacks something".to_owned());
    };
    let length = number(headers, CONTENT_LENGTH)?.ok_or("it has no content-length")?;
    if length == 0 || length > TAIL_BYTES {
        return Err(format!("a tail has {TAIL_BYTES} bytes"));
    }
    Ok(TailAsked::Append { folder: folder(name)?, id: id.to_owned(), order, at, free, length })
}

/// An answer about tails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TailAnswer {
    /// A tail was made, and goes by this id at this receiver, as long as it runs.
    Begun(String),
    /// What was sent is in the tail, durable, and not in vain.
    Appended,
    /// The folder is closed.
    Closed,
    /// What stands in its tails.
    Tails(Vec<Standing>),
    /// What its tails begin with.
    Peeked(Peeked),
    /// Folders.
    Folders(Vec<KeyPrefix>),
    /// It is gone.
    Removed,
}

impl TailAnswer {
    pub(super) fn to_http(&self, headers: &mut HeaderMap) -> (&'static str, Bytes) {
        match self {
            Self::Begun(id) => {
                put_text(headers, TAIL, id);
                ("begun", Bytes::new())
            }
            Self::Appended => ("appended", Bytes::new()),
            Self::Closed => ("closed", Bytes::new()),
            Self::Tails(all) => {
                let mut body = BytesMut::new();
                for tail in all {
                    body.put_u8(u8::from(tail.is_fresh));
                    body.put_u64_le(tail.bytes.len() as u64);
                    body.put_slice(&tail.bytes);
                }
                ("tails", body.freeze())
            }
            Self::Peeked(peeked) => {
                if peeked.is_closed {
                    headers.insert(IS_CLOSED, HeaderValue::from_static("1"));
                }
                ("peeked", peeked.firsts.concat().into())
            }
            Self::Folders(all) => {
                let names: Vec<&str> = all.iter().filter_map(KeyPrefix::folder).collect();
                ("folders", serde_json::to_vec(&names).unwrap_or_default().into())
            }
            Self::Removed => ("removed", Bytes::new()),
        }
    }

    /// Reads an answer, if its word is one of these.
    ///
    /// # Errors
    /// In words, when the rest of it does not read.
    pub(super) fn read(word: &str, headers: &HeaderMap, body: &Bytes) -> Result<Option<Self>, String> {
        Ok(Some(match word {
            "begun" => {
                let id = text(headers, TAIL)?.ok_or("it has no id")?;
                if id.is_empty() || id.len() > MAX_ID || !id.bytes().all(|byte| byte.is_ascii_alphanumeric())
                {
                    return Err("its id does not read".to_owned());
                }
                Self::Begun(id.to_owned())
            }
            "appended" => Self::Appended,
            "closed" => Self::Closed,
            "tails" => Self::Tails(standing(body.clone())?),
            "peeked" => {
                let mut body = body.clone();
                if !body.len().is_multiple_of(PEEKED) || body.len() > (MAX_TAILS + 1) * PEEKED {
                    return Err("what its tails begin with does not read".to_owned());
                }
                let mut firsts = Vec::new();
                while body.has_remaining() {
                    firsts.push(body.split_to(PEEKED));
                }
                Self::Peeked(Peeked { is_closed: headers.contains_key(IS_CLOSED), firsts })
            }
            "folders" => {
                let names: Vec<String> = serde_json::from_slice(body).map_err(|why| why.to_string())?;
                let folders = names.iter().map(|name| KeyPrefix::new(name)).collect::<Result<_, _>>();
                Self::Folders(folders.map_err(|why| why.to_string())?)
            }
            "removed" => Self::Removed,
            _ => return Ok(None),
        }))
    }
}

fn standing(mut body: Bytes) -> Result<Vec<Standing>, String> {
    let mut all = Vec::new();
    while body.has_remaining() {
        if body.remaining() < 9 || all.len() == MAX_TAILS {
            return Err("its tails do not read".to_owned());
        }
        let (is_fresh, length) = (body.get_u8() == 1, body.get_u64_le());
        match usize::try_from(length) {
            Ok(length) if length <= body.remaining() => {
                all.push(Standing { bytes: body.split_to(length), is_fresh })
            }
            _ => return Err("a tail of it is cut off".to_owned()),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> KeyPrefix {
        KeyPrefix::new("db/orders/in-0/0000000000000003").unwrap()
    }

    fn through(asked: &TailAsked) -> Result<Option<TailAsked>, String> {
        let (method, path, headers) = asked.to_http();
        let (path, query) =
            path.split_once('?').map_or((path.as_str(), None), |(path, query)| (path, Some(query)));
        TailAsked::read(&method, path, query, &headers)
    }

    #[test]
    fn each_question_about_tails_is_read_as_it_was_asked() {
        let free = Key::new("db/orders/in-0/journal/0000000000000009").unwrap();
        for asked in [
            TailAsked::Begin { folder: folder() },
            TailAsked::Append { folder: folder(), id: "a1".to_owned(), order: 7, at: 8192, free, length: 5 },
            TailAsked::Close { folder: folder() },
            TailAsked::Read { folder: folder() },
            TailAsked::Peek { folder: folder() },
            TailAsked::Folders { below: folder() },
            TailAsked::Remove { folder: folder() },
        ] {
            assert_eq!(through(&asked), Ok(Some(asked)));
        }
    }

    #[test]
    fn what_is_no_question_about_tails_is_refused() {
        let mut sized = HeaderMap::new();
        sized.insert(CONTENT_LENGTH, HeaderValue::from(5));
        for (method, path, query) in [
            (Method::PUT, "/store/2/tails/db/a", None),
            (Method::PUT, "/store/2/tails/db/a/1", Some("order=1&at=2")),
            (Method::PUT, "/store/2/tails/db/a/1", Some("order=1&order=1&at=2&free=a")),
            (Method::PUT, "/store/2/tails/db/a/%31", Some("order=1&at=2&free=a")),
            (Method::PUT, "/store/2/tails/db/a/1", Some("order=1&at=2&free=../a")),
            (Method::POST, "/store/2/tails/", None),
            (Method::POST, "/store/2/tails/db/../a", None),
            (Method::POST, "/store/2/closed/", None),
            (Method::POST, "/store/2/closed/db/a", Some("x=1")),
            (Method::GET, "/store/2/closed/db/a", None),
            (Method::PATCH, "/store/2/tails/db/a", None),
        ] {
            let read = TailAsked::read(&method, path, query, &sized);
            assert!(read.is_err(), "{method} {path} {query:?}: {read:?}");
        }
    }

    #[test]
    fn each_answer_about_tails_is_read_as_it_was_given() {
        let tail = |bytes: &'static [u8], is_fresh| Standing { bytes: Bytes::from_static(bytes), is_fresh };
        for answer in [
            TailAnswer::Begun("0a".to_owned()),
            TailAnswer::Appended,
            TailAnswer::Closed,
            TailAnswer::Tails(vec![]),
            TailAnswer::Tails(vec![tail(b"abc", true), tail(b"", false), tail(b"d", false)]),
            TailAnswer::Peeked(Peeked::default()),
            TailAnswer::Peeked(Peeked { is_closed: true, firsts: vec![Bytes::from_static(&[7; PEEKED]); 2] }),
            TailAnswer::Folders(vec![folder()]),
            TailAnswer::Removed,
        ] {
            let mut headers = HeaderMap::new();
            let (word, body) = answer.to_http(&mut headers);
            assert_eq!(TailAnswer::read(word, &headers, &body), Ok(Some(answer)));
        }
        let cut = Bytes::from_static(&[1, 9, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert!(TailAnswer::read("tails", &HeaderMap::new(), &cut).is_err());
    }
}
