//! Snapshots on disk, and layers to and from them.
//!
//! - [`Overlay`] and [`Native`] are the drivers: containerd's directories, records of their own in redb.
//! - [`Walking`] applies layers and makes them: [`tar`] reads and writes the archives, [`diff`] walks the trees.
//! - [`mount`] makes a snapshot's mounts visible, mostly detached, so that no crash leaves one behind.
//!
//! What is deliberately absent: namespaces, leases and garbage collection (the store's view over a driver has them),
//! and any decision about which layers to apply (the image crate's).
//!
//! Invariant: an archive's names are resolved below the root descriptor of the tree it is applied to, never by path.
//! Invariant: a deletion never crosses a mount and never follows a link.

pub mod diff;
pub mod driver;
mod lower;
mod marks;
pub mod mount;
pub mod tar;
mod volume;
mod walk;

pub use diff::{Limits, Walking};
pub use driver::native::Native;
pub use driver::overlay::{Overlay, OverlayConfig};
pub use volume::copy_out;
