//! A registry's image into the stores: resolve, documents, layers (fetched and unpacked at once), and last its names.
//!
//! Invariant: an image is recorded only when everything that it names for the chosen platforms is in the store.

use std::sync::Arc;

use model::diff::Apply;
use model::image::Image;
use model::{Ctx, Lane};
use spec::{Descriptor, Error, Platform, Reference, Result, media};
use tokio::sync::Semaphore;

use crate::fetch::Fetch;
use crate::images::Images;
pub use crate::images::Unpacked;
use crate::labels::Source;
use crate::names::Names;
use crate::progress::{Sink, Tracker};
use crate::registry::{self, Registry};
use crate::transfer::{self, Scope};
use crate::walk::{Walk, Wanted};
use crate::{Services, Unpack, Verifier};

/// A pull to be done.
#[derive(Clone)]
pub struct Pull {
    /// What to pull.
    pub reference: Reference,
    /// What to record.
    pub names: Names,
    /// The platforms to fetch; all when empty.
    pub platforms: Vec<Platform>,
    /// Whether to fetch the manifests and configs of the other platforms too.
    pub all_metadata: bool,
    /// Whether to fetch manifests and configs alone.
    pub metadata_only: bool,
    /// At most so many manifests of an index; 0 for no bound.
    pub manifest_limit: usize,
    /// Where to unpack.
    pub unpack: Vec<Unpack>,
    /// How to apply layers.
    pub apply: Apply,
    /// Whether nothing keeps the layers once they are unpacked.
    pub discard_layers: bool,
    /// How to reach the registry.
    pub registry: registry::Config,
    /// Who judges what was resolved before it is fetched; nobody when there is none.
    pub verifier: Option<Arc<dyn Verifier>>,
}

impl Pull {
    /// A pull of `reference` for every platform, recorded under its own name, not unpacked.
    pub fn new(reference: Reference) -> Self {
        Self {
            names: Names::of(reference.to_string()),
            reference,
            platforms: Vec::new(),
            all_metadata: false,
            metadata_only: false,
            manifest_limit: 0,
            unpack: Vec::new(),
            apply: Apply::default(),
            discard_layers: false,
            registry: registry::Config::default(),
            verifier: None,
        }
    }
}

/// What a pull has brought.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// What the reference names.
    pub target: Descriptor,
    /// The records.
    pub images: Vec<Image>,
    /// What was unpacked.
    pub unpacked: Vec<Unpacked>,
}

/// Pulls.
///
/// # Errors
/// `NotFound` when the registry has no such image, or none for the platforms; `InvalidArgument` for an image that is
/// malformed or of Docker's schema 1; otherwise what the network, the registry or the disk said. What was fetched whole
/// stays until garbage collection, so that another try goes on from there.
pub async fn run(ctx: &Ctx, services: &Services, pull: Pull, sink: Option<Sink>) -> Result<Pulled> {
    transfer::run(ctx, services, Some(pull.reference.to_string()), move |scope| async move {
        let tracker = Tracker::new(sink, &pull.reference.to_string(), "downloading");
        let ticking = tracker.clone();
        let outcome = tokio::select! {
            outcome = steps(scope, &pull, &tracker) => outcome,
            // Never ends; it only lives as long as the steps.
            () = ticking.tick() => Err(Error::internal("progress ended")),
        };
        tracker.flush();
        let pulled = outcome?;
        for image in &pulled.images {
            tracker.say_of("saved", &image.name, &image.target);
        }
        tracker.say(format!("Completed pull from OCI Registry ({})", pull.reference));
        Ok(pulled)
    })
    .await
}

async fn steps(scope: Arc<Scope>, pull: &Pull, tracker: &Arc<Tracker>) -> Result<Pulled> {
    let reference = &pull.reference;
    tracker.say(format!("Resolving from OCI Registry ({reference})"));
    let registry = Registry::open(&scope.ctx, reference, &pull.registry).await?;
    let resolved = registry.resolve().await.map_err(Error::from);
    let resolved = resolved.map_err(|error| error.context("failed to resolve image"))?;
    let target = resolved.descriptor;
    if target.media_type == media::DOCKER_MANIFEST_V1 {
        return Err(Error::invalid("schema 1 image manifests are no longer supported"));
    }
    if let Some(verifier) = &pull.verifier {
        verifier.verify(&scope.ctx, &reference.to_string(), &target).await?;
    }
    tracker.say(format!("Pulling from OCI Registry ({reference})"));
    tracker.say_of("fetching image content", &reference.to_string(), &target);
    let fetch = Fetch {
        scope: scope.clone(),
        registry: Some(registry),
        source: Some(Source::of(reference)),
        discard_layers: pull.discard_layers,
    };
    let wanted = Wanted {
        platforms: pull.platforms.clone(),
        all_metadata: pull.all_metadata,
        metadata_only: pull.metadata_only,
        manifest_limit: pull.manifest_limit,
        skip_missing: false,
    };
    let leaves = Walk { fetch: &fetch, tracker, wanted: &wanted }.run(&target, resolved.bytes).await?;
    let room = Semaphore::new(pull.registry.limits.concurrent.max(1));
    let images = Images { fetch: &fetch, tracker, targets: &pull.unpack, room: &room, apply: pull.apply };
    let unpacked = images.run(&leaves).await?;
    let (names, images, top) = (pull.names.clone(), scope.services.images.clone(), target.clone());
    let images = scope.blocking(Lane::Disk, move |cx| names.store_top(cx, &*images, &top)).await?;
    Ok(Pulled { target, images, unpacked })
}

/// An image that is in the store already, to be unpacked.
#[derive(Clone)]
pub struct UnpackStored {
    /// Its index or manifest.
    pub target: Descriptor,
    /// The platforms to unpack; all when empty.
    pub platforms: Vec<Platform>,
    /// Where to.
    pub unpack: Vec<Unpack>,
    /// How to apply layers.
    pub apply: Apply,
}

/// Unpacks an image of the store.
///
/// # Errors
/// `NotFound` when the store lacks part of the image; otherwise as [`run`].
pub async fn unpack(
    ctx: &Ctx,
    services: &Services,
    stored: UnpackStored,
    sink: Option<Sink>,
) -> Result<Vec<Unpacked>> {
    transfer::run(ctx, services, None, move |scope| async move {
        let tracker = Tracker::new(sink, stored.target.digest.as_str(), "downloading");
        let ticking = tracker.clone();
        let outcome = tokio::select! {
            outcome = unpack_steps(scope, &stored.target, &stored, &tracker) => outcome,
            // Never ends; it only lives as long as the steps.
            () = ticking.tick() => Err(Error::internal("progress ended")),
        };
        tracker.flush();
        outcome
    })
    .await
}

/// Reads the documents of a stored image and unpacks it.
pub(crate) async fn unpack_steps(
    scope: Arc<Scope>,
    target: &Descriptor,
    how: &UnpackStored,
    tracker: &Arc<Tracker>,
) -> Result<Vec<Unpacked>> {
    let fetch = Fetch { scope, registry: None, source: None, discard_layers: false };
    let wanted = Wanted { platforms: how.platforms.clone(), ..Wanted::default() };
    let leaves = Walk { fetch: &fetch, tracker, wanted: &wanted }.run(target, None).await?;
    let room = Semaphore::new(registry::Limits::default().concurrent);
    Images { fetch: &fetch, tracker, targets: &how.unpack, room: &room, apply: how.apply }.run(&leaves).await
}
