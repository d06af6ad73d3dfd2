//! One image; an empty answer when there is none.

use std::collections::HashMap;
use std::sync::Arc;

use ::spec::{Error, Kind};
use api::runtime::v1;
use model::Result;

use super::ImageInfo;
use super::list::describe;
use crate::Cri;

impl Cri {
    /// One image; an empty answer when there is none.
    pub(crate) async fn image_status(
        self: &Arc<Self>,
        request: v1::ImageStatusRequest,
    ) -> Result<v1::ImageStatusResponse> {
        let name = request.image.unwrap_or_default().image;
        let image = match self.images.get(&name) {
            Ok(image) => image,
            Err(error) if error.kind() == Kind::NotFound => return Ok(v1::ImageStatusResponse::default()),
            Err(error) => return Err(error.context(format_args!("can not resolve {name:?} locally"))),
        };
        let info = if request.verbose { verbose(&image)? } else { HashMap::new() };
        Ok(v1::ImageStatusResponse { image: Some(describe(&image)), info: info.into_iter().collect() })
    }
}

/// `info`: the snapshot's name and what the image says of itself.
fn verbose(image: &ImageInfo) -> Result<HashMap<String, String>> {
    let info = serde_json::json!({ "chainID": image.chain_id, "imageSpec": &*image.config });
    let text = serde_json::to_string(&info);
    let text = text.map_err(|error| Error::internal(format!("failed to generate image info: {error}")))?;
    Ok(HashMap::from([("info".to_owned(), text)]))
}
