//! `manifest.json`: the top of what `docker save` writes.

use std::collections::BTreeMap;

use model::content::{Commit, Content, Open};
use model::manifest::{gc_labels, sha256};
use model::{Cx, Labels};
use serde::{Deserialize, Serialize};
use spec::{Descriptor, Error, Index, Kind, Manifest, Platform, Reference, Result, media};

use crate::names::{IMAGE_NAME, REF_NAME};

/// One image of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Row {
    /// The config's file.
    pub config: String,
    /// Its names, as Docker shows them.
    #[serde(default)]
    pub repo_tags: Option<Vec<String>>,
    /// The layers' files, bottom first.
    #[serde(default)]
    pub layers: Vec<String>,
}

/// Makes manifests and an index of the rows, from the files that the archive had; the index.
pub(super) fn assemble(
    cx: &Cx<'_>,
    content: &dyn Content,
    rows: &[Row],
    files: &BTreeMap<String, Descriptor>,
) -> Result<Descriptor> {
    let mut entries = Vec::new();
    for row in rows {
        let missing = |what: &str, name: &str| Error::invalid(format!("{what} {name:?} not found"));
        let config = files.get(&row.config).ok_or_else(|| missing("image config", &row.config))?;
        let config = Descriptor { media_type: media::DOCKER_CONFIG.into(), ..config.clone() };
        let layers = row.layers.iter().map(|name| {
            let file = files.get(name).ok_or_else(|| missing("layer", name))?;
            let media_type = layer_type(cx, content, file)?;
            Ok(Descriptor { media_type, ..file.clone() })
        });
        let manifest = Manifest {
            schema_version: 2,
            media_type: media::DOCKER_MANIFEST.into(),
            layers: layers.collect::<Result<_>>()?,
            config,
            subject: None,
            annotations: BTreeMap::new(),
        };
        let children: Vec<_> = std::iter::once(&manifest.config).chain(&manifest.layers).cloned().collect();
        let mut entry = write(cx, content, media::DOCKER_MANIFEST, &manifest, gc_labels(&children))?;
        entry.platform = platform(cx, content, &manifest.config)?;
        let tags = row.repo_tags.as_deref().unwrap_or_default();
        if tags.is_empty() {
            entries.push(entry.clone());
        }
        for tag in tags {
            let reference = Reference::familiar(tag)
                .map_err(|error| Error::invalid(format!("normalize image ref {tag:?}: {error}")))?;
            let mut named = entry.clone();
            named.annotations.insert(IMAGE_NAME.into(), reference.to_string());
            named.annotations.insert(REF_NAME.into(), reference.object().to_owned());
            entries.push(named);
        }
    }
    let labels = gc_labels(&entries);
    let index = Index {
        schema_version: 2,
        media_type: media::INDEX.into(),
        manifests: entries,
        annotations: BTreeMap::new(),
    };
    write(cx, content, media::INDEX, &index, labels)
}

/// Stores a document.
pub(super) fn write(
    cx: &Cx<'_>,
    content: &dyn Content,
    media_type: &str,
    document: &impl Serialize,
    labels: Labels,
) -> Result<Descriptor> {
    let bytes = serde_json::to_vec(document).map_err(|error| Error::internal(error.to_string()))?;
    let descriptor = Descriptor::new(media_type, sha256(&bytes), bytes.len() as u64);
    let open = Open {
        reference: format!("manifest-{}", descriptor.digest),
        total: descriptor.size,
        expected: Some(descriptor.digest.clone()),
    };
    match content.ingest(cx, &open) {
        Err(error) if error.kind() == Kind::AlreadyExists => return Ok(descriptor),
        Err(error) => return Err(error),
        Ok(mut ingest) => {
            ingest.truncate(0)?;
            ingest.write(&bytes)?;
            let commit =
                Commit { size: Some(descriptor.size), expected: Some(descriptor.digest.clone()), labels };
            match ingest.commit(cx, &commit) {
                Err(error) if error.kind() != Kind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
    }
    Ok(descriptor)
}

/// Docker names no media type: the first bytes tell.
fn layer_type(cx: &Cx<'_>, content: &dyn Content, layer: &Descriptor) -> Result<String> {
    let blob = content.open(cx, &layer.digest)?;
    let mut magic = [0; 4];
    let read = blob.read_at(&mut magic, 0).map_err(|error| Error::internal(error.to_string()))?;
    Ok(match &magic[..read] {
        [0x1f, 0x8b, ..] => media::DOCKER_LAYER_GZIP.into(),
        [0x28, 0xb5, 0x2f, 0xfd] => "application/vnd.docker.image.rootfs.diff.tar.zstd".into(),
        _ => media::DOCKER_LAYER.into(),
    })
}

fn platform(cx: &Cx<'_>, content: &dyn Content, config: &Descriptor) -> Result<Option<Platform>> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(flatten)]
        platform: Platform,
    }
    let bytes = model::content::read_blob(content, cx, &config.digest, model::manifest::MAX_DOCUMENT)?;
    let config: Config = serde_json::from_slice(&bytes)
        .map_err(|error| Error::invalid(format!("malformed image config {}: {error}", config.digest)))?;
    Ok((!config.platform.os.is_empty()).then(|| config.platform.normalized()))
}
