//! The page of standbys: the worst first, nothing good of one that is not heard, and to nobody who may not see its database.

use chrono::{TimeDelta, Utc};
use farshore_catalog::access::Role;
use farshore_catalog::standby::StandbyState;

use crate::person::{get, log_in};
use crate::rig::{Rig, standby};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standbys_are_shown_the_worst_first_with_what_to_do_and_none_that_is_not_heard_as_good() {
    let rig = Rig::new().await;
    rig.user("ana", Role::Viewer).await;
    let person = log_in(&rig, "ana").await;
    let none = get(&rig, "/standbys", &person.cookie).await;
    assert!(none.status == 200 && none.text.contains("farshore standby create"), "{none:?}");
    let (now, hour) = (TimeDelta::zero(), TimeDelta::hours(1));
    let mut wien = standby("billing", "wien", StandbyState::Diverged, hour);
    wien.problem = Some("timeline 2 is in no history <of it>".to_owned());
    let all = [
        standby("orders", "oslo", StandbyState::Streaming, now),
        standby("orders", "rome", StandbyState::Streaming, hour),
        wien,
    ];
    rig.catalog.standby_put(&all).await.unwrap();
    let page = get(&rig, "/standbys", &person.cookie).await.text;
    let rows: Vec<&str> = page.split("data-standby=\"").skip(1).collect();
    let names: Vec<&str> = rows.iter().map(|row| row.split('"').next().unwrap()).collect();
    assert_eq!(names, ["wien", "rome", "oslo"]);
    assert!(rows[0].contains("state unprotected") && rows[0].contains("pg_rewind"), "{}", rows[0]);
    assert!(rows[0].contains("&#60;of it&#62;") && rows[0].contains("not known"), "{}", rows[0]);
    assert!(rows[1].contains("state unknown") && rows[1].contains(">away<"), "{}", rows[1]);
    assert!(rows[1].contains("not known") && !rows[1].contains("0.0 s"), "{}", rows[1]);
    assert!(rows[2].contains("state protected") && rows[2].contains("512 B"), "{}", rows[2]);
    let one = get(&rig, "/standbys?database=billing", &person.cookie).await.text;
    assert!(one.contains("wien") && !one.contains("oslo"), "{one}");
    assert_eq!(get(&rig, "/standbys?what=1", &person.cookie).await.status, 400);
    let fresh = Utc::now();
    assert!(page.contains(&fresh.format("%Y-%m-%d").to_string()), "{page}");
    rig.end().await;
}
