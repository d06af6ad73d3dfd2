//! Every image in memory.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::ImageInfo;

/// Every image, by id.
#[derive(Debug, Default)]
pub(crate) struct Index(RwLock<HashMap<String, Arc<ImageInfo>>>);

impl Index {
    /// The image of an id.
    pub fn get(&self, id: &str) -> Option<Arc<ImageInfo>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }
}
