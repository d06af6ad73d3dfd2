//! What a client works out of images by itself: it reads manifests over gRPC and walks them.

use std::collections::BTreeMap;

use api::containerd::services::content::v1 as content;
use api::containerd::services::diff::v1 as diff;
use api::containerd::services::images::v1 as wire;
use api::containerd::services::snapshots::v1 as snapshots;
use model::manifest as document;
use model::manifest::chain_ids;
use spec::image::{ImageConfig, Manifest};
use spec::platform::Rank;
use spec::{Descriptor, Digest, Platform, media};

use crate::client::Client;
use crate::failure::{Failure, OrFail, Result};

/// The largest manifest, index or config that is read, in bytes.
const MAX_DOCUMENT: usize = 8 << 20;

/// An image's record.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its name.
    pub name: String,
    /// Its index or manifest.
    pub target: Descriptor,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Image {
    fn from_wire(image: wire::Image) -> Result<Self> {
        let target =
            image.target.ok_or_else(|| Failure::new(format!("image {:?} has no target", image.name)))?;
        Ok(Self { name: image.name, target: descriptor(target)?, labels: image.labels })
    }
}

/// A descriptor off the wire.
///
/// # Errors
/// Its digest is none, or its size is negative.
pub fn descriptor(wire: api::containerd::types::Descriptor) -> Result<Descriptor> {
    let digest = wire.digest.parse().map_err(spec::Error::from)?;
    let size = u64::try_from(wire.size).map_err(|_| Failure::new(format!("{digest} has a negative size")))?;
    Ok(Descriptor { annotations: wire.annotations, ..Descriptor::new(wire.media_type, digest, size) })
}

/// A descriptor for the wire.
pub fn to_wire(descriptor: &Descriptor) -> api::containerd::types::Descriptor {
    api::containerd::types::Descriptor {
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest.to_string(),
        size: i64::try_from(descriptor.size).unwrap_or(i64::MAX),
        annotations: descriptor.annotations.clone(),
    }
}

/// Every image that passes.
pub async fn list(client: &Client, filters: Vec<String>) -> Result<Vec<Image>> {
    let response = client.images().list(wire::ListImagesRequest { filters }).await?.into_inner();
    response.images.into_iter().map(Image::from_wire).collect()
}

/// The image `name`; when there is none, says which other namespaces have it.
pub async fn get(client: &Client, name: &str) -> Result<Image> {
    match client.images().get(wire::GetImageRequest { name: name.into() }).await {
        Ok(response) => {
            let image = response.into_inner().image;
            Image::from_wire(image.ok_or_else(|| Failure::new(format!("image {name:?}: empty answer")))?)
        }
        Err(status) => {
            let failure = Failure::from(status);
            if failure.is_not_found() {
                let hint = match spec::Reference::familiar(name) {
                    Ok(full) if full.to_string() != name => {
                        format!("images are named in full; did you mean {full}?")
                    }
                    _ => format!("pull it first: ctr -n {} images pull {name}", client.namespace()),
                };
                return Err(failure.hint(hint));
            }
            Err(failure)
        }
    }
}

/// Whether the blob is here.
pub async fn has(client: &Client, digest: &Digest) -> Result<bool> {
    match client.content().info(content::InfoRequest { digest: digest.to_string() }).await {
        Ok(_) => Ok(true),
        Err(status) if status.code() == tonic::Code::NotFound => Ok(false),
        Err(status) => Err(status.into()),
    }
}

/// A small blob, or nothing when it is not here.
pub async fn read(client: &Client, digest: &Digest) -> Result<Option<Vec<u8>>> {
    let request = content::ReadContentRequest { digest: digest.to_string(), ..Default::default() };
    let mut stream = match client.content().read(request).await {
        Ok(response) => response.into_inner(),
        Err(status) if status.code() == tonic::Code::NotFound => return Ok(None),
        Err(status) => return Err(status.into()),
    };
    let mut bytes = Vec::new();
    loop {
        match stream.message().await {
            Ok(Some(response)) => bytes.extend_from_slice(&response.data),
            Ok(None) => return Ok(Some(bytes)),
            Err(status) if status.code() == tonic::Code::NotFound => return Ok(None),
            Err(status) => return Err(status.into()),
        }
        if bytes.len() > MAX_DOCUMENT {
            return Err(Failure::new(format!("{digest} is too large to be a manifest or config")));
        }
    }
}

/// The manifests of an image: itself, or those its index lists, in order.
pub async fn manifests(client: &Client, target: &Descriptor) -> Result<Vec<Descriptor>> {
    if !media::is_index(&target.media_type) {
        return Ok(vec![target.clone()]);
    }
    let Some(bytes) = read(client, &target.digest).await? else { return Ok(vec![]) };
    Ok(document::index(target, &bytes).map_err(spec::Error::from)?.manifests)
}

/// The manifest behind a descriptor, or nothing when it is not here.
pub async fn manifest(client: &Client, descriptor: &Descriptor) -> Result<Option<Manifest>> {
    if !media::is_manifest(&descriptor.media_type) {
        return Ok(None);
    }
    let Some(bytes) = read(client, &descriptor.digest).await? else { return Ok(None) };
    Ok(Some(document::manifest(descriptor, &bytes).map_err(spec::Error::from)?))
}

/// The config behind a manifest, or nothing when it is not here.
pub async fn config(client: &Client, manifest: &Manifest) -> Result<Option<ImageConfig>> {
    if !media::is_config(&manifest.config.media_type) {
        return Ok(None);
    }
    let Some(bytes) = read(client, &manifest.config.digest).await? else { return Ok(None) };
    Ok(Some(document::config(&manifest.config, &bytes).map_err(spec::Error::from)?))
}

/// What a manifest runs on: what its index says, else what its config says.
pub async fn platform(client: &Client, descriptor: &Descriptor) -> Result<Option<Platform>> {
    if let Some(platform) = &descriptor.platform {
        return Ok(Some(platform.clone().normalized()));
    }
    let Some(manifest) = manifest(client, descriptor).await? else { return Ok(None) };
    Ok(config(client, &manifest).await?.map(|config| config.platform.normalized()))
}

/// The platform of a manifest as `ls` shows it: that of its index as it is written there, else that of its config; `None`
/// for what runs nowhere, such as an attestation.
pub async fn listed_platform(client: &Client, descriptor: &Descriptor) -> Result<Option<Platform>> {
    match &descriptor.platform {
        Some(listed) if listed.os == "unknown" || listed.architecture == "unknown" => Ok(None),
        Some(listed) => Ok(Some(listed.clone())),
        None => platform(client, descriptor).await,
    }
}

/// The one image for `wanted` (this host when none): its manifest's descriptor, manifest and config.
pub struct Chosen {
    /// The manifest.
    pub manifest: Manifest,
    /// The config.
    pub config: ImageConfig,
}

impl Chosen {
    /// The name of the snapshot that holds all layers; `None` for an image without layers.
    pub fn chain_id(&self) -> Option<Digest> {
        chain_ids(&self.config.rootfs.diff_ids).pop()
    }
}

/// Of `manifests`, the one that `wanted` (this host, with what else it runs, when none) would run.
pub async fn best(
    client: &Client,
    manifests: Vec<Descriptor>,
    wanted: Option<&Platform>,
) -> Result<Option<Descriptor>> {
    let host = wanted.cloned().unwrap_or_else(Platform::host);
    let mut best: Option<(Rank, Descriptor)> = None;
    for descriptor in manifests {
        let Some(platform) = platform(client, &descriptor).await? else { continue };
        let exact = wanted.is_none() || platform.is_same_machine(&host);
        let Some(rank) = host.rank(&platform).filter(|_| exact) else { continue };
        if best.as_ref().is_none_or(|(known, _)| rank < *known) {
            best = Some((rank, descriptor));
        }
    }
    Ok(best.map(|(_, descriptor)| descriptor))
}

/// Finds the best manifest of `image` that is here.
pub async fn choose(client: &Client, image: &Image, wanted: Option<&Platform>) -> Result<Chosen> {
    let host = wanted.cloned().unwrap_or_else(Platform::host);
    let missing =
        || Failure::new(format!("image {:?} has no content for platform {host}: not found", image.name));
    if media::is_manifest(&image.target.media_type) {
        // The common case of `ctr run`, without asking twice for the same two documents.
        let manifest = manifest(client, &image.target).await?.ok_or_else(missing)?;
        let config = config(client, &manifest).await?.ok_or_else(missing)?;
        let platform = config.platform.clone().normalized();
        let fits =
            if wanted.is_some() { platform.is_same_machine(&host) } else { host.rank(&platform).is_some() };
        return if fits { Ok(Chosen { manifest, config }) } else { Err(missing()) };
    }
    let manifests = manifests(client, &image.target).await?;
    let descriptor = best(client, manifests, wanted).await?.ok_or_else(missing)?;
    let manifest = manifest(client, &descriptor).await?.ok_or_else(missing)?;
    let config = config(client, &manifest).await?.ok_or_else(missing)?;
    Ok(Chosen { manifest, config })
}

/// Whether every layer of the image for this host is a snapshot.
pub async fn is_unpacked(client: &Client, chosen: &Chosen, snapshotter: &str) -> Result<bool> {
    let Some(chain_id) = chosen.chain_id() else { return Ok(false) };
    has_snapshot(client, snapshotter, chain_id.as_str()).await
}

async fn has_snapshot(client: &Client, snapshotter: &str, key: &str) -> Result<bool> {
    let request = snapshots::StatSnapshotRequest { snapshotter: snapshotter.into(), key: key.into() };
    match client.snapshots().stat(request).await {
        Ok(_) => Ok(true),
        Err(status) if status.code() == tonic::Code::NotFound => Ok(false),
        Err(status) => Err(status.into()),
    }
}

/// Applies the image's layers, each to a snapshot of its own, where they are not yet; gives the last one's name.
pub async fn unpack(
    client: &Client,
    image: &Image,
    platform: Option<&Platform>,
    snapshotter: &str,
    sync_fs: bool,
) -> Result<Digest> {
    let lease = super::ctr::lease(client).await?;
    let leased = client.with_lease(&lease)?;
    let result = unpack_leased(&leased, image, platform, snapshotter, sync_fs).await;
    super::ctr::end_lease(client, lease).await?;
    result
}

async fn unpack_leased(
    client: &Client,
    image: &Image,
    platform: Option<&Platform>,
    snapshotter: &str,
    sync_fs: bool,
) -> Result<Digest> {
    let chosen = choose(client, image, platform).await?;
    let diff_ids =
        document::diff_ids(&chosen.config, chosen.manifest.layers.len()).map_err(spec::Error::from)?;
    let mut parent = String::new();
    for ((chain_id, diff_id), layer) in chain_ids(diff_ids).iter().zip(diff_ids).zip(&chosen.manifest.layers)
    {
        if !has_snapshot(client, snapshotter, chain_id.as_str()).await? {
            let layer = Layer { descriptor: layer, diff_id, chain_id, parent: &parent };
            layer.apply(client, snapshotter, sync_fs).await?;
        }
        parent = chain_id.to_string();
    }
    let Some(last) = chosen.chain_id() else {
        return Err(Failure::new(format!("image {:?} has no layers", image.name)));
    };
    let labels =
        BTreeMap::from([(format!("{}{snapshotter}", spec::label::GC_REF_SNAPSHOT), last.to_string())]);
    let update_mask = super::ctr::args::label_mask(&labels);
    let info =
        content::Info { digest: chosen.manifest.config.digest.to_string(), labels, ..Default::default() };
    client.content().update(content::UpdateRequest { info: Some(info), update_mask }).await?;
    Ok(last)
}

/// One layer on its way to become a snapshot.
struct Layer<'a> {
    descriptor: &'a Descriptor,
    diff_id: &'a Digest,
    chain_id: &'a Digest,
    parent: &'a str,
}

impl Layer<'_> {
    async fn apply(&self, client: &Client, snapshotter: &str, sync_fs: bool) -> Result {
        let key = format!("extract-{}-{} {}", std::process::id(), unique(), self.chain_id);
        let prepare = snapshots::PrepareSnapshotRequest {
            snapshotter: snapshotter.into(),
            key: key.clone(),
            parent: self.parent.into(),
            ..Default::default()
        };
        let mounts = client.snapshots().prepare(prepare).await?.into_inner().mounts;
        let result = self.fill(client, snapshotter, &key, mounts, sync_fs).await;
        if result.is_err() {
            let request = snapshots::RemoveSnapshotRequest { snapshotter: snapshotter.into(), key };
            // The first failure is the one to tell; the lease's end removes what this could not.
            let _leased = client.snapshots().remove(request).await;
        }
        result
    }

    async fn fill(
        &self,
        client: &Client,
        snapshotter: &str,
        key: &str,
        mounts: Vec<api::containerd::types::Mount>,
        sync_fs: bool,
    ) -> Result {
        let apply = diff::ApplyRequest {
            diff: Some(to_wire(self.descriptor)),
            mounts,
            sync_fs,
            ..Default::default()
        };
        let applied =
            client.diff().apply(apply).await.or_fail("failed to extract layer")?.into_inner().applied;
        let found = applied.unwrap_or_default().digest;
        if found != self.diff_id.as_str() {
            return Err(Failure::new(format!(
                "wrong diff id {found} calculated on extraction, expected {}",
                self.diff_id
            )));
        }
        let commit = snapshots::CommitSnapshotRequest {
            snapshotter: snapshotter.into(),
            name: self.chain_id.to_string(),
            key: key.into(),
            ..Default::default()
        };
        match client.snapshots().commit(commit).await {
            Err(status) if status.code() != tonic::Code::AlreadyExists => Err(status.into()),
            _ => Ok(()),
        }
    }
}

/// A number that no other call of this process gets.
fn unique() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}
