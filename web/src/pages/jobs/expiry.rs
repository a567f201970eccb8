//! What an expiry did, or would do, as a job's result has it: store by store, which base backups stay and why, which are marked, and which go. Pure.
//!
//! What always holds: what a result does not say is not shown as nothing.

use serde_json::Value;

use crate::pages::words;

/// What became of one incarnation in one store, or would.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// The store.
    pub store: String,
    /// The incarnation's number there.
    pub incarnation: u64,
    /// Base backups that stay, each with why.
    pub kept: Vec<(String, String)>,
    /// Base backups that are marked.
    pub marking: Vec<String>,
    /// Stretches of log likewise.
    pub stretches: u64,
    /// Marked before, and waiting for the grace to pass.
    pub waiting: u64,
    /// Base backups that go.
    pub deleting: Vec<String>,
    /// How much goes, of them and of the log; `None` where nothing does.
    pub freed: Option<String>,
    /// Why nothing goes.
    pub refused: Option<String>,
}

impl Line {
    /// Whether nothing is marked, waits or goes.
    pub fn is_idle(&self) -> bool {
        self.marking.is_empty() && self.stretches == 0 && self.waiting == 0 && self.freed.is_none()
    }
}

/// An expiry, or what one would do.
#[derive(Debug, PartialEq, Eq)]
pub struct Shown {
    /// Whether nothing was changed.
    pub preview: bool,
    /// Why a service would not do it, which asks nobody for a word.
    pub needs_yes: Option<String>,
    /// One for each incarnation in each store.
    pub lines: Vec<Line>,
}

/// What a result says of an expiry; `None` where it says nothing of one.
pub fn shown(result: &Value) -> Option<Shown> {
    let (preview, lines) = match (&result["preview"], &result["expired"]) {
        (Value::Array(lines), _) => (true, lines),
        (_, Value::Array(lines)) => (false, lines),
        _ => return None,
    };
    let needs_yes = lines.iter().find_map(|one| text(&one["needs_yes"]));
    let lines = lines.iter().map(line).collect::<Option<Vec<_>>>()?;
    Some(Shown { preview, needs_yes, lines })
}

fn line(one: &Value) -> Option<Line> {
    let names = |of: &Value| of.as_array().map(|names| names.iter().filter_map(text).collect());
    let kept = one["kept"].as_array()?.iter();
    let (objects, bytes) = (one["deleted"]["objects"].as_u64()?, one["deleted"]["bytes"].as_u64()?);
    let deleting: Vec<String> = names(&one["deleting"])?;
    let goes = !deleting.is_empty() || objects > 0 || bytes > 0;
    let freed = match one["dry_run"].as_bool()? {
        // A base backup's objects are counted when they go.
        true => words::bytes(bytes),
        false => format!("{}, {objects} objects", words::bytes(bytes)),
    };
    Some(Line {
        store: text(&one["store"])?,
        incarnation: one["incarnation"].as_u64()?,
        kept: kept.map(|one| Some((text(&one[0])?, text(&one[1])?))).collect::<Option<Vec<_>>>()?,
        marking: names(&one["marking"])?,
        stretches: one["marked_stretches"].as_u64()?,
        waiting: one["waiting"].as_u64()?,
        freed: goes.then_some(freed),
        deleting,
        refused: text(&one["refused"]),
    })
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_preview_names_what_stays_and_what_goes_and_a_result_of_another_shape_is_shown_as_it_stands() {
        let one = json!({"store": "main", "incarnation": 0, "dry_run": true, "kept": [["b-3", "the window begins in it"]],
            "marked_backups": 1, "marking": ["b-2"], "marked_stretches": 2, "waiting": 1, "deleted_backups": 1, "deleting": ["b-1"],
            "deleted": {"objects": 0, "bytes": 1024, "foreign": 0}, "refused": null});
        let preview = shown(&json!({"preview": [one]})).unwrap();
        let line = &preview.lines[0];
        assert!(preview.preview && !line.is_idle());
        assert_eq!((line.kept[0].0.as_str(), line.marking[0].as_str()), ("b-3", "b-2"));
        assert_eq!((line.deleting[0].as_str(), line.freed.as_deref()), ("b-1", Some("1.0 KiB")));
        let refused = json!({"store": "main", "incarnation": 0, "dry_run": false, "kept": [], "marked_backups": 0, "marking": [], "marked_stretches": 0,
            "waiting": 0, "deleted_backups": 0, "deleting": [], "deleted": {"objects": 0, "bytes": 0}, "refused": "no base backup"});
        let done = shown(&json!({"expired": [refused]})).unwrap();
        assert!(!done.preview && done.lines[0].is_idle());
        assert_eq!(
            (done.lines[0].freed.as_deref(), done.lines[0].refused.as_deref()),
            (None, Some("no base backup"))
        );
        for odd in [
            json!({}),
            json!({"preview": 1}),
            json!({"preview": [{}]}),
            json!({"expired": [{"store": "main"}]}),
        ] {
            assert_eq!(shown(&odd), None, "{odd}");
        }
    }
}
