//! Tar archives as layers use them: a streaming [`Reader`] and a deterministic [`Writer`].
//!
//! The reader takes what containerd's does: v7, ustar, pax, GNU long names and base-256 numbers, with or without end
//! blocks. Global pax headers are skipped (containerd ignores them too). Of a sparse
//! file it tells where its bytes belong.
//!
//! Invariant: no length from the archive is ever allocated before it has been bounded.

mod header;
mod pax;
mod reader;
mod sparse;
mod writer;

pub use header::{Entry, EntryType, Time};
pub use reader::{Reader, TarError};
pub use writer::Writer;

/// Everything in an archive is a multiple of this.
pub(crate) const BLOCK: usize = 512;

/// The longest long name or extended header that is accepted, as in containerd.
pub(crate) const LONGEST_EXTENSION: u64 = 1 << 20;
