//! Questions that a program makes up from our own description: no answer is a fault of ours, and each is as it is described.
//!
//! Method: schemathesis (`tests/install`), for each role and for nobody, over all operations but the stream, whose answer has no end. `FARSHORE_EXAMPLES` asks for more questions than a normal run.

use std::process::{Command, Stdio};

use farshore_catalog::access::Role;
use farshore_testkit::schemathesis;
use farshore_testkit::soak::Campaign;

use crate::rig::Rig;

/// Made-up questions for an operation, in each phase, in a normal run.
const EXAMPLES: u32 = 4;

/// What each answer is held against.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                      response_schema_conformance,negative_data_rejection";
/// And those of somebody who may ask: whoever may not is told that first, whatever else is wrong (401), and at some time that he tried too often (429).
const OF_SOMEBODY: &str = "missing_required_header,unsupported_method,allow_header_conformance";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn soak_questions_made_up_from_the_description_are_answered_as_it_says() {
    let mut campaign = Campaign::start("questions_made_up_from_the_description_are_answered_as_it_says");
    let more = std::env::var("FARSHORE_EXAMPLES").ok();
    let examples = more.as_ref().map_or(EXAMPLES, |text| text.parse().unwrap());
    let coverage_for_all = more.is_some() || !campaign.is_brief();
    while campaign.next_round() {
        for role in Role::ALL.map(Some).into_iter().chain([None]) {
            // What each field may not be is tried for whoever may ask for all of it; in a longer run for everybody.
            let phases = match coverage_for_all || role == Some(Role::Admin) {
                true => "examples,coverage,fuzzing",
                false => "examples,fuzzing",
            };
            let seed = campaign.random.below(1 << 32);
            campaign.count("questions", asked(role, phases, examples, seed).await);
        }
    }
    campaign.finish();
}

/// Asks as somebody, and says how many questions were answered as they should be: all.
#[allow(clippy::print_stdout, reason = "what was asked is read in the output")]
async fn asked(role: Option<Role>, phases: &str, examples: u32, seed: u64) -> u64 {
    // Each begins with the same catalog: an admin makes tokens, and wrong logins are counted.
    let rig = Rig::new().await;
    let mut command = Command::new(schemathesis());
    command.arg("run").arg(rig.url("/api/openapi.json")).current_dir(rig.folder.path());
    let checks = match role {
        Some(_) => format!("{CHECKS},{OF_SOMEBODY}"),
        None => CHECKS.to_owned(),
    };
    command.args(["--checks", &checks, "--exclude-path", "/api/v1/events/stream", "--continue-on-failure"]);
    command.args(["--phases", phases, "--seed", &seed.to_string()]);
    command.args(["--max-examples", &examples.to_string(), "--workers", "1", "--no-color"]);
    command.args(["--request-timeout", "60", "--warnings", "off", "--suppress-health-check", "all"]);
    command.args(["--generation-database", "none"]);
    if let Some(role) = role {
        command.args(["-H", &format!("Authorization:Bearer {}", rig.token(role, None).await)]);
    }
    command.stdin(Stdio::null()).env("HOME", rig.folder.path());
    let asked = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&asked.stdout);
    let who = role.map_or("nobody", Role::word);
    assert!(asked.status.success(), "{who}: {said}\n{}", String::from_utf8_lossy(&asked.stderr));
    println!("{who}:\n{said}");
    assert_eq!(rig.catalog.activity_verify().await.unwrap().findings, [], "{who}");
    rig.end().await;
    let generated = said.split_once(" generated").and_then(|(before, _)| before.split_whitespace().last());
    let generated = generated.and_then(|number| number.replace(',', "").parse().ok());
    generated.unwrap_or_else(|| panic!("how many questions there were: {said}"))
}
