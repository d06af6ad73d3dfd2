//! Power cuts: what the disk may have of writes that were not flushed yet, and what must be found on it.
//!
//! A recording storage notes every write and every flush. A cut at any moment leaves all that was flushed, and of the
//! later writes any part, each whole, torn or not at all.

use std::collections::BTreeSet;
use std::io;
use std::sync::Mutex;

use redb::StorageBackend;

use super::*;
use crate::table;

#[derive(Clone, Debug)]
enum Step {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Flush,
}

/// A storage in memory that remembers how it came about.
#[derive(Clone, Debug, Default)]
struct Disk {
    state: Arc<Mutex<(Vec<u8>, Vec<Step>)>>,
}

impl Disk {
    fn holding(bytes: Vec<u8>) -> Self {
        Self { state: Arc::new(Mutex::new((bytes, Vec::new()))) }
    }

    fn steps(&self) -> Vec<Step> {
        self.state.lock().unwrap().1.clone()
    }

    fn position(&self) -> usize {
        self.state.lock().unwrap().1.len()
    }

    fn take(&self, step: Step) {
        let (bytes, steps) = &mut *self.state.lock().unwrap();
        apply(bytes, &step, usize::MAX);
        steps.push(step);
    }
}

/// Does `step` on `bytes`, of a write only the first `limit` bytes.
fn apply(bytes: &mut Vec<u8>, step: &Step, limit: usize) {
    match step {
        Step::SetLen(length) => bytes.resize(usize::try_from(*length).unwrap(), 0),
        Step::Write(offset, data) => {
            let (start, data) = (usize::try_from(*offset).unwrap(), &data[..data.len().min(limit)]);
            bytes[start..start + data.len()].copy_from_slice(data);
        }
        Step::Flush => {}
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state.lock().unwrap().0.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap();
        out.copy_from_slice(&self.state.lock().unwrap().0[start..start + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.take(Step::SetLen(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.take(Step::Flush);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.take(Step::Write(offset, data.to_owned()));
        Ok(())
    }
}

fn open(dir: &Path, disk: &Disk) -> Result<Db, DbError> {
    let path = dir.join("meta.redb");
    let lock = file::lock(&path)?;
    let database = file::open_storage(&path, Distrusting::new(disk.clone()))?;
    Ok(Db::new(lock, &path, database, Origin::Opened))
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % sides
    }
}

/// What the disk may hold after a cut behind the first `cut` steps.
fn image(steps: &[Step], cut: usize, dice: &mut Dice) -> Vec<u8> {
    let flushed = steps[..cut].iter().rposition(|step| matches!(step, Step::Flush)).unwrap_or(0);
    let mut bytes = Vec::new();
    for (at, step) in steps[..cut].iter().enumerate() {
        let limit = match step {
            // A length is journaled by the file system, in order.
            Step::Write(..) if at > flushed => [0, 512 * dice.roll(9), usize::MAX][dice.roll(3)],
            _ => usize::MAX,
        };
        apply(&mut bytes, step, limit);
    }
    bytes
}

#[test]
fn what_is_acknowledged_survives_any_power_cut() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::default();
    let db = open(dir.path(), &disk).unwrap();
    let made_at = disk.position();
    let acks: Mutex<Vec<(usize, String)>> = Mutex::default();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let (db, disk, acks) = (&db, &disk, &acks);
            scope.spawn(move || {
                for number in 0..25 {
                    let key = format!("{writer}-{number}-{}", "k".repeat(100));
                    let row = vec![b'r'; 700];
                    db.write(|tx| Ok(tx.put(table::IMAGES, key.as_bytes(), &row)?)).unwrap();
                    acks.lock().unwrap().push((disk.position(), key));
                }
            });
        }
    });
    drop(db);
    let (steps, acks) = (disk.steps(), acks.into_inner().unwrap());
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for _ in 0..300 {
        let cut = made_at + dice.roll(steps.len() - made_at) + 1;
        let db = open(dir.path(), &Disk::holding(image(&steps, cut, &mut dice))).unwrap();
        let keys = db.read::<_, DbError>(|rows| rows.keys(table::IMAGES, b"")).unwrap();
        let found: BTreeSet<Vec<u8>> = keys.into_iter().collect();
        // An acknowledgement is noted a little late at worst, which only asks for less.
        for (_, key) in acks.iter().filter(|(at, _)| *at <= cut) {
            assert!(found.contains(key.as_bytes()), "a cut behind step {cut} has lost {key:.8}");
        }
    }
}
