//! Images as volumes: the kubelet mounts an image's files into a pod's containers, read-only.
//!
//! ```text
//! <state>/image-volumes/<pod id>/<digest of what the image's name leads to>    mounted; its snapshot has this path as key
//! ```
//!
//! The containers of a pod share one mount of an image; it goes when the pod is stopped.
//!
//! Invariant: no container writes to such a mount, and a path in the image never leads out of it.
//! Invariant: what is mounted is found by its directory, which is made first and goes last.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::spec::{Error, Kind, Labels, LeaseId};
use api::runtime::v1;
use model::snapshot::{Mount, Snapshotter};
use model::{Cx, Lane, Result};
use sys::path::{Access, Root};

use super::remove::gone;
use super::{failed, io_failed};
use crate::image::ImageInfo;
use crate::state::Pod;
use crate::{Cri, fault};

/// What the kubelet knows these failures by.
const FAILED: &str = "ImageVolumeMountFailed";

/// The most of them that a container may have.
const MAX: usize = 64;

/// Numbers of errors, as `asm-generic/errno*.h` has them.
const ENOENT: i32 = 2;
const EXDEV: i32 = 18;
const ENOTDIR: i32 = 20;

/// An image that a mount asks for.
struct Wanted {
    place: usize,
    image: String,
    inside: PathBuf,
}

impl Cri {
    /// Mounts the images that `mounts` ask for, unless the pod has them already, and says there where.
    pub(super) async fn mount_images(
        self: &Arc<Self>,
        pod: &Pod,
        snapshotter: &str,
        mounts: &mut [v1::Mount],
    ) -> Result<()> {
        for one in wanted(mounts)? {
            let named = |error: Error| error.context(format_args!("{FAILED}: image {:?}", one.image));
            let image = self.image(&one.image).await.map_err(named)?;
            self.ensure_unpacked(&image, snapshotter).await.map_err(named)?;
            let path = self.mount_image(pod, snapshotter, &image, one.inside).await;
            let mount = &mut mounts[one.place];
            mount.host_path = path.map_err(|error| error.context(FAILED))?;
            // The snapshot's own layers are shifted already.
            mount.uid_mappings.clear();
            mount.gid_mappings.clear();
        }
        Ok(())
    }

    /// Mounts an image, unless the pod has it already; answers the path of the directory `inside` it on the host.
    async fn mount_image(
        self: &Arc<Self>,
        pod: &Pod,
        snapshotter: &str,
        image: &ImageInfo,
        inside: PathBuf,
    ) -> Result<String> {
        let (driver, labels) =
            (self.engine.snapshotter(snapshotter)?, self.mapping(&pod.record.config, snapshotter)?);
        let at = self.image_volumes(&pod.record.id).join(image.target.digest.hex());
        let chain_id = image.chain_id.clone();
        let lease: LeaseId = pod.record.id.parse()?;
        // Two containers of a pod that are made at once share the mount as well.
        let _turn = pod.volumes.lock().await;
        self.ctx()
            .with_lease(lease)
            .blocking(Lane::Disk, move |cx| {
                if !is_mounted(&at)? {
                    make_dir(&at)?;
                    let mounts = prepare(cx, &*driver, &at, &chain_id, &labels)?;
                    fault::after("container image volume")?;
                    mount(&mounts, &at)?;
                }
                below(&at, &inside)
            })
            .await
    }

    /// Takes away the mounts and snapshots of a pod's image volumes. May be repeated.
    ///
    /// # Errors
    /// Something resists.
    pub(crate) async fn release_image_volumes(&self, pod: &Pod) -> Result<()> {
        let dir = self.image_volumes(&pod.record.id);
        let driver = self.engine.snapshotter(&self.snapshotter_of(&pod.record.handler));
        self.ctx()
            .blocking(Lane::Disk, move |cx| {
                for name in super::recover::names(&dir)? {
                    let at = dir.join(name);
                    sys::mount::unmount_all(&at)
                        .map_err(|error| failed(format_args!("cannot unmount {}", at.display()), &error))?;
                    match &driver {
                        Ok(driver) => gone(driver.remove(cx, &key(&at)))?,
                        // One that is no longer configured keeps what it has.
                        Err(error) => tracing::warn!(%error, "an image volume's snapshot stays behind"),
                    }
                }
                super::remove_dir(&dir)
            })
            .await
    }

    /// Where the image volumes of the pod `id` are mounted.
    fn image_volumes(&self, id: &str) -> PathBuf {
        self.state_dir().join("image-volumes").join(id)
    }
}

/// The key of the snapshot that is mounted at a path.
fn key(at: &Path) -> String {
    at.display().to_string()
}

/// The mounts of a snapshot of its own on top of `chain_id`; one that was made before is used.
fn prepare(
    cx: &Cx<'_>,
    driver: &dyn Snapshotter,
    at: &Path,
    chain_id: &str,
    labels: &Labels,
) -> Result<Vec<Mount>> {
    let mut mounts = match driver.prepare(cx, &key(at), chain_id, labels) {
        Err(error) if error.kind() == Kind::AlreadyExists => driver.mounts(cx, &key(at))?,
        made => made?,
    };
    for mount in mounts.iter_mut().filter(|mount| mount.kind == "overlay") {
        // Nothing is written that would have to reach the disk when it is unmounted.
        if !mount.options.iter().any(|option| option == "volatile") {
            mount.options.push("volatile".into());
        }
    }
    Ok(mounts)
}

fn is_mounted(at: &Path) -> Result<bool> {
    let Ok(real) = at.canonicalize() else { return Ok(false) };
    let table = sys::mount::table::read().map_err(|error| failed("cannot read the mount table", &error))?;
    Ok(table.iter().any(|entry| entry.target == real))
}

/// The mounts that ask for images.
fn wanted(mounts: &[v1::Mount]) -> Result<Vec<Wanted>> {
    let mut all = Vec::new();
    for (place, mount) in mounts.iter().enumerate() {
        let Some(image) = &mount.image else {
            if mount.image_sub_path.is_empty() {
                continue;
            }
            return Err(Error::invalid("image_sub_path without an image"));
        };
        let wrong =
            |why: &str| Err(Error::invalid(format_args!("{FAILED}: {why}: {:?}", mount.container_path)));
        if !mount.host_path.is_empty() {
            return wrong("hostpath must be empty while mount image");
        }
        if !mount.readonly {
            return wrong("readonly must be true while mount image");
        }
        if image.image.is_empty() {
            return wrong("image not specified");
        }
        let inside = PathBuf::from(&mount.image_sub_path);
        if mount.image_sub_path.contains('\0') {
            return wrong("image subpath holds a zero byte");
        }
        all.push(Wanted { place, image: image.image.clone(), inside });
    }
    if all.len() > MAX {
        return Err(Error::invalid(format_args!("{FAILED}: more than {MAX} image volumes")));
    }
    Ok(all)
}

fn make_dir(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir)
        .map_err(|error| io_failed(format_args!("cannot make {}", dir.display()), &error))
}

fn mount(view: &[Mount], at: &Path) -> Result<()> {
    for mount in view {
        let target = if mount.target.is_empty() { at.to_owned() } else { at.join(&mount.target) };
        sys::mount::fstab::mount(&mount.kind, mount.source.as_ref(), &mount.options, &target)
            .map_err(|error| failed(format_args!("cannot mount on {}", at.display()), &error))?;
    }
    Ok(())
}

/// The path on the host of the directory `inside` of what is mounted at `at`: in the words of Go's `os.Root`, on which
/// clients match.
fn below(at: &Path, inside: &Path) -> Result<String> {
    let refused = |why: &str| {
        Error::invalid(format_args!("failed to ensure image subpath {inside:?} in {:?}: {why}", at.display()))
    };
    let root = Root::open_dir(at).map_err(|error| failed("cannot open an image volume", &error))?;
    let relative = if inside.as_os_str().is_empty() { Path::new(".") } else { inside };
    let found = root.open_beneath(relative, Access::Handle).map_err(|error| {
        let text = error.to_string();
        refused(match error.errno() {
            ENOENT => "no such file or directory",
            EXDEV => "path escapes from parent",
            ENOTDIR => "not a directory",
            _ => &text,
        })
    })?;
    let stat = sys::path::at::stat_fd(found.as_fd());
    if !stat.map_err(|error| failed("cannot stat an image's directory", &error))?.is_dir() {
        return Err(refused(&format!("only directory subpath is supported, subpath: {inside:?}")));
    }
    let real = std::fs::read_link(sys::path::of_fd(found.as_fd()))
        .map_err(|error| io_failed("cannot resolve an image's directory", &error))?;
    let text = real.to_str().map(str::to_owned);
    text.ok_or_else(|| Error::invalid(format_args!("path {real:?} is not UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(change: impl FnOnce(&mut v1::Mount)) -> v1::Mount {
        let image = v1::ImageSpec { image: "docker.io/library/a:v1".into(), ..v1::ImageSpec::default() };
        let mut mount = v1::Mount { image: Some(image), readonly: true, ..v1::Mount::default() };
        change(&mut mount);
        mount
    }

    #[test]
    fn only_whole_requests_are_mounted() {
        let plain = v1::Mount { host_path: "/a".into(), ..v1::Mount::default() };
        let found = wanted(&[plain.clone(), mount(|one| one.image_sub_path = "a/./b".into())]).unwrap();
        assert_eq!((found.len(), found[0].place, found[0].inside.as_path()), (1, 1, Path::new("a/./b")));
        for wrong in [
            mount(|one| one.readonly = false),
            mount(|one| one.host_path = "/a".into()),
            mount(|one| one.image = Some(v1::ImageSpec::default())),
            mount(|one| one.image_sub_path = "a\0b".into()),
            v1::Mount { image_sub_path: "a".into(), ..plain },
        ] {
            assert!(wanted(std::slice::from_ref(&wrong)).is_err(), "{wrong:?}");
        }
        assert!(wanted(&vec![mount(|_| ()); MAX + 1]).is_err());
    }

    #[test]
    fn subpath_stays_in_the_image_and_is_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(at.join("etc/deep")).unwrap();
        std::fs::write(at.join("file"), "x").unwrap();
        for (name, target) in
            [("link", "etc/deep"), ("out", "/etc"), ("up", "../../../etc"), ("loop", "loop")]
        {
            std::os::unix::fs::symlink(target, at.join(name)).unwrap();
        }
        for (inside, path) in [("", ""), (".", ""), ("etc/../etc/deep", "etc/deep"), ("link", "etc/deep")] {
            let found = below(&at, Path::new(inside)).unwrap();
            assert_eq!(found, at.join(path).display().to_string().trim_end_matches('/'), "{inside}");
        }
        for (inside, words) in [
            ("missing", "no such file or directory"),
            ("file", "only directory subpath is supported"),
            ("file/x", "not a directory"),
            ("/etc", "path escapes from parent"),
            ("etc/../../..", "path escapes from parent"),
            ("out", "path escapes from parent"),
            ("up", "path escapes from parent"),
            ("loop", "too many levels of symbolic links"),
        ] {
            let error = below(&at, Path::new(inside)).unwrap_err();
            assert!(error.text().contains(words), "{inside}: {error}");
        }
    }
}
