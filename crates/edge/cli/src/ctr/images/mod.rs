//! `ctr images`.

mod archive;
mod check;
mod list;
mod mount;
pub mod pull;
mod push;

use std::collections::BTreeMap;

use api::containerd::services::images::v1 as wire;
use clap::Subcommand;

use super::args;
use crate::client::Client;
use crate::failure::{Failure, Result};
use crate::image;
use crate::ui::{self, Table, quantity};

/// The group's commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Check existing images to ensure all content is available locally
    Check(check::Check),
    /// Export images
    Export(archive::Export),
    /// Import images
    Import(archive::Import),
    /// Inspect an image
    #[command(visible_alias = "i")]
    Inspect(list::Inspect),
    /// List images known to containerd
    #[command(visible_alias = "ls")]
    List(list::List),
    /// Mount an image to a target path
    Mount(mount::Mount),
    /// Unmount the image from the target
    Unmount(mount::Unmount),
    /// Pull an image from a remote
    Pull(Box<pull::Pull>),
    /// Push an image to a remote
    Push(Box<push::Push>),
    /// Remove unused images
    Prune {
        /// Remove all unused images, not just dangling ones (if all is not specified no images will be pruned)
        #[arg(long)]
        all: bool,
    },
    /// Remove one or more images by reference
    #[command(visible_aliases = ["del", "remove", "rm"])]
    Delete {
        /// Synchronously remove image and all associated resources
        #[arg(long)]
        sync: bool,
        /// Their names
        #[arg(required = true)]
        references: Vec<String>,
    },
    /// Tag an image
    Tag {
        /// Force target_ref to be created, regardless if it already exists
        #[arg(long)]
        force: bool,
        /// Run tag locally rather than through transfer API
        #[arg(long)]
        local: bool,
        /// Skip the strict check for reference names
        #[arg(long)]
        skip_reference_check: bool,
        /// The image
        source: String,
        /// New names
        #[arg(required = true)]
        targets: Vec<String>,
    },
    /// Set and clear labels for an image
    Label {
        /// Replace all labels
        #[arg(long, short)]
        replace_all: bool,
        /// The image
        name: String,
        /// KEY=VALUE sets, KEY= clears
        labels: Vec<String>,
    },
    /// Apply the layers of an image to snapshots
    Unpack {
        #[command(flatten)]
        snapshotter: args::Snapshotter,
        /// Unpack for a specific platform
        #[arg(long)]
        platform: Option<String>,
        /// Synchronize the underlying filesystem containing files when unpack images, false by default
        #[arg(long)]
        sync_fs: bool,
        /// The image
        reference: String,
    },
    /// Display usage of snapshots for a given image ref
    Usage {
        #[command(flatten)]
        snapshotter: args::Snapshotter,
        /// The image
        reference: String,
    },
}

impl Command {
    /// Runs the command.
    pub async fn run(self, client: &Client) -> Result {
        match self {
            Self::Check(check) => check.run(client).await,
            Self::Export(export) => export.run(client).await,
            Self::Import(import) => import.run(client).await,
            Self::Inspect(inspect) => inspect.run(client).await,
            Self::List(list) => list.run(client).await,
            Self::Mount(mount) => mount.run(client).await,
            Self::Unmount(unmount) => unmount.run(client).await,
            Self::Pull(pull) => pull.run(client).await,
            Self::Push(push) => push.run(client).await,
            Self::Prune { all } => prune(client, all).await,
            Self::Delete { sync, references } => delete(client, &references, sync).await,
            // A tag is one record; there is nothing to transfer either way.
            Self::Tag { force, local: _, skip_reference_check, source, targets } => {
                tag(client, &source, targets, force, skip_reference_check).await
            }
            Self::Label { replace_all, name, labels } => label(client, name, &labels, replace_all).await,
            Self::Unpack { snapshotter, platform, sync_fs, reference } => {
                unpack(client, &snapshotter, platform.as_deref(), sync_fs, &reference).await
            }
            Self::Usage { snapshotter, reference } => usage(client, &snapshotter, &reference).await,
        }
    }
}

async fn delete(client: &Client, references: &[String], sync: bool) -> Result {
    let mut last = Ok(());
    for (index, name) in references.iter().enumerate() {
        let sync = sync && index + 1 == references.len(); // one collection serves them all
        let request = wire::DeleteImageRequest { name: name.clone(), sync, ..Default::default() };
        match client.images().delete(request).await {
            Ok(_) => ui::line(name)?,
            Err(status) if status.code() == tonic::Code::NotFound => {
                ui::say(format!("ctr: {name}: image not found"))
            }
            Err(status) => {
                let failure = Failure::from(status).context(format!("unable to delete {name}"));
                ui::say(format!("ctr: {failure}"));
                last = Err(failure);
            }
        }
    }
    last
}

async fn prune(client: &Client, all: bool) -> Result {
    if !all {
        ui::say("No images pruned. `image prune` requires --all to be specified.");
        return Ok(());
    }
    let request = api::containerd::services::containers::v1::ListContainersRequest::default();
    let containers = client.containers().list(request).await?.into_inner().containers;
    let images = image::list(client, vec![]).await?;
    let unused: Vec<_> =
        images.iter().filter(|image| !containers.iter().any(|c| c.image == image.name)).collect();
    for (index, image) in unused.iter().enumerate() {
        let sync = index + 1 == unused.len();
        let request = wire::DeleteImageRequest { name: image.name.clone(), sync, ..Default::default() };
        match client.images().delete(request).await {
            Ok(_) => ui::say(format!("deleted image: {}", image.name)),
            Err(status) if status.code() == tonic::Code::NotFound => {}
            Err(status) => ui::say(format!("failed to delete image {}: {}", image.name, status.message())),
        }
    }
    Ok(())
}

async fn tag(client: &Client, source: &str, targets: Vec<String>, force: bool, unchecked: bool) -> Result {
    let image = image::get(client, source).await?;
    for target in targets {
        if !unchecked {
            target.parse::<spec::Reference>().map_err(spec::Error::from)?;
        }
        let new = wire::Image {
            name: target.clone(),
            labels: image.labels.clone(),
            target: Some(image::to_wire(&image.target)),
            ..Default::default()
        };
        let request = wire::CreateImageRequest { image: Some(new.clone()), ..Default::default() };
        match client.images().create(request).await {
            Ok(_) => {}
            Err(status) if status.code() == tonic::Code::AlreadyExists && force => {
                let request = wire::UpdateImageRequest { image: Some(new), ..Default::default() };
                client.images().update(request).await?;
            }
            Err(status) => {
                let failure = Failure::from(status);
                let exists = failure.is_already_exists();
                return Err(if exists { failure.hint("--force replaces it") } else { failure });
            }
        }
        ui::line(target)?;
    }
    Ok(())
}

async fn label(client: &Client, name: String, words: &[String], replace_all: bool) -> Result {
    let labels: BTreeMap<_, _> = args::labels(words);
    let update_mask = if replace_all {
        Some(api::FieldMask { paths: vec!["labels".into()] })
    } else {
        args::label_mask(&labels)
    };
    let image = Some(wire::Image { name, labels, ..Default::default() });
    let request = wire::UpdateImageRequest { image, update_mask, ..Default::default() };
    let updated = client.images().update(request).await?.into_inner().image.unwrap_or_default();
    Ok(ui::line(args::join_labels(&updated.labels, ""))?)
}

/// Unpacks an image that is here already, such as one that was imported with `--no-unpack`.
async fn unpack(
    client: &Client,
    snapshotter: &args::Snapshotter,
    platform: Option<&str>,
    sync_fs: bool,
    reference: &str,
) -> Result {
    let snapshotter = client.snapshotter(snapshotter.snapshotter.as_deref()).await?;
    let platform: spec::Platform = match platform {
        Some(text) => text.parse().map_err(spec::Error::from)?,
        None => spec::Platform::host(),
    };
    let image = image::get(client, reference).await?;
    ui::line(format!("unpacking {platform} {}...", image.target.digest))?;
    let started = std::time::Instant::now();
    image::unpack(client, &image, Some(&platform), &snapshotter, sync_fs).await?;
    Ok(ui::line(format!("done: {}", quantity::duration(started.elapsed())))?)
}

async fn usage(client: &Client, snapshotter: &args::Snapshotter, reference: &str) -> Result {
    let snapshotter = client.snapshotter(snapshotter.snapshotter.as_deref()).await?;
    let image = image::get(client, reference).await?;
    let chosen = image::choose(client, &image, None).await?;
    let mut table = Table::new(["KEY", "SIZE", "INODES"]);
    for key in model::manifest::chain_ids(&chosen.config.rootfs.diff_ids).into_iter().rev() {
        let request = api::containerd::services::snapshots::v1::UsageRequest {
            snapshotter: snapshotter.clone(),
            key: key.to_string(),
        };
        let usage = client.snapshots().usage(request).await?.into_inner();
        let size = quantity::bytes(u64::try_from(usage.size).unwrap_or(0));
        table.row([key.to_string(), size, usage.inodes.to_string()]);
    }
    Ok(table.print()?)
}
