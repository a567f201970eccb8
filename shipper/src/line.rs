//! Reads of a journal what base backups ask: its end, its history, and where it has gaps.
//!
//! Gaps are found without reading the journal: a writer opens anew before it records one, so a gap stands directly behind an
//! opening, or behind the timeline's chunk that follows one (FORMAT.md section 2). The openings are found by galloping over
//! the generations, which never fall along the numbers. Log that expired is known by its runs, and is a gap like the others.

use farshore_engines::postgres::log::history::TimelineHistory;
use farshore_journal::backup;
use farshore_journal::format::{Header, Kind};
use farshore_journal::reader::Reader;
use farshore_journal::{JournalError, Sequence, Timeline};

use crate::base_due::{Due, Gap, Line, Needed};
use crate::error::ShipError;

/// Whether a base backup of this journal is due, and why; `None` too while the journal is empty.
///
/// # Errors
/// When the journal does not read.
pub async fn due(reader: &Reader, segment_bytes: u64) -> Result<Option<Due>, ShipError> {
    let mut backups = Vec::new();
    let mut oldest: Option<Sequence> = None;
    for id in backup::list(reader).await? {
        // One that does not read is no base; verify names it.
        let standing = match backup::standing(reader, id).await {
            Err(JournalError::Store(why)) if !why.is_not_found() => {
                return Err(JournalError::from(why).into());
            }
            Err(_) => continue,
            Ok(standing) => standing,
        };
        let Some(range) = &standing.complete else { continue };
        backups.push(Needed::from(range));
        let begun = standing.opening.next_sequence;
        oldest = Some(oldest.map_or(begun, |oldest| oldest.min(begun)));
    }
    let Some(line) = read(reader, segment_bytes, oldest.unwrap_or(Sequence::FIRST)).await? else {
        return Ok(None);
    };
    Ok(line.due(&backups))
}

/// Reads the line of a journal, with the gaps that lie behind the begin of the log segment in which chunk `from` begins; `None`
/// while the journal is empty.
///
/// # Errors
/// When the journal does not read.
pub async fn read(reader: &Reader, segment_bytes: u64, from: Sequence) -> Result<Option<Line>, ShipError> {
    let Some(last) = reader.last().await? else { return Ok(None) };
    let last = last.header();
    let first = reader.expected_header(Sequence::FIRST).await?;
    let Some(history) = history(reader, last).await? else { return Ok(None) };
    let from = reached_by(reader, from.min(last.number), segment_bytes, &history).await?;
    let mut gaps = gaps(reader, from.clone(), last).await?;
    // What expired is missing as what was lost is: no restore crosses it, so a backup before it is no base for now.
    let expired = reader.runs_begun_from(from.number).await?;
    gaps.extend(expired.iter().map(|run| Gap {
        timeline: run.header.timeline,
        start: run.header.start,
        end: run.header.end,
    }));
    let (begin, end) = (first.start, last.end_position());
    Ok(Some(Line { begin, end, last: last.number, history, gaps, segment_bytes }))
}

/// The history of the timeline that a journal ends on, with its last chunk's header; `None` where it was opened on a later timeline by someone who has not
/// recorded that timeline's history yet.
///
/// # Errors
/// When the journal does not read.
pub async fn history(reader: &Reader, last: &Header) -> Result<Option<TimelineHistory>, ShipError> {
    Ok(match reader.branch(last.timeline, last.number).await? {
        Some(body) => Some(TimelineHistory::parse(last.timeline, &body.history)?),
        None => (last.timeline == Timeline::new(1)).then(TimelineHistory::first),
    })
}

/// The first chunk that reaches into the log segment in which chunk `from` begins, along the line's timelines.
async fn reached_by(
    reader: &Reader,
    from: Sequence,
    segment_bytes: u64,
    history: &TimelineHistory,
) -> Result<Header, ShipError> {
    let segment = reader.searched_header(from).await?.start.segment_start(segment_bytes);
    let timeline = history.timeline_at(segment);
    let reaches = move |header: &Header| {
        header.timeline > timeline || (header.timeline == timeline && header.end > segment)
    };
    first_where(reader, Sequence::FIRST, from, reaches).await
}

/// The gaps among the chunks from `from` up to `last`, and perhaps one before them.
async fn gaps(reader: &Reader, from: Header, last: &Header) -> Result<Vec<Gap>, ShipError> {
    let mut found = Vec::new();
    // Asked about from the midst of a generation: from its begin, which is where its gap would be.
    let generation = from.generation;
    let mut opening =
        first_where(reader, Sequence::FIRST, from.number, |header| header.generation >= generation).await?;
    loop {
        let mut next = opening.number.next();
        while let Some(number) = next.filter(|number| *number <= last.number) {
            // One that expired was data.
            let chunk = reader.searched_header(number).await?;
            match chunk.kind {
                Kind::Timeline => next = number.next(),
                Kind::Gap => {
                    found.push(Gap { timeline: chunk.timeline, start: chunk.start, end: chunk.end });
                    break;
                }
                _ => break,
            }
        }
        if opening.generation >= last.generation {
            return Ok(found);
        }
        opening = following(reader, &opening, last).await?;
    }
}

/// The first chunk of a later generation than `opening`'s, up to `last`, which is of one.
async fn following(reader: &Reader, opening: &Header, last: &Header) -> Result<Header, ShipError> {
    // Of one that expired it is known where it ends: there may be one for each day of years.
    let mut low = opening.number.get();
    while let Some(run) = reader.expired_at(Sequence::new(low + 1), false).await?
        && let Some(behind) = run.name.last.next().filter(|behind| *behind <= last.number)
    {
        let header = reader.searched_header(behind).await?;
        if header.generation > opening.generation {
            return Ok(header);
        }
        low = behind.get();
    }
    // Generations are short when there are many of them: gallop from the last one's begin.
    let mut step = 1u64;
    loop {
        let at = low.saturating_add(step).min(last.number.get());
        let is_later = |header: &Header| header.generation > opening.generation;
        if is_later(&reader.searched_header(Sequence::new(at)).await?) {
            return first_where(reader, Sequence::new(low), Sequence::new(at), is_later).await;
        }
        (low, step) = (at, step.saturating_mul(2));
    }
}

/// The first chunk of `low..=high` for which `holds`, which is false and then true along the numbers; `high`'s when it holds for
/// none before.
async fn first_where(
    reader: &Reader,
    low: Sequence,
    high: Sequence,
    holds: impl Fn(&Header) -> bool + Send,
) -> Result<Header, ShipError> {
    let first = reader.first_in(low, high, holds).await?;
    Ok(reader.searched_header(first).await?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use farshore_journal::expiry::{self, Marking};
    use farshore_journal::format::Recipients;
    use farshore_journal::format::body::{GapBody, IncarnationRecord, TimelineBody};
    use farshore_journal::format::object::Compression;
    use farshore_journal::registry::{Founding, Repository};
    use farshore_journal::store::StoreError;
    use farshore_journal::store::memory::MemoryStore;
    use farshore_journal::writer::{Writer, WriterOptions, encode_data, encode_gap, encode_timeline};
    use farshore_journal::{Offset, Position};

    use super::*;
    use crate::base_due::Held;

    const SEGMENT: u64 = 1 << 20;

    fn quiet(_: &StoreError) {}

    struct Journal {
        repository: Repository,
        record: IncarnationRecord,
    }

    impl Journal {
        async fn new() -> Self {
            let now = "2026-11-25T00:00:00Z";
            let repository = Repository::open_or_found(Arc::new(MemoryStore::new()), now).await.unwrap();
            let founding = Founding {
                database: &"orders".parse().unwrap(),
                number: 0,
                engine: "postgres",
                identity: "7",
                major: 15,
                segment_bytes: SEGMENT,
                now,
                reason: "first",
            };
            let record = repository.found_incarnation(founding).await.unwrap();
            Self { repository, record }
        }

        fn reader(&self) -> Reader {
            Reader::new(&self.repository, &self.record).unwrap()
        }

        async fn open(&self) -> Writer {
            let options = WriterOptions {
                compression: Compression::None,
                recipients: Recipients::default(),
                segment_bytes: SEGMENT,
                host: "test".to_owned(),
            };
            let begin = Position::new(Timeline::new(1), Offset::new(SEGMENT));
            Writer::take_over(self.reader(), &options, begin, &quiet).await.unwrap()
        }

        async fn line(&self, from: u64) -> Line {
            read(&self.reader(), SEGMENT, Sequence::new(from)).await.unwrap().unwrap()
        }
    }

    async fn data(writer: &mut Writer, chunks: usize) {
        for _ in 0..chunks {
            let (chunk, _) = encode_data(writer.place(), &[7; 100]).unwrap();
            writer.append(&chunk, &quiet).await.unwrap();
        }
    }

    async fn gap(writer: &mut Writer, bytes: u64) -> Gap {
        let start = writer.stored();
        let end = start.offset.checked_add(bytes).unwrap();
        let body = GapBody { reason: "gone".to_owned() };
        let (chunk, _) = encode_gap(writer.place(), end, &body).unwrap();
        writer.append(&chunk, &quiet).await.unwrap();
        Gap { timeline: start.timeline, start: start.offset, end }
    }

    #[tokio::test]
    async fn every_gap_behind_a_chunk_is_found_however_many_chunks_and_openings_follow() {
        let journal = Journal::new().await;
        let mut writer = journal.open().await;
        data(&mut writer, 5).await;
        assert_eq!(journal.line(0).await.gaps, []);
        let mut writer = journal.open().await;
        let first = gap(&mut writer, 2 * SEGMENT).await;
        data(&mut writer, 40).await;
        for chunks in [0, 1, 17] {
            data(&mut journal.open().await, chunks).await;
        }
        // A gap up to a fork, and a journal that goes on with another timeline.
        let mut writer = journal.open().await;
        let second = gap(&mut writer, 3 * SEGMENT).await;
        let fork = writer.stored();
        let history = format!("1\t{}\tx\n", fork.offset).into_bytes();
        let body = TimelineBody { parent: Timeline::new(1), parent_end: fork.offset, history };
        let branch = Position::new(Timeline::new(2), fork.offset);
        let (chunk, _) = encode_timeline(writer.place(), branch, &body).unwrap();
        writer.append(&chunk, &quiet).await.unwrap();
        data(&mut writer, 30).await;
        data(&mut journal.open().await, 2).await;
        // One behind a timeline's chunk, as a journal that begins on a later timeline has it.
        let mut writer = journal.open().await;
        let branch = Position::new(Timeline::new(3), writer.stored().offset);
        let history = format!("1\t{}\tx\n2\t{}\ty\n", fork.offset, branch.offset).into_bytes();
        let body = TimelineBody { parent: Timeline::new(2), parent_end: branch.offset, history };
        let (chunk, _) = encode_timeline(writer.place(), branch, &body).unwrap();
        writer.append(&chunk, &quiet).await.unwrap();
        let third = gap(&mut writer, 2 * SEGMENT).await;
        data(&mut writer, 3).await;

        let line = journal.line(0).await;
        assert_eq!(line.gaps, [first, second, third]);
        assert_eq!((line.end, line.begin), (writer.stored(), Offset::new(SEGMENT)));
        // Asked from behind a gap that ends in the same log segment, that gap is told: the segment's head is in it.
        assert_eq!(journal.line(9).await.gaps, [first, second, third]);
        // Openings, gaps, a timeline's chunk, and one of data.
        let behind_second = (1 + 5) + (1 + 1 + 40) + (3 + 18) + (1 + 1 + 1) + 1;
        assert_eq!(journal.line(behind_second).await.gaps, [second, third]);
        let last = journal.reader().last().await.unwrap().unwrap().header().number;
        assert_eq!(journal.line(last.get()).await.gaps, [third]);
        assert_eq!(journal.line(last.get() + 1).await.gaps, [third], "a number that is not there yet");
    }

    /// A base that a hold keeps from before what expired must not stand for the bases behind it, when those are gone.
    #[tokio::test]
    async fn log_that_expired_is_a_gap_and_a_backup_before_it_is_no_base_for_now() {
        let journal = Journal::new().await;
        data(&mut journal.open().await, 5).await;
        let mut writer = journal.open().await;
        let start = writer.stored().offset;
        data(&mut writer, 4).await;
        let missing = Gap { timeline: Timeline::new(1), start, end: writer.stored().offset };
        let mut writer = journal.open().await;
        let (chunk, _) = encode_data(writer.place(), &vec![7; usize::try_from(SEGMENT).unwrap()]).unwrap();
        writer.append(&chunk, &quiet).await.unwrap();
        data(&mut writer, 3).await;
        let needed = |start: u64, end: u64| Needed {
            timeline: Timeline::new(1),
            start: Offset::new(start),
            end: Offset::new(end),
        };
        let held = needed(SEGMENT, SEGMENT + 200);
        let newer = needed(2 * SEGMENT, writer.stored().offset.get());

        let reader = journal.reader();
        let marking =
            Marking { host: "test".to_owned(), at: chrono::Utc::now(), reason: "not kept".to_owned() };
        let within = (Sequence::new(7), Sequence::new(10));
        let run = expiry::mark_run(&reader, within, &marking).await.unwrap();
        let line = journal.line(0).await;
        assert_eq!((line.gaps.as_slice(), line.due(&[held])), (&[][..], None), "nothing of it went");
        let left = expiry::Leftovers::list(&reader, (run.name.first, run.name.last)).await.unwrap();
        expiry::delete_run(&reader, &run, &left, &|| true).await.unwrap();
        let line = journal.line(0).await;
        assert_eq!(line.gaps, [missing]);
        assert_eq!(line.due(&[held]), Some(Due::BehindGap(missing)));
        assert_eq!(line.due(&[held, newer]), None);
        // Whoever asks from behind it is not told of it.
        assert_eq!(journal.line(13).await.gaps, []);
    }

    #[tokio::test]
    async fn a_backup_whose_log_has_a_gap_is_no_backup() {
        let journal = Journal::new().await;
        data(&mut journal.open().await, 3).await;
        let begun = journal.reader().last().await.unwrap().unwrap().header().number.next().unwrap();
        let needed = |start: Offset, end: Offset| Needed { timeline: Timeline::new(1), start, end };
        let mut writer = journal.open().await;
        let start = writer.stored().offset;
        let missing = gap(&mut writer, 2 * SEGMENT).await;
        data(&mut writer, 3).await;
        let line = journal.line(begun.get()).await;
        let held = line.holds(needed(start, writer.stored().offset));
        assert_eq!(held, Held::Never(crate::base_due::Never::Gap(missing)));
        assert_eq!(due(&journal.reader(), SEGMENT).await.unwrap(), Some(Due::None));
    }
}
