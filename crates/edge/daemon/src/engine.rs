//! Everything the services call, joined once at the start.

use std::sync::Arc;

use image::Verifier;
use model::diff::Differ;
use model::event::Exchange;
use store::Store;
use task::Tasks;

use crate::losses::Losses;
use crate::plugin::Plugins;
use crate::stream::Streams;

/// The daemon's engine.
pub struct Engine {
    /// Records, content and snapshots.
    pub store: Arc<Store>,
    /// What is lost of it.
    pub losses: Arc<Losses>,
    /// Applies and makes layers.
    pub differ: Arc<dyn Differ>,
    /// Running containers.
    pub tasks: Tasks,
    /// Events.
    pub exchange: Exchange,
    /// Open client streams.
    pub streams: Streams,
    /// What is loaded.
    pub plugins: Plugins,
    /// Names this daemon, for ever.
    pub uuid: String,
    /// How images are transferred.
    pub transfer: Transfer,
    /// Who judges images before they are pulled; nobody when that is disabled.
    pub verifier: Option<Arc<dyn Verifier>>,
}

/// How images are transferred.
#[derive(Clone, Debug, Default)]
pub struct Transfer {
    /// Where `hosts.toml` files are; colon-separated.
    pub config_path: String,
    /// How many blobs of an image are fetched at once.
    pub downloads: usize,
    /// How many layers of an image are pushed at once.
    pub uploads: usize,
}
