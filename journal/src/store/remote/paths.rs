//! Several ways to one receiver: which is asked next.
//!
//! What always holds: requests take turns among the paths that are well; one that failed is asked only where none is well, until it was found to answer again.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The paths, in the order of the address.
#[derive(Debug)]
pub(super) struct Paths<T> {
    all: Vec<Path<T>>,
    turn: AtomicUsize,
}

#[derive(Debug)]
pub(super) struct Path<T> {
    /// What is asked.
    pub(super) way: T,
    failed: AtomicBool,
}

impl<T> Paths<T> {
    pub(super) fn new(ways: Vec<T>) -> Self {
        let all = ways.into_iter().map(|way| Path { way, failed: AtomicBool::new(false) }).collect();
        Self { all, turn: AtomicUsize::new(0) }
    }

    /// Each path once: those that are well first, beginning with whose turn it is.
    pub(super) fn in_order(&self) -> Vec<&Path<T>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let count = self.all.len().max(1);
        let mut paths: Vec<&Path<T>> =
            self.all.iter().cycle().skip(turn % count).take(self.all.len()).collect();
        paths.sort_by_key(|path| path.is_failed());
        paths
    }

    /// Those that failed.
    pub(super) fn failed(&self) -> impl Iterator<Item = &Path<T>> {
        self.all.iter().filter(|path| path.is_failed())
    }

    /// Whether there are several.
    pub(super) const fn are_several(&self) -> bool {
        self.all.len() > 1
    }
}

impl<T> Path<T> {
    fn is_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Takes what came of it; whether that is news.
    pub(super) fn came(&self, well: bool) -> bool {
        self.failed.swap(!well, Ordering::Relaxed) == well
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(paths: &Paths<u32>) -> Vec<u32> {
        paths.in_order().iter().map(|path| path.way).collect()
    }

    #[test]
    fn paths_take_turns_and_one_that_failed_comes_last_until_it_answers() {
        let paths = Paths::new(vec![0, 1, 2]);
        assert_eq!(
            (order(&paths), order(&paths), order(&paths)),
            (vec![0, 1, 2], vec![1, 2, 0], vec![2, 0, 1])
        );
        assert!(paths.in_order()[1].came(false), "path 1 failed, which is news");
        for _ in 0..3 {
            assert_eq!(order(&paths).last(), Some(&1));
        }
        let failed: Vec<u32> = paths.failed().map(|path| path.way).collect();
        assert_eq!(failed, [1]);
        let last = paths.in_order()[2];
        assert!(!last.came(false) && last.came(true) && !last.came(true));
        assert_eq!(paths.failed().count(), 0);
        assert_eq!(Paths::new(vec![7]).in_order().len(), 1);
    }
}
