//! `tests/soak drills --for 10m`: drills of a file and of a server at random points while both are written to and shipped, faults among them.

use std::time::Duration;

use farshore_testkit::pg::{Length, Load, Server};
use farshore_testkit::process::Owned;
use farshore_testkit::soak::Campaign;

use crate::killed::STEPS;
use crate::rig::{configure, drill, nothing_left, place, verifies};
use crate::service::Node;
use crate::sqlite::{database, python, text};
use nix::sys::signal::Signal;

/// Longer than any round.
const LONG: Duration = Duration::from_secs(600);

/// Work of an application, until dropped.
enum Work {
    Server(#[allow(dead_code)] Load),
    File(#[allow(dead_code)] Owned),
}

impl Work {
    /// A hundred transactions a second.
    fn of_server(server: &Server) -> Self {
        Self::Server(server.pgbench_with(2, Length::For(LONG), &["-R", "100"]))
    }

    /// A writer with a seed of its own.
    fn of_file(node: &Node, seed: u64) -> Self {
        let seed = seed.to_string();
        let command = python(&["write", &text(&database(node)), &seed, "600", "50", "steady"]);
        Self::File(Owned::spawn(command, Signal::SIGKILL))
    }
}

/// Whatever is drilled, and however it ends, what is said is true, each certificate holds, and nothing is left.
#[test]
fn soak_drills() {
    let mut campaign = Campaign::start("drills");
    let (file, _) = crate::files::shipped();
    let (server, node) = crate::servers::shipped();
    for node in [&file, &node] {
        configure(
            node,
            "rto = \"10m\"\n[databases.orders.drill]\npoint = \"random\"\nassertions = [{ name = \"one\", sql = \"select 1\" }]\n",
        );
    }
    while campaign.next_round() {
        let is_server = campaign.random.below(3) > 0 || campaign.is_brief();
        let node = if is_server { &node } else { &file };
        let service = node.start(None);
        let work = match is_server {
            true => Work::of_server(&server),
            false => Work::of_file(node, campaign.random.number() >> 32),
        };
        node.wait_connected();
        let seed = campaign.random.number().to_string();
        let words = ["--point", "random", "--seed", seed.as_str()];
        match campaign.random.below(4) {
            0 => {
                let step = STEPS[usize::try_from(campaign.random.below(STEPS.len() as u64)).unwrap()];
                let line = [&["drill", "run", "orders"], &words[..]].concat();
                let killed = node.run_until(step, &line);
                assert!(!killed.status.success(), "{step}: {killed:?}");
                campaign.count("kills", 1);
            }
            1 => {
                node.configure(|text| text.replace("select 1\"", "select 2\""));
                let failed = drill(node, &words).failed("FS-0801", 8, "one: it is not true");
                node.configure(|text| text.replace("select 2\"", "select 1\""));
                verifies(node, &failed.id());
                campaign.count("faults", 1);
                campaign.count("certificates", 1);
            }
            _ => {}
        }
        let passed = drill(node, &words).passed();
        verifies(node, &passed.id());
        nothing_left(&place(node));
        drop(work);
        service.stop();
        campaign.count(if is_server { "server_drills" } else { "file_drills" }, 1);
        campaign.count("certificates", 1);
    }
    campaign.finish();
}
