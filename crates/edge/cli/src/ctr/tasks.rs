//! `ctr tasks`.

use std::path::{Path, PathBuf};

use api::containerd::services::tasks::v1 as wire;
use api::containerd::v1::types::{Process as TaskProcess, Status};
use clap::Subcommand;
use spec::runtime::Spec;

use super::exec::Exec;
use super::metrics;
use crate::client::Client;
use crate::container::network;
use crate::failure::{Failure, OrFail, Result};
use crate::process::{Process, Wiring, WiringFlags, parse_signal};
use crate::stdio::{self, Names, RawTerminal};
use crate::ui::{self, Table};

/// The type that containerd gives an OCI process in an Any, whose value is JSON.
pub const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

/// The group's commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Attach to the IO of a running container
    Attach {
        /// The container
        id: String,
    },
    /// Checkpoint a container
    Checkpoint {
        /// Stop the container after the checkpoint
        #[arg(long)]
        exit: bool,
        /// Path to criu image files
        #[arg(long)]
        image_path: Option<String>,
        /// Path to criu work files and logs
        #[arg(long)]
        work_path: Option<String>,
        /// The container
        id: String,
    },
    /// Delete one or more tasks
    #[command(visible_aliases = ["del", "remove", "rm"])]
    Delete {
        /// Force delete task process
        #[arg(long, short)]
        force: bool,
        /// Process ID to kill
        #[arg(long)]
        exec_id: Option<String>,
        /// The containers
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Execute additional processes in an existing container
    Exec(Exec),
    /// List tasks
    #[command(visible_alias = "ls")]
    List {
        /// Print only the task id
        #[arg(long, short)]
        quiet: bool,
    },
    /// Signal a container (default: SIGTERM)
    Kill {
        /// Signal to send to the container
        #[arg(long, short)]
        signal: Option<String>,
        /// Process ID to kill
        #[arg(long)]
        exec_id: Option<String>,
        /// Send signal to all processes inside the container
        #[arg(long, short)]
        all: bool,
        /// The container
        id: String,
    },
    /// Get a single data point of metrics for a task with the built-in Linux runtime
    #[command(visible_alias = "metric")]
    Metrics {
        /// "table" or "json"
        #[arg(long, default_value = "table")]
        format: metrics::Format,
        /// The container
        id: String,
    },
    /// Pause an existing container
    Pause {
        /// The container
        id: String,
    },
    /// List processes for container
    Ps {
        /// The container
        id: String,
    },
    /// Resume a paused container
    Resume {
        /// The container
        id: String,
    },
    /// Start a container that has been created
    Start(Start),
}

impl Command {
    /// Runs the command.
    pub async fn run(self, client: &Client) -> Result {
        match self {
            Self::Attach { id } => attach(client, &id).await,
            Self::Checkpoint { exit: _, image_path: _, work_path: _, id } => {
                let request = wire::CheckpointTaskRequest { container_id: id, ..Default::default() };
                client.tasks().checkpoint(request).await?;
                Ok(())
            }
            Self::Delete { force, exec_id, ids } => delete(client, &ids, exec_id.as_deref(), force).await,
            Self::Exec(exec) => exec.run(client).await,
            Self::List { quiet } => list(client, quiet).await,
            Self::Kill { signal, exec_id, all, id } => kill(client, &id, signal, exec_id, all).await,
            Self::Metrics { format, id } => metrics::show(client, id, format).await,
            Self::Pause { id } => {
                client.tasks().pause(wire::PauseTaskRequest { container_id: id }).await?;
                Ok(())
            }
            Self::Ps { id } => ps(client, id).await,
            Self::Resume { id } => {
                client.tasks().resume(wire::ResumeTaskRequest { container_id: id }).await?;
                Ok(())
            }
            Self::Start(start) => start.run(client).await,
        }
    }
}

/// What a task is made with.
pub struct NewTask<'a> {
    /// The container.
    pub id: &'a str,
    /// How to mount its root file system.
    pub rootfs: Vec<api::containerd::types::Mount>,
    /// Its streams.
    pub names: &'a Names,
    /// Whether they are a terminal.
    pub terminal: bool,
    /// Change the root without pivot_root(2).
    pub no_pivot: bool,
    /// The container's runtime, whose options a changed copy may replace.
    pub runtime: Option<&'a api::containerd::services::containers::v1::container::Runtime>,
}

/// Makes a task and gives the pid of its process, which waits to be started.
pub async fn new_task(client: &Client, task: NewTask<'_>) -> Result<u32> {
    let options = task.runtime.and_then(|runtime| runtime.options.clone());
    let options = if task.no_pivot { no_pivot(options)? } else { options };
    let request = wire::CreateTaskRequest {
        container_id: task.id.into(),
        rootfs: task.rootfs,
        stdin: task.names.stdin.clone(),
        stdout: task.names.stdout.clone(),
        stderr: task.names.stderr.clone(),
        terminal: task.terminal,
        options,
        ..Default::default()
    };
    Ok(client.tasks().create(request).await?.into_inner().pid)
}

/// The options with `no_pivot_root`, which only runc's has: field 1 of the message, unnamed in newer definitions.
fn no_pivot(options: Option<api::Any>) -> Result<Option<api::Any>> {
    let mut any = options.unwrap_or_else(|| api::encode_any(&api::containerd::runc::v1::Options::default()));
    if !any.type_url.ends_with("containerd.runc.v1.Options") {
        return Err(Failure::new("--no-pivot needs the runtime io.containerd.runc.v2"));
    }
    any.value.extend_from_slice(&[0x08, 0x01]); // field 1, varint, true
    Ok(Some(any))
}

/// The task of a container.
pub async fn get(client: &Client, id: &str) -> Result<TaskProcess> {
    let request = wire::GetRequest { container_id: id.into(), exec_id: String::new() };
    Ok(client.tasks().get(request).await?.into_inner().process.unwrap_or_default())
}

/// Deletes a stopped task whose streams are the caller's; gives its exit status.
pub async fn delete_own(client: &Client, id: &str) -> Result<u32> {
    let request = wire::DeleteTaskRequest { container_id: id.into() };
    Ok(client.tasks().delete(request).await?.into_inner().exit_status)
}

/// Deletes a stopped task, and the streams that its client may have left; gives its exit status.
pub async fn delete_task(client: &Client, id: &str) -> Result<u32> {
    let streams = get(client, id).await.ok();
    let status = delete_own(client, id).await?;
    remove_streams(streams.as_ref());
    Ok(status)
}

/// Removes the streams that the client of a process left behind.
fn remove_streams(process: Option<&TaskProcess>) {
    if let Some(process) = process {
        [&process.stdin, &process.stdout, &process.stderr]
            .into_iter()
            .for_each(|name| stdio::remove_left(name));
    }
}

/// Kills a task and deletes it, saying what fails; for the way out of a command that failed itself.
pub async fn kill_and_delete(client: &Client, id: &str) {
    let process = Process { client, id, exec_id: "" };
    let result = async {
        match process.kill(9, true).await {
            Err(failure) if !failure.is_not_found() => return Err(failure),
            _ => {}
        }
        // A task that was created and never started has no end to wait for; deleting it kills it.
        let limit = std::time::Duration::from_secs(10);
        let _late = tokio::time::timeout(limit, process.wait()).await;
        delete_task(client, id).await
    };
    match result.await {
        Err(failure) if !failure.is_not_found() => ui::say(format!("ctr: failed to cleanup task: {failure}")),
        _ => {}
    }
}

/// Writes a pid for whoever waits for the file: under another name first, so that nobody reads half of it.
pub fn write_pid_file(path: &Path, pid: u32) -> Result {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let temporary = path.with_file_name(format!(".{name}"));
    std::fs::write(&temporary, pid.to_string()).or_fail(format!("cannot write {}", temporary.display()))?;
    std::fs::rename(&temporary, path).or_fail(format!("cannot write {}", path.display()))
}

/// `RUNNING`, as the listing has it.
pub fn status_word(status: Status) -> &'static str {
    match status {
        Status::Unknown => "UNKNOWN",
        Status::Created => "CREATED",
        Status::Running => "RUNNING",
        Status::Stopped => "STOPPED",
        Status::Paused => "PAUSED",
        Status::Pausing => "PAUSING",
    }
}

async fn list(client: &Client, quiet: bool) -> Result {
    let tasks = client.tasks().list(wire::ListTasksRequest::default()).await?.into_inner().tasks;
    if quiet {
        tasks.iter().try_for_each(|task| ui::line(&task.id))?;
        return Ok(());
    }
    let mut table = Table::wide(["TASK", "PID", "STATUS"]);
    for task in tasks {
        let status = status_word(task.status()).to_owned();
        table.row([task.id, task.pid.to_string(), status]);
    }
    Ok(table.print()?)
}

async fn ps(client: &Client, id: String) -> Result {
    let response = client.tasks().list_pids(wire::ListPidsRequest { container_id: id }).await?.into_inner();
    let mut table = Table::wide(["PID", "INFO"]);
    for process in response.processes {
        let details = process
            .info
            .as_ref()
            .and_then(|any| api::decode_any::<api::containerd::runc::v1::ProcessDetails>(any).ok().flatten());
        let info = details.map_or_else(|| "-".into(), |details| format!("exec_id:{:?}", details.exec_id));
        table.row([process.pid.to_string(), info]);
    }
    Ok(table.print()?)
}

async fn kill(
    client: &Client,
    id: &str,
    signal: Option<String>,
    exec_id: Option<String>,
    all: bool,
) -> Result {
    if all && exec_id.is_some() {
        return Err(Failure::new("specify an exec-id or all; not both"));
    }
    let signal = match signal.filter(|signal| !signal.is_empty()) {
        Some(signal) => signal,
        None => stop_signal(client, id).await?,
    };
    let exec_id = exec_id.unwrap_or_default();
    Process { client, id, exec_id: &exec_id }.kill(parse_signal(&signal)?, all).await
}

/// The signal that the image asks to be stopped by.
async fn stop_signal(client: &Client, id: &str) -> Result<String> {
    let request = api::containerd::services::containers::v1::GetContainerRequest { id: id.into() };
    let container = match client.containers().get(request).await {
        Ok(response) => response.into_inner().container.unwrap_or_default(),
        // A task that another engine left runs without a container.
        Err(status) if status.code() == tonic::Code::NotFound => return Ok("SIGTERM".into()),
        Err(status) => return Err(status.into()),
    };
    Ok(container.labels.get(spec::label::STOP_SIGNAL).cloned().unwrap_or_else(|| "SIGTERM".into()))
}

async fn delete(client: &Client, ids: &[String], exec_id: Option<&str>, force: bool) -> Result {
    if let (Some(exec_id), [id]) = (exec_id, ids) {
        let process = Process { client, id, exec_id };
        if force {
            process.kill(9, false).await?;
            process.wait().await?;
        }
        let request = wire::GetRequest { container_id: id.into(), exec_id: exec_id.into() };
        let streams =
            client.tasks().get(request).await.ok().and_then(|response| response.into_inner().process);
        let status = delete_exec(client, id, exec_id).await?;
        remove_streams(streams.as_ref());
        return if status == 0 { Ok(()) } else { Err(Failure::exit(status)) };
    }
    if exec_id.is_some() {
        return Err(Failure::new("--exec-id goes with one container"));
    }
    let mut last = Ok(());
    for id in ids {
        if force {
            kill_and_delete(client, id).await;
            network::detach_noted(client, id).await?;
            continue;
        }
        match delete_stopped(client, id).await {
            Ok(0) => {}
            // A task's status is told and is no failure of ours, as containerd's client has it.
            Ok(status) => ui::say(format!("ctr: task {id} exit with non-zero exit code {status}")),
            Err(failure) => {
                let failure = failure.context(format!("unable to delete {id}"));
                if ids.len() > 1 {
                    ui::say(format!("ctr: {failure}"));
                }
                last = Err(failure);
            }
        }
    }
    last
}

/// Deletes a task that has ended; containerd's client asks first and words the refusal so.
async fn delete_stopped(client: &Client, id: &str) -> Result<u32> {
    let status = get(client, id).await?.status();
    if matches!(status, Status::Running | Status::Paused | Status::Pausing) {
        let word = status_word(status).to_lowercase();
        let text = format!("task must be stopped before deletion: {word}: failed precondition");
        return Err(Failure::new(text));
    }
    let status = delete_task(client, id).await?;
    network::detach_noted(client, id).await?;
    Ok(status)
}

/// Deletes an exec that has ended; gives its exit status.
pub async fn delete_exec(client: &Client, id: &str, exec_id: &str) -> Result<u32> {
    let request = wire::DeleteProcessRequest { container_id: id.into(), exec_id: exec_id.into() };
    Ok(client.tasks().delete_process(request).await?.into_inner().exit_status)
}

/// Goes on with the streams of a task that was started elsewhere.
async fn attach(client: &Client, id: &str) -> Result {
    let task = get(client, id).await?;
    let _raw = if task.terminal { Some(RawTerminal::enter()?) } else { None };
    let fifo = |name: String| {
        if name.contains("://") && !name.starts_with("fifo://") { String::new() } else { name }
    };
    let names = Names { stdin: fifo(task.stdin), stdout: fifo(task.stdout), stderr: fifo(task.stderr) };
    if names.stdout.is_empty() {
        return Err(Failure::new(format!(
            "the output of {id} goes to a logger or nowhere, so there is nothing to attach to"
        )));
    }
    let process = Process { client, id, exec_id: "" };
    let copies = stdio::copy(&names)?;
    let code = process.follow(task.terminal, true, process.wait()).await??;
    copies.finish().await;
    delete_task(client, id).await?;
    if code == 0 { Ok(()) } else { Err(Failure::exit(code)) }
}

/// Flags of `start`.
#[derive(clap::Args, Debug)]
pub struct Start {
    /// Disable use of pivot-root (linux only)
    #[arg(long)]
    no_pivot: bool,
    #[command(flatten)]
    wiring: WiringFlags,
    /// File path to write the task's pid
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Detach from the task after it has started execution
    #[arg(long, short)]
    detach: bool,
    /// The container
    id: String,
}

impl Start {
    async fn run(self, client: &Client) -> Result {
        use api::containerd::services::containers::v1::GetContainerRequest;
        use api::containerd::services::snapshots::v1::MountsRequest;
        let id = self.id.as_str();
        let request = GetContainerRequest { id: id.into() };
        let container = client.containers().get(request).await?.into_inner().container.unwrap_or_default();
        let spec = spec_of(&container)?;
        let terminal = spec.process.as_ref().is_some_and(|process| process.terminal);
        let rootfs = if container.snapshot_key.is_empty() {
            vec![]
        } else {
            let request = MountsRequest { snapshotter: container.snapshotter, key: container.snapshot_key };
            client.snapshots().mounts(request).await?.into_inner().mounts
        };
        let _raw = if terminal && !self.detach { Some(RawTerminal::enter()?) } else { None };
        let wiring = Wiring::choose(&self.wiring, id, terminal)?;
        let copies = if self.detach { None } else { wiring.copy()? };
        let _held = if self.detach { wiring.hold()? } else { vec![] };
        let task = NewTask {
            id,
            rootfs,
            names: wiring.names(),
            terminal,
            no_pivot: self.no_pivot,
            runtime: container.runtime.as_ref(),
        };
        let pid = new_task(client, task).await?;
        if let Some(file) = &self.pid_file {
            write_pid_file(file, pid)?;
        }
        let process = Process { client, id, exec_id: "" };
        if self.detach {
            if let Err(failure) = process.start().await {
                kill_and_delete(client, id).await;
                return Err(failure);
            }
            wiring.keep();
            return Ok(());
        }
        let attached = copies.is_some();
        let end = async {
            let (_pid, status) = tokio::try_join!(process.start(), process.wait())?;
            Ok(status)
        };
        let code = match process.follow(terminal, attached, end).await.and_then(|ended| ended) {
            Ok(code) => code,
            Err(failure) => {
                kill_and_delete(client, id).await;
                return Err(failure);
            }
        };
        if let Some(copies) = copies {
            copies.finish().await;
        }
        delete_own(client, id).await?;
        if code == 0 { Ok(()) } else { Err(Failure::exit(code)) }
    }
}

/// The spec that a container's record holds.
pub fn spec_of(container: &api::containerd::services::containers::v1::Container) -> Result<Spec> {
    let any = container
        .spec
        .as_ref()
        .ok_or_else(|| Failure::new(format!("container {} has no spec", container.id)))?;
    Spec::from_slice(&any.value).or_fail(format!("the spec of container {} is malformed", container.id))
}
