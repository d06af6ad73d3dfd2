//! Credentials: who gets them, and who must not.

use image::registry::{Credential, Fixed};
use spec::Kind;
use std::sync::Arc;
use testkit::http::Response;
use testkit::image::busybox;
use testkit::needs;
use testkit::peer::{Fault, Peer};
use testkit::registry::{PASSWORD, Registry, USER};

use crate::place::Place;

fn password() -> Arc<Fixed> {
    Arc::new(Fixed(Credential::Password { user: USER.into(), secret: PASSWORD.into() }))
}

#[test]
fn a_registry_with_passwords_wants_the_right_one() {
    needs!(root, overlayfs, program "docker-registry");
    let (place, registry) = (Place::new(), Registry::with_password());
    let reference = registry.push("x", "v1", &busybox());
    let error = place.pull(&reference).unwrap_err();
    assert_eq!(error.kind(), Kind::Unauthenticated);
    assert!(error.text().contains("no basic auth credentials"), "{error}");
    let mut order = place.order(&reference, "overlayfs");
    let wrong = Credential::Password { user: USER.into(), secret: "wrong".into() };
    order.registry.credentials = Arc::new(Fixed(wrong));
    let error = place.run(order).unwrap_err();
    assert!(error.text().contains("the credentials are refused"), "{error}");
    assert!(!error.text().contains("wrong"), "no password in a message: {error}");
    let mut order = place.order(&reference, "overlayfs");
    order.registry.credentials = password();
    place.run(order).unwrap();
    place.assert_clean();
}

#[test]
fn an_anonymous_token_is_fetched_once() {
    needs!(root, overlayfs);
    let (place, peer) = (Place::new(), Peer::start());
    let reference = peer.serve("some/x", "v1", busybox());
    peer.want_token();
    place.pull(&reference).unwrap();
    let tokens: Vec<_> =
        peer.requests().into_iter().filter(|request| request.path.starts_with("/token")).collect();
    assert_eq!(tokens.len(), 1);
    assert_eq!(tokens[0].path, "/token?service=peer&scope=repository%3Asome%2Fx%3Apull");
}

#[test]
fn a_password_goes_to_the_token_service_and_the_token_to_the_registry() {
    needs!(root, overlayfs);
    let (place, peer) = (Place::new(), Peer::start());
    let reference = peer.serve("x", "v1", busybox());
    peer.want_token();
    let mut order = place.order(&reference, "overlayfs");
    order.registry.credentials = password();
    place.run(order).unwrap();
    for request in peer.requests() {
        let auth = request.headers.get("authorization").map(String::as_str).unwrap_or_default();
        let basic = auth.starts_with("Basic ");
        assert_eq!(basic, request.path.starts_with("/token"), "{} {}", request.path, auth);
    }
}

#[test]
fn credentials_do_not_follow_a_redirect_to_another_host() {
    needs!(root, overlayfs);
    let (place, front, back) = (Place::new(), Peer::start(), Peer::start());
    let made = busybox();
    let layer = made.blobs[0].digest.clone();
    let reference = front.serve("x", "v1", made.clone());
    back.serve("y", "v1", made);
    front.want_token();
    let location = format!("http://{}/v2/y/blobs/{layer}?signature=s", back.host());
    front.fail("GET", &layer, Fault::Answer(Response::new(307, "").header("location", &location)));
    let mut order = place.order(&reference, "overlayfs");
    order.registry.credentials = password();
    order.registry.headers = vec![("x-api-key".into(), "secret".into())];
    place.run(order).unwrap();
    assert!(front.requests().iter().any(|request| request.headers.contains_key("x-api-key")));
    assert!(!back.requests().is_empty());
    for request in back.requests() {
        assert!(!request.headers.contains_key("authorization"), "{request:?}");
        assert!(!request.headers.contains_key("x-api-key"), "{request:?}");
    }
}

#[test]
fn a_foreign_layers_address_gets_no_credentials_even_when_it_asks() {
    needs!(root, overlayfs);
    let (place, front, back) = (Place::new(), Peer::start(), Peer::start());
    let made = busybox();
    let layer = made.blobs[0].clone();
    let mut manifest: serde_json::Value = serde_json::from_slice(&made.manifests[0].bytes).unwrap();
    manifest["layers"][0]["mediaType"] =
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip".into();
    manifest["layers"][0]["urls"] =
        serde_json::json!([format!("http://{}/v2/y/blobs/{}", back.host(), layer.digest)]);
    let mut foreign = made.clone();
    foreign.blobs.remove(0);
    foreign.manifests =
        vec![testkit::image::Blob::new(&made.manifests[0].media_type, manifest.to_string().into_bytes())];
    let reference = front.serve("x", "v1", foreign);
    front.want_token();
    back.serve("y", "v1", made);
    let order = || {
        let mut order = place.order(&reference, "overlayfs");
        order.registry.credentials = password();
        order
    };
    back.want_token();
    assert_eq!(place.run(order()).unwrap_err().kind(), Kind::NotFound);
    assert!(back.requests().iter().all(|request| !request.headers.contains_key("authorization")));
    assert_eq!(back.count("GET", "/token"), 0, "it is not even asked for a token");
    place.assert_clean();
}

/// The `Authorization` fields of the requests to `peer` whose path holds `part`.
fn authorizations(peer: &Peer, part: &str) -> Vec<String> {
    let requests = peer.requests().into_iter().filter(|request| request.path.contains(part));
    requests.map(|request| request.headers.get("authorization").cloned().unwrap_or_default()).collect()
}

#[test]
fn redirected_host_that_asks_for_a_token_gets_an_anonymous_one() {
    needs!(root, overlayfs);
    let (place, front, back) = (Place::new(), Peer::start(), Peer::start());
    let made = busybox();
    let layer = made.blobs[0].digest.clone();
    let reference = front.serve("x", "v1", made.clone());
    back.serve("y", "v1", made);
    front.want_token();
    back.want_token();
    let location = format!("http://{}/v2/y/blobs/{layer}", back.host());
    front.fail("GET", &layer, Fault::Answer(Response::new(307, "").header("location", &location)));
    let mut order = place.order(&reference, "overlayfs");
    order.registry.credentials = password();
    order.registry.headers = vec![("x-api-key".into(), "secret".into())];
    place.run(order).unwrap();
    assert_eq!(authorizations(&back, "/token"), [""], "no password, and one request for a token");
    let blobs = authorizations(&back, "/blobs/");
    assert_eq!(blobs[0], "");
    assert!(blobs[1..].iter().all(|field| field.starts_with("Bearer token-")), "{blobs:?}");
    assert!(back.requests().iter().all(|request| !request.headers.contains_key("x-api-key")));
    let own = authorizations(&front, "/blobs/");
    assert!(own.iter().all(|field| !blobs[1..].contains(field)), "a token goes to its own host alone");
    place.assert_clean();
}

#[test]
fn registry_that_redirects_everything_is_followed_for_manifests_too() {
    needs!(root, overlayfs);
    let (place, front, back) = (Place::new(), Peer::start(), Peer::start());
    let made = busybox();
    back.serve("x", "v1", made.clone());
    back.want_token();
    let reference = front.serve("x", "v1", made.clone());
    let digests = made.manifests.iter().chain(&made.blobs).map(|blob| blob.digest.clone());
    for (method, part) in [("HEAD", "v1".to_owned())].into_iter().chain(digests.map(|digest| ("GET", digest)))
    {
        let place = if made.blobs.iter().any(|blob| blob.digest == part) { "blobs" } else { "manifests" };
        let location = format!("http://{}/v2/x/{place}/{part}", back.host());
        front.fail(method, &part, Fault::Answer(Response::new(307, "").header("location", &location)));
    }
    place.pull(&reference).unwrap();
    assert_eq!(back.count("GET", "/token"), 1);
    place.assert_clean();
}

#[test]
fn token_service_that_redirects_is_followed() {
    needs!(root, overlayfs);
    for status in [301, 302, 303, 307, 308] {
        let (place, front, other) = (Place::new(), Peer::start(), Peer::start());
        let reference = front.serve("x", "v1", busybox());
        front.want_token();
        let to = |location: String| Fault::Answer(Response::new(status, "").header("location", &location));
        other.fail("GET", "/hop", to(format!("http://{}/token?back", front.host())));
        front.fail("GET", "/token?service", to(format!("http://{}/hop", other.host()))).times(1);
        place.pull(&reference).unwrap_or_else(|error| panic!("{status}: {error}"));
        assert_eq!(other.count("GET", "/hop"), 1);
        place.assert_clean();
    }
}

#[test]
fn password_follows_a_token_service_on_its_own_host_alone() {
    needs!(root, overlayfs);
    let with_password = |front: &Peer, other: &Peer, location: String| {
        let place = Place::new();
        let reference = front.serve("x", "v1", busybox());
        front.want_token();
        let to = |location: String| Fault::Answer(Response::new(307, "").header("location", &location));
        // Another name of this machine is another host.
        let named = front.host().replace("127.0.0.1", "localhost");
        other.fail("GET", "/hop", to(format!("http://{named}/token?back")));
        front.fail("GET", "/token?service", to(location)).times(1);
        let mut order = place.order(&reference, "overlayfs");
        order.registry.credentials = password();
        place.run(order).unwrap();
        place.assert_clean();
    };
    let (front, other) = (Peer::start(), Peer::start());
    with_password(&front, &other, format!("http://{}/token?moved", front.host()));
    let fields = authorizations(&front, "/token?moved");
    assert!(fields.len() == 1 && fields[0].starts_with("Basic "), "{fields:?}");
    let (front, other) = (Peer::start(), Peer::start());
    let elsewhere = other.host().replace("127.0.0.1", "localhost");
    with_password(&front, &other, format!("http://{elsewhere}/hop"));
    assert_eq!(authorizations(&other, "/hop"), [""]);
    assert_eq!(authorizations(&front, "/token?back"), [""]);
}
