//! `ctr namespaces`.

use api::containerd::services::namespaces::v1 as wire;
use clap::Subcommand;

use super::args;
use crate::client::Client;
use crate::failure::{Failure, Result};
use crate::ui::{self, Table};

/// The group's commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Create a new namespace
    #[command(visible_alias = "c")]
    Create {
        /// Its name
        name: String,
        /// Its labels, KEY=VALUE
        labels: Vec<String>,
    },
    /// List namespaces
    #[command(visible_alias = "ls")]
    List {
        /// Print only the namespace name
        #[arg(long, short)]
        quiet: bool,
    },
    /// Remove one or more namespaces
    #[command(visible_alias = "rm")]
    Remove {
        /// Delete the namespace's cgroup
        #[arg(long, short)]
        cgroup: bool,
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Set and clear labels for a namespace
    Label {
        /// Its name
        name: String,
        /// KEY=VALUE sets, KEY= clears
        labels: Vec<String>,
    },
}

impl Command {
    /// Runs the command.
    pub async fn run(self, client: &Client) -> Result {
        match self {
            Self::Create { name, labels } => {
                let namespace = wire::Namespace { name, labels: args::labels(&labels) };
                client
                    .namespaces()
                    .create(wire::CreateNamespaceRequest { namespace: Some(namespace) })
                    .await?;
                Ok(())
            }
            Self::List { quiet } => list(client, quiet).await,
            Self::Remove { cgroup, names } => remove(client, &names, cgroup).await,
            Self::Label { name, labels } => {
                let labels = args::labels(&labels);
                let update_mask = args::label_mask(&labels);
                let namespace = Some(wire::Namespace { name, labels });
                client.namespaces().update(wire::UpdateNamespaceRequest { namespace, update_mask }).await?;
                Ok(())
            }
        }
    }
}

async fn list(client: &Client, quiet: bool) -> Result {
    let request = wire::ListNamespacesRequest::default();
    let mut namespaces = client.namespaces().list(request).await?.into_inner().namespaces;
    namespaces.sort_by(|a, b| a.name.cmp(&b.name));
    if quiet {
        for namespace in namespaces {
            ui::line(namespace.name)?;
        }
        return Ok(());
    }
    let mut table = Table::new(["NAME", "LABELS"]);
    for namespace in namespaces {
        table.row([namespace.name, args::join_labels(&namespace.labels, "")]);
    }
    Ok(table.print()?)
}

/// Removes each namespace and prints its name; goes on after one that fails.
async fn remove(client: &Client, names: &[String], cgroup: bool) -> Result {
    let mut last = Ok(());
    for name in names {
        match client.namespaces().delete(wire::DeleteNamespaceRequest { name: name.clone() }).await {
            Ok(_) => {}
            Err(status) if status.code() == tonic::Code::NotFound => {}
            Err(status) => {
                let failure = Failure::from(status).context(format!("unable to delete {name}"));
                ui::say(format!("ctr: {failure}"));
                last = Err(failure);
                continue;
            }
        }
        if cgroup {
            remove_cgroup(name)?;
        }
        ui::line(name)?;
    }
    last
}

/// Removes the cgroup `/<name>` of every hierarchy, where it is empty.
fn remove_cgroup(name: &str) -> Result {
    spec::name::check_identifier(name).map_err(spec::Error::from)?;
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup")?.flatten() {
        let path = hierarchy.path().join(name);
        match std::fs::remove_dir(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {}
            Err(error) => {
                return Err(Failure::from(error).context(format!("cannot remove {}", path.display())));
            }
        }
    }
    match std::fs::remove_dir(format!("/sys/fs/cgroup/{name}")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
