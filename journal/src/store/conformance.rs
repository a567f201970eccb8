//! What every store and every wrapper must do, whoever implements it. One suite, so that no store has its own idea.
//!
//! It needs an empty folder of its own in the store and leaves its objects there. Durability it cannot see: each store
//! shows that in its own tests.

use std::fmt::Debug;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;
use futures::stream;

use super::{Created, Key, KeyPrefix, ObjectStore, StoreError};

/// More than a page of every provider: S3 lists 1,000 at a time, Azure 5,000 (the suite only needs pages to exist).
const MANY: usize = 1_203;
/// An object of more than one part, buffer or block of anything in between.
const LARGE: usize = 8 << 20;
/// Requests in flight while filling a folder.
const AT_ONCE: usize = 16;

/// Runs the suite.
///
/// # Panics
/// When the store breaks the contract, with what it did.
pub async fn run(store: &dyn ObjectStore) {
    run_below(store, "conformance").await;
}

/// As [`run`], with all objects below this folder.
///
/// # Panics
/// As [`run`].
pub async fn run_below(store: &dyn ObjectStore, root: &str) {
    let outcome = check(store, root).await;
    assert!(outcome.is_ok(), "{store:?} breaks the contract: {}", outcome.err().unwrap_or_default());
}

type Outcome = Result<(), String>;

fn same<T: PartialEq + Debug>(what: &str, is: &T, should: &T) -> Outcome {
    if is == should { Ok(()) } else { Err(format!("{what}: it is {is:?}, it should be {should:?}")) }
}

fn went<T>(what: &str, result: Result<T, StoreError>) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {error} ({error:?})"))
}

fn missing<T: Debug>(what: &str, result: Result<T, StoreError>, key: &Key) -> Outcome {
    match result {
        Err(StoreError::NotFound { key: named }) if named == *key => Ok(()),
        other => Err(format!("{what} of an object that is not there gave {other:?}")),
    }
}

fn outside<T: Debug>(what: &str, result: Result<T, StoreError>) -> Outcome {
    match result {
        Err(StoreError::OutOfRange { .. }) => Ok(()),
        other => Err(format!("{what} gave {other:?}")),
    }
}

fn folder(root: &str, name: &str) -> Result<KeyPrefix, String> {
    KeyPrefix::new(&format!("{root}/{name}")).map_err(|e| e.to_string())
}

fn key(folder: &KeyPrefix, name: impl std::fmt::Display) -> Result<Key, String> {
    folder.key(name).map_err(|e| e.to_string())
}

async fn check(store: &dyn ObjectStore, root: &str) -> Outcome {
    objects(store, &folder(root, "objects")?).await?;
    races(store, &folder(root, "races")?).await?;
    listings(store, &folder(root, "listings")?).await?;
    pages(store, &folder(root, "pages")?).await
}

async fn objects(store: &dyn ObjectStore, folder: &KeyPrefix) -> Outcome {
    let one = key(folder, "one.x_y=z-1")?;
    missing("get", store.get(&one).await, &one)?;
    missing("get_range", store.get_range(&one, 0..1).await, &one)?;
    missing("size", store.size(&one).await, &one)?;
    let deep = key(folder, "not/there/either")?;
    missing("get in a missing folder", store.get(&deep).await, &deep)?;
    went("delete of nothing", store.delete(&one).await)?;

    let bytes = Bytes::from_static(b"0123456789");
    same("create", &went("create", store.create(&one, bytes.clone()).await)?, &Created::New)?;
    same("size", &went("size", store.size(&one).await)?, &10)?;
    let again = went("second create", store.create(&one, Bytes::from_static(b"other")).await)?;
    same("second create", &again, &Created::Exists)?;
    let again = went("same create", store.create(&one, bytes.clone()).await)?;
    same("create of the same bytes", &again, &Created::Exists)?;
    same("bytes after a second create", &went("get", store.get(&one).await)?, &bytes)?;

    for (range, part) in
        [(0..10, "0123456789"), (3..5, "34"), (9..10, "9"), (8..500, "89"), (0..u64::MAX, "0123456789")]
    {
        let read = went("get_range", store.get_range(&one, range.clone()).await)?;
        same(&format!("range {range:?}"), &read, &Bytes::from(part))?;
    }
    for range in [10..11, 500..600, 4..4, u64::MAX - 1..u64::MAX] {
        outside(&format!("range {range:?} of 10 bytes"), store.get_range(&one, range.clone()).await)?;
    }

    let empty = key(folder, "empty")?;
    same("empty create", &went("empty create", store.create(&empty, Bytes::new()).await)?, &Created::New)?;
    same("empty get", &went("empty get", store.get(&empty).await)?, &Bytes::new())?;
    same("empty size", &went("empty size", store.size(&empty).await)?, &0)?;
    outside("a range of an empty object", store.get_range(&empty, 0..1).await)?;
    let again = went("second empty create", store.create(&empty, Bytes::from_static(b"x")).await)?;
    same("create over an empty object", &again, &Created::Exists)?;

    let large = key(folder, "large")?;
    // A pattern with a period that divides no block length, so that a misplaced part shows.
    let bytes: Bytes = (0..LARGE).map(|i| (i % 251) as u8).collect::<Vec<_>>().into();
    same("large create", &went("large create", store.create(&large, bytes.clone()).await)?, &Created::New)?;
    if went("large get", store.get(&large).await)? != bytes {
        return Err("a large object came back changed".into());
    }
    let middle = LARGE / 2 - 7..LARGE / 2 + 4096;
    let read = went("large range", store.get_range(&large, middle.start as u64..middle.end as u64).await)?;
    if read != bytes.slice(middle) {
        return Err("a range of a large object came back changed".into());
    }

    went("delete", store.delete(&one).await)?;
    missing("get after delete", store.get(&one).await, &one)?;
    went("second delete", store.delete(&one).await)
}

async fn races(store: &dyn ObjectStore, folder: &KeyPrefix) -> Outcome {
    for round in 0..10 {
        let key = key(folder, format!("{round}/raced"))?;
        let bytes = |creator: usize| Bytes::from(vec![creator as u8; 1000 * creator + 1]);
        let told = join_all((0..8).map(|creator| store.create(&key, bytes(creator)))).await;
        let mut winners = Vec::new();
        for (creator, told) in told.into_iter().enumerate() {
            // A store may say "busy" to a racer, never anything that is not true.
            match told {
                Ok(Created::New) => winners.push(creator),
                Ok(Created::Exists) => {}
                Err(StoreError::Busy { ambiguous: false, .. }) => {}
                Err(error) => return Err(format!("a racing create: {error:?}")),
            }
        }
        same(&format!("winners {winners:?} of race {round}, in number"), &winners.len(), &1)?;
        let there = went("get after a race", store.get(&key).await)?;
        if there != bytes(winners[0]) {
            return Err(format!("race {round}: the bytes are not the winner's"));
        }
    }
    Ok(())
}

async fn names(
    store: &dyn ObjectStore,
    prefix: &KeyPrefix,
    after: Option<&Key>,
    limit: Option<usize>,
) -> Result<Vec<String>, String> {
    let listed = went("list", store.list(prefix, after, limit).await)?;
    Ok(listed
        .iter()
        .map(|l| l.key.below(prefix).map_or_else(|| format!("OUTSIDE {}", l.key), str::to_owned))
        .collect())
}

async fn listings(store: &dyn ObjectStore, base: &KeyPrefix) -> Outcome {
    same("a list of nothing", &names(store, base, None, None).await?, &vec![])?;
    // As bytes `-` < `.` < `/` < `0` < `=` < `A` < `_` < `a`: walking folders as they come would give another order.
    let sorted = ["a-b", "a.b", "a/b", "a/c/d", "a0", "a=b", "aA", "a_b", "aa", "b"];
    for name in ["b", "a/c/d", "aa", "a-b", "a0", "a/b", "a=b", "a_b", "a.b", "aA"] {
        went("create", store.create(&key(base, name)?, Bytes::from(name)).await)?;
    }
    let all: Vec<String> = sorted.iter().map(ToString::to_string).collect();
    same("the list", &names(store, base, None, None).await?, &all)?;
    for (at, after) in sorted.iter().enumerate() {
        let after = key(base, after)?;
        same(
            "the list after a key",
            &names(store, base, Some(&after), None).await?,
            &all[at + 1..].to_vec(),
        )?;
        let two: Vec<String> = all[at + 1..].iter().take(2).cloned().collect();
        same("two after a key", &names(store, base, Some(&after), Some(2)).await?, &two)?;
    }
    let between = key(base, "a/bb")?;
    same("the list after no object", &names(store, base, Some(&between), None).await?, &all[3..].to_vec())?;
    let inner = base.join("a").map_err(|e| e.to_string())?;
    same(
        "a folder beside its namesakes",
        &names(store, &inner, None, None).await?,
        &vec!["b".into(), "c/d".into()],
    )?;
    same("a limit of none", &names(store, base, None, Some(0)).await?, &vec![])?;
    let file = base.join("b").map_err(|e| e.to_string())?;
    same("an object listed as a folder", &names(store, &file, None, None).await?, &vec![])?;
    let listed = went("list", store.list(base, None, Some(4)).await)?;
    let sizes: Vec<u64> = listed.iter().map(|l| l.size).collect();
    same("sizes", &sizes, &vec![3, 3, 3, 5])
}

async fn pages(store: &dyn ObjectStore, base: &KeyPrefix) -> Outcome {
    let keys: Vec<Key> = (0..MANY).map(|n| key(base, format!("{n:016x}"))).collect::<Result<_, _>>()?;
    let made: Vec<_> = stream::iter(&keys)
        .map(|key| store.create(key, Bytes::from_static(b"x")))
        .buffered(AT_ONCE)
        .collect()
        .await;
    for made in made {
        same("create", &went("create", made)?, &Created::New)?;
    }
    let listed = |after: Option<usize>, limit| {
        let after = after.map(|at| keys[at].clone());
        async move {
            let listed = went("list", store.list(base, after.as_ref(), limit).await)?;
            Ok::<Vec<Key>, String>(listed.into_iter().map(|l| l.key).collect())
        }
    };
    if listed(None, None).await? != keys {
        return Err("a list of several pages is not what was created, in order".into());
    }
    same("a list after one page", &listed(Some(1099), None).await?, &keys[1100..].to_vec())?;
    if listed(Some(9), Some(1100)).await? != keys[10..1110] {
        return Err("a limit beyond one page is not kept".into());
    }
    same("after the last", &listed(Some(MANY - 1), None).await?, &vec![])
}
