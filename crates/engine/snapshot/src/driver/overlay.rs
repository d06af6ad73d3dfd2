//! The overlayfs driver.
//!
//! ```text
//! <root>/snapshots/<id>/fs      the layer: overlay's upper directory while it is active, a lower one afterwards
//! <root>/snapshots/<id>/work    overlay's work directory, of active snapshots
//! ```
//!
//! A snapshot made on nothing is a bind mount of its `fs`. Layers are applied to it with overlay's own whiteouts
//! (the `work` beside it tells the applier), and [commit](model::snapshot::Commit) may then put it on a parent.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use model::Cx;
use model::snapshot::{Kind, Mount, REBASE};
use spec::{Labels, Result};
use sys::path::{Root, at};

use super::records::Place;
use super::{Driver, Layout, New, Paths, SnapshotError};

/// Label with the directory of the changes, when the driver is asked for it.
const UPPERDIR_LABEL: &str = "containerd.io/snapshot/overlay.upperdir";
/// Label with the map of user ids (`container:host:length`, comma-separated).
const UID_MAP: &str = "containerd.io/snapshot/uidmapping";
/// Label with the map of group ids.
const GID_MAP: &str = "containerd.io/snapshot/gidmapping";

/// The overlayfs driver.
pub type Overlay = Driver<Stacked>;

/// How to open the overlayfs driver.
#[derive(Clone, Debug, Default)]
pub struct OverlayConfig {
    /// The driver's directory.
    pub root: PathBuf,
    /// Add the upper directory's path to every snapshot's labels.
    pub upperdir_label: bool,
    /// Delete directories when a snapshot is removed, not at the next clean-up.
    pub sync_remove: bool,
    /// Options of every overlay mount, such as `volatile`.
    pub mount_options: Vec<String>,
}

/// The overlayfs layout.
#[derive(Debug)]
pub struct Stacked {
    options: Vec<String>,
    upperdir_label: bool,
    capabilities: Vec<&'static str>,
}

impl Overlay {
    /// Opens the driver in `config.root`.
    ///
    /// # Errors
    /// `FailedPrecondition` when another process has it open, or when its file system cannot carry overlay.
    pub fn open(config: OverlayConfig) -> Result<Self> {
        let mut options = config.mount_options;
        let has = |options: &[String], key: &str| {
            options.iter().any(|option| option.split('=').next() == Some(key))
        };
        if !has(&options, "userxattr") && crate::mount::in_user_namespace() {
            options.push("userxattr".to_owned());
        }
        if !has(&options, "index") && Path::new("/sys/module/overlay/parameters/index").exists() {
            options.push("index=off".to_owned());
        }
        let mut capabilities = vec![REBASE];
        capabilities.push("only-remap-ids");
        let layout = Stacked { options, upperdir_label: config.upperdir_label, capabilities };
        let mut driver = Self::open_with(&config.root, layout, config.sync_remove)?;
        check_types(&driver.snapshots, &config.root)?;
        if sys::mount::mapped::works(&config.root) {
            driver.layout.capabilities.push("remap-ids");
        }
        Ok(driver)
    }
}

/// Overlay needs directories that record the type of their entries.
fn check_types(snapshots: &Root, root: &Path) -> Result<(), SnapshotError> {
    let name = OsStr::new("new-types");
    let checked = at::make_dir(snapshots.as_fd(), name, 0o700).and_then(|()| at::entries(snapshots.as_fd()));
    let removed = sys::path::remove_tree(snapshots.as_fd(), name);
    let entries = checked.and_then(|entries| removed.map(|()| entries));
    let entries = entries.map_err(SnapshotError::files("list", root))?;
    match entries.iter().find(|(entry, _)| entry == name) {
        Some((_, at::Type::Directory)) => Ok(()),
        _ => Err(SnapshotError::NoTypes(root.to_owned())),
    }
}

impl Layout for Stacked {
    fn fill(&self, _cx: &Cx<'_>, dir: BorrowedFd<'_>, new: &New<'_>) -> Result<()> {
        let failed = |source| SnapshotError::Files { what: "make", path: "fs".into(), source };
        let files = OsStr::new("fs");
        at::make_dir(dir, files, 0o755).map_err(failed)?;
        at::chmod(dir, files, 0o755).map_err(failed)?;
        if new.kind == Kind::Active {
            at::make_dir(dir, OsStr::new("work"), 0o711).map_err(failed)?;
        }
        if let Some((uid, gid)) = self.owner(new)? {
            at::chown(dir, files, uid, gid).map_err(failed)?;
        }
        Ok(())
    }

    fn mounts(&self, paths: &Paths, place: &Place) -> Vec<Mount> {
        let mut options = Vec::new();
        for (label, key) in [(UID_MAP, "uidmap"), (GID_MAP, "gidmap")] {
            if let Some(map) = place.labels.get(label) {
                options.push(format!("{key}={map}"));
            }
        }
        let files = |id: u64| paths.files(id).display().to_string();
        let bind = |id: u64, access: &str, mut options: Vec<String>| {
            options.extend([access.to_owned(), "rbind".to_owned()]);
            vec![Mount { kind: "bind".into(), source: files(id), target: String::new(), options }]
        };
        match (place.kind, place.parents.as_slice()) {
            (Kind::View, []) => return bind(place.id, "ro", options),
            (_, []) => return bind(place.id, "rw", options),
            (Kind::View, [only]) => return bind(*only, "ro", options),
            _ => {}
        }
        options.extend(self.options.iter().cloned());
        if place.kind == Kind::Active {
            options.push(format!("workdir={}", paths.snapshot(place.id).join("work").display()));
            options.push(format!("upperdir={}", files(place.id)));
        }
        let lower: Vec<_> = place.parents.iter().map(|&id| files(id)).collect();
        options.push(format!("lowerdir={}", lower.join(":")));
        vec![Mount { kind: "overlay".into(), source: "overlay".into(), target: String::new(), options }]
    }

    fn files(&self) -> &'static str {
        "fs"
    }

    fn is_stacked(&self) -> bool {
        true
    }

    fn decorate(&self, paths: &Paths, id: u64, labels: &mut Labels) {
        if self.upperdir_label {
            labels.insert(UPPERDIR_LABEL.to_owned(), paths.files(id).display().to_string());
        }
    }

    fn capabilities(&self) -> &[&'static str] {
        &self.capabilities
    }
}

impl Stacked {
    /// Who owns the new layer's root: the mapped root, else whoever owns the parent's.
    fn owner(&self, new: &New<'_>) -> Result<Option<(u32, u32)>, SnapshotError> {
        let (uids, gids) = (new.labels.get(UID_MAP), new.labels.get(GID_MAP));
        if uids.is_some() || gids.is_some() {
            return Ok(Some((mapped_root(uids)?, mapped_root(gids)?)));
        }
        let Some(parent) = &new.parent else { return Ok(None) };
        let stat = at::stat(at::here(), parent.as_os_str()).map_err(SnapshotError::files("stat", parent))?;
        Ok(Some((stat.uid, stat.gid)))
    }
}

/// The host id of the container's id 0 in a map `container:host:length[,...]`.
fn mapped_root(map: Option<&String>) -> Result<u32, SnapshotError> {
    let text = map.map(String::as_str).unwrap_or_default();
    let bad = || SnapshotError::IdMap(text.to_owned());
    for range in text.split(',') {
        let mut parts = range.split(':').map(|part| part.parse::<u32>());
        let (Some(Ok(inside)), Some(Ok(outside)), Some(Ok(length)), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad());
        };
        if inside == 0 && length > 0 {
            return Ok(outside);
        }
    }
    Err(bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mapped_root_is_found() {
        assert_eq!(mapped_root(Some(&"0:1000:65536".to_owned())).unwrap(), 1000);
        assert_eq!(mapped_root(Some(&"1:5:1,0:7:1".to_owned())).unwrap(), 7);
        for bad in ["", "0:1", "0:1:2:3", "a:b:c", "1:1:1", "0:1:0", "0:4294967296:1"] {
            assert!(mapped_root(Some(&bad.to_owned())).is_err(), "{bad}");
        }
    }
}
