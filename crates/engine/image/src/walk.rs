//! The tree of an image, top down: every document that the chosen platforms need, and the images at its leaves.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use model::manifest::{self, select};
use spec::{Descriptor, Error, ImageConfig, Platform, Result, media};
use tracing::info;

use crate::fetch::Fetch;
use crate::progress::Tracker;

/// How deep indexes may name indexes.
const MAX_DEPTH: usize = 8;
/// How many documents an image may have.
const MAX_DOCUMENTS: usize = 4096;
/// How long all documents of an image may be together, in bytes.
const MAX_TOTAL: u64 = 256 << 20;
/// How many documents are fetched at once.
const AT_ONCE: usize = 8;

/// Which part of a tree is wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// Of these platforms; all when empty.
    pub platforms: Vec<Platform>,
    /// Manifests and configs of the other platforms too, without their layers.
    pub all_metadata: bool,
    /// No layers at all.
    pub metadata_only: bool,
    /// At most so many manifests of one index; 0 for no bound.
    pub manifest_limit: usize,
    /// Whether parts of a tree may be missing in the store: they are left out.
    pub skip_missing: bool,
}

/// One image of the tree.
pub(crate) struct Leaf {
    pub manifest: Descriptor,
    pub config: Descriptor,
    /// What the config says; `None` for an artifact, which has another kind of config, and when only its metadata is
    /// wanted: an index may name thousands.
    pub image: Option<ImageConfig>,
    /// The layers; empty when only its metadata is wanted.
    pub layers: Vec<Descriptor>,
}

/// A document still to be read.
struct Pending {
    descriptor: Descriptor,
    parent: Option<Descriptor>,
    known: Option<Vec<u8>>,
    with_layers: bool,
}

/// What a document gave.
enum Read {
    Deeper(Vec<Pending>),
    Leaf(Box<Leaf>),
    Nothing,
}

/// Fails when the documents of the image `top` are too long together.
fn bounded(top: &Descriptor, total: u64) -> Result<()> {
    match total {
        0..=MAX_TOTAL => Ok(()),
        _ => Err(Error::invalid(format!("{}: more than {MAX_TOTAL} bytes of documents", top.digest))),
    }
}

/// Walks a tree.
pub(crate) struct Walk<'a> {
    pub fetch: &'a Fetch,
    pub tracker: &'a Arc<Tracker>,
    pub wanted: &'a Wanted,
}

impl Walk<'_> {
    /// Fetches the documents below `top`, whose bytes may be `known`; the images in it, in order.
    ///
    /// # Errors
    /// `NotFound` when an index has nothing for the platforms.
    pub async fn run(&self, top: &Descriptor, known: Option<Vec<u8>>) -> Result<Vec<Leaf>> {
        let mut seen = HashSet::from([top.digest.clone()]);
        let mut leaves = Vec::new();
        let with_layers = !self.wanted.metadata_only;
        let mut level = vec![Pending { descriptor: top.clone(), parent: None, known, with_layers }];
        let mut total: u64 = 0;
        for _ in 0..MAX_DEPTH {
            let documents = level
                .iter()
                .map(|next| &next.descriptor)
                .filter(|next| media::is_index(&next.media_type) || media::is_manifest(&next.media_type));
            total = documents.fold(total, |total, next| total.saturating_add(next.size));
            bounded(top, total)?;
            let mut below = Vec::new();
            let mut reads = stream::iter(level).map(|pending| self.read(pending)).buffered(AT_ONCE);
            while let Some(read) = reads.try_next().await? {
                match read {
                    Read::Nothing => {}
                    Read::Leaf(leaf) => {
                        total = total.saturating_add(leaf.config.size);
                        leaves.push(*leaf);
                    }
                    Read::Deeper(entries) => below.extend(
                        entries.into_iter().filter(|next| seen.insert(next.descriptor.digest.clone())),
                    ),
                }
                bounded(top, total)?;
            }
            drop(reads);
            level = below;
            if seen.len() > MAX_DOCUMENTS {
                return Err(Error::invalid(format!("{}: more than {MAX_DOCUMENTS} documents", top.digest)));
            }
            if level.is_empty() {
                return Ok(leaves);
            }
        }
        Err(Error::invalid(format!("{}: indexes nested more than {MAX_DEPTH} deep", top.digest)))
    }

    async fn read(&self, pending: Pending) -> Result<Read> {
        let Pending { descriptor, parent, known, with_layers } = pending;
        if self.wanted.skip_missing && parent.is_some() && !self.fetch.has(&descriptor).await? {
            info!(digest = %descriptor.digest, "missing: left out");
            return Ok(Read::Nothing);
        }
        let node = self.tracker.node(&descriptor, parent.as_ref());
        let kind = descriptor.media_type.as_str();
        if !media::is_index(kind) && !media::is_manifest(kind) && kind != media::DOCKER_MANIFEST_V1 {
            self.fetch.blob(&descriptor, &node).await?;
            return Ok(Read::Nothing);
        }
        let document = self.fetch.document(&descriptor, &node, known).await?;
        if media::is_index(kind) {
            let children = document.children;
            return self.below(&descriptor, children, with_layers).map(Read::Deeper);
        }
        self.leaf(descriptor, &document.bytes, with_layers).await.map(|leaf| Read::Leaf(Box::new(leaf)))
    }

    /// The entries of an index that are wanted.
    fn below(
        &self,
        index: &Descriptor,
        children: Vec<Descriptor>,
        with_layers: bool,
    ) -> Result<Vec<Pending>> {
        let mut chosen = select(&children, &self.wanted.platforms);
        if chosen.is_empty() && !children.is_empty() && !self.wanted.skip_missing {
            return Err(Error::not_found("no match for platform in manifest"));
        }
        if self.wanted.manifest_limit > 0 {
            chosen.truncate(self.wanted.manifest_limit);
        }
        let digests: HashSet<_> = chosen.iter().map(|child| child.digest.clone()).collect();
        let entries = if self.wanted.all_metadata { children } else { chosen };
        let pending = |descriptor: Descriptor| Pending {
            with_layers: with_layers && digests.contains(&descriptor.digest),
            parent: Some(index.clone()),
            known: None,
            descriptor,
        };
        Ok(entries.into_iter().map(pending).collect())
    }

    async fn leaf(&self, descriptor: Descriptor, bytes: &[u8], with_layers: bool) -> Result<Leaf> {
        let manifest = manifest::manifest(&descriptor, bytes)?;
        let node = self.tracker.node(&manifest.config, Some(&descriptor));
        let image = if media::is_config(&manifest.config.media_type) {
            let document = self.fetch.document(&manifest.config, &node, None).await?;
            let image = manifest::config(&manifest.config, &document.bytes)?;
            with_layers.then_some(image)
        } else {
            self.fetch.blob(&manifest.config, &node).await?;
            None
        };
        let mut layers = if with_layers { manifest.layers } else { Vec::new() };
        if self.wanted.skip_missing {
            for at in 0..layers.len() {
                if !self.fetch.has(&layers[at]).await? {
                    info!(digest = %layers[at].digest, "missing: its image is not unpacked");
                    layers.clear();
                    break;
                }
            }
        }
        Ok(Leaf { manifest: descriptor, config: manifest.config, image, layers })
    }
}
