//! A store in a directory of its own, and what every test does with one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::content::{Commit, Content, Open};
use model::event::Exchange;
use model::image::Image;
use model::snapshot::Snapshotter;
use model::{Ctx, Cx, Result};
use snapshot::Native;
use spec::{Descriptor, Digest, Kind, Labels};
use store::{Config, Sharing, Store};

/// A directory with a store in it.
pub struct Bed {
    pub store: Arc<Store>,
    pub events: Exchange,
    pub dir: tempfile::TempDir,
    sharing: Sharing,
}

/// Opens the store at `root` with one real driver, `native`.
pub fn open(root: &Path, sharing: Sharing, events: &Exchange) -> Result<Arc<Store>> {
    let native: Arc<dyn Snapshotter> =
        Arc::new(Native::open(&root.join("io.containerd.snapshotter.v1.native"))?);
    Store::open(Config {
        root: root.to_owned(),
        sharing,
        snapshotters: BTreeMap::from([("native".to_owned(), native)]),
        events: events.clone(),
    })
}

impl Bed {
    pub fn new() -> Self {
        Self::with(Sharing::Shared)
    }

    pub fn with(sharing: Sharing) -> Self {
        let dir = testkit::place::temp();
        let events = Exchange::default();
        let store = open(dir.path(), sharing, &events).unwrap();
        Self { store, events, dir, sharing }
    }

    /// Closes the store and opens it again, as after a restart of the daemon.
    #[must_use]
    pub fn reopened(self) -> Self {
        let Self { store, events, dir, sharing } = self;
        drop(store);
        let store = open(dir.path(), sharing, &events).unwrap();
        Self { store, events, dir, sharing }
    }

    pub fn content_root(&self) -> PathBuf {
        self.dir.path().join("io.containerd.content.v1.content")
    }

    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.content_root().join("blobs").join(digest.algorithm().as_str()).join(digest.hex())
    }

    /// Nothing is recorded that is not there.
    #[track_caller]
    pub fn assert_whole(&self) {
        let problems = self.store.check().unwrap();
        let lost: Vec<_> = problems.iter().filter(|problem| problem.is_loss()).collect();
        assert!(lost.is_empty(), "{lost:?}");
    }
}

/// A context in the namespace `name`.
pub fn ctx(name: &str) -> Ctx {
    Ctx::in_namespace(name.parse().unwrap())
}

/// Runs `work` in the namespace `name`.
pub fn within<T>(name: &str, work: impl FnOnce(&Cx<'_>) -> T) -> T {
    ctx(name).on_this_thread(work)
}

/// Runs `work` in the namespace `name` under the lease `lease`.
pub fn leased<T>(name: &str, lease: &str, work: impl FnOnce(&Cx<'_>) -> T) -> T {
    ctx(name).with_lease(lease.parse().unwrap()).on_this_thread(work)
}

pub fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// The digest of `bytes`.
pub fn sha256(bytes: &[u8]) -> Digest {
    let hash = ring::digest::digest(&ring::digest::SHA256, bytes);
    Digest::from_bytes(spec::digest::Algorithm::Sha256, hash.as_ref()).unwrap()
}

/// Makes a blob of `bytes`.
pub fn put(content: &dyn Content, cx: &Cx<'_>, bytes: &[u8], labels: &Labels) -> Result<Digest> {
    let expected = Some(sha256(bytes));
    let open = Open { reference: format!("put-{}", sha256(bytes)), ..Open::default() };
    let mut ingest = content.ingest(cx, &open)?;
    if ingest.status().offset > 0 {
        ingest.truncate(0)?;
    }
    ingest.write(bytes)?;
    ingest.commit(cx, &Commit { size: Some(bytes.len() as u64), expected, labels: labels.clone() })
}

/// An image that names `target`.
pub fn image(name: &str, target: &Digest) -> Image {
    Image {
        name: name.to_owned(),
        labels: Labels::new(),
        target: Descriptor::new("application/vnd.oci.image.manifest.v1+json", target.clone(), 1),
        created_at: std::time::UNIX_EPOCH,
        updated_at: std::time::UNIX_EPOCH,
    }
}

/// The refusal is of `kind`, in these words.
#[track_caller]
pub fn refused<T>(result: Result<T>, kind: Kind, text: &str) {
    let Err(error) = result else { panic!("not refused: {text}") };
    assert_eq!((error.kind(), error.text()), (kind, text));
}
