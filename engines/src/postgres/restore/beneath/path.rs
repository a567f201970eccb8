//! A path that can only lead downwards, from a text that can say anything.
//!
//! What always holds of a [`RelPath`]: 1 to 16 names, none of them empty, `.` or `..`, without separators and
//! control characters, each at most 255 bytes. It says nothing about links: [`super::Root`] follows none.

use std::fmt;

/// Deeper than any file of a PostgreSQL (`pg_tblspc/16384/PG_18_202506291/5/16385_vm` has five names); bounds the
/// directories one hostile entry can make.
const MAX_DEPTH: usize = 16;
/// The limit of one name on every file system in use.
const MAX_NAME_BYTES: usize = 255;

/// Why an entry's path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// Begins with `/`.
    #[error("it is absolute")]
    Absolute,
    /// A name that is empty, `.` or `..`.
    #[error("it has an empty, `.` or `..` name")]
    Step,
    /// A control character or a backslash: no server makes such a name, and tools disagree on what it means.
    #[error("it has a control character or a backslash")]
    Character,
    /// A name too long for a file system.
    #[error("it has a name of more than {MAX_NAME_BYTES} bytes")]
    Long,
    /// Too many names.
    #[error("it is deeper than {MAX_DEPTH} names")]
    Deep,
}

/// A checked path, relative to a root.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelPath(String);

impl RelPath {
    /// Checks a path from a backup. One trailing `/`, as archives write directories, is dropped.
    ///
    /// # Errors
    /// When it could mean anything but one place below the root.
    pub fn parse(text: &str) -> Result<Self, PathFault> {
        if text.starts_with('/') {
            return Err(PathFault::Absolute);
        }
        let text = text.strip_suffix('/').unwrap_or(text);
        if text.is_empty() {
            return Err(PathFault::Empty);
        }
        if text.chars().any(|c| c.is_control() || c == '\\') {
            return Err(PathFault::Character);
        }
        for (depth, name) in text.split('/').enumerate() {
            match name {
                "" | "." | ".." => return Err(PathFault::Step),
                _ if name.len() > MAX_NAME_BYTES => return Err(PathFault::Long),
                _ if depth >= MAX_DEPTH => return Err(PathFault::Deep),
                _ => {}
            }
        }
        Ok(Self(text.to_owned()))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A path whose names were checked before, or are constants of ours.
    pub(super) fn trusted(text: &str) -> Self {
        debug_assert!(Self::parse(text).is_ok(), "{text:?}");
        Self(text.to_owned())
    }

    /// Its last name.
    pub(super) fn last(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// Its names, from the root down.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_path_that_could_leave_the_root_is_refused() {
        for (text, fault) in [
            ("", PathFault::Empty),
            ("/", PathFault::Absolute),
            ("/etc/passwd", PathFault::Absolute),
            ("..", PathFault::Step),
            ("a/../b", PathFault::Step),
            ("a//b", PathFault::Step),
            ("./a", PathFault::Step),
            ("a//", PathFault::Step),
            ("a\0b", PathFault::Character),
            ("a\\..\\b", PathFault::Character),
            ("a\nb", PathFault::Character),
        ] {
            assert_eq!(RelPath::parse(text), Err(fault), "{text:?}");
        }
        assert_eq!(RelPath::parse(&"a/".repeat(17)), Err(PathFault::Deep));
        assert_eq!(RelPath::parse(&"a".repeat(256)), Err(PathFault::Long));
        assert_eq!(RelPath::parse("base/5/").unwrap().as_str(), "base/5");
    }

    proptest! {
        #[test]
        fn whatever_is_admitted_has_only_downward_steps(text in "[./a\\\\\u{0}é-]{0,24}") {
            if let Ok(path) = RelPath::parse(&text) {
                let downward = std::path::Path::new(path.as_str())
                    .components()
                    .all(|c| matches!(c, std::path::Component::Normal(_)));
                prop_assert!(downward);
            }
        }
    }
}
