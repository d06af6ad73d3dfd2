//! OCI and containerd words: what every layer speaks and none of them owns.
//!
//! Values that are parsed once at the edge and cannot be wrong afterwards, and the serde forms of the OCI documents.
//! This crate does no I/O.

pub mod error;
pub mod runtime;

pub use error::{Error, HasKind, Kind, Result};
