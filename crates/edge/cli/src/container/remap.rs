//! Root file systems for user namespaces: a copy of an image's snapshot whose owners are shifted, made once and used by
//! every container of the same ids. Only for snapshotters that cannot show owners shifted by themselves.
//!
//! Invariant: a shifted copy is committed whole or not at all; what is not below its own mount is never touched.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use api::containerd::services::snapshots::v1 as snapshots;
use model::{Ctx, Lane};
use spec::runtime::IdMapping;
use sys::path::{Access, Root, at};

use super::rootfs;
use crate::client::Client;
use crate::failure::{Failure, OrFail, Result};
use crate::stdio::unique_dir;

/// The set-user-id, set-group-id and sticky bits, of which a change of owner takes the first two.
const SPECIAL: u32 = 0o7000;

/// Which ids of a container are which of the host.
#[derive(Clone, Debug)]
pub struct Maps {
    /// Users.
    pub uids: Vec<IdMapping>,
    /// Groups.
    pub gids: Vec<IdMapping>,
}

/// The host's id of `id`.
fn to_host(maps: &[IdMapping], id: u32) -> Result<u32> {
    let host = |map: &IdMapping| {
        let offset = id.checked_sub(map.container_id).filter(|offset| *offset < map.size)?;
        map.host_id.checked_add(offset)
    };
    maps.iter().find_map(host).ok_or_else(|| {
        Failure::new(format!("the image has files of id {id}, which has no host id in the mapping"))
    })
}

impl Maps {
    /// Go ctr's name of the snapshot that is `parent` with these ids, so that each finds what the other has made.
    fn name(&self, parent: &str) -> String {
        let sorted = |maps: &[IdMapping]| {
            let mut maps = maps.to_vec();
            maps.sort_by_key(|map| map.container_id);
            let text = |map: &IdMapping| {
                let (container, host, size) = (map.container_id, map.host_id, map.size);
                format!(r#"{{"containerID":{container},"hostID":{host},"size":{size}}}"#)
            };
            maps.iter().map(text).collect::<Vec<_>>().join(",")
        };
        let (uids, gids) = (sorted(&self.uids), sorted(&self.gids));
        let text = format!(r#"{{"Parent":"{parent}","IDMap":{{"UidMap":[{uids}],"GidMap":[{gids}]}}}}"#);
        model::manifest::sha256(text.as_bytes()).to_string()
    }
}

/// The name of the snapshot that is `parent` with shifted owners, made if there is none.
pub async fn shifted(client: &Client, snapshotter: &str, parent: &str, maps: &Maps) -> Result<String> {
    let name = maps.name(parent);
    let mut service = client.snapshots();
    let stat = snapshots::StatSnapshotRequest { snapshotter: snapshotter.into(), key: name.clone() };
    match service.stat(stat).await {
        Ok(_) => return Ok(name),
        Err(status) if status.code() == tonic::Code::NotFound => {}
        Err(status) => return Err(status.into()),
    }
    let key = format!("{name}-remap");
    let prepare = snapshots::PrepareSnapshotRequest {
        snapshotter: snapshotter.into(),
        key: key.clone(),
        parent: parent.into(),
        ..Default::default()
    };
    let mounts = service.prepare(prepare).await?.into_inner().mounts;
    let (wanted, lane) = (maps.clone(), Lane::Cpu);
    let shift = move |_: &model::Cx<'_>| Ok(shift_mounted(&mounts, &wanted));
    let result = async {
        Ctx::background()
            .blocking(lane, shift)
            .await?
            .or_fail("cannot shift the owners of the image's files")?;
        let commit = snapshots::CommitSnapshotRequest {
            snapshotter: snapshotter.into(),
            name: name.clone(),
            key: key.clone(),
            ..Default::default()
        };
        match client.snapshots().commit(commit).await {
            // Somebody made the same at the same time; theirs will do.
            Err(status) if status.code() != tonic::Code::AlreadyExists => Err(Failure::from(status)),
            _ => Ok(name),
        }
    };
    let result = result.await;
    if result.is_err() {
        let remove = snapshots::RemoveSnapshotRequest { snapshotter: snapshotter.into(), key };
        // The first failure is the one to tell; the lease's end removes what this could not.
        let _leased = service.remove(remove).await;
    }
    result
}

/// Mounts a snapshot where nobody else looks, and shifts its owners.
fn shift_mounted(mounts: &[api::containerd::types::Mount], maps: &Maps) -> Result {
    let dir = unique_dir(&std::env::temp_dir())?;
    let shifted = rootfs::mount_all(mounts, &dir).and_then(|()| {
        let shifted = shift(&dir, maps);
        let unmounted = rootfs::unmount(&dir);
        shifted.and(unmounted)
    });
    // A directory that is still a mount stays, and what is in it with it.
    let removed = std::fs::remove_dir(&dir).or_fail(format!("cannot remove {}", dir.display()));
    shifted.and(removed)
}

/// Gives everything below `dir`, and `dir`, to the host's ids.
fn shift(dir: &Path, maps: &Maps) -> Result {
    let root = Root::open_dir(dir)?;
    let mut seen = HashSet::new();
    let top = root.open(Path::new("."), Access::Directory)?;
    let stat = at::stat_fd(top.as_fd())?;
    at::chown_fd(top.as_fd(), to_host(&maps.uids, stat.uid)?, to_host(&maps.gids, stat.gid)?)?;
    if stat.mode & SPECIAL != 0 {
        at::chmod_fd(top.as_fd(), stat.mode & 0o7777)?;
    }
    // Directories still to be gone through: one descriptor at a time, however deep the tree is.
    let mut pending = vec![PathBuf::from(".")];
    while let Some(path) = pending.pop() {
        let opened = root.open(&path, Access::Directory)?;
        for (name, _) in at::entries(opened.as_fd())? {
            let stat = at::stat(opened.as_fd(), &name)?;
            // A file of several names is shifted once.
            if stat.is_dir() || stat.nlink < 2 || seen.insert((stat.dev, stat.ino)) {
                shift_one(opened.as_fd(), &name, &stat, maps)?;
            }
            if stat.is_dir() {
                pending.push(path.join(&name));
            }
        }
    }
    Ok(())
}

fn shift_one(dir: std::os::fd::BorrowedFd<'_>, name: &OsStr, stat: &at::Stat, maps: &Maps) -> Result {
    // A change of owner takes a file's capabilities too.
    let capability = OsStr::new("security.capability");
    let kept = if stat.is_file() { sys::xattr::get_at(dir, name, capability)? } else { None };
    at::chown(dir, name, to_host(&maps.uids, stat.uid)?, to_host(&maps.gids, stat.gid)?)?;
    if !stat.is_link() && stat.mode & SPECIAL != 0 {
        at::chmod(dir, name, stat.mode & 0o7777)?;
    }
    if let Some(kept) = kept {
        sys::xattr::set_at(dir, name, capability, &kept)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    fn maps() -> Maps {
        let map = IdMapping { container_id: 0, host_id: 100_000, size: 1000 };
        Maps { uids: vec![map], gids: vec![IdMapping { host_id: 200_000, ..map }] }
    }

    #[test]
    fn the_shifted_snapshot_is_called_as_gos_is() {
        let text = concat!(
            r#"{"Parent":"sha256:aa","IDMap":{"UidMap":[{"containerID":0,"hostID":100000,"size":1000}],"#,
            r#""GidMap":[{"containerID":0,"hostID":200000,"size":1000}]}}"#
        );
        assert_eq!(maps().name("sha256:aa"), model::manifest::sha256(text.as_bytes()).to_string());
    }

    #[test]
    fn owners_are_shifted_once_and_links_stay_what_they_are() {
        if !rustix::process::geteuid().is_root() {
            println!("SKIP owners_are_shifted_once_and_links_stay_what_they_are: not root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (tree, outside) = (dir.path().join("tree"), dir.path().join("outside"));
        std::fs::create_dir_all(tree.join("a/b")).unwrap();
        std::fs::write(&outside, "").unwrap();
        let file = tree.join("a/b/suid");
        std::fs::write(&file, "").unwrap();
        std::os::unix::fs::chown(&file, Some(7), Some(8)).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o4755)).unwrap();
        std::fs::hard_link(&file, tree.join("again")).unwrap();
        symlink(&outside, tree.join("link")).unwrap();
        shift(&tree, &maps()).unwrap();
        let owner = |path: &Path| {
            let metadata = std::fs::symlink_metadata(path).unwrap();
            (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777)
        };
        assert_eq!(owner(&file), (100_007, 200_008, 0o4755));
        assert_eq!(owner(&tree.join("link")), (100_000, 200_000, 0o777));
        assert_eq!(owner(&tree).0, 100_000);
        assert_eq!(owner(&outside).0, 0, "what a link names stays");
        let error = shift(&tree, &maps()).unwrap_err().to_string();
        assert!(error.contains("which has no host id in the mapping"), "{error}");
    }
}
