//! `ctr images list` and `inspect`.

use std::collections::BTreeSet;

use spec::{Descriptor, media};

use super::args;
use crate::client::Client;
use crate::failure::Result;
use crate::image::{self, Image};
use crate::ui::{self, Table, quantity};

/// Flags of `list`.
#[derive(clap::Args, Debug)]
pub struct List {
    /// Print only the image refs
    #[arg(long, short)]
    quiet: bool,
    /// Filters
    filters: Vec<String>,
}

impl List {
    /// Prints the images of the namespace.
    pub async fn run(self, client: &Client) -> Result {
        let images = image::list(client, self.filters).await?;
        if self.quiet {
            images.iter().try_for_each(|image| ui::line(&image.name))?;
            return Ok(());
        }
        let mut table = Table::new(["REF", "TYPE", "DIGEST", "SIZE", "PLATFORMS", "LABELS"]);
        for image in images {
            let (size, platforms) = measure(client, &image).await?;
            table.row([
                image.name,
                image.target.media_type,
                image.target.digest.to_string(),
                quantity::bytes(size),
                platforms,
                args::join_labels(&image.labels, "-"),
            ]);
        }
        Ok(table.print()?)
    }
}

/// The size of what is here for this host, manifest and index included, and the platforms that the image has.
async fn measure(client: &Client, image: &Image) -> Result<(u64, String)> {
    let manifests = image::manifests(client, &image.target).await?;
    let mut platforms = BTreeSet::new();
    for descriptor in &manifests {
        if let Some(platform) = image::listed_platform(client, descriptor).await? {
            platforms.insert(platform.to_string());
        }
    }
    let mut size = if media::is_index(&image.target.media_type) { image.target.size } else { 0 };
    if let Some(descriptor) = image::best(client, manifests, None).await? {
        size += descriptor.size;
        if let Some(manifest) = image::manifest(client, &descriptor).await? {
            size += manifest.config.size + manifest.layers.iter().map(|layer| layer.size).sum::<u64>();
        }
    }
    let platforms =
        if platforms.is_empty() { "-".into() } else { platforms.into_iter().collect::<Vec<_>>().join(",") };
    Ok((size, platforms))
}

/// Flags of `inspect`.
#[derive(clap::Args, Debug)]
pub struct Inspect {
    /// Show JSON content
    #[arg(long)]
    content: bool,
    /// The image
    reference: String,
}

impl Inspect {
    /// Prints the tree of descriptors.
    pub async fn run(self, client: &Client) -> Result {
        let image = image::get(client, &self.reference).await?;
        ui::line(&image.name)?;
        self.descriptor(client, "", true, &image.target).await?;
        let manifests = if media::is_index(&image.target.media_type) {
            image::manifests(client, &image.target).await?
        } else {
            vec![]
        };
        for (index, descriptor) in manifests.iter().enumerate() {
            let last = index + 1 == manifests.len();
            self.descriptor(client, "   ", last, descriptor).await?;
            self.parts(client, if last { "      " } else { "   │  " }, descriptor).await?;
        }
        if manifests.is_empty() {
            self.parts(client, "   ", &image.target).await?;
        }
        Ok(())
    }

    async fn parts(&self, client: &Client, prefix: &str, descriptor: &Descriptor) -> Result {
        let Some(manifest) = image::manifest(client, descriptor).await? else { return Ok(()) };
        self.descriptor(client, prefix, manifest.layers.is_empty(), &manifest.config).await?;
        for (index, layer) in manifest.layers.iter().enumerate() {
            self.descriptor(client, prefix, index + 1 == manifest.layers.len(), layer).await?;
        }
        Ok(())
    }

    async fn descriptor(&self, client: &Client, prefix: &str, last: bool, descriptor: &Descriptor) -> Result {
        let branch = if last { "└──" } else { "├──" };
        let platform = descriptor.platform.as_ref().map(|p| format!(" Platform: {p}")).unwrap_or_default();
        ui::line(format!(
            "{prefix}{branch} {} @{} ({} bytes){platform}",
            descriptor.media_type, descriptor.digest, descriptor.size
        ))?;
        if self.content && !media::is_layer(&descriptor.media_type) {
            let prefix = format!("{prefix}{}      ", if last { "   " } else { "│  " });
            let Some(bytes) = image::read(client, &descriptor.digest).await? else {
                return Ok(ui::line(format!("{prefix}Content missing"))?);
            };
            if let Ok(value) = serde_json::from_slice::<serde_json::Value>(&bytes) {
                ui::json::text(&value).lines().try_for_each(|line| ui::line(format!("{prefix}{line}")))?;
            }
        }
        Ok(())
    }
}
