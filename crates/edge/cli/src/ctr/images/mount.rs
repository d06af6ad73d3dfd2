//! `ctr images mount` and `unmount`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::containerd::services::snapshots::v1 as snapshots;
use spec::Platform;

use super::args;
use crate::client::Client;
use crate::failure::{Failure, Result};
use crate::{container, image, ui};

/// Flags of `mount`.
#[derive(clap::Args, Debug)]
pub struct Mount {
    #[command(flatten)]
    registry: args::Registry,
    #[command(flatten)]
    snapshotter: args::Snapshotter,
    #[command(flatten)]
    label: args::Label,
    /// Enable write support on the mount
    #[arg(long)]
    rw: bool,
    /// Mount the image for the specified platform
    #[arg(long)]
    platform: Option<String>,
    /// Synchronize the underlying filesystem containing files when unpack images, false by default
    #[arg(long)]
    sync_fs: bool,
    /// Set the expiration time for the mount and snapshots
    #[arg(long, short = 'x', default_value = "1h", value_parser = args::duration)]
    expiration: Duration,
    /// The image
    reference: String,
    /// Where; a new directory under the temporary directory when there is none
    target: Option<PathBuf>,
}

impl Mount {
    /// Mounts a view (or, with `--rw`, a copy) of the image and prints its chain id and the target.
    pub async fn run(self, client: &Client) -> Result {
        let target = match &self.target {
            Some(target) => target.clone(),
            None => {
                let target = std::env::temp_dir().join(format!("ctr-mount-{}", std::process::id()));
                std::fs::create_dir(&target)?;
                target
            }
        };
        // The lease outlives the command: the mount is used after it, until the lease expires or `unmount --rm`.
        let mut labels = BTreeMap::new();
        super::super::leases::expire(&mut labels, self.expiration);
        let wanted = lease_of(&target);
        let (lease, ours) = match super::super::leases::create(client, wanted.clone(), labels).await {
            Ok(lease) => (lease, true),
            // The snapshot of an earlier mount is used again, under its lease.
            Err(failure) if failure.is_already_exists() => (wanted, false),
            Err(failure) => return Err(failure),
        };
        let leased = client.with_lease(&lease)?;
        let result = self.mount(&leased, &target).await;
        if result.is_err() && ours {
            super::super::end_lease(client, lease).await?;
        }
        result
    }

    async fn mount(&self, client: &Client, target: &Path) -> Result {
        let snapshotter = client.snapshotter(self.snapshotter.snapshotter.as_deref()).await?;
        let platform: Option<Platform> =
            self.platform.as_ref().map(|text| text.parse()).transpose().map_err(spec::Error::from)?;
        let image = image::get(client, &self.reference).await?;
        let chain_id =
            image::unpack(client, &image, platform.as_ref(), &snapshotter, self.sync_fs).await?.to_string();
        ui::line(&chain_id)?;
        let key = target.display().to_string();
        let (mounts, ours) = self.snapshot(client, &snapshotter, &key, chain_id).await?;
        if let Err(failure) = container::rootfs::mount_all(&mounts, target) {
            if ours {
                client.snapshots().remove(snapshots::RemoveSnapshotRequest { snapshotter, key }).await?;
            }
            return Err(failure.context(format!("failed to mount at {}", target.display())));
        }
        Ok(ui::line(target.display())?)
    }

    /// How to mount the snapshot `key`, and whether it is new: one that an earlier mount made is used again.
    async fn snapshot(
        &self,
        client: &Client,
        snapshotter: &str,
        key: &str,
        parent: String,
    ) -> Result<(Vec<api::containerd::types::Mount>, bool)> {
        let (snapshotter, key) = (snapshotter.to_owned(), key.to_owned());
        let mut service = client.snapshots();
        let made = if self.rw {
            let request = snapshots::PrepareSnapshotRequest {
                snapshotter: snapshotter.clone(),
                key: key.clone(),
                parent,
                ..Default::default()
            };
            service.prepare(request).await.map(|response| response.into_inner().mounts)
        } else {
            let request = snapshots::ViewSnapshotRequest {
                snapshotter: snapshotter.clone(),
                key: key.clone(),
                parent,
                ..Default::default()
            };
            service.view(request).await.map(|response| response.into_inner().mounts)
        };
        match made {
            Ok(mounts) => Ok((mounts, true)),
            Err(status) if status.code() == tonic::Code::AlreadyExists => {
                let mounts = service.mounts(snapshots::MountsRequest { snapshotter, key }).await?;
                Ok((mounts.into_inner().mounts, false))
            }
            Err(status) => Err(status.into()),
        }
    }
}

/// The lease of what is mounted at `target`, by which `unmount --rm` finds it; a new one where no lease can be called so.
fn lease_of(target: &Path) -> String {
    let name = target.display().to_string();
    if name.parse::<spec::LeaseId>().is_ok() { name } else { String::new() }
}

/// Flags of `unmount`.
#[derive(clap::Args, Debug)]
pub struct Unmount {
    #[command(flatten)]
    registry: args::Registry,
    #[command(flatten)]
    snapshotter: args::Snapshotter,
    #[command(flatten)]
    label: args::Label,
    /// Remove the snapshot after a successful unmount
    #[arg(long)]
    rm: bool,
    /// Where the image is mounted
    target: PathBuf,
}

impl Unmount {
    /// Unmounts, and with `--rm` removes what the mount was made of.
    pub async fn run(self, client: &Client) -> Result {
        container::rootfs::unmount(&self.target)?;
        if self.rm {
            let lease = lease_of(&self.target);
            if !lease.is_empty() {
                match super::super::end_lease(client, lease).await {
                    Err(failure) if !failure.is_not_found() => {
                        return Err(failure.context("error deleting lease"));
                    }
                    _ => {}
                }
            }
            let snapshotter = client.snapshotter(self.snapshotter.snapshotter.as_deref()).await?;
            let key = self.target.display().to_string();
            match client.snapshots().remove(snapshots::RemoveSnapshotRequest { snapshotter, key }).await {
                Ok(_) => {}
                Err(status) if status.code() == tonic::Code::NotFound => {}
                Err(status) => return Err(Failure::from(status).context("failed to remove the snapshot")),
            }
        }
        Ok(ui::line(self.target.display())?)
    }
}
