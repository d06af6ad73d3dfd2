//! The Container Network Interface, 0.1.0 to 1.1.0: its words, and the runtime's side of it.

mod call;
mod dispatch;
mod error;
mod exchange;
mod exec;
mod failure;
mod inprocess;
mod json;
mod result;
pub(crate) mod validate;
mod version;

pub use call::{Attachment, Call, Command, NetworkConfig, Plugin};
pub use dispatch::{Found, Plugins, delegate};
pub use error::{Error, code};
pub use failure::CallError;
pub use result::{CniResult, Dns, Interface, IpConfig, IpNet, Route};
pub use version::Version;
