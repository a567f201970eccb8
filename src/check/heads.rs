//! What `check` says about the keys of signed heads.

use crate::check::Finding;
use crate::check::facts::{CheckFacts, HeadFacts, Pinning};

const CODE: &str = "heads.signed";

/// The key that signs, and those that are pinned.
pub(super) fn judge(facts: &CheckFacts, findings: &mut Vec<Finding>) {
    findings.push(match &facts.heads {
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
            "chmod 600 it; if it may have been read, make another pair and pin only the new one",
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
}
