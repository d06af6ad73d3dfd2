//! Logs of containers whose shim writes none: the daemon copies them from FIFOs, as containerd does for every container.
//!
//! ```text
//! <state>/containers/<id>/io/{stdout,stderr}  ─►  lines of CRI  ─►  the container's log
//! ```
//!
//! What such a container writes while no daemon runs waits in its pipes: a container that fills them waits too.
//!
//! Invariant: of an output no more is held than one read and one line, which has a bound.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use model::task::{Stdio, Task};
use model::{Ctx, Lane, Result};
use shim::stdio::{Lines, LogFile, Stream};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;

use super::io_failed;
use super::tap::Taps;
use crate::Cri;
use crate::state::Container;
use crate::stream::fifo::{Fifos, Streams};

/// The most bytes that are read at once.
const CHUNK: usize = 32 * 1024;

/// The longest line where the configuration sets no limit.
const MAX_LINE: usize = 1 << 20;

/// A log that the daemon writes; both outputs go into it.
pub(crate) type Log = Arc<Mutex<LogFile>>;

impl Cri {
    /// The FIFOs of a container that is to be started, and its open log.
    pub(super) async fn make_copied(&self, container: &Container, io: PathBuf) -> Result<Fifos> {
        let streams =
            Streams { stdin: false, stdout: true, stderr: true, terminal: container.record.config.tty };
        self.open_log(container).await?;
        // A daemon that died before it started the container may have made some.
        let old = io.clone();
        self.ctx().blocking(Lane::Disk, move |_| super::remove::remove_dir(&old)).await?;
        Fifos::make(&self.ctx(), io, streams).await
    }

    /// Copies what comes by `fifos` into the container's log, until the shim closes them.
    pub(super) fn copy_log(&self, container: &Container, fifos: Fifos) {
        let Some(log) = container.log.get() else { return };
        let max = self.config.runtime.max_container_log_line_size.unwrap_or(MAX_LINE);
        for (from, stream) in [(fifos.stdout, Stream::Stdout), (fifos.stderr, Stream::Stderr)] {
            if let Some(from) = from {
                let (log, taps) = (Arc::clone(log), Arc::clone(&container.taps));
                let (ctx, lines) = (self.ctx(), Lines::new(stream, max));
                self.in_background(async move {
                    copy(ctx, from, log, lines, &taps).await;
                    taps.end(stream);
                });
            }
        }
    }

    /// Goes on with the log of a container that an earlier daemon has started.
    pub(super) async fn go_on_copying(&self, container: &Container, task: &dyn Task) {
        if task.writes_logs() || container.log.get().is_some() {
            return;
        }
        let io = self.container_state(&container.record.id).join("io");
        let path = |name: &str| io.join(name).to_string_lossy().into_owned();
        let stderr = if container.record.config.tty { String::new() } else { path("stderr") };
        let stdio = Stdio { stdin: String::new(), stdout: path("stdout"), stderr, terminal: false };
        if container.record.config.stdin
            && let Err(error) = container.taps.hold_input(&self.input_path(&container.record.id))
        {
            tracing::warn!(id = %container.record.id, %error, "a container's input does not stay open");
        }
        let opened = match self.open_log(container).await {
            Ok(()) => Fifos::open(&stdio),
            Err(error) => Err(error),
        };
        match opened {
            Ok(fifos) => self.copy_log(container, fifos),
            Err(error) => {
                tracing::error!(id = %container.record.id, %error, "a container's log does not go on")
            }
        }
    }

    /// Has the log of a container go on in a new file; false when the daemon does not write it.
    pub(super) async fn reopen_copied(&self, container: &Container) -> Result<bool> {
        let Some(log) = container.log.get().map(Arc::clone) else { return Ok(false) };
        let reopen = move |_: &model::Cx<'_>| {
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            let reopened = log.reopen();
            reopened.map_err(|error| io_failed(format_args!("cannot open {}", log.path().display()), &error))
        };
        self.ctx().blocking(Lane::Disk, reopen).await.map(|()| true)
    }

    async fn open_log(&self, container: &Container) -> Result<()> {
        let path = container.record.log_path.clone().unwrap_or_else(|| Path::new("/dev/null").into());
        let open = move |_: &model::Cx<'_>| {
            if let Some(dir) = path.parent() {
                let made = std::fs::create_dir_all(dir);
                made.map_err(|error| io_failed(format_args!("cannot make {}", dir.display()), &error))?;
            }
            let log = LogFile::open(&path);
            log.map_err(|error| io_failed(format_args!("cannot open {}", path.display()), &error))
        };
        let log = self.ctx().blocking(Lane::Disk, open).await?;
        // A start that is tried again goes on with the log of the first.
        let _first = container.log.set(Arc::new(Mutex::new(log)));
        Ok(())
    }
}

/// Copies one output to its end.
async fn copy(ctx: Ctx, mut from: pipe::Receiver, log: Log, mut lines: Lines, taps: &Taps) {
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = from.read(&mut chunk).await.unwrap_or(0);
        taps.give(lines.stream(), &chunk[..count]);
        let (into, mut read) = (Arc::clone(&log), std::mem::take(&mut chunk));
        let written = ctx.blocking(Lane::Disk, move |_| {
            let mut log = into.lock().unwrap_or_else(PoisonError::into_inner);
            let (stamp, mut out) = (log.stamp(), Vec::with_capacity(count + 64));
            match count {
                0 => lines.finish(&stamp, &mut out),
                _ => lines.push(&read[..count], &stamp, &mut out),
            }
            log.write(&out);
            read.resize(CHUNK, 0);
            Ok((lines, read))
        });
        match written.await {
            Ok(next) if count > 0 => (lines, chunk) = next,
            // The end, or the daemon's.
            _ => return,
        }
    }
}
