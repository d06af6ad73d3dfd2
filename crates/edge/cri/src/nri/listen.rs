//! Plugins come: those that are installed are started, others connect; each is told what there is, and then hears.
//!
//! ```text
//! discover ─► launch ─┐
//! socket ── accept ───┴─► register ─► configure ─► synchronize ─► in turn with the others ─► what it asks ─► gone
//! ```
//!
//! Invariant: a plugin that is slow to register holds up no other and no request.

use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::{Arc, Weak};

use ::spec::{Error, Kind};
use api::Message as _;
use api::nri::pkg::api::v1alpha1 as pb;
use futures_util::future::join_all;
use model::{Lane, Result};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Child;
use tokio::sync::{Semaphore, mpsc};

use super::launch::{self, Installed};
use super::plugin::{Known, Plugin};
use super::wire::Asked;
use crate::Cri;

/// The most plugins that are connected or about to be.
const MAX_CONNECTIONS: usize = 64;

/// A plugin that hears, what it asks, and its process when we started it.
type Admitted = (Arc<Plugin>, mpsc::Receiver<Asked>, Option<Child>);

impl Cri {
    /// Starts the plugins that are installed, and lets others connect. What fails is a warning: pods go on without.
    pub(crate) async fn start_nri(self: &Arc<Self>) {
        self.nri.attach(self);
        let config = &self.config.nri;
        if config.disable {
            return;
        }
        let (dir, configs) = (config.plugin_path.clone(), config.plugin_config_path.clone());
        let found = self.ctx().blocking(Lane::Disk, move |_| Ok(launch::discover(&dir, &configs))).await;
        let started = join_all(found.unwrap_or_default().into_iter().map(|plugin| self.start_plugin(plugin)));
        for (plugin, asked, child) in started.await.into_iter().flatten() {
            self.in_background(serve(Arc::downgrade(self), plugin, asked, child));
        }
        if config.disable_connections {
            return;
        }
        let path = config.socket_path.clone();
        let listener = self.ctx().blocking(Lane::Disk, move |_| bind(&path)).await;
        match listener
            .and_then(|listener| UnixListener::from_std(listener).map_err(|error| failed("use", &error)))
        {
            Ok(listener) => self.in_background(accept(Arc::downgrade(self), listener)),
            Err(error) => {
                tracing::warn!(path = %config.socket_path.display(), %error, "NRI plugins cannot connect");
            }
        }
    }

    async fn start_plugin(self: &Arc<Self>, plugin: Installed) -> Option<Admitted> {
        let name = plugin.program.display().to_string();
        let outcome = async {
            let (socket, child) = launch::launch(&plugin)?;
            self.admit(socket, Some(plugin.known), Some(child)).await
        };
        outcome
            .await
            .inspect_err(
                |error| tracing::warn!(plugin = name, %error, "an installed NRI plugin does not work"),
            )
            .ok()
    }

    /// Lets a plugin in: from now on it hears.
    async fn admit(
        self: &Arc<Self>,
        socket: UnixStream,
        known: Option<Known>,
        child: Option<Child>,
    ) -> Result<Admitted> {
        let (plugin, asked) = Plugin::register(socket, known, &self.nri.terms).await?;
        let plugin = Arc::new(plugin);
        let updates = self.nri.take_in(self, &plugin).await?;
        tracing::info!(plugin = plugin.name(), "an NRI plugin is connected and synchronized");
        let failed = self.apply_updates(updates).await;
        if !failed.is_empty() {
            tracing::warn!(plugin = plugin.name(), count = failed.len(), "updates of an NRI plugin failed");
        }
        Ok((plugin, asked, child))
    }
}

/// Makes the socket, for root alone. Blocks.
///
/// # Errors
/// Somebody serves there already: it is another daemon's.
fn bind(path: &Path) -> Result<std::os::unix::net::UnixListener> {
    use std::os::unix::net;
    if let Some(dir) = path.parent() {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|error| failed("make the directory of", &error))?;
    }
    if net::UnixStream::connect(path).is_ok() {
        return Err(Error::already_exists(format_args!("{} is another daemon's", path.display())));
    }
    if std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
        std::fs::remove_file(path).map_err(|error| failed("remove the old", &error))?;
    }
    let listener = net::UnixListener::bind(path).map_err(|error| failed("make", &error))?;
    let own = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, own).map_err(|error| failed("protect", &error))?;
    listener.set_nonblocking(true).map_err(|error| failed("use", &error))?;
    Ok(listener)
}

fn failed(what: &str, error: &std::io::Error) -> Error {
    Error::new(Kind::Unavailable, format!("cannot {what} the NRI socket: {error}"))
}

async fn accept(cri: Weak<Cri>, listener: UnixListener) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Never closed.
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::warn!(%error, "cannot accept an NRI plugin");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(strong) = cri.upgrade() else { return };
        let weak = cri.clone();
        strong.in_background(async move {
            let _place = place;
            let Some(cri) = weak.upgrade() else { return };
            match cri.admit(socket, None, None).await {
                Ok((plugin, asked, child)) => {
                    drop(cri);
                    serve(weak, plugin, asked, child).await;
                }
                Err(error) => tracing::warn!(%error, "an NRI plugin is not let in"),
            }
        });
    }
}

/// Does what a plugin asks until it is gone.
async fn serve(cri: Weak<Cri>, plugin: Arc<Plugin>, mut asked: mpsc::Receiver<Asked>, child: Option<Child>) {
    while let Some(one) = asked.recv().await {
        let Some(cri) = cri.upgrade() else { return };
        let outcome = match one.decode::<pb::UpdateContainersRequest>("UpdateContainers") {
            Ok(request) => {
                cri.evict(&plugin.name(), request.evict);
                let failed = cri.apply_updates(request.update).await;
                Ok(pb::UpdateContainersResponse { failed }.encode_to_vec())
            }
            Err(error) => Err(error),
        };
        plugin.answer(&one, outcome);
    }
    // Its process goes with its connection.
    drop(child);
    if let Some(cri) = cri.upgrade() {
        cri.nri.forget(&plugin);
        tracing::info!(plugin = plugin.name(), "an NRI plugin is gone");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_a_living_one_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nri/nri.sock");
        let living = bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(bind(&path).unwrap_err().kind(), Kind::AlreadyExists);
        drop(living);
        bind(&path).unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        bind(&file).unwrap_err();
        assert_eq!(std::fs::read(&file).unwrap(), b"x");
    }
}
