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
