//! `ctr tasks exec`.

use std::path::{Path, PathBuf};

use api::containerd::services::containers::v1::GetContainerRequest;
use api::containerd::services::snapshots::v1::MountsRequest;
use api::containerd::services::tasks::v1 as wire;
use spec::runtime::Spec;

use super::tasks::{PROCESS_TYPE, delete_exec, get, spec_of};
use crate::client::Client;
use crate::container::rootfs::Tree;
use crate::container::user;
use crate::failure::{Failure, Result};
use crate::process::{Process, Wiring, WiringFlags};
use crate::stdio::RawTerminal;

/// Flags of `exec`.
#[derive(clap::Args, Debug)]
pub struct Exec {
    /// Working directory of the new process
    #[arg(long)]
    cwd: Option<String>,
    /// Allocate a TTY for the container
    #[arg(long, short)]
    tty: bool,
    /// Detach from the task after it has started execution
    #[arg(long, short)]
    detach: bool,
    /// Exec specific id for the process
    #[arg(long)]
    exec_id: String,
    /// Directory used for storing IO FIFOs
    #[arg(long)]
    fifo_dir: Option<PathBuf>,
    /// Log uri for custom shim logging
    #[arg(long)]
    log_uri: Option<String>,
    /// User id or name
    #[arg(long)]
    user: Option<String>,
    /// The container
    #[arg(value_name = "CONTAINER")]
    id: String,
    /// The command
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<String>,
}

impl Exec {
    /// Runs a further process in a container.
    pub async fn run(self, client: &Client) -> Result {
        let id = self.id.as_str();
        // Before it becomes part of a stream's path.
        spec::name::check_identifier(&self.exec_id).map_err(spec::Error::from)?;
        let request = GetContainerRequest { id: id.into() };
        let container = client.containers().get(request).await?.into_inner().container.unwrap_or_default();
        let mut spec = spec_of(&container)?;
        if let Some(text) = &self.user {
            let tree = root_of(client, &container, &spec).await?;
            spec.process_mut().user = user::resolve(&tree, text)?;
        }
        let process_spec = spec.process_mut();
        process_spec.terminal = self.tty;
        process_spec.args.clone_from(&self.command);
        if let Some(cwd) = &self.cwd {
            process_spec.cwd.clone_from(cwd);
        }
        if self.tty && !process_spec.env.iter().any(|env| env.starts_with("TERM=")) {
            process_spec.env.push("TERM=xterm".into());
        }
        let value = serde_json::to_vec(&process_spec)?;
        let _raw = if self.tty && !self.detach { Some(RawTerminal::enter()?) } else { None };
        let flags =
            WiringFlags { null_io: false, log_uri: self.log_uri.clone(), fifo_dir: self.fifo_dir.clone() };
        let wiring = Wiring::choose(&flags, &self.exec_id, self.tty)?;
        let copies = if self.detach { None } else { wiring.copy()? };
        let _held = if self.detach { wiring.hold()? } else { vec![] };
        let names = wiring.names();
        let request = wire::ExecProcessRequest {
            container_id: id.into(),
            exec_id: self.exec_id.clone(),
            stdin: names.stdin.clone(),
            stdout: names.stdout.clone(),
            stderr: names.stderr.clone(),
            terminal: self.tty,
            spec: Some(api::Any { type_url: PROCESS_TYPE.into(), value }),
        };
        client.tasks().exec(request).await?;
        let process = Process { client, id, exec_id: &self.exec_id };
        if self.detach {
            if let Err(failure) = process.start().await {
                delete_exec(client, id, &self.exec_id).await?;
                return Err(failure);
            }
            wiring.keep();
            return Ok(());
        }
        let end = async {
            let (_pid, status) = tokio::try_join!(process.start(), process.wait())?;
            Ok(status)
        };
        let outcome = process.follow(self.tty, copies.is_some(), end).await.and_then(|ended| ended);
        if let (Ok(_), Some(copies)) = (&outcome, copies) {
            copies.finish().await;
        }
        let deleted = delete_exec(client, id, &self.exec_id).await;
        let code = outcome?;
        match deleted {
            Err(failure) if !failure.is_not_found() => Err(failure),
            _ if code == 0 => Ok(()),
            _ => Err(Failure::exit(code)),
        }
    }
}

/// The container's root file system, for looking up users.
async fn root_of(
    client: &Client,
    container: &api::containerd::services::containers::v1::Container,
    spec: &Spec,
) -> Result<Tree> {
    if container.snapshot_key.is_empty() {
        let path = spec.root.as_ref().map(|root| root.path.clone()).unwrap_or_default();
        if !path.starts_with('/') {
            return Err(Failure::new("rootfs absolute path is required"));
        }
        return Tree::of_directory(Path::new(&path));
    }
    // The running process's own root is what it really sees, its mounts included.
    if let Ok(task) = get(client, &container.id).await
        && task.pid != 0
    {
        let root = format!("/proc/{}/root", task.pid);
        if let Ok(tree) = Tree::of_directory(Path::new(&root)) {
            return Ok(tree);
        }
    }
    let request =
        MountsRequest { snapshotter: container.snapshotter.clone(), key: container.snapshot_key.clone() };
    Tree::of_mounts(&client.snapshots().mounts(request).await?.into_inner().mounts)
}
