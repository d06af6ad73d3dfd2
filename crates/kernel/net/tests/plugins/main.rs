//! The plugins on networks of their own: a namespace stands for the host, others for pods and for the world outside.
//! The machine's own network is never touched.
#![allow(clippy::unwrap_used, reason = "a test's steps fail by panicking")]

mod bandwidth;
mod bridge;
mod firewall;
mod place;
mod portmap;
mod standard;
mod tuning;
