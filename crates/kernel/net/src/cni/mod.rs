//! The Container Network Interface, 0.1.0 to 1.1.0: its words, and the runtime's side of it.
//!
//! Who runs pods uses [`Network`]: it loads the configurations of a directory and attaches pods with their plugins, of
//! which ours run in this process.

mod cache;
mod call;
mod chain;
mod dispatch;
mod error;
mod exchange;
mod exec;
mod failure;
mod file;
mod inprocess;
mod json;
mod list;
mod network;
mod pod;
mod result;
mod setup;
pub mod template;
mod turns;
pub(crate) mod validate;
mod version;
pub mod watch;

pub use call::{Attachment, Call, Command, NetworkConfig, Plugin};
pub use chain::ChainError;
pub use dispatch::{Found, Plugins, delegate};
pub use error::{Error, code};
pub use failure::CallError;
pub use network::{LoadError, Network, NetworkError, Settings};
pub use pod::{Bandwidth, Pod, PodDns, PortMapping};
pub use result::{CniResult, Dns, Interface, IpConfig, IpNet, Route};
pub use setup::{InterfaceSetup, IpPreference, Setup};
pub use version::Version;
