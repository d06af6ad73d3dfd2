//! `manifest.json`: the top of what `docker save` writes.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use model::content::{BlobReader, Commit, Content, Ingest, Open};
use model::manifest::{gc_labels, sha256};
use model::{Cx, Labels};
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use spec::{
    Algorithm, Descriptor, Digest, Error, Index, Kind, Manifest, Platform, Reference, Result, label, media,
};

use super::import::{PIECE, unique};
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

/// What becomes of the layers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Layers {
    /// Those that are not compressed are stored as gzip.
    pub compress: bool,
    /// Nothing keeps them once they are unpacked.
    pub discard: bool,
}

/// Makes manifests and an index of the rows, from the files that the archive had; the index.
pub(super) fn assemble(
    cx: &Cx<'_>,
    content: &dyn Content,
    rows: &[Row],
    files: &BTreeMap<String, Descriptor>,
    how: Layers,
) -> Result<Descriptor> {
    let mut compressed = BTreeMap::new();
    let mut entries = Vec::new();
    for row in rows {
        let missing = |what: &str, name: &str| Error::invalid(format!("{what} {name:?} not found"));
        let config = files.get(&row.config).ok_or_else(|| missing("image config", &row.config))?;
        let config = Descriptor { media_type: media::DOCKER_CONFIG.into(), ..config.clone() };
        let layers = row.layers.iter().map(|name| {
            let file = files.get(name).ok_or_else(|| missing("layer", name))?;
            let media_type = layer_type(cx, content, file)?;
            if !how.compress || media_type != media::DOCKER_LAYER {
                return Ok(Descriptor { media_type, ..file.clone() });
            }
            // Rows share their lower layers.
            if let Some(known) = compressed.get(&file.digest) {
                return Ok(Descriptor::clone(known));
            }
            let layer = compress(cx, content, file)?;
            compressed.insert(file.digest.clone(), layer.clone());
            Ok(layer)
        });
        let manifest = Manifest {
            schema_version: 2,
            media_type: media::DOCKER_MANIFEST.into(),
            layers: layers.collect::<Result<_>>()?,
            config,
            subject: None,
            annotations: BTreeMap::new(),
        };
        let layers = if how.discard { &[][..] } else { &manifest.layers };
        let children: Vec<_> = std::iter::once(&manifest.config).chain(layers).cloned().collect();
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

/// Stores a layer as gzip; its descriptor.
fn compress(cx: &Cx<'_>, content: &dyn Content, layer: &Descriptor) -> Result<Descriptor> {
    let open = Open { reference: unique("gzip"), total: 0, expected: None };
    let written = (|| {
        let mut source = BlobReader::new(content.open(cx, &layer.digest)?);
        let stored = Stored { ingest: content.ingest(cx, &open)?, hash: Context::new(&SHA256), size: 0 };
        let mut encoder = GzEncoder::new(stored, Compression::default());
        let mut buffer = vec![0; PIECE];
        let fail = |error: io::Error| {
            let errno = error.raw_os_error().unwrap_or(0);
            let error = error.downcast::<Error>();
            error.unwrap_or_else(|error| Error::new(Kind::from_errno(errno), error.to_string()))
        };
        loop {
            cx.check()?;
            let count = source.read(&mut buffer).map_err(fail)?;
            if count == 0 {
                break;
            }
            encoder.write_all(&buffer[..count]).map_err(fail)?;
        }
        let Stored { mut ingest, hash, size } = encoder.finish().map_err(fail)?;
        let digest = Digest::from_bytes(Algorithm::Sha256, hash.finish().as_ref())?;
        let labels = Labels::from([(label::UNCOMPRESSED.to_owned(), layer.digest.to_string())]);
        let commit = Commit { size: Some(size), expected: Some(digest.clone()), labels };
        match ingest.commit(cx, &commit) {
            Err(error) if error.kind() != Kind::AlreadyExists => Err(error),
            _ => Ok(Descriptor::new(media::DOCKER_LAYER_GZIP, digest, size)),
        }
    })();
    if written.is_err() {
        // Nobody will come back under this name.
        let _ = content.abort(cx, &open.reference);
    }
    written.map_err(|error: Error| error.context(format!("cannot compress layer {}", layer.digest)))
}

/// An ingest that is told what it will have stored.
struct Stored {
    ingest: Box<dyn Ingest>,
    hash: Context,
    size: u64,
}

impl Write for Stored {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.ingest.write(bytes).map_err(io::Error::other)?;
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn platform(cx: &Cx<'_>, content: &dyn Content, config: &Descriptor) -> Result<Option<Platform>> {
    let bytes = model::content::read_blob(content, cx, &config.digest, model::manifest::MAX_DOCUMENT)?;
    // Only these keys: an archive's config may lack what an image's must have.
    let platform: Platform = spec::json::from_slice(&bytes)
        .map_err(|error| Error::invalid(format!("malformed image config {}: {error}", config.digest)))?;
    Ok((!platform.os.is_empty()).then(|| platform.normalized()))
}
