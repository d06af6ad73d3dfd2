//! Pods: run, stop, remove and look at them.

mod bandwidth;
mod check;
pub(crate) mod draft;
mod files;
mod handler;
mod list;
mod network;
pub mod record;
mod remove;
mod request;
mod run;
mod shim;
mod status;
mod stop;
mod update;

pub use check::NetworkFault;
pub(crate) use network::restore as restore_network;
pub use network::{Networks, OwnNetworks};
pub(crate) use request::check_namespaces;
pub(crate) use run::end_task;
