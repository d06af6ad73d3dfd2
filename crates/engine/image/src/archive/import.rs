//! An archive into the stores.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use flate2::read::MultiGzDecoder;
use model::content::{Commit, Content, Open, read_blob};
use model::diff::Apply;
use model::image::Image;
use model::manifest::{self, MAX_DOCUMENT};
use model::{Ctx, Cx, Labels, Lane};
use ring::digest::{Context, SHA256};
use serde::Deserialize;
use spec::{Algorithm, Descriptor, Digest, Error, Kind, Platform, Result, media};
use tokio::sync::Semaphore;
use tracing::debug;

use super::docker::{self, Layers, Row};
use super::tar::{Entry, Reader};
use super::{DOCKER, INDEX, LAYOUT, VERSION};
use crate::fetch::Fetch;
use crate::images::{Images, Unpacked};
use crate::names::Names;
use crate::progress::{Sink, Tracker};
use crate::registry::Limits;
use crate::transfer::{self, Scope};
use crate::walk::{Walk, Wanted};
use crate::{Services, Unpack};

/// The longest `manifest.json`, in bytes.
const MAX_JSON: u64 = 20 << 20;
/// How many entries an archive may have.
const MAX_ENTRIES: usize = 200_000;
/// What is read at a time.
pub(super) const PIECE: usize = 256 << 10;

/// An import to be done.
#[derive(Clone)]
pub struct Import {
    /// What to record: `name` for the archive's whole index, the extra rules for its entries.
    pub names: Names,
    /// The platforms to keep; all when empty.
    pub platforms: Vec<Platform>,
    /// Where to unpack.
    pub unpack: Vec<Unpack>,
    /// How to apply layers.
    pub apply: Apply,
    /// Whether nothing keeps the layers once they are unpacked.
    pub discard_layers: bool,
    /// Whether layers that Docker saved as they were are stored as gzip.
    pub compress: bool,
}

/// What an import has brought.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The archive's index.
    pub index: Descriptor,
    /// The records.
    pub images: Vec<Image>,
    /// What was unpacked.
    pub unpacked: Vec<Unpacked>,
}

/// Imports the archive that `stream` gives; gzip and zstd around it are taken off.
///
/// Images of which the archive holds only some platforms are legal; what is missing is left out.
///
/// # Errors
/// `InvalidArgument` for what is no image archive; otherwise what the stream or the disk said.
pub async fn run(
    ctx: &Ctx,
    services: &Services,
    import: Import,
    stream: Box<dyn Read + Send>,
    sink: Option<Sink>,
) -> Result<Imported> {
    transfer::run(ctx, services, None, move |scope| async move {
        let tracker = Tracker::new(sink, &import.names.name, "importing");
        tracker.say("Importing");
        let ticking = tracker.clone();
        let outcome = tokio::select! {
            outcome = steps(scope, &import, stream, &tracker) => outcome,
            // Never ends; it only lives as long as the steps.
            () = ticking.tick() => Err(Error::internal("progress ended")),
        };
        tracker.flush();
        let imported = outcome?;
        for image in &imported.images {
            tracker.say_of("saved", &image.name, &image.target);
        }
        tracker.say("Completed import");
        Ok(imported)
    })
    .await
}

async fn steps(
    scope: Arc<Scope>,
    import: &Import,
    stream: Box<dyn Read + Send>,
    tracker: &Arc<Tracker>,
) -> Result<Imported> {
    let content = scope.services.content.clone();
    let room = super::room().await?;
    let how = Layers { compress: import.compress, discard: import.discard_layers };
    // The stream's other end sets the pace, so this waits rather than works.
    let index = scope.blocking(Lane::Stream, move |cx| unpack_archive(cx, &*content, stream, how)).await?;
    drop(room);
    let discard_layers = import.discard_layers;
    let fetch = Fetch { scope: scope.clone(), registry: None, source: None, discard_layers };
    let wanted = Wanted { platforms: import.platforms.clone(), skip_missing: true, ..Wanted::default() };
    let leaves = Walk { fetch: &fetch, tracker, wanted: &wanted }.run(&index, None).await?;
    let room = Semaphore::new(Limits::default().concurrent);
    let images = Images { fetch: &fetch, tracker, targets: &import.unpack, room: &room, apply: import.apply };
    let mut unpacked = Vec::new();
    for leaf in leaves.chunk_by(|_, _| false) {
        // Every image of an archive is unpacked, not only the best for a platform.
        unpacked.extend(images.run(leaf).await?);
    }
    let (names, services, top) = (import.names.clone(), scope.services.clone(), index.clone());
    let images = scope.blocking(Lane::Disk, move |cx| record(cx, &services, &names, &top)).await?;
    Ok(Imported { index, images, unpacked })
}

/// Writes the names of the index and of its entries.
fn record(cx: &Cx<'_>, services: &Services, names: &Names, index: &Descriptor) -> Result<Vec<Image>> {
    let mut images = match names.store_top(cx, &*services.images, index) {
        Err(error) if error.kind() == Kind::NotFound => Vec::new(),
        done => done?,
    };
    let bytes = read_blob(&*services.content, cx, &index.digest, MAX_DOCUMENT)?;
    for entry in manifest::index(index, &bytes)?.manifests {
        if services.content.info(cx, &entry.digest).is_err() {
            debug!(digest = %entry.digest, "not in the archive: not recorded");
            continue;
        }
        images.extend(names.store_entry(cx, &*services.images, &entry)?);
    }
    if images.is_empty() {
        return Err(Error::not_found("no image name found in the archive"));
    }
    Ok(images)
}

/// What the archive's files said of its kind.
#[derive(Default)]
struct Tops {
    layout: Option<Layout>,
    rows: Option<Vec<Row>>,
    files: BTreeMap<String, Descriptor>,
    links: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Layout {
    #[serde(rename = "imageLayoutVersion")]
    version: String,
}

/// Stores every file of the archive as content; the descriptor of its index.
fn unpack_archive(
    cx: &Cx<'_>,
    content: &dyn Content,
    stream: Box<dyn Read + Send>,
    how: Layers,
) -> Result<Descriptor> {
    let mut tar = Reader::new(plain(stream)?);
    let mut tops = Tops::default();
    for _ in 0..MAX_ENTRIES {
        cx.check()?;
        let Some((name, entry)) = tar.next()? else { return top(cx, content, tops, how) };
        let name = clean(&name);
        match entry {
            Entry::File(_) if name == LAYOUT => tops.layout = Some(json(&name, &tar.whole(MAX_JSON)?)?),
            Entry::File(_) if name == DOCKER => tops.rows = Some(json(&name, &tar.whole(MAX_JSON)?)?),
            Entry::File(size) => {
                let file = store(cx, content, &mut tar, &name, size)
                    .map_err(|error| error.context(format!("failed to ingest {name:?}")))?;
                tops.files.insert(name, file);
            }
            Entry::Link(to) => {
                let dir = name.rsplit_once('/').map_or("", |(dir, _)| dir);
                tops.links.insert(name.clone(), clean(&format!("{dir}/{to}")));
            }
            Entry::Other => {}
        }
    }
    Err(Error::invalid(format!("the archive has more than {MAX_ENTRIES} entries")))
}

/// The index of what has been read, made if need be.
fn top(cx: &Cx<'_>, content: &dyn Content, mut tops: Tops, how: Layers) -> Result<Descriptor> {
    if let Some(layout) = tops.layout {
        if layout.version != VERSION {
            return Err(Error::invalid(format!("unsupported OCI version {:?}", layout.version)));
        }
        let index = tops
            .files
            .remove(INDEX)
            .ok_or_else(|| Error::invalid(format!("missing {INDEX} in OCI layout {VERSION}")))?;
        return Ok(Descriptor { media_type: media::INDEX.into(), ..index });
    }
    let Some(rows) = tops.rows else { return Err(Error::invalid("unrecognized image format")) };
    for (name, to) in &tops.links {
        if let Some(file) = tops.files.get(to).cloned() {
            tops.files.insert(name.clone(), file);
        }
    }
    docker::assemble(cx, content, &rows, &tops.files, how)
}

/// Stores one file; a file of `blobs/` must have the digest that its name says.
fn store(
    cx: &Cx<'_>,
    content: &dyn Content,
    tar: &mut Reader<impl Read>,
    name: &str,
    size: u64,
) -> Result<Descriptor> {
    let expected = promised(name);
    let open = Open { reference: unique(name), total: size, expected: expected.clone() };
    let mut ingest = match content.ingest(cx, &open) {
        Ok(ingest) => ingest,
        Err(error) => match expected {
            // Its bytes are skipped by the next step of the reader.
            Some(digest) if error.kind() == Kind::AlreadyExists => {
                return Ok(Descriptor::new("", digest, size));
            }
            _ => return Err(error),
        },
    };
    let written = (|| {
        ingest.truncate(0)?;
        let mut buffer = vec![0; PIECE];
        // Only a file without a promised digest is hashed here too: its commit may find that the content exists.
        let mut hash = expected.is_none().then(|| Context::new(&SHA256));
        loop {
            cx.check()?;
            let count = tar.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            ingest.write(&buffer[..count])?;
            hash.iter_mut().for_each(|hash| hash.update(&buffer[..count]));
        }
        let found =
            hash.map(|hash| Digest::from_bytes(Algorithm::Sha256, hash.finish().as_ref())).transpose()?;
        let digest = expected.clone().or(found);
        let commit = Commit { size: Some(size), expected: digest.clone(), labels: Labels::new() };
        match (ingest.commit(cx, &commit), digest) {
            (Err(error), Some(digest)) if error.kind() == Kind::AlreadyExists => Ok(digest),
            (done, _) => done,
        }
    })();
    drop(ingest);
    if written.is_err() {
        // Nobody will come back under this name.
        let _ = content.abort(cx, &open.reference);
    }
    Ok(Descriptor::new("", written?, size))
}

/// The digest that a name in `blobs/` promises.
fn promised(name: &str) -> Option<Digest> {
    let (algorithm, hex) = name.strip_prefix("blobs/")?.split_once('/')?;
    format!("{algorithm}:{hex}").parse().ok()
}

pub(super) fn unique(name: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let name: String = name.chars().take(200).collect();
    format!("tar-{}-{:x}-{name}", now.as_nanos(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// `name` without `.`, `..`, doubled and leading slashes.
fn clean(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn json<T: serde::de::DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T> {
    spec::json::from_slice(bytes).map_err(|error| Error::invalid(format!("malformed {name}: {error}")))
}

/// Takes compression off the archive.
fn plain(stream: Box<dyn Read + Send>) -> Result<Box<dyn Read + Send>> {
    let mut stream = BufReader::with_capacity(PIECE, stream);
    let fail = |error: io::Error| Error::unavailable(format!("cannot read the archive: {error}"));
    let mut magic = Vec::new();
    (&mut stream).take(4).read_to_end(&mut magic).map_err(fail)?;
    let whole = io::Cursor::new(magic.clone()).chain(stream);
    Ok(match magic.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(whole)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::Decoder::new(whole).map_err(fail)?),
        _ => Box::new(whole),
    })
}
