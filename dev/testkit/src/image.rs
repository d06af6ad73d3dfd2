//! Images made in memory: layers, a config, a manifest, perhaps an index over several platforms.
//!
//! ```
//! use testkit::image::{Build, Layer};
//! use testkit::tar::Archive;
//! let layer = Layer::gzip(Archive::new().file("hello", 0o644, b"world").finish());
//! let image = Build::new().layer(layer).cmd(&["/hello"]).build();
//! assert!(image.top().digest.starts_with("sha256:"));
//! ```

use std::fs;
use std::io::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::command::Run;
use crate::place;
use crate::tar::Archive;

/// Bytes with their digest and media type.
#[derive(Clone, Debug)]
pub struct Blob {
    /// What the bytes are.
    pub media_type: String,
    /// `sha256:` and the hash of the bytes.
    pub digest: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Blob {
    /// Bytes under their true digest.
    pub fn new(media_type: &str, bytes: Vec<u8>) -> Self {
        Self { media_type: media_type.into(), digest: sha256(&bytes), bytes }
    }

    /// The blob as a descriptor.
    pub fn descriptor(&self) -> Value {
        json!({ "mediaType": self.media_type, "digest": self.digest, "size": self.bytes.len() })
    }
}

/// A layer: a tar, packed or not, and the digest of the tar itself.
#[derive(Clone, Debug)]
pub struct Layer {
    /// What the registry holds.
    pub blob: Blob,
    /// The digest of the uncompressed tar.
    pub diff_id: String,
}

impl Layer {
    /// A layer that is the tar itself.
    pub fn plain(tar: Vec<u8>) -> Self {
        Self { diff_id: sha256(&tar), blob: Blob::new("application/vnd.oci.image.layer.v1.tar", tar) }
    }

    /// A layer packed by gzip.
    pub fn gzip(tar: Vec<u8>) -> Self {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(&tar).expect("memory takes it");
        let bytes = packer.finish().expect("memory takes it");
        Self { diff_id: sha256(&tar), blob: Blob::new("application/vnd.oci.image.layer.v1.tar+gzip", bytes) }
    }

    /// A layer packed by zstd.
    pub fn zstd(tar: Vec<u8>) -> Self {
        let bytes = zstd::encode_all(tar.as_slice(), 3).expect("memory takes it");
        Self { diff_id: sha256(&tar), blob: Blob::new("application/vnd.oci.image.layer.v1.tar+zstd", bytes) }
    }
}

/// Everything a registry must hold for one reference.
#[derive(Clone, Debug)]
pub struct Image {
    /// Layers and configs.
    pub blobs: Vec<Blob>,
    /// Manifests, and last the one the tag names.
    pub manifests: Vec<Blob>,
}

impl Image {
    /// The manifest or index that the tag names.
    pub fn top(&self) -> &Blob {
        self.manifests.last().expect("an image has a manifest")
    }

    /// One image for several platforms; each part's platform is the one of its config.
    pub fn index(parts: Vec<Self>) -> Self {
        let mut whole = Self { blobs: Vec::new(), manifests: Vec::new() };
        let mut rows = Vec::new();
        for part in parts {
            let mut row = part.top().descriptor();
            row["platform"] = part.platform();
            rows.push(row);
            whole.blobs.extend(part.blobs);
            whole.manifests.extend(part.manifests);
        }
        let media_type = "application/vnd.oci.image.index.v1+json";
        let index = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": rows });
        whole.manifests.push(Blob::new(media_type, index.to_string().into_bytes()));
        whole
    }

    /// The image as an OCI image archive whose top is called `name`, as `ctr image import` reads it.
    pub fn archive(&self, name: &str) -> Vec<u8> {
        let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        self.annotated_archive(
            &json!({ "io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag }),
        )
    }

    /// The image as an OCI image archive that says no more of its top than `annotations`.
    pub fn annotated_archive(&self, annotations: &Value) -> Vec<u8> {
        let mut row = self.top().descriptor();
        row["annotations"] = annotations.clone();
        let index = json!({ "schemaVersion": 2, "manifests": [row] }).to_string();
        let mut tar = Archive::new()
            .file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)
            .file("index.json", 0o644, index.as_bytes())
            .dir("blobs/", 0o755)
            .dir("blobs/sha256/", 0o755);
        for blob in self.blobs.iter().chain(&self.manifests) {
            tar = tar.file(&format!("blobs/{}", blob.digest.replace(':', "/")), 0o644, &blob.bytes);
        }
        tar.finish()
    }

    /// The image as Docker saves it: layers as they are, no manifest, the name in `manifest.json`.
    pub fn docker_archive(&self, name: &str) -> Vec<u8> {
        let (config, layers) = self.blobs.split_last().expect("an image has a config");
        let file = |blob: &Blob| blob.digest.replace("sha256:", "");
        let layer = |blob: &Blob| format!("{}/layer.tar", file(blob));
        let row = json!({
            "Config": format!("{}.json", file(config)), "RepoTags": [name],
            "Layers": layers.iter().map(layer).collect::<Vec<_>>(),
        });
        let mut tar = Archive::new();
        for blob in layers {
            tar = tar.file(&layer(blob), 0o644, &blob.bytes);
        }
        let rows = json!([row]).to_string();
        tar.file(&format!("{}.json", file(config)), 0o644, &config.bytes)
            .file("manifest.json", 0o644, rows.as_bytes())
            .finish()
    }

    /// Keeps the image in `dir` for [`Image::load`].
    pub fn save(&self, dir: &Path) {
        fs::create_dir_all(dir).expect("make the image's directory");
        let mut rows = Vec::new();
        for (is_manifest, blob) in
            self.blobs.iter().map(|blob| (false, blob)).chain(self.manifests.iter().map(|blob| (true, blob)))
        {
            fs::write(dir.join(blob.digest.replace(':', "-")), &blob.bytes).expect("write a blob");
            rows.push(json!([is_manifest, blob.media_type, blob.digest]));
        }
        // The list comes last: a directory without it is one whose making was cut short.
        fs::write(dir.join("list.json"), Value::from(rows).to_string()).expect("write the list of blobs");
    }

    /// The image that [`Image::save`] kept in `dir`; `None` when there is none.
    pub fn load(dir: &Path) -> Option<Self> {
        let rows: Vec<(bool, String, String)> =
            serde_json::from_slice(&fs::read(dir.join("list.json")).ok()?).ok()?;
        let mut image = Self { blobs: Vec::new(), manifests: Vec::new() };
        for (is_manifest, media_type, digest) in rows {
            let bytes = fs::read(dir.join(digest.replace(':', "-"))).ok()?;
            let list = if is_manifest { &mut image.manifests } else { &mut image.blobs };
            list.push(Blob { media_type, digest, bytes });
        }
        Some(image)
    }

    fn platform(&self) -> Value {
        let manifest: Value = serde_json::from_slice(&self.top().bytes).expect("a manifest is JSON");
        let config = self.blobs.iter().find(|blob| manifest["config"]["digest"] == blob.digest.as_str());
        let config: Value =
            serde_json::from_slice(&config.expect("an image has a config").bytes).expect("a config is JSON");
        json!({ "architecture": config["architecture"], "os": config["os"] })
    }
}

/// An image of one platform in the making.
#[must_use]
pub struct Build {
    layers: Vec<Layer>,
    config: Value,
    docker: bool,
}

impl Default for Build {
    fn default() -> Self {
        Self::new()
    }
}

impl Build {
    /// An image of no layers for linux on this machine's architecture.
    pub fn new() -> Self {
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = json!({
            "architecture": architecture, "os": "linux", "created": "2024-01-01T00:00:00Z",
            "config": { "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"] },
        });
        Self { layers: Vec::new(), config, docker: false }
    }

    /// Adds a layer on top.
    pub fn layer(mut self, layer: Layer) -> Self {
        self.layers.push(layer);
        self
    }

    /// Sets the command.
    pub fn cmd(self, words: &[&str]) -> Self {
        self.set("Cmd", json!(words))
    }

    /// Sets the entry point.
    pub fn entrypoint(self, words: &[&str]) -> Self {
        self.set("Entrypoint", json!(words))
    }

    /// Sets any key of the config's `config` object, such as `User`, `WorkingDir`, `Labels` or `StopSignal`.
    pub fn set(mut self, key: &str, value: Value) -> Self {
        self.config["config"][key] = value;
        self
    }

    /// Claims another architecture.
    pub fn architecture(mut self, name: &str) -> Self {
        self.config["architecture"] = name.into();
        self
    }

    /// Uses the media types of Docker's image format, schema 2.
    pub fn docker(mut self) -> Self {
        self.docker = true;
        self
    }

    /// The image.
    pub fn build(mut self) -> Image {
        let diff_ids: Vec<_> = self.layers.iter().map(|layer| layer.diff_id.clone()).collect();
        self.config["rootfs"] = json!({ "type": "layers", "diff_ids": diff_ids });
        let (manifest_type, config_type) = if self.docker {
            (
                "application/vnd.docker.distribution.manifest.v2+json",
                "application/vnd.docker.container.image.v1+json",
            )
        } else {
            ("application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.config.v1+json")
        };
        if self.docker {
            for layer in &mut self.layers {
                layer.blob.media_type = "application/vnd.docker.image.rootfs.diff.tar.gzip".into();
            }
        }
        let config = Blob::new(config_type, self.config.to_string().into_bytes());
        let manifest = json!({
            "schemaVersion": 2, "mediaType": manifest_type, "config": config.descriptor(),
            "layers": self.layers.iter().map(|layer| layer.blob.descriptor()).collect::<Vec<_>>(),
        });
        let mut blobs: Vec<_> = self.layers.into_iter().map(|layer| layer.blob).collect();
        blobs.push(config);
        Image { blobs, manifests: vec![Blob::new(manifest_type, manifest.to_string().into_bytes())] }
    }
}

/// `sha256:` and the hash of `bytes`.
pub fn sha256(bytes: &[u8]) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, bytes);
    let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// A root file system of Debian's static busybox with all its applets, users `root` and `app`, and `/etc/release-of`.
pub fn busybox_tar() -> Vec<u8> {
    let program = place::program("busybox").expect("busybox-static is installed");
    let applets = Run::new(&program).args(["--list"]).ok();
    let mut tar = Archive::new();
    for (dir, mode) in [
        ("bin/", 0o755),
        ("dev/", 0o755),
        ("etc/", 0o755),
        ("home/", 0o755),
        ("proc/", 0o555),
        ("root/", 0o700),
        ("sys/", 0o555),
        ("tmp/", 0o1777),
        ("usr/", 0o755),
        ("usr/bin/", 0o755),
        ("var/", 0o755),
    ] {
        tar = tar.dir(dir, mode);
    }
    tar = tar
        .file("bin/busybox", 0o755, &fs::read(&program).expect("read busybox"))
        .file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home:/bin/sh\n")
        .file("etc/group", 0o644, b"root:x:0:\napp:x:1000:\nextra:x:2000:app\n")
        .file("etc/release-of", 0o644, b"busybox\n");
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        tar = tar.hardlink(&format!("bin/{applet}"), "bin/busybox", 0o755);
    }
    tar.finish()
}

/// The image of [`busybox_tar`] with command `sh`.
pub fn busybox() -> Image {
    Build::new().layer(Layer::gzip(busybox_tar())).cmd(&["sh"]).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_content_has_an_equal_digest() {
        let make = || Build::new().layer(Layer::gzip(Archive::new().dir("a", 0o755).finish())).build();
        assert_eq!(make().top().digest, make().top().digest);
    }

    #[test]
    fn a_saved_image_loads_as_it_was() {
        let dir = place::temp();
        let image = Image::index(vec![Build::new().build(), Build::new().architecture("s390x").build()]);
        image.save(dir.path());
        let loaded = Image::load(dir.path()).expect("it was saved");
        assert_eq!(loaded.top().bytes, image.top().bytes);
        assert_eq!((loaded.blobs.len(), loaded.manifests.len()), (2, 3));
    }
}
