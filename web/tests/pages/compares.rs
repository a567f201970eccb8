//! The pages of comparisons: nothing that was not compared is drawn as good, every name is escaped, and nobody sees another's database.

use farshore_catalog::access::Role;
use farshore_catalog::compare::{Compare, Verdict};
use farshore_catalog::job::{JobId, JobKind};
use farshore_catalog::standby::StandbyState;
use farshore_journal::CompareId;

use crate::person::{get, log_in, send};
use crate::rig::{Rig, name, standby};

fn compare(number: u8, database: &str, verdict: Verdict, statement: &str) -> Compare {
    let now = chrono::Utc::now();
    Compare {
        id: CompareId::from_bytes([number; 16]),
        database: name(database),
        standby: "oslo".to_owned(),
        verdict,
        began: now - chrono::TimeDelta::seconds(60 - i64::from(number)),
        ended: now,
        statement: statement.to_owned(),
    }
}

const SAID: &str = r#"{"databases": [{"name": "app", "verdict": "different", "position": "1:0/30", "tables": [
    {"table": "public.a", "verdict": "equal", "rows": 7, "differences": 0, "more": false, "named": []},
    {"table": "public.<b>", "verdict": "different", "rows": 7, "differences": 1, "more": false,
     "named": [{"kind": "missing", "at": "(0,3)", "key": "id=<3>"}]}], "others": [], "excluded": ["public.x"]}]}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn comparisons_are_shown_as_what_they_came_to_and_asked_for_by_who_may() {
    let rig = Rig::new().await;
    rig.user("ana", Role::Operator).await;
    rig.user("bob", Role::Viewer).await;
    let person = log_in(&rig, "ana").await;
    let none = get(&rig, "/compares", &person.cookie).await;
    assert!(none.status == 200 && none.text.contains("farshore compare run"), "{none:?}");
    rig.catalog
        .standby_put(&[standby("orders", "oslo", StandbyState::Streaming, chrono::TimeDelta::zero())])
        .await
        .unwrap();
    for one in [
        compare(1, "orders", Verdict::Equal, "{\"databases\": []}"),
        compare(2, "orders", Verdict::NotCompared, "no JSON"),
        compare(3, "billing", Verdict::Different, SAID),
    ] {
        rig.catalog.compare_put(&one).await.unwrap();
    }
    let page = get(&rig, "/compares", &person.cookie).await.text;
    let rows: Vec<&str> = page.split("data-compare=\"").skip(1).collect();
    let states = ["state unprotected", "state unknown", "state protected"];
    assert_eq!(rows.len(), 3, "{page}");
    for (row, state) in rows.iter().zip(states) {
        assert!(row.contains(state), "{state}: {row}");
    }
    let of_one = get(&rig, "/compares?database=billing", &person.cookie).await.text;
    assert_eq!(of_one.matches("data-compare=").count(), 1, "{of_one}");
    let one = get(&rig, &format!("/compares/{}", "03".repeat(16)), &person.cookie).await.text;
    for text in ["public.&#60;b&#62;", "id=&#60;3&#62;", "missing", "(0,3)", "1:0/30", "left out by name"] {
        assert!(one.contains(text), "{text}: {one}");
    }
    let unread = get(&rig, &format!("/compares/{}", "02".repeat(16)), &person.cookie).await.text;
    assert!(unread.contains("does not read in this version"), "{unread}");
    assert_eq!(get(&rig, &format!("/compares/{}", "09".repeat(16)), &person.cookie).await.status, 404);
    // The form asks a service.
    let key = page.split("name=\"key\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let fields = [("csrf", person.csrf.as_str()), ("key", key), ("of", "orders oslo")];
    let asked = send(&rig, "/compares", &person.cookie, &fields).await;
    assert_eq!(asked.status, 303, "{asked:?}");
    let id: JobId = asked.header("location").strip_prefix("/jobs/").unwrap().parse().unwrap();
    let job = rig.catalog.job_get(id).await.unwrap().unwrap();
    assert_eq!((job.asked.kind, job.asked.spec.as_str()), (JobKind::Compare, "{\"standby\":\"oslo\"}"));
    let viewer = log_in(&rig, "bob").await;
    let page = get(&rig, "/compares", &viewer.cookie).await.text;
    assert!(page.contains("takes the role operator") && !page.contains("compare-form"), "{page}");
    rig.end().await;
}
