//! Walking an image: what a manifest or an index names, which of it a platform wants, and the labels that keep it.
//!
//! Pure functions over bytes and descriptors, so that the daemon's pull and a client's check read images the same way.
//!
//! Invariant: bytes that claim to be a manifest and an index at once are refused, whatever media type they come under.

use std::collections::BTreeMap;

use ring::digest::{SHA256, digest};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use spec::{
    Algorithm, Descriptor, Digest, HasKind, ImageConfig, Index, Kind, Labels, Manifest, Platform, json,
    label, media,
};

/// The longest manifest, index or config that is read, in bytes.
pub const MAX_DOCUMENT: u64 = 8 << 20;

/// Why a document of an image was refused.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not JSON, or without a field that it must have.
    #[error("malformed {media_type} {digest}: invalid argument")]
    Malformed {
        /// What it should be.
        media_type: String,
        /// Which.
        digest: Digest,
        /// What the parser met.
        source: serde_json::Error,
    },
    /// One kind of document under another's media type.
    #[error("{digest}: media-type: expected {wanted} but found {found} ({media_type}): invalid argument")]
    Confused {
        /// Which.
        digest: Digest,
        /// What the descriptor says.
        wanted: &'static str,
        /// What the bytes say.
        found: &'static str,
        /// The descriptor's media type.
        media_type: String,
    },
    /// Docker's schema 1, which has no digests for its layers' contents.
    #[error("schema 1 image manifests are no longer supported: invalid argument")]
    Schema1,
    /// The config names another number of layers than the manifest.
    #[error("number of layers and diffIDs don't match: {layers} != {diff_ids}: invalid argument")]
    Layers {
        /// How many layers the manifest has.
        layers: usize,
        /// How many diff ids the config has.
        diff_ids: usize,
    },
}

impl HasKind for DocumentError {
    fn kind(&self) -> Kind {
        match self {
            Self::Malformed { .. } | Self::Confused { .. } | Self::Schema1 | Self::Layers { .. } => {
                Kind::InvalidArgument
            }
        }
    }
}

/// What every document may say about its own kind.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Unknown {
    #[serde(default)]
    media_type: String,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    manifests: Option<IgnoredAny>,
    fs_layers: Option<IgnoredAny>,
}

/// Reads an index.
///
/// # Errors
/// The bytes are malformed, or something else than an index.
pub fn index(descriptor: &Descriptor, bytes: &[u8]) -> Result<Index, DocumentError> {
    let unknown = sniff(descriptor, bytes)?;
    if unknown.config.is_some() || unknown.layers.is_some() || media::is_manifest(&unknown.media_type) {
        return Err(confused(descriptor, "index", "manifest"));
    }
    parse(descriptor, bytes)
}

/// Reads one image's manifest.
///
/// # Errors
/// The bytes are malformed, or something else than a manifest.
pub fn manifest(descriptor: &Descriptor, bytes: &[u8]) -> Result<Manifest, DocumentError> {
    let unknown = sniff(descriptor, bytes)?;
    if unknown.manifests.is_some() || media::is_index(&unknown.media_type) {
        return Err(confused(descriptor, "manifest", "index"));
    }
    parse(descriptor, bytes)
}

/// Reads an image's config.
///
/// # Errors
/// The bytes are malformed.
pub fn config(descriptor: &Descriptor, bytes: &[u8]) -> Result<ImageConfig, DocumentError> {
    parse(descriptor, bytes)
}

/// What the document `bytes` under `descriptor` names, in its order; nothing for a media type that names nothing.
///
/// # Errors
/// As [`index`] and [`manifest`].
pub fn children(descriptor: &Descriptor, bytes: &[u8]) -> Result<Vec<Descriptor>, DocumentError> {
    if media::is_index(&descriptor.media_type) {
        return Ok(index(descriptor, bytes)?.manifests);
    }
    if media::is_manifest(&descriptor.media_type) {
        let manifest = manifest(descriptor, bytes)?;
        return Ok(std::iter::once(manifest.config).chain(manifest.layers).collect());
    }
    if descriptor.media_type == media::DOCKER_MANIFEST_V1 {
        return Err(DocumentError::Schema1);
    }
    Ok(Vec::new())
}

/// The diff ids of an image's layers, checked against the number of layers in its manifest.
///
/// # Errors
/// The numbers differ.
pub fn diff_ids(config: &ImageConfig, layers: usize) -> Result<&[Digest], DocumentError> {
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != layers {
        return Err(DocumentError::Layers { layers, diff_ids: diff_ids.len() });
    }
    Ok(diff_ids)
}

/// The chain id of every prefix of `diff_ids`: the names of the snapshots from the bottom layer to the top one.
pub fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => diff_id.clone(),
            Some(below) => sha256(format!("{below} {diff_id}").as_bytes()),
        };
        chain.push(next);
    }
    chain
}

/// The SHA-256 digest of `bytes`.
pub fn sha256(bytes: &[u8]) -> Digest {
    match Digest::from_bytes(Algorithm::Sha256, digest(&SHA256, bytes).as_ref()) {
        Ok(digest) => digest,
        Err(_) => unreachable!("a SHA-256 hash has the length of a SHA-256 digest"),
    }
}

/// The children that a pull for `platforms` fetches: of an index the best match of each platform and every entry without
/// a platform, all of anything else. No platforms at all means every child.
pub fn select(children: &[Descriptor], platforms: &[Platform]) -> Vec<Descriptor> {
    if platforms.is_empty() || children.iter().all(|child| child.platform.is_none()) {
        return children.to_vec();
    }
    let mut chosen: Vec<usize> =
        platforms.iter().filter_map(|platform| best(children, platform)).collect::<Vec<_>>();
    chosen.extend((0..children.len()).filter(|at| children[*at].platform.is_none()));
    chosen.sort_unstable();
    chosen.dedup();
    chosen.into_iter().map(|at| children[at].clone()).collect()
}

/// The place of the first child that runs best on `platform`.
fn best(children: &[Descriptor], platform: &Platform) -> Option<usize> {
    let ranked = children.iter().enumerate().filter_map(|(at, child)| {
        let rank = platform.rank(child.platform.as_ref()?)?;
        Some((rank, at))
    });
    ranked.min().map(|(_, at)| at)
}

/// The labels by which a document keeps its children: `m.N` for manifests, `config`, `l.N` for layers.
pub fn gc_labels(children: &[Descriptor]) -> Labels {
    let mut labels = Labels::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for child in children {
        let word = gc_word(&child.media_type);
        let count = counts.entry(word).or_default();
        let key = match (word, *count) {
            ("config", 0) => format!("{}.config", label::GC_REF_CONTENT),
            ("config", n) => format!("{}.config{n}", label::GC_REF_CONTENT),
            ("", n) => format!("{}.{n}", label::GC_REF_CONTENT),
            (word, n) => format!("{}.{word}.{n}", label::GC_REF_CONTENT),
        };
        *count += 1;
        labels.insert(key, child.digest.to_string());
    }
    labels
}

fn gc_word(media_type: &str) -> &'static str {
    if is_known_config(media_type) {
        "config"
    } else if media::is_manifest(media_type) {
        "m"
    } else if media::is_layer(media_type) {
        "l"
    } else {
        ""
    }
}

/// The ingest under which content is fetched, which is also its name in progress: `layer-sha256:...`.
pub fn ref_key(descriptor: &Descriptor) -> String {
    let word = match descriptor.media_type.as_str() {
        kind if media::is_manifest(kind) => "manifest",
        kind if media::is_index(kind) => "index",
        kind if media::is_layer(kind) => "layer",
        kind if is_known_config(kind) => "config",
        "application/vnd.in-toto+json" => "attestation",
        _ => "unknown",
    };
    format!("{word}-{}", descriptor.digest)
}

fn is_known_config(media_type: &str) -> bool {
    media::is_config(media_type)
        || matches!(
            media_type,
            "application/vnd.containerd.container.criu.checkpoint.criu.tar"
                | "application/vnd.containerd.container.checkpoint.config.v1+proto"
        )
}

fn sniff(descriptor: &Descriptor, bytes: &[u8]) -> Result<Unknown, DocumentError> {
    let unknown: Unknown = parse(descriptor, bytes)?;
    if unknown.fs_layers.is_some() {
        return Err(DocumentError::Schema1);
    }
    Ok(unknown)
}

fn parse<T: DeserializeOwned>(descriptor: &Descriptor, bytes: &[u8]) -> Result<T, DocumentError> {
    json::from_slice(bytes).map_err(|source| DocumentError::Malformed {
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest.clone(),
        source,
    })
}

fn confused(descriptor: &Descriptor, wanted: &'static str, found: &'static str) -> DocumentError {
    DocumentError::Confused {
        digest: descriptor.digest.clone(),
        wanted,
        found,
        media_type: descriptor.media_type.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(media_type: &str, text: &str, platform: Option<&str>) -> Descriptor {
        let mut descriptor = Descriptor::new(media_type, sha256(text.as_bytes()), text.len() as u64);
        descriptor.platform = platform.map(|text| text.parse().unwrap());
        descriptor
    }

    #[test]
    fn the_chain_of_one_layer_is_its_diff_id() {
        let (a, b) = (sha256(b"a"), sha256(b"b"));
        let chain = chain_ids(&[a.clone(), b.clone()]);
        assert_eq!(chain, [a.clone(), sha256(format!("{a} {b}").as_bytes())]);
        assert!(chain_ids(&[]).is_empty());
    }

    #[test]
    fn a_document_that_is_both_kinds_is_neither() {
        let row = r#"{"mediaType":"x","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0}"#;
        let both = format!(r#"{{"schemaVersion":2,"config":{row},"layers":[],"manifests":[]}}"#);
        for media_type in [media::INDEX, media::MANIFEST, media::DOCKER_INDEX, media::DOCKER_MANIFEST] {
            let error = children(&descriptor(media_type, &both, None), both.as_bytes()).unwrap_err();
            assert!(matches!(error, DocumentError::Confused { .. }), "{media_type}: {error}");
        }
        let old = r#"{"schemaVersion":1,"fsLayers":[]}"#;
        let error = children(&descriptor(media::MANIFEST, old, None), old.as_bytes()).unwrap_err();
        assert!(matches!(error, DocumentError::Schema1));
    }

    #[test]
    fn document_that_is_one_kind_in_any_case_is_read_or_refused() {
        let row = r#"{"mediaType":"x","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0}"#;
        let nulls = format!(r#"{{"schemaVersion":2,"config":{row},"layers":null,"manifests":null}}"#);
        let children = |media_type: &str, text: &str| {
            children(&descriptor(media_type, text, None), text.as_bytes()).map(|children| children.len())
        };
        assert_eq!(children(media::MANIFEST, &nulls).unwrap(), 1);
        assert_eq!(children(media::INDEX, r#"{"schemaVersion":2,"manifests":null}"#).unwrap(), 0);
        // A key in another case must not carry one kind of document past the check for the other.
        let both = format!(r#"{{"schemaVersion":2,"config":{row},"layers":[],"Manifests":[]}}"#);
        assert!(matches!(children(media::MANIFEST, &both), Err(DocumentError::Confused { .. })));
    }

    #[test]
    fn a_platform_gets_its_best_match_and_what_has_no_platform() {
        let rows = [
            descriptor(media::MANIFEST, "386", Some("linux/386")),
            descriptor(media::MANIFEST, "arm", Some("linux/arm64")),
            descriptor(media::MANIFEST, "amd", Some("linux/amd64")),
            descriptor(media::MANIFEST, "amd again", Some("linux/amd64")),
            descriptor(media::MANIFEST, "none", None),
        ];
        let chosen = select(&rows, &["linux/amd64".parse().unwrap()]);
        assert_eq!(chosen, [rows[2].clone(), rows[4].clone()]);
        assert_eq!(select(&rows, &[]).len(), 5);
        assert_eq!(select(&rows, &["linux/riscv64".parse().unwrap()]), [rows[4].clone()]);
    }

    #[test]
    fn labels_keep_every_child() {
        let rows = [
            descriptor(media::CONFIG, "c", None),
            descriptor(media::LAYER_GZIP, "1", None),
            descriptor(media::LAYER, "2", None),
            descriptor("application/x", "3", None),
        ];
        let keys: Vec<_> = gc_labels(&rows).into_keys().collect();
        let prefix = "containerd.io/gc.ref.content.";
        assert_eq!(keys, ["0", "config", "l.0", "l.1"].map(|word| format!("{prefix}{word}")));
    }
}
