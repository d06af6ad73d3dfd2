//! Databases damaged in every way that a disk has: no record is lost, and nothing is deleted.

use std::fs;
use std::path::{Path, PathBuf};

use model::event::Exchange;
use model::filter::Filters;
use spec::Labels;
use store::{Sharing, Store};

use crate::bed::{Bed, image, labels, leased, open, put, within};

/// How many databases are damaged; `make soak` does as many through the daemon.
const ROUNDS: usize = 40;

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

/// A store with records of every kind; closed.
fn filled() -> tempfile::TempDir {
    let bed = Bed::new();
    let (content, images) = (bed.store.content(), bed.store.images());
    let native = bed.store.snapshotter("native").unwrap();
    within("one", |cx| bed.store.leases().create(cx, Some(&"l".parse().unwrap()), &Labels::new()).unwrap());
    leased("one", "l", |cx| {
        for number in 0..30 {
            let bytes = format!("blob {number}").repeat(50);
            let digest = put(&*content, cx, bytes.as_bytes(), &labels(&[("number", "x")])).unwrap();
            images.create(cx, &image(&format!("example.com/app:{number}"), &digest), None).unwrap();
        }
        let mut parent = String::new();
        for layer in ["a", "b", "c"] {
            native.prepare(cx, "extract", &parent, &Labels::new()).unwrap();
            native.commit(cx, layer, "extract", &Default::default()).unwrap();
            parent = layer.to_owned();
        }
        native.prepare(cx, "container", "c", &Labels::new()).unwrap();
    });
    bed.dir
}

/// Everything that the records say.
fn told(store: &Store) -> Vec<String> {
    let native = store.snapshotter("native").unwrap();
    within("one", |cx| {
        let all = Filters::default();
        let images = store.images().list(cx, &all).unwrap();
        let blobs = store.content().list(cx, &all).unwrap();
        let snapshots = native.list(cx, &all).unwrap();
        let leases = store.leases().list(cx, &all).unwrap();
        assert_eq!(native.mounts(cx, "container").unwrap().len(), 1);
        let mut told: Vec<String> = images.iter().map(|image| format!("{image:?}")).collect();
        told.extend(blobs.iter().map(|blob| format!("{blob:?}")));
        told.extend(snapshots.iter().map(|snapshot| format!("{snapshot:?}")));
        told.extend(leases.iter().map(|lease| format!("{lease:?}")));
        told
    })
}

fn damage(path: &Path, dice: &mut Dice) -> String {
    let mut bytes = fs::read(path).unwrap();
    let length = bytes.len();
    let how = match dice.roll(8) {
        0..=2 => {
            let bit = dice.roll(length * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            format!("bit {bit} is flipped")
        }
        3 => {
            let page = dice.roll(length / 4096);
            bytes[page * 4096..(page + 1) * 4096].fill(0);
            format!("page {page} is empty")
        }
        4 => {
            let sector = dice.roll(length / 512);
            for byte in &mut bytes[sector * 512..(sector + 1) * 512] {
                *byte = u8::try_from(dice.roll(256)).unwrap();
            }
            format!("sector {sector} is noise")
        }
        5 => {
            bytes.truncate(dice.roll(length));
            format!("it is cut to {} bytes", bytes.len())
        }
        6 => {
            bytes.clear();
            "it is empty".to_owned()
        }
        _ => {
            fs::remove_file(path).unwrap();
            return "it is missing".to_owned();
        }
    };
    fs::write(path, bytes).unwrap();
    how
}

#[test]
fn no_damage_of_a_database_costs_a_record() {
    let dir = filled();
    let store = open(dir.path(), Sharing::Shared, &Exchange::default()).unwrap();
    let before = told(&store);
    drop(store);
    let databases: [PathBuf; 2] = [
        dir.path().join("io.containerd.metadata.v1.bolt/meta.redb"),
        dir.path().join("io.containerd.snapshotter.v1.native/metadata.redb"),
    ];
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut restored = 0;
    for round in 0..ROUNDS {
        let how = databases.iter().map(|path| damage(path, &mut dice)).collect::<Vec<_>>().join(", ");
        let store = open(dir.path(), Sharing::Shared, &Exchange::default());
        let store = store.unwrap_or_else(|error| panic!("round {round}: {how}: {error}"));
        store.collect().unwrap();
        assert_eq!(told(&store), before, "round {round}: {how}");
        assert_eq!(store.check().unwrap(), [], "round {round}: {how}");
        restored += usize::from(store.restored().is_some());
    }
    assert!(restored > ROUNDS / 4, "{restored} of {ROUNDS} were made again");
}
