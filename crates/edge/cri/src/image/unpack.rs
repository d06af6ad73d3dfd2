//! Images where containers need them: pulled when missing, unpacked with the handler's snapshotter.

use std::sync::Arc;

use ::spec::Kind;
use model::Result;

use super::ImageInfo;
use crate::Cri;

impl Cri {
    /// The snapshotter of a runtime handler; of the default one when it is empty or unknown.
    pub(crate) fn snapshotter_of(&self, handler: &str) -> String {
        let handler = self.or_default(handler);
        let own = self.config.runtime.runtimes.get(handler).map(|handler| handler.snapshotter.as_str());
        let platform = self.config.images.runtime_platforms.get(handler);
        let of_platform = platform.map(|platform| platform.snapshotter.as_str());
        let chosen = [own, of_platform].into_iter().flatten().find(|name| !name.is_empty());
        chosen.unwrap_or(&self.config.images.snapshotter).to_owned()
    }

    /// The handler's name, that of the default one when it is empty.
    pub(super) fn or_default<'a>(&'a self, handler: &'a str) -> &'a str {
        if handler.is_empty() { &self.config.runtime.default_runtime_name } else { handler }
    }

    /// The image `name`, pulled when it is not here, as the handler's pods need it.
    ///
    /// # Errors
    /// As of a pull.
    pub(crate) async fn ensure_image(self: &Arc<Self>, name: &str, handler: &str) -> Result<Arc<ImageInfo>> {
        match self.image_for(name, handler).await {
            Err(error) if error.kind() == Kind::NotFound => {}
            found => return found,
        }
        let id = self.pull(name, handler, None).await?;
        self.images.get(&id)
    }

    /// Has `snapshotter` hold the image's layers: whoever pulled it may have used another, or none.
    ///
    /// # Errors
    /// `NotFound` when part of the image is not in the store; what the disk said.
    pub(crate) async fn ensure_unpacked(
        self: &Arc<Self>,
        image: &ImageInfo,
        snapshotter: &str,
    ) -> Result<()> {
        if image.chain_id.is_empty() {
            return Ok(());
        }
        let (driver, name) = (self.engine.snapshotter(snapshotter)?, image.chain_id.clone());
        let known = self.on_disk(&self.ctx(), move |_, cx| driver.stat(cx, &name).map(drop)).await;
        match known {
            Err(error) if error.kind() == Kind::NotFound => {}
            known => return known,
        }
        let unpack = self.unpack_into(snapshotter.to_owned(), self.platform_of_image(image));
        let unpacked = self.engine.puller.unpack(&self.ctx(), image.target.clone(), unpack).await;
        unpacked.map_err(|error| error.context(format_args!("failed to unpack image {:?}", image.id)))
    }
}
