//! Comparisons: a standby is held for one at a time, and what one came to stays.

use farshore_catalog::Catalog;
use farshore_catalog::compare::{Compare, CompareFilter, Verdict};
use farshore_catalog::hold::{Hold, HoldAnswer};
use farshore_journal::{CompareId, Offset};

use crate::make::{name, time};

fn hold(hold: u64, beat: u64) -> Hold {
    Hold {
        database: name("orders"),
        standby: "oslo".to_owned(),
        hold,
        holder: format!("comparison {hold}"),
        beat,
        ceiling: None,
        answer: None,
    }
}

pub async fn a_standby_is_held_for_one_at_a_time_and_answers_are_of_the_hold_that_they_name(
    catalog: Catalog,
) {
    assert_eq!(catalog.hold_list().await.unwrap(), []);
    assert_eq!(catalog.hold_take(&hold(1, 1)).await.unwrap(), hold(1, 1));
    // Another one gets to know who has it, and one standby more is another's matter.
    assert_eq!(catalog.hold_take(&hold(2, 1)).await.unwrap(), hold(1, 1));
    let rome = Hold { standby: "rome".to_owned(), ..hold(3, 1) };
    assert_eq!(catalog.hold_take(&rome).await.unwrap(), rome);
    let answer = HoldAnswer { node: "db1".to_owned(), sent: Offset::new(7), at: Offset::new(9) };
    catalog.hold_answer(1, &answer).await.unwrap();
    catalog.hold_answer(2, &answer).await.unwrap();
    let ceiling = Some(Offset::new(20));
    let held = Hold { ceiling, answer: Some(answer), ..hold(1, 2) };
    assert_eq!(catalog.hold_beat(1, 2, ceiling).await.unwrap().as_ref(), Some(&held));
    assert_eq!(catalog.hold_beat(2, 2, ceiling).await.unwrap(), None);
    assert_eq!(catalog.hold_list().await.unwrap(), [held.clone(), rome]);
    // Whose beat moved is not taken away; whose stands is.
    assert!(!catalog.hold_drop(&hold(1, 1)).await.unwrap());
    assert!(catalog.hold_drop(&held).await.unwrap());
    assert_eq!(catalog.hold_take(&hold(2, 1)).await.unwrap(), hold(2, 1));
    catalog.hold_release(1).await.unwrap();
    catalog.hold_release(3).await.unwrap();
    assert_eq!(catalog.hold_list().await.unwrap(), [hold(2, 1)]);
}

pub async fn comparisons_are_listed_newest_first_page_by_page_and_stay_what_they_were(catalog: Catalog) {
    let compare = |number: u8, database: &str, verdict, began| Compare {
        id: CompareId::from_bytes([number; 16]),
        database: name(database),
        standby: "oslo".to_owned(),
        verdict,
        began: time(began),
        ended: time(began + 1),
        statement: format!("{{\"number\":{number}}}"),
    };
    let (one, two) = (compare(1, "orders", Verdict::Equal, 10), compare(2, "orders", Verdict::Different, 20));
    let other = compare(3, "billing", Verdict::NotCompared, 20);
    for all in [&one, &two, &other] {
        catalog.compare_put(all).await.unwrap();
    }
    catalog.compare_put(&Compare { verdict: Verdict::Different, ..one.clone() }).await.unwrap();
    assert_eq!(catalog.compare_get(one.id).await.unwrap().as_ref(), Some(&one));
    assert_eq!(catalog.compare_get(CompareId::from_bytes([9; 16])).await.unwrap(), None);
    let list = async |database: Option<&str>, before, limit| {
        let filter = CompareFilter { database: database.map(name), before };
        catalog.compare_list(&filter, limit).await.unwrap()
    };
    assert_eq!(list(None, None, 9).await, [other.clone(), two.clone(), one.clone()]);
    assert_eq!(list(None, None, 1).await, std::slice::from_ref(&other));
    assert_eq!(list(None, Some((other.began, other.id)), 1).await, std::slice::from_ref(&two));
    assert_eq!(list(Some("orders"), Some((two.began, two.id)), 9).await, [one]);
}
