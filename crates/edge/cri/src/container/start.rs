//! Starts a container that was made and never started.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::spec::{ContainerId, Error};
use api::runtime::v1;
use model::task::{Create, Stdio, Task};
use model::{Lane, Result};

use super::process::state_name;
use super::save::Durable;
use super::{failed, io_failed, io_owner, log_path, record};
use crate::spec::UserNamespace;
use crate::state::{Container, Phase, Pod};
use crate::stream::fifo::Fifos;
use crate::{Cri, fault, now_nanos};

/// The exit code of a container that could not be started.
const START_FAILED: i32 = 128;
/// Why such a container ended.
const START_ERROR: &str = "StartError";

impl Cri {
    /// Starts a container that was made and never started.
    pub(crate) async fn start_container(
        self: &Arc<Self>,
        request: v1::StartContainerRequest,
    ) -> Result<v1::StartContainerResponse> {
        let container = self.containers.get(&request.container_id)?;
        let cri = Arc::clone(self);
        Self::whole(async move { cri.start_one(&container).await }).await?;
        Ok(v1::StartContainerResponse {})
    }

    async fn start_one(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let _turn = container.turn.lock().await;
        let id = &container.record.id;
        let state = container.now();
        if state.removing {
            return Err(Error::failed_precondition(format_args!("container {id:?} is in removing state")));
        }
        if state.phase() != Phase::Created {
            let phase = state_name(state.phase());
            return Err(Error::failed_precondition(format_args!("container {id:?} is in {phase} state")));
        }
        let pod = self.pods.get(&container.record.pod_id)?;
        if !pod.is_ready() {
            return Err(Error::failed_precondition(format_args!(
                "sandbox container {:?} is not running",
                pod.record.id
            )));
        }
        match self.run(&pod, container).await {
            Ok((task, pid)) => {
                self.change(container, Durable::No, move |state| {
                    state.pid = pid;
                    state.started_at = now_nanos();
                })
                .await;
                self.watch(container, task);
                self.tell(v1::ContainerEventType::ContainerStartedEvent, id, &pod.record.id);
                if let Err(error) = self.nri.post_start_container(&pod, container).await {
                    tracing::warn!(%id, %error, "NRI post-start notification failed");
                }
                Ok(())
            }
            Err(error) => {
                let message = error.text().to_owned();
                self.change(container, Durable::Yes, move |state| {
                    state.pid = 0;
                    state.finished_at = now_nanos();
                    state.exit_code = START_FAILED;
                    state.reason = START_ERROR.into();
                    state.message = message;
                })
                .await;
                Err(error)
            }
        }
    }

    /// Makes and starts the task; a task that does not start is taken back.
    async fn run(
        self: &Arc<Self>,
        pod: &Arc<Pod>,
        container: &Arc<Container>,
    ) -> Result<(Arc<dyn Task>, u32)> {
        let id = &container.record.id;
        let sandbox = self.engine.tasks.get(&self.namespace, &pod.record.id)?;
        let (stdio, copied) = self.stdio(container, sandbox.writes_logs()).await?;
        fault::after("start streams")?;
        let key = id.clone();
        let driver = self.engine.snapshotter(&container.record.snapshotter)?;
        let (stored, rootfs) = self
            .on_disk(&self.ctx(), move |engine, cx| {
                Ok((engine.containers.get(cx, &key)?, driver.mounts(cx, &key)?))
            })
            .await?;
        let task_options = match UserNamespace::of(&pod.namespaces())? {
            None => None,
            Some(namespace) => {
                let user = &self.init_process(container).await?.user;
                io_owner::owned(stored.runtime.options.as_ref(), namespace, (user.uid, user.gid))?
            }
        };
        let create = Create {
            namespace: self.namespace.clone(),
            id: id.parse::<ContainerId>()?,
            runtime: stored.runtime.name.clone(),
            runtime_options: stored.runtime.options.clone(),
            task_options,
            spec: record::spec_json(&stored)?,
            rootfs,
            stdio,
            beside: Some(pod.record.id.parse::<ContainerId>()?),
        };
        let created = self.engine.tasks.create(create).await;
        created.map_err(|error| error.context("failed to create containerd task"))?;
        let task = self.engine.tasks.get(&self.namespace, id)?;
        let started = async {
            fault::after("start created")?;
            self.nri.start_container(pod, container).await?;
            let pid = task
                .start("")
                .await
                .map_err(|error| error.context(format_args!("failed to start containerd task {id:?}")))?;
            fault::after("start started").map(|()| pid)
        };
        match started.await {
            Ok(pid) => {
                if let Some(fifos) = copied {
                    self.copy_log(container, fifos);
                }
                Ok((task, pid))
            }
            Err(error) => {
                if let Err(left) = crate::pod::end_task(&*task).await {
                    tracing::warn!(%id, %left, "a task that did not start stays behind");
                }
                Err(error)
            }
        }
    }

    /// Where the container's output goes and its input comes from; what the daemon copies, when its shim writes no log.
    async fn stdio(&self, container: &Container, writes_logs: bool) -> Result<(Stdio, Option<Fifos>)> {
        let config = &container.record.config;
        let io = self.container_state(&container.record.id).join("io");
        if !writes_logs {
            let fifos = self.make_copied(container, io.clone()).await?;
            let stdin = self.stdin(config, &io).await?;
            if config.stdin {
                container.taps.hold_input(Path::new(&stdin))?;
            }
            return Ok((Stdio { stdin, ..fifos.stdio.clone() }, Some(fifos)));
        }
        let uri = log_path::uri(
            container.record.log_path.as_deref(),
            self.config.runtime.max_container_log_line_size,
        );
        let stdin = self.stdin(config, &io).await?;
        let stderr = if config.tty { String::new() } else { uri.clone() };
        if let Some(dir) = container.record.log_path.as_deref().and_then(Path::parent).map(Path::to_owned) {
            self.ctx()
                .blocking(Lane::Disk, move |_| {
                    let made = std::fs::create_dir_all(&dir);
                    made.map_err(|error| io_failed(format_args!("cannot make {}", dir.display()), &error))
                })
                .await?;
        }
        Ok((Stdio { stdin, stdout: uri, stderr, terminal: config.tty }, None))
    }

    /// The path of the container's input; empty when it has none.
    async fn stdin(&self, config: &v1::ContainerConfig, io: &Path) -> Result<String> {
        match config.stdin {
            true => Ok(self.make_stdin(io).await?.display().to_string()),
            false => Ok(String::new()),
        }
    }

    /// The FIFO of the container's input.
    async fn make_stdin(&self, io: &Path) -> Result<PathBuf> {
        let (dir, path) = (io.to_owned(), io.join("stdin"));
        let made = path.clone();
        self.ctx()
            .blocking(Lane::Disk, move |_| {
                // A daemon that died before it started the container may have made one.
                super::remove::remove_dir(&path)?;
                std::fs::create_dir_all(&dir)
                    .map_err(|error| io_failed(format_args!("cannot make {}", dir.display()), &error))?;
                sys::fd::make_fifo(&path, 0o600)
                    .map_err(|error| failed("cannot make the container's input", &error))
            })
            .await?;
        Ok(made)
    }
}
