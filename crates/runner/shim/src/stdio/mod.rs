//! A process's standard files: from the URIs of a request to descriptors for the process and copies for the loop.
//!
//! | URI | what the process gets | where its output goes |
//! |---|---|---|
//! | empty | `/dev/null` | nowhere |
//! | `/path`, `fifo:///path` | a pipe | the FIFO, opened for both reading and writing |
//! | `file:///path` | a pipe | the end of the file, standard error too |
//! | `binary:///path?k=v` | a pipe | a logging program's descriptors 3 and 4 |
//! | any, with a terminal | the terminal | the URI of standard output |
//!
//! Invariant: a FIFO is held open at both ends, so a client that leaves and comes back loses nothing, and no write of
//! ours fails for want of a reader.

mod copy;
mod logger;
mod open;
mod uri;

pub use copy::{Copy, Progress, Waiting};
pub use logger::{Logger, reserve_descriptors};
pub use open::{OpenError, Opened, Owner, open, open_terminal};
pub use uri::{Scheme, Uri, UriError};
