//! A log that is begun anew, or cut off, while it is read.

use farshore_engines::sqlite::decoder::{Part, RecordDecoder};
use farshore_engines::sqlite::follow::FollowError;
use farshore_engines::sqlite::hold::Connections;
use farshore_engines::sqlite::wal_file::{Encoder, WalFile, WalReadError};
use farshore_journal::Offset;

use crate::replica::WRITE;
use crate::sqlite::{App, Database};

/// The log is begun anew, over frames that were checked, while a transaction is given out: its record is not finished.
#[test]
fn a_record_whose_frames_were_written_over_while_it_was_given_out_is_not_finished() {
    let database = Database::new(4096, "select 1");
    let mut app = App::open(&database.path());
    app.sql("begin; insert into ledger (content) select randomblob(3000) from (with recursive c(x) as (select 1 union all select x + 1 from c where x < 1000) select x from c); commit");
    let connections = Connections::open(&database.path()).unwrap();
    let wal = WalFile::open(&connections.wal_path()).unwrap();
    let header = wal.header().unwrap().unwrap();
    let counted = connections.counted().unwrap().frames;
    let mut all = wal.transactions(header, header.begin(), counted);
    let mut last = None;
    while let Some(transaction) = all.next().unwrap() {
        last = Some(transaction);
    }
    let last = last.unwrap();
    let (mut pieces, mut out) = (0, Vec::new());
    let encoded = Encoder { wal: &wal, header }.encode(&last, 1, 0, &mut |bytes| {
        out.extend_from_slice(bytes);
        pieces += 1;
        if pieces == 1 {
            app.sql(&format!("pragma wal_checkpoint(passive); {WRITE}"));
        }
        Ok(())
    });
    assert!(encoded.is_err() && pieces > 1);
    let mut ended = false;
    let mut decoder = RecordDecoder::new(Offset::new(0));
    let _ = decoder.push(&out, &mut |part| ended |= matches!(part, Part::End(_)));
    assert!(!ended);
}

#[test]
fn a_log_that_an_application_cuts_off_while_it_is_read_was_begun_anew_and_is_no_fault_of_the_disk() {
    let database = Database::new(4096, "select 1");
    let mut app = App::open(&database.path());
    app.sql("insert into ledger (content) values ('one')");
    let wal = WalFile::open(&database.folder.path().join("app.db-wal")).unwrap();
    let header = wal.header().unwrap().unwrap();
    let mut counted_before = wal.transactions(header, header.begin(), 1);
    app.sql("pragma wal_checkpoint(truncate)");
    let read = counted_before.next();
    assert!(matches!(read, Err(WalReadError::BegunAnew)), "{read:?}");
    assert!(FollowError::from(read.unwrap_err()).is_doubt());
    app.close();
}

/// Writers are held while it is taken, and one transaction may be as long as it likes.
#[test]
fn taking_ends_before_a_transaction_that_is_larger_than_it_may_be() {
    let database = Database::new(4096, "select 1");
    let mut app = App::open(&database.path());
    app.sql("insert into ledger (content) values ('one')");
    app.sql("insert into ledger (content) values (zeroblob(500000))");
    let connections = Connections::open(&database.path()).unwrap();
    let wal = WalFile::open(&connections.wal_path()).unwrap();
    let header = wal.header().unwrap().unwrap();
    let counted = connections.counted().unwrap().frames;
    let mut all = wal.transactions(header, header.begin(), counted).of_at_most(100 << 10);
    let first = all.next().unwrap().unwrap();
    assert_eq!(all.next().unwrap(), None);
    assert_eq!(all.next().unwrap(), None, "it stays there");
    assert_eq!(all.place(), first.place);
    let mut behind = wal.transactions(header, first.place, counted).of_at_most(1 << 20);
    assert_eq!(behind.next().unwrap().map(|second| second.place.frames), Some(counted));
    app.close();
}
