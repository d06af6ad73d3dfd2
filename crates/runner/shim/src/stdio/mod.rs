//! A process's standard files: from the URIs of a request to descriptors for the process and copies for the loop.
//!
//! | URI | what the process gets | where its output goes |
//! |---|---|---|
//! | empty | `/dev/null` | nowhere |
//! | `/path`, `fifo:///path` | a pipe | the FIFO, opened for both reading and writing |
//! | `file:///path` | a pipe | the end of the file, standard error too |
//! | `cri:///path?max_line=N` | a pipe | the kubelet's log at the path, in lines of at most N bytes (16384) |
//! | `binary:///path?k=v` | a pipe | a logging program's descriptors 3 and 4 |
//! | any, with a terminal | the terminal | the URI of standard output |
//!
//! A process has one log: `cri://` URIs of both outputs name the same file, and their lines mix there, each whole. The
//! log's directory is there already and its file is a regular one; `/dev/null` keeps nothing. A log's path is a URI's:
//! bytes that mean something in one are escaped as `%XX`.
//!
//! Invariant: a FIFO is held open at both ends, so a client that leaves and comes back loses nothing, and no write of
//! ours fails for want of a reader.

mod copy;
mod log;
mod logged;
mod logger;
mod open;
mod uri;

pub use copy::{Copy, Progress, Waiting};
pub use log::{Lines, LogFile, MAX_PATH, Stream};
pub use logged::{Logged, Reading};
pub use logger::{Logger, reserve_descriptors};
pub use open::{Flow, OpenError, Opened, Owner, open, open_terminal};
pub use uri::{Scheme, Uri, UriError};
