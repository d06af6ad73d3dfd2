//! Group commit, rollback, damage.

use std::collections::BTreeSet;

use spec::{HasKind, Kind};

use super::*;
use crate::table;

fn open(dir: &Path) -> Db {
    Db::open(&dir.join("meta.redb")).unwrap()
}

fn put(db: &Db, key: &str) {
    db.write(|tx| Ok(tx.put(table::IMAGES, key.as_bytes(), b"x")?)).unwrap();
}

fn keys(db: &Db) -> BTreeSet<String> {
    let keys = db.read(|rows| rows.keys(table::IMAGES, b"")).unwrap();
    keys.into_iter().map(|key| String::from_utf8(key).unwrap()).collect()
}

#[test]
fn writers_that_come_together_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let db = &db;
            scope.spawn(move || {
                for number in 0..50 {
                    put(db, &format!("{writer}-{number}"));
                    // One that fails among those that do not.
                    let failed: Result<(), Error> = db.write(|tx| {
                        tx.put(table::IMAGES, b"never", b"x")?;
                        Err(Error::not_found("it"))
                    });
                    assert_eq!(failed.unwrap_err().kind(), Kind::NotFound);
                }
            });
        }
    });
    let all: BTreeSet<String> =
        (0..8).flat_map(|writer| (0..50).map(move |number| format!("{writer}-{number}"))).collect();
    assert_eq!(keys(&db), all);
    drop(db);
    assert_eq!(keys(&open(dir.path())), all);
}

#[test]
fn the_second_to_open_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _db = open(dir.path());
    let error = Db::open(&dir.path().join("meta.redb")).unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    assert!(error.to_string().contains("is in use"), "{error}");
}

#[test]
fn a_file_that_is_no_database_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("meta.redb");
    std::fs::write(&path, b"this is no database at all".repeat(1000)).unwrap();
    let error = Db::open(&path).unwrap_err();
    assert_eq!(error.kind(), Kind::DataLoss, "{error}");
    assert!(error.to_string().contains("meta.redb is damaged"), "{error}");
}

#[test]
fn a_damaged_page_is_an_error_and_never_an_answer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("meta.redb");
    let db = open(dir.path());
    for number in 0..40 {
        put(&db, &format!("{number:08}-{}", "k".repeat(200)));
    }
    let before = keys(&db);
    drop(db);
    let good = std::fs::read(&path).unwrap();
    let mut refused = 0;
    for page in 1..good.len() / 4096 {
        let mut bytes = good.clone();
        for byte in &mut bytes[page * 4096..(page + 1) * 4096] {
            *byte = !*byte;
        }
        std::fs::write(&path, bytes).unwrap();
        match Db::open(&path) {
            Err(error) => {
                assert_eq!(error.kind(), Kind::DataLoss, "{error}");
                assert!(error.to_string().contains("meta.redb is damaged"), "{error}");
                refused += 1;
            }
            // The page was free, or of the newest state only, before which an older one is whole.
            Ok(db) => assert!(keys(&db).is_subset(&before)),
        }
    }
    assert!(refused > 0);
}

#[test]
fn a_second_daemon_does_not_disturb_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    put(&db, "a");
    assert!(Db::open(&dir.path().join("meta.redb")).is_err());
    put(&db, "b");
    drop(db);
    assert_eq!(keys(&open(dir.path())).len(), 2);
}

#[test]
fn what_changes_nothing_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    put(&db, "a");
    let size = || std::fs::metadata(dir.path().join("meta.redb")).unwrap().modified().unwrap();
    let before = size();
    let missing = db.write(|tx| Ok(tx.remove(table::IMAGES, b"b")?)).unwrap();
    assert!(!missing);
    assert_eq!(size(), before);
}
