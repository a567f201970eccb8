//! What holds of one engine only: SQLite's files, PostgreSQL's connections.

use std::error::Error as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use farshore_catalog::{Catalog, Durability, Error, Options, Renewal};
use farshore_testkit::pg::{Major, Mode, Server};
use tokio::task::JoinSet;

use crate::make::{commit, incarnation, name, orders, time};
use crate::open;

fn url(folder: &Path) -> String {
    format!("sqlite:{}/a catalog%.db", folder.display())
}

fn chain(error: &Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(&format!(" {inner} {inner:?}"));
        cause = inner.source();
    }
    text
}

#[tokio::test]
async fn the_files_are_their_owners_only_and_keep_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    for durability in [Durability::Full, Durability::Normal] {
        let catalog =
            Catalog::open(&url(folder.path()), Options { durability, ..Options::default() }).await.unwrap();
        orders(&catalog).await;
        let mut seen = 0;
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
            seen += 1;
        }
        assert!(seen >= 2, "the file and its write-ahead log");
        catalog.close().await;
    }
    assert!(folder.path().join("a catalog%.db").exists());
    assert_eq!(open(&url(folder.path())).await.database_list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_catalog_deleted_or_replaced_under_a_process_gives_errors() {
    let folder = tempfile::tempdir().unwrap();
    let url = url(folder.path());
    let catalog = open(&url).await;
    let id = orders(&catalog).await;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let answers = [
        catalog.commit_insert(id, &[commit(1, 100, 1, 1)]).await.unwrap_err(),
        catalog.status(&name("orders"), time(0)).await.unwrap_err(),
        catalog.begin().await.unwrap_err(),
    ];
    for error in answers {
        assert!(matches!(error, Error::Gone { .. }) && error.is_away(), "{error:?}");
    }
    // A new one in its place is not taken for the old one, and opening anew works.
    let fresh = open(&url).await;
    assert!(matches!(catalog.database_list().await, Err(Error::Gone { .. })));
    assert!(fresh.database_list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_catalog_opened_anew_is_the_new_one_for_every_clone() {
    let folder = tempfile::tempdir().unwrap();
    let url = url(folder.path());
    let catalog = open(&url).await;
    let clone = catalog.clone();
    let id = orders(&catalog).await;
    assert_eq!(catalog.renew().await.unwrap(), Renewal::Same);
    assert_eq!((clone.database_list().await.unwrap().len(), clone.untold()), (1, 0));
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    assert!(clone.commit_insert(id, &[commit(1, 100, 1, 1)]).await.is_err());
    assert_eq!(catalog.untold(), 1);
    assert_eq!(catalog.renew().await.unwrap(), Renewal::Another);
    assert!(clone.still_there().is_ok());
    assert!(clone.database_list().await.unwrap().is_empty());
    orders(&clone).await;
    assert_eq!(open(&url).await.database_list().await.unwrap().len(), 1);
}

/// Whoever writes may be frozen, and `status` is how one finds out.
#[tokio::test]
async fn a_catalog_whose_lock_another_process_holds_is_opened_and_read_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let url = url(folder.path());
    let writer = open(&url).await;
    orders(&writer).await;
    let holds = writer.begin().await.unwrap();
    let options = Options { deadline: Duration::from_secs(4), ..Options::default() };
    let reader = Catalog::open(&url, options).await.unwrap();
    assert_eq!(reader.database_list().await.unwrap().len(), 1);
    drop(holds);
}

/// An operator removes `catalog.db` and does not know of the files beside it, which the service has mapped.
#[tokio::test]
async fn what_a_deleted_catalog_left_beside_it_does_not_reach_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let url = url(folder.path());
    let path = folder.path().join("a catalog%.db");
    let former = open(&url).await;
    let id = orders(&former).await;
    for round in 0..3u64 {
        let commits: Vec<_> = (1..500).map(|n| commit(1, (round * 500 + n) * 100, 1, n)).collect();
        former.commit_insert(id, &commits).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        // Another process is the first to miss it.
        let other = open(&url).await;
        assert!(other.database_list().await.unwrap().is_empty());
        orders(&other).await;
        assert_eq!(former.renew().await.unwrap(), Renewal::Another);
        former.commit_insert(id, &[commit(1, 100, 1, 1)]).await.unwrap();
        other.commit_insert(id, &[commit(1, 200, 1, 2)]).await.unwrap();
        for catalog in [&former, &other, &open(&url).await] {
            assert!(catalog.commit_by_xid(id, 1).await.unwrap().len() == 1);
            assert!(catalog.commit_by_xid(id, 2).await.unwrap().len() == 1);
        }
    }
}

/// An operator puts a copy of the catalog in the place of the one in use, and only its main file.
#[tokio::test]
async fn a_file_put_in_the_catalogs_place_does_not_get_the_former_ones_log() {
    let folder = tempfile::tempdir().unwrap();
    let url = url(folder.path());
    let (path, copy) = (folder.path().join("a catalog%.db"), folder.path().join("copy.db"));
    let catalog = open(&format!("sqlite:{}", copy.display())).await;
    let id = orders(&catalog).await;
    catalog.commit_insert(id, &[commit(1, 100, 1, 1)]).await.unwrap();
    catalog.close().await;
    let catalog = open(&url).await;
    orders(&catalog).await;
    let commits: Vec<_> = (2..500).map(|n| commit(1, n * 100, 1, n)).collect();
    catalog.commit_insert(id, &commits).await.unwrap();
    std::fs::rename(&copy, &path).unwrap();
    assert_eq!(catalog.renew().await.unwrap(), Renewal::Another);
    for catalog in [&catalog, &open(&url).await] {
        assert_eq!(catalog.commit_by_xid(id, 1).await.unwrap().len(), 1);
        assert_eq!(catalog.commit_by_xid(id, 2).await.unwrap().len(), 0);
    }
}

#[tokio::test]
async fn a_catalog_that_is_away_at_first_is_opened_later() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("mounted later");
    let catalog = Catalog::unopened(&url(&place), Options::default()).unwrap();
    assert!(matches!(catalog.database_list().await, Err(Error::NotOpen { .. })));
    let refused = catalog.renew().await.unwrap_err();
    assert!(matches!(refused, Error::File { .. }) && refused.is_away(), "{refused:?}");
    std::fs::create_dir(&place).unwrap();
    assert_eq!(catalog.renew().await.unwrap(), Renewal::Another);
    orders(&catalog).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openers_and_writers_of_one_file_wait_for_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let mut openers = JoinSet::new();
    for _ in 0..4 {
        let url = url(folder.path());
        openers.spawn(async move { open(&url).await });
    }
    let mut catalogs = Vec::new();
    while let Some(opened) = openers.join_next().await {
        catalogs.push(opened.unwrap());
    }
    let id = orders(&catalogs[0]).await;
    let mut writers = JoinSet::new();
    for (writer, catalog) in (0u64..).zip(&catalogs) {
        let catalog = catalog.clone();
        writers.spawn(async move {
            for round in 0..25 {
                let end = (writer * 100 + round + 1) * 100;
                catalog.commit_insert(id, &[commit(1, end, 1, end)]).await.unwrap();
            }
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test]
async fn an_address_that_names_no_catalog_is_refused() {
    for url in ["", "mysql://db/f", "sqlite:", "sqlite::memory:", "sqlite:a.db?mode=ro", "farshore.db"] {
        let refused = Catalog::open(url, Options::default()).await;
        assert!(matches!(refused, Err(Error::Address { .. })), "{url}");
    }
    let nowhere = Catalog::open("sqlite:/no/such/folder/a.db", Options::default()).await;
    assert!(matches!(nowhere, Err(Error::File { .. })));
}

#[tokio::test]
async fn a_file_that_is_no_catalog_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.txt");
    let text = "these are notes, and no database, in more than a hundred bytes of text. ".repeat(20);
    std::fs::write(&path, &text).unwrap();
    let options = Options { deadline: Duration::from_secs(2), ..Options::default() };
    let refused = Catalog::open(&format!("sqlite:{}", path.display()), options).await;
    assert!(refused.is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_error_of_a_postgresql_catalog_shows_its_password_and_none_waits_for_ever() {
    let server = Server::builder(Major::V15).scram("keeper", "s3cret-w0rd").start();
    let in_database = |name: &str| {
        server.sql(&format!("create database {name} owner keeper"));
        let url = server.url();
        let (authority, _) = url.rsplit_once('/').unwrap();
        format!("{authority}/{name}")
    };
    let url = in_database("home");
    let catalog = open(&url).await;
    orders(&catalog).await;
    assert!(!format!("{catalog:?} {}", catalog.address()).contains("s3cret"));
    let options = Options { deadline: Duration::from_secs(3), ..Options::default() };
    let wrong = url.replace("s3cret-w0rd", "s3cret-wr0ng");
    let refused = Catalog::open(&wrong, options).await.unwrap_err();
    assert!(!chain(&refused).contains("s3cret"), "{refused:?}");
    assert!(refused.is_away());

    let hasty = Catalog::open(&url, options).await.unwrap();
    // Openers at once bring the tables up once.
    let empty = in_database("empty");
    let (a, b) = tokio::join!(Catalog::open(&empty, options), Catalog::open(&empty, options));
    assert!(a.is_ok() && b.is_ok());
    server.stop(Mode::Immediate);
    let gone = hasty.status(&name("orders"), time(0)).await.unwrap_err();
    assert!(gone.is_away() && !chain(&gone).contains("s3cret"), "{gone:?}");
    let nobody = Catalog::open(&url, options).await.unwrap_err();
    assert!(nobody.is_away() && !chain(&nobody).contains("s3cret"), "{nobody:?}");
    // The server is back, and so is the catalog, without being opened anew.
    server.start();
    assert_eq!(catalog.database_list().await.unwrap().len(), 1);

    // A database that was dropped and made anew gets its tables when the catalog is opened anew.
    let untold = catalog.untold();
    let _ = server.sql("drop database home with (force)");
    in_database("home");
    assert!(catalog.incarnation_put(&incarnation(1, "orders")).await.is_err());
    assert!(catalog.untold() > untold);
    assert_eq!(catalog.renew().await.unwrap(), Renewal::Same);
    orders(&catalog).await;
}
