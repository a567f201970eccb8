//! Standbys: what is known of one stays while it is refused, and nothing is made up of one that nobody knows.

use std::time::Duration;

use farshore_catalog::Catalog;
use farshore_catalog::standby::{Standby, StandbyState};
use farshore_journal::{IncarnationId, Offset, Timeline};

use crate::make::{name, time};

pub async fn a_refused_standby_stays_where_it_was_and_grows_later_and_one_that_nobody_knows_is_none(
    catalog: Catalog,
) {
    let (one, other) = (IncarnationId::from_bytes([1; 16]), IncarnationId::from_bytes([2; 16]));
    let orders = name("orders");
    assert_eq!(catalog.standby_bound(&orders, "oslo").await.unwrap(), None);
    assert_eq!(catalog.standby_bind((&orders, "oslo"), one, time(0)).await.unwrap(), one);
    assert_eq!(catalog.standby_bind((&orders, "oslo"), other, time(1)).await.unwrap(), one);
    assert_eq!(catalog.standby_bound(&orders, "oslo").await.unwrap(), Some(one));
    let waits = (StandbyState::WaitsForStore, "the store does not answer");
    catalog.standby_refused((&orders, "oslo"), one, waits, time(2)).await.unwrap();
    assert_eq!(catalog.standby_list(None).await.unwrap(), []);
    let at = Offset::new;
    let known = Standby {
        database: orders.clone(),
        name: "oslo".to_owned(),
        node: "db2".to_owned(),
        login: "far".to_owned(),
        address: "10.0.0.7:41234".to_owned(),
        store: "main".to_owned(),
        incarnation: one,
        timeline: Timeline::new(3),
        sent: at(0x500),
        written: at(0x500),
        flushed: at(0x480),
        applied: at(0x400),
        end: at(0x600),
        state: StandbyState::Streaming,
        since: time(3),
        problem: None,
        behind: Some(Duration::from_secs(2)),
        delay: Some(Duration::from_secs(3600)),
        heard_at: time(10),
    };
    catalog.standby_put(std::slice::from_ref(&known)).await.unwrap();
    // Of another incarnation it is another's word.
    catalog.standby_refused((&orders, "oslo"), other, waits, time(15)).await.unwrap();
    assert_eq!(catalog.standby_list(None).await.unwrap(), std::slice::from_ref(&known));
    for (now, behind) in [(20, 12), (30, 22), (25, 22)] {
        catalog.standby_refused((&orders, "oslo"), one, waits, time(now)).await.unwrap();
        let expected = Standby {
            state: waits.0,
            problem: Some(waits.1.to_owned()),
            since: time(20),
            behind: Some(Duration::from_secs(behind)),
            heard_at: time(now),
            ..known.clone()
        };
        assert_eq!(catalog.standby_list(None).await.unwrap(), [expected]);
    }
    // Why it is to be made anew stays while its store is away, and goes with the first that is known again.
    for (at, state) in [
        (31, StandbyState::LogMissing),
        (32, StandbyState::Diverged),
        (33, StandbyState::Ahead),
        (34, StandbyState::Damaged),
    ] {
        let broken = Standby {
            state,
            problem: Some("it is what it is".to_owned()),
            since: time(at),
            heard_at: time(at),
            ..known.clone()
        };
        catalog.standby_put(std::slice::from_ref(&broken)).await.unwrap();
        catalog.standby_refused((&orders, "oslo"), one, waits, time(35)).await.unwrap();
        let now_waits = Standby { state: waits.0, heard_at: time(36), ..known.clone() };
        catalog.standby_put(std::slice::from_ref(&now_waits)).await.unwrap();
        assert_eq!(catalog.standby_list(None).await.unwrap(), [broken]);
        // A copy of another incarnation is another one.
        let anew = Standby { incarnation: other, since: time(37), ..now_waits };
        catalog.standby_put(std::slice::from_ref(&anew)).await.unwrap();
        assert_eq!(catalog.standby_list(None).await.unwrap(), [anew]);
        catalog.standby_put(std::slice::from_ref(&known)).await.unwrap();
        assert_eq!(catalog.standby_list(None).await.unwrap()[0].state, StandbyState::Streaming);
    }
    let unknown = Standby { behind: None, ..known };
    catalog.standby_put(&[unknown]).await.unwrap();
    catalog.standby_refused((&orders, "oslo"), one, waits, time(40)).await.unwrap();
    assert_eq!(catalog.standby_list(None).await.unwrap()[0].behind, None);
}
