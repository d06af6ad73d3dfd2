//! A running container's own streams, joined by a client.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use ::spec::Error;
use api::runtime::v1;
use model::Result;
use model::task::{Attach, Task};
use tokio::net::unix::pipe;

use super::channel::{Channels, Incoming, Wanted};
use super::fifo::{self, Fifos, Streams};
use super::status::Outcome;
use super::{Agreed, copy, exec};
use crate::Cri;
use crate::state::Container;

/// How long the end of a container's output may take to come behind its own.
const LAST_WORDS: Duration = Duration::from_secs(5);

impl Cri {
    /// Answers a URL at which a running container's streams are joined.
    pub(crate) async fn attach(self: &Arc<Self>, request: v1::AttachRequest) -> Result<v1::AttachResponse> {
        if request.container_id.is_empty() {
            return Err(Error::invalid("missing required container_id"));
        }
        let wanted =
            Wanted { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr, tty: request.tty };
        exec::check(wanted)?;
        let container = self.containers.get(&request.container_id)?;
        self.running_task(&container)?;
        let agreed = Agreed::Attach { container: container.record.id.clone(), wanted };
        Ok(v1::AttachResponse { url: self.streaming.url(agreed)? })
    }
}

/// Joins until the container has ended, or the client has gone.
pub async fn run(cri: &Arc<Cri>, id: &str, wanted: Wanted, channels: &mut Channels) -> Outcome {
    match steps(cri, id, wanted, channels).await {
        Ok(()) => Outcome::Exited(0),
        Err(error) => Outcome::Failed(error.text().to_owned()),
    }
}

async fn steps(cri: &Arc<Cri>, id: &str, wanted: Wanted, channels: &mut Channels) -> Result<()> {
    let container = cri.containers.get(id)?;
    let task = cri.running_task(&container)?;
    let dir = cri
        .state_dir()
        .join("containers")
        .join(&container.record.id)
        .join("io")
        .join(crate::container::new_id()?);
    let tty = container.record.config.tty;
    // A container that was made without a standard input has none to feed.
    let streams = Streams {
        stdin: wanted.stdin && container.record.config.stdin && task.writes_logs(),
        stdout: wanted.stdout,
        stderr: wanted.stderr && !tty,
        terminal: false,
    };
    let tapped = match wanted.stdin && container.record.config.stdin && !task.writes_logs() {
        true => Some(cri.tapped_input(&container)?),
        false => None,
    };
    let ctx = cri.ctx();
    let mut fifos = Fifos::make(&ctx, dir.clone(), streams).await?;
    if let Some(input) = tapped {
        fifos.stdin = Some(input);
    }
    let path = |name: &str| (!name.is_empty()).then(|| name.into());
    let stdio = &fifos.stdio;
    let joined =
        Attach { stdin: path(&stdio.stdin), stdout: path(&stdio.stdout), stderr: path(&stdio.stderr) };
    let attached = cri.attach_output(&container, joined).await;
    let outcome = match attached {
        Ok(()) => {
            let outputs = (fifos.stdout.is_some(), fifos.stderr.is_some());
            // Who closes the container's input wants to hear what it says to that.
            let once = container.record.config.stdin_once && !tty;
            let hears_on = once && (outputs.0 || outputs.1);
            let feeding = feed(&*task, &container, fifos.stdin.take(), once, channels.stdin.take());
            let sizing = exec::follow_size(&*task, "", channels.resize.take());
            let error = channels.error.clone();
            let stdout = copy::output_while_there(fifos.stdout.take(), channels.stdout.clone());
            let stderr = copy::output_while_there(fifos.stderr.take(), channels.stderr.clone());
            let (mut stdout, mut stderr) = (std::pin::pin!(stdout), std::pin::pin!(stderr));
            // The first end of an output, the container's end or the client's going ends it; so does the end of what a
            // client says, which is how one leaves a container that runs on (`crictl attach`: ctrl-p, ctrl-q).
            tokio::select! {
                () = &mut stdout => {}
                () = &mut stderr => {}
                () = error.gone() => {}
                _ended = task.wait("") => {
                    // Its last words are in the FIFOs still: the end is told over another way.
                    let rest = async {
                        if outputs.0 { stdout.await }
                        if outputs.1 { stderr.await }
                    };
                    let _late = tokio::time::timeout(LAST_WORDS, rest).await;
                }
                () = async {
                    feeding.await;
                    if hears_on { std::future::pending::<()>().await }
                } => {}
                never = async {
                    sizing.await;
                    std::future::pending::<Infallible>().await
                } => match never {},
            }
            Ok(())
        }
        Err(error) => Err(error),
    };
    fifo::remove(&ctx, &dir).await;
    outcome
}

/// Feeds the container's input until the client's end; closes it behind the first client when the container asked for
/// that. Where there is no input or nothing to feed it, it never ends.
async fn feed(
    task: &dyn Task,
    container: &Container,
    fifo: Option<pipe::Sender>,
    once: bool,
    client: Option<Incoming>,
) {
    let (Some(mut fifo), Some(mut client)) = (fifo, client) else { return std::future::pending().await };
    copy::input(&mut client, &mut fifo).await;
    drop(fifo);
    if once {
        // Where the daemon holds the input open. The shim has an end of its own, and reads what is in the FIFO before it.
        container.taps.end_input();
    }
    if once && let Err(error) = task.close_stdin("").await {
        tracing::debug!(%error, "cannot close the standard input");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_asked_for_as_containerd_wants_them() {
        let wanted = |stdin, stdout, stderr, tty| exec::check(Wanted { stdin, stdout, stderr, tty });
        assert!(wanted(true, false, false, false).is_ok());
        let error: Error = wanted(false, false, false, true).unwrap_err();
        assert!(error.text().starts_with("one of stdin, stdout, or stderr must be set"), "{error}");
        assert!(wanted(true, true, true, true).unwrap_err().text().starts_with("tty and stderr"));
    }
}
