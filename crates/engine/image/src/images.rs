//! Every layer of the images of a tree: fetched, and unpacked where somebody asked for it.

use std::sync::Arc;

use futures_util::future::{BoxFuture, try_join_all};
use model::diff::Apply;
use model::manifest;
use spec::{Digest, Platform, Result};
use tokio::sync::Semaphore;
use tracing::debug;

use crate::Unpack;
use crate::fetch::Fetch;
use crate::progress::Tracker;
use crate::unpack::{Layer, Layers, keep_snapshot};
use crate::walk::Leaf;

/// An image in the snapshots of one driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// What the image runs on.
    pub platform: Platform,
    /// The driver.
    pub snapshotter: String,
    /// The snapshot of its top layer; `None` for an image without layers.
    pub chain_id: Option<Digest>,
}

/// The layers of several images.
pub(crate) struct Images<'a> {
    pub fetch: &'a Fetch,
    pub tracker: &'a Arc<Tracker>,
    pub targets: &'a [Unpack],
    pub room: &'a Semaphore,
    pub apply: Apply,
}

impl Images<'_> {
    /// Fetches the layers of all `leaves`, unpacking those that fit a target best.
    pub async fn run(&self, leaves: &[Leaf]) -> Result<Vec<Unpacked>> {
        let work = leaves.iter().enumerate().map(|(at, leaf)| {
            let targets: Vec<&Unpack> =
                self.targets.iter().filter(|target| fitting(leaves, target) == Some(at)).collect();
            let work: BoxFuture<'_, Result<Vec<Unpacked>>> = Box::pin(self.image(leaf, targets));
            work
        });
        Ok(try_join_all(work).await?.into_iter().flatten().collect())
    }

    async fn image(&self, leaf: &Leaf, targets: Vec<&Unpack>) -> Result<Vec<Unpacked>> {
        let Some(image) = leaf.image.as_ref().filter(|_| !targets.is_empty()) else {
            debug!(manifest = %leaf.manifest.digest, "only fetching layers");
            return self.only_fetch(leaf).await.map(|()| Vec::new());
        };
        let diff_ids = manifest::diff_ids(image, leaf.layers.len())?;
        let layers: Vec<Layer> = leaf
            .layers
            .iter()
            .zip(diff_ids)
            .map(|(descriptor, diff_id)| Layer {
                descriptor: descriptor.clone(),
                diff_id: diff_id.clone(),
                node: self.tracker.node(descriptor, Some(&leaf.manifest)),
            })
            .collect();
        let mut unpacked = Vec::new();
        for target in targets {
            let layers = Layers {
                fetch: self.fetch,
                target,
                manifest: &leaf.manifest.digest,
                layers: &layers,
                room: self.room,
                apply: self.apply,
            };
            let chain_id = layers.run().await?;
            if let Some(chain_id) = &chain_id {
                keep_snapshot(self.fetch, &leaf.config, &target.snapshotter, chain_id).await?;
            }
            let platform = image.platform.clone().normalized();
            unpacked.push(Unpacked { platform, snapshotter: target.snapshotter.clone(), chain_id });
        }
        Ok(unpacked)
    }

    async fn only_fetch(&self, leaf: &Leaf) -> Result<()> {
        let fetches = leaf.layers.iter().map(|layer| {
            let node = self.tracker.node(layer, Some(&leaf.manifest));
            async move {
                let _room = self.room.acquire().await.map_err(|_| spec::Error::internal("closed"))?;
                self.fetch.blob(layer, &node).await
            }
        });
        try_join_all(fetches).await.map(|_| ())
    }
}

/// The place of the first image that runs best on a target's platform and has its layers at hand.
fn fitting(leaves: &[Leaf], target: &Unpack) -> Option<usize> {
    let ranked = leaves.iter().enumerate().filter_map(|(at, leaf)| {
        let image =
            leaf.image.as_ref().filter(|image| !leaf.layers.is_empty() || image.rootfs.diff_ids.is_empty());
        // "layers" is the only kind of root file system that OCI knows.
        let image = image.filter(|image| matches!(image.rootfs.kind.as_str(), "" | "layers"))?;
        Some((target.platform.rank(&image.platform)?, at))
    });
    ranked.min().map(|(_, at)| at)
}
