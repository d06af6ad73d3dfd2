//! `ctr images import` and `export`.

use std::fs::File;
use std::io;

use api::containerd::services::transfer::v1::Tuning;
use api::containerd::types::transfer::{
    ImageExportStream, ImageImportStream, ImageReference, ImageStore, UnpackConfiguration,
};

use super::{args, pull};
use crate::client::Client;
use crate::failure::{Failure, OrFail, Result};
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
    #[command(flatten)]
    local: args::Local,
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
        let result = until_failure(service.transfer(request), stream.receive_all(sink)).await;
        if result.is_err() && self.out != "-" {
            std::fs::remove_file(&self.out)?; // half an archive is worse than none
        }
        result
    }
}

/// Waits for a transfer and for its bytes; the first of them that fails ends both, since neither can go on alone.
async fn until_failure<T>(
    transfer: impl Future<Output = std::result::Result<T, tonic::Status>>,
    bytes: impl Future<Output = Result>,
) -> Result {
    tokio::pin!(transfer, bytes);
    // Both are polled in place; neither is lost when the other is first.
    tokio::select! {
        done = &mut transfer => {
            done?;
            bytes.await
        }
        moved = &mut bytes => {
            moved?;
            Ok(transfer.await.map(drop)?)
        }
    }
}

/// Flags of `import`.
#[derive(clap::Args, Debug)]
pub struct Import {
    /// Base image name for added images, when provided only images with this name prefix are imported (default: import-YYYY-MM-DD, for images without a whole name)
    #[arg(long)]
    base_name: Option<String>,
    /// Whether to create digest images (default: false)
    #[arg(long)]
    digests: bool,
    /// Skip applying --digests option to images named in the importing tar (use it in conjunction with --digests)
    #[arg(long, requires = "digests")]
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
    #[command(flatten)]
    local: args::Local,
    /// Compress uncompressed blobs when creating manifest (Docker format only)
    #[arg(long)]
    compress_blobs: bool,
    /// Allow the garbage collector to clean layers up from the content store after unpacking, cannot be used with --no-unpack, false by default
    #[arg(long, conflicts_with = "no_unpack")]
    discard_unpacked_layers: bool,
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
            name: self.base_name.clone().unwrap_or_else(default_prefix),
            is_prefix: true,
            // Only a prefix that somebody asked for keeps the others out.
            allow_overwrite: self.base_name.is_none(),
            add_digest: self.digests,
            skip_named_digest: self.skip_digest_for_named,
        };
        let unpack = if self.no_unpack { vec![] } else { pull::platforms(&self.platforms, false)? };
        let snapshotter = client.snapshotter(self.snapshotter.snapshotter.as_deref()).await?;
        let unpacks = unpack.iter().map(|platform| UnpackConfiguration {
            platform: Some(pull::to_wire(platform)),
            snapshotter: snapshotter.clone(),
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
        let feed = stream.send_all(input);
        let how = Tuning {
            sync_fs: self.sync_fs,
            discard_unpacked_layers: self.discard_unpacked_layers,
            ..Tuning::default()
        };
        let (source, destination) = (api::encode_any(&source), api::encode_any(&destination));
        let transfer = pull::transfer(client, source, destination, how, display);
        tokio::pin!(feed, transfer);
        // Both are polled in place. The archive that cannot be read is the reason for what the daemon then says of it.
        tokio::select! {
            done = &mut transfer => done.map(drop).map_err(with_naming_hint),
            fed = &mut feed => {
                fed.or_fail(format!("cannot read {}", self.input))?;
                transfer.await.map(drop).map_err(with_naming_hint)
            }
        }
    }
}

/// Adds which flags name the images of an archive that names none.
fn with_naming_hint(failure: Failure) -> Failure {
    // The class alone does not tell: a missing snapshotter is not found either.
    if !failure.is_not_found() || !failure.text().contains("no image name found") {
        return failure;
    }
    failure.hint(
        "--index-name NAME names the archive's index, --base-name NAME --digests its images as NAME@DIGEST",
    )
}

/// What an archive's images are called that bring no whole name.
fn default_prefix() -> String {
    let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    format!("import-{}", &now[.."2006-01-02".len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of a transfer and its bytes, of which `None` never ends.
    fn outcome(
        transfer: Option<std::result::Result<(), tonic::Status>>,
        bytes: Option<Result>,
    ) -> std::result::Result<(), String> {
        async fn of<T>(end: Option<T>) -> T {
            match end {
                Some(end) => end,
                None => std::future::pending().await,
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(until_failure(of(transfer), of(bytes))).map_err(|failure| failure.to_string())
    }

    #[test]
    fn archive_without_names_says_which_flags_name_it() {
        let failed = |status: tonic::Status| with_naming_hint(Failure::from(status)).to_string();
        let unnamed = failed(tonic::Status::not_found("no image name found in the archive"));
        assert!(
            unnamed.starts_with("no image name found in the archive\nhint: --index-name NAME "),
            "{unnamed}"
        );
        assert!(unnamed.contains("--base-name NAME --digests"), "{unnamed}");
        for other in
            [tonic::Status::not_found("snapshotter \"x\""), tonic::Status::internal("no image name found")]
        {
            assert_eq!(failed(other.clone()), other.message());
        }
    }

    #[test]
    fn the_first_failure_ends_a_transfer_and_its_bytes() {
        let refused = || Err(tonic::Status::not_found("image \"a\": not found"));
        let full = || Err(Failure::new("no space left on device"));
        assert_eq!(outcome(Some(refused()), None), Err("image \"a\": not found".into()));
        assert_eq!(outcome(None, Some(full())), Err("no space left on device".into()));
        assert_eq!(outcome(Some(Ok(())), Some(full())), Err("no space left on device".into()));
        assert_eq!(outcome(Some(refused()), Some(Ok(()))), Err("image \"a\": not found".into()));
        assert_eq!(outcome(Some(Ok(())), Some(Ok(()))), Ok(()));
    }
}
