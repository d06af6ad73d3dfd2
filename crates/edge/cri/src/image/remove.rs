//! Removes an image with all its names. May be repeated.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::spec::Kind;
use api::runtime::v1;
use model::image::Delete;
use model::{Lane, Result};

use crate::Cri;

/// How long to wait for the disk space to come free; whoever asks measures it next.
const COLLECT: Duration = Duration::from_secs(60);

impl Cri {
    /// Removes an image with all its names. May be repeated.
    pub(crate) async fn remove_image(
        self: &Arc<Self>,
        request: v1::RemoveImageRequest,
    ) -> Result<v1::RemoveImageResponse> {
        let name = request.image.unwrap_or_default().image;
        let id = match self.images.get(&name) {
            Ok(image) => image.id.clone(),
            Err(error) if error.kind() == Kind::NotFound => return Ok(v1::RemoveImageResponse {}),
            Err(error) => return Err(error.context(format_args!("can not resolve {name:?} locally"))),
        };
        let cri = Arc::clone(self);
        Self::whole(async move { cri.forget_image(&id).await }).await?;
        Ok(v1::RemoveImageResponse {})
    }

    async fn forget_image(self: &Arc<Self>, id: &str) -> Result<()> {
        let turn = self.images.turn.lock().await;
        let names = self.images.names(id);
        let records = names.clone();
        let deleted = self
            .on_disk(&self.ctx(), move |engine, cx| {
                for name in &records {
                    match engine.images.delete(cx, name, &Delete::default()) {
                        Err(error) if error.kind() != Kind::NotFound => {
                            return Err(
                                error.context(format_args!("failed to delete image reference {name:?}"))
                            );
                        }
                        _ => {}
                    }
                }
                Ok(())
            })
            .await;
        drop(turn);
        for name in &names {
            // Read again and not just forgotten: it may have been pulled anew, or not have gone.
            self.refresh_image(name).await?;
        }
        deleted?;
        let (collector, ctx) =
            (Arc::clone(&self.engine.collector), self.ctx().with_deadline(Instant::now() + COLLECT));
        // The image is gone either way; its bytes go now or with the next collection.
        if let Err(error) = ctx.blocking(Lane::Wait, move |cx| collector.collect(cx)).await {
            tracing::warn!(image = id, %error, "cannot collect what the image has left");
        }
        Ok(())
    }
}
