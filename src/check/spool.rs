//! A spool's directories: there, writable, with the room that they are given, and not on the disk that they are to spare.

use super::Finding;
use super::facts::SpoolFacts;
use crate::config::quantity::ByteCount;

/// `is_asked`: the server answered, so that it is known whether its files are on this machine.
pub(super) fn judge(spool: &SpoolFacts, is_asked: bool, findings: &mut Vec<Finding>) {
    let (code, directory) = ("spool.directory", &spool.directory);
    let (used, free) = match &spool.found {
        Ok(found) => *found,
        Err(why) => {
            findings.push(Finding::problem(
                code,
                format!("the spool's directory cannot be used: {why}"),
                "mount its disk, or name a folder on one that the service's user may write in",
            ));
            return;
        }
    };
    let limit = ByteCount::new(spool.limit);
    findings.push(if !spool.is_writable {
        Finding::problem(
            code,
            format!("this user may not write in the spool's directory {directory}"),
            "give it to the service's user, or check as that user",
        )
    } else if used.saturating_add(free) < spool.limit {
        Finding::warning(
            code,
            format!(
                "the spool's directory {directory} is given {limit}, and only {} are free there",
                ByteCount::new(free)
            ),
            "make room there, or lower its limit: a disk that fills for others too is full sooner",
        )
    } else {
        Finding::ok(code, format!("the spool's directory {directory} has room for its {limit}"))
    });
    let code = "spool.apart";
    findings.push(match spool.is_beside_log {
        Some(true) => Finding::warning(
            code,
            format!("the spool's directory {directory} lies on the database's own disk: it spares that one nothing"),
            "put it on another disk",
        ),
        Some(false) => Finding::ok(code, format!("the spool's directory {directory} lies on another file system")),
        None if is_asked => Finding::ok(
            code,
            format!("the spool's directory {directory} lies on another machine than the database"),
        ),
        None => Finding::unknown(code, format!("whether the spool's directory {directory} lies on the database's own disk")),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;

    #[test]
    fn a_directory_that_is_away_full_or_beside_the_log_is_said() {
        let good = SpoolFacts {
            directory: "/mnt/spool/orders".to_owned(),
            limit: 10 << 30,
            found: Ok((1 << 30, 9 << 30)),
            is_writable: true,
            is_beside_log: Some(false),
        };
        let levels = |facts: SpoolFacts| {
            let mut findings = Vec::new();
            judge(&facts, true, &mut findings);
            findings.into_iter().map(|finding| finding.level).collect::<Vec<_>>()
        };
        use Level::{Ok as Fine, Problem, Warning};
        assert_eq!(levels(good.clone()), [Fine, Fine]);
        assert_eq!(
            levels(SpoolFacts { found: Err("it is not there".to_owned()), ..good.clone() }),
            [Problem]
        );
        assert_eq!(levels(SpoolFacts { is_writable: false, ..good.clone() }), [Problem, Fine]);
        assert_eq!(levels(SpoolFacts { found: Ok((0, 9 << 30)), ..good.clone() }), [Warning, Fine]);
        assert_eq!(levels(SpoolFacts { is_beside_log: Some(true), ..good.clone() }), [Fine, Warning]);
        let elsewhere = SpoolFacts { is_beside_log: None, ..good };
        assert_eq!(levels(elsewhere.clone()), [Fine, Fine]);
        let mut findings = Vec::new();
        judge(&elsewhere, false, &mut findings);
        assert_eq!(findings[1].level, Level::Unknown, "a server that does not answer may be anywhere");
    }
}
