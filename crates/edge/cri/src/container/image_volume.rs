//! Images as volumes: the kubelet mounts an image's files into a container, read-only.
//!
//! ```text
//! <state>/containers/<id>/images/<n>    a view of the image, mounted; its snapshot is <id>-image-<n>
//! ```
//!
//! Invariant: nobody writes to such a mount, and a path in the image never leads out of it.
//! Invariant: what is mounted is found by its directory, which is made first and goes last.

use std::os::fd::AsFd as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use ::spec::{Error, LeaseId};
use api::runtime::v1;
use model::snapshot::{Mount, Snapshotter};
use model::undo::Undo;
use model::{Cx, Lane, Result};
use sys::path::{Access, Root};

use super::remove::gone;
use super::{failed, io_failed};
use crate::state::Pod;
use crate::{Cri, fault};

/// What the kubelet knows these failures by.
const FAILED: &str = "ImageVolumeMountFailed";

/// The most of them that a container may have.
const MAX: usize = 64;

/// An image that a mount asks for.
struct Wanted {
    place: usize,
    image: String,
    inside: PathBuf,
}

impl Cri {
    /// Mounts the images that `mounts` ask for, and says there where.
    pub(super) async fn mount_images(
        self: &Arc<Self>,
        pod: &Pod,
        id: &str,
        snapshotter: &str,
        mounts: &mut [v1::Mount],
        undo: &mut Undo,
    ) -> Result<()> {
        let wanted = wanted(mounts)?;
        if wanted.is_empty() {
            return Ok(());
        }
        let (cri, of, with) = (Arc::clone(self), id.to_owned(), snapshotter.to_owned());
        undo.push("unmount the container's image volumes", move || async move {
            let dir = cri.container_state(&of);
            let driver = cri.engine.snapshotter(&with)?;
            cri.on_disk(&cri.ctx(), move |_, cx| release(cx, &dir, &of, Some(&*driver))).await
        });
        let labels = self.mapping(&pod.record.config, snapshotter)?;
        let lease: LeaseId = pod.record.id.parse()?;
        for one in wanted {
            let named = |error: Error| error.context(format_args!("{FAILED}: image {:?}", one.image));
            let image = self.image(&one.image).await.map_err(named)?;
            self.ensure_unpacked(&image, snapshotter).await.map_err(named)?;
            let (driver, labels) = (self.engine.snapshotter(snapshotter)?, labels.clone());
            let (key, at) = place(&self.container_state(id), id, &one.place.to_string());
            let (chain_id, inside) = (image.chain_id.clone(), one.inside);
            let path = self
                .ctx()
                .with_lease(lease.clone())
                .blocking(Lane::Disk, move |cx| {
                    make_dir(&at)?;
                    let view = driver.view(cx, &key, &chain_id, &labels)?;
                    fault::after("container image view")?;
                    mount(&view, &at)?;
                    below(&at, &inside)
                })
                .await
                .map_err(|error| error.context(FAILED))?;
            let mount = &mut mounts[one.place];
            mount.host_path = path;
            // The view's own layers are shifted already.
            mount.uid_mappings.clear();
            mount.gid_mappings.clear();
        }
        Ok(())
    }
}

/// Takes away the mounts and snapshots of a container's image volumes, by its directory `state`. May be repeated.
///
/// # Errors
/// Something resists.
pub(super) fn release(cx: &Cx<'_>, state: &Path, id: &str, driver: Option<&dyn Snapshotter>) -> Result<()> {
    for name in super::recover::names(&state.join("images"))? {
        let (key, at) = place(state, id, &name);
        sys::mount::unmount_all(&at)
            .map_err(|error| failed(format_args!("cannot unmount {}", at.display()), &error))?;
        if let Some(driver) = driver {
            gone(driver.remove(cx, &key))?;
        }
    }
    Ok(())
}

/// The snapshot and the directory of an image volume.
fn place(state: &Path, id: &str, name: &str) -> (String, PathBuf) {
    (format!("{id}-image-{name}"), state.join("images").join(name))
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
        let plain = inside.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !plain || mount.image_sub_path.contains('\0') {
            return wrong("image subpath must stay in the image");
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

/// The path on the host of the directory `inside` of what is mounted at `at`. Links are followed inside it only.
fn below(at: &Path, inside: &Path) -> Result<String> {
    let opened = Root::open_dir(at).and_then(|root| {
        let inside = if inside.as_os_str().is_empty() { Path::new(".") } else { inside };
        root.open(inside, Access::Directory)
    });
    let dir = opened.map_err(|error| {
        let kind = ::spec::Kind::from_errno(error.errno());
        Error::new(kind, format!("failed to ensure image subpath {inside:?}: {error}"))
    })?;
    let real = std::fs::read_link(sys::path::of_fd(dir.as_fd()))
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
            mount(|one| one.image_sub_path = "../a".into()),
            mount(|one| one.image_sub_path = "/etc".into()),
            v1::Mount { image_sub_path: "a".into(), ..plain },
        ] {
            assert!(wanted(std::slice::from_ref(&wrong)).is_err(), "{wrong:?}");
        }
        assert!(wanted(&vec![mount(|_| ()); MAX + 1]).is_err());
    }

    #[test]
    fn a_path_in_an_image_never_leads_out_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(at.join("etc/deep")).unwrap();
        std::fs::write(at.join("file"), "x").unwrap();
        std::os::unix::fs::symlink("/etc/deep", at.join("link")).unwrap();
        std::os::unix::fs::symlink("../../../etc", at.join("up")).unwrap();
        let find = |inside: &str| below(&at, Path::new(inside)).ok().map(PathBuf::from);
        assert_eq!(find(""), Some(at.clone()));
        assert_eq!(find("link"), Some(at.join("etc/deep")));
        assert_eq!(find("up"), Some(at.join("etc")));
        assert_eq!((find("file"), find("missing")), (None, None));
    }
}
