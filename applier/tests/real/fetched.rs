//! A server that fetches its log by command gets every byte, and is told "not there" only when that is certain.

use farshore_applier::wal_fetch::{FetchError, Fetched, SPOOL, fetch};
use farshore_journal::format::{Recipients, Unlock};
use farshore_testkit::pg::Major;

use crate::rig::Rig;

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_is_whole_padded_or_certainly_not_there() {
    let mut rig = Rig::new(Major::V15, Recipients::default()).await;
    let first = rig.server.sql("select pg_walfile_name(pg_current_wal_lsn())");
    for _ in 0..3 {
        rig.commits(3).await;
        rig.server.sql("select pg_switch_wal()");
    }
    rig.commit().await;
    rig.ship().await;
    let names: Vec<String> = (0..6)
        .map(|after| {
            format!("{}{:08X}", &first[..16], u32::from_str_radix(&first[16..], 16).unwrap() + after)
        })
        .collect();
    let source = rig.source(Unlock::none());
    let place = tempfile::tempdir().unwrap();
    let to = |name: &str| place.path().join(name);
    let fetched = fetch(&source, &names[0], &to("a"), 2).await.unwrap();
    assert_eq!(fetched, Fetched::Found { log_bytes: 16 << 20, ahead: false });
    let real = |name: &str| std::fs::read(rig.server.data_dir().join("pg_wal").join(name)).unwrap();
    assert!(std::fs::read(to("a")).unwrap() == real(&names[0]), "the bytes differ");
    assert!(to(SPOOL).join(&names[1]).exists() && to(SPOOL).join(&names[2]).exists());
    let fetched = fetch(&source, &names[1], &to("b"), 2).await.unwrap();
    assert_eq!(fetched, Fetched::Found { log_bytes: 16 << 20, ahead: true });
    assert!(std::fs::read(to("b")).unwrap() == real(&names[1]), "the bytes differ");
    // The last one is there in part: all that is stored, and zeros behind.
    let Fetched::Found { log_bytes, .. } = fetch(&source, &names[3], &to("c"), 0).await.unwrap() else {
        panic!("it is there in part")
    };
    let part = std::fs::read(to("c")).unwrap();
    assert_eq!(part.len(), 16 << 20);
    let log_bytes = usize::try_from(log_bytes).unwrap();
    assert!(log_bytes > 0 && part[log_bytes..].iter().all(|byte| *byte == 0));
    assert!(part[..log_bytes] == real(&names[3])[..log_bytes], "the bytes differ");
    assert_eq!(fetch(&source, &names[4], &to("d"), 0).await.unwrap(), Fetched::NotThere);
    assert_eq!(fetch(&source, "00000002.history", &to("d"), 0).await.unwrap(), Fetched::NotThere);
    assert!(!to("d").exists());
    assert!(matches!(fetch(&source, "../../etc/passwd", &to("d"), 0).await, Err(FetchError::Name(_))));
    // A chunk that is gone is doubt, never an end.
    std::fs::remove_file(rig.chunk(2)).unwrap();
    assert!(fetch(&source, &names[0], &to("d"), 0).await.is_err());
    assert!(!to("d").exists());
}
