//! The kit's own campaign: what a server confirmed outlives whatever way it was stopped.

use farshore_testkit::pg::{Major, Mode, Server};
use farshore_testkit::soak::Campaign;

#[test]
fn soak_servers() {
    let mut campaign = Campaign::start("servers");
    while campaign.next_round() {
        let major = *campaign.random.pick(&Major::all()).unwrap();
        let server = Server::start_new(major);
        server.sql("create table confirmed(n bigint primary key)");
        let mut confirmed = 0;
        for _ in 0..1 + campaign.random.below(4) {
            let rows = 1 + campaign.random.below(500);
            server.sql(&format!(
                "insert into confirmed select generate_series({confirmed}, {})",
                confirmed + rows - 1
            ));
            confirmed += rows;
            match campaign.random.below(3) {
                0 => server.stop(Mode::Fast),
                1 => server.stop(Mode::Immediate),
                _ => {
                    server.kill9();
                    campaign.count("kills", 1);
                }
            }
            server.start();
            campaign.count("restarts", 1);
            assert_eq!(server.sql("select count(*) from confirmed"), confirmed.to_string());
        }
        campaign.count("rows", confirmed);
    }
    campaign.finish();
}
