//! Runs a command in a container and answers its output and exit code.
//!
//! ```text
//! pipes ─► Exec ─► Start ─► output ∥ Wait ∥ timeout ∥ the caller's leaving ─► drain the output ─► Delete
//! ```
//!
//! The caller's time limit begins with the request and covers the start. It ends with the command: how long a process
//! that the command left behind may hold the output open is `drain_exec_sync_io_timeout`, and what then comes back is
//! no timeout of the command, which the kubelet would take for a failed probe.
//!
//! Invariant: when the time limit passes or the caller leaves, a command that runs is killed, with all that descends from
//! it, before the answer; one whose shim has not answered its start is killed in the background as soon as that answers.
//! Nothing of it stays in the shim.

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ::spec::{Error, Kind};
use api::runtime::v1;
use model::task::{Exec, Exit, Stdio, Task};
use model::{Lane, Result};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::capture::{self, Capture};
use super::kill;
use super::process::process_json;
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
    stop: Stop,
}

/// Until when a command may go on.
struct Stop {
    limit: Option<Duration>,
    /// The limit's end, counted from the request.
    timer: Pin<Box<tokio::time::Sleep>>,
    /// Resolves when the caller has left.
    left: oneshot::Receiver<()>,
}

impl Stop {
    /// A stop at `seconds` from now, or never when they are not above 0; and at the end of what is returned with it.
    fn after(seconds: i64) -> (Self, oneshot::Sender<()>) {
        let limit = u64::try_from(seconds).ok().filter(|&seconds| seconds > 0).map(Duration::from_secs);
        let (stays, left) = oneshot::channel();
        let timer = Box::pin(tokio::time::sleep(limit.unwrap_or_default()));
        (Self { limit, timer, left }, stays)
    }

    /// Resolves with the reason when the command must end. Cancel-safe, and not to be polled after it resolved.
    async fn reached(&mut self) -> Error {
        tokio::select! {
            () = &mut self.timer, if self.limit.is_some() => too_late(self.limit.unwrap_or_default()),
            _gone = &mut self.left => caller_left(),
        }
    }

    /// Resolves when the caller has left. As [`Stop::reached`].
    async fn caller_left(&mut self) -> Error {
        let _gone = (&mut self.left).await;
        caller_left()
    }
}

impl Cri {
    /// Runs a command in a container and answers its output and exit code.
    pub(crate) async fn exec_sync(
        self: &Arc<Self>,
        request: v1::ExecSyncRequest,
    ) -> Result<v1::ExecSyncResponse> {
        let (stop, _stays) = Stop::after(request.timeout);
        let container = self
            .containers
            .get(&request.container_id)
            .map_err(|error| error.context("failed to find container in store"))?;
        let task = self.running_task(&container)?;
        let mut process = self.exec_process(&container, request.cmd, false).await?;
        // When the limit passes everything that descends from the command is found, also daemons whose parent has exited.
        process.child_subreaper = stop.limit.is_some();
        let process = process_json(&process)?;
        let mut command = Command {
            task,
            exec_id: super::new_id()?,
            stdout: Capture::new()?,
            stderr: Capture::new()?,
            drained: false,
            stop,
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

    async fn run_command(self: &Arc<Self>, command: &mut Command, process: Vec<u8>) -> Result<Exit> {
        let (task, exec_id) = (Arc::clone(&command.task), command.exec_id.clone());
        let stdio = capture::stdio(&command.stdout, &command.stderr);
        // In a task of its own: a shim that does not answer keeps only that waiting, and not the caller.
        let mut begin = tokio::spawn(begin(Arc::clone(&task), exec_id.clone(), process, stdio));
        let begun = tokio::select! {
            // Cancel-safe: the task goes on.
            begun = &mut begin => begun.map_err(|panic| Error::internal(format!("the start failed: {panic}")))?,
            reason = command.stop.reached() => {
                let ends = [command.stdout.release(), command.stderr.release()];
                self.in_background(end_late(Arc::downgrade(self), begin, ends, task, exec_id));
                return Err(reason);
            }
        };
        let outcome = match begun {
            Err(error) => Err(error),
            Ok(pid) => {
                command.stdout.opened();
                command.stderr.opened();
                self.follow(command, pid).await
            }
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
        let Command { task, exec_id, stdout, stderr, drained, stop } = command;
        let output = async { tokio::try_join!(stdout.read(), stderr.read()).map(drop) };
        let mut output = std::pin::pin!(output);
        let mut ending = std::pin::pin!(task.wait(exec_id));
        let exit = loop {
            // Each is polled on until it is ready, and never again.
            tokio::select! {
                exit = &mut ending => break exit?,
                done = &mut output, if !*drained => { done?; *drained = true; }
                reason = stop.reached() => {
                    self.kill_command(&**task, exec_id, pid).await?;
                    last_words(output, drained).await;
                    return Err(reason);
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
            reason = stop.caller_left() => Err(reason),
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

/// Has the shim make and start a command; answers its process.
async fn begin(task: Arc<dyn Task>, exec_id: String, process: Vec<u8>, stdio: Stdio) -> Result<u32> {
    let created = task.exec(Exec { id: exec_id.clone(), process, stdio }).await;
    created.map_err(|error| error.context(format_args!("failed to create exec {exec_id:?}")))?;
    let started = task.start(&exec_id).await;
    started.map_err(|error| error.context(format_args!("failed to start exec {exec_id:?}")))
}

/// Ends a command whose start took longer than its caller waited, once its shim answers. Until then `ends` keep the
/// descriptors taken that the shim opens by their numbers.
async fn end_late(
    cri: Weak<Cri>,
    begin: JoinHandle<Result<u32>>,
    ends: [Option<pipe::Sender>; 2],
    task: Arc<dyn Task>,
    exec_id: String,
) {
    let begun = begin.await;
    drop(ends);
    let Some(cri) = cri.upgrade() else { return };
    let killed = match begun {
        Ok(Ok(pid)) => cri.kill_command(&*task, &exec_id, pid).await,
        // The shim may still have it before it, and begin it later than this is asked.
        _ => super::remove::gone(task.kill(&exec_id, SIGKILL, false).await),
    };
    drop(cri);
    if let Err(error) = killed {
        tracing::warn!(%error, exec_id, "cannot kill a command that was started too late");
    }
    forget(task, exec_id).await;
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
    // As containerd: the kubelet takes DeadlineExceeded for a probe that failed.
    Error::new(Kind::Unknown, text).context(format_args!("failed to drain exec process {exec_id:?} io"))
}

fn caller_left() -> Error {
    Error::new(Kind::Canceled, "context canceled")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn limit_counts_from_the_request() {
        let (mut stop, _stays) = Stop::after(2);
        tokio::time::advance(Duration::from_millis(1900)).await;
        assert!(tokio::time::timeout(Duration::from_millis(50), stop.reached()).await.is_err());
        let error = stop.reached().await;
        assert_eq!(
            (error.kind(), error.text()),
            (Kind::DeadlineExceeded, "timeout 2s exceeded: context deadline exceeded")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_only_the_callers_leaving_counts() {
        for seconds in [0, -1, i64::MIN] {
            let (mut stop, stays) = Stop::after(seconds);
            let year = Duration::from_secs(365 * 24 * 3600);
            assert!(tokio::time::timeout(year, stop.reached()).await.is_err(), "{seconds}");
            drop(stays);
            assert_eq!(stop.reached().await.kind(), Kind::Canceled, "{seconds}");
        }
        let (mut huge, stays) = Stop::after(i64::MAX);
        drop(stays);
        assert_eq!(huge.reached().await.kind(), Kind::Canceled);
    }

    #[test]
    fn held_output_is_no_timeout_of_the_command() {
        let error = held("e", Duration::from_secs(10));
        assert_eq!(error.kind(), Kind::Unknown);
        let text = "failed to drain exec process \"e\" io in 10s because io is still held by other processes";
        assert_eq!(error.text(), format!("failed to drain exec process \"e\" io: {text}"));
    }
}
