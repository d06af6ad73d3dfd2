//! End to end: our programs as a person or another program uses them, against real registries and Go's own clients.
//!
//! Each case has a daemon with directories and a namespace of its own. [`verbatim`] alone uses containerd's usual
//! names, because it types what people's own notes show.
#![allow(clippy::unwrap_used, reason = "a step that fails ends its case")]

mod api;
mod bad_registry;
mod config;
mod debian_image;
mod disk;
mod go_clients;
mod harness;
mod hostile_layers;
mod leaks;
mod lost;
mod proxies;
mod pull;
mod run;
mod runtimes;
mod shims;
mod stage;
mod survive;
mod systemd;
mod transfers;
mod verbatim;
