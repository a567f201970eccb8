//! Guards: what is old vouches for nothing, and a database that is to be guarded and is not is known.

use farshore_catalog::Catalog;
use farshore_catalog::guard::{Guard, GuardPhase};

use crate::make::{name, time};

pub async fn a_database_that_is_to_be_guarded_is_known_before_a_guard_ever_was_and_old_words_count_for_nothing(
    catalog: Catalog,
) {
    let (orders, billing) = (name("orders"), name("billing"));
    catalog.guard_expect(&[(orders.clone(), true), (billing.clone(), false)]).await.unwrap();
    let [never] = catalog.guard_list().await.unwrap().try_into().unwrap();
    assert_eq!(
        (&never.database, never.shown(time(0)), never.is_exposed),
        (&orders, GuardPhase::Unknown, true)
    );
    let said = Guard {
        database: orders.clone(),
        node: Some("db1".to_owned()),
        phase: GuardPhase::Armed,
        is_exposed: false,
        exposed_since: Some(time(3)),
        why: Some("waited".to_owned()),
        trouble: Some("none".to_owned()),
        looked_at: Some(time(5)),
        told_at: Some(time(6)),
    };
    catalog.guard_put(&said).await.unwrap();
    // That it is expected changes nothing of what it says.
    catalog.guard_expect(&[(orders.clone(), true)]).await.unwrap();
    assert_eq!(catalog.guard_list().await.unwrap(), std::slice::from_ref(&said));
    assert_eq!(catalog.fleet(time(6)).await.unwrap().guards, std::slice::from_ref(&said));
    assert_eq!(catalog.guard_of(&orders).await.unwrap().as_ref(), Some(&said));
    assert_eq!(catalog.guard_of(&billing).await.unwrap(), None);
    assert_eq!(said.shown(time(6)), GuardPhase::Armed);
    // Of the primary nothing was heard, or of the guard.
    assert_eq!(said.shown(time(16)), GuardPhase::Unknown);
    assert_eq!(Guard { told_at: Some(time(16)), ..said.clone() }.shown(time(16)), GuardPhase::Unknown);
    assert_eq!(Guard { looked_at: Some(time(16)), ..said.clone() }.shown(time(17)), GuardPhase::Unknown);
    // What is open is not over.
    assert_eq!(Guard { is_exposed: true, ..said }.shown(time(6)), GuardPhase::Arming);
    catalog.guard_expect(&[(orders, false)]).await.unwrap();
    assert_eq!(catalog.guard_list().await.unwrap(), []);
}
