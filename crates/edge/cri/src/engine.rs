//! What every verb works on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ::spec::{Error, Kind, Namespace};
use model::container::Containers;
use model::content::Content;
use model::event::Exchange;
use model::gc::Collector;
use model::image::Images;
use model::lease::Leases;
use model::pull::Puller;
use model::sandbox::Sandboxes;
use model::snapshot::{Mount, Snapshotter};
use model::task::Tasks;
use model::{Ctx, Cx, Lane, Result};
use tokio::task::JoinSet;

use crate::event::Events;
use crate::nri::Nri;
use crate::state::{Container, Names, Pod, Registry};
use crate::{Config, image, stats};

/// The namespace of everything that Kubernetes makes.
pub const NAMESPACE: &str = "k8s.io";

/// Why no pods can run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// One word for programs.
    pub reason: &'static str,
    /// What is wrong and what to do, for people.
    pub message: String,
}

/// Looks for a [`Trouble`]; may read the disk.
pub type FindTrouble = Arc<dyn Fn(&Cx<'_>) -> Option<Trouble> + Send + Sync>;

/// The engine, by the traits of `model`.
#[derive(Clone)]
pub struct Engine {
    /// Records of containers.
    pub containers: Arc<dyn Containers>,
    /// Records of images.
    pub images: Arc<dyn Images>,
    /// Blobs.
    pub content: Arc<dyn Content>,
    /// Records of sandboxes.
    pub sandboxes: Arc<dyn Sandboxes>,
    /// Leases.
    pub leases: Arc<dyn Leases>,
    /// Brings images from registries.
    pub puller: Arc<dyn Puller>,
    /// Collects garbage.
    pub collector: Arc<dyn Collector>,
    /// Snapshot drivers by name.
    pub snapshotters: BTreeMap<String, Arc<dyn Snapshotter>>,
    /// Their directories.
    pub snapshotter_roots: BTreeMap<String, PathBuf>,
    /// Copies a directory of a snapshot, if it is there, into an empty one: where a mount may be made, the snapshot's
    /// mounts, the directory in it, and the empty one.
    pub copy_out: fn(&Cx<'_>, &Path, &[Mount], &Path, &Path) -> Result<bool>,
    /// Running containers.
    pub tasks: Arc<dyn Tasks>,
    /// Events of the whole daemon.
    pub exchange: Exchange,
    /// The daemon's root directory.
    pub root: PathBuf,
    /// The daemon's volatile directory.
    pub state: PathBuf,
    /// The version that the daemon reports.
    pub version: &'static str,
    /// What keeps the daemon from running pods right now; `None` when nothing does. May read the disk.
    pub trouble: FindTrouble,
    /// Whether records are missing, so that what has none may be in use.
    pub lacks_records: bool,
}

impl Engine {
    /// The snapshot driver `name`.
    ///
    /// # Errors
    /// `InvalidArgument` when there is none.
    pub fn snapshotter(&self, name: &str) -> Result<Arc<dyn Snapshotter>> {
        let driver = self.snapshotters.get(name).cloned();
        driver.ok_or_else(|| Error::invalid(format!("snapshotter not loaded: {name}")))
    }
}

/// The CRI server's state; services and background tasks share it in an `Arc`.
pub struct Cri {
    /// The engine.
    pub(crate) engine: Engine,
    /// The configuration.
    pub(crate) config: Config,
    /// The namespace of everything here.
    pub(crate) namespace: Namespace,
    /// Every pod.
    pub(crate) pods: Registry<Pod>,
    /// Every container but the pods' sandboxes.
    pub(crate) containers: Registry<Container>,
    /// Names of pods.
    pub(crate) pod_names: Names,
    /// Names of containers.
    pub(crate) container_names: Names,
    /// Who listens to what happens to containers.
    pub(crate) events: Events,
    /// The node's networks.
    pub(crate) networks: crate::pod::Networks,
    /// Networks of handlers that have their own.
    pub(crate) own_networks: crate::pod::OwnNetworks,
    /// What handlers can do.
    pub(crate) abilities: crate::status::Abilities,
    /// The host, as far as specs depend on it.
    pub(crate) host: crate::spec::Host,
    /// Plugins that see and adjust.
    pub(crate) nri: Nri,
    /// Whether what an earlier daemon left is taken up.
    pub(crate) recovered: AtomicBool,
    /// What was agreed to be streamed.
    pub(crate) streaming: crate::stream::Streaming,
    /// Does what was agreed to be streamed.
    server: std::sync::OnceLock<crate::stream::Server>,
    /// Every image.
    pub(crate) images: image::Index,
    /// What snapshots take on disk.
    pub(crate) disk: stats::DiskUse,
    /// Whose shims do not tell what they use.
    pub(crate) silent: stats::Silent,
    /// How fast pods and containers use the CPU.
    pub(crate) rates: stats::Rates,
    /// Tasks that end with the server; they hold no more than a weak handle of it.
    background: Mutex<JoinSet<()>>,
}

impl Cri {
    /// The server over `engine`. Nothing runs and nothing is read before [`Cri::start`].
    ///
    /// # Errors
    /// The configuration names what is not there.
    pub fn new(engine: Engine, config: Config) -> Result<Arc<Self>> {
        let namespace = NAMESPACE.parse().map_err(Error::from)?;
        let networks = crate::pod::Networks::open(&config.runtime.cni);
        let own_networks = crate::pod::OwnNetworks::open(&config.runtime, &networks);
        let abilities = crate::status::Abilities::unknown(&config.runtime);
        let nri = Nri::new(&config.nri, engine.version);
        Ok(Arc::new(Self {
            engine,
            config,
            networks,
            own_networks,
            abilities,
            namespace,
            pods: Registry::default(),
            containers: Registry::default(),
            pod_names: Names::default(),
            container_names: Names::default(),
            events: Events::default(),
            host: crate::spec::Host::read(),
            nri,
            recovered: AtomicBool::new(false),
            streaming: crate::stream::Streaming::default(),
            server: std::sync::OnceLock::new(),
            images: image::Index::default(),
            disk: stats::DiskUse::default(),
            silent: stats::Silent::default(),
            rates: stats::Rates::default(),
            background: Mutex::default(),
        }))
    }

    /// Takes up what an earlier daemon left and begins to serve; returns when the quick ones have answered.
    ///
    /// # Errors
    /// The state directory cannot be read.
    pub async fn start(self: &Arc<Self>) -> Result<()> {
        if self.config.runtime.enable_selinux && self.host.selinux.is_none() {
            tracing::warn!(
                "enable_selinux: this host has no SELinux policy for containers; nothing is labelled"
            );
        }
        self.learn_abilities();
        self.renew_pause().await;
        self.start_images().await?;
        self.follow_ooms();
        self.recover().await?;
        self.start_nri().await;
        self.start_stats();
        self.watch_networks();
        let server = crate::stream::Server::start(self).await?;
        // Kept for as long as this is; a second start would have failed at the address.
        let _first = self.server.set(server);
        // While every pod is an earlier daemon's.
        self.check_networks();
        self.recovered.store(true, Ordering::Release);
        Ok(())
    }

    /// Runs `task` until it ends or the server does. It may hold no more than a weak handle of the server.
    pub(crate) fn in_background(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut background = self.background.lock().unwrap_or_else(PoisonError::into_inner);
        while background.try_join_next().is_some() {}
        background.spawn(task);
    }

    /// Whether requests can be answered.
    ///
    /// # Errors
    /// `Unavailable`: what an earlier daemon left is not taken up yet. Clients try again.
    pub fn check_ready(&self) -> Result<()> {
        if self.recovered.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(Error::new(Kind::Unavailable, "server is not initialized yet"))
    }

    /// The context of a request: the namespace is always the same one.
    pub(crate) fn ctx(&self) -> Ctx {
        Ctx::in_namespace(self.namespace.clone())
    }

    /// Runs `work` with the engine where it may block on the disk.
    pub(crate) async fn on_disk<T, F>(&self, ctx: &Ctx, work: F) -> Result<T>
    where
        F: FnOnce(&Engine, &Cx<'_>) -> Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let engine = self.engine.clone();
        ctx.blocking(Lane::Disk, move |cx| work(&engine, cx)).await
    }

    /// Runs `verb` to its end even when the caller leaves.
    pub(crate) async fn whole<T, F>(verb: F) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        let outcome = tokio::spawn(verb).await;
        outcome.map_err(|panic| Error::internal(format!("the verb failed: {panic}")))?
    }

    /// Where what must survive a reboot is kept.
    pub(crate) fn root_dir(&self) -> PathBuf {
        self.engine.root.join("io.containerd.grpc.v1.cri")
    }

    /// Where what need not survive a reboot is kept.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.engine.state.join("io.containerd.grpc.v1.cri")
    }
}
