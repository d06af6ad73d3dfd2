//! The layers of one image into snapshots, while they are downloaded.
//!
//! Where the driver can rebase, every layer is applied into a snapshot without a parent, several at once, each from the
//! very bytes that its download writes; the snapshots are then committed from the bottom up, each onto the one below.
//! Other drivers get one layer after the other, each on its parent, while later layers download.
//!
//! ```text
//!  layer i:  prepare -> [ download || hash + write || inflate + apply ] -> digest and diff id hold -> commit on i-1
//! ```
//!
//! Invariant: a snapshot is committed only when the digest of its layer, its diff id, and the whole chain below it hold.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::TryStreamExt as _;
use futures_util::stream::FuturesUnordered;
use model::content::{Blob, BlobReader};
use model::diff::{Applied, Apply};
use model::manifest::chain_ids;
use model::mask::Mask;
use model::snapshot::{Commit, Mount, REBASE};
use model::{Labels, Lane};
use spec::{Descriptor, Digest, Error, Kind, Result, label};
use tokio::sync::{Semaphore, oneshot};
use tracing::debug;

use crate::Unpack;
use crate::fetch::{Fetch, Opened, Took, tee};
use crate::labels;
use crate::progress::Node;

/// How many layers the whole daemon applies while they download: half of the lane that they work in. Any further layer is
/// applied once it is stored.
static OVERLAPPED: Semaphore = Semaphore::const_new(8);

/// One layer of an image.
pub(crate) struct Layer {
    pub descriptor: Descriptor,
    pub diff_id: Digest,
    pub node: Arc<Node>,
}

/// The layers of an image on their way into one driver's snapshots.
pub(crate) struct Layers<'a> {
    pub fetch: &'a Fetch,
    pub target: &'a Unpack,
    /// The image's manifest.
    pub manifest: &'a Digest,
    pub layers: &'a [Layer],
    /// Bounds how many layers are on their way at once.
    pub room: &'a Semaphore,
    pub apply: Apply,
}

/// A layer that waits to be committed.
enum Ready {
    /// Its snapshot is there, made by us earlier or by somebody else.
    Exists,
    /// Its snapshot is applied under this key.
    Prepared(String),
}

impl Layers<'_> {
    /// Fetches and unpacks every layer; the chain id of the top one, or `None` for an image without layers.
    pub async fn run(&self) -> Result<Option<Digest>> {
        let diff_ids: Vec<Digest> = self.layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let chain = chain_ids(&diff_ids);
        let from = self.first_missing(&chain).await?;
        let below = self.layers[..from].iter().map(|layer| self.only_fetch(layer));
        let below = futures_util::future::try_join_all(below);
        let above = async {
            if self.target.driver.capabilities().contains(&REBASE) {
                self.parallel(&chain, from).await
            } else {
                self.sequential(&chain, from).await
            }
        };
        futures_util::future::try_join(below, above).await?;
        Ok(chain.last().cloned())
    }

    /// The lowest layer whose snapshot is missing. A snapshot's parents exist as long as it does.
    async fn first_missing(&self, chain: &[Digest]) -> Result<usize> {
        let (driver, names) = (self.target.driver.clone(), chain.to_vec());
        self.fetch
            .scope
            .blocking(Lane::Disk, move |cx| {
                for (at, name) in names.iter().enumerate().rev() {
                    match driver.stat(cx, name.as_str()) {
                        Ok(_) => return Ok(at + 1),
                        Err(error) if error.kind() == Kind::NotFound => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(0)
            })
            .await
    }

    /// A layer that is unpacked already: its blob still belongs to the image.
    async fn only_fetch(&self, layer: &Layer) -> Result<()> {
        let _room = self.room().await?;
        self.fetch.blob(&layer.descriptor, &layer.node).await
    }

    async fn room(&self) -> Result<tokio::sync::SemaphorePermit<'_>> {
        self.room.acquire().await.map_err(|_| Error::internal("the transfer is closed"))
    }

    async fn parallel(&self, chain: &[Digest], from: usize) -> Result<()> {
        let (done, waits): (Vec<_>, Vec<_>) = (from..chain.len()).map(|_| oneshot::channel()).unzip();
        // Unordered, so that the first failure ends all, not the lowest.
        let layers: FuturesUnordered<_> = (from..chain.len())
            .zip(done)
            .map(|(at, done)| async move {
                let ready = self.layer(chain, at, "").await?;
                // The receiver is gone only when a commit has failed, which ends everything.
                let _ = done.send(ready);
                Ok::<(), Error>(())
            })
            .collect();
        let commits = async {
            for (at, wait) in (from..).zip(waits) {
                let ready = wait.await.map_err(|_| Error::new(Kind::Canceled, "a layer failed"))?;
                let parent = at.checked_sub(1).map(|below| chain[below].to_string());
                self.commit(chain, at, ready, parent).await?;
            }
            Ok(())
        };
        futures_util::future::try_join(layers.try_collect::<()>(), commits).await?;
        Ok(())
    }

    async fn sequential(&self, chain: &[Digest], from: usize) -> Result<()> {
        let (done, waits): (Vec<_>, Vec<_>) = self.layers[from..].iter().map(|_| oneshot::channel()).unzip();
        let fetches = self.layers[from..].iter().zip(done).map(|(layer, done)| async move {
            self.only_fetch(layer).await?;
            // The receiver is gone only when the unpacking has failed, which ends everything.
            let _ = done.send(());
            Ok::<(), Error>(())
        });
        let unpack = async {
            for (at, wait) in (from..).zip(waits) {
                wait.await.map_err(|_| Error::new(Kind::Canceled, "the download of a layer failed"))?;
                let parent = at.checked_sub(1).map(|below| chain[below].to_string()).unwrap_or_default();
                let ready = self.unpack_stored(chain, at, &parent).await?;
                self.commit(chain, at, ready, None).await?;
            }
            Ok::<(), Error>(())
        };
        futures_util::future::try_join(futures_util::future::try_join_all(fetches), unpack).await?;
        Ok(())
    }

    /// Fetches and applies one layer into a snapshot on `parent`.
    async fn layer(&self, chain: &[Digest], at: usize, parent: &str) -> Result<Ready> {
        let _room = self.room().await?;
        let layer = &self.layers[at];
        let Some((key, mounts)) = self.prepare(chain, at, parent).await? else {
            // A remote snapshotter has it without its blob; any other lost a race, and the blob belongs to the image.
            self.fetch.blob(&layer.descriptor, &layer.node).await?;
            layer.node.extracted();
            return Ok(Ready::Exists);
        };
        let ingest = match self.fetch.open(&layer.descriptor).await? {
            Opened::Exists => {
                self.fetch.found(&layer.descriptor, &layer.node).await?;
                return self.apply_existing(chain, at, parent, (key, mounts)).await;
            }
            Opened::Ours(ingest) => ingest,
        };
        let overlap = OVERLAPPED.try_acquire();
        if ingest.status().offset > 0 || overlap.is_err() {
            // No room, or the head of the layer is behind us already and the tail alone cannot be applied.
            drop(overlap);
            self.fetch.download(&layer.descriptor, &layer.node, ingest, None).await?;
            return self.apply_stored(layer, key, mounts).await;
        }
        let (tee, reader) = tee(layer.descriptor.size, &layer.node);
        let (started, running) = oneshot::channel();
        let apply = self.apply(layer, &mounts, reader, Some(started));
        let download = async {
            // The applying stage first: the writing stage, which holds a thread of its own, then never waits for it.
            let _ = running.await;
            self.fetch.download(&layer.descriptor, &layer.node, ingest, Some(tee)).await
        };
        let (applied, downloaded) = tokio::join!(apply, download);
        match (downloaded?, applied) {
            // The bytes were wrong at first; what was made of them is thrown away and made again.
            (Took::SeveralTries, _) => {
                self.drop_snapshot(&key).await?;
                self.unpack_stored(chain, at, parent).await
            }
            (Took::OneTry, Ok(applied)) => self.checked(layer, key, &applied),
            (Took::OneTry, Err(error)) => Err(self.extract_error(layer, &key, error)),
        }
    }

    /// Applies one layer, whose blob is in the store, into a new snapshot on `parent`.
    async fn unpack_stored(&self, chain: &[Digest], at: usize, parent: &str) -> Result<Ready> {
        match self.prepare(chain, at, parent).await? {
            None => Ok(Ready::Exists),
            Some(prepared) => self.apply_existing(chain, at, parent, prepared).await,
        }
    }

    /// Applies a layer that was in the store before; one whose bytes prove damaged is fetched again first.
    async fn apply_existing(
        &self,
        chain: &[Digest],
        at: usize,
        parent: &str,
        (key, mounts): (String, Vec<Mount>),
    ) -> Result<Ready> {
        let layer = &self.layers[at];
        let error = match self.apply_stored(layer, key.clone(), mounts).await {
            Ok(ready) => return Ok(ready),
            Err(error) => error,
        };
        if !self.fetch.repair(&layer.descriptor, &layer.node).await? {
            return Err(error);
        }
        self.drop_snapshot(&key).await?;
        match self.prepare(chain, at, parent).await? {
            None => Ok(Ready::Exists),
            Some((key, mounts)) => self.apply_stored(layer, key, mounts).await,
        }
    }

    async fn apply_stored(&self, layer: &Layer, key: String, mounts: Vec<Mount>) -> Result<Ready> {
        let (content, digest) = (self.fetch.scope.services.content.clone(), layer.descriptor.digest.clone());
        let blob = self.fetch.scope.blocking(Lane::Disk, move |cx| content.open(cx, &digest)).await?;
        let reader = Counting { blob: BlobReader::new(blob), at: 0, node: layer.node.clone() };
        let applied = self.apply(layer, &mounts, reader, None).await;
        let applied = applied.map_err(|error| self.extract_error(layer, &key, error))?;
        self.checked(layer, key, &applied)
    }

    /// Runs the differ over `reader`; what it leaves unread is read too, so that the stage before can end.
    async fn apply(
        &self,
        layer: &Layer,
        mounts: &[Mount],
        mut reader: impl Read + Send + 'static,
        started: Option<oneshot::Sender<()>>,
    ) -> Result<Applied> {
        let (differ, media_type) =
            (self.fetch.scope.services.differ.clone(), layer.descriptor.media_type.clone());
        let (mounts, apply) = (mounts.to_vec(), self.apply);
        self.fetch
            .scope
            .blocking(Lane::Cpu, move |cx| {
                if let Some(started) = started {
                    let _ = started.send(());
                }
                let done = differ.apply_stream(cx, &media_type, &mut reader, &mounts, &apply);
                let rest = done.is_ok().then(|| std::io::copy(&mut reader, &mut std::io::sink()));
                match rest {
                    // The tee ended early: the download failed, or began again without us.
                    Some(Err(error)) => Err(Error::new(Kind::Aborted, error.to_string())),
                    _ => done,
                }
            })
            .await
    }

    fn checked(&self, layer: &Layer, key: String, applied: &Applied) -> Result<Ready> {
        if applied.diff_id != layer.diff_id {
            return Err(Error::invalid(format!(
                "wrong diff id {:?} calculated on extraction {:?}, desc {:?}",
                applied.diff_id.as_str(),
                layer.diff_id.as_str(),
                layer.descriptor.digest.as_str()
            )));
        }
        layer.node.extracted();
        Ok(Ready::Prepared(key))
    }

    fn extract_error(&self, layer: &Layer, key: &str, error: Error) -> Error {
        let Descriptor { media_type, digest, .. } = &layer.descriptor;
        error.context(format!(
            "failed to extract layer ({media_type} {digest}) to {} as {key:?}",
            self.target.snapshotter
        ))
    }

    /// Prepares the snapshot of a layer; `None` when the snapshot that it should become is there.
    async fn prepare(
        &self,
        chain: &[Digest],
        at: usize,
        parent: &str,
    ) -> Result<Option<(String, Vec<Mount>)>> {
        let labels = self.snapshot_labels(chain, at);
        let key = format!("extract-{} {}", unique(), chain[at]);
        let (driver, name, parent) = (self.target.driver.clone(), chain[at].to_string(), parent.to_owned());
        // Registered first, so that no moment is left in which it would be lost.
        self.fetch.scope.hold(&self.target.driver, &key);
        let own = key.clone();
        let prepared = self
            .fetch
            .scope
            .blocking(Lane::Disk, move |cx| match driver.prepare(cx, &own, &parent, &labels) {
                Ok(mounts) => Ok(Some(mounts)),
                Err(error) if error.kind() == Kind::AlreadyExists => {
                    driver.stat(cx, &name).map(|_| None).map_err(|_| error)
                }
                Err(error) => Err(error.context(format!("failed to prepare extraction snapshot {own:?}"))),
            })
            .await?;
        if prepared.is_none() {
            self.fetch.scope.release(&key);
        }
        Ok(prepared.map(|mounts| (key, mounts)))
    }

    fn snapshot_labels(&self, chain: &[Digest], at: usize) -> Labels {
        let layer = &self.layers[at];
        let annotations = layer.descriptor.annotations.iter();
        // Only what is meant for snapshotters: any other annotation of an image must not become a label of ours.
        let mut labels: Labels = annotations
            .filter(|(key, value)| {
                key.starts_with("containerd.io/snapshot/") && label::check(key, value).is_ok()
            })
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        labels.insert(label::SNAPSHOT_REF.into(), chain[at].to_string());
        labels.insert("containerd.io/snapshot/diff-id".into(), layer.diff_id.to_string());
        if let Some(below) = at.checked_sub(1) {
            labels.insert("containerd.io/snapshot/parent-chain-id".into(), chain[below].to_string());
        }
        if let Some(name) = &self.target.told_of {
            let digests = self.layers[at..].iter().map(|layer| layer.descriptor.digest.as_str());
            labels.extend(origin(name, self.manifest, digests));
        }
        labels
    }

    /// Commits one layer, whose chain below is committed, and notes the diff id on its blob.
    async fn commit(&self, chain: &[Digest], at: usize, ready: Ready, parent: Option<String>) -> Result<()> {
        let Ready::Prepared(key) = ready else { return Ok(()) };
        let layer = &self.layers[at];
        let commit = Commit { labels: self.snapshot_labels(chain, at), parent };
        let (driver, name, own) = (self.target.driver.clone(), chain[at].to_string(), key.clone());
        let (content, digest) = (self.fetch.scope.services.content.clone(), layer.descriptor.digest.clone());
        let uncompressed = Labels::from([(label::UNCOMPRESSED.to_owned(), layer.diff_id.to_string())]);
        self.fetch
            .scope
            .blocking(Lane::Disk, move |cx| {
                match driver.commit(cx, &name, &own, &commit) {
                    Ok(()) => {}
                    // Somebody unpacked the same chain at the same time; theirs will do.
                    Err(error) if error.kind() == Kind::AlreadyExists => driver.remove(cx, &own)?,
                    Err(error) => return Err(error.context(format!("failed to commit snapshot {own}"))),
                }
                labels::ensure(cx, &*content, &digest, &uncompressed, None)
            })
            .await?;
        self.fetch.scope.release(&key);
        debug!(layer = %layer.descriptor.digest, "layer unpacked");
        Ok(())
    }

    async fn drop_snapshot(&self, key: &str) -> Result<()> {
        let (driver, own) = (self.target.driver.clone(), key.to_owned());
        self.fetch.scope.blocking(Lane::Disk, move |cx| driver.remove(cx, &own)).await?;
        self.fetch.scope.release(key);
        Ok(())
    }
}

/// Labels that say of which image a layer is; `layers` are its own digest and those of the layers above it. They say CRI,
/// but stargz, nydus and soci read them whoever pulls.
fn origin<'a>(name: &str, manifest: &Digest, layers: impl Iterator<Item = &'a str>) -> Labels {
    let key = |last: &str| format!("containerd.io/snapshot/cri.{last}");
    let (many, mut list, mut own) = (key("image-layers"), String::new(), "");
    for digest in layers {
        own = if list.is_empty() { digest } else { own };
        let longer = if list.is_empty() { digest.to_owned() } else { format!("{list},{digest}") };
        // As many as a label holds: leaving some out costs those drivers time and nothing else.
        if label::check(&many, &longer).is_err() {
            break;
        }
        list = longer;
    }
    let labels = Labels::from([
        (key("image-ref"), name.to_owned()),
        (key("manifest-digest"), manifest.to_string()),
        (key("layer-digest"), own.to_owned()),
        (many, list),
    ]);
    labels.into_iter().filter(|(key, value)| label::check(key, value).is_ok()).collect()
}

/// Notes on the config that it keeps the snapshot `chain_id` of `snapshotter`.
pub(crate) async fn keep_snapshot(
    fetch: &Fetch,
    config: &Descriptor,
    snapshotter: &str,
    chain_id: &Digest,
) -> Result<()> {
    let (content, digest) = (fetch.scope.services.content.clone(), config.digest.clone());
    let key = format!("{}{snapshotter}", label::GC_REF_SNAPSHOT);
    let labels = Labels::from([(key.clone(), chain_id.to_string())]);
    let mask = Mask::new([format!("labels.{key}")]);
    fetch.scope.blocking(Lane::Disk, move |cx| content.update(cx, &digest, &labels, &mask).map(|_| ())).await
}

/// What distinguishes the extraction of one layer from another of the same.
fn unique() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}-{:x}", now.as_nanos(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A stored layer that counts what is read of it.
struct Counting {
    blob: BlobReader<Box<dyn Blob>>,
    at: u64,
    node: Arc<Node>,
}

impl Read for Counting {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.blob.read(buffer)?;
        self.at += count as u64;
        self.node.extracted_to(self.at);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_says_of_which_image_it_is_and_names_as_many_above_it_as_a_label_holds() {
        let manifest: Digest = format!("sha256:{}", "a".repeat(64)).parse().unwrap();
        let layers: Vec<String> = (0..100).map(|number| format!("sha256:{number:064}")).collect();
        let labels = origin("r.example/a:v1", &manifest, layers.iter().map(String::as_str));
        let value = |last: &str| labels[&format!("containerd.io/snapshot/cri.{last}")].as_str();
        assert_eq!(value("image-ref"), "r.example/a:v1");
        assert_eq!(value("manifest-digest"), manifest.as_str());
        assert_eq!(value("layer-digest"), layers[0]);
        let named: Vec<&str> = value("image-layers").split(',').collect();
        assert_eq!(named, layers[..56]);
    }
}
