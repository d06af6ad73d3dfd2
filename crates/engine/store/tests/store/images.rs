//! Images as a client of containerd's image service knows them.

use std::time::{Duration, UNIX_EPOCH};

use model::filter::Filters;
use model::image::Delete;
use model::mask::Mask;
use spec::{Descriptor, Kind, Labels};

use crate::bed::{Bed, image, labels, refused, sha256, within};

#[test]
fn an_image_lives() {
    let bed = Bed::new();
    let images = bed.store.images();
    let (first, second) = (sha256(b"1"), sha256(b"2"));
    within("one", |cx| {
        let mut app = image("docker.io/library/app:1", &first);
        app.labels = labels(&[("a", "1"), ("empty", "")]);
        app.target.annotations = labels(&[("note", "n")]);
        let made = images.create(cx, &app, None).unwrap();
        assert_eq!(made.labels, labels(&[("a", "1")]));
        assert!(made.created_at > UNIX_EPOCH && made.created_at == made.updated_at);
        assert_eq!(images.get(cx, &app.name).unwrap(), made);
        refused(
            images.create(cx, &app, None),
            Kind::AlreadyExists,
            "image \"docker.io/library/app:1\": already exists",
        );

        app.target = Descriptor::new("x", second.clone(), 7);
        app.labels = labels(&[("b", "2")]);
        let mask = Mask::new(["labels.b".to_owned(), "annotations.note".to_owned()]);
        let updated = images.update(cx, &app, &mask, None).unwrap();
        assert_eq!(updated.labels, labels(&[("a", "1"), ("b", "2")]));
        assert_eq!(updated.target.digest, first);
        assert!(updated.target.annotations.is_empty());
        let updated = images.update(cx, &app, &Mask::all(), None).unwrap();
        assert_eq!(
            (updated.labels.clone(), updated.target.digest.clone()),
            (app.labels.clone(), second.clone())
        );
        assert_eq!(updated.created_at, made.created_at);
        assert!(updated.updated_at > made.updated_at);

        let stale = Delete { target: Some(Descriptor::new("x", first.clone(), 1)) };
        refused(
            images.delete(cx, &app.name, &stale),
            Kind::NotFound,
            &format!("image \"docker.io/library/app:1\" has target {second}, not {first}: not found"),
        );
        images.delete(cx, &app.name, &Delete::default()).unwrap();
        let gone = "image \"docker.io/library/app:1\": not found";
        refused(images.get(cx, &app.name), Kind::NotFound, gone);
        refused(images.delete(cx, &app.name, &Delete::default()), Kind::NotFound, gone);
        refused(images.update(cx, &app, &Mask::all(), None), Kind::NotFound, gone);
    });
}

#[test]
fn what_is_no_image_is_refused() {
    let bed = Bed::new();
    let images = bed.store.images();
    let good = image("app", &sha256(b"1"));
    within("one", |cx| {
        let mut bad = image("", &sha256(b"1"));
        refused(
            images.create(cx, &bad, None),
            Kind::InvalidArgument,
            "image name must not be empty: invalid argument",
        );
        refused(
            images.update(cx, &bad, &Mask::all(), None),
            Kind::InvalidArgument,
            "image name is required for update: invalid argument",
        );
        bad = good.clone();
        bad.target.size = 0;
        refused(
            images.create(cx, &bad, None),
            Kind::InvalidArgument,
            "target.Size must be greater than zero: invalid argument",
        );
        bad = good.clone();
        bad.target.media_type.clear();
        refused(
            images.create(cx, &bad, None),
            Kind::InvalidArgument,
            "target.MediaType must be set: invalid argument",
        );
        bad = image("a\0b", &sha256(b"1"));
        refused(
            images.create(cx, &bad, None),
            Kind::InvalidArgument,
            "name \"a\\0b\" contains a zero byte: invalid argument",
        );
        images.create(cx, &good, None).unwrap();
        refused(
            images.update(cx, &good, &Mask::new(["name".to_owned()]), None),
            Kind::InvalidArgument,
            "cannot update \"name\" field on image \"app\": invalid argument",
        );
        refused(
            Filters::parse(&["name=app"]),
            Kind::InvalidArgument,
            "filters: parse error: [name >|=|< app]: unsupported operator \"=\": invalid argument",
        );
    });
    model::Ctx::background().on_this_thread(|cx| {
        refused(
            images.get(cx, "app"),
            Kind::FailedPrecondition,
            "namespace is required: failed precondition",
        );
    });
}

#[test]
fn lists_are_sorted_filtered_and_of_one_namespace() {
    let bed = Bed::new();
    let images = bed.store.images();
    for (namespace, name) in [("one", "b"), ("one", "a"), ("one", "c/d"), ("two", "e")] {
        within(namespace, |cx| {
            images.create(cx, &image(name, &sha256(name.as_bytes())), None).map(drop).unwrap()
        });
    }
    within("one", |cx| {
        let names = |filters: &[&str]| -> Vec<String> {
            let found = images.list(cx, &Filters::parse(filters).unwrap()).unwrap();
            found.into_iter().map(|image| image.name).collect()
        };
        assert_eq!(names(&[]), ["a", "b", "c/d"]);
        assert_eq!(names(&["name~=/^c/", "name==a"]), ["a", "c/d"]);
        assert_eq!(names(&[&format!("target.digest=={}", sha256(b"b"))]), ["b"]);
    });
    within("three", |cx| assert!(images.list(cx, &Filters::default()).unwrap().is_empty()));
}

#[test]
fn an_epoch_sets_the_times() {
    let bed = Bed::new();
    let images = bed.store.images();
    let at = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    within("one", |cx| {
        let made = images.create(cx, &image("app", &sha256(b"1")), Some(at)).unwrap();
        assert_eq!((made.created_at, made.updated_at), (at, at));
        assert_eq!(images.get(cx, "app").unwrap().created_at, at);
    });
}

#[test]
fn records_survive_a_restart() {
    let bed = Bed::new();
    let made = within("one", |cx| bed.store.images().create(cx, &image("app", &sha256(b"1")), None).unwrap());
    let bed = bed.reopened();
    within("one", |cx| {
        assert_eq!(bed.store.images().get(cx, "app").unwrap(), made);
        assert_eq!(bed.store.namespaces().list(cx).unwrap(), [("one".to_owned(), Labels::new())]);
    });
}
