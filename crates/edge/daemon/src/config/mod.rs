//! The daemon's configuration: containerd's `config.toml`, every version of it.
//!
//! ```text
//! file ──read──► entries (table, key, value, line) ──migrate──► version 4 ──check──► values
//!                                                                             │
//! imported files, the same way ───────────────────────────────────────merge──┘
//! ```
//!
//! [`keys::KEYS`] is the one list of what there is: it checks files, gives defaults and prints `config default`.
//!
//! Invariant: a key that means nothing here is never an error, only a warning that names file, line and key; a value of
//! the wrong type always is one.

mod cri;
mod handler;
pub mod keys;
mod load;
mod migrate;
mod nri;
mod print;
mod proxy;
mod read;
mod settings;
mod value;

pub use load::{Loaded, defaults, load, migrated};
pub use print::print;
pub use read::ConfigError;
pub use settings::{Settings, absolute};
pub use value::{Value, Values};

/// The version of the files that this daemon writes.
pub const VERSION: i64 = 4;

/// Where the configuration is, unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/containerd/config.toml";
