//! What the store's documents say of an image.
//!
//! Invariant: the documents come from outside: every one is bounded, and an index inside an index ends the search.

use std::sync::Arc;

use ::spec::{Descriptor, Error, ImageConfig, Kind, Platform, media};
use model::content::{Content, read_blob};
use model::manifest::{self, MAX_DOCUMENT};
use model::{Cx, Result};

use super::ImageInfo;

/// What is the same for all names of an image.
#[derive(Clone, Debug)]
pub(crate) struct Details {
    /// The digest of its config.
    pub id: String,
    /// What was read.
    pub target: Descriptor,
    /// The image's own manifest, which is the target when that is no index.
    pub manifest: Descriptor,
    /// The snapshot of its top layer; empty without layers.
    pub chain_id: String,
    /// Documents and layers, in bytes.
    pub size: u64,
    /// Its config.
    pub config: Arc<ImageConfig>,
}

impl Details {
    /// The image without its names.
    pub fn info(&self) -> ImageInfo {
        ImageInfo {
            id: self.id.clone(),
            target: self.target.clone(),
            chain_id: self.chain_id.clone(),
            repo_tags: Vec::new(),
            repo_digests: Vec::new(),
            size: self.size,
            config: Arc::clone(&self.config),
            pinned: false,
        }
    }
}

/// Reads the image of the first of `platforms` of which there is one below `target`.
///
/// # Errors
/// `NotFound` when there is none, or its documents are not in the store; `InvalidArgument` for documents that are none.
pub fn details(
    cx: &Cx<'_>,
    content: &dyn Content,
    target: &Descriptor,
    platforms: &[Platform],
) -> Result<Details> {
    let (descriptor, manifest, above) = find_manifest(cx, content, target, platforms)?;
    let bytes = read_blob(content, cx, &manifest.config.digest, MAX_DOCUMENT)?;
    let config = manifest::config(&manifest.config, &bytes)?;
    let diff_ids = manifest::diff_ids(&config, manifest.layers.len())?;
    let chain_id = manifest::chain_ids(diff_ids).last().map(ToString::to_string).unwrap_or_default();
    let parts = manifest.layers.iter().chain([&manifest.config, &descriptor]);
    Ok(Details {
        id: manifest.config.digest.to_string(),
        target: target.clone(),
        manifest: descriptor.clone(),
        chain_id,
        size: parts.fold(above, |size, part| size.saturating_add(part.size)),
        config: Arc::new(config),
    })
}

/// The manifest of the first of `platforms` that is here, and the size of the index above it.
fn find_manifest(
    cx: &Cx<'_>,
    content: &dyn Content,
    target: &Descriptor,
    platforms: &[Platform],
) -> Result<(Descriptor, ::spec::Manifest, u64)> {
    let bytes = read_blob(content, cx, &target.digest, MAX_DOCUMENT)?;
    if !media::is_index(&target.media_type) {
        return Ok((target.clone(), manifest::manifest(target, &bytes)?, 0));
    }
    let children = manifest::index(target, &bytes)?.manifests;
    let each = |platform: &Platform| manifest::select(&children, std::slice::from_ref(platform));
    for child in platforms.iter().flat_map(each) {
        if !media::is_manifest(&child.media_type) {
            continue;
        }
        match read_blob(content, cx, &child.digest, MAX_DOCUMENT) {
            Ok(bytes) => return Ok((child.clone(), manifest::manifest(&child, &bytes)?, target.size)),
            // A pull for another platform has not fetched it.
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let wanted: Vec<String> = platforms.iter().map(ToString::to_string).collect();
    Err(Error::not_found(format_args!("no image for {} below {}", wanted.join(" or "), target.digest)))
}
