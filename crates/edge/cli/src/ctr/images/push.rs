//! `ctr images push`.

use api::containerd::services::transfer::v1::Tuning;
use api::containerd::types::transfer::ImageStore;
use spec::media;

use super::{args, pull};
use crate::client::Client;
use crate::failure::{Failure, Result};
use crate::ui::progress::{Display, Form};

/// Flags of `push`.
#[derive(clap::Args, Debug)]
pub struct Push {
    #[command(flatten)]
    registry: args::Registry,
    /// Digest of manifest
    #[arg(long)]
    manifest: Option<String>,
    /// Media type of manifest digest
    #[arg(long, default_value = media::MANIFEST)]
    manifest_type: String,
    /// Push content from a specific platform
    #[arg(long = "platform")]
    platforms: Vec<String>,
    /// Set the max concurrent uploaded layers for each push; 0 for what the daemon's configuration says
    #[arg(long, default_value_t = 0)]
    max_concurrent_uploaded_layers: u32,
    #[command(flatten)]
    local: args::Local,
    /// Allow pushing blobs that are marked as non-distributable
    #[arg(long)]
    allow_non_distributable_blobs: bool,
    /// Form of the progress
    #[arg(long, value_enum, default_value_t = Form::Lines)]
    progress: Form,
    /// Where to push to
    remote: String,
    /// The image; the same name when there is none
    local_name: Option<String>,
}

impl Push {
    /// Pushes an image, or the manifest named by `--manifest`.
    pub async fn run(self, client: &Client) -> Result {
        let name = self.local_name.clone().unwrap_or_else(|| self.remote.clone());
        let platforms =
            if self.platforms.is_empty() { vec![] } else { pull::platforms(&self.platforms, false)? };
        let (registry, _hosts) = pull::registry(client, &self.registry, &self.remote).await?;
        let temporary = match &self.manifest {
            Some(digest) => Some(self.name_manifest(client, digest).await?),
            None => None,
        };
        let source = ImageStore {
            name: temporary.clone().unwrap_or(name),
            platforms: platforms.iter().map(pull::to_wire).collect(),
            ..Default::default()
        };
        let display = Display::new(self.progress, &self.remote);
        let how = Tuning {
            concurrent: self.max_concurrent_uploaded_layers,
            non_distributable: self.allow_non_distributable_blobs,
            ..Tuning::default()
        };
        let (source, destination) = (api::encode_any(&source), api::encode_any(&registry));
        let result = pull::transfer(client, source, destination, how, display).await;
        if let Some(name) = temporary {
            let request =
                api::containerd::services::images::v1::DeleteImageRequest { name, ..Default::default() };
            client.images().delete(request).await?;
        }
        result.map(|_| ())
    }

    /// Gives a manifest a name for the length of the push, because transfers start from images.
    async fn name_manifest(&self, client: &Client, digest: &str) -> Result<String> {
        use api::containerd::services::{content::v1 as content, images::v1 as images};
        let info = client.content().info(content::InfoRequest { digest: digest.to_owned() }).await?;
        let info =
            info.into_inner().info.ok_or_else(|| Failure::new(format!("content {digest}: not found")))?;
        let name = format!("ctr-push-{}/{digest}", std::process::id());
        let target = api::containerd::types::Descriptor {
            media_type: self.manifest_type.clone(),
            digest: digest.to_owned(),
            size: info.size,
            ..Default::default()
        };
        let image = Some(images::Image { name: name.clone(), target: Some(target), ..Default::default() });
        client.images().create(images::CreateImageRequest { image, ..Default::default() }).await?;
        Ok(name)
    }
}
