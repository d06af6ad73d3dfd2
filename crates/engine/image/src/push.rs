//! An image of the store to a registry: blobs first, then manifests, bottom up, and last the tag.
//!
//! Invariant: a manifest is sent only when the registry has everything that it names.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use model::content::read_blob;
use model::manifest::{self, MAX_DOCUMENT, select};
use model::{Ctx, Lane};
use spec::{Descriptor, Error, Kind, Platform, Reference, Result, media};
use tracing::debug;

use crate::Services;
use crate::labels::Source;
use crate::progress::{Sink, Tracker};
use crate::registry::{self, Outcome, Registry};
use crate::transfer::{self, Scope};

/// How deep indexes may name indexes.
const MAX_DEPTH: usize = 8;

/// A push to be done.
#[derive(Clone)]
pub struct Push {
    /// Where to.
    pub reference: Reference,
    /// What: an index or a manifest.
    pub target: Descriptor,
    /// The platforms to send, of an index with several; all that the store has when empty.
    pub platforms: Vec<Platform>,
    /// Whether to send layers that may not be distributed.
    pub non_distributable: bool,
    /// How to reach the registry.
    pub registry: registry::Config,
}

/// Pushes.
///
/// # Errors
/// `NotFound` when the store lacks part of the image; otherwise what the registry or the network said.
pub async fn run(ctx: &Ctx, services: &Services, push: Push, sink: Option<Sink>) -> Result<()> {
    transfer::run(ctx, services, None, move |scope| async move {
        let tracker = Tracker::new(sink, &push.reference.to_string(), "uploading");
        let ticking = tracker.clone();
        let outcome = tokio::select! {
            outcome = steps(scope, &push, &tracker) => outcome,
            // Never ends; it only lives as long as the steps.
            () = ticking.tick() => Err(Error::internal("progress ended")),
        };
        tracker.flush();
        outcome?;
        tracker.say(format!("Completed push to OCI Registry ({})", push.reference));
        Ok(())
    })
    .await
}

async fn steps(scope: Arc<Scope>, push: &Push, tracker: &Arc<Tracker>) -> Result<()> {
    tracker.say(format!("Pushing to OCI Registry ({})", push.reference));
    tracker.say("pushing content");
    let registry = Registry::open(&scope.ctx, &push.reference, &push.registry).await?;
    let plan = plan(&scope, push).await?;
    let sender = Sender { scope: &scope, registry: &registry, tracker };
    let blobs: Vec<_> = plan.blobs.iter().map(|(blob, parent)| sender.blob(blob, parent)).collect();
    let at_once = push.registry.limits.concurrent.max(1);
    stream::iter(blobs).buffer_unordered(at_once).try_collect::<Vec<()>>().await?;
    for (document, bytes) in &plan.documents {
        let tag = (document.digest == push.target.digest).then(|| push.reference.tag()).flatten();
        sender.document(document, bytes, tag).await?;
    }
    Ok(())
}

/// What is to be sent.
#[derive(Default)]
struct Plan {
    /// Configs and layers with the manifest that names them.
    blobs: Vec<(Descriptor, Descriptor)>,
    /// Manifests and indexes with their bytes, children before parents.
    documents: Vec<(Descriptor, Vec<u8>)>,
}

/// Reads the tree of the image, top down, and turns it round.
async fn plan(scope: &Arc<Scope>, push: &Push) -> Result<Plan> {
    let (content, push) = (scope.services.content.clone(), push.clone());
    scope
        .blocking(Lane::Disk, move |cx| {
            let mut plan = Plan::default();
            let mut seen = HashSet::from([push.target.digest.clone()]);
            let mut level = vec![push.target.clone()];
            for _ in 0..MAX_DEPTH {
                let mut below = Vec::new();
                for document in std::mem::take(&mut level) {
                    let bytes = match read_blob(&*content, cx, &document.digest, MAX_DOCUMENT) {
                        Ok(bytes) => bytes,
                        // A pull of one platform leaves an index whose other manifests were never fetched.
                        Err(error)
                            if error.kind() == Kind::NotFound && document.digest != push.target.digest =>
                        {
                            debug!(digest = %document.digest, "not in the store: not pushed");
                            continue;
                        }
                        Err(error) => return Err(error),
                    };
                    let children = manifest::children(&document, &bytes)?;
                    let chosen = if media::is_index(&document.media_type) {
                        select(&children, &push.platforms)
                    } else {
                        children
                    };
                    for child in chosen {
                        let kind = &child.media_type;
                        let skipped = media::is_non_distributable(kind) && !push.non_distributable;
                        if skipped || !seen.insert(child.digest.clone()) {
                            continue;
                        }
                        if media::is_index(kind) || media::is_manifest(kind) {
                            below.push(child);
                        } else {
                            plan.blobs.push((child, document.clone()));
                        }
                    }
                    plan.documents.push((document, bytes));
                }
                if below.is_empty() {
                    plan.documents.reverse();
                    return Ok(plan);
                }
                level = below;
            }
            Err(Error::invalid(format!("{}: indexes nested more than {MAX_DEPTH} deep", push.target.digest)))
        })
        .await
}

/// Sends single pieces.
struct Sender<'a> {
    scope: &'a Arc<Scope>,
    registry: &'a Registry,
    tracker: &'a Arc<Tracker>,
}

impl Sender<'_> {
    async fn blob(&self, blob: &Descriptor, parent: &Descriptor) -> Result<()> {
        let node = self.tracker.node(blob, Some(parent));
        let (content, digest) = (self.scope.services.content.clone(), blob.digest.clone());
        let labels = self.scope.blocking(Lane::Disk, move |cx| content.info(cx, &digest)).await?.labels;
        let sources = Source::repositories(&labels, self.registry.reference().host());
        let counted = node.clone();
        let count = Arc::new(move |at| counted.moved_to(at));
        let content = &self.scope.services.content;
        match self.registry.push_blob(&self.scope.ctx, content, blob, &sources, count).await? {
            Outcome::Exists | Outcome::Mounted => node.exists(),
            Outcome::Uploaded => node.complete(),
        }
        Ok(())
    }

    async fn document(&self, document: &Descriptor, bytes: &[u8], tag: Option<&str>) -> Result<()> {
        let node = self.tracker.node(document, None);
        let bytes = bytes::Bytes::copy_from_slice(bytes);
        match self.registry.push_manifest(document, bytes, tag).await? {
            Outcome::Exists | Outcome::Mounted => node.exists(),
            Outcome::Uploaded => node.complete(),
        }
        Ok(())
    }
}
