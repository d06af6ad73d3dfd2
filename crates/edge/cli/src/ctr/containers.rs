//! `ctr containers`.

use api::containerd::services::containers::v1 as wire;
use base64::Engine;
use clap::Subcommand;
use serde_json::{Value, json};

use super::args;
use crate::client::Client;
use crate::container::create::{self, Create};
use crate::container::flags::{ContainerFlags, RunFlags};
use crate::failure::{Failure, Result};
use crate::ui::{self, Table, quantity};

/// The group's commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Create container
    Create(Box<CreateFlags>),
    /// Delete one or more existing containers
    #[command(visible_aliases = ["del", "remove", "rm"])]
    Delete {
        /// Do not clean up snapshot with container
        #[arg(long)]
        keep_snapshot: bool,
        /// Their ids
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Get info about a container
    Info {
        /// Only display the spec
        #[arg(long)]
        spec: bool,
        /// Its id
        id: String,
    },
    /// List containers
    #[command(visible_alias = "ls")]
    List {
        /// Print only the container id
        #[arg(long, short)]
        quiet: bool,
        /// Filters
        filters: Vec<String>,
    },
    /// Set and clear labels for a container
    Label {
        /// Its id
        id: String,
        /// KEY=VALUE sets, KEY= clears
        labels: Vec<String>,
    },
}

/// Flags of `create`.
#[derive(clap::Args, Debug)]
pub struct CreateFlags {
    #[command(flatten)]
    flags: ContainerFlags,
    /// Image or root file system; the container's id with --config
    #[arg(value_name = "IMAGE|ROOTFS")]
    image: String,
    /// The new container's id
    #[arg(value_name = "CONTAINER")]
    id: Option<String>,
    /// The command
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Command {
    /// Runs the command.
    pub async fn run(self, client: &Client) -> Result {
        match self {
            Self::Create(create) => create.run(client).await,
            Self::Delete { keep_snapshot, ids } => delete(client, &ids, keep_snapshot).await,
            Self::Info { spec, id } => info(client, id, spec).await,
            Self::List { quiet, filters } => list(client, quiet, filters).await,
            Self::Label { id, labels } => {
                let labels = args::labels(&labels);
                let update_mask = args::label_mask(&labels);
                let container = Some(wire::Container { id, labels, ..Default::default() });
                let request = wire::UpdateContainerRequest { container, update_mask };
                let updated =
                    client.containers().update(request).await?.into_inner().container.unwrap_or_default();
                Ok(ui::line(args::join_labels(&updated.labels, ""))?)
            }
        }
    }
}

impl CreateFlags {
    async fn run(self, client: &Client) -> Result {
        let id = match (&self.flags.config, &self.id) {
            (Some(_), None) => self.image.clone(),
            (Some(_), Some(_)) => {
                return Err(Failure::new("with spec config file, only container id should be provided"));
            }
            (None, Some(id)) => id.clone(),
            (None, None) => return Err(Failure::new("container id must be provided")),
        };
        let run = RunFlags::default();
        let create =
            Create { flags: &self.flags, run: &run, image: &self.image, id: &id, command: &self.command };
        create.make(client).await?.release(client).await
    }
}

async fn list(client: &Client, quiet: bool, filters: Vec<String>) -> Result {
    let request = wire::ListContainersRequest { filters };
    let containers = client.containers().list(request).await?.into_inner().containers;
    if quiet {
        containers.iter().try_for_each(|container| ui::line(&container.id))?;
        return Ok(());
    }
    let mut table = Table::wide(["CONTAINER", "IMAGE", "RUNTIME"]);
    for container in containers {
        let image = if container.image.is_empty() { "-".into() } else { container.image };
        table.row([container.id, image, container.runtime.unwrap_or_default().name]);
    }
    Ok(table.print()?)
}

/// Deletes each container that has no running task; goes on after one that fails.
async fn delete(client: &Client, ids: &[String], keep_snapshot: bool) -> Result {
    let mut last = Ok(());
    for id in ids {
        if let Err(failure) = delete_one(client, id, keep_snapshot).await {
            ui::say(format!("ctr: failed to delete container {id:?}: {failure}"));
            last = Err(failure);
        }
    }
    last
}

async fn delete_one(client: &Client, id: &str, keep_snapshot: bool) -> Result {
    use api::containerd::v1::types::Status;
    match super::tasks::get(client, id).await {
        Err(failure) if failure.is_not_found() => {}
        Err(failure) => return Err(failure),
        Ok(task) if matches!(task.status(), Status::Stopped | Status::Created) => {
            super::tasks::delete_task(client, id).await?;
        }
        Ok(task) => {
            let status = super::tasks::status_word(task.status()).to_lowercase();
            return Err(Failure::new(format!(
                "cannot delete a non stopped container: {{{status} 0 0001-01-01 00:00:00 +0000 UTC}}"
            ))
            .hint(format!("stop it first: ctr -n {} tasks kill {id}", client.namespace())));
        }
    }
    create::delete(client, id, keep_snapshot).await
}

async fn info(client: &Client, id: String, only_spec: bool) -> Result {
    let response = client.containers().get(wire::GetContainerRequest { id }).await?.into_inner();
    let container = response.container.unwrap_or_default();
    let spec: Value = match &container.spec {
        Some(any) => serde_json::from_slice(&any.value).unwrap_or(Value::Null),
        None => Value::Null,
    };
    if only_spec {
        return Ok(ui::json::print(&spec)?);
    }
    let runtime = container.runtime.unwrap_or_default();
    let extensions: serde_json::Map<String, Value> =
        container.extensions.iter().map(|(key, any)| (key.clone(), any_json(any))).collect();
    Ok(ui::json::print(&json!({
        "ID": container.id,
        "Labels": container.labels,
        "Image": container.image,
        "Runtime": {"Name": runtime.name, "Options": runtime.options.as_ref().map(any_json)},
        "SnapshotKey": container.snapshot_key,
        "Snapshotter": container.snapshotter,
        "CreatedAt": quantity::rfc3339(container.created_at),
        "UpdatedAt": quantity::rfc3339(container.updated_at),
        "Extensions": extensions,
        "SandboxID": container.sandbox,
        "Spec": spec,
    }))?)
}

/// An Any as Go's JSON has it: the value in base64, absent when empty.
fn any_json(any: &api::Any) -> Value {
    if any.value.is_empty() {
        return json!({"type_url": any.type_url});
    }
    json!({"type_url": any.type_url, "value": base64::engine::general_purpose::STANDARD.encode(&any.value)})
}
