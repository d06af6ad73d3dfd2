//! Pushes to a real registry.

use std::sync::{Arc, Mutex};

use image::push::{self, Push};
use image::registry::{Config, Credential, Fixed};
use testkit::http::Request;
use testkit::image::{Build, Image, busybox, sha256};
use testkit::needs;
use testkit::peer::Peer;
use testkit::registry::{PASSWORD, Registry, USER};

use crate::place::Place;

fn order(place: &Place, from: &str, to: &str) -> Push {
    let target = place.cx(|cx| place.services.images.get(cx, from)).unwrap().target;
    Push {
        reference: to.parse().unwrap(),
        target,
        platforms: Vec::new(),
        non_distributable: false,
        registry: Config { default_scheme: Some("http".into()), ..Config::default() },
    }
}

#[test]
fn a_pulled_image_is_pushed_whole_and_pulls_again() {
    needs!(root, overlayfs, program "docker-registry");
    let (place, from, to) = (Place::new(), Peer::start(), Registry::with_password());
    let made = Image::index(vec![busybox(), Build::new().architecture("s390x").build()]);
    let reference = from.serve("a/x", "v1", made.clone());
    let mut pull = place.order(&reference, "overlayfs");
    pull.platforms.clear();
    place.run(pull).unwrap();
    let target = format!("{}/b/y:v2", to.host());
    let mut push = order(&place, &reference, &target);
    push.registry.credentials =
        Arc::new(Fixed(Credential::Password { user: USER.into(), secret: PASSWORD.into() }));
    let events = Arc::new(Mutex::new(Vec::new()));
    let into = events.clone();
    let sink: image::progress::Sink = Arc::new(move |event| into.lock().unwrap().push(event));
    place.block_on(push::run(&place.ctx, &place.services, push.clone(), Some(sink))).unwrap();
    let get = Request::new("GET", "/v2/b/y/manifests/v2").header("accept", &made.top().media_type);
    assert_eq!(sha256(&to.send(get).body), made.top().digest);
    let complete = events.lock().unwrap().iter().filter(|event| event.event == "complete").count();
    assert_eq!(complete, 6, "two configs, a layer, two manifests and the index");
    place.block_on(push::run(&place.ctx, &place.services, push, None)).unwrap();
    let fresh = Place::new();
    let mut pull = fresh.order(&target, "native");
    pull.registry.credentials =
        Arc::new(Fixed(Credential::Password { user: USER.into(), secret: PASSWORD.into() }));
    assert_eq!(fresh.run(pull).unwrap().target.digest.as_str(), made.top().digest);
    place.assert_clean();
}

#[test]
fn a_blob_of_another_repository_is_shared_not_sent() {
    needs!(root, overlayfs, program "docker-registry");
    let (place, registry) = (Place::new(), Registry::start());
    let reference = registry.push("a/x", "v1", &busybox());
    place.pull(&reference).unwrap();
    let push = order(&place, &reference, &format!("{}/b/y:v1", registry.host()));
    let events = Arc::new(Mutex::new(Vec::new()));
    let into = events.clone();
    let sink: image::progress::Sink = Arc::new(move |event| into.lock().unwrap().push(event));
    place.block_on(push::run(&place.ctx, &place.services, push, Some(sink))).unwrap();
    let existing = events.lock().unwrap().iter().filter(|event| event.event == "already exists").count();
    assert_eq!(existing, 2, "config and layer are mounted");
}
