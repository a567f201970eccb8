//! A certificate: what a drill came to, in a statement that somebody signed.
//!
//! ```text
//! line 1  the statement: a JSON object that begins with {"certificate":"farshore.drill-certificate/1",
//! line 2  {"key":"<64 hex>","signature":"<128 hex>"}
//! ```
//! What is signed are the bytes of line 1 without its line end. No other thing that these keys sign begins with `{`, so one can never be taken for the other.
//! What always holds of a decoded [`Certificate`]: its bytes are the only ones that say this with this signature. Whether the signature holds, and whether its
//! key counts, [`Certificate::standing`] says. A statement has counts, codes and names that a configuration gives, and no row values.
//! Source: `FORMAT.md` section 12.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::chain::ChainValue;
use super::head::HeadStanding;
use super::signing::{Signature, SigningKey, VerifyKey, VerifyKeys};
use super::{FormatError, body};
use crate::identity::{BackupId, DatabaseName, DrillId, IncarnationId, Sequence, StoreId};
use crate::position::{Offset, Position, Timeline};

/// What a statement begins with.
pub const SCHEMA: &str = "farshore.drill-certificate/1";
/// The largest certificate that is read, in bytes: hundreds of checks fit.
pub const CERTIFICATE_BYTES: u64 = 256 << 10;

/// How a drill ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrillVerdict {
    /// Restored, opened, and every required check passed; within the objective, where there is one.
    Passed,
    /// The same, but it took longer than the objective allows.
    Breached,
    /// The restore or a check failed.
    Failed,
}

impl DrillVerdict {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Passed, Self::Breached, Self::Failed];

    /// Its word in the catalog and in JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Breached => "breached",
            Self::Failed => "failed",
        }
    }
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckOutcome {
    /// What it asks for holds.
    Passed,
    /// It does not.
    Failed,
    /// Not known: the check says why.
    NotLookedAt,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillCheck {
    /// What is checked.
    pub name: String,
    /// How it ended.
    pub outcome: CheckOutcome,
    /// Whether the drill fails when it was not looked at, too.
    pub required: bool,
    /// What was found, or why it was not looked at: counts and codes, no values.
    pub detail: String,
}

/// A table that was counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountedTable {
    /// Its name, as the configuration gives it.
    pub table: String,
    /// Its rows; none when they could not be counted.
    pub rows: Option<u64>,
}

/// How a drill's point was chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChosenPoint {
    /// What was asked for, as it was written.
    pub asked: String,
    /// The seed of a random choice.
    pub seed: Option<u64>,
    /// The spans that a rule chose from, as far as the journal was stored then.
    pub spans: Vec<ChosenSpan>,
}

/// A span of positions that can be restored to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // the first position, and the last
pub struct ChosenSpan {
    pub timeline: Timeline,
    pub from: Offset,
    pub to: Offset,
}

/// Where the journal ended when the drill began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalEnd {
    /// Its last chunk.
    pub chunk: Sequence,
    /// The chain value behind it, which stands for everything before.
    pub chain: ChainValue,
    /// Where its log ends.
    pub position: Position,
}

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillTarget {
    /// The position.
    pub position: Position,
    /// The last commit's time at or before it, RFC 3339.
    pub time: Option<String>,
    /// That commit.
    pub transaction: Option<u64>,
    /// The base backup.
    pub base: BackupId,
    /// Where that one ends.
    pub base_end: Position,
    /// Bytes of log that were replayed.
    pub replay_bytes: u64,
    /// Bytes that the copy was planned to take.
    pub planned_bytes: u64,
}

/// Why a restore failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillFailure {
    /// In which phase.
    pub phase: String,
    /// The code of farshore's message.
    pub code: String,
    /// What it says happened, its first line.
    pub happened: String,
}

/// How long each phase took, in microseconds by the monotonic clock; none of what was not come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// Finding out what to restore.
    pub plan_us: Option<u64>,
    /// Base and log into place, durably.
    pub fetch_us: Option<u64>,
    /// Replaying the log.
    pub replay_us: Option<u64>,
    /// From the end of replay until it is open and answers.
    pub open_us: Option<u64>,
    /// Checks.
    pub check_us: Option<u64>,
    /// Ending the server and removing the copy.
    pub cleanup_us: Option<u64>,
}

impl Measured {
    /// What a recovery takes: plan, fetch, replay, open. `None` when it was not come to its end.
    pub fn recovery_us(&self) -> Option<u64> {
        Some(self.plan_us? + self.fetch_us? + self.replay_us? + self.open_us?)
    }
}

/// What a drill came to. The order of fields is the order of the text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillStatement {
    /// [`SCHEMA`].
    pub certificate: String,
    /// Its id.
    pub drill: DrillId,
    /// The database.
    pub database: DatabaseName,
    /// Its engine.
    pub engine: String,
    /// The store.
    pub store: StoreId,
    /// The incarnation.
    pub incarnation: IncarnationId,
    /// Its number in that store.
    pub incarnation_number: u64,
    /// The machine that drilled.
    pub node: String,
    /// The version of farshore.
    pub version: String,
    /// The system that it ran on: kernel, architecture, processors.
    pub machine: String,
    /// When it began, RFC 3339, by the machine's clock.
    pub began: String,
    /// When it was over.
    pub ended: String,
    /// How it ended.
    pub verdict: DrillVerdict,
    /// How the point was chosen.
    pub point: ChosenPoint,
    /// Where the journal ended; none when that did not read.
    pub journal: Option<JournalEnd>,
    /// What was restored; none when there was no plan.
    pub target: Option<DrillTarget>,
    /// What failed before the checks.
    pub failure: Option<DrillFailure>,
    /// The checks.
    pub checks: Vec<DrillCheck>,
    /// Tables that were counted.
    pub tables: Vec<CountedTable>,
    /// How long it took.
    pub measured: Measured,
    /// [`Measured::recovery_us`].
    pub recovery_us: Option<u64>,
    /// The objective, in microseconds; none where none is stated.
    pub objective_us: Option<u64>,
    /// How the copy was kept to itself.
    pub network: String,
    /// Whether nothing of the copy was left when this was signed.
    pub removed: bool,
}

/// The second line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    key: VerifyKey,
    signature: Signature,
}

/// A statement with its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    text: String,
    said: DrillStatement,
    /// The public half of the key that signed it, as it says itself.
    pub key: VerifyKey,
    /// The signature over the statement's text.
    pub signature: Signature,
}

impl Certificate {
    /// Signs a statement.
    ///
    /// # Errors
    /// Never in practice: every statement is text.
    pub fn sign(said: DrillStatement, key: &SigningKey) -> Result<Self, FormatError> {
        let text = statement_text(&said)?;
        let signature = key.sign(text.as_bytes());
        Ok(Self { text, said, key: key.public(), signature })
    }

    /// What it says.
    pub fn said(&self) -> &DrillStatement {
        &self.said
    }

    /// The statement's line, which is what is signed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its object's bytes.
    ///
    /// # Errors
    /// Never in practice.
    pub fn encode(&self) -> Result<Bytes, FormatError> {
        let signed = body::to_json("certificate", &Signed { key: self.key, signature: self.signature })?;
        Ok([self.text.as_bytes(), b"\n", &signed, b"\n"].concat().into())
    }

    /// Reads one. Its signature was not looked at: [`standing`](Self::standing) does.
    ///
    /// # Errors
    /// [`FormatError`] when the bytes are none, or not exactly those that a writer makes of what they say.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let wrong = |why: &str| FormatError::Body { what: "certificate", why: why.to_owned() };
        let surplus = (bytes.len() as u64).saturating_sub(CERTIFICATE_BYTES);
        if surplus > 0 {
            return Err(FormatError::Surplus { surplus });
        }
        let text = std::str::from_utf8(bytes).map_err(|_| wrong("it is no text"))?;
        let (statement, signed) = text.split_once('\n').ok_or_else(|| wrong("it has not two lines"))?;
        let begin = format!("{{\"certificate\":\"{SCHEMA}\",");
        if !statement.starts_with(&begin) {
            return Err(wrong("its first line is no statement of this version"));
        }
        let said: DrillStatement = body::from_json("certificate", statement.as_bytes())?;
        let Signed { key, signature } = body::from_json("certificate", signed.as_bytes())?;
        let read = Self { text: statement.to_owned(), said, key, signature };
        match *read.encode()? == *bytes {
            true => Ok(read),
            false => Err(FormatError::Field { field: "certificate" }),
        }
    }

    /// One of its parts, as a catalog keeps them. Its signature was not looked at.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    pub fn of_parts(statement: &str, key: VerifyKey, signature: Signature) -> Result<Self, FormatError> {
        let signed = body::to_json("certificate", &Signed { key, signature })?;
        Self::decode(&[statement.as_bytes(), b"\n", &signed, b"\n"].concat())
    }

    /// What its signature is worth where these keys are pinned.
    pub fn standing(&self, pinned: &VerifyKeys) -> HeadStanding {
        if !self.key.signed(self.text.as_bytes(), &self.signature) {
            return HeadStanding::Broken;
        }
        if pinned.contains(&self.key) { HeadStanding::Pinned } else { HeadStanding::UnknownKey }
    }
}

/// A statement as its line.
///
/// # Errors
/// Never in practice: every statement is text.
pub fn statement_text(said: &DrillStatement) -> Result<String, FormatError> {
    let bytes = body::to_json("certificate", said)?;
    String::from_utf8(bytes)
        .map_err(|_| FormatError::Body { what: "certificate", why: "it is no text".to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn said() -> DrillStatement {
        let position = Position::new(Timeline::new(1), Offset::new(500));
        DrillStatement {
            certificate: SCHEMA.to_owned(),
            drill: DrillId::from_bytes([1; 16]),
            database: "orders".parse().unwrap(),
            engine: "sqlite".to_owned(),
            store: StoreId::from_bytes([2; 16]),
            incarnation: IncarnationId::from_bytes([3; 16]),
            incarnation_number: 0,
            node: "oslo-1".to_owned(),
            version: "0.1.0".to_owned(),
            machine: "Linux".to_owned(),
            began: "2026-11-27T02:30:00Z".to_owned(),
            ended: "2026-11-27T02:31:00Z".to_owned(),
            verdict: DrillVerdict::Passed,
            point: ChosenPoint { asked: "random".to_owned(), seed: Some(7), spans: Vec::new() },
            journal: Some(JournalEnd {
                chunk: Sequence::new(9),
                chain: ChainValue::from_bytes([4; 32]),
                position,
            }),
            target: None,
            failure: None,
            checks: vec![DrillCheck {
                name: "reads \"quoted\"\nand more".to_owned(),
                outcome: CheckOutcome::Passed,
                required: true,
                detail: String::new(),
            }],
            tables: Vec::new(),
            measured: Measured { plan_us: Some(1), ..Measured::default() },
            recovery_us: None,
            objective_us: Some(900_000_000),
            network: "none".to_owned(),
            removed: true,
        }
    }

    fn signed() -> (Certificate, VerifyKeys) {
        let (key, _) = SigningKey::mint().unwrap();
        (Certificate::sign(said(), &key).unwrap(), VerifyKeys::new(vec![key.public()]))
    }

    #[test]
    fn a_certificate_reads_back_and_counts_only_where_its_key_is_pinned() {
        let (certificate, pinned) = signed();
        let bytes = certificate.encode().unwrap();
        assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 2, "two lines whatever is in them");
        let read = Certificate::decode(&bytes).unwrap();
        assert_eq!(read, certificate);
        assert_eq!(read.standing(&pinned), HeadStanding::Pinned);
        assert_eq!(read.standing(&VerifyKeys::default()), HeadStanding::UnknownKey);
    }

    #[test]
    fn what_another_key_signed_in_its_name_is_broken() {
        let (certificate, pinned) = signed();
        let (other, _) = SigningKey::mint().unwrap();
        let forged = Certificate { key: certificate.key, ..Certificate::sign(said(), &other).unwrap() };
        let read = Certificate::decode(&forged.encode().unwrap()).unwrap();
        assert_eq!(read.standing(&pinned), HeadStanding::Broken);
    }

    proptest! {
        #[test]
        fn every_changed_byte_of_a_certificate_is_found(at: prop::sample::Index, flip in 1..=255u8) {
            let (certificate, pinned) = signed();
            let mut bytes = certificate.encode().unwrap().to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let counts = Certificate::decode(&bytes).is_ok_and(|read| read.standing(&pinned) == HeadStanding::Pinned);
            prop_assert!(!counts, "byte {} changed unseen", at);
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..900)) {
            let _ = Certificate::decode(&bytes);
        }
    }

    #[test]
    fn what_a_recovery_took_is_not_known_unless_it_came_to_its_end() {
        let all = Measured {
            plan_us: Some(1),
            fetch_us: Some(2),
            replay_us: Some(3),
            open_us: Some(4),
            check_us: Some(100),
            cleanup_us: Some(100),
        };
        assert_eq!(all.recovery_us(), Some(10));
        assert_eq!(Measured { open_us: None, ..all }.recovery_us(), None);
    }
}
