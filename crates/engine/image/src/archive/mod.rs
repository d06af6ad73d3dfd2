//! Images as tar archives: OCI layouts and what `docker save` writes, in; an OCI layout that `docker load` reads too, out.
//!
//! ```text
//! oci-layout                    {"imageLayoutVersion":"1.0.0"}
//! index.json                    the images, each named by an annotation
//! manifest.json                 the same for Docker
//! blobs/<algorithm>/<hex>       everything else
//! ```
//!
//! Invariant: a name inside an archive is never a path on this machine: it is compared, hashed or parsed, nothing else.

mod docker;
pub mod export;
pub mod import;
mod tar;

pub use tar::TarError;

/// How many archives are on their way at once: each keeps a thread at the pace of its client, which may be none.
static ROOM: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(16);

/// The file that marks an OCI layout.
const LAYOUT: &str = "oci-layout";
/// The top of an OCI layout.
const INDEX: &str = "index.json";
/// The top of Docker's layout.
const DOCKER: &str = "manifest.json";
/// The only version of OCI's layout.
const VERSION: &str = "1.0.0";
