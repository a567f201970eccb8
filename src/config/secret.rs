//! Secrets: where one comes from, and a type that cannot be printed.
//!
//! What always holds: a [`Secret`] has no `Debug`, `Display` or `Serialize`; it leaves only through
//! [`Secret::expose`], which a reader can search for. A secret is read from its file when it is used, not when the
//! configuration is loaded, so that a rotated file needs no restart.

use std::path::{Path, PathBuf};

/// The largest file taken for a secret, in bytes: a wrong path must not fill memory.
const LARGEST_FILE_BYTES: u64 = 64 * 1024;

/// A password, key or token.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a text as a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that hands it to a server or a library.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Where a secret is found.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// The whole of a file, without the line end at its end.
    File(PathBuf),
    /// An environment variable, by name, with the value it had when the configuration was loaded.
    Environment(String, Secret),
    /// Written into a URL. Accepted, with a warning.
    Url(Secret),
}

/// Why a secret could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("read secret file {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The file holds nothing, more than one line, more than 64 KiB or no text.
    #[error("secret file {path} must hold one line of text, at most 64 KiB")]
    Shape {
        /// Which file.
        path: PathBuf,
    },
}

impl SecretSource {
    /// The secret, read now.
    ///
    /// # Errors
    /// When a file cannot be read or does not hold one line.
    pub fn read(&self) -> Result<Secret, SecretError> {
        match self {
            Self::File(path) => read_file(path),
            Self::Environment(_, secret) | Self::Url(secret) => Ok(secret.clone()),
        }
    }

    /// Where it comes from, in words that may be shown.
    pub fn origin(&self) -> String {
        match self {
            Self::File(path) => format!("file {}", path.display()),
            Self::Environment(name, _) => format!("environment variable {name}"),
            Self::Url(_) => "the url in the configuration".to_owned(),
        }
    }
}

fn read_file(path: &Path) -> Result<Secret, SecretError> {
    use std::io::Read;
    let fail = |source| SecretError::Read { path: path.to_owned(), source };
    let shape = || SecretError::Shape { path: path.to_owned() };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(fail)?;
    file.take(LARGEST_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > LARGEST_FILE_BYTES {
        return Err(shape());
    }
    let text = String::from_utf8(bytes).map_err(|_| shape())?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() || line.contains(['\n', '\0']) {
        return Err(shape());
    }
    Ok(Secret::new(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_file_loses_its_line_end_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            SecretSource::File(path.clone()).read().map(|s| s.expose().to_owned()).ok()
        };
        assert_eq!(read(b" pa ss \n").as_deref(), Some(" pa ss "));
        assert_eq!(read(b"word\r\n").as_deref(), Some("word"));
        for bad in [&b""[..], b"\n", b"two\nlines\n", b"\xff\xfe", &vec![b'a'; 70_000]] {
            assert_eq!(read(bad), None);
        }
    }

    #[test]
    fn a_missing_secret_file_is_named() {
        let source = SecretSource::File("/nonexistent/password".into());
        let error = source.read().map(|_| ()).unwrap_err();
        assert_eq!(error.to_string(), "read secret file /nonexistent/password");
    }
}
