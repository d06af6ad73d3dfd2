//! Pulls, removals and collections at once: whatever the order, nothing that is kept goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use model::content::read_blob;
use model::image::Delete;
use model::snapshot::Snapshotter;
use spec::{Digest, Kind, Labels};

use crate::bed::{Bed, image, labels, leased, put, within};

/// One pull as a client makes it: all under a lease, the image last, then the lease ends.
fn pull(bed: &Bed, native: &Arc<dyn Snapshotter>, name: &str, round: usize) -> (Digest, Vec<Digest>) {
    let content = bed.store.content();
    let lease = format!("lease-{name}-{round}");
    within("one", |cx| {
        bed.store.leases().create(cx, Some(&lease.parse().unwrap()), &Labels::new()).unwrap();
    });
    let made = leased("one", &lease, |cx| {
        let ensure = |bytes: &[u8], labels: &Labels| match put(&*content, cx, bytes, labels) {
            Ok(digest) => digest,
            // Another puller was first; the lease holds it now, and its labels are what we would have given it.
            Err(error) if error.kind() == Kind::AlreadyExists => crate::bed::sha256(bytes),
            Err(error) => panic!("{error}"),
        };
        let chain = format!("chain-{name}");
        let own = ensure(format!("layer of {name}").as_bytes(), &Labels::new());
        let shared = loop {
            match put(&*content, cx, b"a layer that all have", &Labels::new()) {
                Ok(digest) => break digest,
                Err(error) if error.kind() == Kind::AlreadyExists => {
                    break crate::bed::sha256(b"a layer that all have");
                }
                // Another puller writes it right now.
                Err(error) if error.kind() == Kind::Unavailable => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        };
        let refs = [
            ("containerd.io/gc.ref.content.l.0", own.as_str()),
            ("containerd.io/gc.ref.content.l.1", shared.as_str()),
            ("containerd.io/gc.ref.snapshot.native", chain.as_str()),
        ];
        let manifest = ensure(format!("manifest of {name}").as_bytes(), &labels(&refs));
        let key = format!("extract-{name}-{round}");
        native.prepare(cx, &key, "", &Labels::new()).unwrap();
        match native.commit(cx, &chain, &key, &Default::default()) {
            Ok(()) => {}
            Err(error) if error.kind() == Kind::AlreadyExists => native.remove(cx, &key).unwrap(),
            Err(error) => panic!("{error}"),
        }
        bed.store.images().create(cx, &image(name, &manifest), None).unwrap();
        (manifest, vec![own, shared])
    });
    within("one", |cx| bed.store.leases().delete(cx, &lease).unwrap());
    made
}

#[test]
fn collections_never_take_what_a_pull_has_made() {
    let bed = Bed::new();
    let native = bed.store.snapshotter("native").unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                bed.store.collect().unwrap();
            }
        });
        let pullers: Vec<_> = ["a", "b", "c"]
            .into_iter()
            .map(|name| {
                let (bed, native) = (&bed, &native);
                scope.spawn(move || {
                    for round in 0..15 {
                        let (manifest, layers) = pull(bed, native, name, round);
                        within("one", |cx| {
                            for digest in layers.iter().chain([&manifest]) {
                                read_blob(&*bed.store.content(), cx, digest, 100).unwrap();
                            }
                            native.stat(cx, &format!("chain-{name}")).unwrap();
                            bed.store.images().delete(cx, name, &Delete::default()).unwrap();
                        });
                    }
                })
            })
            .collect();
        let results: Vec<_> = pullers.into_iter().map(|puller| puller.join()).collect();
        done.store(true, Ordering::Relaxed);
        for result in results {
            result.unwrap();
        }
    });
    bed.store.collect().unwrap();
    assert_eq!(bed.store.check().unwrap(), []);
}

#[test]
fn two_writers_of_one_blob_agree() {
    let bed = Bed::new();
    let content = bed.store.content();
    let bytes = vec![1_u8; 300_000];
    let made: Vec<_> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..6)
            .map(|number| {
                let (content, bytes) = (&content, &bytes);
                let namespace = if number % 2 == 0 { "one" } else { "two" };
                scope.spawn(move || {
                    within(namespace, |cx| {
                        let open =
                            model::content::Open { reference: format!("up-{number}"), ..Default::default() };
                        let mut ingest = content.ingest(cx, &open).unwrap();
                        ingest.write(bytes).unwrap();
                        ingest.commit(cx, &Default::default())
                    })
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 2);
    for error in made.into_iter().filter_map(Result::err) {
        assert_eq!(error.kind(), Kind::AlreadyExists, "{error}");
    }
    assert_eq!(bed.store.check().unwrap(), []);
}

#[test]
fn writers_share_their_flushes() {
    let bed = Bed::new();
    let images = bed.store.images();
    let digest = crate::bed::sha256(b"x");
    let rate = |writers: usize| {
        let start = std::time::Instant::now();
        std::thread::scope(|scope| {
            for writer in 0..writers {
                let (images, digest) = (&images, &digest);
                scope.spawn(move || {
                    within("one", |cx| {
                        for number in 0..200 {
                            images
                                .create(cx, &image(&format!("{writers}-{writer}-{number}"), digest), None)
                                .unwrap();
                        }
                    });
                });
            }
        });
        (writers * 200) as f64 / start.elapsed().as_secs_f64()
    };
    println!("durable records a second: {:.0} by one writer, {:.0} by eight", rate(1), rate(8));
    within("one", |cx| assert_eq!(images.list(cx, &model::Filters::default()).unwrap().len(), 1800));
}
