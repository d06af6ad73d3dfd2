//! The store through its traits, on a real disk with a real driver; and what a crash or a full disk leaves of it.
#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]

mod bed;
mod containers;
mod content;
mod crash;
mod damage;
mod events;
mod full;
mod gc;
mod images;
mod leases;
mod lost;
mod namespaces;
mod races;
mod sandboxes;
mod snapshots;
