//! The traits of `model` over this crate's tasks.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::containerd::task::v3 as wire;
use api::containerd::v1::types::Status;
use async_trait::async_trait;
use model::task::{self, Attach, Create, Exec, Exit, Phase, State};
use model::{Any, Result};
use spec::{Error, Namespace};

use crate::task::exit;
use crate::{Task, Tasks};

#[async_trait]
impl task::Tasks for Tasks {
    async fn create(&self, create: Create) -> Result<u32> {
        Tasks::create(self, create).await
    }

    fn get(&self, namespace: &Namespace, id: &str) -> Result<Arc<dyn task::Task>> {
        Ok(Arc::new(Handle(Tasks::get(self, namespace, id)?)))
    }

    fn list(&self, namespace: &Namespace) -> Vec<Arc<dyn task::Task>> {
        let handle = |task| Arc::new(Handle(task)) as Arc<dyn task::Task>;
        Tasks::list(self, namespace).into_iter().map(handle).collect()
    }

    async fn features(&self, runtime: &str, options: Option<Any>) -> Result<Option<Vec<u8>>> {
        Ok(self.runtime_info(runtime, options).await?.features.map(|any| any.value))
    }
}

/// A task as a trait object: some of its calls need the `Arc` itself.
struct Handle(Arc<Task>);

impl Handle {
    fn id(&self) -> String {
        self.0.id().to_owned()
    }
}

#[async_trait]
impl task::Task for Handle {
    fn id(&self) -> &str {
        self.0.id()
    }

    fn pid(&self) -> u32 {
        self.0.pid()
    }

    async fn state(&self, exec_id: &str) -> Result<State> {
        let state = self.0.state(exec_id).await?;
        let phase = match state.status() {
            Status::Created => Phase::Created,
            Status::Running => Phase::Running,
            Status::Paused | Status::Pausing => Phase::Paused,
            Status::Stopped => Phase::Stopped,
            Status::Unknown => Phase::Unknown,
        };
        let ended = (phase == Phase::Stopped).then(|| exit(state.pid, state.exit_status, state.exited_at));
        Ok(State { pid: state.pid, phase, exit: ended })
    }

    async fn start(&self, exec_id: &str) -> Result<u32> {
        let request = wire::StartRequest { id: self.id(), exec_id: exec_id.into() };
        Ok(self.0.start(request).await?.pid)
    }

    async fn exec(&self, exec: Exec) -> Result<()> {
        let request = wire::ExecProcessRequest {
            id: self.id(),
            exec_id: exec.id,
            terminal: exec.stdio.terminal,
            stdin: exec.stdio.stdin,
            stdout: exec.stdio.stdout,
            stderr: exec.stdio.stderr,
            spec: Some(api::Any { type_url: PROCESS.into(), value: exec.process }),
        };
        self.0.exec(request).await
    }

    async fn kill(&self, exec_id: &str, signal: u32, all: bool) -> Result<()> {
        self.0.kill(wire::KillRequest { id: self.id(), exec_id: exec_id.into(), signal, all }).await
    }

    async fn resize(&self, exec_id: &str, width: u32, height: u32) -> Result<()> {
        self.0.resize(wire::ResizePtyRequest { id: self.id(), exec_id: exec_id.into(), width, height }).await
    }

    async fn close_stdin(&self, exec_id: &str) -> Result<()> {
        self.0.close_io(wire::CloseIoRequest { id: self.id(), exec_id: exec_id.into(), stdin: true }).await
    }

    async fn pause(&self) -> Result<()> {
        self.0.pause(wire::PauseRequest { id: self.id() }).await
    }

    async fn resume(&self) -> Result<()> {
        self.0.resume(wire::ResumeRequest { id: self.id() }).await
    }

    async fn pids(&self) -> Result<Vec<u32>> {
        let answer = self.0.pids(wire::PidsRequest { id: self.id() }).await?;
        Ok(answer.processes.into_iter().map(|process| process.pid).collect())
    }

    async fn update(&self, resources: Any, annotations: BTreeMap<String, String>) -> Result<()> {
        let resources = Some(api::Any { type_url: resources.type_url, value: resources.value });
        self.0.update(wire::UpdateTaskRequest { id: self.id(), resources, annotations }).await
    }

    async fn stats(&self) -> Result<Any> {
        let answer = self.0.stats(wire::StatsRequest { id: self.id() }).await?;
        let stats = answer.stats.ok_or_else(|| Error::internal("the shim answered no metrics"))?;
        Ok(Any { type_url: stats.type_url, value: stats.value })
    }

    async fn wait(&self, exec_id: &str) -> Result<Exit> {
        self.0.wait(exec_id).await
    }

    async fn delete(&self) -> Result<Exit> {
        self.0.delete().await
    }

    async fn delete_exec(&self, exec_id: &str) -> Result<Exit> {
        let request = wire::DeleteRequest { id: self.id(), exec_id: exec_id.into() };
        let answer = self.0.delete_process(request).await?;
        Ok(exit(answer.pid, answer.exit_status, answer.exited_at))
    }

    fn writes_logs(&self) -> bool {
        self.0.writes_logs()
    }

    async fn reopen_log(&self) -> Result<()> {
        self.0.reopen_log().await
    }

    async fn attach(&self, exec_id: &str, attach: Attach) -> Result<()> {
        self.0.attach(exec_id, &attach).await
    }
}

/// The type of an OCI process in an `Any`, as containerd's clients write it.
const PROCESS: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
