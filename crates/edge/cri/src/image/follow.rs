//! Keeps the index in step with the store: read whole at the start, name by name afterwards.
//!
//! An image that somebody else made in our namespace (`ctr -n k8s.io images pull`) becomes the kubelet's too: it gets a
//! record by its id, and its own record the label that says so.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use ::spec::{Digest, Kind, Labels};
use api::containerd::services::images::v1::{ImageCreate, ImageDelete, ImageUpdate};
use api::{Message, Name};
use model::event::{Envelope, Subscription};
use model::image::Image;
use model::{Filters, Result};

use super::read::{Details, details};
use super::{pull, says_pinned};
use crate::Cri;

impl Cri {
    /// Learns every image, and follows the store from then on.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) async fn start_images(self: &Arc<Self>) -> Result<()> {
        let events = self.engine.exchange.subscribe();
        for name in self.load_images().await? {
            self.adopt_image(&name).await;
        }
        self.in_background(follow(Arc::downgrade(self), events));
        Ok(())
    }

    /// Reads every record; answers the names of those that are not marked as the kubelet's.
    async fn load_images(self: &Arc<Self>) -> Result<Vec<String>> {
        let turn = self.images.turn.lock().await;
        let platforms = self.platforms();
        let found = self
            .on_disk(&self.ctx(), move |engine, cx| {
                let mut read: HashMap<Digest, Option<Details>> = HashMap::new();
                let images = engine.images.list(cx, &Filters::default())?;
                let with_details = images.into_iter().filter_map(|image| {
                    let known = read.entry(image.target.digest.clone()).or_insert_with(|| {
                        details(cx, &*engine.content, &image.target, &platforms)
                            .inspect_err(|error| tracing::debug!(image = image.name, %error, "not shown"))
                            .ok()
                    });
                    known.clone().map(|details| (image, details))
                });
                Ok(with_details.collect::<Vec<_>>())
            })
            .await?;
        let mut foreign = Vec::new();
        for (image, details) in found {
            self.images.put(&image.name, says_pinned(&image.labels), &details);
            if self.is_foreign(&image) {
                foreign.push(image.name);
            }
        }
        drop(turn);
        Ok(foreign)
    }

    /// Reads one record again.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(super) async fn refresh_image(self: &Arc<Self>, name: &str) -> Result<Option<Image>> {
        let _turn = self.images.turn.lock().await;
        let (key, platforms) = (name.to_owned(), self.platforms());
        let found = self
            .on_disk(&self.ctx(), move |engine, cx| {
                let image = match engine.images.get(cx, &key) {
                    Err(error) if error.kind() == Kind::NotFound => return Ok(None),
                    image => image?,
                };
                match details(cx, &*engine.content, &image.target, &platforms) {
                    Ok(details) => Ok(Some((image, details))),
                    // It is for another platform, or no image at all: nothing that a pod could run.
                    Err(error) if matches!(error.kind(), Kind::NotFound | Kind::InvalidArgument) => {
                        tracing::debug!(image = image.name, %error, "not shown");
                        Ok(None)
                    }
                    Err(error) => Err(error),
                }
            })
            .await?;
        match found {
            Some((image, details)) => {
                self.images.put(name, says_pinned(&image.labels), &details);
                Ok(Some(image))
            }
            None => {
                self.images.remove(name);
                Ok(None)
            }
        }
    }

    /// Whether a record lacks a label that one of ours has.
    fn is_foreign(&self, image: &Image) -> bool {
        let wanted = self.labels_of(&image.name);
        wanted.iter().any(|(key, value)| image.labels.get(key) != Some(value))
    }

    /// Makes an image that somebody else recorded the kubelet's too.
    async fn adopt_image(self: &Arc<Self>, name: &str) {
        let Ok(image) = self.images.get(name) else { return };
        let labels: Labels = self.labels_of(name);
        let (id, target, own) = (image.id.clone(), image.target.clone(), name.to_owned());
        let adopted = self
            .on_disk(&self.ctx(), move |engine, cx| {
                // The id first: an image that is marked as managed always has it.
                pull::put(cx, &*engine.images, &id, &target, &labels)?;
                pull::put(cx, &*engine.images, &own, &target, &labels)
            })
            .await;
        let adopted = match adopted {
            Ok(()) => self.refresh_image(&image.id).await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = adopted {
            tracing::warn!(image = name, %error, "cannot mark an image as managed");
        }
    }
}

/// Reads again what events name, until the server is gone.
async fn follow(cri: Weak<Cri>, mut events: Subscription) {
    loop {
        let event = events.next().await;
        let Some(cri) = cri.upgrade() else { return };
        if event.namespace != cri.namespace.as_str() {
            continue;
        }
        let Some(name) = name_of(&event) else { continue };
        match cri.refresh_image(&name).await {
            Ok(Some(image)) if cri.is_foreign(&image) => cri.adopt_image(&name).await,
            Ok(_) => {}
            Err(error) => tracing::warn!(image = name, %error, "cannot read an image that has changed"),
        }
    }
}

/// The name in an event about an image.
fn name_of(event: &Envelope) -> Option<String> {
    fn read<M: Message + Name + Default>(event: &Envelope, name: fn(M) -> String) -> Option<String> {
        (event.event.type_url == M::full_name())
            .then(|| M::decode(event.event.value.as_slice()).ok().map(name))
            .flatten()
    }
    match event.topic.as_str() {
        "/images/create" => read(event, |event: ImageCreate| event.name),
        "/images/update" => read(event, |event: ImageUpdate| event.name),
        "/images/delete" => read(event, |event: ImageDelete| event.name),
        _ => None,
    }
}
