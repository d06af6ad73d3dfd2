//! What containerd keeps: records, blobs, and what keeps them.
//!
//! ```text
//! <root>/
//!   io.containerd.metadata.v1.bolt/meta.redb                 every record (format: `record`, keys: `table`)
//!   io.containerd.metadata.v1.bolt/meta.{copy,journal.*}     the second copy of the records (`db::journal`)
//!   io.containerd.metadata.v1.bolt/kept.json                 what was there before the records ([`kept`])
//!   io.containerd.content.v1.content/
//!     blobs/<algorithm>/<hex>                                bytes of a blob, 0444
//!     ingest/<sha256 of backend ref>/{ref,data,total,...}    bytes on their way
//!     trash/                                                 dead files on their way out
//! ```
//!
//! A `meta.db` of Go's containerd beside `meta.redb` is left as it is, and so are the blobs and snapshots of its node.
//!
//! Every verb is one transaction, durable when it returns; writers that come together share one flush ([`db`]). Events
//! are published behind the commit, so nobody hears of what a crash could take back.
//!
//! Invariant: a blob's record exists only while its bytes do: bytes are flushed and in place before the record is
//! written, and a file goes only after every record of it.
//! Invariant: what is made under a lease is held by it in the same transaction that makes it.
//! Invariant: no file of content or of a snapshot is read, written or removed inside a transaction.

mod check;
mod container;
mod content;
mod core;
pub mod db;
pub mod gc;
mod hold;
mod image;
mod kept;
mod lease;
mod namespace;
mod number;
mod record;
pub mod recover;
mod sandbox;
mod snapshot;
mod table;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use model::container::Containers;
use model::content::Content;
use model::event::Exchange;
use model::image::Images;
use model::lease::Leases;
use model::namespace::Namespaces;
use model::sandbox::Sandboxes;
use model::snapshot::Snapshotter;
use model::{Ctx, Cx, Result};
use spec::{Error, HasKind, Kind};

pub use check::Problem;
pub use container::ContainerError;
pub use content::{ContentError, FileError};
pub use image::ImageError;
pub use lease::LeaseError;
pub use namespace::NamespaceError;
pub use sandbox::SandboxError;
pub use snapshot::SnapshotError;

use crate::core::Core;
use crate::db::DbError;

/// Whether a namespace may have a blob of another without sending its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// Who knows a digest may have the blob.
    #[default]
    Shared,
    /// Only blobs of namespaces labelled `containerd.io/namespace.shareable=true` are shared.
    Isolated,
}

/// How to open a store.
#[derive(Clone)]
pub struct Config {
    /// The daemon's root directory.
    pub root: PathBuf,
    /// Whether namespaces share blobs.
    pub sharing: Sharing,
    /// The snapshot drivers by name.
    pub snapshotters: BTreeMap<String, Arc<dyn Snapshotter>>,
    /// Where to publish what changes.
    pub events: Exchange,
}

/// The open store. Dropping it ends its garbage collection; transactions that run end whole.
pub struct Store {
    core: Arc<Core>,
    content: Arc<content::Contents>,
    snapshotters: BTreeMap<String, Arc<snapshot::Snapshots>>,
    collector: gc::Collector,
}

/// No driver has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("snapshotter not loaded: {0}: invalid argument")]
pub struct NoSnapshotter(pub String);

impl HasKind for NoSnapshotter {
    fn kind(&self) -> Kind {
        Kind::InvalidArgument
    }
}

impl Store {
    /// Opens the store below `config.root`, making what is missing.
    ///
    /// # Errors
    /// `FailedPrecondition` while another daemon has it; `DataLoss`, naming the file, when the database is damaged and has
    /// no second copy.
    pub fn open(config: Config) -> Result<Arc<Self>> {
        let core = Arc::new(Core::open(&config.root, config.events, &config.snapshotters)?);
        let content = Arc::new(content::Contents::open(Arc::clone(&core), &config.root, config.sharing)?);
        let mut snapshotters = BTreeMap::new();
        for (name, driver) in config.snapshotters {
            let view = snapshot::Snapshots::new(Arc::clone(&core), name.clone(), driver);
            Ctx::background().on_this_thread(|cx| view.recover(cx))?;
            snapshotters.insert(name, Arc::new(view));
        }
        let collector = gc::Collector::new(Arc::clone(&core), Arc::clone(&content), snapshotters.clone());
        Ok(Arc::new(Self { core, content, snapshotters, collector }))
    }

    /// Blobs and ingests.
    pub fn content(&self) -> Arc<dyn Content> {
        Arc::<content::Contents>::clone(&self.content)
    }

    /// Images.
    pub fn images(&self) -> Arc<dyn Images> {
        Arc::new(image::ImageStore::new(Arc::clone(&self.core)))
    }

    /// Containers.
    pub fn containers(&self) -> Arc<dyn Containers> {
        Arc::new(container::ContainerStore::new(Arc::clone(&self.core)))
    }

    /// Sandboxes.
    pub fn sandboxes(&self) -> Arc<dyn Sandboxes> {
        Arc::new(sandbox::SandboxStore::new(Arc::clone(&self.core)))
    }

    /// Leases.
    pub fn leases(&self) -> Arc<dyn Leases> {
        Arc::new(lease::LeaseStore::new(Arc::clone(&self.core)))
    }

    /// Namespaces.
    pub fn namespaces(&self) -> Arc<dyn Namespaces> {
        Arc::new(namespace::NamespaceStore::new(Arc::clone(&self.core)))
    }

    /// The namespaced view of the driver `name`.
    ///
    /// # Errors
    /// `InvalidArgument` when there is no such driver.
    pub fn snapshotter(&self, name: &str) -> Result<Arc<dyn Snapshotter>> {
        match self.snapshotters.get(name) {
            Some(view) => Ok(Arc::<snapshot::Snapshots>::clone(view)),
            None => Err(Error::from(NoSnapshotter(name.to_owned()))),
        }
    }

    /// The names of the drivers.
    pub fn snapshotter_names(&self) -> impl Iterator<Item = &str> {
        self.snapshotters.keys().map(String::as_str)
    }

    /// Collects garbage now, on this thread.
    ///
    /// # Errors
    /// The database fails. Files that resist are logged and left for the next run.
    pub fn collect(&self) -> Result<gc::Stats> {
        self.collector.collect()
    }

    /// Starts to collect garbage in the background; a second call changes nothing.
    ///
    /// # Errors
    /// The thread does not start.
    pub fn start_gc(&self, config: gc::Config) -> Result<()> {
        self.collector.start(config)
    }

    /// Asks for a collection and waits for it, as a `sync` deletion does; collects here when none runs in the background.
    ///
    /// # Errors
    /// The collection failed, or the request was given up first.
    pub fn wait_for_gc(&self, cx: &Cx<'_>) -> Result<gc::Stats> {
        self.collector.wait(cx)
    }

    /// What is on the disk from before the records were and no collection touches, in one sentence; usually nothing.
    pub fn kept(&self) -> Option<String> {
        self.core.kept.summary(&self.core.directory)
    }

    /// That a damaged or lost database was made again from its second copy by this start, in one sentence.
    pub fn restored(&self) -> Option<String> {
        self.core.restored.clone()
    }

    /// Whether what has no record may be in use all the same: records were lost, and not all of them were made again.
    pub fn lacks_records(&self) -> bool {
        let kept = &self.core.kept;
        kept.lost.is_some() || self.core.restored.is_some() || !kept.snapshots.is_empty()
    }

    /// How the records were lost that nothing has made again yet; `None` when there are records.
    pub fn lost(&self) -> Option<String> {
        self.core.kept.lost.clone()
    }

    /// The driver's keys of recorded snapshots that the driver `name` has lost; all of its recorded ones when there is no
    /// such driver.
    ///
    /// # Errors
    /// The database or the driver cannot be read.
    pub fn lost_snapshots(&self, cx: &Cx<'_>, name: &str) -> Result<Vec<String>> {
        match self.snapshotters.get(name) {
            Some(view) => view.lost(cx),
            None => Ok(self.core.read::<_, DbError>(|rows| snapshot::driver_keys(rows, name))?),
        }
    }

    /// Looks for records whose bytes or snapshots are gone, and for bytes that no record names. Changes nothing.
    ///
    /// # Errors
    /// The database or a directory cannot be read.
    pub fn check(&self) -> Result<Vec<Problem>> {
        check::check(&self.core, &self.content, &self.snapshotters)
    }
}

impl model::gc::Collector for Store {
    fn collect(&self, cx: &model::Cx<'_>) -> Result<()> {
        self.wait_for_gc(cx).map(drop)
    }
}
