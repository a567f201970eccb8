//! Hostile trees, and what an honest one needs.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

const BOUNDS: Bounds = Bounds { entries: 60, file_bytes: 4096, total_bytes: 64 << 10 };

/// A small generator of our own, so that a failing tree is named by one number.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        // xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators".
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % sides
    }

    fn path(&mut self) -> String {
        const NAMES: [&str; 18] = [
            "..",
            ".",
            "",
            "a",
            "b",
            "base",
            "pg_tblspc",
            "16384",
            "16385",
            "link",
            "global",
            "/",
            "a\\..",
            "x\0y",
            "\u{202e}",
            "pg_wal",
            "...",
            "deep",
        ];
        let mut text = String::new();
        for level in 0..=self.roll(6) {
            if level > 0 {
                text.push('/');
            }
            text.push_str(NAMES[self.roll(NAMES.len())]);
        }
        if self.roll(30) == 0 {
            text.push_str(&"/n".repeat(40));
        }
        text
    }
}

fn listing(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        let content = if kind.is_file() { fs::read(entry.path()).unwrap() } else { Vec::new() };
        found.push(format!("{:?} {kind:?} {content:?}", entry.path()));
        if kind.is_dir() {
            found.extend(listing(&entry.path()));
        }
    }
    found.sort();
    found
}

#[test]
fn no_hostile_tree_writes_outside_its_roots() {
    for seed in 1..=1_000u64 {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("victim"), b"untouched").unwrap();
        let data = dir.path().join("data");
        let space = dir.path().join("space");
        let before = listing(&outside);
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let root = Root::create(&data, Access::Owner, BOUNDS).unwrap();
        if dice.roll(2) == 0 {
            root.tablespace_link(16_384, &space).unwrap();
        }
        for _ in 0..40 {
            let text = dice.path();
            let kind = match dice.roll(8) {
                0 => EntryKind::SymbolicLink,
                1 => EntryKind::HardLink,
                2 => EntryKind::Special,
                3 | 4 => EntryKind::Directory,
                _ => EntryKind::File,
            };
            // Someone else plants links below the root while the restore runs.
            if dice.roll(6) == 0 {
                let planted = data.join(["link", "a", "base", "pg_tblspc", "pg_tblspc/16385"][dice.roll(5)]);
                let to = [outside.clone(), outside.join("victim"), "../outside".into()][dice.roll(3)].clone();
                // Not through a link planted before: that write outside would be the test's own.
                if planted.parent().is_some_and(|parent| !parent.is_symlink()) {
                    let _ = symlink(to, planted);
                }
            }
            let Ok(path) = root.admit(kind, &text) else { continue };
            let _ = match kind {
                EntryKind::Directory => root.dir(&path),
                _ => root.write(&path, &vec![b'x'; dice.roll(6000)]),
            };
            if dice.roll(5) == 0 {
                let other = dice.path();
                if let Ok(other) = root.admit(EntryKind::File, &other) {
                    let _ = root.set_aside(&path, &other);
                    let _ = root.remove(&other);
                    let _ = root.read(&other, 10);
                }
            }
        }
        assert_eq!(listing(&outside), before, "tree {seed}");
        let mut beside: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        beside.retain(|name| name != "data" && name != "space");
        assert_eq!(beside, ["outside"], "tree {seed}");
    }
}

#[test]
fn only_a_missing_or_empty_directory_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("x"), b"").unwrap();
    let taken = Root::create(dir.path(), Access::Owner, BOUNDS);
    assert!(matches!(taken, Err(BeneathError::NotEmpty { .. })));
    let root = Root::create(&dir.path().join("new"), Access::Owner, BOUNDS).unwrap();
    assert_eq!(fs::metadata(root.path()).unwrap().permissions().mode() & 0o7777, 0o700);
}

#[test]
fn modes_are_the_roots_and_never_the_entrys() {
    for (access, dir_mode, file_mode) in [(Access::Owner, 0o700, 0o600), (Access::Group, 0o750, 0o640)] {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::create(&dir.path().join("new"), access, BOUNDS).unwrap();
        root.write(&relative("base/5/1"), b"x").unwrap();
        let mode = |path: &str| fs::metadata(root.path().join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("base/5"), mode("base/5/1")), (dir_mode, file_mode));
    }
}

#[test]
fn a_file_is_whole_and_once_or_the_root_is_not_synchronised() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::create(&dir.path().join("new"), Access::Owner, BOUNDS).unwrap();
    let file = root.file(&relative("a"), 4).unwrap();
    file.write_all_at(b"cd", 2).unwrap();
    assert!(matches!(file.write_all_at(b"x", 3), Err(BeneathError::WrittenTwice { .. })));
    assert!(matches!(file.write_all_at(b"x", 4), Err(BeneathError::FileSize { .. })));
    assert!(matches!(file.write_all_at(b"x", u64::MAX), Err(BeneathError::FileSize { .. })));
    assert!(matches!(file.finish(), Err(BeneathError::FileIncomplete { .. })));
    assert!(matches!(root.sync(2), Err(BeneathError::Unfinished { files: 1 })));
    assert!(matches!(root.file(&relative("a"), 1), Err(BeneathError::InTheWay { .. })));
}

#[test]
fn a_restore_larger_than_its_plan_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::create(&dir.path().join("new"), Access::Owner, BOUNDS).unwrap();
    assert!(matches!(root.file(&relative("a"), 4097), Err(BeneathError::Bound { .. })));
    let many = (0..100).map(|n| root.write(&relative(&format!("f{n}")), b"")).filter(Result::is_ok).count();
    assert_eq!(many, 60);
}

#[test]
fn tablespaces_go_to_their_approved_place_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let root = Root::create(&data, Access::Owner, BOUNDS).unwrap();
    for target in [data.join("inside"), data.clone(), dir.path().to_owned(), "relative".into(), "/".into()] {
        let refused = root.tablespace_link(16_384, &target);
        assert!(refused.is_err(), "{target:?}");
    }
    assert!(!data.join("inside").exists());
    let unmapped = root.write(&relative("pg_tblspc/16384/PG_15/1"), b"x");
    assert!(matches!(unmapped, Err(BeneathError::TablespaceUnmapped { .. })));
    let space = dir.path().join("space");
    root.tablespace_link(16_384, &space).unwrap();
    assert!(root.tablespace_link(16_385, &space.join("below")).is_err());
    root.write(&relative("pg_tblspc/16384/PG_15/1"), b"x").unwrap();
    root.sync(4).unwrap();
    assert_eq!(fs::read(space.join("PG_15/1")).unwrap(), b"x");
    assert_eq!(fs::read_link(data.join("pg_tblspc/16384")).unwrap(), fs::canonicalize(&space).unwrap());
}
