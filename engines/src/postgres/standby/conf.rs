//! What a server that is not asked would do: its settings as its files have them, and what a connection string says.
//!
//! Source: `ProcessConfigFile` and `DeescapeQuotedString` in `guc-file.l`, `conninfo_parse` in `fe-connect.c`.

/// A setting in a configuration file's text, the last one of that name; files that it includes are not read.
pub fn setting(text: &str, name: &str) -> Option<String> {
    text.lines().filter_map(|line| assigned(line, name)).next_back()
}

/// The value that a line gives to a setting. Names are compared without case, and `=` may be left out.
fn assigned(line: &str, name: &str) -> Option<String> {
    let line = line.trim_start();
    let (found, rest) = line.split_at_checked(name.len())?;
    let rest = rest.strip_prefix(|c: char| c == '=' || c.is_ascii_whitespace())?;
    if !found.eq_ignore_ascii_case(name) {
        return None;
    }
    let value = rest.trim_start_matches(|c: char| c == '=' || c.is_ascii_whitespace());
    match value.strip_prefix('\'') {
        Some(quoted) => unquoted(quoted),
        None => Some(value.split(|c: char| c == '#' || c.is_ascii_whitespace()).next()?.to_owned()),
    }
}

/// What stands before the quote that ends it: two are one, and a backslash takes what follows.
fn unquoted(text: &str) -> Option<String> {
    let mut value = String::new();
    let mut rest = text.chars().peekable();
    loop {
        match rest.next()? {
            '\'' if rest.peek() == Some(&'\'') => {
                rest.next();
                value.push('\'');
            }
            '\'' => return Some(value),
            '\\' => value.push(match rest.next()? {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                other => other,
            }),
            other => value.push(other),
        }
    }
}

/// A value of a connection string of keywords, the last one of that name; `None` too where it is written as a URL.
pub fn conninfo_value(conninfo: &str, key: &str) -> Option<String> {
    let mut found = None;
    let mut rest = conninfo.trim_start();
    while !rest.is_empty() {
        let (name, behind) = rest.split_once('=')?;
        let (value, behind) = value(behind.trim_start())?;
        if name.trim_end() == key {
            found = Some(value);
        }
        rest = behind.trim_start();
    }
    found
}

/// A value at the begin of a text, quoted or not, and what follows it.
fn value(text: &str) -> Option<(String, &str)> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut chars = text.char_indices().skip(usize::from(quoted));
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.push(chars.next()?.1),
            '\'' if quoted => return Some((value, &text[at + 1..])),
            c if !quoted && c.is_ascii_whitespace() => return Some((value, &text[at..])),
            c => value.push(c),
        }
    }
    (!quoted).then_some((value, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_setting_of_a_name_counts_as_the_server_reads_it() {
        let text = "# primary_conninfo = 'none'\nprimary_conninfo = 'host=a'   # first\nPrimary_ConnInfo 'host=b password=''x \\\\y'''\n\
                    primary_conninfos = 'c'\nport=5433#x\nwork_mem = 4MB # much\n";
        assert_eq!(setting(text, "primary_conninfo").as_deref(), Some("host=b password='x \\y'"));
        assert_eq!(setting(text, "port").as_deref(), Some("5433"));
        assert_eq!(setting(text, "work_mem").as_deref(), Some("4MB"));
        assert_eq!(setting(text, "restore_command"), None);
        assert_eq!(setting("primary_conninfo = 'host=a", "primary_conninfo"), None, "it does not end");
    }

    #[test]
    fn a_value_of_a_connection_string_is_read_as_libpq_reads_it() {
        let text =
            r"host=db port = 5440 password='it\'s a \\' application_name=oslo\ 1 options='-c a=b -c c=d'";
        let value = |key: &str| conninfo_value(text, key);
        assert_eq!(value("port").as_deref(), Some("5440"));
        assert_eq!(value("password").as_deref(), Some(r"it's a \"));
        assert_eq!(value("application_name").as_deref(), Some("oslo 1"));
        assert_eq!(value("options").as_deref(), Some("-c a=b -c c=d"));
        assert_eq!(value("user"), None);
        assert_eq!(conninfo_value("host=a host=b", "host").as_deref(), Some("b"));
        for broken in ["host", "host='a", "host=a\\", "postgresql://db/x"] {
            assert_eq!(conninfo_value(broken, "host"), None, "{broken}");
        }
    }
}
