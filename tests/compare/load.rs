//! Comparisons while the primary works as fast as it can: all alike, and called so.

use std::time::{Duration, Instant};

use farshore_testkit::pg::{Length, Load, Major, Server};
use farshore_testkit::soak::Campaign;

use crate::rig::{Rig, primary, table};

/// Work with sub-transactions, of which some are rolled back, and with prepared ones.
const NESTED: &str = "begin;
insert into nested (note) values ('kept');
savepoint one;
insert into nested (note) values ('rolled back');
rollback to savepoint one;
savepoint two;
insert into nested (note) values ('kept, deeper');
release savepoint two;
commit;
";
const PREPARED: &str = "begin;
insert into prepared (note) values ('two phases');
prepare transaction 'NAME';
commit prepared 'NAME';
";

fn rig(major: Major) -> Rig {
    let primary = primary(major).start();
    primary.pgbench_init(2);
    primary.sql("create table nested (id bigserial primary key, note text); create table prepared (id bigserial primary key, note text)");
    Rig::of(primary)
}

fn loads(primary: &Server, time: Duration) -> Vec<Load> {
    let script = |name: &str, text: &str| {
        let path = primary.folder().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let mut loads = vec![primary.pgbench(4, Length::For(time))];
    let nested = script("nested.sql", NESTED);
    loads.push(primary.pgbench_with(2, Length::For(time), &["-f", &nested]));
    for name in ["one", "two"] {
        let phases = script(&format!("{name}.sql"), &PREPARED.replace("NAME", name));
        loads.push(primary.pgbench_with(1, Length::For(time), &["-f", &phases]));
    }
    loads
}

#[test]
fn soak_pairs_under_load_are_equal() {
    let mut campaign = Campaign::start("pairs_under_load_are_equal");
    let majors = Major::all();
    let major = if campaign.is_brief() { Major::V15 } else { majors[campaign.random.below(5) as usize] };
    let rig = rig(major);
    let began = Instant::now();
    while campaign.next_round() {
        let seconds = if campaign.is_brief() { 20 } else { 30 };
        let mut loads = loads(&rig.primary, Duration::from_secs(seconds));
        let mut pairs = 0;
        while loads[0].is_running() && loads[2].is_running() && (pairs < 2 || !campaign.is_brief()) {
            let came = rig.is_equal();
            assert!(table(&came, "public.pgbench_accounts")["rows"] == 200_000, "{came:#}");
            pairs += 1;
            campaign.count("snapshots", came["databases"][0]["snapshots"].as_u64().unwrap());
        }
        let transactions: u64 = loads.into_iter().map(|load| load.wait().transactions).sum();
        assert!(pairs > 0);
        campaign.count("pairs", pairs);
        campaign.count("transactions", transactions);
        println!("PostgreSQL {major}: {pairs} pairs over {transactions} transactions, {:?}", began.elapsed());
    }
    rig.stands("streaming");
    campaign.finish();
}
