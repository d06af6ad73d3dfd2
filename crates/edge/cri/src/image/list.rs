//! Every image.

use std::sync::Arc;

use api::runtime::v1;
use model::Result;

use super::{ImageInfo, name};
use crate::Cri;

impl Cri {
    /// Every image; with a filter the one that it names.
    pub(crate) async fn list_images(
        self: &Arc<Self>,
        request: v1::ListImagesRequest,
    ) -> Result<v1::ListImagesResponse> {
        let wanted = request.filter.and_then(|filter| filter.image).map(|image| image.image);
        let images = match wanted.filter(|name| !name.is_empty()) {
            None => self.images.list(),
            Some(name) => self.images.get(&name).into_iter().collect(),
        };
        let images = images.iter().map(|image| describe(image)).collect();
        Ok(v1::ListImagesResponse { images })
    }
}

/// An image as the kubelet sees it.
pub(super) fn describe(image: &ImageInfo) -> v1::Image {
    let (uid, username) = name::user(&image.config.config.user);
    v1::Image {
        id: image.id.clone(),
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        size: image.size,
        uid: uid.map(|value| v1::Int64Value { value }),
        username,
        pinned: image.pinned,
        ..v1::Image::default()
    }
}
