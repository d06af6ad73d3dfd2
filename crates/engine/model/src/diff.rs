//! Layers: apply one to mounts, or make one from two sets of mounts.

use std::io;
use std::time::SystemTime;

use spec::{Descriptor, Digest, Labels, Result};

use crate::Cx;
use crate::snapshot::Mount;

/// How to apply a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Apply {
    /// Flush the file system before returning.
    pub sync_fs: bool,
}

/// What a layer was, uncompressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its diff id.
    pub diff_id: Digest,
    /// Its uncompressed length, in bytes.
    pub size: u64,
}

/// How to make a layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compare {
    /// The layer's media type; it decides the compression. OCI tar+gzip when empty.
    pub media_type: String,
    /// The ingest to write; a random one when empty.
    pub reference: String,
    /// Labels of the layer's blob.
    pub labels: Labels,
    /// Clamp for times, so that the same tree makes the same layer.
    pub source_date_epoch: Option<SystemTime>,
}

/// Makes trees of layers and layers of trees.
pub trait Differ: Send + Sync {
    /// Applies the layer blob `layer` to what `mounts` make visible. `Unimplemented` for a media type it does not know.
    fn apply(&self, cx: &Cx<'_>, layer: &Descriptor, mounts: &[Mount], apply: &Apply) -> Result<Applied>;

    /// Applies a layer that is still on its way: `layer` gives its compressed bytes. The caller compares the diff id.
    fn apply_stream(
        &self,
        cx: &Cx<'_>,
        media_type: &str,
        layer: &mut (dyn io::Read + Send),
        mounts: &[Mount],
        apply: &Apply,
    ) -> Result<Applied>;

    /// Writes the layer that leads from `lower` to `upper` into the content store.
    fn compare(&self, cx: &Cx<'_>, lower: &[Mount], upper: &[Mount], compare: &Compare)
    -> Result<Descriptor>;
}
