//! The actions by which a daemon starts a shim, asks what it can do, and cleans up after one that died.
//!
//! ```text
//! bundle/            working directory of every action
//!   address          socket of the shim that serves this bundle
//!   shim.pid         process id of the shim
//!   s -> SOCKET_DIR  where the sockets are, when the daemon named a directory
//! ```

mod delete;
mod group;
mod info;
mod params;
mod socket;
mod start;

pub use delete::delete;
pub use info::{info, version};
pub use params::{IN_PLACE, Params, Reply, STAY, Serves};
pub use socket::{address, path_of};
pub use start::{LIBRARY_PATH, Started, clean_library_path, start};

/// The version of this program, as `-v` and `-info` say it.
pub const VERSION: &str = spec::version::VERSION;
