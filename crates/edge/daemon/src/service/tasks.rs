//! Tasks: running containers, by their shims.

use std::sync::Arc;
use std::time::SystemTime;

use api::containerd::services::tasks::v1 as wire;
use api::containerd::task::v3 as shim;
use api::containerd::types::Metric;
use api::containerd::v1::types::Process;
use api::timestamp;
use futures_util::future::join_all;
use grpc::containerd::services::tasks::v1::tasks_server;
use grpc::convert::{FromWire, nouns};
use model::filter::Fields;
use model::{Any, Ctx, Error, Filters, Kind, Result};
use spec::{ContainerId, ExecId};
use task::{Create, Exit, Stdio, Task};
use tonic::{Request, Response, Status};

use super::{Tasks, on_disk};
use crate::request::{answer, fail, open};

impl Tasks {
    /// The task of a container; when there is none, says which of the two is missing.
    async fn task(&self, ctx: &Ctx, id: &str) -> Result<Arc<Task>> {
        match self.0.tasks.get(ctx.namespace()?, id) {
            Err(error) if error.kind() == Kind::NotFound => {
                let id = id.to_owned();
                on_disk(&self.0, ctx, move |engine, cx| engine.store.containers().get(cx, &id)).await?;
                Err(error)
            }
            found => found,
        }
    }

    async fn create_task(
        &self,
        ctx: &Ctx,
        message: wire::CreateTaskRequest,
    ) -> Result<wire::CreateTaskResponse> {
        let id: ContainerId = message.container_id.parse()?;
        if message.checkpoint.is_some() {
            return Err(Error::unimplemented("restoring a task from a checkpoint"));
        }
        if !message.task_api_address.is_empty() {
            return Err(Error::unimplemented("a task in the shim of a sandbox"));
        }
        let wanted = id.clone();
        let container =
            on_disk(&self.0, ctx, move |engine, cx| engine.store.containers().get(cx, wanted.as_str()))
                .await?;
        let spec = container.spec.ok_or_else(|| Error::invalid("container has no spec"))?;
        let runtime =
            if message.runtime_path.is_empty() { container.runtime.name } else { message.runtime_path };
        let create = Create {
            namespace: ctx.namespace()?.clone(),
            id,
            runtime,
            runtime_options: container.runtime.options.filter(|any| !any.value.is_empty()),
            task_options: message
                .options
                .filter(|any| !any.value.is_empty())
                .map(Any::from_wire)
                .transpose()?,
            spec: spec.value,
            rootfs: nouns(message.rootfs)?,
            stdio: Stdio {
                stdin: message.stdin,
                stdout: message.stdout,
                stderr: message.stderr,
                terminal: message.terminal,
            },
            beside: None,
        };
        let pid = self.0.tasks.create(create).await?;
        Ok(wire::CreateTaskResponse { container_id: message.container_id, pid })
    }

    async fn all_metrics(&self, ctx: &Ctx, filters: Filters) -> Result<Vec<Metric>> {
        let namespace = ctx.namespace()?;
        let tasks = self.0.tasks.list(namespace);
        let wanted = tasks.into_iter().filter(|task| filters.matches(&Named(task.id(), namespace.as_str())));
        let metrics = join_all(wanted.map(|task| async move {
            let timestamp = Some(timestamp(SystemTime::now()));
            let request = shim::StatsRequest { id: task.id().into() };
            match task.stats(request).await {
                Ok(stats) => Some(Metric { timestamp, id: task.id().into(), data: stats.stats }),
                Err(error) => {
                    // One shim that does not answer must not hide the others.
                    if error.kind() != Kind::NotFound {
                        tracing::error!(id = task.id(), %error, "collecting metrics");
                    }
                    None
                }
            }
        }))
        .await;
        Ok(metrics.into_iter().flatten().collect())
    }
}

/// The fields by which metrics are filtered.
struct Named<'a>(&'a str, &'a str);

impl Fields for Named<'_> {
    fn field(&self, path: &[&str]) -> Option<&str> {
        match path {
            ["id"] => Some(self.0),
            ["namespace"] => Some(self.1),
            _ => None,
        }
    }
}

/// A process as the wire's other message tells it; an empty exec id means the init, whose id is the container's.
fn process(state: shim::StateResponse, id: &str) -> Process {
    Process {
        container_id: String::new(),
        id: id.into(),
        pid: state.pid,
        status: state.status,
        stdin: state.stdin,
        stdout: state.stdout,
        stderr: state.stderr,
        terminal: state.terminal,
        exit_status: state.exit_status,
        exited_at: state.exited_at,
    }
}

fn deleted(id: String, exit: &Exit) -> wire::DeleteResponse {
    let exited_at = Some(timestamp(exit.at));
    wire::DeleteResponse { id, pid: exit.pid, exit_status: exit.status, exited_at }
}

/// Where a task that exists stands; `UNKNOWN` when its shim does not say in time.
async fn state_or_unknown(task: &Task) -> Option<Process> {
    match task.state("").await {
        Ok(state) => Some(process(state, task.id())),
        Err(error) if error.kind() == Kind::NotFound => None,
        Err(error) => {
            tracing::warn!(id = task.id(), %error, "the shim does not say where its task stands");
            Some(Process { id: task.id().into(), pid: task.pid(), ..Process::default() })
        }
    }
}

/// Gives each method that only finds the task and passes one call on.
macro_rules! passed_on {
    ($self:ident, $request:ident, |$task:ident, $message:ident| $call:expr) => {
        answer(
            async {
                let (ctx, $message) = open($request)?;
                let $task = $self.task(&ctx, &$message.container_id).await?;
                $call
            }
            .await,
        )
    };
}

#[tonic::async_trait]
impl tasks_server::Tasks for Tasks {
    async fn create(
        &self,
        request: Request<wire::CreateTaskRequest>,
    ) -> Result<Response<wire::CreateTaskResponse>, Status> {
        let (ctx, message) = open(request).map_err(|error| fail(&error))?;
        answer(self.create_task(&ctx, message).await)
    }

    async fn start(
        &self,
        request: Request<wire::StartRequest>,
    ) -> Result<Response<wire::StartResponse>, Status> {
        passed_on!(self, request, |task, message| {
            let started =
                task.start(shim::StartRequest { id: message.container_id, exec_id: message.exec_id }).await?;
            Ok(wire::StartResponse { pid: started.pid })
        })
    }

    async fn delete(
        &self,
        request: Request<wire::DeleteTaskRequest>,
    ) -> Result<Response<wire::DeleteResponse>, Status> {
        passed_on!(self, request, |task, message| {
            Ok(deleted(message.container_id, &task.delete().await?))
        })
    }

    async fn delete_process(
        &self,
        request: Request<wire::DeleteProcessRequest>,
    ) -> Result<Response<wire::DeleteResponse>, Status> {
        passed_on!(self, request, |task, message| {
            if message.exec_id.is_empty() {
                return Err(Error::invalid("exec id cannot be empty"));
            }
            let (id, exec_id) = (message.container_id, message.exec_id.clone());
            let gone = task.delete_process(shim::DeleteRequest { id, exec_id }).await?;
            let shim::DeleteResponse { pid, exit_status, exited_at } = gone;
            Ok(wire::DeleteResponse { id: message.exec_id, pid, exit_status, exited_at })
        })
    }

    async fn get(&self, request: Request<wire::GetRequest>) -> Result<Response<wire::GetResponse>, Status> {
        passed_on!(self, request, |task, message| {
            let process = if message.exec_id.is_empty() {
                let gone = || Error::not_found(format_args!("task {}", message.container_id));
                state_or_unknown(&task).await.ok_or_else(gone)?
            } else {
                process(task.state(&message.exec_id).await?, &message.exec_id)
            };
            Ok(wire::GetResponse { process: Some(process) })
        })
    }

    async fn list(
        &self,
        request: Request<wire::ListTasksRequest>,
    ) -> Result<Response<wire::ListTasksResponse>, Status> {
        answer(
            async {
                let (ctx, _) = open(request)?;
                let tasks = self.0.tasks.list(ctx.namespace()?);
                // Side by side: the slowest shim decides, not their sum.
                let states = join_all(tasks.iter().map(|task| state_or_unknown(task))).await;
                Ok(wire::ListTasksResponse { tasks: states.into_iter().flatten().collect() })
            }
            .await,
        )
    }

    async fn kill(&self, request: Request<wire::KillRequest>) -> Result<Response<()>, Status> {
        passed_on!(self, request, |task, message| {
            let wire::KillRequest { container_id: id, exec_id, signal, all } = message;
            task.kill(shim::KillRequest { id, exec_id, signal, all }).await
        })
    }

    async fn exec(&self, request: Request<wire::ExecProcessRequest>) -> Result<Response<()>, Status> {
        passed_on!(self, request, |task, message| {
            if message.exec_id.is_empty() {
                return Err(Error::new(Kind::InvalidArgument, "exec id cannot be empty"));
            }
            // The id becomes a file name in the bundle.
            message.exec_id.parse::<ExecId>()?;
            let request = shim::ExecProcessRequest {
                id: message.container_id,
                exec_id: message.exec_id,
                terminal: message.terminal,
                stdin: message.stdin,
                stdout: message.stdout,
                stderr: message.stderr,
                spec: message.spec,
            };
            task.exec(request).await
        })
    }

    async fn resize_pty(&self, request: Request<wire::ResizePtyRequest>) -> Result<Response<()>, Status> {
        passed_on!(self, request, |task, message| {
            let wire::ResizePtyRequest { container_id: id, exec_id, width, height } = message;
            task.resize(shim::ResizePtyRequest { id, exec_id, width, height }).await
        })
    }

    async fn close_io(&self, request: Request<wire::CloseIoRequest>) -> Result<Response<()>, Status> {
        passed_on!(self, request, |task, message| {
            let wire::CloseIoRequest { container_id: id, exec_id, stdin } = message;
            if !stdin {
                return Ok(());
            }
            task.close_io(shim::CloseIoRequest { id, exec_id, stdin }).await
        })
    }

    async fn pause(&self, request: Request<wire::PauseTaskRequest>) -> Result<Response<()>, Status> {
        passed_on!(self, request, |task, message| {
            task.pause(shim::PauseRequest { id: message.container_id }).await
        })
    }

    async fn resume(&self, request: Request<wire::ResumeTaskRequest>) -> Result<Response<()>, Status> {
        passed_on!(self, request, |task, message| {
            task.resume(shim::ResumeRequest { id: message.container_id }).await
        })
    }

    async fn list_pids(
        &self,
        request: Request<wire::ListPidsRequest>,
    ) -> Result<Response<wire::ListPidsResponse>, Status> {
        passed_on!(self, request, |task, message| {
            let pids = task.pids(shim::PidsRequest { id: message.container_id }).await?;
            Ok(wire::ListPidsResponse { processes: pids.processes })
        })
    }

    async fn checkpoint(
        &self,
        request: Request<wire::CheckpointTaskRequest>,
    ) -> Result<Response<wire::CheckpointTaskResponse>, Status> {
        passed_on!(self, request, |_task, message| {
            let _options = message.options;
            Err(Error::unimplemented("checkpointing a task"))
        })
    }

    async fn update(&self, request: Request<wire::UpdateTaskRequest>) -> Result<Response<()>, Status> {
        passed_on!(self, request, |task, message| {
            let wire::UpdateTaskRequest { container_id: id, resources, annotations } = message;
            task.update(shim::UpdateTaskRequest { id, resources, annotations }).await
        })
    }

    async fn metrics(
        &self,
        request: Request<wire::MetricsRequest>,
    ) -> Result<Response<wire::MetricsResponse>, Status> {
        answer(
            async {
                let (ctx, message) = open(request)?;
                let filters = Filters::parse(&message.filters)?;
                Ok(wire::MetricsResponse { metrics: self.all_metrics(&ctx, filters).await? })
            }
            .await,
        )
    }

    async fn wait(
        &self,
        request: Request<wire::WaitRequest>,
    ) -> Result<Response<wire::WaitResponse>, Status> {
        passed_on!(self, request, |task, message| {
            let exit = task.wait(&message.exec_id).await?;
            Ok(wire::WaitResponse { exit_status: exit.status, exited_at: Some(timestamp(exit.at)) })
        })
    }
}
