//! What images and containers take on disk.

use std::sync::Arc;

use api::runtime::v1;
use model::Result;

use crate::Cri;
use crate::stats::{Disk, now};

impl Cri {
    /// What images and containers take on disk, by snapshotter; that of images first, which is the only one that the
    /// kubelet looks at.
    pub(crate) async fn image_fs_info(
        self: &Arc<Self>,
        request: v1::ImageFsInfoRequest,
    ) -> Result<v1::ImageFsInfoResponse> {
        let v1::ImageFsInfoRequest {} = request;
        let usual = &self.config.images.snapshotter;
        let mut used = self.disk.by_snapshotter();
        let first = used.remove(usual).unwrap_or(Disk { at: now(), ..Disk::default() });
        let all = std::iter::once((usual.clone(), first)).chain(used);
        let image_filesystems = all.map(|(name, disk)| self.file_system(&name, disk)).collect();
        Ok(v1::ImageFsInfoResponse { image_filesystems, ..v1::ImageFsInfoResponse::default() })
    }

    /// What a snapshotter's file system is to the kubelet.
    pub(crate) fn file_system(&self, snapshotter: &str, disk: Disk) -> v1::FilesystemUsage {
        v1::FilesystemUsage {
            timestamp: disk.at,
            fs_id: Some(v1::FilesystemIdentifier { mountpoint: self.snapshotter_root(snapshotter) }),
            used_bytes: Some(v1::UInt64Value { value: disk.size }),
            inodes_used: Some(v1::UInt64Value { value: disk.inodes }),
        }
    }

    /// The directory of a snapshotter.
    fn snapshotter_root(&self, snapshotter: &str) -> String {
        let root = self.engine.snapshotter_roots.get(snapshotter).cloned();
        let root = root
            .unwrap_or_else(|| self.engine.root.join(format!("io.containerd.snapshotter.v1.{snapshotter}")));
        root.display().to_string()
    }
}
