//! Runs a command in a container and answers its output and exit code.
//!
//! ```text
//! pipes ─► Exec ─► Start ─► output ∥ Wait ∥ timeout ∥ the caller's leaving ─► Delete
//! ```
//!
//! Invariant: whatever ends the wait, the command and all that descends from it are killed before the answer, if the
//! command itself has not ended; nothing of it stays in the shim.
//! Invariant: the answer never waits for a process that the command left behind longer than the time limits say.

use std::sync::Arc;
use std::time::Duration;

use ::spec::{Error, Kind};
use api::runtime::v1;
use model::task::{Exec, Exit, Task};
use model::{Lane, Result};
use tokio::sync::oneshot;

use super::capture::{self, Capture};
use super::kill;
use super::signal::SIGKILL;
use crate::Cri;

/// How long a killed command may take to end.
const DEATH: Duration = Duration::from_secs(5);
/// What both outputs may have together: with the rest of the answer, as much as a message to the kubelet may have.
const MAX_OUTPUTS: usize = (16 << 20) - 1024;
/// How long the output of a killed command may take to end, unless somebody else holds it open.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// How often its processes are looked for: some may be born while others are killed.
const ROUNDS: usize = 3;

/// A command under way.
struct Command {
    task: Arc<dyn Task>,
    exec_id: String,
    stdout: Capture,
    stderr: Capture,
    /// Whether both outputs have come to their end.
    drained: bool,
    limit: Option<Duration>,
    /// Resolves when the caller has left.
    left: oneshot::Receiver<()>,
}

impl Cri {
    /// Runs a command in a container and answers its output and exit code.
    pub(crate) async fn exec_sync(
        self: &Arc<Self>,
        request: v1::ExecSyncRequest,
    ) -> Result<v1::ExecSyncResponse> {
        let container = self
            .containers
            .get(&request.container_id)
            .map_err(|error| error.context("failed to find container in store"))?;
        let task = self.running_task(&container)?;
        let process = self.exec_process(&container, request.cmd, false).await?;
        let limit =
            u64::try_from(request.timeout).ok().filter(|&seconds| seconds > 0).map(Duration::from_secs);
        let (_stays, left) = oneshot::channel();
        let mut command = Command {
            task,
            exec_id: super::new_id()?,
            stdout: Capture::new()?,
            stderr: Capture::new()?,
            drained: false,
            limit,
            left,
        };
        let cri = Arc::clone(self);
        Self::whole(async move {
            let outcome = cri.run_command(&mut command, process).await;
            let exit = outcome.map_err(|error| error.context("failed to exec in container"))?;
            let (stdout, stderr) = capture::within(MAX_OUTPUTS, command.stdout.take(), command.stderr.take());
            Ok(v1::ExecSyncResponse { stdout, stderr, exit_code: i32::try_from(exit.status).unwrap_or(-1) })
        })
        .await
    }

    async fn run_command(&self, command: &mut Command, process: Vec<u8>) -> Result<Exit> {
        let (task, exec_id) = (Arc::clone(&command.task), command.exec_id.clone());
        let stdio = capture::stdio(&command.stdout, &command.stderr);
        let created = task.exec(Exec { id: exec_id.clone(), process, stdio }).await;
        created.map_err(|error| error.context(format_args!("failed to create exec {exec_id:?}")))?;
        let outcome = match task.start(&exec_id).await {
            Ok(pid) => {
                command.stdout.opened();
                command.stderr.opened();
                self.follow(command, pid).await
            }
            Err(error) => Err(error.context(format_args!("failed to start exec {exec_id:?}"))),
        };
        if command.drained {
            forget(task, exec_id).await;
        } else {
            // The shim waits for who holds the output open; the caller need not.
            self.in_background(forget(task, exec_id));
        }
        outcome
    }

    /// Waits for the command's end and for that of its output.
    async fn follow(&self, command: &mut Command, pid: u32) -> Result<Exit> {
        let Command { task, exec_id, stdout, stderr, drained, limit, left } = command;
        let output = async { tokio::try_join!(stdout.read(), stderr.read()).map(drop) };
        let mut output = std::pin::pin!(output);
        let mut ending = std::pin::pin!(task.wait(exec_id));
        let mut timer = std::pin::pin!(sleep_or_for_ever(*limit));
        let exit = loop {
            // Each is polled on until it is ready, and never again.
            tokio::select! {
                exit = &mut ending => break exit?,
                done = &mut output, if !*drained => { done?; *drained = true; }
                () = &mut timer => {
                    self.kill_command(&**task, exec_id, pid).await?;
                    last_words(output, drained).await;
                    return Err(too_late(limit.unwrap_or_default()));
                }
                _gone = &mut *left => {
                    self.kill_command(&**task, exec_id, pid).await?;
                    last_words(output, drained).await;
                    return Err(Error::new(Kind::Canceled, "context canceled"));
                }
            }
        };
        if *drained {
            return Ok(exit);
        }
        // The command has ended; a process that it left behind may hold its output open.
        let patience = self.config.runtime.drain_exec_sync_io_timeout;
        let mut patience_ends = std::pin::pin!(sleep_or_for_ever((!patience.is_zero()).then_some(patience)));
        tokio::select! {
            done = &mut output => { done?; *drained = true; Ok(exit) }
            () = &mut patience_ends => Err(held(exec_id, patience)),
            () = &mut timer => Err(held(exec_id, limit.unwrap_or_default())),
            _gone = &mut *left => Err(Error::new(Kind::Canceled, "context canceled")),
        }
    }

    /// Kills the command with its session and its descendants, and waits for its end.
    pub(crate) async fn kill_command(&self, task: &dyn Task, exec_id: &str, pid: u32) -> Result<()> {
        for _ in 0..ROUNDS {
            // A shim that does not answer leaves us the command itself.
            let pids = task.pids().await.unwrap_or_default();
            let id = task.id().to_owned();
            let known = pids.is_empty();
            self.ctx().blocking(Lane::Wait, move |_| kill::session(pid, &id, &pids)).await?;
            if known || tokio::time::timeout(DEATH / 5, task.wait(exec_id)).await.is_ok() {
                break;
            }
        }
        match task.kill(exec_id, SIGKILL, false).await {
            Err(error) if error.kind() != Kind::NotFound => {
                tracing::warn!(%error, exec_id, "the shim does not kill the exec");
            }
            _ => {}
        }
        if tokio::time::timeout(DEATH, task.wait(exec_id)).await.is_err() {
            tracing::error!(exec_id, "an exec does not end although it was killed");
        }
        Ok(())
    }
}

/// Reads what a killed command has still written.
async fn last_words(output: std::pin::Pin<&mut impl Future<Output = Result<()>>>, drained: &mut bool) {
    if !*drained {
        *drained = matches!(tokio::time::timeout(LAST_WORDS, output).await, Ok(Ok(())));
    }
}

/// Has the shim forget a command that has ended.
async fn forget(task: Arc<dyn Task>, exec_id: String) {
    match task.delete_exec(&exec_id).await {
        Err(error) if error.kind() != Kind::NotFound => {
            tracing::warn!(%error, exec_id, "an exec stays behind in its shim");
        }
        _ => {}
    }
}

async fn sleep_or_for_ever(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}

fn too_late(limit: Duration) -> Error {
    let text = format!("timeout {}s exceeded: context deadline exceeded", limit.as_secs());
    Error::new(Kind::DeadlineExceeded, text)
}

fn held(exec_id: &str, patience: Duration) -> Error {
    let seconds = patience.as_secs_f64();
    let text = format!(
        "failed to drain exec process {exec_id:?} io in {seconds}s because io is still held by other processes"
    );
    Error::new(Kind::DeadlineExceeded, text)
}
