//! A driver and a differ in a directory of their own, with the verbs that the tests are written in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::content::{Content, Info, Ingest, Open, Status};
use model::diff::{Applied, Apply, Differ};
use model::snapshot::{Commit, Mount, Snapshotter};
use model::{Ctx, Cx, Filters};
use snapshot::{Limits, Native, Overlay, OverlayConfig, Walking};
use spec::{Digest, Error, Labels, Result};

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
    pub ctx: Ctx,
}

impl Stage {
    pub fn new(which: Which) -> Self {
        let dir = testkit::place::temp();
        Self { driver: open(which, &dir.path().join("driver")), dir, ctx: Ctx::background() }
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
        let differ = differ(self.dir.path()).with_limits(limits);
        let media_type = spec::media::LAYER_GZIP;
        let mut layer = layer;
        self.cx(|cx| differ.apply_stream(cx, media_type, &mut layer, mounts, &Apply::default()))
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

    /// Runs `work` where `mounts` are visible.
    pub fn look<T>(&self, mounts: &[Mount], work: impl FnOnce(&Path) -> T) -> T {
        let target = tempfile::tempdir_in(self.dir.path()).unwrap();
        snapshot::mount::all(mounts, target.path()).unwrap();
        let done = work(target.path());
        snapshot::mount::unmount_all(target.path()).unwrap();
        done
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

pub fn differ(dir: &Path) -> Walking {
    Walking::new(Arc::new(NoContent)).with_temporary(dir.join("tmpmounts"))
}

/// The directory that a bind mount shows, or an overlay writes.
pub fn upper(mounts: &[Mount]) -> PathBuf {
    let option = mounts[0].options.iter().find_map(|option| option.strip_prefix("upperdir="));
    PathBuf::from(option.unwrap_or(&mounts[0].source))
}

/// A store without content: the tests here stream their layers.
struct NoContent;

impl Content for NoContent {
    fn info(&self, _: &Cx<'_>, digest: &Digest) -> Result<Info> {
        Err(Error::not_found(digest))
    }
    fn update(&self, _: &Cx<'_>, digest: &Digest, _: &Labels, _: &model::mask::Mask) -> Result<Info> {
        Err(Error::not_found(digest))
    }
    fn list(&self, _: &Cx<'_>, _: &Filters) -> Result<Vec<Info>> {
        Ok(Vec::new())
    }
    fn delete(&self, _: &Cx<'_>, digest: &Digest) -> Result<()> {
        Err(Error::not_found(digest))
    }
    fn open(&self, _: &Cx<'_>, digest: &Digest) -> Result<Box<dyn model::content::Blob>> {
        Err(Error::not_found(digest))
    }
    fn ingest(&self, _: &Cx<'_>, open: &Open) -> Result<Box<dyn Ingest>> {
        Err(Error::not_found(&open.reference))
    }
    fn status(&self, _: &Cx<'_>, reference: &str) -> Result<Status> {
        Err(Error::not_found(reference))
    }
    fn statuses(&self, _: &Cx<'_>, _: &Filters) -> Result<Vec<Status>> {
        Ok(Vec::new())
    }
    fn abort(&self, _: &Cx<'_>, reference: &str) -> Result<()> {
        Err(Error::not_found(reference))
    }
}
