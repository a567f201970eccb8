//! The catalog's promises, on SQLite and on PostgreSQL.
//!
//! Each story is one guarantee. On SQLite every story is a test of its own; on PostgreSQL one test runs them all,
//! each in a new database of one server, because starting a server costs more than all stories together.

#![allow(
    clippy::unwrap_used,
    reason = "the stories are tests too, though clippy sees no test attribute on them"
)]

#[path = "catalog/files.rs"]
mod files;
#[path = "catalog/make.rs"]
mod make;
#[path = "catalog/stories.rs"]
mod stories;
#[path = "catalog/stories_access.rs"]
mod stories_access;
#[path = "catalog/stories_activity.rs"]
mod stories_activity;
#[path = "catalog/stories_chronicles.rs"]
mod stories_chronicles;
#[path = "catalog/stories_compares.rs"]
mod stories_compares;
#[path = "catalog/stories_drills.rs"]
mod stories_drills;
#[path = "catalog/stories_fleet.rs"]
mod stories_fleet;
#[path = "catalog/stories_glance.rs"]
mod stories_glance;
#[path = "catalog/stories_guards.rs"]
mod stories_guards;
#[path = "catalog/stories_jobs.rs"]
mod stories_jobs;
#[path = "catalog/stories_points.rs"]
mod stories_points;
#[path = "catalog/stories_recovery.rs"]
mod stories_recovery;
#[path = "catalog/stories_standbys.rs"]
mod stories_standbys;
#[path = "catalog/stories_status.rs"]
mod stories_status;
#[path = "catalog/stories_throttles.rs"]
mod stories_throttles;

use farshore_catalog::{Catalog, Options};
use farshore_testkit::pg::{Major, Server};

/// One test per story on SQLite, and all of them in turn on PostgreSQL.
macro_rules! on_both {
    ($($module:ident::$story:ident),* $(,)?) => {
        mod on_sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $story() {
                    let folder = tempfile::tempdir().unwrap();
                    let url = format!("sqlite:{}/catalog.db", folder.path().display());
                    super::$module::$story(super::open(&url).await).await;
                }
            )*
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn every_story_holds_on_postgresql_too() {
            let server = Server::start_new(Major::V15);
            $(
                let name = stringify!($story).get(..50).unwrap_or(stringify!($story));
                println!("story {name}");
                server.sql(&format!("create database {name}"));
                let url = server.url();
                let (authority, _) = url.rsplit_once('/').unwrap();
                let url = format!("{authority}/{name}");
                $module::$story(open(&url).await).await;
            )*
        }
    };
}

async fn open(url: &str) -> Catalog {
    // Loaded machines are slow; a deadline that passes is a failure here, so it is a long one.
    let options = Options { deadline: std::time::Duration::from_secs(60), ..Options::default() };
    Catalog::open(url, options).await.unwrap()
}

/// A pool of somebody else's, for stories about what is done behind our back.
async fn raw(url: &str) -> sqlx::AnyPool {
    sqlx::AnyPool::connect(url).await.unwrap()
}

/// Stories about a catalog that others write to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_done_to_the_record_of_activity_behind_our_back_is_found_on_both() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_new(Major::V15);
    let url = server.url();
    let (authority, _) = url.rsplit_once('/').unwrap();
    for (at, story) in ["found", "adopted"].into_iter().enumerate() {
        server.sql(&format!("create database {story}"));
        let places =
            [format!("sqlite:{}/{story}.db", folder.path().display()), format!("{authority}/{story}")];
        for url in places {
            let catalog = open(&url).await;
            let raw = raw(&url).await;
            match at {
                0 => {
                    stories_activity::an_entry_that_was_changed_removed_or_moved_is_found(catalog, raw).await;
                }
                _ => stories_activity::entries_of_before_the_chain_are_taken_into_it(catalog, raw).await,
            }
        }
    }
}

on_both!(
    stories_glance::a_database_among_others_is_told_of_as_by_itself,
    stories_glance::as_much_is_asked_of_the_catalog_for_many_databases_as_for_one,
    stories_glance::the_window_of_one_among_many_is_that_of_all_its_rows,
    stories_glance::how_the_exposure_went_is_kept_by_the_minute_and_what_nobody_looked_at_is_not_there,
    stories::a_database_keeps_its_engine,
    stories::deleting_a_database_takes_all_it_had,
    stories::the_latest_incarnation_is_current_and_facts_never_change,
    stories::a_timeline_learns_its_fork_once,
    stories::a_target_keeps_no_secret,
    stories::shipping_reads_back_as_written_and_unknown_stays_unknown,
    stories::a_number_no_column_can_hold_is_refused,
    stories::ranges_that_touch_are_one,
    stories::a_gap_goes_only_when_wholly_filled,
    stories::a_head_only_moves_forward_and_outlives_its_incarnation,
    stories::a_backup_moves_once,
    stories::marks_keep_their_holds_and_restore_points_stay,
    stories::activity_is_numbered_in_order_and_never_changes,
    stories::nodes_are_renewed,
    stories::a_dropped_transaction_leaves_nothing,
    stories::writers_at_once_all_succeed,
    stories_jobs::a_job_is_followed_from_its_asking_to_its_end,
    stories_jobs::of_many_that_claim_a_job_one_has_it,
    stories_jobs::a_word_of_an_older_claim_changes_nothing,
    stories_jobs::a_holder_that_spoke_meanwhile_is_not_called_silent,
    stories_jobs::one_that_was_called_silent_may_still_say_what_came_of_it,
    stories_jobs::a_wish_to_end_is_heard_at_the_next_beat,
    stories_jobs::jobs_are_listed_newest_first_page_by_page,
    stories_jobs::a_job_that_another_catalog_kept_is_gone_and_no_other_is_touched,
    stories_jobs::a_due_time_that_a_wrong_clock_answered_is_taken_back_once,
    stories_jobs::a_due_time_is_answered_once_with_its_job,
    stories_jobs::however_much_waits_of_one_database_the_others_have_their_turn,
    stories_jobs::a_word_about_a_job_that_was_cut_off_brings_nobody_to_read_the_stores,
    stories_activity::writers_at_once_make_one_chain,
    stories_activity::work_that_is_asked_for_again_within_a_day_is_the_same_job,
    stories_activity::no_more_work_of_a_database_is_asked_for_than_may_wait,
    stories_chronicles::a_copy_from_before_it_was_settled_writes_nothing_a_second_time,
    stories_chronicles::a_copy_of_a_ledger_from_before_it_was_settled_writes_nothing_a_second_time,
    stories_chronicles::a_lost_record_of_activity_comes_back_and_goes_on_behind_its_end,
    stories_chronicles::entries_that_could_not_be_opened_are_filled_in_later_and_only_the_right_ones,
    stories_chronicles::a_long_record_is_taken_back_in_parts_that_each_lead_to_what_is_there,
    stories_chronicles::a_ledger_whose_end_could_not_be_opened_goes_on_behind_that_end,
    stories_chronicles::a_catalog_goes_on_behind_what_a_store_has_whatever_the_clocks_say,
    stories_chronicles::where_pages_stand_and_none_counts_the_ledger_says_that_nobody_vouches,
    stories_chronicles::a_lost_ledger_comes_back_and_the_time_since_its_end_is_an_entry,
    stories_chronicles::two_who_look_at_once_write_one_ledger,
    stories_chronicles::how_far_a_store_has_a_chronicle_is_told_with_what_it_lacks,
    stories_chronicles::the_digest_of_an_entry_is_told_by_itself_or_by_the_one_behind_it,
    stories_chronicles::how_far_a_store_had_a_chronicle_is_forgotten_with_the_store,
    stories_drills::drills_are_listed_newest_first_and_read_back_as_written,
    stories_drills::what_is_certified_of_a_drill_is_never_replaced,
    stories_drills::a_database_is_proved_by_its_newest_drill_that_did_not_fail,
    stories_recovery::a_recovery_is_reckoned_from_the_newest_base_and_the_three_newest_drills,
    stories_recovery::what_each_store_has_of_the_cluster_is_told_beside_the_other,
    stories_drills::the_drills_of_a_day_are_counted_by_how_they_ended_however_many_there_are,
    stories_access::a_token_lets_in_until_it_expires_or_is_revoked_and_nothing_else_does,
    stories_access::a_valid_token_keeps_its_name_and_a_revoked_one_frees_it,
    stories_access::the_last_use_of_a_token_is_kept_to_a_minute,
    stories_access::a_user_who_is_disabled_or_has_another_password_has_no_session_left,
    stories_access::the_last_admin_who_may_log_in_is_not_disabled_also_where_two_disable_each_other,
    stories_access::a_user_who_shows_his_password_gives_himself_another_unless_he_has_got_one_meanwhile,
    stories_access::a_login_beside_a_change_of_the_password_leaves_no_session,
    stories_access::pages_of_backups_show_each_once_whoever_asks_for_which,
    stories_points::commits_added_twice_count_once,
    stories_points::a_time_resolves_in_log_order_whatever_order_they_came_in,
    stories_points::blocks_answer_as_reading_the_whole_log_in_order_does,
    stories_points::a_transaction_id_finds_its_commits,
    stories_points::pages_show_every_commit_once_in_both_directions,
    stories_points::a_clock_that_was_far_ahead_hides_no_point,
    stories_points::every_mark_is_on_one_page_also_where_no_commit_follows,
    stories_points::expired_commits_are_gone_and_the_rest_stays_right,
    stories_status::status_without_facts_is_unknown_and_null,
    stories_status::status_has_exactly_the_promised_shape,
    stories_status::what_is_wrong_with_a_store_is_said_and_takes_nothing_back_that_was_stored,
    stories_status::status_names_what_the_incarnations_before_the_current_one_reach,
    stories_status::a_window_never_joins_two_stores,
    stories_status::no_time_of_a_window_comes_from_behind_a_gap,
    stories_status::a_last_word_vouches_for_nothing_but_itself,
    stories_status::the_window_is_on_the_newest_timeline_while_nothing_ships,
    stories_status::a_store_is_forgotten_for_one_database_alone,
    stories_status::a_fact_of_an_unknown_incarnation_is_refused_for_good,
    stories_status::a_rebuilt_catalog_equals_the_lost_one,
    stories_fleet::the_fleet_says_of_each_database_what_its_status_says,
    stories_fleet::the_newest_success_and_failure_of_work_are_known_by_kind_and_database,
    stories_fleet::work_that_was_done_and_is_bad_news_is_a_failure_and_hides_no_success_before_it,
    stories_compares::a_standby_is_held_for_one_at_a_time_and_answers_are_of_the_hold_that_they_name,
    stories_compares::comparisons_are_listed_newest_first_page_by_page_and_stay_what_they_were,
    stories_guards::a_database_that_is_to_be_guarded_is_known_before_a_guard_ever_was_and_old_words_count_for_nothing,
    stories_standbys::a_refused_standby_stays_where_it_was_and_grows_later_and_one_that_nobody_knows_is_none,
    stories_throttles::what_is_written_of_rules_replaces_what_was_and_is_unknown_once_nobody_speaks,
    stories_throttles::looks_are_kept_as_they_were_and_forgotten_by_their_age,
    stories_fleet::of_many_that_see_a_change_one_tells_it,
    stories_fleet::of_many_that_would_tell_a_channel_one_does_and_what_it_heard_never_grows_older,
    stories_fleet::of_many_that_would_tell_a_channel_much_at_once_each_is_told_by_one,
);
