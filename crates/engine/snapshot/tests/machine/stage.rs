//! A driver and a differ in a directory of their own, with the verbs that the tests are written in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::content::{BlobReader, Content};
use model::diff::{Applied, Apply, Compare, Differ};
use model::event::Exchange;
use model::snapshot::{Commit, Mount, Snapshotter};
use model::{Ctx, Cx};
use snapshot::{Limits, Native, Overlay, OverlayConfig, Walking};
use spec::{Descriptor, Labels, Result};
use store::{Config, Sharing, Store};

use crate::tree::{self, Times};

/// Which driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Overlay,
    Native,
}

pub struct Stage {
    pub dir: tempfile::TempDir,
    pub driver: Arc<dyn Snapshotter>,
    pub store: Arc<Store>,
    pub ctx: Ctx,
}

impl Stage {
    pub fn new(which: Which) -> Self {
        let dir = testkit::place::temp();
        let ctx = Ctx::in_namespace("test".parse().unwrap());
        Self { driver: open(which, &dir.path().join("driver")), store: store(dir.path()), ctx, dir }
    }

    pub fn cx<T>(&self, work: impl FnOnce(&Cx<'_>) -> T) -> T {
        self.ctx.on_this_thread(work)
    }

    pub fn prepare(&self, key: &str, parent: &str) -> Result<Vec<Mount>> {
        self.cx(|cx| self.driver.prepare(cx, key, parent, &Labels::new()))
    }

    pub fn commit(&self, name: &str, key: &str) -> Result<()> {
        self.cx(|cx| self.driver.commit(cx, name, key, &Commit::default()))
    }

    pub fn rebase(&self, name: &str, key: &str, parent: &str) -> Result<()> {
        let parent = (!parent.is_empty()).then(|| parent.to_owned());
        self.cx(|cx| self.driver.commit(cx, name, key, &Commit { parent, ..Commit::default() }))
    }

    pub fn remove(&self, key: &str) -> Result<()> {
        self.cx(|cx| self.driver.remove(cx, key))
    }

    pub fn apply(&self, mounts: &[Mount], layer: &[u8]) -> Result<Applied> {
        self.apply_within(mounts, layer, Limits::default())
    }

    pub fn apply_within(&self, mounts: &[Mount], layer: &[u8], limits: Limits) -> Result<Applied> {
        let differ = self.differ().with_limits(limits);
        let media_type = spec::media::LAYER_GZIP;
        let mut layer = layer;
        self.cx(|cx| differ.apply_stream(cx, media_type, &mut layer, mounts, &Apply::default()))
    }

    pub fn differ(&self) -> Walking {
        differ(self.dir.path(), self.store.content())
    }

    /// Makes the layer that leads from `lower` to `upper`.
    pub fn compare(&self, lower: &[Mount], upper: &[Mount], compare: &Compare) -> Result<Descriptor> {
        let differ = self.differ();
        self.cx(|cx| differ.compare(cx, lower, upper, compare))
    }

    /// The bytes of a layer.
    pub fn read(&self, layer: &Descriptor) -> Vec<u8> {
        let mut bytes = Vec::new();
        let blob = self.cx(|cx| self.store.content().open(cx, &layer.digest)).unwrap();
        std::io::Read::read_to_end(&mut BlobReader::new(blob), &mut bytes).unwrap();
        bytes
    }

    /// Applies `layers` one on the other, each in a snapshot on the one before; the last one's name.
    pub fn sequentially(&self, layers: &[Vec<u8>]) -> String {
        let mut parent = String::new();
        for (number, layer) in layers.iter().enumerate() {
            let mounts = self.prepare("active", &parent).unwrap();
            self.apply(&mounts, layer).unwrap();
            parent = format!("sequential{number}");
            self.commit(&parent, "active").unwrap();
        }
        parent
    }

    /// Applies `layers` all at once, each into a snapshot on nothing, and commits them in order.
    pub fn at_once(&self, layers: &[Vec<u8>]) -> String {
        std::thread::scope(|scope| {
            for (number, layer) in layers.iter().enumerate() {
                scope.spawn(move || {
                    let mounts = self.prepare(&format!("part{number}"), "").unwrap();
                    self.apply(&mounts, layer).unwrap();
                });
            }
        });
        let mut parent = String::new();
        for number in 0..layers.len() {
            let name = format!("parallel{number}");
            self.rebase(&name, &format!("part{number}"), &parent).unwrap();
            parent = name;
        }
        parent
    }

    /// The tree of a committed snapshot, as a container would see it.
    pub fn describe(&self, name: &str, times: Times) -> BTreeMap<String, String> {
        let key = format!("view-{name}");
        let mounts = self.cx(|cx| self.driver.view(cx, &key, name, &Labels::new())).unwrap();
        let described = self.look(&mounts, |root| tree::describe(root, times));
        self.remove(&key).unwrap();
        described
    }

    /// Runs `work` where `mounts` are visible; they go even when it panics.
    pub fn look<T>(&self, mounts: &[Mount], work: impl FnOnce(&Path) -> T) -> T {
        let target = Mounted(tempfile::tempdir_in(self.dir.path()).unwrap());
        snapshot::mount::all(mounts, target.0.path()).unwrap();
        work(target.0.path())
    }
}

/// A mount point that is left as it was found.
struct Mounted(tempfile::TempDir);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = snapshot::mount::unmount_all(self.0.path());
    }
}

pub fn open(which: Which, root: &Path) -> Arc<dyn Snapshotter> {
    match which {
        Which::Native => Arc::new(Native::open(root).unwrap()),
        Which::Overlay => Arc::new(
            Overlay::open(OverlayConfig {
                root: root.to_owned(),
                sync_remove: true,
                ..OverlayConfig::default()
            })
            .unwrap(),
        ),
    }
}

pub fn differ(dir: &Path, content: Arc<dyn Content>) -> Walking {
    Walking::new(content).with_temporary(dir.join("tmpmounts"))
}

/// A store of nothing but content, in `dir`.
pub fn store(dir: &Path) -> Arc<Store> {
    let events = Exchange::default();
    let config =
        Config { root: dir.join("store"), sharing: Sharing::Shared, snapshotters: BTreeMap::new(), events };
    Store::open(config).unwrap()
}

/// The directory that a bind mount shows, or an overlay writes.
pub fn upper(mounts: &[Mount]) -> PathBuf {
    let option = mounts[0].options.iter().find_map(|option| option.strip_prefix("upperdir="));
    PathBuf::from(option.unwrap_or(&mounts[0].source))
}
