//! Lines of a store's lives: what leads to the end of each, and which one is gone on from. Pure.
//!
//! What always holds: a line's digests follow each other from its beginning to its end; what does not hold is named, and nothing behind it is on the line. Which line
//! is gone on from is decided by how much leads to it unbroken, never by a number or a clock alone: whoever may write to a store can write those.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use farshore_catalog::chronicle::Former;
use farshore_journal::chronicle::Flaw;
use farshore_journal::format::page::PAGE_NUMBERS;
use farshore_journal::format::{EntryDigest, LifeId, Page};

use super::found::Found;

/// From a number behind this nothing is gone on: a record does not get there, and what is written behind it could not be read any more at [`PAGE_NUMBERS`].
const FARTHEST: u64 = PAGE_NUMBERS / 2;

/// What leads to the end of a life.
#[derive(Debug, Clone)]
pub struct Line {
    /// The life.
    pub life: LifeId,
    /// The number that it begins with: 1, unless its beginning is lost.
    pub begins: u64,
    /// The digest of the entry before that one.
    pub before: Option<EntryDigest>,
    /// The number of its end.
    pub last: u64,
    /// That entry's digest.
    pub digest: EntryDigest,
    /// Entries that are sealed and were not opened.
    pub sealed: u64,
    /// The spans of those that were, by rising number.
    read: Vec<(u64, u64)>,
    /// The digests that are known, by rising number: each entry's that was opened, and of what was not the last of each page.
    pub marks: Vec<(u64, EntryDigest)>,
    /// Those of these numbers that nobody knows without a private key: no life that begins behind one of them is linked to this line.
    pub hidden: BTreeSet<u64>,
    /// Entries before its beginning that are in no life of this store: never brought here, or deleted.
    pub lost: Option<Flaw>,
    /// What speaks against its pages.
    pub flaws: Vec<Flaw>,
    /// The lives that it is made of, the oldest first, each with the number up to which it counts.
    path: Vec<(LifeId, u64)>,
}

impl Line {
    /// All that speaks against it, what it lacks before its beginning included.
    pub fn all_flaws(&self) -> Vec<String> {
        self.lost.iter().chain(&self.flaws).map(ToString::to_string).collect()
    }

    /// Whether it has an entry, or goes on from it.
    fn goes_on_from(&self, (number, digest): (u64, EntryDigest)) -> bool {
        if number + 1 == self.begins {
            return self.before == Some(digest);
        }
        let at = self.marks.binary_search_by_key(&number, |(number, _)| *number);
        at.is_ok_and(|at| self.marks[at].1 == digest)
    }
}

impl Found {
    /// What leads to the end of a life; `None` where nothing of it counts.
    pub fn line(&self, life: LifeId) -> Option<Line> {
        self.strands.get(&life)?.end()?;
        let (path, lost) = self.tree.path(&self.strands, life);
        let (mut sealed, mut flaws, mut beginning) = (0, Vec::new(), None::<(u64, Option<EntryDigest>)>);
        let (mut marks, mut hidden, mut read) = (Vec::new(), BTreeSet::new(), Vec::new());
        for (life, through) in &path {
            let Some(strand) = self.strands.get(life) else { continue };
            flaws.extend(strand.flaws.iter().filter(|flaw| begins(flaw) <= *through).cloned());
            for page in strand.pages.iter().filter(|page| page.place().first <= *through) {
                let first = page.place().first;
                match self.opened.get(&(*life, first)) {
                    Some(kept) => {
                        read.push((first, page.last().min(*through)));
                        for entry in kept.iter().filter(|entry| entry.number <= *through) {
                            if page.is_sealed() && entry.number != page.last() {
                                hidden.insert(entry.number);
                            }
                            marks.push((entry.number, entry.digest));
                        }
                    }
                    // Of a page that is not opened the last digest alone is known; a life that branches from its midst is in no path.
                    None => {
                        sealed += page.last().min(*through) + 1 - first;
                        marks.push((page.last(), page.after()));
                    }
                }
                beginning.get_or_insert((first, page.place().before));
            }
        }
        let ((last, digest), (begins, before)) = (marks.last().copied()?, beginning?);
        let (read, _) = united(read);
        Some(Line { life, begins, before, last, digest, sealed, read, marks, hidden, lost, flaws, path })
    }

    /// What a catalog takes back of a line: its end, and the entries that were opened.
    pub fn former(&self, line: &Line) -> Former {
        let mut entries = Vec::new();
        for (life, page, through) in self.pages(line) {
            let kept = self.opened.get(&(life, page.place().first)).into_iter().flatten();
            entries.extend(kept.filter(|entry| entry.number <= through).cloned());
        }
        let written = self.newest.get(&line.life).copied().unwrap_or_default();
        let (last, digest, marks) = (line.last, line.digest, line.marks.clone());
        Former { last, digest, entries, marks, written }
    }

    /// The pages of a line, each with its life and the number up to which it counts.
    pub(super) fn pages<'a>(&'a self, line: &'a Line) -> impl Iterator<Item = (LifeId, &'a Page, u64)> {
        line.path.iter().flat_map(|(life, through)| {
            let pages = self.strands.get(life).into_iter().flat_map(|strand| &strand.pages);
            pages.filter(|page| page.place().first <= *through).map(|page| (*life, page, *through))
        })
    }

    /// How many pages of a line up to a number were not opened, and no pinned key vouches for: what they hold is what they state, whoever put them.
    pub fn doubtful(&self, line: &Line, through: u64, vouched: &BTreeMap<LifeId, u64>) -> usize {
        let is_doubtful = |(life, page, _): &(LifeId, &Page, u64)| {
            let first = page.place().first;
            let is_vouched = vouched.get(life).is_some_and(|vouched| first <= *vouched);
            first <= through && !is_vouched && !self.opened.contains_key(&(*life, first))
        };
        self.pages(line).filter(is_doubtful).count()
    }

    /// The page of a line that has an entry: its life and first number.
    pub fn page_of(&self, line: &Line, number: u64) -> Option<(LifeId, u64)> {
        let has = |(_, page, through): &(LifeId, &Page, u64)| {
            (page.place().first..=page.last().min(*through)).contains(&number)
        };
        self.pages(line).find(has).map(|(life, page, _)| (life, page.place().first))
    }

    /// The life to go on from, among these: the end of the line that the most leads to. The others stay where they are.
    pub fn leaf(&self, among: &BTreeSet<LifeId>) -> Option<LifeId> {
        let lines = among.iter().filter_map(|life| self.line(*life));
        let mut lines: Vec<Line> = lines.filter(|line| line.last < FARTHEST).collect();
        // Where nothing else differs the store's clock decides.
        lines.sort_by_key(|line| Reverse(self.newest.get(&line.life).copied()));
        let best = longest(&lines.iter().collect::<Vec<_>>())?;
        Some(lines[best].life)
    }

    /// The entry from which on a life leads to one of this number and digest; `None` where none does. Of one in the midst of a page that does not open that cannot
    /// be told, and is not denied.
    pub fn leads_to(&self, (number, digest): (u64, EntryDigest)) -> Option<u64> {
        let leads = |life: &LifeId| {
            let line = self.line(*life)?;
            let at = line.marks.partition_point(|(mark, _)| *mark < number);
            let there = match line.marks.get(at) {
                Some((mark, there)) if *mark == number => *there == digest,
                Some(_) => number >= line.begins,
                None => false,
            };
            there.then_some(line.begins)
        };
        self.strands.keys().filter_map(leads).min()
    }
}

/// Which of some lines, of one store or of several, is gone on from: the one of which the most entries were read, and where that decides nothing the one that the most
/// lead to without a break; those of the others that it goes on from are counted with it, so that of lines that agree the furthest is taken. What a page only states
/// counts after what was read: anybody can state any number of entries.
pub fn longest(lines: &[&Line]) -> Option<usize> {
    let mut rising: Vec<usize> = (0..lines.len()).collect();
    rising.sort_by_key(|at| (lines[*at].last, Reverse(*at)));
    let mut covers = vec![Cover::default(); lines.len()];
    let mut best = None;
    for (known, at) in rising.iter().copied().enumerate() {
        let line = lines[at];
        let mut cover = Cover { read: line.read.clone(), stated: vec![(line.begins, line.last)] };
        for other in rising[..known].iter().copied() {
            if line.goes_on_from((lines[other].last, lines[other].digest)) {
                cover.read.extend(&covers[other].read);
                cover.stated.extend(&covers[other].stated);
            }
        }
        let (read, _) = united(cover.read);
        let (stated, many) = united(cover.stated);
        let seen: u64 = read.iter().map(|(first, last)| last + 1 - first).sum();
        covers[at] = Cover { read, stated };
        let rank = (seen, many, line.last, Reverse(line.sealed), Reverse(line.begins), Reverse(at));
        if best.is_none_or(|(other, _)| rank > other) {
            best = Some((rank, at));
        }
    }
    best.map(|(_, at)| at)
}

/// What leads to a line's end, in spans of numbers.
#[derive(Debug, Clone, Default)]
struct Cover {
    read: Vec<(u64, u64)>,
    stated: Vec<(u64, u64)>,
}

/// Spans of numbers, put together where they meet, and how many there are in the last of them: what is before a hole leads to nothing.
fn united(mut spans: Vec<(u64, u64)>) -> (Vec<(u64, u64)>, u64) {
    spans.sort_unstable();
    let mut all: Vec<(u64, u64)> = Vec::with_capacity(spans.len());
    for (first, last) in spans {
        match all.last_mut() {
            Some((_, through)) if first <= *through + 1 => *through = (*through).max(last),
            _ => all.push((first, last)),
        }
    }
    let many = all.last().map_or(0, |(first, last)| last + 1 - first);
    (all, many)
}

fn begins(flaw: &Flaw) -> u64 {
    match flaw {
        Flaw::Missing { from, .. } => *from,
        Flaw::Broken { at } | Flaw::Unread { at, .. } => *at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(branch: u8, number: u64) -> EntryDigest {
        let mut bytes = [branch; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        EntryDigest::from_bytes(bytes)
    }

    /// A line whose digests are another branch's behind a number.
    fn line(begins: u64, last: u64, (fork, branch): (u64, u8)) -> Line {
        let digest = |number| digest(if number > fork { branch } else { 1 }, number);
        Line {
            life: LifeId::of(&digest(begins)),
            begins,
            before: begins.checked_sub(1).filter(|before| *before > 0).map(digest),
            last,
            digest: digest(last),
            sealed: 0,
            read: vec![(begins, last)],
            marks: (begins..=last).map(|number| (number, digest(number))).collect(),
            hidden: BTreeSet::new(),
            lost: None,
            flaws: Vec::new(),
            path: Vec::new(),
        }
    }

    fn best(lines: &[Line]) -> Option<usize> {
        let lines: Vec<&Line> = lines.iter().collect();
        let best = longest(&lines);
        let backwards: Vec<&Line> = lines.iter().rev().copied().collect();
        let other = longest(&backwards).map(|at| lines.len() - 1 - at);
        assert_eq!(
            best.map(|at| (lines[at].begins, lines[at].last)),
            other.map(|at| (lines[at].begins, lines[at].last))
        );
        best
    }

    const SAME: (u64, u8) = (u64::MAX, 1);

    #[test]
    fn of_lines_that_agree_the_furthest_is_gone_on_from_however_little_of_it_one_store_has() {
        assert_eq!(best(&[]), None);
        assert_eq!(best(&[line(1, 100, SAME), line(50, 120, SAME)]), Some(1));
        assert_eq!(
            best(&[line(1, 100, SAME), line(101, 103, SAME)]),
            Some(1),
            "it begins where the other ends"
        );
        assert_eq!(best(&[line(1, 60, SAME), line(50, 120, SAME), line(110, 130, SAME)]), Some(2));
        assert_eq!(best(&[line(2, 100, SAME), line(1, 100, SAME)]), Some(1));
    }

    #[test]
    fn of_lines_that_do_not_agree_the_one_that_the_most_leads_to_is_gone_on_from_and_no_number_makes_one() {
        assert_eq!(best(&[line(1, 100, SAME), line(1, 60, (40, 2))]), Some(0));
        assert_eq!(best(&[line(1, 100, SAME), line(1, 140, (40, 2))]), Some(1));
        // Whoever may write to a store can begin one anywhere.
        assert_eq!(best(&[line(1, 100, SAME), line(1_000_000, 1_000_009, SAME)]), Some(0));
        assert_eq!(best(&[line(1, 100, SAME), line(90, 150, (80, 2))]), Some(0));
        // Nobody read it, and it states as much as it likes.
        let stated = Line { sealed: 5000, read: Vec::new(), ..line(1, 5000, (0, 2)) };
        assert_eq!(best(&[line(1, 100, SAME), stated.clone()]), Some(0));
        let shut = Line { sealed: 100, read: Vec::new(), ..line(1, 100, SAME) };
        assert_eq!(best(&[shut, stated]), Some(1), "without a key that is all there is");
    }
}
