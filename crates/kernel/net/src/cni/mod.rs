//! The Container Network Interface, 0.1.0 to 1.1.0: its words, and the runtime's side of it.

mod call;
mod error;
mod json;
mod result;
mod version;

pub use call::{Attachment, Call, Command, NetworkConfig, Plugin};
pub use error::{Error, code};
pub use result::{CniResult, Dns, Interface, IpConfig, IpNet, Route};
pub use version::Version;
