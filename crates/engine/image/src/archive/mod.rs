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

use std::time::Duration;

use spec::{Error, Kind, Result};
use tokio::sync::{Semaphore, SemaphorePermit};

pub use tar::TarError;

/// How many archives the whole daemon reads and writes at once. Their clients set the pace, and one that stops holds a
/// thread until its stream is given up; so many leave room in the lane for everything else that waits.
static ARCHIVES: Semaphore = Semaphore::const_new(16);
/// How long a further one waits for one of them to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until an archive may be read or written.
async fn room() -> Result<SemaphorePermit<'static>> {
    match tokio::time::timeout(PATIENCE, ARCHIVES.acquire()).await {
        Ok(permit) => permit.map_err(|_| Error::internal("archives are closed")),
        Err(_) => {
            Err(Error::new(Kind::Unavailable, "too many archives are on their way at once; try again later"))
        }
    }
}

/// The file that marks an OCI layout.
const LAYOUT: &str = "oci-layout";
/// The top of an OCI layout.
const INDEX: &str = "index.json";
/// The top of Docker's layout.
const DOCKER: &str = "manifest.json";
/// The only version of OCI's layout.
const VERSION: &str = "1.0.0";
