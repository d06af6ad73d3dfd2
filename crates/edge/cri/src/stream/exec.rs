//! A command in a container, with a client's streams.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use ::spec::{Error, Kind};
use api::runtime::v1;
use model::task::{Exec, Task};
use model::{Result, task};

use super::channel::{Channels, Incoming, Wanted};
use super::fifo::{self, Fifos, Streams};
use super::resize::Sizes;
use super::status::Outcome;
use super::{Agreed, copy};
use crate::Cri;
use crate::container::process_json;

impl Cri {
    /// Answers a URL at which a command can be run with its streams.
    pub(crate) async fn exec(self: &Arc<Self>, request: v1::ExecRequest) -> Result<v1::ExecResponse> {
        if request.container_id.is_empty() {
            return Err(Error::invalid("missing required container_id"));
        }
        if request.cmd.is_empty() {
            return Err(Error::invalid("missing required cmd"));
        }
        let wanted =
            Wanted { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr, tty: request.tty };
        check(wanted)?;
        let container = self.containers.get(&request.container_id)?;
        // It runs now; whether it still does is asked again when the client comes.
        self.running_task(&container)?;
        let agreed = Agreed::Exec { container: container.record.id.clone(), command: request.cmd, wanted };
        Ok(v1::ExecResponse { url: self.streaming.url(agreed)? })
    }
}

/// What containerd asks of the streams of an exec or attach.
pub fn check(wanted: Wanted) -> Result<()> {
    if wanted.tty && wanted.stderr {
        return Err(Error::invalid("tty and stderr cannot both be true"));
    }
    if !wanted.stdin && !wanted.stdout && !wanted.stderr {
        return Err(Error::invalid("one of stdin, stdout, or stderr must be set"));
    }
    Ok(())
}

/// Runs `command` and follows it to its end.
pub async fn run(
    cri: &Arc<Cri>,
    id: &str,
    command: Vec<String>,
    wanted: Wanted,
    channels: &mut Channels,
) -> Outcome {
    match steps(cri, id, command, wanted, channels).await {
        Ok(status) => Outcome::Exited(status),
        Err(error) => Outcome::Failed(format!("failed to exec in container: {}", error.text())),
    }
}

async fn steps(
    cri: &Arc<Cri>,
    id: &str,
    command: Vec<String>,
    wanted: Wanted,
    channels: &mut Channels,
) -> Result<u32> {
    let container = cri.containers.get(id)?;
    let task = cri.running_task(&container)?;
    let process = process_json(&cri.exec_process(&container, command, wanted.tty).await?)?;
    let exec_id = crate::container::new_id()?;
    let dir = cri.state_dir().join("containers").join(&container.record.id).join("io").join(&exec_id);
    let streams =
        Streams { stdin: wanted.stdin, stdout: wanted.stdout, stderr: wanted.stderr, terminal: wanted.tty };
    let ctx = cri.ctx();
    let fifos = Fifos::make(&ctx, dir.clone(), streams).await?;
    let ended = process_to_its_end(cri, &*task, &exec_id, process, fifos, channels).await;
    fifo::remove(&ctx, &dir).await;
    ended
}

/// Makes and starts the process, copies until it and its output have ended, and deletes it whatever happened.
async fn process_to_its_end(
    cri: &Cri,
    task: &dyn Task,
    exec_id: &str,
    process: Vec<u8>,
    fifos: Fifos,
    channels: &mut Channels,
) -> Result<u32> {
    let exec = Exec { id: exec_id.to_owned(), process, stdio: fifos.stdio.clone() };
    task.exec(exec).await.map_err(|error| error.context("failed to create exec"))?;
    let ended = started(cri, task, exec_id, fifos, channels).await;
    if ended.is_err() {
        // It may not have started, or its shim may be what failed.
        let _gone = task.kill(exec_id, SIGKILL, true).await;
    }
    match task.delete_exec(exec_id).await {
        Err(error) if error.kind() != Kind::NotFound => {
            tracing::warn!(%error, exec_id, "an exec stays behind in its shim");
        }
        _ => {}
    }
    ended
}

const SIGKILL: u32 = 9;
const SIGHUP: u32 = 1;
/// How long a command may take to end once its client has gone.
const HANG_UP: Duration = Duration::from_secs(5);

async fn started(
    cri: &Cri,
    task: &dyn Task,
    exec_id: &str,
    mut fifos: Fifos,
    channels: &mut Channels,
) -> Result<u32> {
    let pid = task.start(exec_id).await.map_err(|error| error.context("failed to start exec"))?;
    let client = channels.error.clone();
    let feeding = feed(task, exec_id, fifos.stdin.take(), channels.stdin.take());
    let sizing = follow_size(task, exec_id, channels.resize.take());
    let copying = async {
        tokio::join!(
            copy::output(fifos.stdout.take(), channels.stdout.clone()),
            copy::output(fifos.stderr.take(), channels.stderr.clone()),
        )
    };
    let ending = async { tokio::join!(task.wait(exec_id), copying).0 };
    // Only the process's end counts: what a client still says after it goes nowhere.
    let exit: task::Exit = tokio::select! {
        exit = ending => exit?,
        () = client.gone() => {
            hang_up(cri, task, exec_id, pid).await?;
            return Err(Error::new(Kind::Canceled, "the client has gone"));
        }
        never = async {
            tokio::join!(feeding, sizing);
            std::future::pending::<Infallible>().await
        } => match never {},
    };
    Ok(exit.status)
}

/// Ends a command whose client has gone without waiting for it: nobody could see, feed or end it any more. As a terminal
/// does it: SIGHUP first.
async fn hang_up(cri: &Cri, task: &dyn Task, exec_id: &str, pid: u32) -> Result<()> {
    if let Err(error) = task.kill(exec_id, SIGHUP, false).await {
        tracing::debug!(%error, exec_id, "cannot hang up");
    }
    // Its end is looked at below; the processes that it leaves behind are not its client's.
    match tokio::time::timeout(HANG_UP, task.wait(exec_id)).await {
        Ok(_ended) => Ok(()),
        Err(_) => cri.kill_command(task, exec_id, pid).await,
    }
}

/// Feeds the process's input until the client's end, and then closes it.
async fn feed(
    task: &dyn Task,
    exec_id: &str,
    fifo: Option<tokio::net::unix::pipe::Sender>,
    client: Option<Incoming>,
) {
    let (Some(mut fifo), Some(mut client)) = (fifo, client) else { return };
    copy::input(&mut client, &mut fifo).await;
    drop(fifo);
    if let Err(error) = task.close_stdin(exec_id).await {
        tracing::debug!(%error, exec_id, "cannot close the standard input");
    }
}

/// Gives the terminal the sizes that the client tells. `exec_id` is empty for the container's own terminal.
pub async fn follow_size(task: &dyn Task, exec_id: &str, client: Option<Incoming>) {
    let Some(mut client) = client else { return };
    let mut sizes = Sizes::default();
    while let Some(piece) = client.recv().await {
        if let Some(size) = sizes.take(&piece)
            && let Err(error) = task.resize(exec_id, size.width.into(), size.height.into()).await
        {
            tracing::debug!(%error, exec_id, "cannot resize the terminal");
        }
    }
}
