//! What a transfer works on: the namespaced stores, by their traits.

use std::sync::Arc;

use model::content::Content;
use model::diff::Differ;
use model::image::Images;
use model::lease::Leases;
use model::snapshot::Snapshotter;
use spec::Platform;

/// The stores of a transfer; clones share them.
#[derive(Clone)]
pub struct Services {
    /// Where blobs go and come from.
    pub content: Arc<dyn Content>,
    /// Where names go and come from.
    pub images: Arc<dyn Images>,
    /// What holds everything until the names are written.
    pub leases: Arc<dyn Leases>,
    /// What applies layers.
    pub differ: Arc<dyn Differ>,
}

/// Where the layers of an image for one platform are unpacked.
#[derive(Clone)]
pub struct Unpack {
    /// The platform whose image is unpacked.
    pub platform: Platform,
    /// The driver's name, as it stands in labels: `overlayfs`.
    pub snapshotter: String,
    /// The namespace's view of that driver.
    pub driver: Arc<dyn Snapshotter>,
}
