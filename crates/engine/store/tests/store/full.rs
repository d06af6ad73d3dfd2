//! A disk that is full: a clear error, nothing half done, and work goes on once there is room.

use std::fs;
use std::path::Path;
use std::process::Command;

use model::content::Open;
use model::event::Exchange;
use model::filter::Filters;
use spec::{Kind, Labels};
use store::Sharing;

use crate::bed::{image, open, put, sha256, within};

/// A small file system of its own.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new(size: &str) -> Self {
        let dir = testkit::place::temp();
        let options = format!("size={size},mode=700");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(dir.path()).status();
        assert!(mounted.unwrap().success());
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

#[test]
fn an_ingest_that_finds_no_room_keeps_what_fits() {
    testkit::needs!(root);
    let disk = Disk::new("12m");
    let store = open(disk.path(), Sharing::Shared, &Exchange::default()).unwrap();
    let content = store.content();
    let piece = vec![3_u8; 1_000_000];
    within("one", |cx| {
        let mut ingest = content.ingest(cx, &Open { reference: "up".into(), ..Open::default() }).unwrap();
        let mut fits = 0;
        let error = loop {
            match ingest.write(&piece) {
                Ok(()) => fits += piece.len() as u64,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), Kind::ResourceExhausted);
        assert!(error.text().ends_with("No space left on device (os error 28)"), "{error}");
        assert_eq!(ingest.status().offset, fits);
        drop(ingest);
        assert_eq!(content.status(cx, "up").unwrap().offset, fits);
        content.abort(cx, "up").unwrap();
        put(&*content, cx, b"small", &Labels::new()).unwrap();
    });
    assert_eq!(store.check().unwrap(), []);
}

#[test]
fn records_that_find_no_room_are_refused_until_there_is_some() {
    testkit::needs!(root);
    let disk = Disk::new("16m");
    let store = open(disk.path(), Sharing::Shared, &Exchange::default()).unwrap();
    let (content, images) = (store.content(), store.images());
    let filler = disk.path().join("filler");
    let digest = within("one", |cx| put(&*content, cx, b"data", &Labels::new()).unwrap());
    let mut staged =
        within("one", |cx| content.ingest(cx, &Open { reference: "up".into(), ..Open::default() }).unwrap());
    staged.write(b"staged").unwrap();

    // Everything is taken but what the database has already.
    let _ = fs::write(&filler, vec![0; 20_000_000]);
    let mut made = Vec::new();
    let error = within("one", |cx| {
        loop {
            let mut big = image(&format!("image-{:05}", made.len()), &digest);
            big.labels.extend((0..20).map(|n| (format!("label-{n}"), "x".repeat(4000))));
            match images.create(cx, &big, None) {
                Ok(image) => made.push(image.name),
                Err(error) => break error,
            }
        }
    });
    assert_eq!(error.kind(), Kind::ResourceExhausted, "{error}");
    assert!(error.text().contains("meta.redb"), "{error}");
    within("one", |cx| {
        let found = images.list(cx, &Filters::default()).unwrap();
        assert_eq!(found.into_iter().map(|image| image.name).collect::<Vec<_>>(), made);
        // A commit that cannot be recorded, or can: either way record and bytes agree.
        let committed = staged.commit(cx, &Default::default()).is_ok();
        assert_eq!(content.info(cx, &sha256(b"staged")).is_ok(), committed);
    });
    assert!(store.check().unwrap().iter().all(|problem| !problem.is_loss()));

    fs::remove_file(&filler).unwrap();
    within("one", |cx| {
        images.create(cx, &image("after", &digest), None).unwrap();
        if content.info(cx, &sha256(b"staged")).is_err() {
            staged.commit(cx, &Default::default()).unwrap();
        }
    });
    assert_eq!(store.check().unwrap(), []);
}
