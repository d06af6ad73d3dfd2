//! Making a container's snapshot and record, as `ctr run` and `ctr containers create` do.

use std::collections::BTreeMap;
use std::path::Path;

use api::containerd::services::containers::v1 as wire;
use api::containerd::services::snapshots::v1 as snapshots;
use spec::Platform;
use spec::runtime::Spec;

use super::flags::{ContainerFlags, RunFlags};
use super::rootfs::Tree;
use super::spec as build;
use super::{network, remap};
use crate::client::Client;
use crate::ctr::args;
use crate::failure::{Failure, OrFail, Result};
use crate::image;

/// The type that containerd gives an OCI runtime spec in an Any, whose value is JSON.
pub const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

/// What to make.
#[derive(Debug)]
pub struct Create<'a> {
    /// Flags of both commands.
    pub flags: &'a ContainerFlags,
    /// Flags of `run`.
    pub run: &'a RunFlags,
    /// Image or root file system; nothing with `--config`.
    pub image: &'a str,
    /// The new container's id.
    pub id: &'a str,
    /// The command; the image's when empty.
    pub command: &'a [String],
}

/// A container that was made.
#[derive(Debug)]
pub struct Created {
    /// Its record.
    pub container: wire::Container,
    /// Its spec.
    pub spec: Spec,
    /// How to mount its root file system; nothing for one of the user's own.
    pub rootfs: Vec<api::containerd::types::Mount>,
    /// The lease that kept its snapshot until its record did.
    lease: Option<String>,
}

impl Created {
    /// Ends the lease under which it was made; may run beside whatever comes next.
    pub async fn release(&self, client: &Client) -> Result {
        match &self.lease {
            Some(lease) => crate::ctr::end_lease(client, lease.clone()).await,
            None => Ok(()),
        }
    }
}

impl Create<'_> {
    /// Makes the container, or leaves nothing behind.
    pub async fn make(&self, client: &Client) -> Result<Created> {
        spec::name::check_identifier(self.id).map_err(spec::Error::from)?;
        if self.flags.runtime.runc_systemd_cgroup && self.run.cgroup.as_deref().unwrap_or_default().is_empty()
        {
            return Err(Failure::new("option --runc-systemd-cgroup requires --cgroup to be set"));
        }
        let mut record = wire::Container {
            id: self.id.to_owned(),
            labels: args::labels(&self.flags.label.labels),
            runtime: Some(wire::container::Runtime {
                name: self.flags.runtime.runtime.clone(),
                options: self.flags.runtime.options()?,
            }),
            sandbox: self.flags.sandbox.clone().unwrap_or_default(),
            ..Default::default()
        };
        if self.run.cni {
            network::note(&mut record);
        }
        if let Some(config) = &self.flags.config {
            let text = std::fs::read(config)
                .or_fail(format!("cannot load spec template file {}", config.display()))?;
            let mut spec = Spec::from_slice(&text).or_fail(format!("{} is no OCI spec", config.display()))?;
            spec.annotations.extend(record.labels.clone());
            return store(client, record, spec, vec![]).await;
        }
        let mut spec = build::base(client.namespace(), self.id);
        if self.flags.runtime.runc_binary.is_some() {
            // Nothing in this spec is newer, and a runtime such as crun 1.8 refuses a version it does not know.
            spec.oci_version = "1.1.0".into();
        }
        if self.flags.rootfs {
            let root = std::path::absolute(Path::new(self.image))?;
            spec.root.get_or_insert_default().path = root.display().to_string();
            spec.process_mut().args = self.command.to_vec();
            let tree = Tree::of_directory(&root).or_fail(format!("cannot open rootfs {}", root.display()))?;
            build::apply_flags(&mut spec, self.flags, self.run, Some(&tree))?;
            return store(client, record, spec, vec![]).await;
        }
        self.with_image(client, record, spec).await
    }

    async fn with_image(
        &self,
        client: &Client,
        mut record: wire::Container,
        mut spec: Spec,
    ) -> Result<Created> {
        let platform: Option<Platform> =
            self.run.platform.as_ref().map(|text| text.parse()).transpose().map_err(::spec::Error::from)?;
        let (snapshotter, image) = tokio::try_join!(
            client.snapshotter(self.flags.snapshotter.snapshotter.as_deref()),
            image::get(client, self.image)
        )?;
        let find = async {
            let chosen = image::choose(client, &image, platform.as_ref()).await?;
            let parent = match chosen.chain_id() {
                Some(chain_id) if image::is_unpacked(client, &chosen, &snapshotter).await? => chain_id,
                _ => image::unpack(client, &image, platform.as_ref(), &snapshotter, self.run.sync_fs).await?,
            };
            Ok((chosen, parent))
        };
        // The lease is on its way to the disk while the image is looked at.
        let (lease, found) = tokio::join!(crate::ctr::lease(client), find);
        let lease = lease?;
        let (chosen, parent) = match found {
            Ok(found) => found,
            Err(failure) => {
                crate::ctr::end_lease(client, lease).await?;
                return Err(failure);
            }
        };
        record.image.clone_from(&image.name);
        record.snapshotter.clone_from(&snapshotter);
        record.snapshot_key = self.id.to_owned();
        record.labels = self.labels(&image, &chosen.config.config);
        let leased = client.with_lease(&lease)?;
        let result = async {
            let (parent, labels) = self.base(&leased, &snapshotter, parent.to_string()).await?;
            let prepare = snapshots::PrepareSnapshotRequest {
                snapshotter: snapshotter.clone(),
                key: self.id.to_owned(),
                parent,
                labels,
            };
            let mounts = leased.snapshots().prepare(prepare).await?.into_inner().mounts;
            let tree = Tree::of_mounts(&mounts).or_fail("cannot look into the image")?;
            build::apply_image(&mut spec, &chosen.config.config, self.command, &tree)?;
            build::apply_flags(&mut spec, self.flags, self.run, Some(&tree))?;
            drop(tree); // before the runtime mounts the same directories for writing
            store(&leased, record, spec, mounts).await
        };
        let result: Result<Created> = result.await;
        if let Ok(created) = result {
            return Ok(Created { lease: Some(lease), ..created });
        }
        if result.as_ref().is_err_and(|failure| !failure.is_already_exists()) {
            let request = snapshots::RemoveSnapshotRequest { snapshotter, key: self.id.to_owned() };
            // The failure that led here is the one to tell; the lease's end frees what stays.
            let _leased = client.snapshots().remove(request).await;
        }
        crate::ctr::end_lease(client, lease).await?;
        result
    }

    /// Labels of the image's config and record, then the flags'; those with containerd's own prefixes are not copied.
    fn labels(
        &self,
        image: &image::Image,
        config: &::spec::image::ProcessConfig,
    ) -> BTreeMap<String, String> {
        let own = |key: &str| key.starts_with("containerd.io/") || key.starts_with("io.cri-containerd");
        let mut labels = BTreeMap::new();
        for (key, value) in config.labels.iter().chain(&image.labels) {
            if !own(key) && ::spec::label::check(key, value).is_ok() {
                labels.insert(key.clone(), value.clone());
            }
        }
        labels.extend(args::labels(&self.flags.label.labels));
        let signal = if config.stop_signal.is_empty() { "SIGTERM" } else { &config.stop_signal };
        labels.insert(::spec::label::STOP_SIGNAL.into(), signal.to_owned());
        labels
    }

    /// What the container's snapshot is made on, and its labels. In a user namespace the files must belong to the host's
    /// ids of the container's: some snapshotters show them so by themselves, for the others a copy is shifted.
    async fn base(
        &self,
        client: &Client,
        snapshotter: &str,
        parent: String,
    ) -> Result<(String, BTreeMap<String, String>)> {
        let mut labels = args::labels(&self.flags.snapshotter_labels);
        let Some(maps) = build::id_maps(self.run)? else { return Ok((parent, labels)) };
        let filter = format!("type==io.containerd.snapshotter.v1,id=={snapshotter}");
        let request = api::containerd::services::introspection::v1::PluginsRequest { filters: vec![filter] };
        let plugins = client.introspection().plugins(request).await?.into_inner().plugins;
        let can =
            |wanted: &str| plugins.iter().any(|plugin| plugin.capabilities.iter().any(|word| word == wanted));
        if can("remap-ids") {
            labels.insert("containerd.io/snapshot/uidmapping".into(), self.run.uid_maps.join(","));
            labels.insert("containerd.io/snapshot/gidmapping".into(), self.run.gid_maps.join(","));
            return Ok((parent, labels));
        }
        if self.run.remap_labels && can("only-remap-ids") {
            return Err(Failure::new(format!(
                "snapshotter {snapshotter:?} doesn't support idmap mounts on this host"
            )));
        }
        Ok((remap::shifted(client, snapshotter, &parent, &maps).await?, labels))
    }
}

async fn store(
    client: &Client,
    mut record: wire::Container,
    spec: Spec,
    rootfs: Vec<api::containerd::types::Mount>,
) -> Result<Created> {
    let value = serde_json::to_vec(&spec)?;
    record.spec = Some(api::Any { type_url: SPEC_TYPE.into(), value });
    let request = wire::CreateContainerRequest { container: Some(record) };
    let container = client.containers().create(request).await?.into_inner().container;
    let container = container.ok_or_else(|| Failure::new("the daemon made no container"))?;
    Ok(Created { container, spec, rootfs, lease: None })
}

/// Deletes a container's record and, unless it is to be kept, its snapshot.
pub async fn delete(client: &Client, id: &str, keep_snapshot: bool) -> Result {
    let request = wire::GetContainerRequest { id: id.to_owned() };
    let mut container = client.containers().get(request).await?.into_inner().container.unwrap_or_default();
    if keep_snapshot {
        container.snapshot_key.clear();
    }
    if network::noted(&container) {
        network::detach(client, id).await?;
    }
    delete_made(client, &container).await
}

/// Deletes the record and the snapshot of `container`, both at once: the daemon makes them durable with one flush.
pub async fn delete_made(client: &Client, container: &wire::Container) -> Result {
    let snapshot = async {
        if container.snapshot_key.is_empty() {
            return Ok(());
        }
        let request = snapshots::RemoveSnapshotRequest {
            snapshotter: container.snapshotter.clone(),
            key: container.snapshot_key.clone(),
        };
        match client.snapshots().remove(request).await {
            Err(status) if status.code() != tonic::Code::NotFound => Err(Failure::from(status)),
            _ => Ok(()),
        }
    };
    let mut containers = client.containers();
    let record = containers.delete(wire::DeleteContainerRequest { id: container.id.clone() });
    let (snapshot, record) = tokio::join!(snapshot, record);
    record?;
    snapshot
}
