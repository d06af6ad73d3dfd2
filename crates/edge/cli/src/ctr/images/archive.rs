//! `ctr images import` and `export`.

use std::fs::File;
use std::io;

use api::containerd::types::transfer::{
    ImageExportStream, ImageImportStream, ImageReference, ImageStore, UnpackConfiguration,
};

use super::{args, pull};
use crate::client::Client;
use crate::failure::{OrFail, Result};
use crate::stream;
use crate::ui::progress::{Display, Form};

/// Flags of `export`.
#[derive(clap::Args, Debug)]
pub struct Export {
    /// Do not add Docker compatible manifest.json to archive
    #[arg(long)]
    skip_manifest_json: bool,
    /// Do not add non-distributable blobs such as Windows layers to archive
    #[arg(long)]
    skip_non_distributable: bool,
    /// Export content from a specific platform
    #[arg(long = "platform")]
    platforms: Vec<String>,
    /// Exports content from all platforms
    #[arg(long)]
    all_platforms: bool,
    /// Run export locally rather than through transfer API
    #[arg(long)]
    local: bool,
    /// The file to write, or - for standard output
    out: String,
    /// The images
    #[arg(required = true)]
    references: Vec<String>,
}

impl Export {
    /// Writes an OCI archive that Docker reads too.
    pub async fn run(self, client: &Client) -> Result {
        let platforms = pull::platforms(&self.platforms, self.all_platforms)?;
        let stream = stream::open(client, "export").await?;
        let destination = ImageExportStream {
            stream: stream.id.clone(),
            media_type: String::new(),
            platforms: platforms.iter().map(pull::to_wire).collect(),
            all_platforms: self.all_platforms,
            skip_compatibility_manifest: self.skip_manifest_json,
            skip_non_distributable: self.skip_non_distributable,
        };
        let sink: Box<dyn io::Write> = match self.out.as_str() {
            "-" => Box::new(io::stdout()),
            path => Box::new(File::create(path).or_fail(format!("cannot create {path}"))?),
        };
        let extra = self.references.iter().skip(1);
        let source = ImageStore {
            name: self.references[0].clone(),
            extra_references: extra
                .map(|name| ImageReference { name: name.clone(), ..Default::default() })
                .collect(),
            ..Default::default()
        };
        let mut service = client.transfer();
        let request = api::containerd::services::transfer::v1::TransferRequest {
            source: Some(api::encode_any(&source)),
            destination: Some(api::encode_any(&destination)),
            options: None,
        };
        let (transfer, received) = tokio::join!(service.transfer(request), stream.receive_all(sink));
        if (transfer.is_err() || received.is_err()) && self.out != "-" {
            std::fs::remove_file(&self.out)?; // half an archive is worse than none
        }
        transfer?;
        received
    }
}

/// Flags of `import`.
#[derive(clap::Args, Debug)]
pub struct Import {
    /// Base image name for added images, when provided only images with this name prefix are imported
    #[arg(long)]
    base_name: Option<String>,
    /// Whether to create digest images (default: false)
    #[arg(long)]
    digests: bool,
    /// Skip applying --digests option to images named in the importing tar (use it in conjunction with --digests)
    #[arg(long)]
    skip_digest_for_named: bool,
    /// Image name to keep index as, by default index is discarded
    #[arg(long)]
    index_name: Option<String>,
    /// Imports content for all platforms, false by default
    #[arg(long)]
    all_platforms: bool,
    /// Imports content for specific platform
    #[arg(long = "platform")]
    platforms: Vec<String>,
    /// Skip unpacking the images, cannot be used with --discard-unpacked-layers, false by default
    #[arg(long)]
    no_unpack: bool,
    /// Run import locally rather than through transfer API
    #[arg(long)]
    local: bool,
    /// Compress uncompressed blobs when creating manifest (Docker format only)
    #[arg(long)]
    compress_blobs: bool,
    /// Synchronize the underlying filesystem containing files when unpack images, false by default
    #[arg(long)]
    sync_fs: bool,
    #[command(flatten)]
    snapshotter: args::Snapshotter,
    #[command(flatten)]
    label: args::Label,
    /// The archive, or - for standard input
    input: String,
}

impl Import {
    /// Reads an OCI or Docker archive into the image store.
    pub async fn run(self, client: &Client) -> Result {
        let platforms = pull::platforms(&self.platforms, self.all_platforms)?;
        let stream = stream::open(client, "import").await?;
        let source = ImageImportStream {
            stream: stream.id.clone(),
            media_type: String::new(),
            force_compress: self.compress_blobs,
        };
        let references = ImageReference {
            name: self.base_name.clone().unwrap_or_default(),
            is_prefix: true,
            allow_overwrite: true,
            add_digest: self.digests,
            skip_named_digest: self.skip_digest_for_named,
        };
        let unpack = if self.no_unpack { vec![] } else { pull::platforms(&self.platforms, false)? };
        let unpacks = unpack.iter().map(|platform| UnpackConfiguration {
            platform: Some(pull::to_wire(platform)),
            snapshotter: self.snapshotter.snapshotter.clone().unwrap_or_default(),
        });
        let destination = ImageStore {
            name: self.index_name.clone().unwrap_or_default(),
            labels: args::labels(&self.label.labels),
            platforms: platforms.iter().map(pull::to_wire).collect(),
            extra_references: vec![references],
            unpacks: unpacks.collect(),
            ..Default::default()
        };
        let input: Box<dyn io::Read + Send> = match self.input.as_str() {
            "-" => Box::new(io::stdin()),
            path => Box::new(File::open(path).or_fail(format!("cannot open {path}"))?),
        };
        let display = Display::new(Form::Lines, &self.input);
        let feed = tokio::spawn(stream.send_all(input));
        let result =
            pull::transfer(client, api::encode_any(&source), api::encode_any(&destination), display).await;
        feed.abort();
        result.map(|_| ())
    }
}
