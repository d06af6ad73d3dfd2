//! Node Resource Interface: plugins that see and adjust pods and containers.
//!
//! ```text
//! pod/*, container/* ─► hooks ─► plugin ─► wire (ttrpc) ─► mux ─► socket
//!                         ├─► collect, owners (pure: all plugins together), validate ─► adjust (pure: into the spec)
//!                         └─► change: updates and evictions of other containers
//! listen, launch ─► a plugin comes and goes
//! ```
//!
//! Plugins hear one thing at a time, in the order of their indices, as containerd calls them.
//!
//! Invariant: no plugin holds up a request for longer than its deadline; one that does not answer is dropped.
//! Invariant: a pod or container is either told in a plugin's synchronisation or by an event after it.
//! Invariant: without plugins nothing waits and nothing is read.

mod adjust;
mod change;
mod collect;
mod hooks;
mod launch;
mod listen;
mod mark;
mod mux;
mod owners;
mod plugin;
mod resources;
mod validate;
mod view;
mod wire;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use ::spec::{Error, Kind};
use api::nri::pkg::api::v1alpha1 as pb;
use model::Result;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

use crate::state::PodPhase;
use crate::{Cri, config};
use plugin::{Plugin, Terms};

/// The plugins.
#[derive(Debug)]
pub struct Nri {
    validator: config::Validator,
    terms: Terms,
    /// In the order of their turns.
    plugins: Mutex<Vec<Arc<Plugin>>>,
    /// Pods of whose stop plugins have not heard.
    running: Mutex<BTreeSet<String>>,
    /// Held while plugins are called: they hear one thing at a time.
    turn: tokio::sync::Mutex<()>,
    /// Held for writing while a plugin is told what there is; for reading between an event and its outcome's being
    /// known to everybody.
    syncing: Arc<RwLock<()>>,
    cri: OnceLock<Weak<Cri>>,
}

impl Nri {
    /// No plugin yet.
    pub fn new(config: &config::Nri, version: &'static str) -> Self {
        let validator = match config.disable {
            true => config::Validator::default(),
            false => config.validator.clone(),
        };
        Self {
            validator,
            terms: Terms {
                registration: config.registration_timeout,
                request: config.request_timeout,
                version,
            },
            plugins: Mutex::default(),
            running: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            syncing: Arc::default(),
            cri: OnceLock::new(),
        }
    }

    fn attach(&self, cri: &Arc<Cri>) {
        // A second start would find the same.
        let _first = self.cri.set(Arc::downgrade(cri));
    }

    fn cri(&self) -> Result<Arc<Cri>> {
        let cri = self.cri.get().and_then(Weak::upgrade);
        cri.ok_or_else(|| Error::unavailable("the server is ending"))
    }

    /// The plugins that are there, in the order of their turns.
    fn plugins(&self) -> Vec<Arc<Plugin>> {
        let plugins = self.plugins.lock().unwrap_or_else(PoisonError::into_inner);
        plugins.iter().filter(|plugin| !plugin.is_closed()).cloned().collect()
    }

    /// Whether no plugin listens.
    pub fn is_idle(&self) -> bool {
        self.plugins.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Keeps plugins from being told what there is until the guard is dropped.
    async fn hold(&self) -> OwnedRwLockReadGuard<()> {
        Arc::clone(&self.syncing).read_owned().await
    }

    /// Plugins hear that a pod runs.
    fn runs(&self, id: &str) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned());
    }

    /// Whether plugins believe that a pod runs; from now on they do not.
    fn no_longer_runs(&self, id: &str) -> bool {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(id)
    }

    /// Tells `plugin` what there is, and takes it in; returns what it wants changed.
    async fn take_in(&self, cri: &Arc<Cri>, plugin: &Arc<Plugin>) -> Result<Vec<pb::ContainerUpdate>> {
        let late = |_| Error::new(Kind::DeadlineExceeded, "pods are being made for too long");
        let _alone =
            tokio::time::timeout(self.terms.registration, self.syncing.write()).await.map_err(late)?;
        let _turn = tokio::time::timeout(self.terms.registration, self.turn.lock()).await.map_err(late)?;
        let (pods, containers) = cri.everything().await?;
        for pod in cri.pods.list() {
            let state = pod.now();
            if state.phase == PodPhase::Ready || !(pod.on_host_network() || state.network_released) {
                self.runs(&pod.record.id);
            }
        }
        let updates = plugin.synchronize(pods, containers).await?;
        let mut plugins = self.plugins.lock().unwrap_or_else(PoisonError::into_inner);
        plugins.push(Arc::clone(plugin));
        plugins.sort_by(|a, b| (&a.index, &a.base).cmp(&(&b.index, &b.base)));
        Ok(updates)
    }

    fn forget(&self, plugin: &Arc<Plugin>) {
        let mut plugins = self.plugins.lock().unwrap_or_else(PoisonError::into_inner);
        plugins.retain(|known| !Arc::ptr_eq(known, plugin));
    }
}
