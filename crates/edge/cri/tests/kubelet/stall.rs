//! A registry that stops answering: a pull ends when nothing has come for as long as is configured, and not before.

use std::time::Duration;

use api::runtime::v1;
use testkit::image::{Build, Layer};
use testkit::needs;
use testkit::peer::{Fault, Peer};
use testkit::tar::Archive;
use tonic::Code;

use crate::client::Kubelet;
use crate::images::pull_of;

/// As long as anybody waits for an answer here.
const HANG: Duration = Duration::from_secs(25);

fn pull(kubelet: &Kubelet, reference: &str) -> Result<v1::PullImageResponse, tonic::Status> {
    let request = pull_of(reference);
    kubelet.block_images(async |mut client| {
        tokio::time::timeout(HANG, client.pull_image(request)).await.expect("PullImage hangs")
    })
}

#[test]
fn a_pull_of_which_nothing_comes_is_given_up_and_goes_on_when_asked_again() {
    needs!(root, overlayfs, built "containerd");
    let kubelet =
        Kubelet::with("[plugins.'io.containerd.cri.v1.images']\nimage_pull_progress_timeout = '1s'");
    let peer = Peer::start();
    // Of its own: what the daemon has already is not asked for.
    let layer = Archive::new().file("stall", 0o644, &[b's'; 5000]).finish();
    let image = Build::new().layer(Layer::plain(layer)).cmd(&["/stall"]).build();
    let reference = peer.serve("slow", "v1", image);
    for (part, fault) in [("/manifests/", Fault::Silence), ("/blobs/", Fault::StallAfter(100))] {
        peer.fail("GET", part, fault.clone());
        peer.fail("HEAD", part, fault);
        let error = pull(&kubelet, &reference).unwrap_err();
        assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
        assert!(error.message().contains("no progress in 1s (image_pull_progress_timeout)"), "{error}");
        peer.mend();
    }
    assert!(pull(&kubelet, &reference).unwrap().image_ref.starts_with("sha256:"));
    kubelet.check_clean();
}
