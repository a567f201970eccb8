//! One store's sealer beside a catalog that goes back, another service, and pages that nobody here wrote.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::DateTime;
use farshore_catalog::Options;
use farshore_catalog::activity::Activity;
use farshore_catalog::chronicle::Before;
use farshore_journal::store::{Created, HasTails, Key, KeyPrefix, Listed, ObjectStore, StoreError};

use chrono::Utc;
use farshore_journal::format::VerifyKeys;

use super::telling::beside_gone;
use super::*;
use crate::chronicles::damage::Pages;
use crate::chronicles::{found, held};
use crate::wiring;

/// A folder with a store that has been shipped into, and its configuration.
pub(super) struct Room {
    pub(super) folder: tempfile::TempDir,
    pub(super) config: Arc<Config>,
    pub(super) store: StoreName,
    identity: age::x25519::Identity,
}

impl Room {
    pub(super) async fn new(is_encrypted: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let identity = age::x25519::Identity::generate();
        let recipients = match is_encrypted {
            true => format!("recipients = [\"{}\"]\n", identity.to_public()),
            false => String::new(),
        };
        let text = format!(
            "[stores.main]\nurl = \"file:{}\"\n{recipients}[databases.orders]\nengine = \"sqlite\"\npath = \"app.db\"\nstores = [\"main\"]\n",
            folder.path().join("journal").display()
        );
        let config = parsed(folder.path(), &text);
        std::fs::create_dir(folder.path().join("journal")).unwrap();
        let store: StoreName = "main".parse().unwrap();
        let (objects, _) = wiring::open_store(&config, &store, Purpose::Append).unwrap();
        Repository::open_or_found(Arc::clone(&objects), "2026-11-27T00:00:00Z").await.unwrap();
        let record = farshore_journal::layout::incarnations(&"orders".parse().unwrap()).unwrap();
        objects.create(&record.key("1").unwrap(), Bytes::from_static(b"{}")).await.unwrap();
        Self { folder, config, store, identity }
    }

    /// A catalog of its own, with entries of these words: the same words make the same digests.
    pub(super) async fn catalog(&self, name: &str, said: &[&str]) -> Catalog {
        let url = format!("sqlite:{}/{name}.db", self.folder.path().display());
        let catalog = Catalog::open(&url, Options::default()).await.unwrap();
        catalog.chronicle_settle(&Chronicle::Activity, Before::Nothing).await.unwrap();
        for what in said {
            say(&catalog, what).await;
        }
        catalog
    }

    pub(super) async fn unsettled(&self, name: &str) -> Catalog {
        let url = format!("sqlite:{}/{name}.db", self.folder.path().display());
        Catalog::open(&url, Options::default()).await.unwrap()
    }

    /// From here on whoever seals has the private key.
    pub(super) fn with_identity(&mut self) {
        let key = self.folder.path().join("identity");
        let secret = age::secrecy::ExposeSecret::expose_secret(&self.identity.to_string()).to_owned();
        std::fs::write(&key, secret + "\n").unwrap();
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let text = format!(
            "[stores.main]\nurl = \"file:{}\"\nrecipients = [\"{}\"]\nidentity_file = \"identity\"\n[databases.orders]\nengine = \"sqlite\"\npath = \"app.db\"\nstores = [\"main\"]\n",
            self.folder.path().join("journal").display(),
            self.identity.to_public()
        );
        self.config = parsed(self.folder.path(), &text);
    }

    pub(super) fn sealer(&self, catalog: &Catalog) -> Sealer {
        Sealer::new(Arc::clone(&self.config), catalog.clone(), self.store.clone(), settled())
    }

    async fn repository(&self) -> Repository {
        Opened::new(&self.config, &self.store, Purpose::Read).unwrap().repository().await.unwrap()
    }

    pub(super) async fn found(&self) -> found::Found {
        let keys = Keys::of(&self.config, &self.store);
        let pinned = VerifyKeys::default();
        found::read(&self.repository().await, &Chronicle::Activity, &pinned, &keys).await.unwrap()
    }

    /// How the store holds the activity against a catalog.
    pub(super) async fn held(&self, catalog: &Catalog) -> held::InStore {
        held::look(&self.config, &Chronicle::Activity, &self.store, Some(catalog)).await
    }

    /// What `farshore verify` finds.
    pub(super) async fn damaged(&self, catalog: &Catalog) -> Vec<String> {
        Pages::new(Some(catalog)).await.of(&self.config, &"orders".parse().unwrap(), &self.store).await
    }

    pub(super) fn pages(&self) -> Vec<std::path::PathBuf> {
        let lives = std::fs::read_dir(self.folder.path().join("journal/activity")).unwrap();
        let pages = lives.flat_map(|life| std::fs::read_dir(life.unwrap().path()).unwrap());
        let mut pages: Vec<_> = pages.map(|page| page.unwrap().path()).collect();
        pages.sort();
        pages
    }
}

fn parsed(folder: &Path, text: &str) -> Arc<Config> {
    let nothing = crate::config::Environment::new();
    Arc::new(crate::config::parse(&folder.join("farshore.toml"), folder, text, &nothing).unwrap())
}

/// All is settled and filled.
pub(super) fn settled() -> (watch::Receiver<Filled>, watch::Receiver<Unsettled>) {
    let filled = watch::channel(Filled::from([(Chronicle::Activity, 1)])).1;
    (filled, watch::channel(Unsettled::new()).1)
}

pub(super) async fn say(catalog: &Catalog, what: &str) {
    let (at, who) = (DateTime::UNIX_EPOCH, "ana".to_owned());
    let said = Activity { at, who, what: what.to_owned(), database: None, detail: String::new() };
    catalog.activity_append(&said).await.unwrap();
}

/// One turn, with what it says in the catalog.
pub(super) async fn turn(sealer: &mut Sealer) {
    sealer.turn(true).await;
    let seal = sealer.catalog.seal_of(&Chronicle::Activity, "main").await.unwrap();
    assert_eq!(seal.and_then(|seal| seal.trouble), None);
}

/// One turn of a service that was started anew, and how far it says that the store is.
async fn started_anew(room: &Room, catalog: &Catalog) -> (Sealer, Seal) {
    let mut sealer = room.sealer(catalog);
    sealer.turn(true).await;
    let seal = catalog.seal_of(&Chronicle::Activity, "main").await.unwrap().unwrap();
    (sealer, seal)
}

pub(super) async fn digests(catalog: &Catalog) -> Vec<farshore_journal::format::EntryDigest> {
    let all = catalog.chronicle_entries(&Chronicle::Activity, 1, 1000).await.unwrap();
    all.into_iter().map(|entry| entry.digest).collect()
}

/// It has the same first entry, and is shorter than what was sealed; or longer by the time it is seen.
#[tokio::test]
async fn a_catalog_that_is_put_back_under_a_running_service_is_seen_and_all_that_it_writes_is_sealed() {
    for more in [&["other 3"][..], &["other 3", "other 4", "other 5", "other 6"]] {
        let room = Room::new(false).await;
        let catalog = room.catalog("first", &["1", "2", "3", "4"]).await;
        let copy = room.catalog("copy", &["1", "2"]).await;
        let mut sealer = room.sealer(&catalog);
        turn(&mut sealer).await;
        assert_eq!(room.held(&catalog).await.lacks, Some(0));
        assert_eq!(digests(&copy).await, digests(&catalog).await[..2]);

        sealer.catalog = copy.clone();
        if more.len() == 1 {
            turn(&mut sealer).await;
            assert_eq!(sealer.foreign.len(), 1, "it is said before anything new is written");
            assert_eq!(room.found().await.strands.len(), 1, "and nothing is put until then");
        }
        for what in more {
            say(&copy, what).await;
        }
        turn(&mut sealer).await;
        turn(&mut sealer).await;
        assert_eq!(sealer.foreign.len(), 1);
        let held = room.held(&copy).await;
        assert_eq!((held.lacks, held.sound, held.branches), (Some(0), Some(true), 1), "{held:?}");
        let held = room.held(&catalog).await;
        assert_eq!((held.lacks, held.branches), (Some(0), 1), "the other branch stays: {held:?}");
        // What goes on from here is looked at no more than before.
        say(&copy, "later").await;
        turn(&mut sealer).await;
        assert_eq!(room.held(&copy).await.lacks, Some(0));
    }
}

/// A store in which another service puts a page of an entry that it wrote just before, when the pages are listed.
struct Beside {
    store: Arc<dyn ObjectStore>,
    config: Arc<Config>,
    catalog: Catalog,
}

impl fmt::Debug for Beside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Beside").finish_non_exhaustive()
    }
}

#[async_trait]
impl ObjectStore for Beside {
    async fn create(&self, key: &Key, bytes: Bytes) -> Result<Created, StoreError> {
        self.store.create(key, bytes).await
    }

    async fn get(&self, key: &Key) -> Result<Bytes, StoreError> {
        self.store.get(key).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.store.get_range(key, range).await
    }

    async fn size(&self, key: &Key) -> Result<u64, StoreError> {
        self.store.size(key).await
    }

    async fn list(
        &self,
        prefix: &KeyPrefix,
        after: Option<&Key>,
        limit: Option<usize>,
    ) -> Result<Vec<Listed>, StoreError> {
        if *prefix == farshore_journal::layout::chronicle(&Chronicle::Activity).unwrap() {
            say(&self.catalog, "the other service's").await;
            let (config, catalog) = (Arc::clone(&self.config), self.catalog.clone());
            Sealer::new(config, catalog, "main".parse().unwrap(), settled()).turn(true).await;
        }
        self.store.list(prefix, after, limit).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.store.delete(key).await
    }

    fn tails(&self) -> HasTails<'_> {
        self.store.tails()
    }
}

#[tokio::test]
async fn what_another_service_of_the_same_catalog_seals_during_a_look_is_no_fork() {
    let room = Room::new(false).await;
    let catalog = room.catalog("first", &["1", "2"]).await;
    let (store, _) = wiring::open_store(&room.config, &room.store, Purpose::Append).unwrap();
    let beside = Beside { store, config: Arc::clone(&room.config), catalog: catalog.clone() };
    let repository = Repository::open(Arc::new(beside)).await.unwrap();
    let mut sealer = room.sealer(&catalog);
    let life = catalog.chronicle_standing(&Chronicle::Activity).await.unwrap().life;
    let end = sealer.look(&repository, &Chronicle::Activity, life, Some(1)).await.unwrap().unwrap();
    assert_eq!((end.run.life, end.run.next, end.run.begins), (life, 4, 1));
    assert!(sealer.foreign.is_empty(), "{:?}", sealer.foreign);
}

/// Without a private key a reader knows of a sealed page its last digest alone: no life begins behind another of its entries.
#[tokio::test]
async fn beside_sealed_pages_a_life_begins_where_whoever_has_no_private_key_sees_from_what() {
    let mut room = Room::new(true).await;
    let catalog = room.catalog("first", &["1", "2"]).await;
    let mut sealer = room.sealer(&catalog);
    turn(&mut sealer).await;
    for what in ["3", "4", "5"] {
        say(&catalog, what).await;
    }
    turn(&mut sealer).await;
    assert_eq!(room.pages().len(), 2);

    // A copy that was put back goes on from the midst of the second page; whoever seals it has the private key, and sees that.
    let without = Arc::clone(&room.config);
    room.with_identity();
    let copy = room.catalog("copy", &["1", "2", "3", "4", "other 5"]).await;
    let mut sealer = room.sealer(&copy);
    turn(&mut sealer).await;
    for config in [Arc::clone(&room.config), without] {
        room.config = config;
        let held = room.held(&copy).await;
        assert_eq!((held.sealed_from, held.lacks, held.sound), (1, Some(0), Some(true)), "{held:?}");
    }
}

#[tokio::test]
async fn pages_at_the_end_that_are_gone_are_found_by_what_the_store_once_confirmed() {
    let room = Room::new(false).await;
    let catalog = room.catalog("first", &["1", "2"]).await;
    let mut sealer = room.sealer(&catalog);
    turn(&mut sealer).await;
    say(&catalog, "3").await;
    turn(&mut sealer).await;
    let held = room.held(&catalog).await;
    assert_eq!((held.sound, held.sealed_to), (Some(true), 3), "{held:?}");
    assert_eq!(room.damaged(&catalog).await, Vec::<String>::new());

    let pages = room.pages();
    std::fs::remove_file(&pages[1]).unwrap();
    let held = room.held(&catalog).await;
    assert_eq!((held.sound, held.sealed_to), (Some(false), 2), "{held:?}");
    assert!(held.findings[0].contains("it had entries 1 to 3 once"), "{held:?}");
    assert_eq!(room.damaged(&catalog).await.len(), 1);
    std::fs::remove_file(&pages[0]).unwrap();
    let held = room.held(&catalog).await;
    assert_eq!((held.sound, held.sealed_to), (Some(false), 0), "{held:?}");
    assert_eq!(room.damaged(&catalog).await.len(), 1);
}

/// A store that lacks the beginning is not damaged, and another catalog's life there is nobody's business here.
#[tokio::test]
async fn a_beginning_that_was_never_brought_and_another_catalogs_damage_are_no_findings_of_verify() {
    let room = Room::new(false).await;
    // What its catalog took back begins at 4, and what was before is in another store.
    let (lost, catalog) = (room.catalog("lost", &["1", "2", "3"]).await, room.catalog("new", &["0"]).await);
    let url = format!("sqlite:{}/unsettled.db", room.folder.path().display());
    let unsettled = Catalog::open(&url, Options::default()).await.unwrap();
    let entries = lost.chronicle_entries(&Chronicle::Activity, 1, 9).await.unwrap();
    let last = entries.last().unwrap();
    let (last, digest, written) = (last.number, last.digest, Utc::now());
    let former =
        farshore_catalog::chronicle::Former { last, digest, entries: Vec::new(), marks: Vec::new(), written };
    unsettled.chronicle_settle(&Chronicle::Activity, Before::Former(&former)).await.unwrap();
    turn(&mut room.sealer(&unsettled)).await;
    assert_eq!(room.held(&unsettled).await.sealed_from, 4);
    assert_eq!(room.damaged(&unsettled).await, Vec::<String>::new());

    // Another catalog, of a database that this configuration does not have, has a hole there.
    let mut sealer = room.sealer(&catalog);
    turn(&mut sealer).await;
    let life = sealer.ends[&Chronicle::Activity].run.life.unwrap();
    say(&catalog, "more").await;
    turn(&mut sealer).await;
    say(&catalog, "and more").await;
    turn(&mut sealer).await;
    let of = room.folder.path().join("journal/activity").join(life.to_string());
    let mut pages: Vec<_> = std::fs::read_dir(of).unwrap().map(|page| page.unwrap().path()).collect();
    pages.sort();
    std::fs::remove_file(&pages[1]).unwrap();
    assert_eq!(room.damaged(&unsettled).await.len(), 1, "it says that it is of the database");
    let belongs = room.folder.path().join("journal/db/orders/activity").join(life.to_string());
    std::fs::remove_file(belongs).unwrap();
    assert_eq!(room.damaged(&unsettled).await, Vec::<String>::new());
}

#[tokio::test]
async fn the_activity_of_a_store_is_read_once_however_many_databases_are_verified() {
    let room = Room::new(false).await;
    let catalog = room.catalog("first", &["1"]).await;
    turn(&mut room.sealer(&catalog)).await;
    let pages = Pages::new(Some(&catalog)).await;
    let kept = std::fs::read(&room.pages()[0]).unwrap();
    std::fs::write(&room.pages()[0], b"{").unwrap();
    let orders = "orders".parse().unwrap();
    let first = pages.of(&room.config, &orders, &room.store).await;
    assert!(first.iter().all(|what| what.starts_with("activity: ")) && !first.is_empty(), "{first:?}");
    std::fs::write(&room.pages()[0], kept).unwrap();
    assert_eq!(pages.of(&room.config, &orders, &room.store).await, first);
    assert_eq!(room.damaged(&catalog).await, Vec::<String>::new());
}

/// Nothing that the two have agrees: that another writes there is said all the same, and once.
#[tokio::test]
async fn where_nothing_in_the_store_is_this_catalogs_that_is_said() {
    let room = Room::new(false).await;
    let (other, catalog) = (room.catalog("other", &["1"]).await, room.catalog("first", &["a", "b"]).await);
    turn(&mut room.sealer(&other)).await;
    let mut sealer = room.sealer(&catalog);
    turn(&mut sealer).await;
    assert_eq!(sealer.foreign.len(), 1);
    let held = room.held(&catalog).await;
    assert_eq!((held.lacks, held.branches), (Some(0), 1), "{held:?}");
    let mut sealer = room.sealer(&catalog);
    turn(&mut sealer).await;
    assert!(sealer.foreign.is_empty(), "it goes on in its own");
}

/// Where no entry gives a life its name a newer one may: until then the store is not read again.
#[tokio::test]
async fn while_nothing_gives_a_life_its_name_the_store_is_looked_at_once() {
    let room = Room::new(false).await;
    let catalog = room.catalog("first", &["1"]).await;
    turn(&mut room.sealer(&catalog)).await;
    // The only page does not read, and has the only name.
    std::fs::write(&room.pages()[0], b"{").unwrap();
    let mut sealer = room.sealer(&catalog);
    sealer.turn(true).await;
    let standing = catalog.chronicle_standing(&Chronicle::Activity).await.unwrap();
    let known = sealer.known(&Chronicle::Activity, &standing, Some(1)).await.unwrap();
    assert_eq!(known.map(|end| end.run.life), Some(None));
    say(&catalog, "2").await;
    sealer.turn(true).await;
    let found = room.found().await;
    assert_eq!(found.strands.len(), 2, "a newer one does");
}

/// What only the store had is deleted; the service that is started anew begins a life behind it, and does not make what it had confirmed undone by that.
#[tokio::test]
async fn what_is_gone_from_a_store_is_said_by_the_look_and_stays_said_until_it_is_back() {
    let room = Room::new(false).await;
    let lost = room.catalog("lost", &["1", "2"]).await;
    let mut sealer = room.sealer(&lost);
    turn(&mut sealer).await;
    for what in ["3", "4"] {
        say(&lost, what).await;
    }
    turn(&mut sealer).await;
    let entries = lost.chronicle_entries(&Chronicle::Activity, 1, 9).await.unwrap();
    let url = format!("sqlite:{}/new.db", room.folder.path().display());
    let catalog = Catalog::open(&url, Options::default()).await.unwrap();
    let (last, digest, written) = (4, entries[3].digest, Utc::now());
    let former =
        farshore_catalog::chronicle::Former { last, digest, entries: Vec::new(), marks: Vec::new(), written };
    catalog.chronicle_settle(&Chronicle::Activity, Before::Former(&former)).await.unwrap();
    let (sealer, seal) = started_anew(&room, &catalog).await;
    assert_eq!((seal.once, seal.first, seal.number, seal.trouble), (1, 1, 5, None));
    assert!(sealer.gone.is_empty());

    let pages = room.pages();
    let kept: Vec<_> = pages[1..].iter().map(|page| (page.clone(), std::fs::read(page).unwrap())).collect();
    assert_eq!(kept.len(), 2);
    for (page, _) in &kept {
        std::fs::remove_file(page).unwrap();
    }
    let (mut sealer, seal) = started_anew(&room, &catalog).await;
    assert!(seal.trouble.unwrap().contains("it had entries 1 to 5 once"));
    assert_eq!((seal.once, seal.first, seal.number), (1, 5, 5), "what counts as held is what is there");
    assert_eq!(sealer.gone.len(), 1);
    say(&catalog, "6").await;
    sealer.turn(true).await;
    for _ in 0..2 {
        let (_, seal) = started_anew(&room, &catalog).await;
        assert!(seal.trouble.unwrap().contains("those before 5 are not there now"));
        assert_eq!((seal.once, seal.first, seal.number), (1, 5, 6));
    }
    assert_eq!(room.damaged(&catalog).await.len(), 1);

    for (page, bytes) in &kept {
        std::fs::write(page, bytes).unwrap();
    }
    let (sealer, seal) = started_anew(&room, &catalog).await;
    assert_eq!((seal.once, seal.trouble), (1, None));
    assert!(sealer.gone.is_empty());
    assert_eq!(room.damaged(&catalog).await, Vec::<String>::new());
}

#[tokio::test]
async fn what_is_gone_from_a_store_and_in_the_catalog_is_put_there_again_and_is_no_trouble_then() {
    let room = Room::new(false).await;
    let catalog = room.catalog("first", &["1", "2"]).await;
    let mut sealer = room.sealer(&catalog);
    turn(&mut sealer).await;
    say(&catalog, "3").await;
    turn(&mut sealer).await;
    std::fs::remove_file(&room.pages()[1]).unwrap();
    let mut sealer = room.sealer(&catalog);
    turn(&mut sealer).await;
    assert_eq!(room.pages().len(), 2);
    assert_eq!(room.held(&catalog).await.sound, Some(true));
}

/// Until it is as far again, what the store confirmed stays, and counts as held by nobody.
#[test]
fn how_far_a_store_was_is_not_written_over_by_less() {
    let seal = |once, first, number: u64| Seal {
        chronicle: "activity".to_owned(),
        store: "main".to_owned(),
        first,
        once,
        number,
        digest: format!("of {number}"),
        at: DateTime::UNIX_EPOCH,
        trouble: None,
    };
    let confirmed = seal(1, 1, 100);
    for number in [0, 50] {
        let beside = beside_gone(seal(1, 1, number), &confirmed);
        assert_eq!((beside.once, beside.number, beside.digest.as_str()), (1, 100, "of 100"));
        assert_eq!(beside.lacks(120), 120);
    }
    let beside = beside_gone(seal(101, 101, 110), &confirmed);
    assert_eq!((beside.once, beside.number, beside.digest.as_str()), (1, 110, "of 110"));
    assert_eq!(beside.lacks(120), 110);
}

#[tokio::test]
async fn that_a_chronicle_is_not_settled_is_said_until_it_is() {
    let room = Room::new(false).await;
    let url = format!("sqlite:{}/unsettled.db", room.folder.path().display());
    let catalog = Catalog::open(&url, Options::default()).await.unwrap();
    say(&catalog, "1").await;
    let mut sealer = room.sealer(&catalog);
    let why = Unsettled::from([(Chronicle::Activity, "main is away".to_owned())]);
    let (saying, unsettled) = watch::channel(why);
    sealer.unsettled = unsettled;
    sealer.turn(true).await;
    let seal = catalog.seal_of(&Chronicle::Activity, "main").await.unwrap().unwrap();
    assert_eq!((seal.number, seal.trouble.as_deref()), (0, Some("not settled: main is away")));
    let held = room.held(&catalog).await;
    assert!(held::lines(&[held]).contains("TROUBLE when it was sealed to last: not settled: main is away"));
    catalog.chronicle_settle(&Chronicle::Activity, Before::Nothing).await.unwrap();
    saying.send_replace(Unsettled::new());
    turn(&mut sealer).await;
}
