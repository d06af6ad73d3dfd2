//! The documents of an image: descriptor, index, manifest and config, with their media types.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, Platform};

/// Media types of OCI and of Docker schema 2, and what containerd asks of them.
pub mod media {
    /// OCI image index.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI image manifest.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI image config.
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// OCI layer, not compressed.
    pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// OCI layer, gzip.
    pub const LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// OCI layer, zstd.
    pub const LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// Docker manifest list.
    pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker manifest, schema 2.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker manifest, schema 1: refused.
    pub const DOCKER_MANIFEST_V1: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    /// Docker image config.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker layer, not compressed.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    /// Docker layer, gzip.
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

    /// Whether `media_type` lists manifests.
    pub fn is_index(media_type: &str) -> bool {
        matches!(media_type, INDEX | DOCKER_INDEX)
    }

    /// Whether `media_type` is one image's manifest.
    pub fn is_manifest(media_type: &str) -> bool {
        matches!(media_type, MANIFEST | DOCKER_MANIFEST)
    }

    /// Whether `media_type` is an image config.
    pub fn is_config(media_type: &str) -> bool {
        matches!(media_type, CONFIG | DOCKER_CONFIG)
    }

    /// Whether `media_type` is a file system layer, in whatever compression, distributable or not.
    pub fn is_layer(media_type: &str) -> bool {
        media_type.starts_with("application/vnd.oci.image.layer.")
            || media_type.starts_with("application/vnd.docker.image.rootfs.")
    }

    /// Whether `media_type` is a layer that may not be pushed to another registry.
    pub fn is_non_distributable(media_type: &str) -> bool {
        media_type.starts_with("application/vnd.oci.image.layer.nondistributable.")
            || media_type.starts_with("application/vnd.docker.image.rootfs.foreign.")
    }
}

/// Names content: its type, digest and size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is.
    #[serde(default)]
    pub media_type: String,
    /// The hash of its bytes.
    pub digest: Digest,
    /// Its length, in bytes. Never negative in a valid document.
    pub size: u64,
    /// Where else it may be fetched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Free words about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// What it runs on, in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// What an artifact manifest is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

impl Descriptor {
    /// A descriptor with nothing but what every descriptor has.
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            platform: None,
            artifact_type: None,
        }
    }
}

/// A list of manifests, usually one a platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// 2, unless a document leaves it out.
    #[serde(default)]
    pub schema_version: i64,
    /// [`media::INDEX`] or [`media::DOCKER_INDEX`]; may be absent in old documents.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The manifests.
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
    /// Free words.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// One image: a config and its layers, bottom first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// 2, unless a document leaves it out.
    #[serde(default)]
    pub schema_version: i64,
    /// [`media::MANIFEST`] or [`media::DOCKER_MANIFEST`]; may be absent in old documents.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// The image config.
    pub config: Descriptor,
    /// The layers, bottom first.
    #[serde(default)]
    pub layers: Vec<Descriptor>,
    /// The manifest that this one is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free words.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The image config: platform, process defaults and the diff ids of the layers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "ConfigDocument")]
pub struct ImageConfig {
    /// When it was made, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// What it runs on.
    #[serde(flatten)]
    pub platform: Platform,
    /// Defaults of a process.
    pub config: ProcessConfig,
    /// The layers' diff ids.
    pub rootfs: RootFs,
    /// How it was made; kept as it is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<serde_json::Value>,
}

/// The keys of an [`ImageConfig`], all on one level as [`crate::json`] needs them.
#[derive(Deserialize)]
struct ConfigDocument {
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    author: Option<String>,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default, rename = "os.version")]
    os_version: String,
    #[serde(default, rename = "os.features")]
    os_features: Vec<String>,
    #[serde(default)]
    variant: String,
    #[serde(default)]
    config: ProcessConfig,
    #[serde(default)]
    rootfs: RootFs,
    #[serde(default)]
    history: Vec<serde_json::Value>,
}

impl From<ConfigDocument> for ImageConfig {
    fn from(document: ConfigDocument) -> Self {
        let ConfigDocument { architecture, os, os_version, os_features, variant, .. } = document;
        Self {
            created: document.created,
            author: document.author,
            platform: Platform { architecture, os, os_version, os_features, variant },
            config: document.config,
            rootfs: document.rootfs,
            history: document.history,
        }
    }
}

/// What an image config says of a process run from it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ProcessConfig {
    /// `user[:group]`, names or numbers.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `NAME=value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The command's head.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// The command's tail, replaced by a user's arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Where the process starts.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Free words.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The signal that asks the process to end.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Ports it listens on; kept as they are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
    /// Paths that want storage of their own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, serde_json::Value>,
}

/// The layers of an image by the digests of their uncompressed bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Diff ids, bottom first.
    #[serde(default)]
    pub diff_ids: Vec<Digest>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    const ROW: &str = r#"{"mediaType":"x","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0,"urls":null,"annotations":null,"platform":null}"#;

    #[test]
    fn nulls_in_a_config_are_read_as_empty() {
        let text = r#"{"architecture":"amd64","os":"linux","os.features":null,"created":null,"config":{"Env":null,"Cmd":["sh"],
            "User":null,"Labels":null,"Volumes":{"/data":null}},"rootfs":{"type":"layers","diff_ids":null},"history":null}"#;
        let config: ImageConfig = json::from_str(text).unwrap();
        assert_eq!(config.config.cmd, ["sh"]);
        assert!(config.config.volumes.contains_key("/data"));
        assert_eq!(config.platform.to_string(), "linux/amd64");
        let config: ImageConfig = json::from_str(r#"{"config":null,"rootfs":{}}"#).unwrap();
        assert_eq!(config, ImageConfig::default());
    }

    #[test]
    fn nulls_in_manifest_and_index_are_read_as_empty() {
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{ROW},"layers":null,"subject":null,"annotations":null}}"#
        );
        assert!(json::from_str::<Manifest>(&manifest).unwrap().layers.is_empty());
        let index = r#"{"schemaVersion":2,"mediaType":null,"manifests":null,"annotations":null}"#;
        assert!(json::from_str::<Index>(index).unwrap().manifests.is_empty());
        let index = format!(r#"{{"schemaVersion":2,"Manifests":[{ROW}],"annotations":{{"K":null}}}}"#);
        let index = json::from_str::<Index>(&index).unwrap();
        assert_eq!((index.manifests.len(), index.annotations["K"].as_str()), (1, ""));
    }

    #[test]
    fn config_keys_in_another_case_are_read_and_written_flat() {
        let text = r#"{"Architecture":"arm64","OS":"linux","Variant":"v8","Config":{"cmd":["sh"],"labels":{"A":"b"}},"RootFS":{"Type":"layers","diff_ids":[]}}"#;
        let config: ImageConfig = json::from_str(text).unwrap();
        assert_eq!((config.config.cmd[0].as_str(), config.config.labels["A"].as_str()), ("sh", "b"));
        let written = serde_json::to_string(&config).unwrap();
        assert!(
            written.starts_with(r#"{"architecture":"arm64","os":"linux","variant":"v8","config":{"#),
            "{written}"
        );
    }

    #[test]
    fn a_negative_size_is_refused() {
        let text = r#"{"mediaType":"x","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":-1}"#;
        assert!(json::from_str::<Descriptor>(text).is_err());
    }
}
