//! A page of a chronicle: a dense run of entries of a chained record that no other object of a store implies.
//!
//! ```text
//! {"format":1,"store":..,"chronicle":"activity"|"exposure","database":..|null,"life":..,"first":..,"last":..,"before":..|null,"after":..,
//!  "entries":[{"digest":..,"said":{..}},..]|null,"sealed":"<age>"|null,"key":..|null,"signature":..|null,"blake3":..}
//! ```
//! What always holds of a decoded [`Page`]: its entries are as many as its numbers say and end in the digest that it states; it has either entries
//! or one text that is sealed. Whether each digest is that of what its entry says, whoever knows what an entry says asks (the catalog);
//! whether its signature counts, [`Page::standing`] tells. What is signed binds the last digest, and that one every entry before it.
//! Source: `FORMAT.md` section 14.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::head::HeadStanding;
use super::header::VERSION;
use super::signing::{Signature, SigningKey, VerifyKey, VerifyKeys};
use super::{FormatError, Recipients, Unlock, body};
use crate::hex_bytes::hex_bytes;
use crate::identity::{DatabaseName, StoreId};

/// The largest page that is read, in bytes.
pub const PAGE_BYTES: u64 = 8 << 20;
/// The most entries of a page.
pub const PAGE_ENTRIES: usize = 256;
/// Numbers of entries are below this: every reader of JSON keeps them exactly, and what counts on from one never overflows.
pub const PAGE_NUMBERS: u64 = 1 << 53;
/// What is signed begins with this, behind its length: nothing else that these keys sign does.
const SIGNED: &str = "farshore 2026-11 chronicle page v1";

hex_bytes!(
    /// The digest of an entry, which holds that of the entry before it.
    EntryDigest,
    32,
    "entry digest (64 lower-case hexadecimal digits)"
);
hex_bytes!(
    /// What one catalog wrote of a chronicle, until it was lost: the first half of its first entry's digest.
    LifeId,
    16,
    "life (32 lower-case hexadecimal digits)"
);

impl LifeId {
    /// The life that begins with an entry.
    pub fn of(first: &EntryDigest) -> Self {
        let mut half = [0; 16];
        half.copy_from_slice(&first.as_bytes()[..16]);
        Self::from_bytes(half)
    }
}

/// Which chronicle.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Chronicle {
    /// Who did what, of one catalog.
    Activity,
    /// When a database's promises did not hold.
    Exposure(DatabaseName),
}

impl Chronicle {
    const fn word(&self) -> &'static str {
        match self {
            Self::Activity => "activity",
            Self::Exposure(_) => "exposure",
        }
    }

    /// Whether its pages are sealed where a store has recipients: a page of any other that states something sealed is nobody's.
    pub const fn may_be_sealed(&self) -> bool {
        matches!(self, Self::Activity)
    }

    /// The database that it is of.
    pub const fn database(&self) -> Option<&DatabaseName> {
        match self {
            Self::Activity => None,
            Self::Exposure(database) => Some(database),
        }
    }
}

impl fmt::Display for Chronicle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Activity => f.write_str("activity"),
            Self::Exposure(database) => write!(f, "exposure/{database}"),
        }
    }
}

/// An entry as a page holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its digest.
    pub digest: EntryDigest,
    /// What it says.
    pub said: Value,
}

/// A page's entries, or what they were sealed into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Readable.
    Plain(Vec<Entry>),
    /// For whoever has a private key.
    Sealed(String),
}

/// Where a page stands, and what leads to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The store.
    pub store: StoreId,
    /// The chronicle.
    pub chronicle: Chronicle,
    /// Whose page it is.
    pub life: LifeId,
    /// The number of its first entry, from 1.
    pub first: u64,
    /// The digest of the entry before the first; none before entry 1.
    pub before: Option<EntryDigest>,
}

/// A page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    place: Place,
    last: u64,
    after: EntryDigest,
    content: Content,
    signed: Option<(VerifyKey, Signature)>,
}

/// Its document.
#[derive(Debug, Serialize, Deserialize)]
struct Document {
    format: u16,
    store: StoreId,
    chronicle: String,
    database: Option<DatabaseName>,
    life: LifeId,
    first: u64,
    last: u64,
    before: Option<EntryDigest>,
    after: EntryDigest,
    entries: Option<Vec<Entry>>,
    sealed: Option<String>,
    key: Option<VerifyKey>,
    signature: Option<Signature>,
}

impl Page {
    /// A page of these entries, sealed where there are recipients, signed where there is a key.
    ///
    /// # Errors
    /// Without entries, with more than [`PAGE_ENTRIES`], with recipients for a chronicle that is never sealed, or when age refuses.
    pub fn make(
        place: Place,
        entries: Vec<Entry>,
        recipients: &Recipients,
        key: Option<&SigningKey>,
    ) -> Result<Self, FormatError> {
        if !recipients.is_empty() && !place.chronicle.may_be_sealed() {
            return Err(FormatError::Field { field: "sealed" });
        }
        let last = last_number(place.first, entries.len())?;
        let after =
            entries.last().map(|entry| entry.digest).ok_or(FormatError::Field { field: "entries" })?;
        let content = match recipients.is_empty() {
            true => Content::Plain(entries),
            false => Content::Sealed(recipients.seal(&body::to_json("page", &entries)?)?),
        };
        let mut page = Self { place, last, after, content, signed: None };
        page.signed = key.map(|key| {
            let public = key.public();
            (public, key.sign(&page.message(&public)))
        });
        Ok(page)
    }

    /// Where it stands.
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// The number of its last entry.
    pub const fn last(&self) -> u64 {
        self.last
    }

    /// The digest of its last entry, which stands for all before.
    pub const fn after(&self) -> EntryDigest {
        self.after
    }

    /// Whether a private key is needed to read it.
    pub const fn is_sealed(&self) -> bool {
        matches!(self.content, Content::Sealed(_))
    }

    /// The digest of one of its entries, as far as that shows without a key: of a sealed page the last alone.
    pub fn digest_at(&self, number: u64) -> Option<EntryDigest> {
        if number == self.last {
            return Some(self.after);
        }
        let at = usize::try_from(number.checked_sub(self.place.first)?).ok()?;
        match &self.content {
            Content::Plain(entries) => entries.get(at).map(|entry| entry.digest),
            Content::Sealed(_) => None,
        }
    }

    /// Lets it state another last digest, as somebody may who forges it.
    #[cfg(test)]
    pub(crate) fn state_after(&mut self, after: EntryDigest) {
        self.after = after;
    }

    /// Its entries, opened where they are sealed.
    ///
    /// # Errors
    /// [`FormatError::KeyMissing`] or [`FormatError::Key`] when no key at hand opens it; otherwise when it does not hold what it states, be that that nothing was
    /// ever sealed there.
    pub fn entries(&self, unlock: &Unlock) -> Result<Vec<Entry>, FormatError> {
        match &self.content {
            Content::Plain(entries) => Ok(entries.clone()),
            Content::Sealed(text) => {
                let entries: Vec<Entry> = body::from_json("page", &unlock.open(text, PAGE_BYTES)?)?;
                self.hold(&entries)?;
                Ok(entries)
            }
        }
    }

    /// What its signature is worth where these keys are pinned; `None` when nobody signed it.
    pub fn standing(&self, pinned: &VerifyKeys) -> Option<HeadStanding> {
        let (key, signature) = self.signed.as_ref()?;
        Some(match (key.signed(&self.message(key), signature), pinned.contains(key)) {
            (false, _) => HeadStanding::Broken,
            (true, true) => HeadStanding::Pinned,
            (true, false) => HeadStanding::UnknownKey,
        })
    }

    /// Its object's bytes.
    ///
    /// # Errors
    /// Never in practice: every page is JSON.
    pub fn encode(&self) -> Result<Bytes, FormatError> {
        let (entries, sealed) = match &self.content {
            Content::Plain(entries) => (Some(entries.clone()), None),
            Content::Sealed(text) => (None, Some(text.clone())),
        };
        let (key, signature) = self.signed.unzip();
        let Place { store, chronicle, life, first, before } = self.place.clone();
        let document = Document {
            format: VERSION,
            store,
            chronicle: chronicle.word().to_owned(),
            database: chronicle.database().cloned(),
            life,
            first,
            last: self.last,
            before,
            after: self.after,
            entries,
            sealed,
            key,
            signature,
        };
        Ok(Bytes::from(body::to_document("page", &document)?))
    }

    /// Reads one.
    ///
    /// # Errors
    /// When it is not as it was written, or states what it does not hold.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let wrong = |field| FormatError::Field { field };
        if bytes.len() as u64 > PAGE_BYTES {
            return Err(wrong("length"));
        }
        let read: Document = body::from_document("page", bytes)?;
        if read.format != VERSION {
            return Err(FormatError::Version { version: read.format });
        }
        let chronicle = match (read.chronicle.as_str(), read.database) {
            ("activity", None) => Chronicle::Activity,
            ("exposure", Some(database)) => Chronicle::Exposure(database),
            _ => return Err(wrong("chronicle")),
        };
        if (read.first == 1) != read.before.is_none() || read.first == 0 {
            return Err(wrong("before"));
        }
        // Of a sealed page these two are all that is known without a key, and whoever may write to the store can write anything there.
        let many = read.last.checked_sub(read.first).ok_or(wrong("last"))?;
        if many >= PAGE_ENTRIES as u64 || read.last >= PAGE_NUMBERS {
            return Err(wrong("last"));
        }
        let content = match (read.entries, read.sealed) {
            (Some(entries), None) => Content::Plain(entries),
            (None, Some(text)) if chronicle.may_be_sealed() => Content::Sealed(text),
            (None, Some(_)) => return Err(wrong("sealed")),
            _ => return Err(wrong("entries")),
        };
        let signed = match (read.key, read.signature) {
            (None, None) => None,
            (Some(key), Some(signature)) => Some((key, signature)),
            _ => return Err(wrong("signature")),
        };
        let place =
            Place { store: read.store, chronicle, life: read.life, first: read.first, before: read.before };
        let page = Self { place, last: read.last, after: read.after, content, signed };
        if let Content::Plain(entries) = &page.content {
            page.hold(entries)?;
        }
        Ok(page)
    }

    /// Whether entries are those that the page states, as far as their digests tell.
    fn hold(&self, entries: &[Entry]) -> Result<(), FormatError> {
        let last = last_number(self.place.first, entries.len())?;
        match last == self.last && entries.last().is_some_and(|entry| entry.digest == self.after) {
            true => Ok(()),
            false => Err(FormatError::Field { field: "entries" }),
        }
    }

    fn message(&self, key: &VerifyKey) -> Vec<u8> {
        let mut out = Vec::new();
        let mut text = |text: &str| {
            out.extend_from_slice(&(text.len() as u64).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        };
        text(SIGNED);
        text(self.place.chronicle.word());
        text(self.place.chronicle.database().map_or("", DatabaseName::as_str));
        out.extend_from_slice(self.place.store.as_bytes());
        out.extend_from_slice(self.place.life.as_bytes());
        out.extend_from_slice(&self.place.first.to_le_bytes());
        out.extend_from_slice(&self.last.to_le_bytes());
        let before = self.place.before.map_or([0; 32], |before| *before.as_bytes());
        out.extend_from_slice(&before);
        out.extend_from_slice(self.after.as_bytes());
        out.extend_from_slice(key.as_bytes());
        out
    }
}

fn last_number(first: u64, entries: usize) -> Result<u64, FormatError> {
    let wrong = FormatError::Field { field: "entries" };
    if entries == 0 || entries > PAGE_ENTRIES || first == 0 {
        return Err(wrong);
    }
    first.checked_add(entries as u64 - 1).ok_or(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn digest(byte: u8) -> EntryDigest {
        EntryDigest::from_bytes([byte; 32])
    }

    fn place() -> Place {
        Place {
            store: StoreId::from_bytes([7; 16]),
            chronicle: Chronicle::Exposure("orders".parse().unwrap()),
            life: LifeId::of(&digest(3)),
            first: 3,
            before: Some(digest(2)),
        }
    }

    /// Of the chronicle that is sealed for recipients.
    fn sealed() -> (age::x25519::Identity, Page) {
        let identity = age::x25519::Identity::generate();
        let recipients = Recipients::parse([identity.to_public().to_string().as_str()]).unwrap();
        let place = Place { chronicle: Chronicle::Activity, ..place() };
        (identity, Page::make(place, entries(), &recipients, None).unwrap())
    }

    fn keys(identity: &age::x25519::Identity) -> Unlock {
        Unlock::parse(age::secrecy::ExposeSecret::expose_secret(&identity.to_string())).unwrap()
    }

    fn entries() -> Vec<Entry> {
        (3..6).map(|n| Entry { digest: digest(n), said: json!({"n": n, "what": "a \"b\""}) }).collect()
    }

    fn page(key: Option<&SigningKey>) -> Page {
        Page::make(place(), entries(), &Recipients::default(), key).unwrap()
    }

    #[test]
    fn a_page_reads_back_and_every_changed_letter_in_it_is_found() {
        let page = page(None);
        let bytes = page.encode().unwrap();
        assert_eq!(Page::decode(&bytes).unwrap(), page);
        assert_eq!((page.last(), page.after()), (5, digest(5)));
        for at in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[at] ^= 1;
            assert!(Page::decode(&changed).is_err(), "{at}");
            assert!(Page::decode(&bytes[..at]).is_err(), "{at}");
        }
    }

    #[test]
    fn a_page_that_states_what_it_does_not_hold_is_refused_however_well_it_is_summed() {
        let document: Value = serde_json::from_slice(&page(None).encode().unwrap()).unwrap();
        let changes: [(&str, Value); 8] = [
            ("last", json!(6)),
            ("after", json!(digest(4))),
            ("first", json!(1)),
            ("first", json!(0)),
            ("before", Value::Null),
            ("database", Value::Null),
            ("sealed", json!("x")),
            ("key", json!("00".repeat(32))),
        ];
        for (field, value) in changes {
            let mut changed = document.clone();
            changed.as_object_mut().unwrap().remove("blake3");
            changed[field] = value;
            let bytes = body::to_document("page", &changed).unwrap();
            assert!(Page::decode(&bytes).is_err(), "{field}");
        }
    }

    #[test]
    fn a_sealed_page_states_no_numbers_that_it_cannot_hold_and_none_that_nobody_could_go_on_from() {
        let (_, page) = sealed();
        let document: Value = serde_json::from_slice(&page.encode().unwrap()).unwrap();
        let read = |first: u64, last: u64| {
            let mut changed = document.clone();
            changed.as_object_mut().unwrap().remove("blake3");
            (changed["first"], changed["last"]) = (json!(first), json!(last));
            Page::decode(&body::to_document("page", &changed).unwrap())
        };
        assert_eq!(read(3, 5).unwrap(), page);
        assert_eq!(read(3, 258).unwrap().last(), 258);
        let end = PAGE_NUMBERS - 1;
        assert_eq!(read(end, end).unwrap().last(), end);
        for (first, last) in [(3, 2), (3, 259), (3, u64::MAX), (u64::MAX, u64::MAX), (end, end + 1)] {
            assert!(read(first, last).is_err(), "{first} to {last}");
        }
    }

    #[test]
    fn a_signature_holds_for_this_page_alone_and_counts_where_its_key_is_pinned() {
        let (key, _) = SigningKey::mint().unwrap();
        let pinned = VerifyKeys::new(vec![key.public()]);
        let page = page(Some(&key));
        assert_eq!(page.standing(&pinned), Some(HeadStanding::Pinned));
        assert_eq!(page.standing(&VerifyKeys::default()), Some(HeadStanding::UnknownKey));
        let changes: [fn(&mut Page); 6] = [
            |p| p.place.store = StoreId::from_bytes([8; 16]),
            |p| p.place.life = LifeId::from_bytes([1; 16]),
            |p| p.place.first = 2,
            |p| p.place.before = None,
            |p| p.after = digest(9),
            |p| p.place.chronicle = Chronicle::Exposure("other".parse().unwrap()),
        ];
        for change in changes {
            let mut changed = page.clone();
            change(&mut changed);
            assert_eq!(changed.standing(&pinned), Some(HeadStanding::Broken));
        }
    }

    #[test]
    fn a_sealed_page_opens_with_its_private_key_and_tells_its_numbers_without() {
        let (identity, page) = sealed();
        let read = Page::decode(&page.encode().unwrap()).unwrap();
        assert_eq!((read.last(), read.after(), read.is_sealed()), (5, digest(5), true));
        assert!(matches!(read.entries(&Unlock::none()), Err(FormatError::KeyMissing)));
        assert_eq!(read.entries(&keys(&identity)).unwrap(), entries());
        assert!(!String::from_utf8_lossy(&page.encode().unwrap()).contains("what"));
    }

    /// Sealed text of somebody else is no more than not opened; anything else is told from it, and nobody's missing key is an excuse.
    #[test]
    fn what_was_never_sealed_or_is_changed_is_no_page_that_only_lacks_its_private_key() {
        let (identity, page) = sealed();
        let (own, other) = (keys(&identity), keys(&age::x25519::Identity::generate()));
        let with = |text: String| Page { content: Content::Sealed(text), ..page.clone() };
        let Content::Sealed(text) = page.content.clone() else { panic!("it is sealed") };
        assert!(matches!(page.entries(&other), Err(FormatError::Key { .. })));
        for garbage in [String::new(), "x".to_owned(), text[..text.len() / 3].to_owned()] {
            for unlock in [&Unlock::none(), &other, &own] {
                let read = with(garbage.clone()).entries(unlock);
                assert!(matches!(read, Err(FormatError::Age { .. })), "{garbage:?}: {read:?}");
            }
        }
        // Its head is a recipient's, its body is not what was sealed behind that.
        let lines: Vec<&str> = text.lines().collect();
        let at = lines.len() - 2;
        let mut changed: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        changed[at] = changed[at]
            .chars()
            .map(|c| {
                if c == 'A' {
                    'B'
                } else if c == '=' {
                    c
                } else {
                    'A'
                }
            })
            .collect();
        let changed = with(changed.join("\n") + "\n");
        assert!(matches!(changed.entries(&own), Err(FormatError::Age { .. })));
    }

    #[test]
    fn a_ledger_is_never_sealed_and_a_page_of_one_that_states_it_is_refused() {
        let (identity, page) = sealed();
        let recipients = Recipients::parse([identity.to_public().to_string().as_str()]).unwrap();
        let made = Page::make(place(), entries(), &recipients, None);
        assert_eq!(made, Err(FormatError::Field { field: "sealed" }));
        let forged = Page { place: place(), ..page };
        assert_eq!(Page::decode(&forged.encode().unwrap()), Err(FormatError::Field { field: "sealed" }));
    }
}
