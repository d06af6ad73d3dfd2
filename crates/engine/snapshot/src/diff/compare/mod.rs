//! Making a layer: what leads from one tree to another.
//!
//! Two ways find the changes. When both sides lie on the same directories, the upper directory of the overlay *is* the
//! change and is read as it stands ([`upper`]). Otherwise both trees are mounted and walked side by side ([`walk`]).
//! [`write`] makes the archive of either, [`sink`] compresses, hashes and stores it.
//!
//! Invariant: equal trees make equal layers: names are sorted, times have whole seconds, nothing of the host's users,
//! inodes or clock gets in.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use model::Cx;
use model::content::Content;
use model::diff::Compare;
use model::snapshot::Mount;
use spec::{Descriptor, Digest, HasKind, Kind, Result, media};
use sys::path::at;

use crate::mount::{self, MountError};

mod sink;
mod upper;
mod walk;
mod write;

use sink::{Packing, Sink};
use write::LayerWriter;

/// Why a layer could not be made.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum CompareError {
    #[error("unsupported diff media type: {0}: not implemented")]
    MediaType(String),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error("cannot {what} {path}")]
    Files { what: &'static str, path: PathBuf, source: sys::Error },
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot write the layer")]
    Write(#[source] std::io::Error),
    #[error("{0}")]
    Content(spec::Error),
}

impl HasKind for CompareError {
    fn kind(&self) -> Kind {
        match self {
            Self::MediaType(_) => Kind::Unimplemented,
            Self::Mount(error) => error.kind(),
            Self::Files { .. } | Self::Read { .. } | Self::Write(_) => Kind::Internal,
            Self::Content(error) => error.kind(),
        }
    }
}

impl CompareError {
    fn files(what: &'static str, path: &Path) -> impl FnOnce(sys::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Files { what, path, source }
    }
}

/// The ends of a comparison.
pub(super) struct Sides<'a> {
    pub lower: &'a [Mount],
    pub upper: &'a [Mount],
}

/// Writes the layer that leads from the lower side to the upper one.
pub(super) fn compare(
    cx: &Cx<'_>,
    content: &dyn Content,
    sides: &Sides<'_>,
    compare: &Compare,
    temporary: &Path,
) -> Result<Descriptor, CompareError> {
    let media_type = if compare.media_type.is_empty() { media::LAYER_GZIP } else { &compare.media_type };
    let packing = match media_type {
        media::LAYER => Packing::None,
        media::LAYER_GZIP => Packing::Gzip,
        media::LAYER_ZSTD => Packing::Zstd,
        other => return Err(CompareError::MediaType(other.to_owned())),
    };
    let mut sink = Sink::open(cx, content, compare)?;
    let done = fill(cx, &mut sink, packing, sides, compare, temporary)
        .and_then(|diff_id| sink.commit(cx, content, compare, packing, &diff_id));
    match done {
        Ok((digest, size)) => Ok(Descriptor::new(media_type, digest, size)),
        Err(error) => Err(sink.abandon(cx, content, error)),
    }
}

fn fill(
    cx: &Cx<'_>,
    sink: &mut Sink,
    packing: Packing,
    sides: &Sides<'_>,
    compare: &Compare,
    temporary: &Path,
) -> Result<Digest, CompareError> {
    if let Some(changes) = upper::of(sides)? {
        let layer = LayerWriter::new(cx, sink.packer(packing)?, changes.as_fd(), compare);
        return upper::write(layer, changes.as_fd());
    }
    opened(temporary, sides.lower, |lower| {
        opened(temporary, sides.upper, |upper| {
            // Nothing to look at is an empty tree: everything of the other side is new, or gone.
            let Some(upper) = upper else { return Err(MountError::None.into()) };
            let layer = LayerWriter::new(cx, sink.packer(packing)?, upper, compare);
            walk::write(layer, lower, upper)
        })
    })
}

/// Runs `work` on the tree that `mounts` show, read only; on nothing when there are none.
fn opened<T>(
    temporary: &Path,
    mounts: &[Mount],
    work: impl FnOnce(Option<BorrowedFd<'_>>) -> Result<T, CompareError>,
) -> Result<T, CompareError> {
    match mounts {
        [] => work(None),
        [one] if is_plain_bind(one) => {
            let dir = open_dir(Path::new(&one.source))?;
            work(Some(dir.as_fd()))
        }
        _ => mount::temporary(temporary, &mount::read_only(mounts), |root| work(Some(root))),
    }
}

/// A bind mount shows its directory as it is: no mount is needed to look at it.
fn is_plain_bind(mount: &Mount) -> bool {
    let is_mapped =
        mount.options.iter().any(|option| option.starts_with("uidmap=") || option.starts_with("gidmap="));
    mount.kind == "bind" && mount.target.is_empty() && !is_mapped
}

fn open_dir(path: &Path) -> Result<OwnedFd, CompareError> {
    at::open(at::here(), path.as_os_str(), libc::O_RDONLY | libc::O_DIRECTORY, 0)
        .map_err(CompareError::files("open", path))
}
