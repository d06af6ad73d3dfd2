//! Which platform's image a pod gets: the host's, or the one that the configuration names for its handler.
//!
//! A name leads to an index, which may hold images of several platforms. It then stands for the host's, and where that was
//! never fetched for another that a handler wants; the id that a pull for a handler answers leads to the very image.

use std::sync::Arc;

use ::spec::Platform;
use model::Result;

use super::ImageInfo;
use super::read::details;
use crate::Cri;

impl Cri {
    /// The platform of a runtime handler's images: the host's unless its configuration names one.
    pub(super) fn platform_of(&self, handler: &str) -> Platform {
        let own = self.config.images.runtime_platforms.get(self.or_default(handler));
        own.and_then(|own| own.platform.clone()).unwrap_or_else(Platform::host)
    }

    /// Every platform whose images may be here, the host's first.
    pub(super) fn platforms(&self) -> Vec<Platform> {
        let own = self.config.images.runtime_platforms.values().filter_map(|own| own.platform.clone());
        let mut all = vec![Platform::host()];
        for platform in own {
            if !all.contains(&platform) {
                all.push(platform);
            }
        }
        all
    }

    /// The platform that an image is unpacked for.
    pub(super) fn platform_of_image(&self, image: &ImageInfo) -> Platform {
        let fits = |platform: &Platform| platform.rank(&image.config.platform).is_some();
        self.platforms().into_iter().find(fits).unwrap_or_else(Platform::host)
    }

    /// The image that a name, a digest, an id or the beginning of an id names, as the handler's pods run it.
    ///
    /// # Errors
    /// As of [`Cri::image`]; `NotFound` too when what is here of an index is for other platforms. A manifest that is named
    /// itself is what it is.
    pub(crate) async fn image_for(&self, name: &str, handler: &str) -> Result<Arc<ImageInfo>> {
        let (image, platform) = (self.images.get(name)?, self.platform_of(handler));
        // Where no handler is special, an image that says nothing of its platform passes.
        if self.platforms().len() == 1 || platform.rank(&image.config.platform).is_some() {
            return Ok(image);
        }
        let target = image.target.clone();
        let details = self
            .on_disk(&self.ctx(), move |engine, cx| details(cx, &*engine.content, &target, &[platform]))
            .await?;
        Ok(Arc::new(ImageInfo {
            repo_tags: image.repo_tags.clone(),
            repo_digests: image.repo_digests.clone(),
            pinned: image.pinned,
            ..details.info()
        }))
    }
}
