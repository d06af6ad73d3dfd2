//! Layers applied to mounts, and layers made from mounts.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use model::Cx;
use model::content::{BlobReader, Content};
use model::diff::{Applied, Apply, Compare, Differ};
use model::snapshot::Mount;
use spec::image::media;
use spec::{Descriptor, Result};

mod apply;
mod compare;
mod stream;

pub use apply::ApplyError;
pub use compare::CompareError;
pub use stream::InflateError;

/// Bounds on what one layer may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that every layer may have uncompressed, however small it is compressed.
    pub free_bytes: u64,
    /// How many times its compressed length a larger layer may have.
    pub ratio: u64,
    /// Bytes that no layer may exceed.
    pub most_bytes: u64,
    /// Entries that no layer may exceed.
    pub most_entries: u64,
}

impl Default for Limits {
    /// 4 GiB at once, 300 times the compressed length beyond, never over 1 TiB or 20 million entries.
    ///
    /// Real layers stay under a ratio of 20; gzip cannot exceed 1032, so 300 keeps room for sparse disk images.
    fn default() -> Self {
        Self { free_bytes: 4 << 30, ratio: 300, most_bytes: 1 << 40, most_entries: 20_000_000 }
    }
}

/// containerd's "walking" differ: it needs nothing of a snapshotter but its mounts.
pub struct Walking {
    content: Arc<dyn Content>,
    temporary: PathBuf,
    limits: Limits,
}

impl Walking {
    /// A differ over `content`, with its temporary mount points in `/run/containerd/tmpmounts`.
    pub fn new(content: Arc<dyn Content>) -> Self {
        let temporary = PathBuf::from("/run/containerd/tmpmounts");
        Self { content, temporary, limits: Limits::default() }
    }

    /// The same, with its temporary mount points in `dir`.
    #[must_use]
    pub fn with_temporary(self, dir: impl Into<PathBuf>) -> Self {
        Self { temporary: dir.into(), ..self }
    }

    /// The same, with other bounds.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }
}

impl Differ for Walking {
    fn apply(&self, cx: &Cx<'_>, layer: &Descriptor, mounts: &[Mount], apply: &Apply) -> Result<Applied> {
        check_media_type(&layer.media_type)?;
        let blob = self.content.open(cx, &layer.digest)?;
        self.apply_stream(cx, &layer.media_type, &mut BlobReader::new(blob), mounts, apply)
    }

    fn apply_stream(
        &self,
        cx: &Cx<'_>,
        media_type: &str,
        layer: &mut (dyn io::Read + Send),
        mounts: &[Mount],
        apply: &Apply,
    ) -> Result<Applied> {
        check_media_type(media_type)?;
        Ok(apply::apply(cx, layer, mounts, apply, self.limits, &self.temporary)?)
    }

    fn compare(
        &self,
        cx: &Cx<'_>,
        lower: &[Mount],
        upper: &[Mount],
        compare: &Compare,
    ) -> Result<Descriptor> {
        let sides = compare::Sides { lower, upper };
        Ok(compare::compare(cx, self.content.as_ref(), &sides, compare, &self.temporary)?)
    }
}

/// Only tar layers, in whatever compression, can be walked into a tree.
fn check_media_type(media_type: &str) -> Result<()> {
    let is_tar = [".tar", "+gzip", "+zstd", ".gzip", ".zstd"].iter().any(|end| media_type.ends_with(end));
    if is_tar && media::is_layer(media_type) {
        return Ok(());
    }
    Err(spec::Error::unimplemented(format!("currently unsupported media type {media_type:?} for a layer")))
}
