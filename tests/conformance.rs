//! The promise: what farshore guarantees, it guarantees for every engine, with no special case outside `engines/`.
//!
//! Method: each guarantee is one function over a [`Primary`](conformance::primary::Primary), run here for every engine through the real program, a real database and
//! a store on disk. What an engine alone promises, its own tests show. A further engine begins by implementing the trait and adding its line to `every_engine`.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

mod service;
// Its name is taken by the module that SQLite's tests are in.
#[path = "sqlite/mod.rs"]
mod sqlite_database;

/// The trait, its engines, and the guarantees.
mod conformance {
    pub mod primary;
    pub mod story;

    pub mod postgres;
    pub mod sqlite;

    pub mod absences;
    pub mod backups;
    pub mod catalog;
    pub mod damage;
    pub mod fencing;
    pub mod incarnations;
    pub mod status;
    pub mod targets;
}

/// A module of tests for each engine, all of them the same.
macro_rules! every_engine {
    ($engines:tt $($file:ident::$guarantee:ident)+) => {
        every_engine! { @each $engines [$($file::$guarantee)+] }
    };
    (@each [$($engine:ident = $primary:ty;)+] $guarantees:tt) => {
        $(every_engine! { @one $engine $primary, $guarantees })+
    };
    (@one $engine:ident $primary:ty, [$($file:ident::$guarantee:ident)+]) => {
        mod $engine {
            $(#[test]
            fn $guarantee() {
                crate::conformance::$file::$guarantee::<$primary>();
            })+
        }
    };
}

every_engine! {
    [
        postgres = crate::conformance::postgres::Postgres;
        sqlite = crate::conformance::sqlite::Sqlite;
    ]
    targets::every_commit_is_restorable_by_every_kind_of_target_and_the_copy_holds_exactly_what_was_committed_by_it
    targets::a_target_that_does_not_exist_is_refused_and_nothing_is_written
    absences::a_service_that_is_killed_while_commits_go_on_misses_none_and_calls_none_stored_that_a_restore_lacks
    absences::what_was_committed_while_no_service_ran_is_shipped_at_the_next_start_without_a_new_incarnation
    backups::a_backup_by_hand_is_listed_complete_and_a_restore_from_behind_it_begins_with_it
    incarnations::a_primary_put_back_to_an_older_state_begins_a_new_incarnation_and_both_stay_restorable
    status::a_status_is_a_success_while_all_is_well_names_the_lag_and_is_never_connected_once_the_service_was_killed
    damage::a_damaged_chunk_is_named_and_nothing_behind_it_is_restored
    catalog::a_lost_catalog_is_rebuilt_from_the_store_alone_to_the_same_points_and_backups
    fencing::a_second_shipper_fences_the_first_and_nothing_is_in_the_journal_twice
}
