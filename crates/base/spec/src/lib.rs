//! OCI and containerd words: what every layer speaks and none of them owns.
//!
//! Values that are parsed once at the edge and cannot be wrong afterwards, and the serde forms of the OCI documents.
//! This crate does no I/O.

pub mod digest;
pub mod error;
pub mod image;
pub mod json;
pub mod label;
pub mod name;
pub mod platform;
pub mod reference;
pub mod regexp;
pub mod runtime;
pub mod time;
pub mod version;

pub use digest::{Algorithm, Digest};
pub use error::{Error, HasKind, Kind, Result};
pub use image::{Descriptor, ImageConfig, Index, Manifest, media};
pub use label::Labels;
pub use name::{ContainerId, ExecId, LeaseId, Namespace};
pub use platform::Platform;
pub use reference::Reference;
