//! Images: names for descriptors.

use std::time::SystemTime;

use spec::{Descriptor, Labels, Result};

use crate::filter::{Fields, Filters};
use crate::{Cx, mask::Mask};

/// A name for a descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Usually a reference, but any text that is not empty.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// The index or manifest that it names.
    pub target: Descriptor,
    /// When it was made; set by the store.
    pub created_at: SystemTime,
    /// When it last changed; set by the store.
    pub updated_at: SystemTime,
}

/// How to delete an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delete {
    /// Delete only while it still names this; `NotFound` otherwise.
    pub target: Option<Descriptor>,
}

/// A namespaced image store.
pub trait Images: Send + Sync {
    /// One image. `NotFound` when there is none.
    fn get(&self, cx: &Cx<'_>, name: &str) -> Result<Image>;

    /// Every image that passes, by name.
    fn list(&self, cx: &Cx<'_>, filters: &Filters) -> Result<Vec<Image>>;

    /// Makes an image; the times of `image` count only when `epoch` is given, which then sets both. `AlreadyExists`.
    fn create(&self, cx: &Cx<'_>, image: &Image, epoch: Option<SystemTime>) -> Result<Image>;

    /// Changes what `mask` names: `labels`, `labels.X`, `annotations`, `annotations.X`, `target`; all when it is empty.
    fn update(&self, cx: &Cx<'_>, image: &Image, mask: &Mask, epoch: Option<SystemTime>) -> Result<Image>;

    /// Deletes an image; what only it held goes at the next garbage collection.
    fn delete(&self, cx: &Cx<'_>, name: &str, delete: &Delete) -> Result<()>;
}

impl Fields for Image {
    fn field(&self, path: &[&str]) -> Option<&str> {
        match path {
            ["name"] => Some(&self.name),
            ["target", "digest"] => Some(self.target.digest.as_str()),
            ["target", "mediatype"] => Some(&self.target.media_type),
            ["labels", key @ ..] => crate::filter::label(&self.labels, key),
            ["annotations", key @ ..] => crate::filter::label(&self.target.annotations, key),
            _ => None,
        }
    }
}
