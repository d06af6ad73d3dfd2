//! The shim as daemons drive it: the real binary, its socket, real containers.
#![allow(clippy::unwrap_used)]

mod bundle;
mod clients;
mod crowd;
mod events;
mod go_daemon;
mod life;
mod logs;
mod other_runtimes;
mod protection;
mod shim;
mod streams;
mod stuck;
