//! `ctr snapshots`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use api::containerd::services::diff::v1 as diff;
use api::containerd::services::snapshots::v1 as wire;
use api::containerd::types::Mount;
use clap::Subcommand;
use serde_json::json;

use super::args;
use crate::client::Client;
use crate::failure::{Failure, OrFail, Result};
use crate::image;
use crate::ui::{self, Table, quantity};

/// The group: its one flag and its commands.
#[derive(clap::Args, Debug)]
pub struct Snapshots {
    #[command(flatten)]
    snapshotter: args::Snapshotter,
    #[command(subcommand)]
    command: Command,
}

/// The group's commands.
#[derive(Subcommand, Debug)]
enum Command {
    /// Commit an active snapshot into the provided name
    Commit {
        /// Name of the committed snapshot
        key: String,
        /// Key of the active snapshot
        active: String,
    },
    /// Get the diff of two snapshots. The default second snapshot is the first snapshot's parent
    Diff(Diff),
    /// Get info about a snapshot
    Info {
        /// Key of the snapshot
        key: String,
    },
    /// List snapshots
    #[command(visible_alias = "ls")]
    List,
    /// Mount gets mount commands for the snapshots
    #[command(visible_aliases = ["m", "mount"])]
    Mounts {
        /// Mounts the snapshot mounts as a temp mount and returns a bind mount
        #[arg(long)]
        temp: bool,
        /// Where to mount
        target: String,
        /// Key of the snapshot
        key: String,
    },
    /// Prepare a snapshot from a committed snapshot
    Prepare(Make),
    /// Create a read-only snapshot from a committed snapshot
    View(Make),
    /// Remove snapshots
    #[command(visible_aliases = ["del", "remove", "rm"])]
    Delete {
        /// Keys
        #[arg(required = true)]
        keys: Vec<String>,
    },
    /// Add labels to a snapshot
    Label {
        /// Its key
        name: String,
        /// KEY=VALUE sets, KEY= clears
        labels: Vec<String>,
    },
    /// Display tree view of snapshot branches
    Tree,
    /// Unpack applies layers from a manifest to a snapshot
    Unpack {
        /// Synchronize the underlying filesystem containing files when unpack images, false by default
        #[arg(long)]
        sync_fs: bool,
        /// Snapshotter name
        #[arg(long = "snapshotter", id = "unpack_snapshotter")]
        snapshotter: Option<String>,
        /// Digest of the manifest or index
        digest: String,
    },
    /// Usage snapshots
    Usage {
        /// Display size in bytes
        #[arg(short = 'b')]
        bytes: bool,
        /// Keys; every snapshot when there is none
        keys: Vec<String>,
    },
}

/// Flags of `diff`.
#[derive(clap::Args, Debug)]
struct Diff {
    /// Media type to use for creating diff
    #[arg(long, default_value = spec::media::LAYER_GZIP)]
    media_type: String,
    /// Content upload reference to use
    #[arg(long = "ref", default_value = "")]
    reference: String,
    /// Keep diff content. up to creator to delete it
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    label: args::Label,
    /// First snapshot
    first: String,
    /// Second snapshot
    second: Option<String>,
}

/// Flags of `prepare` and `view`.
#[derive(clap::Args, Debug)]
struct Make {
    /// Mount target path, will print mount, if provided
    #[arg(long, short)]
    target: Option<PathBuf>,
    /// Print out snapshot mounts as JSON
    #[arg(long)]
    mounts: bool,
    /// Key of the new snapshot
    key: String,
    /// The committed snapshot below
    #[arg(default_value = "")]
    parent: String,
}

impl Snapshots {
    /// Runs the command.
    pub async fn run(self, client: &Client) -> Result {
        let snapshotter = client.snapshotter(self.snapshotter.snapshotter.as_deref()).await?;
        let mut snapshots = client.snapshots();
        match self.command {
            Command::Commit { key, active } => {
                let labels = BTreeMap::from([(spec::label::GC_ROOT.into(), now())]);
                let request = wire::CommitSnapshotRequest {
                    snapshotter,
                    name: key,
                    key: active,
                    labels,
                    ..Default::default()
                };
                snapshots.commit(request).await?;
                Ok(())
            }
            Command::Diff(flags) => flags.run(client, snapshotter).await,
            Command::Info { key } => info(client, snapshotter, key).await,
            Command::List => {
                let mut table = Table::new(["KEY", "PARENT", "KIND"]);
                for info in list(client, &snapshotter).await? {
                    let kind = kind(&info);
                    table.row([info.name, info.parent, kind.into()]);
                }
                Ok(table.print()?)
            }
            Command::Mounts { temp, target, key } => {
                let mounts =
                    snapshots.mounts(wire::MountsRequest { snapshotter, key }).await?.into_inner().mounts;
                if temp {
                    return Err(Failure::new(
                        "--temp needs the mount manager, which this daemon does not have yet",
                    ));
                }
                print_mounts(&target, &mounts)
            }
            Command::Prepare(make) => make.prepare(client, snapshotter).await,
            Command::View(make) => make.view(client, snapshotter).await,
            Command::Delete { keys } => {
                for key in keys {
                    let request =
                        wire::RemoveSnapshotRequest { snapshotter: snapshotter.clone(), key: key.clone() };
                    snapshots.remove(request).await.or_fail(format!("failed to remove {key:?}"))?;
                }
                Ok(())
            }
            Command::Label { name, labels } => {
                let labels = args::labels(&labels);
                let update_mask = args::label_mask(&labels);
                let info = Some(wire::Info { name, labels, ..Default::default() });
                let request = wire::UpdateSnapshotRequest { snapshotter, info, update_mask };
                let updated = snapshots.update(request).await?.into_inner().info.unwrap_or_default();
                Ok(ui::line(args::join_labels(&updated.labels, ""))?)
            }
            Command::Tree => tree(client, &snapshotter).await,
            Command::Unpack { sync_fs, snapshotter: own, digest } => {
                let snapshotter = own.unwrap_or(snapshotter);
                unpack(client, &snapshotter, &digest, sync_fs).await
            }
            Command::Usage { bytes, keys } => usage(client, snapshotter, keys, bytes).await,
        }
    }
}

impl Make {
    async fn prepare(self, client: &Client, snapshotter: String) -> Result {
        let labels = BTreeMap::from([(spec::label::GC_ROOT.into(), now())]);
        let request = wire::PrepareSnapshotRequest {
            snapshotter,
            key: self.key.clone(),
            parent: self.parent.clone(),
            labels,
        };
        let mounts = client.snapshots().prepare(request).await?.into_inner().mounts;
        self.print(&mounts)
    }

    async fn view(self, client: &Client, snapshotter: String) -> Result {
        let request = wire::ViewSnapshotRequest {
            snapshotter,
            key: self.key.clone(),
            parent: self.parent.clone(),
            ..Default::default()
        };
        let mounts = client.snapshots().view(request).await?.into_inner().mounts;
        self.print(&mounts)
    }

    fn print(&self, mounts: &[Mount]) -> Result {
        if let Some(target) = &self.target {
            print_mounts(&target.display().to_string(), mounts)?;
        }
        if self.mounts {
            let mounts: Vec<_> = mounts
                .iter()
                .map(|m| json!({"Type": m.r#type, "Source": m.source, "Target": m.target, "Options": m.options}))
                .collect();
            ui::json::print(&mounts)?;
        }
        Ok(())
    }
}

impl Diff {
    /// Makes the layer between two snapshots and writes it to standard output, unless `--keep` asks for its digest.
    async fn run(self, client: &Client, snapshotter: String) -> Result {
        let lease = super::lease(client).await?;
        let leased = client.with_lease(&lease)?;
        let result = self.make(&leased, snapshotter).await;
        super::end_lease(client, lease).await?;
        result
    }

    async fn make(self, client: &Client, snapshotter: String) -> Result {
        let (lower, upper) = match &self.second {
            Some(second) => (self.first.clone(), second.clone()),
            None => (stat(client, &snapshotter, &self.first).await?.parent, self.first.clone()),
        };
        let left = if lower.is_empty() { Vec::new() } else { look(client, &snapshotter, &lower).await? };
        let right = look(client, &snapshotter, &upper).await?;
        let mut labels = args::labels(&self.label.labels);
        if self.keep {
            labels.insert(spec::label::GC_ROOT.into(), now());
        }
        let request = diff::DiffRequest {
            left,
            right,
            media_type: self.media_type,
            r#ref: self.reference,
            labels,
            ..Default::default()
        };
        let response = client.diff().diff(request).await?.into_inner();
        let layer = response.diff.ok_or_else(|| Failure::new("the daemon made no layer"))?;
        if self.keep {
            return Ok(ui::line(layer.digest)?);
        }
        super::content::copy_to_stdout(client, &layer.digest).await
    }
}

/// The mounts that make `key` visible; a committed one is looked at through a view named after it, which a collection
/// removes with the lease.
async fn look(client: &Client, snapshotter: &str, key: &str) -> Result<Vec<Mount>> {
    let info = stat(client, snapshotter, key).await?;
    if info.kind() != wire::Kind::Committed {
        let request = wire::MountsRequest { snapshotter: snapshotter.into(), key: key.into() };
        return Ok(client.snapshots().mounts(request).await?.into_inner().mounts);
    }
    let request = wire::ViewSnapshotRequest {
        snapshotter: snapshotter.into(),
        key: format!("{key}-view-{}", std::process::id()),
        parent: key.into(),
        ..Default::default()
    };
    Ok(client.snapshots().view(request).await?.into_inner().mounts)
}

async fn stat(client: &Client, snapshotter: &str, key: &str) -> Result<wire::Info> {
    let request = wire::StatSnapshotRequest { snapshotter: snapshotter.into(), key: key.into() };
    Ok(client.snapshots().stat(request).await?.into_inner().info.unwrap_or_default())
}

async fn list(client: &Client, snapshotter: &str) -> Result<Vec<wire::Info>> {
    let request = wire::ListSnapshotsRequest { snapshotter: snapshotter.into(), filters: vec![] };
    let mut stream = client.snapshots().list(request).await?.into_inner();
    let mut all = Vec::new();
    while let Some(response) = stream.message().await? {
        all.extend(response.info);
    }
    Ok(all)
}

fn kind(info: &wire::Info) -> &'static str {
    match info.kind() {
        wire::Kind::Unknown => "Unknown",
        wire::Kind::View => "View",
        wire::Kind::Active => "Active",
        wire::Kind::Committed => "Committed",
    }
}

async fn info(client: &Client, snapshotter: String, key: String) -> Result {
    let info = stat(client, &snapshotter, &key).await?;
    let mut value = json!({"Kind": kind(&info), "Name": info.name});
    if !info.parent.is_empty() {
        value["Parent"] = json!(info.parent);
    }
    if !info.labels.is_empty() {
        value["Labels"] = json!(info.labels);
    }
    value["Created"] = json!(quantity::rfc3339(info.created_at));
    value["Updated"] = json!(quantity::rfc3339(info.updated_at));
    Ok(ui::json::print(&value)?)
}

/// `mount -t overlay overlay /mnt -o ...`, ready for a shell.
fn print_mounts(target: &str, mounts: &[Mount]) -> Result {
    for mount in mounts {
        let target = format!("{}/{}", target.trim_end_matches('/'), mount.target);
        let target = if mount.target.is_empty() { target.trim_end_matches('/') } else { &target };
        let target = if target.is_empty() { "/" } else { target };
        let options =
            if mount.options.is_empty() { String::new() } else { format!(" -o {}", mount.options.join(",")) };
        ui::line(format!("mount -t {} {} {target}{options}", mount.r#type, mount.source))?;
    }
    Ok(())
}

async fn tree(client: &Client, snapshotter: &str) -> Result {
    let infos = list(client, snapshotter).await?;
    let mut children: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for info in &infos {
        children.entry(&info.parent).or_default().push(&info.name);
    }
    // Depth first without recursion: a chain may be as deep as an image has layers, and a peer's data decides that.
    let mut stack: Vec<(usize, &str)> =
        children.get("").into_iter().flatten().rev().map(|name| (0, *name)).collect();
    while let Some((depth, name)) = stack.pop() {
        let indent = if depth == 0 { String::new() } else { format!("{}\\_", "  ".repeat(depth - 1)) };
        ui::line(format!("{indent} {name}"))?;
        stack.extend(children.get(name).into_iter().flatten().rev().map(|child| (depth + 1, *child)));
    }
    Ok(())
}

async fn usage(client: &Client, snapshotter: String, keys: Vec<String>, bytes: bool) -> Result {
    let keys = if keys.is_empty() {
        list(client, &snapshotter).await?.into_iter().map(|info| info.name).collect()
    } else {
        keys
    };
    let mut table = Table::new(["KEY", "SIZE", "INODES"]);
    for key in keys {
        let request = wire::UsageRequest { snapshotter: snapshotter.clone(), key: key.clone() };
        let usage = client.snapshots().usage(request).await?.into_inner();
        let size = u64::try_from(usage.size).unwrap_or(0);
        let size = if bytes { size.to_string() } else { quantity::bytes(size) };
        table.row([key, size, usage.inodes.to_string()]);
    }
    Ok(table.print()?)
}

/// Unpacks every image whose target is `digest`.
async fn unpack(client: &Client, snapshotter: &str, digest: &str, sync_fs: bool) -> Result {
    let images = image::list(client, vec![format!("target.digest=={digest}")]).await?;
    if images.is_empty() {
        return Err(Failure::new("manifest not found").hint("`ctr images ls` shows the digests of images"));
    }
    for image in images {
        ui::line(format!("unpacking {digest} ({})...", image.target.media_type))?;
        image::unpack(client, &image, None, snapshotter, sync_fs).await?;
        ui::line("done")?;
    }
    Ok(())
}

/// This moment, as the value of a `gc.root` label.
fn now() -> String {
    humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string()
}
