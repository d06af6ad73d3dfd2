//! The outputs of a command, caught in memory: pipes without a name, which leave nothing on any disk.
//!
//! The shim opens our write ends by their place in `/proc`; we close ours once it has them. From then on the end of its
//! own is the end of the output.

use ::spec::Error;
use model::Result;
use model::task::Stdio;
use std::os::fd::AsRawFd as _;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;

/// How much of each output is kept; the rest is read and dropped, so that the command goes on.
const MAX_OUTPUT: usize = 16 << 20;
/// How much is read at once: as much as a pipe holds.
const PIECE: usize = 64 << 10;

/// One output of a command.
#[derive(Debug)]
pub(super) struct Capture {
    /// Ours until the shim has opened it.
    writer: Option<pipe::Sender>,
    reader: pipe::Receiver,
    kept: Vec<u8>,
}

impl Capture {
    /// A new pipe.
    ///
    /// # Errors
    /// Too many descriptors are open.
    pub(super) fn new() -> Result<Self> {
        let (writer, reader) =
            pipe::pipe().map_err(|error| super::io_failed("cannot make a pipe", &error))?;
        Ok(Self { writer: Some(writer), reader, kept: Vec::new() })
    }

    /// The shim has opened it: from now on it alone holds the output open.
    pub(super) fn opened(&mut self) {
        self.writer = None;
    }

    /// Hands over our write end, if the shim has not opened it: its number stays taken for as long as the caller has it.
    pub(super) fn release(&mut self) -> Option<pipe::Sender> {
        self.writer.take()
    }

    /// Reads to the end of the output; goes on where it was dropped.
    pub(super) async fn read(&mut self) -> Result<()> {
        let mut piece = vec![0; PIECE];
        loop {
            // Cancel-safe: a read that is dropped has read nothing.
            let read = self.reader.read(&mut piece).await;
            match read.map_err(|error| Error::internal(format!("cannot read a command's output: {error}")))? {
                0 => return Ok(()),
                count => {
                    let room = MAX_OUTPUT - self.kept.len();
                    self.kept.extend_from_slice(&piece[..count.min(room)]);
                }
            }
        }
    }

    /// What was kept.
    pub(super) fn take(self) -> Vec<u8> {
        self.kept
    }
}

/// Both outputs, cut so that together they have at most `most` bytes; each may have half of it whatever the other has.
pub(super) fn within(most: usize, mut stdout: Vec<u8>, mut stderr: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    let half = most / 2;
    stdout.truncate((most - stderr.len().min(half)).max(half));
    stderr.truncate(most - stdout.len());
    (stdout, stderr)
}

/// What the shim is told of two outputs.
pub(super) fn stdio(stdout: &Capture, stderr: &Capture) -> Stdio {
    let place = |capture: &Capture| match &capture.writer {
        Some(writer) => format!("/proc/{}/fd/{}", std::process::id(), writer.as_raw_fd()),
        None => String::new(),
    };
    Stdio { stdin: String::new(), stdout: place(stdout), stderr: place(stderr), terminal: false }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn both_outputs_share_the_room_of_the_answer() {
        for ((stdout, stderr), wanted) in [
            ((3, 4), (3, 4)),
            ((20, 0), (10, 0)),
            ((0, 20), (0, 10)),
            ((20, 3), (7, 3)),
            ((3, 20), (3, 7)),
            ((20, 20), (5, 5)),
        ] {
            let (out, err) = within(10, vec![0; stdout], vec![0; stderr]);
            assert_eq!((out.len(), err.len()), wanted, "{stdout} and {stderr}");
        }
    }

    #[tokio::test]
    async fn what_another_writes_by_the_path_is_kept_up_to_the_bound_and_ends_with_the_other() {
        let (mut stdout, mut stderr) = (Capture::new().unwrap(), Capture::new().unwrap());
        let told = stdio(&stdout, &stderr);
        let open = |path: &str| std::fs::OpenOptions::new().write(true).read(true).open(path).unwrap();
        let (mut out, err) = (open(&told.stdout), open(&told.stderr));
        stdout.opened();
        stderr.opened();
        let writing = std::thread::spawn(move || {
            let megabyte = vec![b'x'; 1 << 20];
            for _ in 0..17 {
                out.write_all(&megabyte).unwrap();
            }
            drop(err);
        });
        stdout.read().await.unwrap();
        stderr.read().await.unwrap();
        writing.join().unwrap();
        assert_eq!(stdout.take().len(), MAX_OUTPUT);
        assert!(stderr.take().is_empty());
    }
}
