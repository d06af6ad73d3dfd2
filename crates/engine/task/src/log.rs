//! A shim's log: a fifo in its bundle whose lines join the daemon's own.

use std::io;
use std::path::Path;

use tokio::net::unix::pipe;
use tokio::task::JoinHandle;

/// The longest line; the rest of a longer one starts another.
const MAX_LINE: usize = 4 << 10;

/// The reading end of a shim's log. Dropping it ends the reading, not the shim.
#[derive(Debug)]
pub struct Log {
    reader: JoinHandle<()>,
}

impl Drop for Log {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Log {
    /// Makes the fifo of the bundle `dir`, if it is not there, and reads it from now on.
    ///
    /// # Errors
    /// It cannot be made or opened.
    pub fn open(dir: &Path, namespace: &str, id: &str) -> io::Result<Self> {
        let path = dir.join("log");
        match sys::fd::make_fifo(&path, 0o700) {
            Err(error) if error.errno() != 17 => return Err(io::Error::from_raw_os_error(error.errno())),
            _ => {}
        }
        // Reading and writing: the fifo never ends, whatever shims come and go.
        let fifo = pipe::OpenOptions::new().read_write(true).open_receiver(&path)?;
        let (namespace, id) = (namespace.to_owned(), id.to_owned());
        Ok(Self { reader: tokio::spawn(lines(fifo, namespace, id)) })
    }
}

async fn lines(fifo: pipe::Receiver, namespace: String, id: String) {
    let mut line = Vec::new();
    loop {
        if fifo.readable().await.is_err() {
            return;
        }
        let mut buffer = [0; 512];
        match fifo.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                for byte in &buffer[..count] {
                    if *byte != b'\n' {
                        line.push(*byte);
                    }
                    if *byte == b'\n' || line.len() == MAX_LINE {
                        let text = String::from_utf8_lossy(&line);
                        tracing::info!(target: "shim", namespace, id, "{text}");
                        line.clear();
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}
