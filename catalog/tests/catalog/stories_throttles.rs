//! Throttles: what is written of a database's rules replaces what was, what nobody spoke of lately is unknown, and looks are kept as they were.

use std::time::Duration;

use chrono::TimeDelta;
use farshore_catalog::Catalog;
use farshore_catalog::throttle::sample::Sample;
use farshore_catalog::throttle::{Rule, RuleState, Throttles};

use crate::make::{name, orders, time};

fn rule(called: &str, state: RuleState) -> Rule {
    Rule {
        name: called.to_owned(),
        state,
        since: time(3),
        why: "ship_lag is 45.6s; it's above 30.0s".to_owned(),
        bandwidth: None,
        notifies: false,
        past: None,
        fired_at: None,
    }
}

pub async fn what_is_written_of_rules_replaces_what_was_and_is_unknown_once_nobody_speaks(catalog: Catalog) {
    orders(&catalog).await;
    let said = Throttles {
        database: name("orders"),
        bandwidth: Some(5_000_000),
        sent: 1 << 40,
        waited: Duration::from_micros(7),
        node: "oslo-1".to_owned(),
        heard_at: time(10),
        rules: RuleState::ALL.map(|state| rule(state.word(), state)).to_vec(),
    };
    let strange = Throttles { database: name("strange"), ..said.clone() };
    for one in [&said, &strange] {
        catalog.throttle_put(one).await.unwrap();
    }
    let mut told = catalog.throttle_list().await.unwrap().into_iter();
    let mut listed = told.next().unwrap();
    assert_eq!(told.next(), None, "of one that is not known here nothing is kept");
    listed.rules.sort_by_key(|rule| RuleState::ALL.iter().position(|state| *state == rule.state));
    assert_eq!(listed, said);
    for (now, silent) in [(10, false), (40, false), (41, true)] {
        let shown = said.shown(&said.rules[1], time(now));
        assert_eq!(shown, if silent { RuleState::Unknown } else { RuleState::Quiet }, "{now}");
    }

    let active = Rule {
        bandwidth: Some(1),
        notifies: true,
        past: Some(true),
        fired_at: Some(time(4)),
        ..rule("busy", RuleState::Active)
    };
    let quiet = Rule { past: Some(false), ..rule("calm", RuleState::Quiet) };
    let next = Throttles { bandwidth: None, heard_at: time(20), rules: vec![active, quiet], ..said };
    catalog.throttle_put(&next).await.unwrap();
    assert_eq!(catalog.throttle_list().await.unwrap(), [next]);
    catalog.database_delete(&name("orders")).await.unwrap();
    assert_eq!(catalog.throttle_list().await.unwrap(), []);
}

pub async fn looks_are_kept_as_they_were_and_forgotten_by_their_age(catalog: Catalog) {
    orders(&catalog).await;
    let (orders, strange) = (name("orders"), name("strange"));
    let look = |second, lag| Sample { ship_lag: lag, ..Sample::unknown(time(second)) };
    let looks = [look(0, Some(1)), look(3590, None), look(3600, Some(7)), look(7300, Some(0))];
    for part in [&looks[..2], &looks[2..]] {
        catalog.throttle_sample_add(&orders, part).await.unwrap();
        catalog.throttle_sample_add(&strange, part).await.unwrap();
    }
    assert_eq!(catalog.throttle_samples(&orders, time(0)).await.unwrap(), looks);
    assert_eq!(catalog.throttle_samples(&orders, time(3590)).await.unwrap(), looks[1..]);
    assert_eq!(catalog.throttle_samples(&strange, time(0)).await.unwrap(), []);
    // Told again: the later word counts.
    catalog.throttle_sample_add(&orders, &[look(7300, Some(9))]).await.unwrap();
    assert_eq!(catalog.throttle_samples(&orders, time(7000)).await.unwrap(), [look(7300, Some(9))]);
    assert_eq!(catalog.throttle_sample_forget(time(0) + TimeDelta::hours(1)).await.unwrap(), 1);
    assert_eq!(catalog.throttle_samples(&orders, time(0)).await.unwrap().len(), 2);
}
