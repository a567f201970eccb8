//! The `.pgpass` format: which line of a password file is for a connection.
//!
//! Lines are `host:port:database:user:password`; the first that fits wins; `*` fits anything; `\:` and `\\`
//! stand for themselves. A socket's host is its directory, and `localhost` fits the usual directories too.
//!
//! Source: <https://www.postgresql.org/docs/current/libpq-pgpass.html>.

use super::params::{Host, HostPlace};

/// The password for this connection, if the file has one.
pub(super) fn lookup(content: &str, host: &Host, database: &str, user: &str) -> Option<String> {
    content
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(fields)
        .find(|fields| {
            let [place, port, name, role, _] = fields;
            fits_host(place, host)
                && fits(port, &host.port.to_string())
                && fits(name, database)
                && fits(role, user)
        })
        .map(|[.., password]| password.text)
        .filter(|password| !password.is_empty())
}

/// A field, and whether it was a bare `*`: an escaped star is only a star.
#[derive(Default)]
struct Field {
    text: String,
    escaped: bool,
}

fn fits(field: &Field, wanted: &str) -> bool {
    (field.text == "*" && !field.escaped) || field.text == wanted
}

fn fits_host(field: &Field, host: &Host) -> bool {
    match &host.place {
        HostPlace::Tcp(name) => fits(field, name),
        HostPlace::Unix(folder) => {
            let usual = ["/tmp", "/run/postgresql", "/var/run/postgresql"];
            let folder = folder.to_string_lossy();
            fits(field, &folder) || (field.text == "localhost" && usual.contains(&&*folder))
        }
    }
}

/// The five fields of a line. Colons of the last field need no escape: it takes what is left.
fn fields(line: &str) -> [Field; 5] {
    let mut fields: [Field; 5] = Default::default();
    let mut at = 0;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            ':' if at < 4 => at += 1,
            '\\' => {
                if let Some(next) = letters.next() {
                    fields[at].text.push(next);
                    fields[at].escaped = true;
                }
            }
            other => fields[at].text.push(other),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> Host {
        Host { place: HostPlace::Tcp(name.to_owned()), port: 5432 }
    }

    #[test]
    fn the_first_line_that_fits_wins() {
        let file =
            "# note\nother:5432:*:u:no\ndb:5433:*:u:no\ndb:*:replication:u:a\\:b:c\\\\\n*:*:*:*:last\n";
        assert_eq!(lookup(file, &host("db"), "replication", "u").as_deref(), Some("a:b:c\\"));
        assert_eq!(lookup(file, &host("db"), "d", "u").as_deref(), Some("last"));
        assert_eq!(lookup("db:*:*:v:x", &host("db"), "d", "u"), None);
    }

    #[test]
    fn a_short_or_odd_line_gives_no_password() {
        for line in ["", ":", "*", "*:*:*:*", "*:*:*:*:", "\\", "*:*:*:\\*:x"] {
            assert_eq!(lookup(line, &host("db"), "d", "u"), None, "{line}");
        }
    }
}
