//! Images: pull, remove and look at them.
//!
//! ```text
//! store (records by name) ── events ──► follow ──► Index (images by id, names to ids) ──► every answer
//! PullImage, RemoveImage ── at once ───────────────┘
//! ```
//!
//! An image is known by its id, the digest of its config; its names are the records that lead to that config. One that
//! the kubelet pulled has three: the id itself, the name by tag, and the name by digest.
//!
//! Invariant: an answer is made from memory; the store is read when something has changed, never once for each question.

mod auth;
mod follow;
mod fs_info;
mod index;
mod list;
mod name;
mod platform;
mod pull;
mod read;
mod remove;
mod status;
mod unpack;

use std::sync::Arc;

use ::spec::{Descriptor, Error, ImageConfig, Labels};
use model::Result;

pub use auth::configured_login;
pub(crate) use index::Index;

use crate::Cri;

/// The label of a record that the kubelet's images are made of.
const MANAGED: (&str, &str) = ("io.cri-containerd.image", "managed");
/// The label of a record that the kubelet shall never remove.
const PINNED: (&str, &str) = ("io.cri-containerd.pinned", "pinned");

/// The pause image that containerd 2.3 runs pods with unless it is told another. Where the built-in pause is used, one that
/// another client brings is pinned all the same, as containerd would pin it.
const DEFAULT_PAUSE: &str = "registry.k8s.io/pause:3.10.2";

/// An image of one platform, the host's or a handler's, with its documents in the store.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ImageInfo {
    /// The digest of its config: `sha256:...`.
    pub id: String,
    /// What its names lead to: an index or a manifest.
    pub target: Descriptor,
    /// The snapshot of its top layer; empty for an image without layers.
    pub chain_id: String,
    /// Its names with a tag.
    pub repo_tags: Vec<String>,
    /// Its names with a digest.
    pub repo_digests: Vec<String>,
    /// What its documents and its layers take in the content store, in bytes.
    pub size: u64,
    /// What it says of itself.
    pub config: Arc<ImageConfig>,
    /// Whether the kubelet shall never remove it.
    pub pinned: bool,
}

impl Cri {
    /// The image that a name, a digest, an id or the beginning of an id names.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` when several ids begin so.
    pub(crate) async fn image(&self, name: &str) -> Result<Arc<ImageInfo>> {
        self.images.get(name)
    }

    /// The labels of a record of ours by its name.
    fn labels_of(&self, name: &str) -> Labels {
        let mut labels = Labels::from([(MANAGED.0.to_owned(), MANAGED.1.to_owned())]);
        let images = &self.config.images;
        let pause = if images.sandbox_image.is_empty() { DEFAULT_PAUSE } else { &images.sandbox_image };
        let mut pinned = images.pinned_images.values().map(String::as_str).chain([pause]);
        if pinned.any(|pinned| name::is_pinned(pinned, name)) {
            labels.insert(PINNED.0.to_owned(), PINNED.1.to_owned());
        }
        labels
    }
}

/// Whether labels say that the kubelet shall never remove the image.
fn says_pinned(labels: &Labels) -> bool {
    labels.get(PINNED.0).is_some_and(|value| value == PINNED.1)
}

/// An error for a lookup that found nothing.
fn missing(name: &str) -> Error {
    let shown: String = name.chars().take(256).collect();
    Error::not_found(format_args!("image {shown:?}"))
}
