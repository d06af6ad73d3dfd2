//! A store with both drivers in a directory of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use image::progress::Event;
use image::pull::{Pull, Pulled};
use image::{Services, Unpack, pull, registry};
use model::event::Exchange;
use model::snapshot::Snapshotter;
use model::{Ctx, Cx};
use snapshot::{Native, Overlay, OverlayConfig, Walking};
use spec::{Digest, Platform, Result};
use store::{Config, Sharing, Store};
use tempfile::TempDir;

/// The stores, and a runtime to drive transfers on.
pub struct Place {
    pub store: Arc<Store>,
    pub services: Services,
    pub ctx: Ctx,
    pub dir: TempDir,
    runtime: tokio::runtime::Runtime,
}

impl Place {
    pub fn new() -> Self {
        Self::below(testkit::place::temp())
    }

    /// In memory, for trees of so many files that a disk would spend minutes on deleting them.
    pub fn in_memory() -> Self {
        Self::below(tempfile::Builder::new().prefix("bth").tempdir_in("/dev/shm").unwrap())
    }

    /// On a file system that is already there.
    pub fn on(disk: &Path) -> Self {
        Self::below(tempfile::tempdir_in(disk).unwrap())
    }

    fn below(dir: TempDir) -> Self {
        let at = |name: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(&path).unwrap();
            path
        };
        let overlay = OverlayConfig { root: at("overlay"), sync_remove: true, ..OverlayConfig::default() };
        let overlay: Arc<dyn Snapshotter> = Arc::new(Overlay::open(overlay).unwrap());
        let native: Arc<dyn Snapshotter> = Arc::new(Native::open(&at("native")).unwrap());
        let snapshotters = BTreeMap::from([("overlayfs".into(), overlay), ("native".into(), native)]);
        let config =
            Config { root: at("root"), sharing: Sharing::Shared, snapshotters, events: Exchange::default() };
        let store = Store::open(config).unwrap();
        let differ = Walking::new(store.content()).with_temporary(at("mounts"));
        let services = Services {
            content: store.content(),
            images: store.images(),
            leases: store.leases(),
            differ: Arc::new(differ),
        };
        let ctx = Ctx::in_namespace("test".parse().unwrap());
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Self { store, services, ctx, dir, runtime }
    }

    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    pub fn cx<T>(&self, work: impl FnOnce(&Cx<'_>) -> T) -> T {
        self.ctx.on_this_thread(work)
    }

    pub fn driver(&self, name: &str) -> Arc<dyn Snapshotter> {
        self.store.snapshotter(name).unwrap()
    }

    /// A pull of `reference` for this machine into `snapshotter`, with short deadlines.
    pub fn order(&self, reference: &str, snapshotter: &str) -> Pull {
        let unpack = Unpack {
            platform: Platform::host(),
            snapshotter: snapshotter.into(),
            driver: self.driver(snapshotter),
            told_of: None,
        };
        Pull {
            platforms: vec![Platform::host()],
            unpack: vec![unpack],
            registry: registry::Config {
                default_scheme: Some("http".into()),
                limits: limits(),
                ..registry::Config::default()
            },
            ..Pull::new(reference.parse().unwrap())
        }
    }

    pub fn run(&self, order: Pull) -> Result<Pulled> {
        self.block_on(pull::run(&self.ctx, &self.services, order, None))
    }

    pub fn pull(&self, reference: &str) -> Result<Pulled> {
        self.run(self.order(reference, "overlayfs"))
    }

    /// Pulls and keeps what is told.
    pub fn told(&self, order: Pull) -> (Result<Pulled>, Vec<Event>) {
        let events = Arc::new(Mutex::new(Vec::new()));
        let into = events.clone();
        let sink: image::progress::Sink = Arc::new(move |event| into.lock().unwrap().push(event));
        let done = self.block_on(pull::run(&self.ctx, &self.services, order, Some(sink)));
        let events = events.lock().unwrap().clone();
        (done, events)
    }

    /// Shows the tree that a chain makes visible to `look`.
    pub fn visit(&self, snapshotter: &str, chain_id: &Digest, look: impl FnOnce(&Path)) {
        let driver = self.driver(snapshotter);
        let key = testkit::place::unique("look-");
        let mounts = self.cx(|cx| driver.view(cx, &key, chain_id.as_str(), &BTreeMap::new())).unwrap();
        let target = self.dir.path().join(&key);
        fs::create_dir(&target).unwrap();
        snapshot::mount::all(&mounts, &target).unwrap();
        look(&target);
        snapshot::mount::unmount_all(&target).unwrap();
        self.cx(|cx| driver.remove(cx, &key)).unwrap();
    }

    /// The names of the tree that a chain makes visible, with the text of short files.
    pub fn tree(&self, snapshotter: &str, chain_id: &Digest) -> BTreeMap<String, String> {
        let mut tree = BTreeMap::new();
        self.visit(snapshotter, chain_id, |root| walk(root, root, &mut tree));
        tree
    }

    /// Every snapshot key of both drivers.
    pub fn snapshots(&self) -> BTreeSet<String> {
        ["overlayfs", "native"]
            .iter()
            .flat_map(|name| {
                let driver = self.driver(name);
                self.cx(|cx| driver.list(cx, &model::Filters::default())).unwrap()
            })
            .map(|info| info.name)
            .collect()
    }

    /// How many transfers still hold something, apart from content that waits for another try.
    pub fn leases(&self) -> usize {
        let all = self.cx(|cx| self.services.leases.list(cx, &model::Filters::default())).unwrap();
        all.iter().filter(|lease| !lease.id.starts_with("retry-")).count()
    }

    pub fn ingests(&self) -> Vec<(String, u64)> {
        let all = self.cx(|cx| self.services.content.statuses(cx, &model::Filters::default())).unwrap();
        all.into_iter().map(|status| (status.reference, status.offset)).collect()
    }

    /// Fails when a transfer has left a half-made snapshot or a lease.
    pub fn assert_clean(&self) {
        let left: Vec<_> = self.snapshots().into_iter().filter(|key| key.starts_with("extract-")).collect();
        assert!(left.is_empty(), "half-made snapshots: {left:?}");
        assert_eq!(self.leases(), 0, "leases");
    }
}

/// Deadlines short enough for a test of a silent peer, long enough for a busy machine.
pub fn limits() -> registry::Limits {
    registry::Limits {
        connect: Duration::from_secs(5),
        answer: Duration::from_secs(2),
        idle: Duration::from_secs(2),
        backoff: Duration::from_millis(5),
        longest_pause: Duration::from_millis(300),
        ..registry::Limits::default()
    }
}

fn walk(root: &Path, dir: &Path, tree: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            tree.insert(name + "/", String::new());
            walk(root, &path, tree);
        } else if metadata.is_file() {
            let text = if metadata.len() < 4096 {
                fs::read_to_string(&path).unwrap_or_default()
            } else {
                String::new()
            };
            tree.insert(name, text);
        } else {
            tree.insert(name, format!("{:?}", metadata.file_type()));
        }
    }
}
