//! Pods: run, stop, remove and look at them.

mod files;
mod handler;
mod list;
mod network;
pub mod record;
mod remove;
mod run;
mod shim;
mod status;
mod stop;
mod update;

pub use network::Networks;
pub(crate) use network::restore as restore_network;
pub(crate) use run::end_task;
