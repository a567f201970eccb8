//! What is promised of jobs, whichever catalog keeps them.

use std::collections::BTreeSet;
use std::time::Duration;

use farshore_catalog::job::{
    Claim, Heard, Holder, JobEnd, JobFilter, JobId, JobKind, JobProgress, JobState, NewJob, Via,
};
use farshore_catalog::schedule::Schedule;
use farshore_catalog::{Catalog, Error};
use tokio::task::JoinSet;

use crate::make::{name, time};

fn holder(node: &str) -> Holder {
    Holder { node: node.to_owned(), process: format!("{node}-1") }
}

fn new(kind: JobKind) -> NewJob {
    NewJob {
        id: JobId::mint(),
        kind,
        database: Some(name("orders")),
        spec: "{\"store\":\"main\"}".to_owned(),
        asked_by: "ana".to_owned(),
        via: Via::Api,
        wanted_node: None,
    }
}

async fn queued(catalog: &Catalog, kind: JobKind) -> JobId {
    let job = new(kind);
    catalog.job_put(&job, None, time(0)).await.unwrap();
    job.id
}

async fn claimed(catalog: &Catalog, kind: JobKind) -> Claim {
    let id = queued(catalog, kind).await;
    catalog.job_claim(id, &holder("oslo-1"), time(1)).await.unwrap().unwrap()
}

fn nobodys() -> Claim {
    Claim { id: JobId::mint(), attempt: 1, process: "oslo-1-1".to_owned() }
}

pub async fn a_job_is_followed_from_its_asking_to_its_end(catalog: Catalog) {
    let claim = claimed(&catalog, JobKind::Backup).await;
    let id = claim.id;
    let progress = JobProgress {
        phase: Some("copying".to_owned()),
        done_bytes: Some(10),
        total_bytes: Some(30),
        log_time: Some(time(-5)),
        eta: Some(Duration::from_secs(7)),
    };
    assert_eq!(catalog.job_beat(&claim, &progress, time(2)).await.unwrap(), Heard::Goes);
    let seen = catalog.job_get(id).await.unwrap().unwrap();
    assert_eq!((seen.state, seen.attempt, seen.beat, &seen.progress), (JobState::Running, 1, 1, &progress));
    assert_eq!((seen.holder, seen.started_at), (Some(holder("oslo-1")), Some(time(1))));
    let end = JobEnd::Succeeded("{\"backup\":\"1\"}".to_owned());
    assert_eq!(catalog.job_end(&claim, &end, time(3)).await.unwrap(), Heard::Goes);
    let ended = catalog.job_get(id).await.unwrap().unwrap();
    assert_eq!((ended.state, ended.finished_at), (JobState::Succeeded, Some(time(3))));
    assert_eq!((ended.result.as_deref(), ended.problem.as_deref()), (Some("{\"backup\":\"1\"}"), None));
    assert!(catalog.job_unended().await.unwrap().is_empty());
    // It stays as it ended.
    let other = JobEnd::Failed("{}".to_owned());
    assert_eq!(catalog.job_end(&claim, &other, time(4)).await.unwrap(), Heard::Taken);
    assert_eq!(catalog.job_get(id).await.unwrap().unwrap(), ended);
    assert!(matches!(catalog.job_cancel(id, "bo", time(5)).await, Err(Error::Conflict { .. })));
}

pub async fn of_many_that_claim_a_job_one_has_it(catalog: Catalog) {
    for _ in 0..10 {
        let id = queued(&catalog, JobKind::Verify).await;
        let mut claims = JoinSet::new();
        for at in 0..8 {
            let catalog = catalog.clone();
            claims.spawn(async move {
                catalog.job_claim(id, &holder(&format!("node-{at}")), time(1)).await.unwrap()
            });
        }
        let won = claims.join_all().await.into_iter().flatten().count();
        assert_eq!(won, 1);
    }
}

pub async fn a_word_of_an_older_claim_changes_nothing(catalog: Catalog) {
    let first = claimed(&catalog, JobKind::Backup).await;
    let id = first.id;
    assert!(catalog.job_silent((id, first.attempt, 0), None, time(20)).await.unwrap());
    assert_eq!(catalog.job_get(id).await.unwrap().unwrap().state, JobState::Queued);
    let second = catalog.job_claim(id, &holder("oslo-2"), time(21)).await.unwrap().unwrap();
    assert!(second.attempt > first.attempt);
    // Nor does one of the same number that another process has: a catalog that forgot a claim may give its number again.
    let forged = Claim { process: "another".to_owned(), ..second };
    let end = JobEnd::Succeeded("{}".to_owned());
    assert_eq!(catalog.job_end(&forged, &end, time(22)).await.unwrap(), Heard::Taken);
    let beat = catalog.job_beat(&forged, &JobProgress::default(), time(22)).await.unwrap();
    assert_eq!(beat, Heard::Taken);
    let before = catalog.job_get(id).await.unwrap().unwrap();
    let none = JobProgress::default();
    assert_eq!(catalog.job_beat(&first, &none, time(22)).await.unwrap(), Heard::Taken);
    let end = JobEnd::Succeeded("{}".to_owned());
    assert_eq!(catalog.job_end(&first, &end, time(22)).await.unwrap(), Heard::Taken);
    assert_eq!(catalog.job_get(id).await.unwrap().unwrap(), before);
}

pub async fn a_holder_that_spoke_meanwhile_is_not_called_silent(catalog: Catalog) {
    let claim = claimed(&catalog, JobKind::Restore).await;
    let id = claim.id;
    catalog.job_beat(&claim, &JobProgress::default(), time(2)).await.unwrap();
    assert!(!catalog.job_silent((id, claim.attempt, 0), Some("{}"), time(20)).await.unwrap());
    assert_eq!(catalog.job_get(id).await.unwrap().unwrap().state, JobState::Running);
    // Of several watchers one acts.
    assert!(catalog.job_silent((id, claim.attempt, 1), Some("{}"), time(21)).await.unwrap());
    assert!(!catalog.job_silent((id, claim.attempt, 1), Some("{}"), time(21)).await.unwrap());
}

pub async fn one_that_was_called_silent_may_still_say_what_came_of_it(catalog: Catalog) {
    let claim = claimed(&catalog, JobKind::Restore).await;
    let id = claim.id;
    assert!(catalog.job_silent((id, claim.attempt, 0), Some("{\"code\":\"x\"}"), time(20)).await.unwrap());
    let silent = catalog.job_get(id).await.unwrap().unwrap();
    assert_eq!((silent.state, silent.silent), (JobState::Failed, true));
    // Heard of again it runs, as it did all the while.
    let heard = catalog.job_beat(&claim, &JobProgress::default(), time(30)).await.unwrap();
    assert_eq!(heard, Heard::Goes);
    let again = catalog.job_get(id).await.unwrap().unwrap();
    assert_eq!(
        (again.state, again.silent, again.problem, again.finished_at),
        (JobState::Running, false, None, None)
    );
    assert!(catalog.job_silent((id, claim.attempt, 1), Some("{\"code\":\"x\"}"), time(50)).await.unwrap());
    let end = JobEnd::Succeeded("{}".to_owned());
    assert_eq!(catalog.job_end(&claim, &end, time(60)).await.unwrap(), Heard::Goes);
    let ended = catalog.job_get(id).await.unwrap().unwrap();
    assert_eq!((ended.state, ended.silent, ended.problem), (JobState::Succeeded, false, None));
}

pub async fn a_wish_to_end_is_heard_at_the_next_beat(catalog: Catalog) {
    let waiting = queued(&catalog, JobKind::Backup).await;
    assert_eq!(catalog.job_cancel(waiting, "bo", time(1)).await.unwrap(), Some(JobState::Cancelled));
    assert_eq!(catalog.job_claim(waiting, &holder("oslo-1"), time(2)).await.unwrap(), None);
    let claim = claimed(&catalog, JobKind::Backup).await;
    let id = claim.id;
    assert_eq!(catalog.job_cancel(id, "bo", time(2)).await.unwrap(), Some(JobState::Cancelling));
    assert_eq!(catalog.job_cancel(id, "cy", time(3)).await.unwrap(), Some(JobState::Cancelling));
    let heard = catalog.job_beat(&claim, &JobProgress::default(), time(4)).await.unwrap();
    assert_eq!(heard, Heard::Cancel);
    let end = JobEnd::Cancelled("{}".to_owned());
    assert_eq!(catalog.job_end(&claim, &end, time(5)).await.unwrap(), Heard::Goes);
    let ended = catalog.job_get(id).await.unwrap().unwrap();
    assert_eq!(ended.state, JobState::Cancelled);
    assert_eq!(ended.cancel, Some(("bo".to_owned(), time(2))));
    // What was to end is not begun anew because its holder fell silent.
    let claim = claimed(&catalog, JobKind::Backup).await;
    let id = claim.id;
    catalog.job_cancel(id, "bo", time(2)).await.unwrap();
    assert!(catalog.job_silent((id, claim.attempt, 0), None, time(20)).await.unwrap());
    assert_eq!(catalog.job_get(id).await.unwrap().unwrap().state, JobState::Cancelled);
    // Ended jobs are forgotten after a while, others never.
    let waits = queued(&catalog, JobKind::Backup).await;
    assert_eq!(catalog.job_forget(time(6)).await.unwrap(), 2);
    assert_eq!(catalog.job_forget(time(1000)).await.unwrap(), 1);
    assert!(catalog.job_get(waits).await.unwrap().is_some());
    assert_eq!(catalog.job_cancel(JobId::mint(), "bo", time(1)).await.unwrap(), None);
}

pub async fn jobs_are_listed_newest_first_page_by_page(catalog: Catalog) {
    let mut put = Vec::new();
    for at in 0..25 {
        let mut job = new(JobKind::Backup);
        job.database = Some(name(if at % 5 == 0 { "other" } else { "orders" }));
        // Some at the same moment.
        catalog.job_put(&job, None, time(at / 3)).await.unwrap();
        put.push(job.id);
    }
    let mut listed = Vec::new();
    let mut filter = JobFilter::default();
    loop {
        let page = catalog.job_list(&filter, 4).await.unwrap();
        let Some(last) = page.last() else { break };
        filter.before = Some((last.asked_at, last.asked.id));
        listed.extend(page);
    }
    assert!(listed.windows(2).all(|pair| pair[0].asked_at >= pair[1].asked_at));
    let ids: BTreeSet<JobId> = listed.iter().map(|job| job.asked.id).collect();
    assert_eq!((listed.len(), ids), (25, put.iter().copied().collect()));
    let of_other = JobFilter { database: Some(name("other")), ..JobFilter::default() };
    assert_eq!(catalog.job_list(&of_other, 100).await.unwrap().len(), 5);
    catalog.job_cancel(put[0], "bo", time(50)).await.unwrap();
    let unended = JobFilter { unended: true, ..JobFilter::default() };
    assert_eq!(catalog.job_list(&unended, 100).await.unwrap().len(), 24);
    assert_eq!(catalog.job_unended().await.unwrap().len(), 24);
}

pub async fn a_job_that_another_catalog_kept_is_gone_and_no_other_is_touched(catalog: Catalog) {
    let none = JobProgress::default();
    assert_eq!(catalog.job_beat(&nobodys(), &none, time(1)).await.unwrap(), Heard::Gone);
    let end = JobEnd::Succeeded("{}".to_owned());
    assert_eq!(catalog.job_end(&nobodys(), &end, time(1)).await.unwrap(), Heard::Gone);
    let twice = new(JobKind::Backup);
    catalog.job_put(&twice, Some(&holder("oslo-1")), time(0)).await.unwrap();
    assert!(matches!(catalog.job_put(&twice, None, time(1)).await, Err(Error::Conflict { .. })));
    let kept = catalog.job_get(twice.id).await.unwrap().unwrap();
    assert_eq!((kept.state, kept.attempt), (JobState::Running, 1));
    assert!(catalog.job_put(&new(JobKind::Unknown), None, time(0)).await.is_err());
}

pub async fn a_word_about_a_job_that_was_cut_off_brings_nobody_to_read_the_stores(catalog: Catalog) {
    let claim = claimed(&catalog, JobKind::Backup).await;
    let untold = catalog.untold();
    let mut cut_off = 0;
    for turns in 0..60 {
        let progress = JobProgress::default();
        tokio::select! {
            biased;
            beat = catalog.job_beat(&claim, &progress, time(2)) => drop(beat),
            // Later and later in the midst of it.
            () = async { for _ in 0..turns { tokio::task::yield_now().await } } => cut_off += 1,
        }
    }
    assert!(cut_off > 0, "none was cut off");
    assert_eq!(catalog.untold(), untold);
    assert_eq!(catalog.job_beat(&claim, &JobProgress::default(), time(3)).await.unwrap(), Heard::Goes);
}

pub async fn a_due_time_that_a_wrong_clock_answered_is_taken_back_once(catalog: Catalog) {
    let here = (catalog.clock().await.unwrap() - chrono::Utc::now()).abs();
    assert!(here < chrono::TimeDelta::minutes(5), "{here}");
    let ahead = Schedule {
        database: name("orders"),
        kind: JobKind::Backup,
        cron: "0 2 * * *".to_owned(),
        zone: "UTC".to_owned(),
        due: time(1_000_000_000),
        job: None,
    };
    catalog.schedule_put(&ahead, time(1)).await.unwrap();
    let due = |at| (&ahead.database, JobKind::Backup, time(at));
    assert!(!catalog.schedule_answer(due(10), None, time(10)).await.unwrap(), "nothing is due for years");
    assert!(catalog.schedule_restart(&ahead, time(10), time(11)).await.unwrap());
    assert!(!catalog.schedule_restart(&ahead, time(5), time(11)).await.unwrap(), "another took it back");
    assert!(!catalog.schedule_answer(due(10), None, time(11)).await.unwrap());
    assert!(catalog.schedule_answer(due(20), None, time(21)).await.unwrap());
}

pub async fn a_due_time_is_answered_once_with_its_job(catalog: Catalog) {
    let schedule = Schedule {
        database: name("orders"),
        kind: JobKind::Backup,
        cron: "0 2 * * *".to_owned(),
        zone: "UTC".to_owned(),
        due: time(0),
        job: None,
    };
    assert_eq!(catalog.schedule_put(&schedule, time(1)).await.unwrap(), schedule);
    let due = |at| (&schedule.database, JobKind::Backup, time(at));
    // Nothing is due up to where it began.
    assert!(!catalog.schedule_answer(due(0), Some(&new(JobKind::Backup)), time(1)).await.unwrap());
    let mut answers = JoinSet::new();
    for _ in 0..8 {
        let (catalog, database) = (catalog.clone(), schedule.database.clone());
        answers.spawn(async move {
            let due = (&database, JobKind::Backup, time(10));
            catalog.schedule_answer(due, Some(&new(JobKind::Backup)), time(11)).await.unwrap()
        });
    }
    assert_eq!(answers.join_all().await.into_iter().filter(|answered| *answered).count(), 1);
    let jobs = catalog.job_unended().await.unwrap();
    assert_eq!(jobs.len(), 1);
    let listed = catalog.schedule_list().await.unwrap();
    assert_eq!((listed[0].due, listed[0].job), (time(10), Some(jobs[0].asked.id)));
    // One that is left out is answered too, and keeps the job before it.
    assert!(catalog.schedule_answer(due(20), None, time(21)).await.unwrap());
    assert!(!catalog.schedule_answer(due(20), None, time(21)).await.unwrap());
    assert_eq!(catalog.schedule_list().await.unwrap()[0].job, Some(jobs[0].asked.id));
    // Another expression begins where it is put, and takes nothing back that was answered.
    let other = Schedule { cron: "0 3 * * *".to_owned(), due: time(30), ..schedule.clone() };
    assert_eq!(catalog.schedule_put(&other, time(31)).await.unwrap().due, time(30));
    let before = Schedule { cron: "0 4 * * *".to_owned(), due: time(5), ..schedule };
    assert_eq!(catalog.schedule_put(&before, time(32)).await.unwrap().due, time(30));
}

async fn put_for(catalog: &Catalog, database: &str, kind: JobKind, node: Option<&str>, at: i64) -> JobId {
    let job = NewJob { database: Some(name(database)), wanted_node: node.map(str::to_owned), ..new(kind) };
    catalog.job_put(&job, None, time(at)).await.unwrap();
    job.id
}

async fn next(catalog: &Catalog) -> Vec<JobId> {
    catalog.job_next("oslo-1").await.unwrap().into_iter().map(|job| job.asked.id).collect()
}

/// More wait of one database than any list gives; what another asked last of all is seen, and comes second.
pub async fn however_much_waits_of_one_database_the_others_have_their_turn(catalog: Catalog) {
    let first = put_for(&catalog, "orders", JobKind::Plan, None, 0).await;
    for second in 1..1100 {
        put_for(&catalog, "orders", JobKind::Plan, None, second).await;
    }
    // What names another node, and a restore that names none, is nobody's here and stands before nobody.
    put_for(&catalog, "orders", JobKind::Restore, None, 1).await;
    put_for(&catalog, "orders", JobKind::Verify, Some("oslo-2"), 1).await;
    let restore = put_for(&catalog, "orders", JobKind::Restore, Some("oslo-1"), 2000).await;
    let billing = put_for(&catalog, "billing", JobKind::Backup, None, 3000).await;
    assert_eq!(next(&catalog).await, [first, restore, billing]);
    let claim = catalog.job_claim(first, &holder("oslo-1"), time(3001)).await.unwrap().unwrap();
    assert_eq!(
        next(&catalog).await[0],
        billing,
        "of whom nothing is done, before those of whom something is"
    );
    let end = JobEnd::Succeeded("{}".to_owned());
    catalog.job_end(&claim, &end, time(3002)).await.unwrap();
    assert_eq!(next(&catalog).await[0], billing, "who had his turn stands behind those who had none");
    let claim = catalog.job_claim(billing, &holder("oslo-1"), time(3003)).await.unwrap().unwrap();
    catalog.job_end(&claim, &end, time(3004)).await.unwrap();
    put_for(&catalog, "billing", JobKind::Backup, None, 3005).await;
    assert_eq!(catalog.job_next("oslo-1").await.unwrap()[0].asked.database, Some(name("orders")));
    let busy = catalog.job_busy().await.unwrap();
    let held: Vec<_> = busy.iter().map(|(of, kind)| (of.clone().unwrap(), *kind)).collect();
    assert!(
        held.contains(&(name("billing"), JobKind::Backup))
            && held.contains(&(name("orders"), JobKind::Verify))
    );
    assert_eq!(catalog.job_unended_of(&name("billing")).await.unwrap().len(), 1);
    assert!(catalog.job_held().await.unwrap().is_empty());
}
