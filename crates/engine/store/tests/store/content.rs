//! Blobs and ingests as a client of containerd's content service knows them.

use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use model::content::{Commit, Open, read_blob};
use model::filter::Filters;
use model::mask::Mask;
use proptest::prelude::*;
use spec::{Kind, Labels};
use store::Sharing;

use crate::bed::{Bed, labels, leased, put, refused, sha256, within};

fn by_ref(reference: &str) -> Open {
    Open { reference: reference.to_owned(), ..Open::default() }
}

#[test]
fn what_is_written_is_read() {
    let bed = Bed::new();
    let content = bed.store.content();
    within("one", |cx| {
        let mut ingest = content.ingest(cx, &Open { total: 11, ..by_ref("up") }).unwrap();
        ingest.write(b"hello ").unwrap();
        ingest.write(b"world").unwrap();
        let status = content.status(cx, "up").unwrap();
        assert_eq!((status.offset, status.total, status.reference.as_str()), (11, 11, "up"));
        let made = labels(&[("a", "b"), ("empty", "")]);
        let digest = ingest.commit(cx, &Commit { labels: made, ..Commit::default() }).unwrap();
        assert_eq!(digest, sha256(b"hello world"));

        let info = content.info(cx, &digest).unwrap();
        assert_eq!((info.size, info.labels), (11, labels(&[("a", "b")])));
        assert_eq!(read_blob(&*content, cx, &digest, 100).unwrap(), b"hello world");
        let blob = content.open(cx, &digest).unwrap();
        let mut buffer = [0; 16];
        assert_eq!(blob.read_at(&mut buffer, 6).unwrap(), 5);
        assert_eq!(blob.read_at(&mut buffer, 11).unwrap(), 0);

        let mode = std::fs::metadata(bed.blob_path(&digest)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o444);
        refused(content.status(cx, "up"), Kind::NotFound, "reference up: not found");
        refused(
            ingest.commit(cx, &Commit::default()),
            Kind::FailedPrecondition,
            "cannot use the closed writer of up: failed precondition",
        );
    });
    let left: Vec<_> = std::fs::read_dir(bed.content_root().join("ingest")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    bed.assert_whole();
}

#[test]
fn refusals_are_containerds() {
    let bed = Bed::new();
    let content = bed.store.content();
    let (good, bad) = (sha256(b"data"), sha256(b"other"));
    within("one", |cx| {
        refused(
            content.ingest(cx, &by_ref("")),
            Kind::InvalidArgument,
            "ref must not be empty: invalid argument",
        );
        refused(content.info(cx, &good), Kind::NotFound, &format!("content digest {good}: not found"));
        refused(content.open(cx, &good), Kind::NotFound, &format!("content digest {good}: not found"));
        refused(content.delete(cx, &good), Kind::NotFound, &format!("content digest {good}: not found"));
        refused(content.abort(cx, "none"), Kind::NotFound, "reference none: not found");

        let mut ingest = content.ingest(cx, &by_ref("up")).unwrap();
        ingest.write(b"data").unwrap();
        refused(
            ingest.commit(cx, &Commit { size: Some(5), ..Commit::default() }),
            Kind::FailedPrecondition,
            "\"up\" failed size validation: 4 != 5: failed precondition",
        );
        refused(
            ingest.commit(cx, &Commit { expected: Some(bad.clone()), ..Commit::default() }),
            Kind::FailedPrecondition,
            &format!("unexpected commit digest {good}, expected {bad}: failed precondition"),
        );
        refused(ingest.truncate(5), Kind::OutOfRange, "cannot cut up to 5 bytes, it has 4: out of range");
        let long = labels(&[("k", &"v".repeat(4096))]);
        let error = ingest.commit(cx, &Commit { labels: long, ..Commit::default() }).unwrap_err();
        assert!(
            error.text().starts_with("info.Labels: label key and value length (4097 bytes) greater"),
            "{error}"
        );
        let error = content.ingest(cx, &by_ref("up")).err().unwrap();
        assert_eq!(error.kind(), Kind::Unavailable);
        assert!(error.text().starts_with("ref up locked for "), "{error}");

        // None of that has harmed the ingest.
        ingest.commit(cx, &Commit { expected: Some(good.clone()), ..Commit::default() }).unwrap();
        let again = Open { expected: Some(good.clone()), ..by_ref("up") };
        refused(content.ingest(cx, &again), Kind::AlreadyExists, &format!("content {good}: already exists"));
        let mask = Mask::new(["size".to_owned()]);
        refused(
            content.update(cx, &good, &Labels::new(), &mask),
            Kind::InvalidArgument,
            &format!("cannot update \"size\" field on content info \"{good}\": invalid argument"),
        );
    });
    bed.assert_whole();
}

#[test]
fn an_ingest_goes_on_after_a_restart() {
    let bed = Bed::new();
    let first = vec![7_u8; 700_000];
    within("one", |cx| {
        let mut ingest = bed.store.content().ingest(cx, &Open { total: 700_003, ..by_ref("up") }).unwrap();
        ingest.write(&first).unwrap();
    });
    let bed = bed.reopened();
    let content = bed.store.content();
    within("one", |cx| {
        let status = content.status(cx, "up").unwrap();
        assert_eq!((status.offset, status.total), (700_000, 700_003));
        assert_eq!(content.statuses(cx, &Filters::parse(&["ref==up"]).unwrap()).unwrap(), [status]);
        assert!(content.statuses(cx, &Filters::parse(&["ref==x"]).unwrap()).unwrap().is_empty());
        let mut ingest = content.ingest(cx, &by_ref("up")).unwrap();
        assert_eq!((ingest.status().offset, ingest.status().total), (700_000, 700_003));
        ingest.write(b"end").unwrap();
        let expected = Some(sha256(&[&first[..], b"end"].concat()));
        ingest.commit(cx, &Commit { expected, ..Commit::default() }).unwrap();
    });
}

#[test]
fn an_ingest_can_be_cut_and_aborted() {
    let bed = Bed::new();
    let content = bed.store.content();
    within("one", |cx| {
        let mut ingest = content.ingest(cx, &by_ref("up")).unwrap();
        ingest.write(b"wrong").unwrap();
        ingest.truncate(2).unwrap();
        ingest.write(b"ite").unwrap();
        assert_eq!(ingest.commit(cx, &Commit::default()).unwrap(), sha256(b"write"));

        let mut ingest = content.ingest(cx, &by_ref("up")).unwrap();
        ingest.write(b"gone").unwrap();
        content.abort(cx, "up").unwrap();
        refused(content.status(cx, "up"), Kind::NotFound, "reference up: not found");
        let error = ingest.commit(cx, &Commit::default()).unwrap_err();
        assert_eq!((error.kind(), error.text()), (Kind::NotFound, "reference up: not found"));
    });
    bed.assert_whole();
}

#[test]
fn an_ingest_cut_off_before_its_data_is_listed_and_aborted() {
    let bed = Bed::new();
    let content = bed.store.content();
    within("one", |cx| {
        drop(content.ingest(cx, &by_ref("up")).unwrap());
        drop(content.ingest(cx, &by_ref("other")).unwrap());
        let ingests = bed.content_root().join("ingest");
        // What a crash leaves: one directory without its data file, of the other ingest none at all.
        for entry in std::fs::read_dir(&ingests).unwrap() {
            let dir = entry.unwrap().path();
            if std::fs::read_to_string(dir.join("ref")).unwrap().ends_with("/up") {
                std::fs::remove_file(dir.join("data")).unwrap();
            } else {
                std::fs::remove_dir_all(&dir).unwrap();
            }
        }
        let listed = content.statuses(cx, &Filters::default()).unwrap();
        let listed: Vec<_> = listed.iter().map(|status| (status.reference.as_str(), status.offset)).collect();
        assert_eq!(listed, [("other", 0), ("up", 0)]);
        assert_eq!(content.status(cx, "up").unwrap().offset, 0);
        content.abort(cx, "up").unwrap();
        content.abort(cx, "other").unwrap();
        assert!(content.statuses(cx, &Filters::default()).unwrap().is_empty());
        assert_eq!(std::fs::read_dir(&ingests).unwrap().count(), 0);
    });
}

#[test]
fn the_digest_of_an_ingest_follows_its_bytes() {
    let bed = Bed::new();
    let content = bed.store.content();
    within("one", |cx| {
        let mut ingest = content.ingest(cx, &by_ref("up")).unwrap();
        assert_eq!(ingest.digest().unwrap(), sha256(b""));
        ingest.write(b"hello").unwrap();
        assert_eq!(ingest.digest().unwrap(), sha256(b"hello"));
        ingest.truncate(2).unwrap();
        assert_eq!(ingest.digest().unwrap(), sha256(b"he"));
        ingest.commit(cx, &Commit::default()).unwrap();
        assert_eq!(ingest.digest().unwrap_err().kind(), Kind::FailedPrecondition);
    });
}

#[test]
fn every_algorithm_makes_a_blob() {
    let bed = Bed::new();
    let content = bed.store.content();
    let hash = ring::digest::digest(&ring::digest::SHA512, b"data");
    let digest = spec::Digest::from_bytes(spec::digest::Algorithm::Sha512, hash.as_ref()).unwrap();
    within("one", |cx| {
        // Told at commit only, so that the data is hashed again.
        let mut ingest = content.ingest(cx, &by_ref("up")).unwrap();
        ingest.write(b"data").unwrap();
        let commit = Commit { expected: Some(digest.clone()), ..Commit::default() };
        assert_eq!(ingest.commit(cx, &commit).unwrap(), digest);
        content.delete(cx, &digest).unwrap();
        let mut ingest =
            content.ingest(cx, &Open { expected: Some(digest.clone()), ..by_ref("up") }).unwrap();
        ingest.write(b"data").unwrap();
        assert_eq!(ingest.commit(cx, &Commit::default()).unwrap(), digest);
    });
    assert!(bed.blob_path(&digest).ends_with(format!("sha512/{}", digest.hex())));
    bed.assert_whole();
}

#[test]
fn namespaces_share_bytes_and_not_records() {
    let bed = Bed::new();
    let content = bed.store.content();
    let digest = within("one", |cx| put(&*content, cx, b"data", &labels(&[("of", "one")])).unwrap());
    within("two", |cx| {
        refused(content.info(cx, &digest), Kind::NotFound, &format!("content digest {digest}: not found"));
        let open = Open { expected: Some(digest.clone()), ..by_ref("mine") };
        let mut ingest = content.ingest(cx, &open).unwrap();
        assert_eq!((ingest.status().offset, ingest.status().total), (4, 4));
        assert_eq!(content.status(cx, "mine").unwrap().offset, 4);
        ingest.commit(cx, &Commit { size: Some(4), ..Commit::default() }).unwrap();
        assert!(content.info(cx, &digest).unwrap().labels.is_empty());

        // A file that the records of a namespace do not name is nobody's: the first namespace goes, the bytes stay.
        within("one", |cx| content.delete(cx, &digest).unwrap());
        put(&*content, cx, b"kept", &labels(&[("containerd.io/gc.root", "x")])).unwrap();
        content.update(cx, &digest, &labels(&[("containerd.io/gc.root", "x")]), &Mask::all()).unwrap();
        bed.store.collect().unwrap();
        assert_eq!(read_blob(&*content, cx, &digest, 10).unwrap(), b"data");
    });
    bed.assert_whole();
}

#[test]
fn a_shared_ingest_can_become_something_else() {
    let bed = Bed::new();
    let content = bed.store.content();
    let digest = within("one", |cx| put(&*content, cx, b"data", &Labels::new()).unwrap());
    within("two", |cx| {
        let open = Open { expected: Some(digest.clone()), ..by_ref("mine") };
        let mut ingest = content.ingest(cx, &open).unwrap();
        ingest.write(b" and more").unwrap();
        assert_eq!(ingest.commit(cx, &Commit::default()).unwrap(), sha256(b"data and more"));
        let mut ingest = content.ingest(cx, &open).unwrap();
        ingest.truncate(0).unwrap();
        ingest.write(b"new").unwrap();
        assert_eq!(ingest.commit(cx, &Commit::default()).unwrap(), sha256(b"new"));
    });
    within("one", |cx| assert_eq!(read_blob(&*content, cx, &digest, 10).unwrap(), b"data"));
    bed.assert_whole();
}

#[test]
fn isolated_namespaces_share_only_what_is_labelled() {
    let bed = Bed::with(Sharing::Isolated);
    let content = bed.store.content();
    let digest = within("one", |cx| put(&*content, cx, b"data", &Labels::new()).unwrap());
    let open = Open { expected: Some(digest), ..by_ref("mine") };
    within("two", |cx| {
        assert_eq!(content.ingest(cx, &open).unwrap().status().offset, 0);
        let shareable = labels(&[("containerd.io/namespace.shareable", "true")]);
        bed.store.namespaces().update(cx, "one", &shareable, &Mask::all()).unwrap();
        content.abort(cx, "mine").unwrap();
        assert_eq!(content.ingest(cx, &open).unwrap().status().offset, 4);
    });
}

#[test]
fn labels_and_filters_choose_blobs() {
    let bed = Bed::new();
    let content = bed.store.content();
    within("one", |cx| {
        let a = put(&*content, cx, b"a", &labels(&[("x.y/z", "1"), ("only", "a")])).unwrap();
        let b = put(&*content, cx, b"b", &labels(&[("x.y/z", "2")])).unwrap();
        let found = |filter: &str| -> Vec<_> {
            let infos = content.list(cx, &Filters::parse(&[filter]).unwrap()).unwrap();
            infos.into_iter().map(|info| info.digest).collect()
        };
        let mut both = vec![a.clone(), b.clone()];
        both.sort();
        assert_eq!(found(""), both);
        assert_eq!(found("labels.\"x.y/z\"==2"), std::slice::from_ref(&b));
        assert_eq!(found(&format!("digest=={a}")), std::slice::from_ref(&a));
        assert_eq!(found("labels.only"), std::slice::from_ref(&a));
        let mask = Mask::new(["labels.only".to_owned(), "labels.new".to_owned()]);
        let info = content.update(cx, &a, &labels(&[("new", "n"), ("other", "o")]), &mask).unwrap();
        assert_eq!(info.labels, labels(&[("x.y/z", "1"), ("new", "n")]));
        assert!(info.updated_at > info.created_at);
    });
}

#[test]
fn a_lease_that_is_gone_is_refused() {
    let bed = Bed::new();
    let content = bed.store.content();
    leased("one", "none", |cx| {
        refused(content.ingest(cx, &by_ref("up")), Kind::NotFound, "lease does not exist: not found");
        refused(content.status(cx, "up"), Kind::NotFound, "reference up: not found");
    });
    within("one", |cx| bed.store.leases().create(cx, Some(&"l".parse().unwrap()), &Labels::new()).unwrap());
    let mut ingest = leased("one", "l", |cx| content.ingest(cx, &by_ref("up")).unwrap());
    ingest.write(b"data").unwrap();
    within("one", |cx| bed.store.leases().delete(cx, "l").unwrap());
    leased("one", "l", |cx| {
        refused(ingest.commit(cx, &Commit::default()), Kind::NotFound, "lease does not exist: not found");
    });
    // The bytes are still there for a commit without it.
    within("one", |cx| ingest.commit(cx, &Commit::default()).map(drop).unwrap());
    bed.assert_whole();
}

#[test]
fn a_file_without_a_record_is_never_believed() {
    let bed = Bed::new();
    let digest = sha256(b"data");
    std::fs::write(bed.blob_path(&digest), b"evil").unwrap();
    let content = bed.store.content();
    within("one", |cx| {
        let open = Open { expected: Some(digest.clone()), ..by_ref("up") };
        assert_eq!(content.ingest(cx, &open).unwrap().status().offset, 0);
        put(&*content, cx, b"data", &Labels::new()).unwrap();
        assert_eq!(read_blob(&*content, cx, &digest, 10).unwrap(), b"data");
    });
}

#[test]
fn a_blob_whose_bytes_are_lost_can_be_written_again() {
    let bed = Bed::new();
    let content = bed.store.content();
    let whole = b"the bytes of a blob";
    let refs = labels(&[("containerd.io/gc.root", "1")]);
    let digest = within("one", |cx| put(&*content, cx, whole, &refs).unwrap());
    within("two", |cx| put(&*content, cx, whole, &Labels::new()).unwrap());
    let open = Open { expected: Some(digest.clone()), ..by_ref("up") };
    for how in ["missing", "cut", "empty", "flipped"] {
        let path = bed.blob_path(&digest);
        let mut bytes = whole.to_vec();
        match how {
            "cut" => bytes.truncate(5),
            "empty" => bytes.clear(),
            _ => bytes[3] ^= 1,
        }
        std::fs::remove_file(&path).unwrap();
        if how != "missing" {
            std::fs::write(&path, bytes).unwrap();
        }
        within("one", |cx| {
            if how == "flipped" {
                assert!(content.discard_damaged(cx, &digest).unwrap());
            }
            assert_eq!(content.info(cx, &digest).unwrap_err().kind(), Kind::NotFound, "{how}");
            // Neither is there anything to share from the other namespace.
            let mut ingest = content.ingest(cx, &open).unwrap();
            assert_eq!(ingest.status().offset, 0);
            ingest.write(whole).unwrap();
            let more = Commit { labels: labels(&[("more", how)]), ..Commit::default() };
            assert_eq!(ingest.commit(cx, &more).unwrap(), digest);
            let info = content.info(cx, &digest).unwrap();
            assert_eq!(info.labels, labels(&[("containerd.io/gc.root", "1"), ("more", how)]));
            assert!(!content.discard_damaged(cx, &digest).unwrap());
        });
        // One that is written again is whole for every namespace that knows it.
        within("two", |cx| assert_eq!(read_blob(&*content, cx, &digest, 100).unwrap(), whole));
    }
    bed.assert_whole();
}

#[test]
fn a_commit_replaces_damaged_bytes_of_another_namespace() {
    let bed = Bed::with(Sharing::Isolated);
    let content = bed.store.content();
    let digest = within("one", |cx| put(&*content, cx, b"data", &Labels::new()).unwrap());
    std::fs::remove_file(bed.blob_path(&digest)).unwrap();
    std::fs::write(bed.blob_path(&digest), b"evil").unwrap();
    within("two", |cx| {
        put(&*content, cx, b"data", &Labels::new()).unwrap();
        assert_eq!(read_blob(&*content, cx, &digest, 10).unwrap(), b"data");
    });
}

#[test]
fn an_ingest_takes_hundreds_of_megabytes_a_second() {
    let bed = Bed::new();
    let content = bed.store.content();
    let piece = vec![0x5a_u8; 1024 * 1024];
    within("one", |cx| {
        let mut ingest = content.ingest(cx, &by_ref("up")).unwrap();
        let start = Instant::now();
        for _ in 0..256 {
            ingest.write(&piece).unwrap();
        }
        let written = start.elapsed();
        ingest.commit(cx, &Commit::default()).unwrap();
        let committed = start.elapsed();
        println!(
            "256 MiB: {:.0} MB/s written, {:.0} MB/s with commit",
            268.4 / written.as_secs_f64(),
            268.4 / committed.as_secs_f64()
        );
    });
}

/// What a client may do with an ingest.
#[derive(Clone, Debug)]
enum Step {
    Write(usize),
    Cut(u64),
    /// The writer goes, perhaps with the daemon, and another comes.
    Again {
        restart: bool,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Around the size at which pieces are joined before they are written.
    let size = prop_oneof![1..100_usize, 200_000..300_000_usize, 600_000..700_000_usize];
    let step = prop_oneof![
        6 => size.prop_map(Step::Write),
        2 => (0..100_u64).prop_map(Step::Cut),
        1 => any::<bool>().prop_map(|restart| Step::Again { restart }),
    ];
    prop::collection::vec(step, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn an_ingest_is_a_file_that_survives_its_writers(steps in steps()) {
        let mut bed = Bed::new();
        let mut model: Vec<u8> = Vec::new();
        let mut ingest = within("one", |cx| bed.store.content().ingest(cx, &by_ref("up")).unwrap());
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Write(size) => {
                    let bytes = vec![u8::try_from(number).unwrap(); size];
                    ingest.write(&bytes).unwrap();
                    model.extend(bytes);
                }
                Step::Cut(percent) => {
                    let size = model.len() as u64 * percent / 100;
                    ingest.truncate(size).unwrap();
                    model.truncate(usize::try_from(size).unwrap());
                }
                Step::Again { restart } => {
                    drop(ingest);
                    if restart {
                        bed = bed.reopened();
                    }
                    ingest = within("one", |cx| bed.store.content().ingest(cx, &by_ref("up")).unwrap());
                }
            }
            prop_assert_eq!(ingest.status().offset, model.len() as u64);
        }
        within("one", |cx| {
            prop_assert_eq!(bed.store.content().status(cx, "up").unwrap().offset, model.len() as u64);
            let digest = ingest.commit(cx, &Commit { size: Some(model.len() as u64), ..Commit::default() }).unwrap();
            prop_assert_eq!(&digest, &sha256(&model));
            prop_assert!(read_blob(&*bed.store.content(), cx, &digest, 1 << 30).unwrap() == model);
            Ok(())
        })?;
        drop(ingest);
        bed.assert_whole();
    }
}
