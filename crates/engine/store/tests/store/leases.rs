//! Leases as a client of containerd's lease service knows them.

use model::content::Open;
use model::filter::Filters;
use model::lease::Resource;
use spec::{Kind, Labels};

use crate::bed::{Bed, image, labels, leased, put, refused, sha256, within};

fn resource(kind: &str, id: &str) -> Resource {
    Resource { kind: kind.to_owned(), id: id.to_owned() }
}

#[test]
fn a_lease_lives() {
    let bed = Bed::new();
    let leases = bed.store.leases();
    within("one", |cx| {
        let id = "l".parse().unwrap();
        let made = leases.create(cx, Some(&id), &labels(&[("a", "1")])).unwrap();
        assert_eq!(made.id, "l");
        refused(
            leases.create(cx, Some(&id), &Labels::new()),
            Kind::AlreadyExists,
            "lease \"l\": already exists",
        );
        let random = leases.create(cx, None, &Labels::new()).unwrap();
        assert!(!random.id.is_empty() && random.id != leases.create(cx, None, &Labels::new()).unwrap().id);
        assert_eq!(leases.list(cx, &Filters::parse(&["labels.a==1"]).unwrap()).unwrap(), [made]);
        assert_eq!(leases.list(cx, &Filters::default()).unwrap().len(), 3);
        leases.delete(cx, "l").unwrap();
        refused(leases.delete(cx, "l"), Kind::NotFound, "lease \"l\": not found");
        refused(leases.resources(cx, "l"), Kind::NotFound, "lease \"l\": not found");
    });
}

#[test]
fn resources_are_added_and_removed() {
    let bed = Bed::new();
    let leases = bed.store.leases();
    let digest = sha256(b"x");
    within("one", |cx| {
        leases.create(cx, Some(&"l".parse().unwrap()), &Labels::new()).unwrap();
        let all = [
            resource("content", digest.as_str()),
            resource("images", "app"),
            resource("ingests", "up"),
            resource("snapshots/native", "k"),
        ];
        for one in all.iter().rev() {
            leases.add(cx, "l", one).unwrap();
            leases.add(cx, "l", one).unwrap();
        }
        assert_eq!(leases.resources(cx, "l").unwrap(), all);
        leases.remove(cx, "l", &all[1]).unwrap();
        leases.remove(cx, "l", &all[1]).unwrap();
        assert_eq!(leases.resources(cx, "l").unwrap().len(), 3);
        for (bad, kind, text) in [
            (
                resource("content", "x"),
                Kind::InvalidArgument,
                "invalid content resource id x: invalid checksum digest format: invalid argument",
            ),
            (
                resource("content/x", "x"),
                Kind::InvalidArgument,
                "invalid resource type content/x: invalid argument",
            ),
            (
                resource("snapshots", "x"),
                Kind::InvalidArgument,
                "invalid snapshot resource type snapshots: invalid argument",
            ),
            (
                resource("snapshots/a/b", "x"),
                Kind::InvalidArgument,
                "invalid snapshot resource type snapshots/a/b: invalid argument",
            ),
            (
                resource("tasks", "x"),
                Kind::Unimplemented,
                "resource type tasks not supported yet: not implemented",
            ),
        ] {
            refused(leases.add(cx, "l", &bad), kind, text);
        }
        refused(leases.add(cx, "none", &all[0]), Kind::NotFound, "lease \"none\": not found");
    });
}

#[test]
fn what_is_made_under_a_lease_is_held_by_it() {
    let bed = Bed::new();
    let (content, leases) = (bed.store.content(), bed.store.leases());
    let native = bed.store.snapshotter("native").unwrap();
    within("one", |cx| leases.create(cx, Some(&"l".parse().unwrap()), &Labels::new()).map(drop).unwrap());
    let digest = leased("one", "l", |cx| {
        let digest = put(&*content, cx, b"data", &Labels::new()).unwrap();
        content.ingest(cx, &Open { reference: "up".into(), ..Open::default() }).unwrap();
        native.prepare(cx, "k", "", &Labels::new()).unwrap();
        native.commit(cx, "base", "k", &Default::default()).unwrap();
        native.view(cx, "v", "base", &Labels::new()).unwrap();
        let mut expiring = image("tmp", &digest);
        expiring.labels = labels(&[("containerd.io/gc.expire", "2030-01-01T00:00:00Z")]);
        bed.store.images().create(cx, &expiring, None).unwrap();
        bed.store.images().create(cx, &image("root", &digest), None).unwrap();
        digest
    });
    within("one", |cx| {
        let held = leases.resources(cx, "l").unwrap();
        let expected = [
            resource("content", digest.as_str()),
            resource("images", "tmp"),
            resource("ingests", "up"),
            resource("snapshots/native", "base"),
            resource("snapshots/native", "v"),
        ];
        assert_eq!(held, expected);
    });
}
