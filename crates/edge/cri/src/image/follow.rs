//! Keeps the index in step with the store: read whole at the start, name by name afterwards.
//!
//! An image that another client made in our namespace (`ctr -n k8s.io images pull`) becomes the kubelet's too: it gets a
//! record by its id, and its own record the labels that say so.
//!
//! Invariant: an image is shown only with the labels that it is to have, so that the kubelet never sees one unpinned that
//! it must not remove.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use ::spec::{Digest, Kind, Labels};
use api::containerd::services::images::v1::{ImageCreate, ImageDelete, ImageUpdate};
use api::{Message, Name};
use model::event::{Envelope, Subscription};
use model::image::{Image, Images};
use model::{Cx, Filters, Result};

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
            if let Err(error) = self.refresh_image(&name).await {
                tracing::warn!(image = name, %error, "cannot mark an image as managed");
            }
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
            let wanted = self.labels_of(&image.name);
            let pinned = says_pinned(&image.labels) || says_pinned(&wanted);
            self.images.put(&image.name, pinned, &details);
            if is_foreign(&image, &wanted) {
                foreign.push(image.name);
            }
        }
        drop(turn);
        Ok(foreign)
    }

    /// Reads one record again, and makes it the kubelet's if another client made it.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(super) async fn refresh_image(self: &Arc<Self>, name: &str) -> Result<()> {
        let _turn = self.images.turn.lock().await;
        let (key, platforms, wanted) = (name.to_owned(), self.platforms(), self.labels_of(name));
        let pinned = says_pinned(&wanted);
        let found = self
            .on_disk(&self.ctx(), move |engine, cx| {
                let image = match engine.images.get(cx, &key) {
                    Err(error) if error.kind() == Kind::NotFound => return Ok(None),
                    image => image?,
                };
                let details = match details(cx, &*engine.content, &image.target, &platforms) {
                    Ok(details) => details,
                    // It is for another platform, or no image at all: nothing that a pod could run.
                    Err(error) if matches!(error.kind(), Kind::NotFound | Kind::InvalidArgument) => {
                        tracing::debug!(image = image.name, %error, "not shown");
                        return Ok(None);
                    }
                    Err(error) => return Err(error),
                };
                let adopted = is_foreign(&image, &wanted)
                    && adopt(cx, &*engine.images, &image, &details, &wanted)
                        .inspect_err(
                            |error| tracing::warn!(image = key, %error, "cannot mark an image as managed"),
                        )
                        .is_ok();
                Ok(Some((image, details, adopted)))
            })
            .await?;
        match found {
            Some((image, details, adopted)) => {
                let pinned = pinned || says_pinned(&image.labels);
                if adopted {
                    self.images.put(&details.id, pinned, &details);
                }
                self.images.put(name, pinned, &details);
            }
            None => self.images.remove(name),
        }
        Ok(())
    }
}

/// Whether a record lacks a label that one of ours has.
fn is_foreign(image: &Image, wanted: &Labels) -> bool {
    wanted.iter().any(|(key, value)| image.labels.get(key) != Some(value))
}

/// Makes an image that another client recorded the kubelet's too.
fn adopt(cx: &Cx<'_>, images: &dyn Images, image: &Image, details: &Details, labels: &Labels) -> Result<()> {
    // The id first: an image that is marked as managed always has it.
    pull::put(cx, images, &details.id, &image.target, labels)?;
    pull::put(cx, images, &image.name, &image.target, labels)
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
        if let Err(error) = cri.refresh_image(&name).await {
            tracing::warn!(image = name, %error, "cannot read an image that has changed");
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
