//! Streams of a client, whatever carries them: SPDY streams or WebSocket channels of one connection.
//!
//! Each has a number. What the client sends comes out of an [`Incoming`]; what an [`Outgoing`] sends is queued for the
//! connection's one writer, in order.
//!
//! Invariant: every queue has a bound; a client that does not read slows only itself down.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

/// How many pieces of a client's stream wait to be read.
pub const PIECES: usize = 16;

/// How many commands wait for a connection's writer.
pub const COMMANDS: usize = 16;

/// How long a client may take to take one piece before it counts as gone.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a connection's writer does next.
#[derive(Debug)]
pub enum Command {
    /// Accept a stream (SPDY).
    Accept(u32),
    /// Refuse a stream (SPDY).
    Refuse(u32),
    /// Send bytes.
    Data(u32, Vec<u8>),
    /// Say that no more bytes will come.
    Close(u32),
    /// Give a stream up.
    Reset(u32),
    /// Answer a ping (SPDY).
    Pong(u32),
    /// Send what is queued and end the connection.
    End,
}

/// When something last went over a connection, in either direction.
#[derive(Clone, Debug)]
pub struct Clock {
    begun: Instant,
    /// In milliseconds since then.
    last: Arc<AtomicU64>,
    /// How long nothing may go over it.
    limit: Duration,
}

impl Clock {
    /// A clock of a connection that may be silent for `limit`.
    pub fn new(limit: Duration) -> Self {
        Self { begun: Instant::now(), last: Arc::default(), limit }
    }

    /// Something went over it now.
    pub fn touch(&self) {
        self.last.store(self.begun.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// The outcome of `read`, or none once nothing has gone over the connection for too long. The future is polled on
    /// when there was only writing, not begun anew, so that no byte is lost.
    pub async fn bound<T>(&self, read: impl Future<Output = T>) -> Option<T> {
        let mut read = std::pin::pin!(read);
        loop {
            let idle =
                self.begun.elapsed().saturating_sub(Duration::from_millis(self.last.load(Ordering::Relaxed)));
            let left = self.limit.checked_sub(idle).filter(|left| !left.is_zero())?;
            if let Ok(outcome) = tokio::time::timeout(left, &mut read).await {
                self.touch();
                return Some(outcome);
            }
        }
    }
}

/// The client has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client has gone")]
pub struct Gone;

/// What comes from the client on one stream. `None` is its end.
pub type Incoming = mpsc::Receiver<Vec<u8>>;

/// Sends to the client on one stream.
#[derive(Clone, Debug)]
pub struct Outgoing {
    number: u32,
    commands: mpsc::Sender<Command>,
}

impl Outgoing {
    /// Stream `number` of the connection that `commands` steer.
    pub fn new(number: u32, commands: mpsc::Sender<Command>) -> Self {
        Self { number, commands }
    }

    async fn say(&self, command: Command) -> Result<(), Gone> {
        match tokio::time::timeout(PATIENCE, self.commands.send(command)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Gone),
        }
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// The client has gone, or takes nothing.
    pub async fn send(&self, bytes: Vec<u8>) -> Result<(), Gone> {
        self.say(Command::Data(self.number, bytes)).await
    }

    /// Says that no more bytes will come.
    ///
    /// # Errors
    /// The client has gone.
    pub async fn close(&self) -> Result<(), Gone> {
        self.say(Command::Close(self.number)).await
    }

    /// Resolves once the client has gone.
    pub async fn gone(&self) {
        self.commands.closed().await;
    }

    /// Gives the stream up.
    ///
    /// # Errors
    /// The client has gone.
    pub async fn reset(&self) -> Result<(), Gone> {
        self.say(Command::Reset(self.number)).await
    }
}

/// The streams of an exec or an attach.
#[derive(Debug)]
pub struct Channels {
    /// What the client types.
    pub stdin: Option<Incoming>,
    /// Where standard output goes.
    pub stdout: Option<Outgoing>,
    /// Where standard error goes.
    pub stderr: Option<Outgoing>,
    /// Sizes of the client's terminal, as JSON.
    pub resize: Option<Incoming>,
    /// Where the outcome goes.
    pub error: Outgoing,
    /// Whether the outcome is told as a Status in JSON (since v4); a plain text else.
    pub json_status: bool,
}

/// Which streams a client is to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// A terminal, which has a size.
    pub tty: bool,
}
