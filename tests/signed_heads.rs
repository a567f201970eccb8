//! The promise: a journal whose end was cut off, or which was rewritten whole by whoever may write to the store, is found by `verify`
//! and is not restored as the latest state: up to the newest signed head, and by whoever has the pinned key.
//!
//! Method: a journal that the real service shipped and signed. Objects are deleted, replaced and forged in its store by hand, as someone
//! with the store's credentials and this format's page could; `verify` and a restore's plan are then run as an operator runs them.

#![allow(clippy::unwrap_used, clippy::expect_used)] // helpers of tests: a panic is the failure message

mod service;

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use farshore_journal::format::body::IncarnationRecord;
use farshore_journal::format::object::Compression;
use farshore_journal::format::{Head, Kind, Recipients, SigningKey, Statement, Unlock};
use farshore_journal::reader::{Keyring, Reader};
use farshore_journal::registry::{Founding, Repository};
use farshore_journal::tidy::{TidyOptions, tidy};
use farshore_journal::writer::{Writer, WriterOptions, encode_data};
use farshore_journal::{Position, Sequence, heads};
use farshore_testkit::pg::Server;
use farshore_testkit::process::wait_for;
use farshore_testkit::user;
use serde_json::Value;
use service::{Node, SOON, all, flushed, keeping, wait};

/// A node whose journal was shipped, signed to its end and left; and the key that signs.
struct Shipped {
    server: Server,
    node: Node,
    key: SigningKey,
    folder: OnceCell<PathBuf>,
}

impl Shipped {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(configure: impl FnOnce(&Node)) -> Self {
        let server = keeping().start();
        let node = Node::new(&[&server]);
        let key = node.sign_heads();
        configure(&node);
        server.sql("create table t (n int, text text)");
        let shipped = Self { server, node, key, folder: OnceCell::new() };
        shipped.ship();
        shipped.folder();
        shipped
    }

    /// Ships some more, and stops.
    fn ship(&self) {
        let service = self.node.start(None);
        self.node.wait_backup(1);
        for _ in 0..3 {
            self.server.sql("insert into t select n, md5(n::text) from generate_series(1, 500) as n");
            self.node.wait_end(1, flushed(&self.server));
        }
        service.stop();
    }

    async fn reader(&self) -> Reader {
        let repository = Repository::open(self.node.deleting_store()).await.unwrap();
        let records = repository.incarnations(&"orders".parse().unwrap()).await.unwrap();
        Reader::new(&repository, records.last().unwrap()).unwrap()
    }

    /// The incarnation's folder in the store.
    fn folder(&self) -> &Path {
        self.folder.get_or_init(|| {
            let (record, _) = self.node.incarnations().pop().unwrap();
            self.node.folder().join("journal/db/orders").join(record.incarnation.to_string())
        })
    }

    fn names(&self, folder: &str) -> Vec<Sequence> {
        let Ok(entries) = std::fs::read_dir(self.folder().join(folder)) else { return Vec::new() };
        let mut names: Vec<Sequence> =
            entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
        names.sort_unstable();
        names
    }

    fn last_chunk(&self) -> Sequence {
        *self.names("journal").last().unwrap()
    }

    fn delete(&self, folder: &str, number: Sequence) {
        std::fs::remove_file(self.folder().join(folder).join(number.to_string())).unwrap();
    }

    /// Whoever cuts the journal's end off, or writes another journal, takes along what else in the store speaks of it.
    fn without_index(&self) {
        std::fs::remove_dir_all(self.folder().join("index")).unwrap();
    }

    fn verify(&self) -> Verify {
        Verify::of(&self.node.run(&["-o", "json", "verify"]))
    }

    fn plan(&self, target: &[&str]) -> Output {
        self.node.run(&[&["restore", "orders", "--dry-run", "--to", "/nowhere"], target].concat())
    }

    /// What the script of docs/manual-recovery says of a head and its chunk.
    fn by_hand(&self, number: Sequence, key: &str) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/manual-recovery/cut.py");
        let of = |folder: &str| self.folder().join(folder).join(number.to_string());
        let mut cut = Command::new("python3");
        let done = cut.arg(script).arg("head").arg(of("heads")).arg(of("journal")).arg(key).output().unwrap();
        text(&done.stdout) + &text(&done.stderr)
    }

    /// Holds a plan to its refusal.
    #[track_caller]
    fn refused(&self, target: &[&str], words: &[&str]) {
        let planned = self.plan(target);
        let said = text(&planned.stderr);
        assert_eq!(planned.status.code(), Some(4), "{target:?}: {said}");
        for word in ["FS-0410"].iter().chain(words) {
            assert!(said.contains(word), "{word:?} is not in {said}");
        }
    }

    /// Without the pinned key, as another one who does not know it would verify.
    fn without_key(&self) -> Verify {
        let path = self.node.folder().join("farshore.toml");
        let configured = std::fs::read_to_string(&path).unwrap();
        self.node.configure(|text| text.split("signing_key").next().unwrap().to_owned());
        let verified = self.verify();
        std::fs::write(&path, configured).unwrap();
        verified
    }
}

/// What `verify` said.
#[derive(Debug)]
struct Verify {
    exit: i32,
    shown: Value,
    said: String,
}

impl Verify {
    fn of(output: &Output) -> Self {
        let said = text(&output.stderr);
        let shown = serde_json::from_slice(&output.stdout).unwrap_or_else(|why| panic!("{why}: {said}"));
        Self { exit: output.status.code().unwrap(), shown, said }
    }

    fn newest(&self) -> &Value {
        all(&self.shown).pop().unwrap()
    }

    #[track_caller]
    fn is_sound(&self) -> &Value {
        assert_eq!((self.exit, &self.newest()["sound"]), (0, &Value::Bool(true)), "{self:#?}");
        &self.newest()["head"]
    }

    /// Ends with findings, of which one names this object with these words.
    #[track_caller]
    fn names(&self, object: &str, words: &str) {
        assert_eq!((self.exit, &self.newest()["sound"]), (9, &Value::Bool(false)), "{self:#?}");
        let bad = self.newest()["bad"].as_array().unwrap();
        let named = bad.iter().any(|bad| {
            bad["object"].as_str().unwrap().contains(object) && bad["what"].as_str().unwrap().contains(words)
        });
        assert!(named, "{object} is not named with {words:?}: {self:#?}");
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An incarnation that someone without the key founds and opens behind `end`, as like the true one as can be.
async fn forged(repository: &Repository, record: &IncarnationRecord, number: u64, end: Position) -> Writer {
    let founding = Founding {
        database: &record.database,
        number,
        engine: &record.engine,
        identity: &record.identity,
        major: record.major,
        segment_bytes: record.segment_bytes,
        now: "2026-11-26T00:00:00Z",
        reason: "forged",
    };
    let forged = repository.found_incarnation(founding).await.unwrap();
    let options = WriterOptions {
        compression: Compression::None,
        recipients: Recipients::default(),
        segment_bytes: service::SEGMENT,
        host: "elsewhere".to_owned(),
    };
    let reader = Reader::new(repository, &forged).unwrap();
    Writer::take_over(reader, &options, end, &|_| {}).await.unwrap()
}

#[test]
fn the_journals_end_is_signed_at_a_clean_stop_and_known_in_store_and_catalog() {
    let shipped = Shipped::new();
    let last = shipped.last_chunk();
    let verified = shipped.verify();
    let head = verified.is_sound();
    let number = Value::from(last.get());
    assert_eq!(
        (&head["pinned"], &head["sequence"], &head["store"], &head["catalog"], &head["catalog_read"]),
        (&Value::Bool(true), &number, &number, &number, &Value::Bool(true)),
        "{head}"
    );
    assert_eq!(head["position"], serde_json::to_value(shipped.node.end().unwrap()).unwrap());
    assert_eq!(head["read"], shipped.names("heads").len());
    assert!(head["signed_at"].is_string());
    // What the format's page says is what was signed: OpenSSL says so too, and of another key it does not.
    assert!(
        shipped
            .by_hand(last, &shipped.key.public().to_string())
            .contains("signed: the journal of orders reached")
    );
    let (foreign, _) = SigningKey::mint().unwrap();
    assert!(shipped.by_hand(last, &foreign.public().to_string()).contains("was not signed by that key"));
    // A server that recovers from a journal that holds all that was signed is told where it ends.
    let name = shipped.server.sql("select pg_walfile_name(pg_current_wal_flush_lsn() + 64 * 1024 * 1024)");
    assert_eq!(shipped.node.run(&["wal", "fetch", &name, "/nowhere/file"]).status.code(), Some(1));
    // A second service signs on, and its first head comes with its opening.
    shipped.ship();
    assert!(shipped.last_chunk() > last);
    assert_eq!(shipped.verify().is_sound()["sequence"], shipped.last_chunk().get());
    assert!(shipped.names("heads").len() >= 3);
    assert!(shipped.plan(&["--latest"]).status.success());
}

#[test]
fn a_service_that_is_killed_leaves_heads_that_hold() {
    let shipped = Shipped::new();
    let before = shipped.names("heads").len();
    let service = shipped.node.start(None);
    let signed = wait_for(SOON, || (shipped.names("heads").len() > before).then_some(()));
    assert!(signed.is_some(), "{}", shipped.node.log());
    shipped.server.sql("insert into t select n, 'x' from generate_series(1, 500) as n");
    shipped.node.wait_end(1, flushed(&shipped.server));
    service.kill9();
    shipped.verify().is_sound();
}

#[test]
fn chunks_cut_off_the_journals_end_are_named_and_the_rest_is_no_latest_state() {
    let shipped = Shipped::new();
    shipped.without_index();
    let last = shipped.last_chunk();
    shipped.delete("journal", last);
    shipped.verify().names(&format!("journal/{last}"), "is missing: a head signed at");
    assert!(shipped.verify().said.contains("FS-0410"));
    let before = Sequence::new(last.get() - 1);
    shipped.delete("journal", before);
    let verified = shipped.verify();
    verified.names(&format!("journal/{last}"), &format!("chunks {before} to {last} are missing"));
    // Nothing else is wrong with what is left: only the head says that more was there.
    assert_eq!(verified.newest()["bad"].as_array().unwrap().len(), 1, "{verified:#?}");
    shipped.without_key().is_sound();
    let end = shipped.node.end().unwrap();
    shipped.refused(&["--latest"], &["its end was cut off", &format!("what is left ends at {end}"), "--pos"]);
    // A server that recovers is not told that the log ends there.
    let name = shipped.server.sql("select pg_walfile_name(pg_current_wal_flush_lsn() + 64 * 1024 * 1024)");
    let fetched = shipped.node.run(&["wal", "fetch", &name, "/nowhere/file"]);
    assert_eq!(fetched.status.code(), Some(170), "{fetched:?}");
    assert!(text(&fetched.stderr).contains("its end was cut off"), "{fetched:?}");
    // What is asked for by its position is given, with a word about what is gone.
    let planned = shipped.plan(&["--pos", &end.to_string()]);
    let said = text(&planned.stderr);
    assert!(planned.status.success() && said.contains("FS-0410"), "{said}");
}

#[test]
fn a_journal_cut_off_with_its_heads_is_found_through_the_catalog() {
    let shipped = Shipped::new();
    shipped.without_index();
    // What its owner's tail holds still would be put in the place of what is cut off.
    std::fs::remove_dir_all(shipped.node.folder().join("journal/.tails")).unwrap();
    let last = shipped.last_chunk();
    for number in shipped.names("heads") {
        shipped.delete("heads", number);
    }
    // The journal is whole, but the head that the catalog was told of is gone.
    shipped.verify().names(&format!("heads/{last}"), "it is not in the store");
    shipped.delete("journal", last);
    let verified = shipped.verify();
    verified.names(&format!("journal/{last}"), "is missing: a head signed at");
    assert_eq!(verified.newest()["head"]["store"], Value::Null);
    shipped.refused(&["--latest"], &["its end was cut off"]);
    // Where the catalog is not at hand it is said that it was not looked at.
    let catalog = shipped.node.folder().join("farshore.db");
    std::fs::rename(&catalog, catalog.with_extension("away")).unwrap();
    let blind = shipped.verify();
    assert!(
        blind.said.contains("there is no catalog here") && blind.said.contains("there is no head"),
        "{blind:#?}"
    );
    assert_eq!(blind.is_sound()["catalog_read"], false);
    assert!(!catalog.exists(), "verify makes no catalog");
    std::fs::rename(catalog.with_extension("away"), &catalog).unwrap();
    // The service brings its catalog to what the store holds, and what was signed stays known.
    let service = shipped.node.start(None);
    service.wait_log("took the journal over");
    shipped.server.sql("insert into t select n, 'y' from generate_series(1, 10) as n");
    shipped.node.wait_end(1, flushed(&shipped.server));
    drop(service);
    assert_eq!(shipped.verify().exit, 9, "another chunk stands at the number that was signed, or none");
}

#[test]
fn a_journal_rewritten_whole_without_the_key_is_named_and_not_restored() {
    let shipped = Shipped::new();
    shipped.without_index();
    let last = shipped.last_chunk();
    wait(async {
        let reader = shipped.reader().await;
        // The same log, by another writer: nothing but the chain tells it from the one that was shipped.
        let mut log = Vec::new();
        let mut begin = None;
        for number in 0..=last.get() {
            let chunk = reader.expected_chunk(Sequence::new(number)).await.unwrap();
            if chunk.header().kind == Kind::Data {
                begin.get_or_insert(Position::new(chunk.header().timeline, chunk.header().start));
                log.push(chunk.plain_all(None).unwrap());
            }
            reader.store().delete(&reader.layout().chunk(Sequence::new(number)).unwrap()).await.unwrap();
        }
        let options = WriterOptions {
            compression: Compression::None,
            recipients: Recipients::default(),
            segment_bytes: service::SEGMENT,
            host: "elsewhere".to_owned(),
        };
        let reader = shipped.reader().await;
        let mut writer = Writer::take_over(reader, &options, begin.unwrap(), &|_| {}).await.unwrap();
        for log in log {
            let (chunk, _) = encode_data(writer.place(), &log).unwrap();
            writer.append(&chunk, &|_| {}).await.unwrap();
        }
        // More than there was, so that it is not found by its length.
        Writer::take_over(writer.reader().clone(), &options, writer.stored(), &|_| {}).await.unwrap();
    });
    user::give(shipped.node.folder());
    shipped.without_key().is_sound();
    let verified = shipped.verify();
    verified.names("journal/", "it is another chunk than the one that was signed");
    assert!(verified.said.contains("not known: which of its bytes farshore wrote"), "{verified:#?}");
    shipped.refused(&["--latest"], &["is not the one that was signed"]);
    let end = shipped.node.end().unwrap().to_string();
    shipped.refused(&["--pos", &end], &["is not the one that was signed"]);
    // With heads of its own, by a key that nobody pinned: those are named too.
    wait(async {
        let reader = shipped.reader().await;
        let (foreign, _) = SigningKey::mint().unwrap();
        for (number, listed) in heads::list(&reader).await.unwrap() {
            reader.store().delete(&listed.key).await.unwrap();
            let chunk = reader.expected_header(number).await.unwrap();
            let said = Statement {
                store: reader.store_id(),
                incarnation: reader.incarnation(),
                database: "orders".parse().unwrap(),
                number,
                chain: chunk.after,
                end: chunk.end_position(),
                generation: chunk.generation,
            };
            heads::put(&**reader.store(), reader.layout(), &Head::sign(said, 7, &foreign), &|_| {})
                .await
                .unwrap();
        }
    });
    user::give(shipped.node.folder());
    let verified = shipped.verify();
    verified.names("heads/", "which is not among verify_keys");
    verified.names("journal/", "it is another chunk than the one that was signed");
}

#[test]
fn a_service_that_starts_on_a_journal_that_was_cut_signs_nothing_of_it_and_the_catalog_keeps_its_witness() {
    let shipped = Shipped::new();
    shipped.without_index();
    let last = shipped.last_chunk();
    shipped.delete("journal", last);
    shipped.delete("journal", Sequence::new(last.get() - 1));
    // The true heads go too: only the catalog knows better.
    let kept: Vec<Sequence> = shipped.names("heads").into_iter().filter(|number| number.get() < 2).collect();
    for number in shipped.names("heads").into_iter().filter(|number| !kept.contains(number)) {
        shipped.delete("heads", number);
    }
    shipped.ship();
    assert!(shipped.last_chunk() > last, "it ships on");
    assert_eq!(shipped.names("heads"), kept);
    let log = shipped.node.log();
    assert!(log.contains("the journal is shipped into and not signed"), "{log}");
    let verified = shipped.verify();
    assert_eq!(verified.newest()["head"]["catalog"], last.get());
    verified.names(&format!("journal/{last}"), "it is another chunk than the one that was signed");
    shipped.refused(&["--latest"], &["is not the one that was signed"]);
    // Nor does a rebuild take what a journal does not hold.
    shipped.node.json(&["catalog", "rebuild"]);
    assert_eq!(shipped.verify().newest()["head"]["catalog"], last.get());
    // Whoever takes it as it is says so by another key: the former one counts no more, and is no finding.
    let former = shipped.key.public().to_string();
    let (key, file) = SigningKey::mint().unwrap();
    std::fs::write(shipped.node.folder().join("signing.pem"), file).unwrap();
    shipped.node.configure(|text| {
        text.replace(&former, &key.public().to_string()) + &format!("retired_keys = [\"{former}\"]\n")
    });
    shipped.ship();
    let verified = shipped.verify();
    let head = verified.is_sound();
    assert_eq!(
        (&head["catalog"], &head["retired"]),
        (&shipped.last_chunk().get().into(), &kept.len().into())
    );
    assert!(shipped.plan(&["--latest"]).status.success());
}

#[test]
fn an_incarnation_that_someone_added_is_named_and_not_restored_unless_it_is_asked_for() {
    let shipped = Shipped::new();
    let (record, _) = shipped.node.incarnations().pop().unwrap();
    let end = shipped.node.end().unwrap();
    wait(async {
        let repository = Repository::open(shipped.node.deleting_store()).await.unwrap();
        forged(&repository, &record, 1, end).await;
    });
    user::give(shipped.node.folder());
    let forged = shipped.node.incarnations().pop().unwrap().0.incarnation.to_string();
    shipped.without_key().is_sound();
    shipped.verify().names(&forged, "nothing of it is signed by one of verify_keys");
    for target in [&["--latest"][..], &["--at", "2100-01-01T00:00:00Z"]] {
        shipped.refused(target, &["of incarnation 1 of orders", "nothing is signed", "--incarnation 0"]);
    }
    assert!(shipped.plan(&["--latest", "--incarnation", "0"]).status.success());
    let named = shipped.plan(&["--latest", "--incarnation", "1"]);
    assert!(!named.status.success() && !text(&named.stderr).contains("FS-0410"), "{named:?}");
    // Without the catalog the heads in the store say it too; with neither it is taken for the only one that was ever signed.
    let catalog = shipped.node.folder().join("farshore.db");
    std::fs::rename(&catalog, catalog.with_extension("away")).unwrap();
    shipped.refused(&["--latest"], &["of incarnation 1 of orders"]);
}

#[test]
fn a_chunk_that_was_signed_and_lies_before_others_is_a_hole_and_no_cut_end() {
    let shipped = Shipped::new();
    let before = shipped.node.end().unwrap().to_string();
    shipped.ship();
    let signed = shipped.last_chunk();
    shipped.ship();
    shipped.without_index();
    for number in shipped.names("heads").into_iter().filter(|number| *number != signed) {
        shipped.delete("heads", number);
    }
    let catalog = shipped.node.folder().join("farshore.db");
    std::fs::rename(&catalog, catalog.with_extension("away")).unwrap();
    // Damaged, it says nothing: that is named, and keeps nothing that lies before it from a restore.
    let path = shipped.folder().join("journal").join(signed.to_string());
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    user::give(shipped.node.folder());
    let object = format!("journal/{signed}");
    shipped.refused(&["--latest"], &[&object]);
    let planned = shipped.plan(&["--pos", &before]);
    let said = text(&planned.stderr);
    assert!(planned.status.success() && said.contains("FS-0410") && said.contains(&object), "{said}");
    shipped.delete("journal", signed);
    let planned = shipped.plan(&["--latest"]);
    let said = text(&planned.stderr);
    assert_eq!(planned.status.code(), Some(4), "{said}");
    assert!(said.contains(&format!("has no chunk {signed}, though later ones are there")), "{said}");
    assert!(!said.contains("unbroken") && !said.contains("cut off"), "{said}");
}

#[test]
fn a_witness_that_cannot_be_read_is_named_and_keeps_no_target_that_is_named_from_a_restore() {
    let shipped = Shipped::new();
    let end = shipped.node.end().unwrap().to_string();
    let newest = *shipped.names("heads").last().unwrap();
    let path = shipped.folder().join("heads").join(newest.to_string());
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    let object = format!("heads/{newest}");
    shipped.refused(&["--latest"], &[&object]);
    let planned = shipped.plan(&["--pos", &end]);
    let said = text(&planned.stderr);
    assert!(planned.status.success() && said.contains("FS-0410") && said.contains(&object), "{said}");
    shipped.verify().names(&object, "the store does not give it out");
    let tidied = shipped.node.run(&["tidy"]);
    assert!(tidied.status.success(), "{tidied:?}");
    // One that is too large to be a head is none, and the catalog's copy speaks for the journal.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, vec![b'x'; 1 << 20]).unwrap();
    user::give(shipped.node.folder());
    assert!(shipped.plan(&["--latest"]).status.success());
    shipped.verify().names(&object, "no head is that large");
}

#[test]
fn a_store_that_is_called_otherwise_keeps_its_witness() {
    let shipped = Shipped::new();
    shipped.without_index();
    for number in shipped.names("heads") {
        shipped.delete("heads", number);
    }
    shipped.delete("journal", shipped.last_chunk());
    shipped.node.configure(|text| {
        text.replace("[stores.main]", "[stores.other]").replace("stores = [\"main\"]", "stores = [\"other\"]")
    });
    shipped.refused(&["--latest"], &["in other ends at", "its end was cut off"]);
}

#[test]
fn a_store_that_was_replaced_by_another_is_found_through_the_catalog() {
    let shipped = Shipped::new();
    let (record, _) = shipped.node.incarnations().pop().unwrap();
    let end = shipped.node.end().unwrap();
    let place = shipped.node.folder().join("journal");
    std::fs::remove_dir_all(&place).unwrap();
    std::fs::create_dir(&place).unwrap();
    wait(async {
        let repository =
            Repository::open_or_found(shipped.node.deleting_store(), "2026-11-26T00:00:00Z").await.unwrap();
        let mut writer = forged(&repository, &record, 0, end).await;
        let (chunk, _) = encode_data(writer.place(), b"log").unwrap();
        writer.append(&chunk, &|_| {}).await.unwrap();
    });
    user::give(shipped.node.folder());
    shipped.without_key().is_sound();
    shipped
        .verify()
        .names(&format!("db/orders/{}", record.incarnation), "it is not in the store: a head of its chunk");
    shipped.refused(&["--latest"], &[&record.incarnation.to_string()]);
    // A server that recovers is not told that its log ends where the new one does.
    let name = shipped.server.sql("select pg_walfile_name(pg_current_wal_flush_lsn() + 64 * 1024 * 1024)");
    let fetched = shipped.node.run(&["wal", "fetch", &name, "/nowhere/file"]);
    assert_eq!(fetched.status.code(), Some(170), "{fetched:?}");
    assert!(text(&fetched.stderr).contains(&record.incarnation.to_string()), "{fetched:?}");
}

#[test]
fn a_head_that_was_changed_moved_or_forged_is_named() {
    let shipped = Shipped::new();
    let number = *shipped.names("heads").last().unwrap();
    let path = shipped.folder().join("heads").join(number.to_string());
    let bytes = std::fs::read(&path).unwrap();
    let put = |bytes: &[u8]| {
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
        user::give(shipped.node.folder());
    };
    for at in [0, 20, 60, 130, 180, 250, 300, bytes.len() - 60, bytes.len() - 1] {
        let mut flipped = bytes.clone();
        flipped[at] ^= 4;
        put(&flipped);
        shipped.verify().names(&format!("heads/{number}"), "");
    }
    // Every checksum is right, and another place is claimed under the true signature.
    let head = Head::decode(bytes.clone().into()).unwrap();
    let mut forged = head.clone();
    forged.said.number = Sequence::new(number.get() + 1);
    put(&bytes);
    let beside = path.with_file_name(forged.said.number.to_string());
    std::fs::write(&beside, forged.encode().unwrap()).unwrap();
    user::give(shipped.node.folder());
    shipped.verify().names(&format!("heads/{}", forged.said.number), "its signature does not hold");
    // The true head under another number.
    std::fs::write(&beside, &bytes).unwrap();
    shipped.verify().names(&format!("heads/{}", forged.said.number), "its number is another one's");
    // A key that nobody pinned.
    let (foreign, _) = SigningKey::mint().unwrap();
    std::fs::write(&beside, Head::sign(forged.said.clone(), 1, &foreign).encode().unwrap()).unwrap();
    shipped.verify().names(&format!("heads/{}", forged.said.number), &foreign.public().to_string());
    // None of them keeps a restore from what the pinned key signed.
    assert!(shipped.plan(&["--latest"]).status.success());
    // Whoever has the signing key can say what was not: this is what pinning does not show, and what a journal refutes.
    std::fs::write(&beside, Head::sign(forged.said, 1, &shipped.key).encode().unwrap()).unwrap();
    shipped.verify().names("journal/", "is missing: a head signed at");
    std::fs::remove_file(&beside).unwrap();
    shipped.verify().is_sound();
}

#[test]
fn a_journal_tidied_to_segments_still_holds_what_its_heads_say_and_its_old_heads_go() {
    let shipped = Shipped::with(|node| {
        node.configure(|text| text.replace("\"200ms\"", "\"10ms\"") + "merge_at = \"64KiB\"\n");
    });
    // Each run signs its opening and its end.
    for _ in 0..3 {
        let service = shipped.node.start(None);
        for _ in 0..30 {
            shipped.server.sql("insert into t select n, md5(n::text) from generate_series(1, 40) as n");
        }
        shipped.node.wait_end(1, flushed(&shipped.server));
        service.stop();
    }
    let before = shipped.names("journal").len();
    let old: Vec<Sequence> = shipped.names("heads");
    wait(async {
        let reader = shipped.reader().await;
        let mut keys = Keyring::new(Unlock::none());
        let done = tidy(&reader, &mut keys, TidyOptions::at_once_for_tests()).await.unwrap();
        assert!(done.chunks > 0 && done.refused.is_empty(), "{done:?}");
    });
    assert!(shipped.names("journal").len() < before);
    let head = shipped.verify();
    assert_eq!(head.is_sound()["read"], old.len());
    // Every chunk that was freed and has a head is asked of its segment; a head on one of them that says otherwise is found.
    wait(async {
        let reader = Arc::new(shipped.reader().await);
        // One that no head stands for: on a slow machine the service signs between its opening and its end too.
        let (there, signed) = (shipped.names("journal"), shipped.names("heads"));
        let is_free = |n: &Sequence| !there.contains(n) && !signed.contains(n);
        let freed = (0..).map(Sequence::new).find(is_free).unwrap();
        let chunk = reader.expected_header(freed).await.unwrap();
        let said = Statement {
            store: reader.store_id(),
            incarnation: reader.incarnation(),
            database: "orders".parse().unwrap(),
            number: freed,
            chain: chunk.after,
            end: chunk.end_position(),
            generation: chunk.generation,
        };
        let right = Head::sign(said.clone(), 1, &shipped.key);
        heads::put(&**reader.store(), reader.layout(), &right, &|_| {}).await.unwrap();
        user::give(shipped.node.folder());
        shipped.verify().is_sound();
        reader.store().delete(&reader.layout().head(freed).unwrap()).await.unwrap();
        let wrong = Statement { chain: chunk.before, ..said };
        let wrong = Head::sign(wrong, 1, &shipped.key);
        heads::put(&**reader.store(), reader.layout(), &wrong, &|_| {}).await.unwrap();
        user::give(shipped.node.folder());
        shipped
            .verify()
            .names(&format!("journal/{freed}"), "it is another chunk than the one that was signed");
        reader.store().delete(&reader.layout().head(freed).unwrap()).await.unwrap();
    });
    shipped.verify().is_sound();
}

#[test]
fn without_a_key_nothing_is_signed_nothing_fails_and_verify_says_so() {
    let server = keeping().start();
    let node = Node::new(&[&server]);
    let service = node.start(None);
    node.wait_backup(1);
    node.wait_end(1, flushed(&server));
    service.stop();
    let shipped = Shipped { server, node, key: SigningKey::mint().unwrap().0, folder: OnceCell::new() };
    assert_eq!(shipped.names("heads"), []);
    let verified = shipped.verify();
    assert_eq!(verified.is_sound()["pinned"], false);
    assert!(verified.said.contains("authenticity rests on the store's own access control"), "{verified:#?}");
    shipped.delete("journal", shipped.last_chunk());
    // An index that names it shows that it was there; without that nothing does.
    shipped.verify().names("index/", "they were stored once, and are gone");
    shipped.without_index();
    shipped.verify().is_sound();
    let checked = text(&shipped.node.run(&["-o", "json", "check"]).stdout);
    assert!(
        checked.contains("heads.signed") && checked.contains("the journal's heads are not signed"),
        "{checked}"
    );
}

#[test]
fn a_signing_key_that_is_gone_stops_no_shipping_and_is_used_once_it_is_back() {
    let shipped = Shipped::new();
    let path = shipped.node.folder().join("signing.pem");
    let file = std::fs::read(&path).unwrap();
    let before = shipped.names("heads");
    std::fs::remove_file(&path).unwrap();
    shipped.ship();
    assert_eq!(shipped.names("heads"), before);
    assert!(shipped.node.log().contains("the journal's head could not be signed"), "{}", shipped.node.log());
    // Older heads hold; what came after them is not covered, and `check` says why.
    shipped.verify().is_sound();
    let checked = text(&shipped.node.run(&["-o", "json", "check"]).stdout);
    assert!(checked.contains("no head can be signed"), "{checked}");
    std::fs::write(&path, file).unwrap();
    user::give(shipped.node.folder());
    shipped.ship();
    assert_eq!(shipped.verify().is_sound()["sequence"], shipped.last_chunk().get());
}

#[test]
fn a_signing_key_is_changed_while_heads_of_the_former_one_still_count() {
    let shipped = Shipped::new();
    let former = shipped.key.public().to_string();
    let (key, file) = SigningKey::mint().unwrap();
    let path = shipped.node.folder().join("signing.pem");
    std::fs::write(&path, file).unwrap();
    // One that nobody pinned yet signs nothing, and `check` says what to write.
    let checked = text(&shipped.node.run(&["-o", "json", "check"]).stdout);
    assert!(
        checked.contains("is not among verify_keys") && checked.contains(&key.public().to_string()),
        "{checked}"
    );
    let before = shipped.names("heads").len();
    shipped.ship();
    assert_eq!(shipped.names("heads").len(), before);
    shipped.node.configure(|text| text.replace(&former, &format!("{}\", \"{former}", key.public())));
    shipped.ship();
    assert_eq!(shipped.verify().is_sound()["sequence"], shipped.last_chunk().get());
    // Without the former one its heads count no more, and are named.
    shipped.node.configure(|text| text.replace(&format!(", \"{former}\""), ""));
    shipped.verify().names("heads/", &former);
    // Retired, they are counted and no finding; a key that counts and does not is a mistake.
    let retired = format!("retired_keys = [\"{former}\"]\n");
    shipped.node.configure(|text| text + &retired);
    let verified = shipped.verify();
    assert!(verified.is_sound()["retired"].as_u64().unwrap() >= 2, "{verified:#?}");
    assert!(shipped.plan(&["--latest"]).status.success());
    shipped
        .node
        .configure(|text| text.replace(&retired, &retired.replace(&former, &key.public().to_string())));
    assert!(text(&shipped.node.run(&["verify"]).stderr).contains("this key is among verify_keys too"));
    shipped.node.configure(|text| text.replace(&retired.replace(&former, &key.public().to_string()), ""));
    // Whoever can read the signing key can sign.
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let checked = text(&shipped.node.run(&["-o", "json", "check"]).stdout);
    assert!(checked.contains("other users can read the signing key"), "{checked}");
}

#[test]
fn a_lost_catalog_takes_its_heads_from_the_store_and_invents_none() {
    let shipped = Shipped::new();
    let last = shipped.last_chunk();
    let lose = || {
        for name in ["farshore.db", "farshore.db-wal", "farshore.db-shm"] {
            let _may_not_be_there = std::fs::remove_file(shipped.node.folder().join(name));
        }
    };
    lose();
    shipped.node.json(&["catalog", "rebuild"]);
    assert_eq!(shipped.verify().is_sound()["catalog"], last.get());
    // A newer one by a key that nobody pinned, and one that is damaged, are passed over.
    wait(async {
        let reader = shipped.reader().await;
        let mut forged = heads::read(&reader, last).await.unwrap();
        let (foreign, _) = SigningKey::mint().unwrap();
        forged.said.number = Sequence::new(last.get() + 5);
        let forged = Head::sign(forged.said, 1, &foreign);
        heads::put(&**reader.store(), reader.layout(), &forged, &|_| {}).await.unwrap();
    });
    std::fs::write(shipped.folder().join("heads").join(Sequence::new(last.get() + 6).to_string()), b"x")
        .unwrap();
    user::give(shipped.node.folder());
    lose();
    shipped.node.json(&["catalog", "rebuild"]);
    assert_eq!(shipped.verify().newest()["head"]["catalog"], last.get());
    // With none in the store there is none.
    for number in shipped.names("heads") {
        shipped.delete("heads", number);
    }
    lose();
    shipped.node.json(&["catalog", "rebuild"]);
    assert_eq!(shipped.verify().is_sound()["catalog"], Value::Null);
}
