//! What a transfer works on: the namespaced stores, by their traits.

use std::sync::Arc;

use async_trait::async_trait;
use model::content::Content;
use model::diff::Differ;
use model::image::Images;
use model::lease::Leases;
use model::snapshot::Snapshotter;
use model::{Ctx, Result};
use spec::{Descriptor, Platform};

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

/// Says whether an image may be pulled.
#[async_trait]
pub trait Verifier: Send + Sync {
    /// Passes judgement on what `name` was resolved to, before anything of it is fetched.
    ///
    /// # Errors
    /// The image may not be pulled, or could not be judged.
    async fn verify(&self, ctx: &Ctx, name: &str, target: &Descriptor) -> Result<()>;
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
    /// The image's name, where the driver is to be told of which image each layer is: it may have the layer elsewhere.
    pub told_of: Option<String>,
}
