//! The tables' versions, embedded, and how a catalog is brought to the newest.
//!
//! Forward only. SQLite runs all of them in one immediate transaction, since its driver has no migration lock:
//! two processes that open a new file at once then wait for each other. PostgreSQL takes the driver's advisory lock.

use std::borrow::Cow;

use sqlx::AnyConnection;
use sqlx::Row as _;
use sqlx::SqlSafeStr as _;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};

/// Version, name and text of each file in `migrations/`, oldest first.
const FILES: &[(i64, &str, &str)] = &[
    (20_261_121_020_000, "catalog", include_str!("../../migrations/20261121020000_catalog.sql")),
    (
        20_261_125_220_000,
        "incarnation_record_number",
        include_str!("../../migrations/20261125220000_incarnation_record_number.sql"),
    ),
    (20_261_126_010_000, "commit_blocks", include_str!("../../migrations/20261126010000_commit_blocks.sql")),
    (20_261_126_020_000, "signed_heads", include_str!("../../migrations/20261126020000_signed_heads.sql")),
    (20_261_126_230_000, "jobs", include_str!("../../migrations/20261126230000_jobs.sql")),
    (20_261_126_231_000, "access", include_str!("../../migrations/20261126231000_access.sql")),
    (20_261_126_232_000, "schedules", include_str!("../../migrations/20261126232000_schedules.sql")),
    (20_261_127_010_000, "drills", include_str!("../../migrations/20261127010000_drills.sql")),
    (20_261_127_020_000, "idempotency", include_str!("../../migrations/20261127020000_idempotency.sql")),
    (
        20_261_127_021_000,
        "activity_chain",
        include_str!("../../migrations/20261127021000_activity_chain.sql"),
    ),
    (20_261_127_030_000, "notices", include_str!("../../migrations/20261127030000_notices.sql")),
    (20_261_127_033_500, "exposure", include_str!("../../migrations/20261127033500_exposure.sql")),
    (20_261_127_050_000, "turns", include_str!("../../migrations/20261127050000_turns.sql")),
    (20_261_127_051_000, "notice_heard", include_str!("../../migrations/20261127051000_notice_heard.sql")),
    (20_261_127_060_000, "drill_proofs", include_str!("../../migrations/20261127060000_drill_proofs.sql")),
    (20_261_127_070_000, "chronicles", include_str!("../../migrations/20261127070000_chronicles.sql")),
    (
        20_261_127_081_000,
        "many_databases",
        include_str!("../../migrations/20261127081000_many_databases.sql"),
    ),
    (
        20_261_127_124_500,
        "chronicle_places",
        include_str!("../../migrations/20261127124500_chronicle_places.sql"),
    ),
    (20_261_127_140_000, "read_often", include_str!("../../migrations/20261127140000_read_often.sql")),
    (20_261_127_191_500, "drill_replay", include_str!("../../migrations/20261127191500_drill_replay.sql")),
    (
        20_261_127_200_000,
        "backup_unopened",
        include_str!("../../migrations/20261127200000_backup_unopened.sql"),
    ),
    (20_261_127_201_000, "backup_bad", include_str!("../../migrations/20261127201000_backup_bad.sql")),
    (20_261_128_040_000, "standbys", include_str!("../../migrations/20261128040000_standbys.sql")),
    (20_261_128_090_000, "node_roles", include_str!("../../migrations/20261128090000_node_roles.sql")),
    (20_261_128_100_000, "standby_delay", include_str!("../../migrations/20261128100000_standby_delay.sql")),
    (20_261_128_140_000, "throttles", include_str!("../../migrations/20261128140000_throttles.sql")),
    (20_261_128_170_000, "guards", include_str!("../../migrations/20261128170000_guards.sql")),
    (20_261_128_200_000, "compares", include_str!("../../migrations/20261128200000_compares.sql")),
    (20_261_129_090_000, "spools", include_str!("../../migrations/20261129090000_spools.sql")),
];

/// Whether a SQLite catalog has exactly this version's tables, by reading alone: whoever only reads must not wait for a lock that another process
/// holds, least of all one that is frozen while it holds it. `false` where that cannot be told.
pub(crate) async fn is_current(connection: &mut AnyConnection) -> bool {
    let rows = sqlx::query("select version from farshore_migration where success order by version")
        .fetch_all(connection)
        .await;
    let versions: Option<Vec<i64>> =
        rows.ok().and_then(|rows| rows.iter().map(|row| row.try_get("version").ok()).collect());
    versions.is_some_and(|versions| versions.iter().eq(FILES.iter().map(|(version, ..)| version)))
}

/// Brings the catalog behind `connection` to the newest version.
pub(crate) async fn run(connection: &mut AnyConnection) -> Result<(), MigrateError> {
    let migrations = FILES
        .iter()
        .map(|&(version, what, text)| {
            Migration::new(version, Cow::Borrowed(what), MigrationType::Simple, text.into_sql_str(), false)
        })
        .collect();
    let mut migrator = Migrator::with_migrations(migrations);
    // A catalog in PostgreSQL may share a database with something else that uses the driver's default name.
    migrator.dangerous_set_table_name("farshore_migration");
    migrator.run_direct(None, connection, false).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_migration_file_is_embedded_and_opens_with_why() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations");
        let mut on_disk: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        on_disk.sort();
        let embedded: Vec<String> =
            FILES.iter().map(|(version, what, _)| format!("{version}_{what}.sql")).collect();
        assert_eq!(on_disk, embedded);
        for (version, _, text) in FILES {
            assert!(text.starts_with("-- Why: "), "{version}");
        }
    }

    /// What nobody put into a store must not be missed there.
    #[tokio::test]
    async fn a_store_that_an_earlier_build_sealed_into_is_not_said_to_have_had_the_beginning() {
        use sqlx::Connection as _;
        sqlx::any::install_default_drivers();
        let mut connection = AnyConnection::connect("sqlite::memory:").await.unwrap();
        for (_, what, text) in FILES {
            if *what == "chronicle_places" {
                let rows = "insert into chronicle_seal (chronicle, store, number, digest, at_us) \
                            values ('activity', 'main', 7, 'ab', 0), ('activity', 'second', 0, '', 0)";
                sqlx::query(rows).execute(&mut connection).await.unwrap();
            }
            sqlx::raw_sql(*text).execute(&mut connection).await.unwrap();
        }
        let rows = sqlx::query("select first_number, once_number from chronicle_seal order by store");
        let rows = rows.fetch_all(&mut connection).await.unwrap();
        let numbers: Vec<(i64, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        assert_eq!(numbers, [(7, 7), (1, 1)]);
    }
}
