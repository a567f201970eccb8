//! `farshore drill report`: all drills with their numbers, for whoever asks for proof; as JSON, or as one page that needs nothing else and prints.
//!
//! What always holds: failed drills stand in it as passed ones do; every text is escaped; the page loads nothing.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use chrono::{SecondsFormat, Utc};
use farshore_journal::DatabaseName;
use farshore_journal::format::certificate::DrillVerdict;
use serde::Serialize;

use super::shown::{Shown, outcome, seconds, verdict};
use crate::commands::Context;
use crate::exit::Exit;
use crate::message::{Code, OperatorMessage, Safe};

#[derive(Debug, Serialize)]
struct Report {
    made: String,
    passed: usize,
    breached: usize,
    failed: usize,
    certified: usize,
    longest_recovery_us: Option<u64>,
    drills: Vec<Shown>,
}

pub(super) async fn run(
    context: &mut Context,
    database: Option<&DatabaseName>,
    html: Option<PathBuf>,
) -> anyhow::Result<Exit> {
    let config = context.config()?;
    let rows = super::all(&config, database).await?;
    let drills = rows.iter().map(Shown::of_row).collect::<Result<Vec<_>, _>>()?;
    let count = |wanted| drills.iter().filter(|shown| shown.statement.verdict == wanted).count();
    let report = Report {
        made: Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true),
        passed: count(DrillVerdict::Passed),
        breached: count(DrillVerdict::Breached),
        failed: count(DrillVerdict::Failed),
        certified: drills.iter().filter(|shown| shown.certified).count(),
        longest_recovery_us: drills.iter().filter_map(|shown| shown.statement.recovery_us).max(),
        drills,
    };
    if let Some(path) = html {
        let written = std::fs::File::options()
            .write(true)
            .create_new(true)
            .open(&path)
            .and_then(|mut file| file.write_all(page(&report).as_bytes()).and_then(|()| file.sync_all()));
        if let Err(why) = written {
            return Err(OperatorMessage::new(
                Code::OutputFailed,
                format!("{} was not written: {why}", path.display()),
                Safe::Known("no drill is changed by a report".to_owned()),
                "name a file that is not there, in a folder that is",
            )
            .into());
        }
    }
    let text = text(&report);
    context.output.one("farshore.drill-report/1", &report, &text)?;
    Ok(Exit::Done)
}

fn text(report: &Report) -> String {
    let mut text = format!(
        "{} drills: {} passed, {} passed with their objective breached, {} failed; {} certified; longest recovery {}\n",
        report.drills.len(),
        report.passed,
        report.breached,
        report.failed,
        report.certified,
        seconds(report.longest_recovery_us)
    );
    for shown in &report.drills {
        let _to_a_string = write!(text, "\n{}", shown.text());
    }
    text
}

/// Text as HTML has it.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

const STYLE: &str = "body{font:14px/1.4 sans-serif;margin:2em;color:#111;background:#fff}table{border-collapse:collapse;width:100%;margin:.5em 0 2em}\
th,td{border:1px solid #999;padding:.2em .5em;text-align:left;vertical-align:top}code{font-size:12px;overflow-wrap:anywhere}\
section{break-inside:avoid}@media print{body{margin:0}}";

fn page(report: &Report) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Recovery drills</title><style>{STYLE}</style></head><body>\n\
         <h1>Recovery drills</h1>\n<p>Made {} from the catalog. {} drills: {} passed, {} passed with their objective breached, {} failed. {} have a certificate. \
         Longest recovery: {}.</p>\n",
        escaped(&report.made),
        report.drills.len(),
        report.passed,
        report.breached,
        report.failed,
        report.certified,
        seconds(report.longest_recovery_us)
    );
    for shown in &report.drills {
        section(&mut page, shown);
    }
    page.push_str("<p>A certificate is checked with <code>farshore drill verify</code>, or with openssl as docs/drills.md says. This page itself proves nothing.</p>\n</body></html>\n");
    page
}

fn section(page: &mut String, shown: &Shown) {
    let said = &shown.statement;
    let _to_a_string = write!(
        page,
        "<section><h2>{}: {}</h2><table><tr><th>drill</th><td><code>{}</code></td></tr>",
        escaped(said.database.as_str()),
        verdict(said.verdict),
        said.drill
    );
    let mut row = |what: &str, value: &str| {
        let _to_a_string = write!(page, "<tr><th>{}</th><td>{}</td></tr>", escaped(what), escaped(value));
    };
    row("began", &said.began);
    row("machine", &format!("{}, {}", said.node, said.machine));
    row("point", &said.point.asked);
    if let Some(target) = &said.target {
        row("restored to", &format!("{} {}", target.position, target.time.as_deref().unwrap_or_default()));
    }
    if let Some(failure) = &said.failure {
        row("failed", &format!("in {}: {} {}", failure.phase, failure.code, failure.happened));
    }
    row("recovery", &format!("{}; objective {}", seconds(said.recovery_us), seconds(said.objective_us)));
    let measured = &said.measured;
    for (what, us) in [
        ("plan", measured.plan_us),
        ("fetch", measured.fetch_us),
        ("replay", measured.replay_us),
        ("open", measured.open_us),
        ("check", measured.check_us),
        ("cleanup", measured.cleanup_us),
    ] {
        row(what, &seconds(us));
    }
    row("network", &said.network);
    for check in &said.checks {
        row(&check.name, &format!("{} {}", outcome(check.outcome), check.detail));
    }
    let key = shown.signing_key.as_deref();
    let why = || format!("not certified: {}", shown.uncertified.as_deref().unwrap_or("unknown"));
    row("signed by", &key.map_or_else(why, str::to_owned));
    page.push_str("</table></section>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_of_a_report_is_taken_for_html() {
        assert_eq!(escaped("<script>'\"&"), "&lt;script&gt;&#39;&quot;&amp;");
    }
}
