//! What to do once a job has ended well: where what it made is, and how it is opened. Pure functions over its result.
//!
//! What always holds: what a result does not say is not made up; each command that is shown is one line, with whatever came from a name or a path quoted as one word.

use farshore_catalog::job::{Job, JobKind, JobState};
use serde_json::Value;

use crate::pages::words;

/// What comes after a job.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct After {
    /// What there is now, in a sentence.
    pub said: String,
    /// What can be done with it: in words, and the line that does it.
    pub lines: Vec<(String, String)>,
    /// A page to go on to, and its name.
    pub page: Option<(String, &'static str)>,
}

/// What comes after a job; `None` where there is nothing to say, or it has not succeeded.
pub fn after(job: &Job) -> Option<After> {
    let database = job.asked.database.as_ref()?.as_str();
    if job.asked.kind == JobKind::Drill && job.state.is_ended() && job.state != JobState::Cancelled {
        return Some(drill(database, job.result.as_deref()));
    }
    if job.state != JobState::Succeeded {
        return None;
    }
    let result: Value = serde_json::from_str(job.result.as_deref()?).ok()?;
    match job.asked.kind {
        JobKind::Restore => {
            restore(database, job.holder.as_ref().map(|holder| holder.node.as_str()), &result)
        }
        JobKind::Backup | JobKind::Verify => Some(After {
            said: String::new(),
            lines: Vec::new(),
            page: Some((format!("/databases/{database}"), "To the database")),
        }),
        JobKind::Expire => expired(database, &result),
        JobKind::Plan | JobKind::Preview | JobKind::Drill | JobKind::Compare | JobKind::Unknown => None,
    }
}

/// What an expiry did, over all incarnations and stores.
fn expired(database: &str, result: &Value) -> Option<After> {
    let all = result["expired"].as_array()?;
    let sum = |one: fn(&Value) -> &Value| all.iter().filter_map(|of| one(of).as_u64()).sum::<u64>();
    let (backups, stretches) = (sum(|of| &of["marked_backups"]), sum(|of| &of["marked_stretches"]));
    let (gone, objects) = (sum(|of| &of["deleted_backups"]), sum(|of| &of["deleted"]["objects"]));
    let freed = words::bytes(sum(|of| &of["deleted"]["bytes"]));
    let said = format!(
        "Marked: {backups} base backups and {stretches} stretches of log, restorable as before until the grace has passed. Deleted: {gone} base backups and log that was marked before, {objects} objects, {freed}."
    );
    let page = Some((format!("/databases/{database}"), "To the database"));
    Some(After { said, lines: Vec::new(), page })
}

fn drill(database: &str, result: Option<&str>) -> After {
    let result: Option<Value> = result.and_then(|text| serde_json::from_str(text).ok());
    let id = result.as_ref().and_then(|result| result["drill"].as_str());
    let plain = id.filter(|id| id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    After {
        page: Some(match plain {
            Some(id) => (format!("/drills/{id}"), "What the drill found, and its certificate"),
            // One that failed says in its problem what failed; the list has it with its phases.
            None => (format!("/drills?database={database}"), "To its drills"),
        }),
        ..After::default()
    }
}

fn restore(database: &str, node: Option<&str>, result: &Value) -> Option<After> {
    let directory = result["directory"].as_str()?;
    let on = node.map_or_else(String::new, |node| format!(" on {node}"));
    let mut lines = Vec::new();
    let said = if let Some(file) = result["file"].as_str() {
        lines.push(("Look into it".to_owned(), format!("sqlite3 -readonly {}", words::word(file))));
        let whole = match result["checked"].as_str() {
            Some("whole") => "SQLite finds it whole.",
            _ => "SQLite could not check all of it: have the application ask `pragma integrity_check`.",
        };
        format!("The database stands{on} at exactly the point that was asked for. {whole}")
    } else {
        server(directory, &on, &result["server"], &mut lines)
    };
    let more = format!(
        " It is a copy of its own: {database} and its journal are as they were, and what is written to the copy is not shipped."
    );
    Some(After {
        said: said + &more,
        lines,
        page: Some((format!("/databases/{database}"), "To the database")),
    })
}

/// What is said of a PostgreSQL copy.
fn server(directory: &str, on: &str, server: &Value, lines: &mut Vec<(String, String)>) -> String {
    let connect = || {
        let (socket, port) = (server["socket"].as_str()?, server["port"].as_u64()?);
        Some(format!("psql -h {} -p {port} -U postgres postgres", words::word(socket)))
    };
    let state = server["state"].as_str();
    if let Some(line) = connect() {
        lines.push(("Look into it, on that machine".to_owned(), line.clone()));
        if state == Some("paused") {
            let open = format!("{line} -c 'select pg_promote()'");
            lines.push((
                "Open it for writing, on a new timeline: there is no way back to this point in it".to_owned(),
                open,
            ));
        }
    }
    let stop = || format!("pg_ctl -D {} stop", words::word(directory));
    match state {
        Some("paused") => {
            lines.push(("Stop it".to_owned(), stop()));
            format!("A server answers{on}, read-only and paused at exactly the point that was asked for.")
        }
        Some("promoted") => {
            lines.push(("Stop it".to_owned(), stop()));
            format!("A server answers{on}, open for writing: it was at exactly the point that was asked for.")
        }
        Some("shutdown") => {
            lines.push(("Start it".to_owned(), format!("pg_ctl -D {} start", words::word(directory))));
            format!("The server was{on} at exactly the point that was asked for, and is stopped.")
        }
        _ => {
            let start = format!("pg_ctl -D {} -w -t 3600 start", words::word(directory));
            lines.push(("Start it: it replays the log, and stays read-only at the point".to_owned(), start));
            format!(
                "Base backup and log are in place{on}; no server was started, so that nobody has seen it open yet."
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_a_restore_left_is_told_with_lines_that_a_shell_takes_as_they_stand() {
        let file =
            json!({"directory": "/srv/r/my copy", "file": "/srv/r/my copy/app.db", "checked": "whole"});
        let after = restore("orders", Some("oslo"), &file).unwrap();
        assert_eq!(after.lines[0].1, "sqlite3 -readonly '/srv/r/my copy/app.db'");
        assert!(after.said.contains("on oslo") && after.said.contains("finds it whole"), "{}", after.said);
        let part = json!({"directory": "/srv/r", "file": "/srv/r/a.db", "checked": "in part: a collation"});
        assert!(!restore("orders", None, &part).unwrap().said.contains("finds it whole"));
        for (server, says, lines) in [
            (json!({"state": "paused", "socket": "/srv/r/s", "port": 5433}), "read-only and paused", 3),
            (json!({"state": "promoted", "socket": "/srv/r/s", "port": 5433}), "open for writing", 2),
            (json!({"state": "shutdown"}), "is stopped", 1),
            (Value::Null, "nobody has seen it open", 1),
        ] {
            let after = restore("orders", None, &json!({"directory": "/srv/r", "server": server})).unwrap();
            assert!(after.said.contains(says), "{}", after.said);
            assert_eq!(after.lines.len(), lines, "{:?}", after.lines);
        }
        assert_eq!(restore("orders", None, &json!({})), None);
    }

    #[test]
    fn an_expiry_says_what_it_did_over_all_stores() {
        let one = |objects: u64| json!({"marked_backups": 1, "marked_stretches": 2, "deleted_backups": 3, "deleted": {"objects": objects, "bytes": 1024}});
        let said = expired("orders", &json!({"expired": [one(4), one(5)]})).unwrap().said;
        assert!(
            said.starts_with("Marked: 2 base backups and 4 stretches") && said.contains("9 objects"),
            "{said}"
        );
        assert_eq!(expired("orders", &json!({})), None);
    }

    #[test]
    fn a_drill_leads_to_what_it_found_and_an_odd_result_to_the_list() {
        let to = |result| drill("orders", result).page.unwrap().0;
        assert_eq!(
            to(Some("{\"drill\":\"0123456789abcdef0123456789abcdef\"}")),
            "/drills/0123456789abcdef0123456789abcdef"
        );
        for odd in [None, Some("{}"), Some("x"), Some("{\"drill\":\"../../logout\"}")] {
            assert_eq!(to(odd), "/drills?database=orders");
        }
    }
}
