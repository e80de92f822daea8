//! The layer itself: it finds what SQLite does not sync, and loses nothing that SQLite does sync.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::channel;

use leyden_core::SeedTree;
use leyden_power_cut::Disk;
use rusqlite::{Connection, ErrorCode};
use tempfile::TempDir;

/// A database of numbers, in a watched folder.
fn numbers(synchronous: &str) -> (TempDir, Disk, Connection) {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::watch(folder.path());
    let db = Connection::open(folder.path().join("x.sqlite")).unwrap();
    db.execute_batch(&format!(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous};
         CREATE TABLE numbers (n INTEGER);"
    ))
    .unwrap();
    (folder, disk, db)
}

/// The rows of the copy that a power cut left; `None` if it has no such table.
fn rows(folder: &Path) -> Option<i64> {
    let db = Connection::open(folder.join("x.sqlite")).unwrap();
    let whole: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(whole, "ok");
    db.query_row("SELECT count(*) FROM numbers", [], |row| row.get(0)).ok()
}

/// The rows after a power cut behind each of a number of commits.
fn after_cuts(synchronous: &str) -> Vec<Option<i64>> {
    let (_folder, disk, db) = numbers(synchronous);
    let insert = |n: i64| {
        db.execute("INSERT INTO numbers VALUES (?1)", [n]).unwrap();
        if n % 7 == 0 {
            db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
        }
        let cut = tempfile::tempdir().unwrap();
        disk.cut(cut.path(), SeedTree::new(n.unsigned_abs()));
        rows(cut.path())
    };
    (1..=60).map(insert).collect()
}

#[test]
fn synced_commits_survive_and_unsynced_ones_are_lost() {
    let all: Vec<Option<i64>> = (1..=60).map(Some).collect();
    assert_eq!(after_cuts("FULL"), all);
    assert_ne!(after_cuts("NORMAL"), all, "NORMAL does not sync a commit");
}

#[test]
fn a_cut_in_the_middle_of_a_commit_leaves_the_database_whole() {
    let (_folder, disk, db) = numbers("FULL");
    let cuts = tempfile::tempdir().unwrap();
    let (sender, receiver) = channel();
    let committed = Arc::new(AtomicI64::new(0));
    let (root, counted) = (cuts.path().to_owned(), committed.clone());
    disk.on_change(move |change, files| {
        let to = root.join(change.to_string());
        std::fs::create_dir(&to).unwrap();
        files.cut(&to, SeedTree::new(change));
        sender.send((to, counted.load(Ordering::SeqCst))).unwrap();
    });
    for n in 1..=20 {
        db.execute("INSERT INTO numbers VALUES (?1)", [n]).unwrap();
        committed.store(n, Ordering::SeqCst);
        if n % 5 == 0 {
            db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        }
    }
    drop((db, disk));
    let mut cuts = 0;
    for (to, committed) in receiver {
        let found = rows(&to).unwrap();
        // The commit in progress may have reached the disk.
        assert!((committed..=committed + 1).contains(&found), "{found} of {committed}");
        cuts += 1;
    }
    assert!(cuts > 60, "{cuts}");
}

#[test]
fn a_full_disk_is_an_error_until_there_is_space() {
    let (folder, disk, db) = numbers("FULL");
    db.execute("INSERT INTO numbers VALUES (1)", []).unwrap();
    disk.set_space(Some(5000));
    let full = (2_i64..).find_map(|n| db.execute("INSERT INTO numbers VALUES (?1)", [n]).err());
    assert_eq!(full.unwrap().sqlite_error_code(), Some(ErrorCode::DiskFull));
    disk.set_space(None);
    db.execute("INSERT INTO numbers VALUES (0)", []).unwrap();
    let count: i64 = db.query_row("SELECT count(*) FROM numbers", [], |row| row.get(0)).unwrap();
    drop(db);
    assert_eq!(rows(folder.path()), Some(count));
    assert!(count >= 2);
}
