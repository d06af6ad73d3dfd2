//! A snapshot's mounts, made visible.
//!
//! [`all`] attaches them at a directory, as containerd's `mount.All`. [`temporary`] needs no directory where the kernel
//! can make the mount detached: it is walked by descriptor, nobody else sees it, and it goes with the descriptor even
//! when the process is killed.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use model::snapshot::Mount;
use spec::{HasKind, Kind};
use sys::mount::fstab;
use sys::path::Root;

/// Why mounts could not be made or taken away.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum MountError {
    #[error("no mounts provided: invalid argument")]
    None,
    #[error("cannot mount {kind} {source_dir:?} at {target}")]
    Mount { kind: String, source_dir: String, target: PathBuf, source: sys::Error },
    #[error("cannot open the mount point {target}")]
    Target { target: PathBuf, source: sys::Error },
    #[error("cannot unmount {target}")]
    Unmount { target: PathBuf, source: sys::Error },
    #[error("cannot make a temporary mount point in {dir}")]
    Temporary { dir: PathBuf, source: std::io::Error },
}

impl HasKind for MountError {
    fn kind(&self) -> Kind {
        match self {
            Self::None => Kind::InvalidArgument,
            Self::Mount { source, .. } | Self::Target { source, .. } | Self::Unmount { source, .. } => {
                match Kind::from_errno(source.errno()) {
                    // A mount point or a layer that is missing is no record that is missing.
                    Kind::NotFound | Kind::AlreadyExists | Kind::Unimplemented => Kind::Internal,
                    kind => kind,
                }
            }
            Self::Temporary { .. } => Kind::Internal,
        }
    }
}

/// Mounts each of `mounts` at the trusted directory `target` (or at its own target below it), in order.
///
/// On failure what was already mounted is taken away again.
pub fn all(mounts: &[Mount], target: &Path) -> Result<(), MountError> {
    for (done, mount) in mounts.iter().enumerate() {
        let Err(error) = one(mount, target) else { continue };
        for made in mounts[..done].iter().rev() {
            let _ = sys::mount::detach(&place(made, target));
        }
        return Err(error);
    }
    Ok(())
}

fn one(mount: &Mount, target: &Path) -> Result<(), MountError> {
    let failed = |source| MountError::Mount {
        kind: mount.kind.clone(),
        source_dir: mount.source.clone(),
        target: place(mount, target),
        source,
    };
    if mount.target.is_empty() {
        return fstab::mount(&mount.kind, OsStr::new(&mount.source), &mount.options, target).map_err(failed);
    }
    let root =
        Root::open_dir(target).map_err(|source| MountError::Target { target: target.to_owned(), source })?;
    fstab::mount_below(
        &root,
        &mount.kind,
        OsStr::new(&mount.source),
        &mount.options,
        Path::new(&mount.target),
    )
    .map_err(failed)
}

fn place(mount: &Mount, target: &Path) -> PathBuf {
    target.join(sys::path::clean(Path::new(&mount.target)))
}

/// Takes away everything mounted at the trusted `target`. Nothing mounted there, or nothing there at all, is success.
pub fn unmount_all(target: &Path) -> Result<(), MountError> {
    sys::mount::unmount_all(target)
        .map_err(|source| MountError::Unmount { target: target.to_owned(), source })
}

/// The same mounts, read only: overlay's upper directory becomes its topmost lower one, so that a tree in use elsewhere
/// can be looked at.
pub fn read_only(mounts: &[Mount]) -> Vec<Mount> {
    mounts.iter().map(read_only_one).collect()
}

fn read_only_one(mount: &Mount) -> Mount {
    let mut mount = mount.clone();
    if mount.kind == "overlay" {
        let upper =
            mount.options.iter().find_map(|option| option.strip_prefix("upperdir=")).map(str::to_owned);
        mount.options.retain(|option| !option.starts_with("upperdir=") && !option.starts_with("workdir="));
        if let Some(upper) = upper {
            for option in &mut mount.options {
                if let Some(lower) = option.strip_prefix("lowerdir=") {
                    *option = format!("lowerdir={upper}:{lower}");
                }
            }
        }
        return mount;
    }
    mount.options.retain(|option| option != "rw");
    if !mount.options.iter().any(|option| option == "ro") {
        mount.options.push("ro".to_owned());
    }
    mount
}

/// Runs `work` on the root of `mounts`.
///
/// A single mount stays detached where the kernel can make it so; then nothing is attached, seen by others or left
/// behind. Else the mounts are attached at a directory made in `dir`, and taken away afterwards.
///
/// # Errors
/// What `work` returns, or why the mounts could not be made (`E` must be able to hold it).
pub fn temporary<T, E: From<MountError>>(
    dir: &Path,
    mounts: &[Mount],
    work: impl FnOnce(BorrowedFd<'_>) -> Result<T, E>,
) -> Result<T, E> {
    if let Some(root) = detached(mounts)? {
        return work(root.as_fd());
    }
    let place = MountPoint::make(dir)?;
    all(mounts, &place.path)?;
    let done = {
        let root = sys::path::at::open(
            sys::path::at::here(),
            place.path.as_os_str(),
            libc::O_RDONLY | libc::O_DIRECTORY,
            0,
        )
        .map_err(|source| MountError::Target { target: place.path.clone(), source });
        root.map_err(E::from).and_then(|root| work(root.as_fd()))
    };
    let gone = place.remove();
    let value = done?;
    gone?;
    Ok(value)
}

/// The mount as a descriptor. `None` when there are several, or when this kernel cannot (it is mounted the old way then,
/// whose error is the one to tell).
fn detached(mounts: &[Mount]) -> Result<Option<OwnedFd>, MountError> {
    let [mount] = mounts else { return if mounts.is_empty() { Err(MountError::None) } else { Ok(None) } };
    if !mount.target.is_empty() {
        return Ok(None);
    }
    Ok(fstab::detached(&mount.kind, OsStr::new(&mount.source), &mount.options).ok())
}

/// A directory to mount on.
struct MountPoint {
    path: PathBuf,
}

impl MountPoint {
    fn make(dir: &Path) -> Result<Self, MountError> {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = format!("berth-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = dir.join(name);
        std::fs::create_dir_all(&path)
            .map_err(|source| MountError::Temporary { dir: dir.to_owned(), source })?;
        Ok(Self { path })
    }

    fn remove(&self) -> Result<(), MountError> {
        unmount_all(&self.path)?;
        std::fs::remove_dir(&self.path)
            .map_err(|source| MountError::Temporary { dir: self.path.clone(), source })
    }
}

impl Drop for MountPoint {
    fn drop(&mut self) {
        // A second time is success; this one is for the paths on which `remove` was not reached.
        let _ = self.remove();
    }
}

/// Takes away the temporary mounts that a killed process left in `dir`. Only for a directory of our own.
pub fn clean_temporary(dir: &Path) -> Result<(), MountError> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Ok(()) };
    for entry in entries.flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(b"berth-") {
            unmount_all(&entry.path())?;
            // Not empty only when something else is there, which is not ours to delete.
            let _ = std::fs::remove_dir(entry.path());
        }
    }
    Ok(())
}

/// Whether this process is inside a user namespace, where device nodes cannot be made.
pub fn in_user_namespace() -> bool {
    static INSIDE: OnceLock<bool> = OnceLock::new();
    *INSIDE.get_or_init(|| {
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let numbers: Vec<_> = map.split_whitespace().collect();
        !map.is_empty() && numbers != ["0", "0", "4294967295"]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay(options: &[&str]) -> Mount {
        let options = options.iter().map(|&option| option.to_owned()).collect();
        Mount { kind: "overlay".into(), source: "overlay".into(), target: String::new(), options }
    }

    #[test]
    fn a_read_only_overlay_has_its_upper_directory_on_top() {
        let mount = overlay(&["index=off", "workdir=/w", "upperdir=/u", "lowerdir=/a:/b"]);
        assert_eq!(read_only(&[mount]), [overlay(&["index=off", "lowerdir=/u:/a:/b"])]);
    }

    #[test]
    fn mapped_owners_are_seen_shifted_and_stay_as_they_are_on_disk() {
        testkit::needs!(root, overlayfs);
        let dir = testkit::place::temp();
        let path = |name: &str| dir.path().join(name).display().to_string();
        for name in ["a", "b", "up", "work"] {
            std::fs::create_dir(path(name)).unwrap();
        }
        std::fs::write(path("b/file"), "x").unwrap();
        std::os::unix::fs::chown(path("b/file"), Some(7), Some(8)).unwrap();
        let maps = ["uidmap=0:100000:65536", "gidmap=0:200000:65536"];
        let layers = [format!("lowerdir={}:{}", path("a"), path("b")), format!("upperdir={}", path("up"))];
        let work = format!("workdir={}", path("work"));
        let all = overlay(&[maps[0], maps[1], &layers[0], &layers[1], &work]);
        let options = [maps[0], maps[1], "ro"].map(str::to_owned).to_vec();
        let bind = Mount { kind: "bind".into(), source: path("b"), options, ..Mount::default() };
        for mount in [all, bind] {
            let owner = temporary(&dir.path().join("places"), &[mount], |root| {
                let stat = sys::path::at::stat(root, OsStr::new("file")).unwrap();
                Ok::<_, MountError>((stat.uid, stat.gid))
            });
            assert_eq!(owner.unwrap(), (100_007, 200_008));
        }
        let metadata = std::fs::metadata(path("b/file")).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&metadata), 7);
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!table.contains(dir.path().to_str().unwrap()));
        let wrong = overlay(&["uidmap=0:1:1", &layers[0]]);
        assert!(temporary(dir.path(), &[wrong], |_| Ok::<_, MountError>(())).is_err());
    }

    #[test]
    fn a_temporary_mount_leaves_nothing() {
        testkit::needs!(root, overlayfs);
        let dir = testkit::place::temp();
        let path = |name: &str| dir.path().join(name).display().to_string();
        for name in ["a", "b"] {
            std::fs::create_dir(path(name)).unwrap();
            std::fs::write(format!("{}/{name}", path(name)), name).unwrap();
        }
        let lower = overlay(&[&format!("lowerdir={}:{}", path("a"), path("b"))]);
        let places = dir.path().join("places");
        let bind = Mount { kind: "bind".into(), source: path("a"), ..Mount::default() };
        let below = Mount { target: "place".into(), ..bind.clone() };
        std::fs::create_dir(dir.path().join("a/place")).unwrap();
        for (mounts, wanted) in [(vec![lower], 3), (vec![bind.clone()], 2), (vec![bind, below], 2)] {
            let names = temporary(&places, &mounts, |root| {
                let root = crate::walk::duplicate(root).unwrap();
                Ok::<_, MountError>(crate::walk::list(root.as_fd()).unwrap().len())
            });
            assert_eq!(names.unwrap(), wanted);
        }
        let missing = overlay(&["lowerdir=/nowhere/a:/nowhere/b"]);
        let failed = temporary(&places, &[missing], |_| Ok::<_, MountError>(()));
        assert!(failed.unwrap_err().to_string().contains("cannot mount overlay"));
        assert_eq!(std::fs::read_dir(&places).unwrap().count(), 0);
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!table.contains(places.to_str().unwrap()));
    }
}
