//! Images: pull, remove and look at them.
//!
//! ```text
//! store (records by name) ── events ──► follow ──► Index (images by id, names to ids) ──► every answer
//! PullImage, RemoveImage ── told at once ──────────────┘
//! ```
//!
//! An image is known by its id, the digest of its config; its names are the records that lead to that config.

mod fs_info;
mod index;
mod list;
mod pull;
mod remove;
mod status;

use std::sync::Arc;

use ::spec::{Error, ImageConfig};
use model::Result;

pub(crate) use index::Index;

use crate::Cri;

/// An image of the host's platform, with everything in the store.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ImageInfo {
    /// The digest of its config: `sha256:...`.
    pub id: String,
    /// The snapshot of its top layer; empty for an image without layers.
    pub chain_id: String,
    /// Its names with a tag.
    pub repo_tags: Vec<String>,
    /// Its names with a digest.
    pub repo_digests: Vec<String>,
    /// What its config and its layers take in the content store, in bytes.
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
    /// `NotFound`; `InvalidArgument` for what cannot be a name.
    pub(crate) async fn image(&self, name: &str) -> Result<Arc<ImageInfo>> {
        self.images.get(name).ok_or_else(|| Error::not_found(format_args!("image {name:?}")))
    }
}
