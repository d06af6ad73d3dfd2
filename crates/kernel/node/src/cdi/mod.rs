//! Devices of the Container Device Interface: what a vendor's files say must be in a container for a device to work.
//!
//! ```text
//! /etc/cdi, /var/run/cdi ─► yaml, file (parsed, validated) ─► catalog (by qualified name) ─► Edits ─► apply: a spec
//! a request ─► qualified names ─────────── ───────────────────┘
//! ```
//!
//! Files are read when a container asks for a device, so that what a vendor's generator wrote last is what counts.
//!
//! Invariant: a file that is not valid, too large or of an unknown version gives no device at all, and takes no other
//! file's away; a device that two files of the same directory define is none.
//! Invariant: a container is made with everything that its devices ask for, or not at all.

mod apply;
mod catalog;
mod file;
mod name;
mod number;
mod yaml;

pub use apply::apply;
pub use catalog::{find, vendors};
pub use file::Edits;
pub use name::is_qualified;
pub(crate) use yaml::parse as parse_yaml;
