//! Group commit, rollback, damage.

use std::collections::BTreeSet;

use spec::Kind;

use super::*;
use crate::table;

fn open(dir: &Path) -> Db {
    try_open(dir).unwrap()
}

fn try_open(dir: &Path) -> Result<Db, Error> {
    Db::open(&dir.join("meta.redb"), &mut |_, _| Ok(()))
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
    let error = try_open(dir.path()).unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition);
    assert!(error.to_string().contains("is in use"), "{error}");
}

#[test]
fn a_file_that_is_no_database_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("meta.redb");
    std::fs::write(&path, b"this is no database at all".repeat(1000)).unwrap();
    let error = try_open(dir.path()).unwrap_err();
    assert_eq!(error.kind(), Kind::DataLoss, "{error}");
    assert!(error.to_string().contains("meta.redb is damaged"), "{error}");
}

/// Forty rows and their database, closed.
fn filled() -> (tempfile::TempDir, BTreeSet<String>) {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    for number in 0..40 {
        put(&db, &format!("{number:08}-{}", "k".repeat(200)));
    }
    db.write(|tx| Ok(tx.remove(table::IMAGES, b"00000007")?)).unwrap();
    let before = keys(&db);
    drop(db);
    (dir, before)
}

fn remove_copy(dir: &Path) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name.starts_with("meta.copy") || name.starts_with("meta.journal") {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
}

#[test]
fn a_damaged_page_without_a_copy_is_an_error_and_never_an_answer() {
    let (dir, before) = filled();
    let path = dir.path().join("meta.redb");
    let good = std::fs::read(&path).unwrap();
    let mut refused = 0;
    for page in 1..good.len() / 4096 {
        let mut bytes = good.clone();
        for byte in &mut bytes[page * 4096..(page + 1) * 4096] {
            *byte = !*byte;
        }
        remove_copy(dir.path());
        std::fs::write(&path, bytes).unwrap();
        match try_open(dir.path()) {
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
fn a_flipped_bit_costs_no_record() {
    let (dir, before) = filled();
    let path = dir.path().join("meta.redb");
    let good = std::fs::read(&path).unwrap();
    let mut restored = 0;
    // A bit of each page, at another place in each, and every byte of the header.
    let bits = (0..320).map(|byte| byte * 8 + byte % 8);
    let bits = bits.chain((1..good.len() / 4096).map(|page| page * 4096 * 8 + page * 1237 % (4096 * 8)));
    for bit in bits {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, bytes).unwrap();
        let db = try_open(dir.path()).unwrap();
        assert_eq!(keys(&db), before, "bit {bit}");
        restored += usize::from(matches!(db.origin(), Origin::Restored { .. }));
    }
    assert!(restored > 0);
    assert!(dir.path().join("meta.redb.damaged").exists());
}

#[test]
fn a_lost_database_is_made_again_from_its_copy() {
    let (dir, before) = filled();
    let path = dir.path().join("meta.redb");
    let half = std::fs::read(&path).unwrap()[..20_000].to_vec();
    let losses: [(&str, &dyn Fn()); 3] = [
        ("is missing", &|| std::fs::remove_file(&path).unwrap()),
        ("is empty", &|| std::fs::write(&path, b"").unwrap()),
        ("is damaged", &|| std::fs::write(&path, &half).unwrap()),
    ];
    for (word, lose) in losses {
        lose();
        let mut seen = None;
        let db = Db::open(&path, &mut |rows, origin| {
            seen = Some((rows.keys(table::IMAGES, b"")?.len(), origin.clone()));
            Ok(())
        });
        let db = db.unwrap();
        assert_eq!(keys(&db), before, "{word}");
        let (count, origin) = seen.expect("the rows are shown before the database has its name");
        assert_eq!(count, before.len());
        assert!(matches!(&origin, Origin::Restored { why, .. } if why.contains(word)), "{origin:?}");
        assert_eq!(*db.origin(), origin);
        // What follows is in the copy too.
        put(&db, "next");
        db.write(|tx| Ok(tx.remove(table::IMAGES, b"next")?)).unwrap();
    }
}

#[test]
fn an_older_database_is_brought_up_to_its_copy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("meta.redb");
    let db = open(dir.path());
    put(&db, "a");
    drop(db);
    let old = std::fs::read(&path).unwrap();
    let db = open(dir.path());
    put(&db, "b");
    drop(db);
    // As a disk that has lost what it was told to keep.
    std::fs::write(&path, old).unwrap();
    let db = open(dir.path());
    assert_eq!(keys(&db), BTreeSet::from(["a".to_owned(), "b".to_owned()]));
    assert!(matches!(db.origin(), Origin::Restored { .. }));
}

#[test]
fn a_copy_that_lags_behind_is_never_used() {
    let (dir, before) = filled();
    let path = dir.path().join("meta.redb");
    let journal = journal_of(dir.path());
    let length = std::fs::metadata(&journal).unwrap().len();
    // As after a power cut: the end of the journal was never written.
    std::fs::File::options().write(true).open(&journal).unwrap().set_len(length - 5).unwrap();
    let db = open(dir.path());
    assert_eq!((keys(&db), db.origin()), (before.clone(), &Origin::Opened));
    drop(db);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(keys(&open(dir.path())), before);
}

fn journal_of(dir: &Path) -> PathBuf {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let is_journal = |path: &PathBuf| path.to_str().is_some_and(|path| path.contains("meta.journal."));
    names.filter(is_journal).max().unwrap()
}

#[test]
fn a_journal_that_has_grown_is_renewed_with_the_copy() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let row = vec![7; 300_000];
    for number in 0..40 {
        let key = format!("{:02}", number % 5);
        db.write(|tx| Ok(tx.put(table::IMAGES, key.as_bytes(), &row)?)).unwrap();
    }
    drop(db);
    let length = |path: &Path| std::fs::metadata(path).unwrap().len();
    assert!(length(&journal_of(dir.path())) < 6 << 20);
    assert!(length(&dir.path().join("meta.copy")) >= 1_500_000);
    std::fs::remove_file(dir.path().join("meta.redb")).unwrap();
    let db = open(dir.path());
    assert_eq!(keys(&db).len(), 5);
    assert_eq!(db.read(|rows| rows.get(table::IMAGES, b"04")).unwrap(), Some(row));
}

#[test]
fn an_empty_file_is_no_new_database() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    remove_copy(dir.path());
    std::fs::write(dir.path().join("meta.redb"), b"").unwrap();
    let db = open(dir.path());
    assert!(matches!(db.origin(), Origin::Lost { why } if why.ends_with("is empty")), "{:?}", db.origin());
}

#[test]
fn a_second_daemon_does_not_disturb_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    put(&db, "a");
    assert!(try_open(dir.path()).is_err());
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
