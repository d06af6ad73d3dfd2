//! The image store as an end of a transfer: names to write, images to read, where to unpack.

use std::sync::Arc;

use api::containerd::types::transfer::ImageStore;
use grpc::convert::FromWire;
use image::Unpack;
use image::names::{Extra, Names};
use model::{Ctx, Error, Filters, Result};
use spec::{Descriptor, Platform};

use super::on_disk;
use crate::engine::Engine;

/// The snapshotter of an unpack that names none.
const SNAPSHOTTER: &str = "overlayfs";

/// The names that a transfer writes; `usual` when the store's end names none.
pub fn names(store: &ImageStore, usual: &str) -> Names {
    let extra = store.extra_references.iter().map(|extra| Extra {
        name: extra.name.clone(),
        is_prefix: extra.is_prefix,
        allow_overwrite: extra.allow_overwrite,
        add_digest: extra.add_digest,
        skip_named_digest: extra.skip_named_digest,
    });
    let name = if store.name.is_empty() { usual } else { &store.name };
    Names { name: name.into(), labels: store.labels.clone(), extra: extra.collect() }
}

/// Where the layers go.
///
/// # Errors
/// `InvalidArgument` when there is no such snapshotter.
pub fn unpacks(engine: &Arc<Engine>, store: &ImageStore) -> Result<Vec<Unpack>> {
    let unpack = |wanted: &api::containerd::types::transfer::UnpackConfiguration| {
        let snapshotter =
            if wanted.snapshotter.is_empty() { SNAPSHOTTER } else { wanted.snapshotter.as_str() };
        let platform = match wanted.platform.clone() {
            Some(platform) => Platform::from_wire(platform)?.normalized(),
            None => Platform::host(),
        };
        let driver = engine.store.snapshotter(snapshotter)?;
        Ok(Unpack { platform, snapshotter: snapshotter.into(), driver, told_of: None })
    };
    store.unpacks.iter().map(unpack).collect()
}

/// The images that an export names: one by its name, or by the further names and prefixes.
pub async fn named(engine: &Arc<Engine>, ctx: &Ctx, store: &ImageStore) -> Result<Vec<(String, Descriptor)>> {
    let names = names(store, "");
    on_disk(engine, ctx, move |engine, cx| {
        let images = engine.store.images();
        let mut found = Vec::new();
        if !names.name.is_empty() {
            found.push(images.get(cx, &names.name)?);
        }
        for extra in &names.extra {
            if !extra.is_prefix {
                found.push(images.get(cx, &extra.name)?);
                continue;
            }
            let all = images.list(cx, &Filters::default())?;
            found.extend(all.into_iter().filter(|image| image.name.starts_with(&extra.name)));
        }
        if found.is_empty() {
            return Err(Error::not_found("no images to export"));
        }
        Ok(found.into_iter().map(|image| (image.name, image.target)).collect())
    })
    .await
}
