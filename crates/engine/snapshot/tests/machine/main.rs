//! The drivers and the differ on the real kernel: overlay and bind mounts, whiteouts, attributes, archives by GNU tar.

#![allow(clippy::unwrap_used, reason = "a test's step that fails ends the test")]

mod archives;
mod changes;
mod drivers;
mod hostile;
mod layers;
mod random;
mod stage;
mod tree;
