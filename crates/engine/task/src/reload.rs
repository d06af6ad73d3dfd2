//! Taking over the shims of an earlier daemon.
//!
//! Each bundle is loaded on its own and all at once: one frozen shim costs its own deadline, nobody else's.
//!
//! Invariant: a shim that accepts a connection is never cleaned up for being slow; its container goes on.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::containerd::task::v3::{StateRequest, StateResponse};
use futures_util::stream::{FuturesUnordered, StreamExt};
use model::{Ctx, Lane};
use spec::{Error, HasKind, Kind};

use crate::bootstrap::Endpoint;
use crate::bundle::{self, Bundle, TASKS};
use crate::log::Log;
use crate::registry::Reservation;
use crate::task::{Parts, Task, exit};
use crate::tasks::Shared;
use crate::ttrpc::Client;
use crate::{Config, end, owner};

/// How long a starting daemon waits for the quick shims before it serves; the others follow.
const PATIENCE: Duration = Duration::from_millis(500);

/// Takes over every shim that the state directory names.
pub async fn run(shared: &Arc<Shared>) -> Result<(), Error> {
    let config = Arc::clone(&shared.config);
    let bundles = Ctx::background().blocking(Lane::Disk, move |_| Ok(scan(&config))).await?;
    let mut loads = FuturesUnordered::new();
    for bundle in bundles {
        let Ok(place) = shared.registry.reserve(&bundle.namespace, &bundle.id) else { continue };
        loads.push(tokio::spawn(load(Arc::clone(shared), bundle, place)));
    }
    let all = async { while loads.next().await.is_some() {} };
    if tokio::time::timeout(PATIENCE, all).await.is_err() {
        // Spawned tasks go on without their handles; each ends by its own deadlines.
        tracing::warn!("some shims are slow to answer; serving without them for now");
    }
    Ok(())
}

/// Finds every bundle; removes what was on its way out, and work directories whose bundle is gone (after a reboot).
fn scan(config: &Config) -> Vec<Bundle> {
    let mut bundles = Vec::new();
    for_each_entry(&config.state.join(TASKS), |namespace, path| {
        if hidden(path, namespace) {
            return;
        }
        let Ok(namespace) = namespace.parse() else { return };
        for_each_entry(path, |id, path| {
            if hidden(path, id) {
                return;
            }
            match id.parse() {
                Ok(id) => bundles.push(Bundle::new(config, &namespace, &id)),
                Err(error) => tracing::warn!(path = %path.display(), %error, "not a bundle"),
            }
        });
    });
    for_each_entry(&config.root.join(TASKS), |namespace, path| {
        let state = config.state.join(TASKS).join(namespace);
        for_each_entry(path, |id, path| {
            if !hidden(path, id) && !state.join(id).exists() {
                report(path, bundle::remove_tree(path));
            }
        });
    });
    bundles
}

/// Removes `path` when it is the hidden remains of a bundle; says whether it was.
fn hidden(path: &Path, name: &str) -> bool {
    if !name.starts_with('.') {
        return false;
    }
    if let Some(parent) = path.parent() {
        report(path, bundle::remove_hidden(parent, name.as_ref()));
    }
    true
}

fn report(path: &Path, removed: Result<(), bundle::BundleError>) {
    if let Err(error) = removed {
        tracing::warn!(path = %path.display(), error = %Error::from(error), "failed to remove remains");
    }
}

fn for_each_entry(dir: &Path, mut visit: impl FnMut(&str, &PathBuf)) {
    // A directory that is not there has no entries; one that cannot be read has none that could be used.
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if let Some(name) = entry.file_name().to_str() {
            visit(name, &entry.path());
        }
    }
}

async fn load(shared: Arc<Shared>, bundle: Bundle, place: Reservation) {
    let found = {
        let bundle = bundle.clone();
        let read = move |_: &model::Cx<'_>| Ok((bundle.endpoint(), bundle.program()));
        Ctx::background().blocking(Lane::Disk, read).await
    };
    let (endpoint, program) = found.unwrap_or((None, None));
    let program = match program {
        Some(program) => program,
        None => match shared.launcher.find("io.containerd.runc.v2") {
            Ok(program) => program,
            Err(error) => {
                return tracing::error!(id = %bundle.id, %error, "no program for this bundle's shim");
            }
        },
    };
    let load = shared.config.deadlines.load;
    let connected = match endpoint {
        None => Err(Error::not_found("the shim's address")),
        Some(endpoint) => match tokio::time::timeout(load, Client::connect(&endpoint.path())).await {
            Ok(connected) => connected.map(|shim| (shim, endpoint)).map_err(Error::from),
            Err(_) => {
                tracing::error!(id = %bundle.id, "the shim does not accept a connection; its container is left alone");
                return;
            }
        },
    };
    match connected {
        Ok((shim, endpoint)) => adopt(shared, bundle, program, shim, endpoint, place),
        Err(error) => {
            tracing::warn!(id = %bundle.id, %error, "cleaning up dead shim");
            bury(&shared, &bundle, &program).await;
        }
    }
}

/// Makes a task of a shim that accepts connections. Everyone sees it at once; whether the shim has the container is
/// asked beside that, so that a frozen one delays nothing.
fn adopt(
    shared: Arc<Shared>,
    bundle: Bundle,
    program: PathBuf,
    shim: Client,
    endpoint: Endpoint,
    place: Reservation,
) {
    let log = Log::open(&bundle.path, bundle.namespace.as_str(), bundle.id.as_str()).ok();
    let (owner, ended, seat) = owner::seat();
    let (shim, deadlines) = (Arc::new(shim), shared.config.deadlines);
    let task = Arc::new(Task::new(Parts { bundle, program, shim, endpoint, log, owner, ended, deadlines }));
    place.fill(Arc::clone(&task));
    owner::start(shared, Arc::clone(&task), seat);
    tokio::spawn(async move {
        let request = StateRequest { id: task.id().into(), exec_id: String::new() };
        let limit = task.deadlines().state;
        let state = task.call_any_version::<_, StateResponse>("State", limit, &request).await;
        match state {
            Ok(state) => task.set_pid(state.pid),
            // The daemon before died between the shim's start and the container's creation.
            Err(error) if error.kind() == Kind::NotFound => {
                tracing::info!(id = task.id(), "cleaning leaked shim process");
                task.forget().await;
            }
            // A frozen shim: its container goes on, and calls to it fail by their own deadlines.
            Err(error) => {
                tracing::warn!(id = task.id(), %error, "the shim does not say where its task stands")
            }
        }
    });
}

/// Removes what a shim that is gone left behind, and tells everyone.
async fn bury(shared: &Arc<Shared>, bundle: &Bundle, program: &Path) {
    match shared.launcher.delete(program, bundle).await {
        Ok(response) => {
            let exit = exit(response.pid, response.exit_status, response.exited_at);
            if exit.pid != 0 {
                end::publish(shared, bundle, &exit);
            }
        }
        Err(error) => {
            tracing::error!(id = %bundle.id, error = %Error::from(error), "failed to delete dead shim")
        }
    }
    if let Err(error) = end::remove(bundle).await {
        tracing::error!(id = %bundle.id, %error, "failed to remove the bundle of a dead shim");
    }
}
