//! Addresses of catalogs: how they are shown, and how a path stands in one.

/// The path as it may stand in a URL.
pub(super) fn percent_encoded(path: &str) -> String {
    path.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// The address without user information and parameters, either of which may hold a secret.
pub(crate) fn without_secrets(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        // Without an authority there is no password; a parameter might still be one.
        return url.split(['?', '#']).next().unwrap_or_default().to_owned();
    };
    // An unescaped `?` before an `@` may stand in the password or begin the parameters: then nothing is shown.
    let rest = match rest.rsplit_once('@') {
        Some((before, _)) if before.contains(['?', '#']) => "(hidden)",
        Some((_, after)) => after,
        None => rest,
    };
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    format!("{scheme}://{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_part_of_an_address_that_may_be_secret_is_shown() {
        for (url, shown) in [
            ("postgresql://me:s3cret@db:5432/f?sslmode=require", "postgresql://db:5432/f"),
            ("postgresql://me:s3@cret@db/f", "postgresql://db/f"),
            ("postgresql://me:s3/c?r@db/f", "postgresql://(hidden)"),
            ("postgresql:///f?host=/run&password=s3cret", "postgresql:///f"),
            ("postgresql://db/f?password=a@b", "postgresql://(hidden)"),
            ("s3://bucket/prefix", "s3://bucket/prefix"),
            ("sqlite:farshore.db", "sqlite:farshore.db"),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
    }

    #[test]
    fn a_path_reads_back_from_its_url() {
        assert_eq!(percent_encoded("/a b/ü?%.db"), "/a%20b/%C3%BC%3F%25.db");
    }
}
