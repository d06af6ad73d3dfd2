//! Label keys that containerd gives a meaning, and the bound on every label.

use std::collections::BTreeMap;

use crate::Error;

/// Labels of a record.
pub type Labels = BTreeMap<String, String>;

/// The longest key and value together, in bytes.
pub const MAX_LABEL: usize = 4096;

/// Prefix of every garbage collection label.
pub const GC_PREFIX: &str = "containerd.io/gc.";
/// Keeps content or a snapshot for ever.
pub const GC_ROOT: &str = "containerd.io/gc.root";
/// Content kept by this record; may be followed by `.x` or `/x`.
pub const GC_REF_CONTENT: &str = "containerd.io/gc.ref.content";
/// Snapshot kept by this record; followed by `.<snapshotter>` and perhaps `/x`.
pub const GC_REF_SNAPSHOT: &str = "containerd.io/gc.ref.snapshot.";
/// Image kept by this record; may be followed by `.x` or `/x`.
pub const GC_REF_IMAGE: &str = "containerd.io/gc.ref.image";
/// RFC 3339 time after which a lease or an image is no root any more.
pub const GC_EXPIRE: &str = "containerd.io/gc.expire";
/// A lease whose resources keep nothing but themselves.
pub const GC_FLAT: &str = "containerd.io/gc.flat";
/// Diff id of a compressed layer, on its blob.
pub const UNCOMPRESSED: &str = "containerd.io/uncompressed";
/// Prefix: repositories of a host that hold the blob.
pub const DISTRIBUTION_SOURCE: &str = "containerd.io/distribution.source.";
/// The snapshot that a remote snapshotter is asked for.
pub const SNAPSHOT_REF: &str = "containerd.io/snapshot.ref";
/// Default snapshotter of a namespace.
pub const DEFAULT_SNAPSHOTTER: &str = "containerd.io/defaults/snapshotter";
/// Default runtime of a namespace.
pub const DEFAULT_RUNTIME: &str = "containerd.io/defaults/runtime";
/// Signal that `ctr task kill` sends when it is given none.
pub const STOP_SIGNAL: &str = "io.containerd.image.config.stop-signal";

/// Checks the bound on one label.
///
/// # Errors
/// Key and value together exceed [`MAX_LABEL`].
pub fn check(key: &str, value: &str) -> Result<(), Error> {
    let total = key.len() + value.len();
    if total <= MAX_LABEL {
        return Ok(());
    }
    let head: String = key.chars().take(64).collect();
    Err(Error::invalid(format!(
        "label key and value length ({total} bytes) greater than maximum size ({MAX_LABEL} bytes), key: {head}"
    )))
}

/// Checks the bound on every label.
///
/// # Errors
/// As [`check`], for the first label that fails.
pub fn check_all(labels: &Labels) -> Result<(), Error> {
    labels.iter().try_for_each(|(key, value)| check(key, value))
}
