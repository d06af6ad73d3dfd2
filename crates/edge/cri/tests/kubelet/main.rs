//! The daemon as a kubelet sees it: CRI on its socket, with real shims, containers and files.
#![allow(clippy::unwrap_used, reason = "a test's steps fail by panicking")]

mod attached;
mod client;
mod events;
mod exec;
mod faults;
mod figures;
mod foreign;
mod frozen;
mod hostile;
mod images;
mod life;
mod lists;
mod logs;
mod lost;
mod metrics;
mod network;
mod node;
mod node_facts;
mod nri;
mod nri_plugin;
mod orphans;
mod plugins;
mod pull;
mod refused;
mod security;
mod spdy;
mod stall;
mod streams;
mod survive;
mod teardown;
mod userns;
mod vanish;
