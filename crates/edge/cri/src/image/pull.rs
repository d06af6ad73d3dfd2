//! Brings an image from its registry.
//!
//! Callers who want the same image, with the same credentials, share one pull: it goes on while one of them waits, and
//! everybody gets its answer. Other credentials are another pull, so that nobody learns by another's what he may not see.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ::spec::{Descriptor, Error, Kind, Labels, Platform, Reference};
use api::runtime::v1;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use model::image::{Image, Images};
use model::mask::Mask;
use model::pull::{Pull, Unpack};
use model::{Cx, Result};

use super::read::{Details, details};
use super::{auth, name, says_pinned};
use crate::Cri;

/// The pod annotation by which older clients name the runtime handler.
const HANDLER: &str = "io.containerd.cri.runtime-handler";
/// How often a record that somebody else makes and removes at the same time is tried again.
const TRIES: usize = 8;

/// What makes two pulls the same.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    reference: Reference,
    snapshotter: String,
    platform: Platform,
    auth: Option<v1::AuthConfig>,
}

/// The id of the image, or why there is none.
type Outcome = Result<String, Arc<Error>>;
type Running = BoxFuture<'static, Outcome>;

/// Pulls under way.
#[derive(Default)]
pub(crate) struct Pulls(Mutex<HashMap<Key, WeakShared<Running>>>);

impl Pulls {
    /// The pull of `key` that runs, or the one that `new` makes.
    fn join(&self, key: &Key, new: impl FnOnce() -> Running) -> Shared<Running> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|_, pull| pull.upgrade().is_some_and(|pull| pull.peek().is_none()));
        if let Some(pull) = running.get(key).and_then(WeakShared::upgrade) {
            return pull;
        }
        let pull = new().shared();
        if let Some(weak) = pull.downgrade() {
            running.insert(key.clone(), weak);
        }
        pull
    }
}

impl Cri {
    /// Brings an image from its registry.
    pub(crate) async fn pull_image(
        self: &Arc<Self>,
        request: v1::PullImageRequest,
    ) -> Result<v1::PullImageResponse> {
        let image = request.image.unwrap_or_default();
        let annotation = request.sandbox_config.and_then(|pod| pod.annotations.get(HANDLER).cloned());
        let handler = Some(image.runtime_handler).filter(|handler| !handler.is_empty()).or(annotation);
        let image_ref = self.pull(&image.image, &handler.unwrap_or_default(), request.auth).await?;
        Ok(v1::PullImageResponse { image_ref })
    }

    /// Pulls the image `name` for the pods of `handler`; answers its id.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no name; what registry, network or disk said.
    pub(super) async fn pull(
        self: &Arc<Self>,
        name: &str,
        handler: &str,
        auth: Option<v1::AuthConfig>,
    ) -> Result<String> {
        let (snapshotter, platform) = (self.snapshotter_of(handler), self.platform_of(handler));
        let key = Key { reference: name::full(name)?, snapshotter, platform, auth };
        // Refused here already, and not after the way to the registry.
        self.engine.snapshotter(&key.snapshotter)?;
        let pull = self.images.pulls.join(&key, || {
            let (cri, key) = (Arc::clone(self), key.clone());
            async move { cri.pull_once(key).await.map_err(Arc::new) }.boxed()
        });
        pull.await.map_err(|error| Error::new(error.kind(), error.text()))
    }

    async fn pull_once(self: Arc<Self>, key: Key) -> Result<String> {
        let (begun, images) = (std::time::Instant::now(), &self.config.images);
        let Key { reference, platform, .. } = key;
        let labels = self.labels_of(&reference.to_string());
        let pull = Pull {
            reference: reference.clone(),
            labels: labels.clone(),
            unpack: self.unpack_into(key.snapshotter, platform.clone()),
            discard_layers: images.discard_unpacked_layers,
            concurrent: images.max_concurrent_downloads,
            stall_timeout: images.image_pull_progress_timeout,
            login: auth::login(key.auth, &images.registry.configs),
        };
        let pulled = self.engine.puller.pull(&self.ctx(), pull).await;
        let whole = format!("failed to pull and unpack image \"{reference}\"");
        let target = pulled.map_err(|error| error.context(whole))?;
        // Once it is there it is recorded, whoever still waits.
        let cri = Arc::clone(&self);
        let name = reference.to_string();
        let id = Self::whole(async move { cri.record(&reference, target, platform, labels).await }).await?;
        tracing::info!(image = name, id, elapsed = ?begun.elapsed(), "pulled image");
        Ok(id)
    }

    /// How this server unpacks images of `platform`.
    pub(super) fn unpack_into(&self, snapshotter: String, platform: Platform) -> Unpack {
        let images = &self.config.images;
        Unpack {
            platform,
            snapshotter,
            annotate: !images.disable_snapshot_annotations,
            sync_fs: images.image_pull_with_sync_fs,
        }
    }

    /// Writes the records of what `reference` names, and notes them; answers the id of the image of `platform`.
    async fn record(
        self: &Arc<Self>,
        reference: &Reference,
        target: Descriptor,
        platform: Platform,
        labels: Labels,
    ) -> Result<String> {
        let _turn = self.images.turn.lock().await;
        let by_tag = reference.digest().is_none().then(|| reference.to_string());
        let by_digest = name::by_digest(reference, &target.digest);
        let pinned = says_pinned(&labels);
        let platforms = self.platforms();
        let (id, recorded) = self
            .on_disk(&self.ctx(), move |engine, cx| {
                let pulled = details(cx, &*engine.content, &target, std::slice::from_ref(&platform))?;
                // What an index stands for may be another's, now or when that is pulled too: the id then leads past it.
                let shown = details(cx, &*engine.content, &target, &platforms)?;
                let id = pulled.id.clone();
                let own = if platform == Platform::host() { &target } else { &pulled.manifest }.clone();
                let others = std::iter::once(by_digest).chain(by_tag);
                let others = others.map(|name| (name, target.clone(), shown.clone()));
                let recorded: Vec<_> = std::iter::once((id.clone(), own, pulled)).chain(others).collect();
                for (name, target, _) in &recorded {
                    put(cx, &*engine.images, name, target, &labels).map_err(|error| {
                        error.context(format!("failed to create image reference {name:?}"))
                    })?;
                }
                Ok((id, recorded))
            })
            .await?;
        for (name, target, details) in recorded {
            self.images.put(&name, pinned, &Details { target, ..details });
        }
        Ok(id)
    }
}

/// Makes `name` lead to `target`, with at least these labels.
pub(super) fn put(
    cx: &Cx<'_>,
    images: &dyn Images,
    name: &str,
    target: &Descriptor,
    labels: &Labels,
) -> Result<()> {
    for _ in 0..TRIES {
        let now = std::time::SystemTime::now();
        let image = Image {
            name: name.to_owned(),
            labels: labels.clone(),
            target: target.clone(),
            created_at: now,
            updated_at: now,
        };
        let old = match images.get(cx, name) {
            Ok(old) => old,
            Err(error) if error.kind() != Kind::NotFound => return Err(error),
            Err(_) => match images.create(cx, &image, None) {
                Err(error) if error.kind() == Kind::AlreadyExists => continue,
                done => return done.map(drop),
            },
        };
        let mut mask: Vec<String> = Vec::new();
        if old.target.digest != target.digest {
            mask.push("target".into());
        }
        let changed = labels.iter().filter(|(key, value)| old.labels.get(*key) != Some(value));
        mask.extend(changed.map(|(key, _)| format!("labels.{key}")));
        if mask.is_empty() {
            return Ok(());
        }
        match images.update(cx, &image, &Mask::new(mask), None) {
            Err(error) if error.kind() == Kind::NotFound => {}
            done => return done.map(drop),
        }
    }
    Err(Error::unavailable(format_args!("image {name:?} is being changed by somebody else")))
}
