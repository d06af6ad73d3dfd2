//! `ctr images check`.

use super::args;
use crate::client::Client;
use crate::failure::Result;
use crate::image::{self, Image};
use crate::ui::{self, Table, quantity};

/// Flags of `check`.
#[derive(clap::Args, Debug)]
pub struct Check {
    /// Print only the ready image refs (fully downloaded and unpacked)
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    snapshotter: args::Snapshotter,
    /// Filters
    filters: Vec<String>,
}

/// What an image needs for this host, and what of it is here.
struct Parts {
    /// Sizes of what is needed, known as far as the manifest is here.
    required: Vec<u64>,
    present: Vec<u64>,
    /// Whether the manifest was here, so that `required` is all.
    available: bool,
    unpacked: bool,
}

impl Check {
    /// Prints how complete each image is.
    pub async fn run(self, client: &Client) -> Result {
        let snapshotter = client.snapshotter(self.snapshotter.snapshotter.as_deref()).await?;
        let mut table = Table::new(["REF", "TYPE", "DIGEST", "STATUS", "SIZE", "UNPACKED"]);
        for image in image::list(client, self.filters).await? {
            let parts = parts(client, &image, &snapshotter).await?;
            if self.quiet {
                if parts.is_complete() && parts.unpacked {
                    ui::line(&image.name)?;
                }
                continue;
            }
            let (status, size) = parts.words();
            table.row([
                image.name,
                image.target.media_type,
                image.target.digest.to_string(),
                status,
                size,
                parts.unpacked.to_string(),
            ]);
        }
        if self.quiet { Ok(()) } else { Ok(table.print()?) }
    }
}

impl Parts {
    fn is_complete(&self) -> bool {
        self.available && self.present.len() == self.required.len()
    }

    fn words(&self) -> (String, String) {
        let present = quantity::bytes(self.present.iter().sum());
        if !self.available {
            return (format!("unavailable ({}/?)", self.present.len()), format!("{present}/?"));
        }
        let word = if self.is_complete() { "complete" } else { "incomplete" };
        let required = quantity::bytes(self.required.iter().sum());
        (format!("{word} ({}/{})", self.present.len(), self.required.len()), format!("{present}/{required}"))
    }
}

/// Looks at the config and layers of the manifest for this host, as containerd counts them.
async fn parts(client: &Client, image: &Image, snapshotter: &str) -> Result<Parts> {
    let mut parts = Parts { required: vec![], present: vec![], available: false, unpacked: false };
    let manifests = image::manifests(client, &image.target).await?;
    let Some(descriptor) = image::best(client, manifests, None).await? else { return Ok(parts) };
    let Some(manifest) = image::manifest(client, &descriptor).await? else { return Ok(parts) };
    parts.available = true;
    for part in std::iter::once(&manifest.config).chain(&manifest.layers) {
        parts.required.push(part.size);
        if image::has(client, &part.digest).await? {
            parts.present.push(part.size);
        }
    }
    if let Some(config) = image::config(client, &manifest).await? {
        let chosen = image::Chosen { manifest, config };
        parts.unpacked = image::is_unpacked(client, &chosen, snapshotter).await?;
    }
    Ok(parts)
}
