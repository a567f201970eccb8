//! The whole fleet at once, and what was told of it: as `status` says it of each, and told once.

use std::time::Duration;

use farshore_catalog::Catalog;
use farshore_catalog::database::Database;
use farshore_catalog::job::{Holder, JobEnd, JobId, JobKind, NewJob, Via};
use farshore_catalog::lag::ShownState;
use farshore_catalog::notice::{Notice, NoticeHeard, NoticeTry};

use crate::make::{backup, branch, commit, gap, name, orders, range, shipping, time, usable};

pub async fn the_fleet_says_of_each_database_what_its_status_says(catalog: Catalog) {
    let id = orders(&catalog).await;
    catalog.branch_put(&branch(id, 1, None)).await.unwrap();
    for (start, end) in [(0, 400), (500, 900)] {
        catalog.range_extend(&range(id, "main", 1, start, end)).await.unwrap();
    }
    catalog.gap_put(&gap(id, 400, 500)).await.unwrap();
    catalog.backup_insert(&usable(id, 1, 100, 200)).await.unwrap();
    catalog.backup_insert(&usable(id, 2, 600, 700)).await.unwrap();
    catalog.backup_insert(&backup(id, 3, 800)).await.unwrap();
    let commits = [commit(1, 150, 1, 1), commit(1, 390, 2, 2), commit(1, 650, 3, 3), commit(1, 890, 4, 4)];
    catalog.commit_insert(id, &commits).await.unwrap();
    catalog.shipping_put(&shipping(time(1000))).await.unwrap();
    let silent = Database { name: name("silent"), engine: "sqlite".to_owned(), added_at: time(0) };
    catalog.database_put(&silent).await.unwrap();
    // Heard, silent, and known to nobody: at each moment both say the same.
    let fleet = catalog.fleet(time(1000)).await.unwrap();
    assert_eq!(fleet.members.len(), 2);
    for (moment, away) in [(1000, false), (1001, false), (5000, false)] {
        for member in &fleet.members {
            let status = catalog.status(&member.database, time(moment)).await.unwrap();
            let standing = member.standing(time(moment), away);
            assert_eq!(standing.state, status.state, "{} at {moment}", member.database);
            assert_eq!(standing.why, status.why);
            assert_eq!(
                (standing.retained_bytes, standing.seconds_to_full),
                (status.primary.retained_bytes, status.primary.seconds_to_full)
            );
            if let Some(lag) = status.ship_lag_seconds {
                assert!((standing.exposure_seconds - lag).abs() < 1e-6, "{} at {moment}", member.database);
            }
            assert_eq!(member.last_backup.map(|backup| backup.finished_at), status.backups.last_at);
            match (&member.restorable, &status.window) {
                (Some(found), Some(window)) => {
                    assert_eq!((found.span.from, found.span.to), (window.from_position, window.to_position));
                    assert_eq!(found.gaps, window.gaps.len());
                    let times = catalog.window_times(found).await.unwrap();
                    assert_eq!(times, (window.from_time, window.to_time));
                }
                (None, None) => {}
                (found, window) => panic!("{found:?} and {window:?}"),
            }
        }
    }
    // Nobody vouches for what cannot be read again, and what may be lost grows from the last contact.
    let member = &fleet.members[0];
    let (now, later) = (member.standing(time(1001), true), member.standing(time(1061), true));
    assert_eq!(now.state, ShownState::Unknown);
    assert!((later.exposure_seconds - now.exposure_seconds - 60.0).abs() < 1e-6, "{now:?} {later:?}");
    assert!(fleet.members[1].standing(time(1001), true).exposure_seconds.is_infinite());
}

pub async fn the_newest_success_and_failure_of_work_are_known_by_kind_and_database(catalog: Catalog) {
    let holder = Holder { node: "oslo".to_owned(), process: "p".to_owned() };
    for (kind, ends) in [
        (JobKind::Backup, vec![JobEnd::Succeeded("{}".to_owned()), JobEnd::Failed("{}".to_owned())]),
        (JobKind::Verify, vec![JobEnd::Cancelled("{}".to_owned())]),
    ] {
        for (number, end) in ends.into_iter().enumerate() {
            let job = NewJob {
                id: JobId::mint(),
                kind,
                database: Some(name("orders")),
                spec: "{}".to_owned(),
                asked_by: "ana".to_owned(),
                via: Via::Command,
                wanted_node: None,
            };
            catalog.job_put(&job, None, time(0)).await.unwrap();
            let claim = catalog.job_claim(job.id, &holder, time(1)).await.unwrap().unwrap();
            let running = catalog.fleet(time(1)).await.unwrap();
            assert_eq!(running.jobs.iter().map(|job| job.running).sum::<u64>(), 1);
            catalog.job_end(&claim, &end, time(10 + i64::try_from(number).unwrap())).await.unwrap();
        }
    }
    let jobs = catalog.fleet(time(100)).await.unwrap().jobs;
    let of = |kind| jobs.iter().find(|job| job.kind == kind).unwrap();
    let backup = of(JobKind::Backup);
    assert_eq!(
        (backup.running, backup.last_success, backup.last_failure),
        (0, Some(time(10)), Some(time(11)))
    );
    // What was cancelled neither succeeded nor failed.
    assert_eq!((of(JobKind::Verify).last_success, of(JobKind::Verify).last_failure), (None, None));
}

/// A job that was claimed and ended so, at this second.
async fn ended(catalog: &Catalog, kind: JobKind, of: Option<&str>, result: &str, second: i64) {
    let holder = Holder { node: "oslo".to_owned(), process: "p".to_owned() };
    let job = NewJob {
        id: JobId::mint(),
        kind,
        database: of.map(name),
        spec: "{}".to_owned(),
        asked_by: "ana".to_owned(),
        via: Via::Command,
        wanted_node: None,
    };
    catalog.job_put(&job, None, time(0)).await.unwrap();
    let claim = catalog.job_claim(job.id, &holder, time(1)).await.unwrap().unwrap();
    catalog.job_end(&claim, &JobEnd::Succeeded(result.to_owned()), time(second)).await.unwrap();
}

pub async fn work_that_was_done_and_is_bad_news_is_a_failure_and_hides_no_success_before_it(
    catalog: Catalog,
) {
    let (sound, unsound) = ("{\"sound\":true}", "{\"sound\":false}");
    let (passed, breached) = ("{\"verdict\":\"passed\"}", "{\"verdict\":\"breached\"}");
    let (verify, drill) = (JobKind::Verify, JobKind::Drill);
    let cases = [
        // Good, then bad; bad alone; bad, then good; of no database.
        (verify, Some("orders"), vec![sound, sound, unsound, unsound], Some(11), Some(13)),
        (verify, Some("billing"), vec![unsound], None, Some(10)),
        (drill, Some("orders"), vec![breached, passed], Some(11), Some(10)),
        (drill, Some("billing"), vec![passed, passed], Some(11), None),
        (drill, None, vec![passed, breached], Some(10), Some(11)),
        (JobKind::Expire, None, vec!["{}"], Some(10), None),
    ];
    for (kind, of, results, ..) in &cases {
        for (at, result) in results.iter().enumerate() {
            ended(&catalog, *kind, *of, result, 10 + i64::try_from(at).unwrap()).await;
        }
    }
    let jobs = catalog.fleet(time(100)).await.unwrap().jobs;
    assert_eq!(jobs.len(), cases.len());
    for (kind, of, _, success, failure) in cases {
        let found = jobs.iter().find(|one| one.kind == kind && one.database == of.map(name)).unwrap();
        let right = (success.map(time), failure.map(time));
        assert_eq!((found.last_success, found.last_failure), right, "{kind} of {of:?}");
    }
}

pub async fn of_many_that_see_a_change_one_tells_it(catalog: Catalog) {
    orders(&catalog).await;
    let notice = |word: &str, second: i64, node: usize| Notice {
        database: name("orders"),
        topic: "state".to_owned(),
        word: word.to_owned(),
        mark: 0,
        turns: 0,
        told_at: time(second),
        node: format!("node-{node}"),
    };
    let mut before: Option<Notice> = None;
    for (word, second) in [("unknown", 1), ("well", 40), ("breached", 50)] {
        let mut tasks = tokio::task::JoinSet::new();
        for node in 0..8 {
            let (catalog, before, now) = (catalog.clone(), before.clone(), notice(word, second, node));
            tasks.spawn(async move {
                // A claim may meet another's lock; none may be lost for that.
                for _ in 0..50 {
                    match catalog.notice_claim(before.as_ref(), &now).await {
                        Ok(claimed) => return claimed,
                        Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                    }
                }
                panic!("no claim was answered");
            });
        }
        let claims = tasks.join_all().await;
        assert_eq!(claims.iter().filter(|claimed| **claimed).count(), 1, "{word}: {claims:?}");
        let told = catalog.notice_list().await.unwrap();
        assert_eq!((told.len(), told[0].word.as_str()), (1, word));
        // Who was late changes nothing of what is told since.
        if let Some(before) = &before {
            assert!(!catalog.notice_claim(Some(before), &notice("late", 99, 1)).await.unwrap());
        }
        before = told.into_iter().next();
    }
}

pub async fn of_many_that_would_tell_a_channel_one_does_and_what_it_heard_never_grows_older(
    catalog: Catalog,
) {
    orders(&catalog).await;
    let notice = |word: &str, second: i64| Notice {
        database: name("orders"),
        topic: "state".to_owned(),
        word: word.to_owned(),
        mark: 7,
        turns: 0,
        told_at: time(second),
        node: "node-1".to_owned(),
    };
    let trying = |channel: &str, since: i64, tries: u64, next: i64| NoticeHeard {
        channel: channel.to_owned(),
        database: name("orders"),
        topic: "state".to_owned(),
        word: None,
        mark: 0,
        trying: time(since),
        tries,
        next_at: time(next),
    };
    let mut before: Option<NoticeHeard> = None;
    for (since, tries, next) in [(1, 1, 60), (1, 2, 180), (50, 1, 110)] {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (catalog, before) = (catalog.clone(), before.clone());
            let now = trying("pager", since, tries, next);
            tasks.spawn(async move {
                // A claim may meet another's lock; none may be lost for that.
                for _ in 0..50 {
                    let one = NoticeTry { before: before.clone(), now: now.clone() };
                    match catalog.notice_try(&[one]).await {
                        Ok(claimed) => return claimed == [true],
                        Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                    }
                }
                panic!("no claim was answered");
            });
        }
        let claims = tasks.join_all().await;
        assert_eq!(claims.iter().filter(|claimed| **claimed).count(), 1, "{claims:?}");
        before = catalog.notice_heard_list().await.unwrap().pop();
    }
    let heard = async || {
        let all = catalog.notice_heard_list().await.unwrap();
        all.into_iter().find(|heard| heard.channel == "pager").unwrap()
    };
    assert_eq!(
        (heard().await.word, heard().await.tries),
        (None, 1),
        "that it is tried says nothing of what was heard"
    );
    catalog.notice_took("pager", &[notice("well", 50)]).await.unwrap();
    catalog.notice_took("pager", &[notice("breached", 1)]).await.unwrap();
    let now = heard().await;
    assert_eq!((now.word.as_deref(), now.mark, now.tries), (Some("well"), 7, 0));
    let again = NoticeTry { before: Some(now.clone()), now: trying("pager", 90, 1, 150) };
    assert_eq!(catalog.notice_try(std::slice::from_ref(&again)).await.unwrap(), [true]);
    assert_eq!(
        heard().await.word.as_deref(),
        Some("well"),
        "what it heard stays while it is told something else"
    );
    // Each channel for itself, and each topic, however many are tried at once.
    let first = |channel, topic: &str| NoticeTry {
        before: None,
        now: NoticeHeard { topic: topic.to_owned(), ..trying(channel, 90, 1, 150) },
    };
    let tries = [first("pager", "verify"), again, first("dba", "state"), first("pager", "backup")];
    assert_eq!(catalog.notice_try(&tries).await.unwrap(), [true, false, true, true]);
    let of = |topic: &str| Notice { topic: topic.to_owned(), ..notice("failed", 90) };
    catalog.notice_took("pager", &[of("verify"), of("backup")]).await.unwrap();
    let all = catalog.notice_heard_list().await.unwrap();
    let took: Vec<_> = all.iter().filter(|heard| heard.word.as_deref() == Some("failed")).collect();
    assert_eq!((all.len(), took.len()), (4, 2), "{all:?}");
}

/// Two services with the same channels, each of which tries all at once, in whatever order.
pub async fn of_many_that_would_tell_a_channel_much_at_once_each_is_told_by_one(catalog: Catalog) {
    orders(&catalog).await;
    let tries: Vec<_> = (0..40)
        .map(|topic| NoticeHeard {
            channel: "pager".to_owned(),
            database: name("orders"),
            topic: format!("topic-{topic}"),
            word: None,
            mark: 0,
            trying: time(1),
            tries: 1,
            next_at: time(60),
        })
        .map(|now| NoticeTry { before: None, now })
        .collect();
    let mut tasks = tokio::task::JoinSet::new();
    for service in 0..4 {
        let (catalog, mut tries) = (catalog.clone(), tries.clone());
        tries.rotate_left(service * 10);
        tasks.spawn(async move {
            // A claim may meet another's lock; none may be lost for that.
            for _ in 0..50 {
                match catalog.notice_try(&tries).await {
                    Ok(claimed) => return claimed,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
            panic!("no claim was answered");
        });
    }
    let claims = tasks.join_all().await.concat();
    assert_eq!(claims.iter().filter(|claimed| **claimed).count(), tries.len());
}
