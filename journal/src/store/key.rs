//! The names of objects: what every store can hold, and nothing that could leave its folder.
//!
//! A key is one or more segments joined by `/`. A segment is 1 to 200 of `a-z A-Z 0-9 . _ = -` and neither begins nor
//! ends with a dot: `.` and `..` would climb, a leading dot is kept for the file store's own folder, and Azure drops a
//! trailing one. Source: <https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata>.
//! Keys differ only by case at the caller's risk: some file systems fold it.

use std::fmt;
use std::str::FromStr;

/// Longest key, in bytes. S3 allows 1,024 with the store's own prefix, which needs room too.
const MAX_KEY: usize = 512;
/// Longest segment, in bytes. File systems allow 255; the file store needs none of the rest, but Windows tools do.
const MAX_SEGMENT: usize = 200;
/// Most segments: bounds the folders a create may have to make.
const MAX_DEPTH: usize = 16;

/// A text is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no object key: {why}")]
pub struct KeyError {
    text: String,
    why: &'static str,
}

fn check(text: &str) -> Result<(), KeyError> {
    let refuse = |why| {
        // Shown shortened: the text may come from a hostile listing.
        Err(KeyError { text: text.chars().take(80).collect(), why })
    };
    if text.len() > MAX_KEY {
        return refuse("longer than 512 bytes");
    }
    let mut depth = 0;
    for segment in text.split('/') {
        depth += 1;
        if segment.is_empty() {
            return refuse("an empty segment");
        }
        if segment.len() > MAX_SEGMENT {
            return refuse("a segment longer than 200 bytes");
        }
        if !segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'=' | b'-')) {
            return refuse("a character other than a-z A-Z 0-9 . _ = -");
        }
        if segment.starts_with('.') || segment.ends_with('.') {
            return refuse("a segment that begins or ends with a dot");
        }
    }
    if depth > MAX_DEPTH {
        return refuse("more than 16 segments");
    }
    Ok(())
}

/// The name of one object, relative to its store. Ordered as bytes, like every store's listing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// Checks a text.
    ///
    /// # Errors
    /// When it is no key.
    pub fn new(text: impl Into<String>) -> Result<Self, KeyError> {
        let text = text.into();
        check(&text)?;
        Ok(Self(text))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its segments, outermost first.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// The last segment.
    pub fn name(&self) -> &str {
        self.0.rsplit_once('/').map_or(self.0.as_str(), |(_, name)| name)
    }

    /// Whether the key lies below this prefix.
    pub fn is_below(&self, prefix: &KeyPrefix) -> bool {
        self.below(prefix).is_some()
    }

    /// The rest of the key below this prefix.
    pub fn below(&self, prefix: &KeyPrefix) -> Option<&str> {
        match &prefix.0 {
            None => Some(&self.0),
            Some(folder) => self.0.strip_prefix(folder.as_str())?.strip_prefix('/'),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::new(text)
    }
}

impl AsRef<str> for Key {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// A folder of keys: whole segments, or everything. `journal` holds `journal/1` and not `journal-2/1`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyPrefix(Option<String>);

impl KeyPrefix {
    /// Everything in the store.
    pub const ROOT: Self = Self(None);

    /// Checks a text; one `/` at its end is allowed, and an empty text is everything.
    ///
    /// # Errors
    /// When it is no prefix.
    pub fn new(text: &str) -> Result<Self, KeyError> {
        if text.is_empty() {
            return Ok(Self::ROOT);
        }
        let folder = text.strip_suffix('/').unwrap_or(text);
        check(folder)?;
        Ok(Self(Some(folder.to_owned())))
    }

    /// The folder without a `/` at its end; `None` for everything.
    pub fn folder(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// The key of this name below the prefix.
    ///
    /// # Errors
    /// When the whole is no key.
    pub fn key(&self, rest: impl fmt::Display) -> Result<Key, KeyError> {
        match &self.0 {
            None => Key::new(rest.to_string()),
            Some(folder) => Key::new(format!("{folder}/{rest}")),
        }
    }

    /// The folder of this name below the prefix.
    ///
    /// # Errors
    /// When the whole is no prefix.
    pub fn join(&self, rest: impl fmt::Display) -> Result<Self, KeyError> {
        self.key(rest).map(|key| Self(Some(key.0)))
    }
}

impl fmt::Display for KeyPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("/"),
            Some(folder) => write!(f, "{folder}/"),
        }
    }
}

impl FromStr for KeyPrefix {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_key_that_could_leave_its_folder_or_change_on_the_way_is_refused() {
        let long = "a".repeat(201);
        let deep = vec!["a"; 17].join("/");
        let longest = vec!["a".repeat(128); 4].join("/");
        for text in [
            "", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/./b", ".tmp/x", "a.", "a b", "a\0b", "a\\b",
            "ä", "a%2fb", "a:b", "a?b", "a#b", "a\nb", &long, &deep, &longest,
        ] {
            assert!(Key::new(text).is_err(), "{text:?}");
        }
        for text in ["a", "A/b.c/d_e=f-g", "0000000000000001", "a..b"] {
            assert_eq!(Key::new(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_prefix_holds_whole_segments_only() {
        let prefix = KeyPrefix::new("journal/").unwrap();
        assert!(Key::new("journal/1").unwrap().is_below(&prefix));
        assert_eq!(Key::new("journal/1/2").unwrap().below(&prefix), Some("1/2"));
        assert!(!Key::new("journal").unwrap().is_below(&prefix));
        assert!(!Key::new("journal-2/1").unwrap().is_below(&prefix));
        assert_eq!(prefix.key(7).unwrap().as_str(), "journal/7");
        assert!(prefix.key("../x").is_err());
        assert!(KeyPrefix::new("//").is_err());
        assert!(Key::new("x").unwrap().is_below(&KeyPrefix::ROOT));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_check_panic_and_a_good_one_has_no_climbing_segment(text in ".{0,40}") {
            if let Ok(key) = Key::new(text.as_str()) {
                prop_assert!(key.segments().all(|s| !s.is_empty() && s != "." && s != ".."));
                prop_assert_eq!(key.as_str(), text);
            }
        }
    }
}
