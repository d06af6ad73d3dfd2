//! Who is attached to a container whose shim lets nobody attach: what the daemon copies to the log goes to them, too.
//!
//! Invariant: a client that does not keep up is let go; neither the log nor the container waits for it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ::spec::Error;
use model::Result;
use model::task::Attach;
use shim::stdio::Stream;
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use super::io_failed;
use crate::Cri;
use crate::state::Container;

/// How many pieces wait for a client.
const PIECES: usize = 64;
/// How many clients hear one output.
const MAX: usize = 64;

/// What an output gave at once.
type Piece = Arc<[u8]>;

/// The clients of a container's outputs, and its input.
#[derive(Debug, Default)]
pub(crate) struct Taps {
    stdout: Mutex<Vec<mpsc::Sender<Piece>>>,
    stderr: Mutex<Vec<mpsc::Sender<Piece>>>,
    /// Held open, or the end of one client would be that of the input.
    stdin: Mutex<Option<pipe::Sender>>,
}

impl Taps {
    fn of(&self, stream: Stream) -> &Mutex<Vec<mpsc::Sender<Piece>>> {
        match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        }
    }

    /// Gives `bytes` of an output to whoever listens.
    pub(super) fn give(&self, stream: Stream, bytes: &[u8]) {
        let mut clients = self.of(stream).lock().unwrap_or_else(PoisonError::into_inner);
        if !clients.is_empty() {
            let piece = Piece::from(bytes);
            clients.retain(|client| client.try_send(Arc::clone(&piece)).is_ok());
        }
    }

    /// An output has ended.
    pub(super) fn end(&self, stream: Stream) {
        self.of(stream).lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn listen(&self, stream: Stream) -> Result<mpsc::Receiver<Piece>> {
        let mut clients = self.of(stream).lock().unwrap_or_else(PoisonError::into_inner);
        clients.retain(|client| !client.is_closed());
        if clients.len() >= MAX {
            return Err(Error::unavailable(format!("{MAX} clients are attached already")));
        }
        let (client, pieces) = mpsc::channel(PIECES);
        clients.push(client);
        Ok(pieces)
    }

    /// Holds the input at `path` open until [`Taps::end_input`].
    pub(super) fn hold_input(&self, path: &Path) -> Result<()> {
        let held = open_input(path)?;
        *self.stdin.lock().unwrap_or_else(PoisonError::into_inner) = Some(held);
        Ok(())
    }

    /// Ends the input: once its last client has gone too, the container reads its end.
    pub(crate) fn end_input(&self) {
        self.stdin.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Cri {
    /// The input of a container whose shim lets nobody attach.
    ///
    /// # Errors
    /// It is not there any more.
    pub(crate) fn tapped_input(&self, container: &Container) -> Result<pipe::Sender> {
        open_input(&self.input_path(&container.record.id))
    }

    /// Where such a container's input is.
    pub(super) fn input_path(&self, id: &str) -> PathBuf {
        self.container_state(id).join("io").join("stdin")
    }

    /// Copies what such a container writes from now on to FIFOs whose other ends are open already.
    ///
    /// # Errors
    /// They cannot be opened; too many are attached.
    pub(super) fn tap(&self, container: &Container, attach: &Attach) -> Result<()> {
        let outputs = [(&attach.stdout, Stream::Stdout), (&attach.stderr, Stream::Stderr)];
        for (path, stream) in outputs {
            let Some(path) = path else { continue };
            let to = pipe::OpenOptions::new().open_sender(path);
            let to = to.map_err(|error| io_failed(format_args!("cannot open {}", path.display()), &error))?;
            self.in_background(pump(container.taps.listen(stream)?, to));
        }
        Ok(())
    }
}

fn open_input(path: &Path) -> Result<pipe::Sender> {
    // For reading too: there may be no reader yet.
    let opened = pipe::OpenOptions::new().read_write(true).open_sender(path);
    opened.map_err(|error| io_failed(format_args!("cannot open {}", path.display()), &error))
}

/// Writes what is given until there is no more, or nobody reads.
async fn pump(mut pieces: mpsc::Receiver<Piece>, mut to: pipe::Sender) {
    loop {
        // Both are cancel-safe: a piece that was not received stays queued.
        let piece = tokio::select! {
            piece = pieces.recv() => piece,
            // The client has gone while the container is silent.
            _gone = to.ready(Interest::ERROR) => None,
        };
        let Some(piece) = piece else { return };
        if to.write_all(&piece).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_that_does_not_keep_up_is_let_go_and_the_others_hear_all() {
        let taps = Taps::default();
        let (mut slow, mut quick) =
            (taps.listen(Stream::Stdout).unwrap(), taps.listen(Stream::Stdout).unwrap());
        for number in 0..=PIECES {
            taps.give(Stream::Stdout, &[number as u8]);
            taps.give(Stream::Stderr, b"not theirs");
            assert_eq!(&*quick.recv().await.unwrap(), [number as u8]);
        }
        for number in 0..PIECES {
            assert_eq!(&*slow.recv().await.unwrap(), [number as u8]);
        }
        assert!(slow.recv().await.is_none());
        taps.end(Stream::Stdout);
        assert!(quick.recv().await.is_none());
    }
}
