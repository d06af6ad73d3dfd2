//! Applying a layer: where it goes, and one entry after the other.
//!
//! A layer for the overlay driver is written into the upper directory itself, whiteouts as overlay's own; no mount is
//! needed. Two things say so: an `overlay` mount with an `upperdir`, and a bind of a directory `fs` that has overlay's
//! `work` beside it (a snapshot made on nothing, which commit may put on a parent later). Everything else is a tree in
//! which deletions really delete.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use model::Cx;
use model::diff::{Applied, Apply};
use model::snapshot::Mount;
use spec::{HasKind, Kind};
use sys::path::at;

use super::Limits;
use super::stream::{self, Failed, InflateError};
use crate::lower::Lower;
use crate::mount::{self, MountError};
use crate::tar::{Reader, TarError};

mod finish;
mod metadata;
mod names;
mod parents;
mod target;
mod whiteout;

use target::Target;

/// Why a layer could not be applied.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum ApplyError {
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error("the mounts are read only: failed precondition")]
    ReadOnly,
    #[error("cannot open {path}")]
    Open { path: PathBuf, source: sys::Error },
    #[error(transparent)]
    Inflate(InflateError),
    #[error("malformed layer")]
    Tar(#[from] TarError),
    #[error("layer entry {name:?} leads out of the root directory")]
    Climbs { name: String },
    #[error("layer entry {name:?} has a name of {length} bytes, more than a path may have")]
    Long { name: String, length: usize },
    #[error("layer entry {name:?}: invalid whiteout name")]
    Whiteout { name: String },
    #[error("layer entry {name:?}: a parent is no directory")]
    Parent { name: String },
    #[error("layer entry {name:?}: too many symbolic links in its path")]
    Links { name: String },
    #[error("layer entry {name:?}: cannot {what}")]
    Entry { name: String, what: &'static str, source: sys::Error },
    #[error("the layer has more than {0} entries")]
    TooMany(u64),
    #[error("file {name:?} has {size} bytes, more than the {most} allowed")]
    Large { name: String, size: u64, most: u64 },
    #[error("cannot flush the file system")]
    Sync(#[source] sys::Error),
    #[error("{0}")]
    Stopped(spec::Error),
}

impl HasKind for ApplyError {
    fn kind(&self) -> Kind {
        // Of a failed call on a file only what the caller can act on is told apart; a name that the image made
        // impossible (too long, a loop) is the image's fault.
        let of_errno = |errno: i32| match Kind::from_errno(errno) {
            Kind::ResourceExhausted => Kind::ResourceExhausted,
            Kind::PermissionDenied => Kind::PermissionDenied,
            _ if [libc::ENAMETOOLONG, libc::ELOOP, libc::ENOTDIR, libc::ENOENT].contains(&errno) => {
                Kind::InvalidArgument
            }
            _ => Kind::Internal,
        };
        match self {
            Self::Mount(error) => error.kind(),
            Self::ReadOnly => Kind::FailedPrecondition,
            Self::Open { .. } => Kind::Internal,
            Self::Inflate(InflateError::Bomb { .. }) | Self::TooMany(_) | Self::Large { .. } => {
                Kind::InvalidArgument
            }
            Self::Inflate(InflateError::Damaged(..)) => Kind::InvalidArgument,
            Self::Inflate(InflateError::Thread(_)) => Kind::ResourceExhausted,
            Self::Inflate(InflateError::Read(error)) => {
                error.raw_os_error().map_or(Kind::Unavailable, of_errno)
            }
            Self::Inflate(InflateError::Panic) => Kind::Internal,
            Self::Tar(_) | Self::Climbs { .. } | Self::Long { .. } | Self::Whiteout { .. } => {
                Kind::InvalidArgument
            }
            Self::Parent { .. } | Self::Links { .. } => Kind::InvalidArgument,
            Self::Entry { source, .. } | Self::Sync(source) => of_errno(source.errno()),
            Self::Stopped(error) => error.kind(),
        }
    }
}

/// Where a layer is written.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// A layer's own directory, with the directories below it when they are known.
    Stacked { upper: PathBuf, lower: Option<Vec<PathBuf>> },
    /// A tree that shows everything.
    Merged { dir: PathBuf },
    /// What only a mount makes a tree.
    Mounted,
}

fn place(mounts: &[Mount]) -> Result<Place, ApplyError> {
    let [mount] = mounts else { return Ok(Place::Mounted) };
    let option =
        |key: &str| mount.options.iter().find_map(|option| option.strip_prefix(key)?.strip_prefix('='));
    if mount.options.iter().any(|option| option == "ro") {
        return Err(ApplyError::ReadOnly);
    }
    if !mount.target.is_empty() {
        return Ok(Place::Mounted);
    }
    match mount.kind.as_str() {
        "overlay" => {
            let Some(upper) = option("upperdir") else { return Err(ApplyError::ReadOnly) };
            let lower = option("lowerdir").map(|lower| lower.split(':').map(PathBuf::from).collect());
            Ok(Place::Stacked { upper: upper.into(), lower })
        }
        // A map of ids changes what is written: that needs the mount.
        "bind" | "rbind" | "" if option("uidmap").is_none() && option("gidmap").is_none() => {
            let dir = PathBuf::from(&mount.source);
            if is_overlays(&dir) {
                return Ok(Place::Stacked { upper: dir, lower: None });
            }
            Ok(Place::Merged { dir })
        }
        _ => Ok(Place::Mounted),
    }
}

/// Whether a directory is the overlay driver's: `<id>/fs` beside `<id>/work`.
fn is_overlays(dir: &Path) -> bool {
    dir.file_name().is_some_and(|name| name == "fs")
        && dir.parent().is_some_and(|parent| {
            at::stat(at::here(), parent.join("work").as_os_str()).is_ok_and(|stat| stat.is_dir())
        })
}

/// Applies the layer whose compressed bytes `layer` gives.
pub(super) fn apply(
    cx: &Cx<'_>,
    layer: &mut (dyn Read + Send),
    mounts: &[Mount],
    apply: &Apply,
    limits: Limits,
    temporary: &Path,
) -> Result<Applied, ApplyError> {
    let mut run = |target: Target| run(cx, layer, limits, target, apply.sync_fs);
    let open = |path: &Path| {
        at::open(at::here(), path.as_os_str(), libc::O_RDONLY | libc::O_DIRECTORY, 0)
            .map_err(|source| ApplyError::Open { path: path.to_owned(), source })
    };
    match place(mounts)? {
        Place::Stacked { upper, lower } => {
            let lower = lower
                .map(Lower::open)
                .transpose()
                .map_err(|source| ApplyError::Open { path: upper.clone(), source })?;
            run(Target::stacked(open(&upper)?, lower))
        }
        Place::Merged { dir } => run(Target::merged(open(&dir)?)),
        Place::Mounted => mount::temporary(temporary, mounts, |root: BorrowedFd<'_>| {
            let root = crate::walk::duplicate(root)
                .map_err(|source| ApplyError::Open { path: temporary.to_owned(), source })?;
            run(Target::merged(root))
        }),
    }
}

fn run(
    cx: &Cx<'_>,
    layer: &mut (dyn Read + Send),
    limits: Limits,
    mut target: Target,
    sync_fs: bool,
) -> Result<Applied, ApplyError> {
    let ((), passed) = stream::inflate(layer, limits, |chunks| {
        let mut reader = Reader::new(chunks);
        let mut entries = 0;
        while let Some(entry) = reader.next_entry()? {
            cx.check().map_err(ApplyError::Stopped)?;
            entries += 1;
            if entries > limits.most_entries {
                return Err(ApplyError::TooMany(limits.most_entries));
            }
            // Holes take no place in the layer; whoever copies the file may have to fill them.
            if entry.size > limits.most_bytes {
                let (size, most) = (entry.size, limits.most_bytes);
                return Err(ApplyError::Large { name: names::show(&entry.name), size, most });
            }
            target.entry(cx, &entry, &mut reader)?;
        }
        target.finish()
    })
    .map_err(|failed| match failed {
        Failed::Stream(error) => ApplyError::Inflate(error),
        Failed::Work(error) => error,
    })?;
    if sync_fs {
        at::sync_file_system(target.root().as_fd()).map_err(ApplyError::Sync)?;
    }
    Ok(Applied { diff_id: passed.diff_id, size: passed.size })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, source: &str, options: &[&str]) -> Vec<Mount> {
        let options = options.iter().map(|&option| option.to_owned()).collect();
        vec![Mount { kind: kind.into(), source: source.into(), target: String::new(), options }]
    }

    #[test]
    fn an_overlay_is_written_to_its_upper_directory() {
        let mounts = mount("overlay", "overlay", &["workdir=/w", "upperdir=/u", "lowerdir=/a:/b"]);
        let lower = Some(vec![PathBuf::from("/a"), PathBuf::from("/b")]);
        assert_eq!(place(&mounts).unwrap(), Place::Stacked { upper: "/u".into(), lower });
    }

    #[test]
    fn read_only_mounts_are_refused() {
        assert!(matches!(place(&mount("bind", "/x", &["ro", "rbind"])), Err(ApplyError::ReadOnly)));
        assert!(matches!(
            place(&mount("overlay", "overlay", &["lowerdir=/a:/b"])),
            Err(ApplyError::ReadOnly)
        ));
    }

    #[test]
    fn a_bind_is_overlays_when_its_work_directory_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let files = dir.path().join("fs");
        std::fs::create_dir(&files).unwrap();
        let mounts = mount("bind", files.to_str().unwrap(), &["rw", "rbind"]);
        assert_eq!(place(&mounts).unwrap(), Place::Merged { dir: files.clone() });
        std::fs::create_dir(dir.path().join("work")).unwrap();
        assert_eq!(place(&mounts).unwrap(), Place::Stacked { upper: files, lower: None });
    }
}
