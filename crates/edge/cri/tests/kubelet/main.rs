//! The daemon as a kubelet sees it: CRI on its socket, with real shims, containers and files.
#![allow(clippy::unwrap_used, reason = "a test's steps fail by panicking")]

mod client;
mod events;
mod exec;
mod faults;
mod foreign;
mod frozen;
mod hostile;
mod life;
mod logs;
mod network;
mod node;
mod nri;
mod nri_plugin;
mod orphans;
mod plugins;
mod refused;
mod security;
mod spdy;
mod stall;
mod streams;
mod survive;
mod userns;
mod vanish;
