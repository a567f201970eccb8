//! What `check` says about the keys of signed heads, and about the newest of them.

use std::time::Duration;

use crate::check::Finding;
use crate::check::facts::{HeadFacts, Pinning, SignedFacts};

const CODE: &str = "heads.signed";
const NEWEST: &str = "heads.newest";
/// A head comes every minute while anything is shipped: one that is so old and not the journal's end was followed by none.
const OLD: Duration = Duration::from_secs(10 * 60);

/// The key that signs, and those that are pinned.
pub(super) fn judge(heads: Option<&HeadFacts>, signed: Option<&[SignedFacts]>, findings: &mut Vec<Finding>) {
    findings.push(match heads {
        None => Finding::unknown(CODE, "whether the journal's heads are signed"),
        Some(HeadFacts::Neither) => Finding::warning(
            CODE,
            "the journal's heads are not signed: that its end was cut off, or all of it rewritten, is not found",
            "write signing_key and verify_keys; `farshore init` into another folder makes a pair to take over",
        ),
        Some(HeadFacts::PinnedOnly) => {
            Finding::ok(CODE, "heads are checked here, and signed where the database is shipped")
        }
        Some(HeadFacts::Unreadable { why }) => Finding::problem(
            CODE,
            format!("no head can be signed: {why}"),
            "name a file in signing_key with an Ed25519 private key that this user can read; until then heads are not written",
        ),
        Some(HeadFacts::Read { pinning: Pinning::Other { public }, .. }) => Finding::problem(
            CODE,
            "the signing key's public half is not among verify_keys: no head is signed with it",
            format!("add \"{public}\" to verify_keys, or name the key that belongs to them"),
        ),
        Some(HeadFacts::Read { open_to_others: true, .. }) => Finding::warning(
            CODE,
            "other users can read the signing key: whoever does can sign a journal of their own",
            "chmod 600 it; if it may have been read, make another pair, pin only the new one in verify_keys, and move the former one to retired_keys",
        ),
        Some(HeadFacts::Read { pinning: Pinning::Nothing { public }, .. }) => Finding::warning(
            CODE,
            "heads are signed, and no public key is pinned to check them by",
            format!("write verify_keys = [\"{public}\"], here and wherever the journal is verified or restored"),
        ),
        Some(HeadFacts::Read { pinning: Pinning::Fits, .. }) => {
            Finding::ok(CODE, "heads are signed with a key whose public half is pinned")
        }
    });
    judge_newest(heads, signed, findings);
}

/// Whether heads keep coming: whoever may write to the store can put other objects at the names that they would take.
fn judge_newest(heads: Option<&HeadFacts>, signed: Option<&[SignedFacts]>, findings: &mut Vec<Finding>) {
    if !matches!(heads, Some(HeadFacts::Read { .. } | HeadFacts::Unreadable { .. })) {
        return;
    }
    let Some(signed) = signed else {
        findings.push(Finding::unknown(NEWEST, "how far the journal is signed"));
        return;
    };
    findings.extend(signed.iter().filter_map(newest));
}

/// `None` while nothing is stored.
fn newest(signed: &SignedFacts) -> Option<Finding> {
    let SignedFacts { store, newest, stored } = signed;
    let stored = (*stored)?;
    let why = "the service's log says why none is signed: a key that does not read, another's object at a head's name, a journal that was rewritten";
    Some(match newest {
        Some((end, _)) if *end == stored => {
            Finding::ok(NEWEST, format!("{store} is signed to its end, {end}"))
        }
        Some((end, age)) if *age < OLD => Finding::ok(NEWEST, format!("{store} is signed to {end}")),
        Some((end, age)) => Finding::warning(
            NEWEST,
            format!(
                "the newest head of {store} was signed {} minutes ago and reaches {end}; the journal reaches {stored}, and what lies \
                 between could be cut off unseen",
                age.as_secs() / 60
            ),
            why,
        ),
        None => Finding::warning(
            NEWEST,
            format!("{store} has a journal to {stored}, and no head of it is known"),
            why,
        ),
    })
}
