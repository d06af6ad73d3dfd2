//! Runs a command in a container and answers its output and exit code.

use std::sync::Arc;
use std::time::Duration;

use ::spec::{Error, Kind};
use api::runtime::v1;
use model::Result;
use model::task::{Exec, Task};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;

use super::signal::SIGKILL;
use crate::Cri;
use crate::stream::{Fifos, Streams, remove_fifos};

/// How much of each output is answered; the rest is read and dropped.
const MAX_OUTPUT: usize = 16 << 20;
/// How long a killed command may take to end.
const DEATH: Duration = Duration::from_secs(10);

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
        let (cri, id) = (Arc::clone(self), container.record.id.clone());
        // Whole: a probe whose caller left must not leave its process.
        Self::whole(async move {
            let exec_id = super::new_id()?;
            let dir = cri.container_state(&id).join("io").join(&exec_id);
            let streams = Streams { stdout: true, stderr: true, ..Streams::default() };
            let ctx = cri.ctx();
            let fifos = Fifos::make(&ctx, dir.clone(), streams).await?;
            let outcome = cri.run_exec(&*task, &exec_id, process, fifos, limit).await;
            remove_fifos(&ctx, &dir).await;
            outcome.map_err(|error| error.context("failed to exec in container"))
        })
        .await
    }

    async fn run_exec(
        &self,
        task: &dyn Task,
        exec_id: &str,
        process: Vec<u8>,
        fifos: Fifos,
        limit: Option<Duration>,
    ) -> Result<v1::ExecSyncResponse> {
        let exec = Exec { id: exec_id.to_owned(), process, stdio: fifos.stdio.clone() };
        task.exec(exec)
            .await
            .map_err(|error| error.context(format_args!("failed to create exec {exec_id:?}")))?;
        let outcome = self.follow(task, exec_id, fifos, limit).await;
        if outcome.is_err() {
            // It may not have started, or be gone already.
            let _gone = task.kill(exec_id, SIGKILL, true).await;
        }
        match task.delete_exec(exec_id).await {
            Err(error) if error.kind() != Kind::NotFound => {
                tracing::warn!(%error, exec_id, "an exec stays behind in its shim");
            }
            _ => {}
        }
        outcome
    }

    async fn follow(
        &self,
        task: &dyn Task,
        exec_id: &str,
        mut fifos: Fifos,
        limit: Option<Duration>,
    ) -> Result<v1::ExecSyncResponse> {
        task.start(exec_id)
            .await
            .map_err(|error| error.context(format_args!("failed to start exec {exec_id:?}")))?;
        let output = async { tokio::join!(read(fifos.stdout.take()), read(fifos.stderr.take())) };
        let mut output = std::pin::pin!(output);
        let mut ending = std::pin::pin!(task.wait(exec_id));
        let timer = async {
            match limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        let mut timer = std::pin::pin!(timer);
        let mut drained = None;
        let exit = loop {
            // Each is polled on until it is ready, and never again.
            tokio::select! {
                exit = &mut ending => break exit?,
                both = &mut output, if drained.is_none() => drained = Some(both),
                () = &mut timer => return Err(self.time_out(task, exec_id, limit.unwrap_or_default()).await),
            }
        };
        let patience = self.config.runtime.drain_exec_sync_io_timeout;
        let (stdout, stderr) = match (drained, patience.is_zero(), limit) {
            (Some(both), ..) => both,
            (None, false, _) => {
                tokio::time::timeout(patience, &mut output).await.map_err(|_| held(exec_id, patience))?
            }
            (None, true, None) => output.await,
            // What a child of the command holds open is waited for as long as the caller wanted to wait.
            (None, true, Some(limit)) => tokio::select! {
                both = &mut output => both,
                () = &mut timer => return Err(held(exec_id, limit)),
            },
        };
        Ok(v1::ExecSyncResponse { stdout, stderr, exit_code: i32::try_from(exit.status).unwrap_or(-1) })
    }

    /// Kills the command, waits for its end, and says that it took too long.
    async fn time_out(&self, task: &dyn Task, exec_id: &str, limit: Duration) -> Error {
        if let Err(error) = task.kill(exec_id, SIGKILL, true).await
            && error.kind() != Kind::NotFound
        {
            return error.context(format_args!("failed to kill exec {exec_id:?}"));
        }
        if tokio::time::timeout(DEATH, task.wait(exec_id)).await.is_err() {
            tracing::error!(exec_id, "an exec does not end although it was killed");
        }
        Error::new(
            Kind::DeadlineExceeded,
            format!("timeout {}s exceeded: context deadline exceeded", limit.as_secs()),
        )
    }
}

fn held(exec_id: &str, patience: Duration) -> Error {
    Error::new(
        Kind::DeadlineExceeded,
        format!(
            "failed to drain exec process {exec_id:?} io in {}s because io is still held by other processes",
            patience.as_secs()
        ),
    )
}

/// Reads to the end; keeps the first [`MAX_OUTPUT`] bytes.
async fn read(fifo: Option<pipe::Receiver>) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut fifo) = fifo else { return kept };
    let mut piece = vec![0; 16 * 1024];
    while let Ok(count) = fifo.read(&mut piece).await {
        if count == 0 {
            break;
        }
        let room = MAX_OUTPUT - kept.len();
        kept.extend_from_slice(&piece[..count.min(room)]);
    }
    kept
}
