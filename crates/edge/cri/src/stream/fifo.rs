//! FIFOs between a process and a client's streams, in a directory of their own.
//!
//! Both ends are opened without waiting, so a shim that never comes blocks nobody. The shim holds its end of an output
//! open from the moment the process is made until its output is complete, so an end of file is the end of the output
//! once the process was started.

use std::path::{Path, PathBuf};

use ::spec::Error;
use model::task::Stdio;
use model::{Ctx, Lane, Result};
use tokio::net::unix::pipe;

/// The FIFOs of one process.
#[derive(Debug)]
pub struct Fifos {
    /// What the shim is told.
    pub stdio: Stdio,
    /// Feeds standard input.
    pub stdin: Option<pipe::Sender>,
    /// Standard output.
    pub stdout: Option<pipe::Receiver>,
    /// Standard error.
    pub stderr: Option<pipe::Receiver>,
}

/// Which streams a process has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Streams {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Whether they are one terminal.
    pub terminal: bool,
}

impl Fifos {
    /// Makes and opens the FIFOs of `streams` in the new directory `dir`, which only root can enter.
    ///
    /// # Errors
    /// They cannot be made; nothing is left then.
    pub async fn make(ctx: &Ctx, dir: PathBuf, streams: Streams) -> Result<Self> {
        let name = |wanted: bool, name: &str| if wanted { path(&dir, name) } else { String::new() };
        let stdio = Stdio {
            stdin: name(streams.stdin, "stdin"),
            stdout: name(streams.stdout, "stdout"),
            stderr: name(streams.stderr && !streams.terminal, "stderr"),
            terminal: streams.terminal,
        };
        let (making, place) = (stdio.clone(), dir.clone());
        ctx.blocking(Lane::Disk, move |_| {
            use std::os::unix::fs::DirBuilderExt as _;
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&place);
            made.map_err(|error| Error::internal(format!("cannot make {}: {error}", place.display())))?;
            let mut paths = [&making.stdin, &making.stdout, &making.stderr].into_iter();
            let made = paths.by_ref().filter(|path| !path.is_empty()).try_for_each(|path| {
                sys::fd::make_fifo(Path::new(path), 0o600).map_err(|error| Error::internal(error.to_string()))
            });
            if made.is_err() {
                let _gone = std::fs::remove_dir_all(&place);
            }
            made
        })
        .await?;
        let opened = Self::open(&stdio);
        if opened.is_err() {
            remove(ctx, &dir).await;
        }
        opened
    }

    /// Opens FIFOs that are there.
    ///
    /// # Errors
    /// What open(2) says.
    pub fn open(stdio: &Stdio) -> Result<Self> {
        let failed = |path: &str, error| Error::internal(format!("cannot open {path}: {error}"));
        let reader = |path: &str| match path {
            "" => Ok(None),
            _ => pipe::OpenOptions::new().open_receiver(path).map(Some).map_err(|error| failed(path, error)),
        };
        // Held open for reading too, since there is no reader yet; who has left is seen at the outputs.
        let writer = |path: &str| match path {
            "" => Ok(None),
            _ => {
                let opened = pipe::OpenOptions::new().read_write(true).open_sender(path);
                opened.map(Some).map_err(|error| failed(path, error))
            }
        };
        Ok(Self {
            stdin: writer(&stdio.stdin)?,
            stdout: reader(&stdio.stdout)?,
            stderr: reader(&stdio.stderr)?,
            stdio: stdio.clone(),
        })
    }
}

fn path(dir: &Path, name: &str) -> String {
    dir.join(name).to_string_lossy().into_owned()
}

/// Removes the FIFOs in `dir`. What is still open goes on.
pub async fn remove(ctx: &Ctx, dir: &Path) {
    let place = dir.to_owned();
    let removed = ctx.blocking(Lane::Disk, move |_| match std::fs::remove_dir_all(&place) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::internal(format!("cannot remove {}: {error}", place.display())))
        }
        _ => Ok(()),
    });
    if let Err(error) = removed.await {
        tracing::warn!(%error, "FIFOs stay behind");
    }
}
