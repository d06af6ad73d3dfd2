//! Damage and loss of a driver's database, and what is known afterwards.

use std::path::Path;

use spec::HasKind;

use super::super::restore::{self, Origin};
use super::*;

/// Opens the records in `dir`, with the directories of the numbers up to 1000 unless it is new.
fn try_open(dir: &Path) -> Result<(Records, Origin), SnapshotError> {
    let path = dir.join("metadata.redb");
    let is_used = dir.join("records").exists() || path.exists();
    restore::open(&path, &(1..=if is_used { 1000 } else { 0 }).collect())
}

fn open(dir: &Path) -> Records {
    try_open(dir).unwrap().0
}

fn create(records: &Records, kind: Kind, key: &str, parent: &str) -> u64 {
    let below = records.check_new(key, parent).unwrap();
    records.create(kind, key, parent, &below, &Labels::new(), |_| Ok(())).unwrap().id
}

/// Keys, parents and kinds.
fn all(records: &Records) -> Vec<(String, String, Kind)> {
    let list = records.list().unwrap();
    list.into_iter().map(|found| (found.info.name, found.info.parent, found.info.kind)).collect()
}

/// Three layers, each on the one before, one container on top, and others; closed.
fn filled() -> (tempfile::TempDir, Vec<(String, String, Kind)>) {
    let dir = tempfile::tempdir().unwrap();
    let records = open(dir.path());
    let mut parent = String::new();
    for layer in ["a", "b", "c"] {
        create(&records, Kind::Active, "extract", &parent);
        let active = records.check_commit("extract", layer, "").unwrap();
        records.commit("extract", layer, &active, &Labels::new(), Usage { size: 7, inodes: 1 }).unwrap();
        parent = layer.to_owned();
    }
    create(&records, Kind::Active, "container", "c");
    for number in 0..100 {
        create(&records, Kind::View, &format!("view-{number:04}"), "");
    }
    create(&records, Kind::Active, "removed", "a");
    records.remove("removed").unwrap();
    let before = all(&records);
    drop(records);
    (dir, before)
}

#[test]
fn a_damaged_page_without_record_files_is_an_error_and_names_the_file() {
    let (dir, before) = filled();
    let path = dir.path().join("metadata.redb");
    let good = std::fs::read(&path).unwrap();
    let pages = good.chunks(4096).enumerate().filter(|(_, page)| page.iter().any(|&byte| byte != 0));
    for (page, _) in pages.skip(1) {
        let mut bad = good.clone();
        bad[page * 4096 + 16..page * 4096 + 600].fill(0xa5);
        std::fs::write(&path, &bad).unwrap();
        std::fs::remove_dir_all(dir.path().join("records")).unwrap();
        match try_open(dir.path()) {
            Ok((records, _)) => assert_eq!(all(&records).len(), before.len(), "page {page}"),
            Err(error) => {
                assert_eq!(error.kind(), spec::Kind::DataLoss, "{error}");
                assert!(error.to_string().contains("metadata.redb"), "{error}");
            }
        }
    }
}

#[test]
fn a_flipped_bit_costs_no_record() {
    let (dir, before) = filled();
    let path = dir.path().join("metadata.redb");
    let good = std::fs::read(&path).unwrap();
    let mut restored = 0;
    let bits = (0..320).map(|byte| byte * 8 + byte % 8);
    for bit in bits.chain((1..good.len() / 4096).map(|page| page * 4096 * 8 + page * 1237 % (4096 * 8))) {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, &bad).unwrap();
        let (records, origin) = try_open(dir.path()).unwrap();
        assert_eq!(all(&records), before, "bit {bit}");
        restored += usize::from(matches!(origin, Origin::Restored { .. }));
    }
    assert!(restored > 0);
}

#[test]
fn a_lost_database_is_made_again_from_record_files() {
    let (dir, before) = filled();
    let path = dir.path().join("metadata.redb");
    let losses: [(&str, &dyn Fn()); 3] = [
        ("is missing", &|| std::fs::remove_file(&path).unwrap()),
        ("is empty", &|| std::fs::write(&path, b"").unwrap()),
        ("metadata.redb: ", &|| std::fs::write(&path, [7; 9000]).unwrap()),
    ];
    for (word, lose) in losses {
        lose();
        let (records, origin) = try_open(dir.path()).unwrap();
        assert!(
            matches!(&origin, Origin::Restored { why, count }
            if why.contains(word) && *count == before.len()),
            "{origin:?}"
        );
        assert_eq!(all(&records), before, "{word}");
        assert_eq!(records.place("container").unwrap().parents.len(), 3);
        assert_eq!(records.remove("c").unwrap_err().kind(), spec::Kind::FailedPrecondition);
        // Directories without a record are kept, and their numbers are never given out again.
        let made = create(&records, Kind::Active, "new", "c");
        assert!(made > 1000);
        records.remove("new").unwrap();
    }
    assert!(matches!(try_open(dir.path()).unwrap().1, Origin::Opened));
}

#[test]
fn an_older_database_takes_what_its_record_files_have() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metadata.redb");
    let records = open(dir.path());
    create(&records, Kind::Active, "k", "");
    drop(records);
    let old = std::fs::read(&path).unwrap();
    let records = open(dir.path());
    let active = records.check_commit("k", "layer", "").unwrap();
    records.commit("k", "layer", &active, &Labels::new(), Usage { size: 7, inodes: 1 }).unwrap();
    create(&records, Kind::Active, "container", "layer");
    let before = all(&records);
    drop(records);
    std::fs::write(&path, old).unwrap();
    // As old as it is: a file that was restored would hide nothing.
    std::fs::File::open(&path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(all(&open(dir.path())), before);
}

#[test]
fn records_whose_directory_or_parent_is_gone_are_not_made_again() {
    let (dir, _) = filled();
    let path = dir.path().join("metadata.redb");
    let id = open(dir.path()).get("b").unwrap().id;
    std::fs::remove_file(&path).unwrap();
    let directories = (1..=1000).filter(|number| *number != id).collect();
    let (records, _) = restore::open(&path, &directories).unwrap();
    assert!(records.get("a").is_ok());
    for gone in ["b", "c", "container"] {
        assert_eq!(records.get(gone).unwrap_err().kind(), spec::Kind::NotFound);
    }
}

#[test]
fn a_lost_database_without_record_files_is_no_new_one() {
    let (dir, _) = filled();
    let path = dir.path().join("metadata.redb");
    std::fs::write(&path, b"").unwrap();
    std::fs::remove_dir_all(dir.path().join("records")).unwrap();
    let (records, origin) = restore::open(&path, &(1..=1000).collect()).unwrap();
    assert!(matches!(&origin, Origin::Lost { why } if why.ends_with("is empty")), "{origin:?}");
    assert!(origin.notice().is_some());
    // The directories are no garbage.
    assert_eq!(records.keep(Some(1000)).unwrap(), 1001);
    let fresh = tempfile::tempdir().unwrap();
    let (_, origin) = restore::open(&fresh.path().join("metadata.redb"), &BTreeSet::new()).unwrap();
    assert_eq!(origin, Origin::New);
}

#[test]
fn the_second_to_open_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let second = try_open(dir.path()).map(drop).unwrap_err();
    assert_eq!(second.kind(), spec::Kind::FailedPrecondition);
    drop(first);
    open(dir.path());
}

#[test]
fn ids_are_never_given_twice() {
    let dir = tempfile::tempdir().unwrap();
    let records = open(dir.path());
    let first = create(&records, Kind::Active, "a", "");
    records.remove("a").unwrap();
    assert!(create(&records, Kind::Active, "a", "") > first);
}
