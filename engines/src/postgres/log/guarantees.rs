//! What the decoders guarantee, on log made by hand.

use farshore_journal::{Offset, Position, Timeline};
use proptest::prelude::*;

use super::handmade::{Handmade, decode, events, main, meanings, seen, shape};
use super::shape::PAGE_BYTES;
use super::{EndOfLog, FileProgress, LogDecoder, LogError, LogFileDecoder, PageFault, RecordFault};
use crate::event::{Happened, LogEvent};

/// A log with all that can happen between pages: records over one and several pages, a head cut by a page's end, a
/// record that ends with its page, an unfinished record, a switch, a second segment.
fn varied(major: u32) -> Handmade {
    let mut log = Handmade::new(major);
    log.commit(701);
    log.leave(8);
    log.commit(702); // its head goes over the page's end
    log.leave(0);
    log.commit(703);
    log.filler(3 * PAGE_BYTES as usize); // over several pages
    log.filler(5); // padded
    log.leave(48);
    log.abandon(None);
    log.commit(704);
    log.switch();
    log.commit(705);
    log
}

fn page_fault(result: Result<(), LogError>) -> (u64, PageFault) {
    match result {
        Err(LogError::Page { at, fault, .. }) => (at.get(), fault),
        other => panic!("{other:?}"),
    }
}

fn record_fault(result: Result<(), LogError>) -> (u64, RecordFault) {
    match result {
        Err(LogError::Record { start, fault }) => (start.get(), fault),
        other => panic!("{other:?}"),
    }
}

#[test]
fn decoder_tells_every_record_of_every_major() {
    for major in 14..=18 {
        let log = varied(major);
        let mut decoder = log.decoder();
        let (events, result) = decode(&mut decoder, &log.bytes, &[]);
        result.unwrap();
        assert_eq!(seen(&events), log.records);
        let commits = meanings(&events).iter().filter(|w| matches!(w, Happened::Commit(_))).count();
        assert_eq!(commits, 5);
        let (start, end) = *log.records.last().unwrap();
        assert_eq!(decoder.last_record_start(), Some(Offset::new(start)));
        assert_eq!(decoder.checked_end(), Some(Offset::new(end)));
        assert_eq!(decoder.whole_from(), Some(Offset::new(log.records[0].0)));
    }
}

#[test]
fn checked_end_never_passes_the_bytes_that_came() {
    let log = varied(16);
    let mut decoder = log.decoder();
    let mut ends = 0;
    for (index, byte) in log.bytes.iter().enumerate() {
        let mut told = Vec::new();
        decoder.push(&[*byte], &mut |event: LogEvent| told.push(event.end.get())).unwrap();
        let received = log.start + index as u64 + 1;
        assert!(decoder.checked_end().is_none_or(|end| end.get() <= received));
        assert!(told.iter().all(|end| *end == received), "an event is told as soon as its record is there");
        ends += usize::from(!told.is_empty());
    }
    assert_eq!(ends, log.records.len());
}

#[test]
fn decoder_started_within_a_record_begins_at_the_next_one() {
    let log = varied(15);
    for page in 1..4 {
        let at = log.start + page * PAGE_BYTES;
        let start = Position::new(Timeline::new(1), Offset::new(at));
        let mut decoder = LogDecoder::new(log.shape, start).unwrap().with_every_record();
        let (events, result) = decode(&mut decoder, log.from(at), &[]);
        result.unwrap();
        let expected: Vec<_> = log.records.iter().copied().filter(|r| r.0 >= at).collect();
        assert_eq!(seen(&events), expected);
        assert_eq!(decoder.whole_from().map(Offset::get), Some(expected[0].0));
    }
}

#[test]
fn decoder_can_start_at_every_record_and_page_and_nowhere_else() {
    let log = varied(17);
    for (start, _) in &log.records {
        let at = Position::new(Timeline::new(1), Offset::new(*start));
        let mut decoder = LogDecoder::new(log.shape, at).unwrap().with_every_record();
        let (events, result) = decode(&mut decoder, log.from(*start), &[]);
        result.unwrap();
        assert_eq!(seen(&events)[0].0, *start);
    }
    for offset in [1, 8, 16, 32, (1 << 20) + 24, PAGE_BYTES + 8, PAGE_BYTES + 20, 1 << 63, u64::MAX - 7] {
        let start = Position::new(Timeline::new(1), Offset::new(offset));
        let result = LogDecoder::new(log.shape, start);
        assert!(matches!(result, Err(LogError::Start { .. })), "{offset}");
    }
}

#[test]
fn decoder_refuses_pages_of_another_version_cluster_or_shape() {
    let log = varied(16);
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = log.bytes.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        let live = decode(&mut log.decoder(), &changed, &[]).1.unwrap_err();
        let file = LogFileDecoder::from(log.decoder()).push(&changed, &mut |_| {}).unwrap_err();
        assert_eq!(live, file, "no unused tail explains it");
        page_fault(Err(live))
    };
    let at = log.start;
    let magic = |found| (at, PageFault::Magic { found, expected: 0xD113 });
    assert_eq!(with(0, &0xD118u16.to_le_bytes()), magic(0xD118));
    assert_eq!(with(0, &0xD119u16.to_le_bytes()), magic(0xD119));
    assert!(matches!(with(24, &[9]), (_, PageFault::SystemIdentifier { .. })));
    assert!(
        matches!(with(32, &(16u32 << 20).to_le_bytes()), (_, PageFault::SegmentSize { found, .. }) if found == 16 << 20)
    );
    assert!(matches!(with(36, &32768u32.to_le_bytes()), (_, PageFault::PageSize { found: 32768 })));
    let later = with(PAGE_BYTES as usize + 4, &2u32.to_le_bytes());
    assert!(matches!(later, (_, PageFault::Timeline { .. })), "{later:?}");
}

#[test]
fn decoder_refuses_pages_that_do_not_belong_there() {
    let log = varied(14);
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = log.bytes.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        page_fault(decode(&mut log.decoder(), &changed, &[]).1).1
    };
    let page = PAGE_BYTES as usize;
    assert!(matches!(with(page + 2, &[0]), PageFault::Remaining { .. }), "the record goes on");
    assert!(matches!(with(page + 2, &[0x11]), PageFault::Flags { .. }));
    assert!(matches!(with(page + 2, &[0x03]), PageFault::Flags { .. }));
    assert!(matches!(with(page + 2, &[0x09]), PageFault::Flags { .. }));
    assert!(matches!(with(2, &[0]), PageFault::Flags { .. }), "a segment begins with a long head");
    assert!(matches!(with(page + 8, &[1]), PageFault::Address { .. }));
    assert!(matches!(with(page + 16, &[1]), PageFault::Remaining { .. }));
    assert!(matches!(with(page, &[0; 24]), PageFault::Zeroed));
    assert_eq!(
        with(2 * page + 2, &[8]),
        PageFault::NothingAbandoned,
        "the record before ended with its page"
    );
}

#[test]
fn decoder_takes_older_timelines_before_newer_ones_and_never_after() {
    let mut log = Handmade::new(17);
    log.filler(2 * PAGE_BYTES as usize);
    log.timeline = 3;
    log.filler(2 * PAGE_BYTES as usize);
    events(&log);
    let mut back = Handmade::new(17);
    back.timeline = 3;
    back.filler(2 * PAGE_BYTES as usize);
    let start = back.position();
    back.timeline = 2;
    back.filler(PAGE_BYTES as usize);
    let mut decoder = LogDecoder::new(back.shape, start).unwrap();
    let (at, fault) = page_fault(decode(&mut decoder, &back.bytes, &[]).1);
    let (found, lowest, highest) = (Timeline::new(2), Timeline::new(3), Timeline::new(3));
    assert_eq!(fault, PageFault::Timeline { found, lowest, highest });
    assert_eq!(at, back.start + 3 * PAGE_BYTES);
}

#[test]
fn records_of_two_histories_are_not_taken_for_one() {
    // The same segment was written twice, before a crash and after it, with different last records; the next segment
    // follows one of them only. Each file by itself is whole.
    let segment = |bytes: usize| {
        let mut log = Handmade::new(16);
        log.commit(701);
        log.filler(bytes);
        log.switch();
        log
    };
    let (before, after) = (segment(100), segment(200));
    let mut next = Handmade::at(16, 1, after.end(), after.previous);
    next.commit(702);
    let follow = |first: &Handmade| {
        let mut decoder = first.decoder();
        decode(&mut decoder, &first.bytes, &[]).1.unwrap();
        decode(&mut decoder, &next.bytes, &[]).1
    };
    follow(&after).unwrap();
    let (start, fault) = record_fault(follow(&before));
    assert_eq!(start, next.records[0].0);
    assert!(matches!(fault, RecordFault::PreviousLink { .. }), "{fault:?}");
    // The same, with the two files read by two decoders.
    for (first, right) in [(&after, true), (&before, false)] {
        let mut decoder = next.decoder().with_previous_record(Offset::new(first.previous));
        assert_eq!(decode(&mut decoder, &next.bytes, &[]).1.is_ok(), right);
    }
}

#[test]
fn an_unfinished_record_is_dropped_only_for_the_record_that_names_it() {
    let mut log = Handmade::new(18);
    log.commit(701);
    log.leave(48);
    let abandoned = log.abandon(None);
    log.commit(702);
    let told = events(&log);
    assert_eq!(seen(&told), log.records);
    let named = meanings(&told).into_iter().find_map(|w| match w {
        Happened::Abandoned { abandoned, .. } => Some(abandoned.get()),
        _ => None,
    });
    assert_eq!(named, Some(abandoned));

    let mut wrong = Handmade::new(18);
    wrong.commit(701);
    wrong.leave(48);
    wrong.abandon(Some(8));
    let (_, fault) = record_fault(decode(&mut wrong.decoder(), &wrong.bytes, &[]).1);
    let (expected, found) = (Some(Offset::new(abandoned)), Some(Offset::new(8)));
    assert_eq!(fault, RecordFault::Abandoned { expected, found });

    let mut silent = Handmade::new(18);
    silent.page(8, 0);
    silent.commit(701);
    let (_, fault) = record_fault(decode(&mut silent.decoder(), &silent.bytes, &[]).1);
    assert_eq!(fault, RecordFault::Abandoned { expected: None, found: None });

    let mut unasked = Handmade::new(18);
    unasked.commit(701);
    unasked.record(0, 0xD0, 0, &[0; 16]);
    let (_, fault) = record_fault(decode(&mut unasked.decoder(), &unasked.bytes, &[]).1);
    assert_eq!(fault, RecordFault::Abandoned { expected: None, found: Some(Offset::new(0)) });
}

#[test]
fn after_a_switch_the_rest_of_the_segment_counts_once_it_came() {
    let mut log = Handmade::new(15);
    log.commit(701);
    let (_, end) = log.switch();
    let rest = (end - log.start) as usize;
    let mut decoder = log.decoder();
    decode(&mut decoder, &log.bytes[..rest], &[]).1.unwrap();
    assert_eq!(decoder.checked_end(), Some(Offset::new(end)));
    decode(&mut decoder, &log.bytes[rest..log.bytes.len() - 1], &[]).1.unwrap();
    assert_eq!(decoder.checked_end(), Some(Offset::new(end)));
    decode(&mut decoder, &log.bytes[log.bytes.len() - 1..], &[]).1.unwrap();
    assert_eq!(decoder.checked_end(), Some(Offset::new(log.end())));
}

#[test]
fn a_claimed_length_reserves_no_memory() {
    let mut log = Handmade::new(16);
    log.commit(701);
    let mut bytes = log.bytes.clone();
    let mut head = log.encode(1, 0, 702, &[]);
    head[..4].copy_from_slice(&(1020u32 << 20).to_le_bytes());
    bytes.extend(&head);
    let mut decoder = log.decoder();
    decode(&mut decoder, &bytes, &[]).1.unwrap();
    assert!(decoder.kept_bytes() < 1024);
    for length in [(1020u32 << 20) + 1, u32::MAX, 23, 1] {
        let at = bytes.len() - 24;
        bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
        let (_, fault) = record_fault(decode(&mut log.decoder(), &bytes, &[]).1);
        assert_eq!(fault, RecordFault::Length { found: length });
    }
}

#[test]
fn a_commit_with_bytes_left_over_is_an_unknown_layout() {
    for data in [&[0; 9][..], &[0; 12], &[0; 7]] {
        let mut log = Handmade::new(16);
        log.record(1, 0, 701, data);
        let error = decode(&mut log.decoder(), &log.bytes, &[]).1.unwrap_err();
        assert!(matches!(error, LogError::UnknownLayout { resource_manager: 1, info: 0, .. }), "{error}");
        let file = LogFileDecoder::from(log.decoder()).push(&log.bytes, &mut |_| {});
        assert_eq!(file, Err(error), "it is no unused tail: its checksum is right");
    }
    let mut log = Handmade::new(16);
    log.record(0, 0xF0, 0, &[]);
    let error = decode(&mut log.decoder(), &log.bytes, &[]).1.unwrap_err();
    assert!(error.to_string().contains("no such record"), "{error}");
    let mut log = Handmade::new(14);
    log.raw(200, 0, 0, &main(&[]));
    let (_, fault) = record_fault(decode(&mut log.decoder(), &log.bytes, &[]).1);
    assert_eq!(fault, RecordFault::ResourceManager { found: 200 });
}

#[test]
fn a_failed_decoder_stays_failed() {
    let log = varied(16);
    let mut decoder = log.decoder();
    let mut bytes = log.bytes.clone();
    bytes[60] ^= 1;
    let first = decoder.push(&bytes, &mut |_| {}).unwrap_err();
    assert_eq!(decoder.push(&log.bytes, &mut |_| {}), Err(first));
}

/// The end of the log in a file whose tail is this.
fn end_of(log: &Handmade, tail: &[u8]) -> EndOfLog {
    let mut decoder = LogFileDecoder::from(log.decoder());
    let mut bytes = log.bytes.clone();
    bytes.extend(tail);
    let progress = decoder.push(&bytes, &mut |_| {}).unwrap();
    let end = decoder.finish();
    assert!(matches!(progress, FileProgress::GoesOn) == end.why.is_none());
    end
}

#[test]
fn an_unused_tail_ends_a_file_and_breaks_a_stream() {
    let mut log = Handmade::new(16);
    log.commit(701);
    log.filler(9000);
    let at = Some(Offset::new(log.end()));
    let mut longer = Handmade::new(16);
    longer.commit(701);
    longer.filler(9000);
    longer.filler(20_000);
    let next = &longer.bytes[log.bytes.len()..];

    let mut torn = next.to_vec();
    torn[100] ^= 4;
    let mut old_page = next.to_vec();
    let page = (log.end().next_multiple_of(PAGE_BYTES) - log.end()) as usize;
    old_page[page + 8 + 3] ^= 0x10;
    let mut zeroed_page = next.to_vec();
    zeroed_page[page..].fill(0);
    let mut other_link = next.to_vec();
    other_link[8] ^= 8;
    for tail in [vec![0; 4096], torn, old_page, zeroed_page, other_link, vec![0xFF; 64]] {
        let end = end_of(&log, &tail);
        assert_eq!(end.at, at);
        let why = end.why.unwrap();
        let (_, live) = decode(&mut log.decoder(), &[log.bytes.clone(), tail].concat(), &[]);
        assert_eq!(live, Err(why));
    }
    assert_eq!(end_of(&log, &[]), EndOfLog { at, why: None });
    assert_eq!(
        end_of(&log, &next[..next.len() / 2]),
        EndOfLog { at, why: None },
        "a partial file's verified prefix"
    );
}

#[test]
fn a_file_cut_short_amid_others_ends_the_log_before_what_was_promised() {
    let mut log = Handmade::new(17);
    while log.end() < log.start + (3 << 20) {
        log.filler(5000);
    }
    let promised = log.end();
    let cut = (1 << 20) + 777_777;
    let mut bytes = log.bytes.clone();
    bytes.drain(cut..2 << 20);
    let mut decoder = LogFileDecoder::from(log.decoder());
    let progress = decoder.push(&bytes, &mut |_| {}).unwrap();
    let FileProgress::Ended(end) = progress else { panic!("{progress:?}") };
    assert!(end.at.unwrap().get() <= log.start + cut as u64);
    assert!(end.at.unwrap().get() < promised);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn the_same_bytes_give_the_same_events_however_they_are_cut(
        major in 14u32..=18,
        mut cuts in proptest::collection::vec(0usize..1_100_000, 0..40),
        flip in proptest::option::of((0usize..90_000, 0u8..8)),
    ) {
        let log = varied(major);
        let mut bytes = log.bytes.clone();
        if let Some((at, bit)) = flip {
            bytes[at] ^= 1 << bit;
        }
        cuts.sort_unstable();
        let (mut whole, mut pieces) = (log.decoder(), log.decoder());
        let expected = decode(&mut whole, &bytes, &[]);
        prop_assert_eq!(&decode(&mut pieces, &bytes, &cuts), &expected);
        prop_assert_eq!(whole.checked_end(), pieces.checked_end());
        let narrow: Vec<usize> = (0..100_000).collect();
        prop_assert_eq!(&decode(&mut log.decoder(), &bytes, &narrow), &expected);
    }

    #[test]
    fn a_flipped_bit_anywhere_in_a_record_is_detected(
        which in 0usize..12, byte in 0usize..30_000, bit in 0u8..8,
    ) {
        let log = varied(16);
        let (start, end) = log.records[which % log.records.len()];
        // Bytes that round a record up carry nothing and are not covered by its checksum, and neither are page heads'.
        let total = {
            let at = (start - log.start) as usize;
            u32::from_le_bytes(log.bytes[at..at + 4].try_into().unwrap()) as usize
        };
        let mut own = Vec::new();
        let mut at = start;
        while own.len() < total {
            if at.is_multiple_of(PAGE_BYTES) {
                at += if at.is_multiple_of(1 << 20) { 40 } else { 24 };
            }
            own.push((at - log.start) as usize);
            at += 1;
        }
        prop_assert!(at <= end);
        let mut bytes = log.bytes.clone();
        bytes[own[byte % own.len()]] ^= 1 << bit;
        let mut decoder = log.decoder();
        let (told, result) = decode(&mut decoder, &bytes, &[]);
        // A length that grew makes the record swallow what follows; then it is not told, and its checksum or the
        // next page's head refuses it as soon as those bytes are there.
        prop_assert!(result.is_err() || decoder.checked_end().is_none_or(|e| e.get() <= start));
        prop_assert!(seen(&told).iter().all(|r| r.0 < start));
    }

    #[test]
    fn hostile_bytes_never_panic_and_stay_bounded(
        major in 14u32..=18,
        at in 0u64..8,
        noise in proptest::collection::vec(any::<u8>(), 0..20_000),
        mend: bool,
    ) {
        let start = Position::new(Timeline::new(7), Offset::new(at * PAGE_BYTES));
        let mut decoder = LogDecoder::new(shape(major), start).unwrap();
        let mut bytes = noise.clone();
        if mend {
            // With a right page head the noise reaches the record parser.
            let mut head = Handmade::at(major, 7, at * PAGE_BYTES, 0);
            head.page(0, 0);
            bytes = [head.bytes, noise].concat();
        }
        let _ = decoder.push(&bytes, &mut |_| {});
        prop_assert!(decoder.kept_bytes() <= 2 * bytes.len() + 64);
    }

    #[test]
    fn hostile_records_with_right_checksums_never_panic(
        major in 14u32..=18, manager in 0u8..2, info: u8, transaction: u32,
        data in proptest::collection::vec(any::<u8>(), 0..400), raw: bool,
    ) {
        let mut log = Handmade::new(major);
        if raw {
            log.raw(manager, info, transaction, &data);
        } else {
            log.record(manager, info, transaction, &data);
        }
        let _ = decode(&mut log.decoder(), &log.bytes, &[]);
    }
}
