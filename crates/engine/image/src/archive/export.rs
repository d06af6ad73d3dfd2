//! Images of the store into an archive.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::Arc;

use model::content::{Content, read_blob};
use model::manifest::{self, MAX_DOCUMENT, select};
use model::{Ctx, Cx, Lane};
use ring::digest;
use spec::{Algorithm, Descriptor, Digest, Error, Index, Kind, Platform, Reference, Result, label, media};
use tracing::debug;

use super::docker::Row;
use super::tar::Writer;
use super::{DOCKER, INDEX, LAYOUT, VERSION};
use crate::Services;
use crate::names::{IMAGE_NAME, REF_NAME};
use crate::progress::{Sink, Tracker};
use crate::transfer;

/// How deep indexes may name indexes.
const MAX_DEPTH: usize = 8;
/// What is read at a time.
const PIECE: usize = 256 << 10;

/// An export to be done.
#[derive(Clone, Debug, Default)]
pub struct Export {
    /// The images by name.
    pub images: Vec<(String, Descriptor)>,
    /// The platforms to write; all that the store has when empty.
    pub platforms: Vec<Platform>,
    /// Whether to leave `manifest.json` out, which only Docker reads.
    pub skip_docker_manifest: bool,
    /// Whether to leave out layers that may not be distributed.
    pub skip_non_distributable: bool,
}

/// Writes the archive to `stream`.
///
/// # Errors
/// `NotFound` when the store lacks part of an image; `DataLoss` when a blob is not what its digest says.
pub async fn run(
    ctx: &Ctx,
    services: &Services,
    export: Export,
    stream: Box<dyn Write + Send>,
    sink: Option<Sink>,
) -> Result<()> {
    transfer::run(ctx, services, None, move |scope| async move {
        let tracker = Tracker::new(sink, "", "exporting");
        tracker.say("Exporting");
        let content = scope.services.content.clone();
        let _room = super::room().await?;
        // The stream's other end sets the pace, so this waits rather than works.
        scope.blocking(Lane::Stream, move |cx| write(cx, &content, &export, stream)).await?;
        tracker.say("Completed export");
        Ok(())
    })
    .await
}

/// What goes into the archive.
#[derive(Default)]
struct Plan {
    blobs: BTreeMap<String, Descriptor>,
    entries: Vec<Descriptor>,
    /// The manifests that Docker can load, with the names of their images.
    loadable: BTreeMap<Digest, (Descriptor, Vec<String>)>,
}

fn write(
    cx: &Cx<'_>,
    content: &Arc<dyn Content>,
    export: &Export,
    stream: Box<dyn Write + Send>,
) -> Result<()> {
    let mut plan = Plan::default();
    for (name, target) in &export.images {
        plan.image(cx, &**content, export, name, target)?;
    }
    let mut dirs = BTreeSet::from(["blobs/".to_owned()]);
    dirs.extend(plan.blobs.values().map(|blob| format!("blobs/{}/", blob.digest.algorithm().as_str())));
    let mut tar = Writer::new(io::BufWriter::with_capacity(PIECE, stream));
    for dir in &dirs {
        tar.dir(dir).map_err(unwritten)?;
    }
    for (name, blob) in &plan.blobs {
        cx.check()?;
        copy(cx, &**content, &mut tar, name, blob)?;
    }
    let index = Index {
        schema_version: 2,
        media_type: media::INDEX.into(),
        manifests: plan.entries.clone(),
        annotations: BTreeMap::new(),
    };
    file(&mut tar, INDEX, 0o644, &json(&index)?)?;
    if !export.skip_docker_manifest && !plan.loadable.is_empty() {
        let rows = plan.loadable.values();
        let rows = rows.map(|(manifest, names)| row(cx, &**content, manifest, names));
        file(&mut tar, DOCKER, 0o644, &json(&rows.collect::<Result<Vec<_>>>()?)?)?;
    }
    let layout = serde_json::json!({ "imageLayoutVersion": VERSION });
    file(&mut tar, LAYOUT, 0o444, &json(&layout)?)?;
    tar.finish().map_err(unwritten)
}

impl Plan {
    /// Adds one image.
    fn image(
        &mut self,
        cx: &Cx<'_>,
        content: &dyn Content,
        export: &Export,
        name: &str,
        target: &Descriptor,
    ) -> Result<()> {
        let kind = &target.media_type;
        if !media::is_index(kind) && !media::is_manifest(kind) {
            return Err(Error::invalid("only manifests may be exported"));
        }
        let manifests = self.tree(cx, content, export, target, 0)?;
        let platform = export.platforms.first().cloned().unwrap_or_else(Platform::host);
        let best = select(&manifests, std::slice::from_ref(&platform)).into_iter().next();
        if let Some(best) = best.or_else(|| manifests.first().cloned()) {
            let (_, names) = self.loadable.entry(best.digest.clone()).or_insert((best, Vec::new()));
            names.push(name.to_owned());
        }
        let mut entry = target.clone();
        entry.annotations.insert(IMAGE_NAME.into(), name.to_owned());
        entry.annotations.insert(REF_NAME.into(), tag(name));
        for (key, value) in content.info(cx, &target.digest)?.labels {
            if key.starts_with(label::DISTRIBUTION_SOURCE) {
                entry.annotations.insert(key, value);
            }
        }
        self.entries.push(entry);
        Ok(())
    }

    /// Adds everything below a document; the manifests of images in it.
    fn tree(
        &mut self,
        cx: &Cx<'_>,
        content: &dyn Content,
        export: &Export,
        document: &Descriptor,
        depth: usize,
    ) -> Result<Vec<Descriptor>> {
        if depth >= MAX_DEPTH {
            return Err(Error::invalid(format!("indexes nested more than {MAX_DEPTH} deep")));
        }
        let bytes = read_blob(content, cx, &document.digest, MAX_DOCUMENT)?;
        let children = manifest::children(document, &bytes)?;
        self.add(document);
        if media::is_manifest(&document.media_type) {
            for child in &children {
                let skipped = media::is_non_distributable(&child.media_type) && export.skip_non_distributable;
                if !skipped {
                    // Here and not in the middle of the archive is where a missing layer is told.
                    content.info(cx, &child.digest)?;
                    self.add(child);
                }
            }
            return Ok(vec![document.clone()]);
        }
        let mut manifests = Vec::new();
        for child in select(&children, &export.platforms) {
            match content.info(cx, &child.digest) {
                Err(error) if error.kind() == Kind::NotFound => {
                    debug!(digest = %child.digest, "not in the store: not exported");
                }
                Err(error) => return Err(error),
                Ok(_) if media::is_manifest(&child.media_type) || media::is_index(&child.media_type) => {
                    manifests.extend(self.tree(cx, content, export, &child, depth + 1)?);
                }
                Ok(_) => self.add(&child),
            }
        }
        if manifests.is_empty() && depth == 0 {
            return Err(Error::not_found("no manifest found for platform"));
        }
        Ok(manifests)
    }

    fn add(&mut self, blob: &Descriptor) {
        let name = path(&blob.digest);
        self.blobs.insert(name, blob.clone());
    }
}

fn path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().as_str(), digest.hex())
}

/// Writes one blob, and checks on the way that it still is what its digest says.
fn copy(
    cx: &Cx<'_>,
    content: &dyn Content,
    tar: &mut Writer<impl Write>,
    name: &str,
    blob: &Descriptor,
) -> Result<()> {
    let open = content.open(cx, &blob.digest)?;
    let size = open.size();
    tar.file(name, 0o444, size).map_err(unwritten)?;
    let mut hash = digest::Context::new(match blob.digest.algorithm() {
        Algorithm::Sha256 => &digest::SHA256,
        Algorithm::Sha384 => &digest::SHA384,
        Algorithm::Sha512 => &digest::SHA512,
    });
    let (mut buffer, mut at) = (vec![0; PIECE], 0);
    while at < size {
        cx.check()?;
        let count = open
            .read_at(&mut buffer, at)
            .map_err(|error| Error::internal(format!("cannot read {}: {error}", blob.digest)))?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        tar.data(&buffer[..count]).map_err(unwritten)?;
        at += count as u64;
    }
    let found = Digest::from_bytes(blob.digest.algorithm(), hash.finish().as_ref());
    if at != size || found.as_ref() != Ok(&blob.digest) {
        return Err(Error::worded(Kind::DataLoss, format!("unexpected digest copied of {}", blob.digest)));
    }
    tar.pad(size).map_err(unwritten)
}

fn file(tar: &mut Writer<impl Write>, name: &str, mode: u32, bytes: &[u8]) -> Result<()> {
    let size = bytes.len() as u64;
    tar.file(name, mode, size).map_err(unwritten)?;
    tar.data(bytes).map_err(unwritten)?;
    tar.pad(size).map_err(unwritten)
}

/// A row of `manifest.json`.
fn row(cx: &Cx<'_>, content: &dyn Content, manifest: &Descriptor, names: &[String]) -> Result<Row> {
    let bytes = read_blob(content, cx, &manifest.digest, MAX_DOCUMENT)?;
    let manifest = manifest::manifest(manifest, &bytes)?;
    Ok(Row {
        config: path(&manifest.config.digest),
        repo_tags: Some(names.iter().map(|name| familiar(name)).collect()),
        layers: manifest.layers.iter().map(|layer| path(&layer.digest)).collect(),
    })
}

/// What OCI puts into a layout for a name: its tag, or all of it when it has none.
fn tag(name: &str) -> String {
    let reference: Option<Reference> = name.parse().ok();
    let tag = reference.as_ref().and_then(Reference::tag);
    tag.unwrap_or(name).to_owned()
}

/// The name as Docker shows it.
fn familiar(name: &str) -> String {
    let short = name.strip_prefix("docker.io/").unwrap_or(name);
    short.strip_prefix("library/").filter(|_| short != name).unwrap_or(short).to_owned()
}

fn json(document: &impl serde::Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(document).map_err(|error| Error::internal(error.to_string()))
}

fn unwritten(error: io::Error) -> Error {
    Error::unavailable(format!("cannot write the archive: {error}"))
}
