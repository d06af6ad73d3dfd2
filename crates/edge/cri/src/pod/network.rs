//! A pod's network: its namespace, and what CNI puts into it.
//!
//! ```text
//! <root>/io.containerd.grpc.v1.cri/sandboxes/<id>/network.json  what CNI answered
//! ```
//!
//! Invariant: no namespace is made whose path is not on disk before, in the pod's record, so that the next daemon finds
//! what a dead one left.
//! Invariant: a namespace goes only once the plugins have detached the pod from it: they need it to find what they made.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::spec::{Error, HasKind as _};
use api::runtime::v1;
use model::undo::Undo;
use model::{Ctx, Lane, Result};
use net::cni::{self, Network, Settings, Setup, watch::Watch};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::files::Files;
use super::{bandwidth, draft};
use crate::config::{self, IpPreference};
use crate::spec::UserNamespace;
use crate::state::{Pod, PodRecord, PodState};
use crate::{Cri, fault};

/// How long all plugins of a pod may take.
const LIMIT: Duration = Duration::from_secs(100);

/// How long stale attachments may hold up new ones.
const SWEEP: Duration = Duration::from_secs(10);

/// How long a look at the networks may take.
const STATUS: Duration = Duration::from_secs(5);

/// When the directory of configurations is tried again that cannot be watched.
const WATCH_AGAIN: Duration = Duration::from_secs(2);

/// The node's networks. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Networks(Arc<Network>);

impl Networks {
    /// The networks that `config` names; that there are none is a state, no failure.
    pub fn open(config: &config::Cni) -> Self {
        Self(Arc::new(Network::open(settings(config))))
    }

    /// Those that another `config` names.
    fn open_beside(&self, config: &config::Cni) -> Self {
        Self(Arc::new(self.0.open_beside(settings(config))))
    }

    /// The networks as go-cni describes them.
    pub fn describe(&self) -> serde_json::Value {
        self.0.describe()
    }

    /// Whether the pod is attached as it was. It blocks.
    pub fn check(&self, pod: &cni::Pod, deadline: Instant) -> Result<(), cni::NetworkError> {
        self.0.check(pod, deadline)
    }

    /// Whether their configuration could be read when it was last looked at, in go-cni's words.
    pub fn load_status(&self) -> String {
        match self.0.loaded() {
            Ok(()) => "OK".into(),
            Err(error) => format!("cni config load failed: {error}: failed to load cni config"),
        }
    }
}

fn settings(config: &config::Cni) -> Settings {
    Settings {
        conf_dir: config.conf_dir.clone(),
        bin_dirs: config.bin_dirs.clone(),
        max_conf_num: config.max_conf_num,
        serially: config.setup_serially,
        ..Settings::default()
    }
}

/// The networks of the handlers that have a directory of configurations of their own, by the handlers' names.
#[derive(Clone, Debug, Default)]
pub struct OwnNetworks(BTreeMap<String, (PathBuf, Networks)>);

impl OwnNetworks {
    /// The networks of those handlers of `runtime` that name a directory, beside those of the node.
    pub fn open(runtime: &config::Runtime, node: &Networks) -> Self {
        let own = runtime.runtimes.iter().filter_map(|(name, handler)| {
            let conf_dir = handler.cni_conf_dir.clone()?;
            let max_conf_num = match handler.cni_max_conf_num {
                0 => runtime.cni.max_conf_num,
                number => number,
            };
            let config = config::Cni { conf_dir: conf_dir.clone(), max_conf_num, ..runtime.cni.clone() };
            Some((name.clone(), (conf_dir, node.open_beside(&config))))
        });
        Self(own.collect())
    }

    /// Each by its handler's name.
    pub fn each(&self) -> impl Iterator<Item = (&str, &Networks)> {
        self.0.iter().map(|(name, (_, networks))| (name.as_str(), networks))
    }
}

/// An error of the network as one of the engine's.
fn failed(error: cni::NetworkError) -> Error {
    Error::from(error)
}

/// Puts what CNI answered into a pod's state.
pub fn note(state: &mut PodState, setup: Option<Setup>, preference: IpPreference) {
    let Some(setup) = setup else { return };
    let preference = match preference {
        IpPreference::V4 => cni::IpPreference::Ipv4,
        IpPreference::V6 => cni::IpPreference::Ipv6,
        IpPreference::Cni => cni::IpPreference::Cni,
    };
    if let Some((first, others)) = setup.pod_ips(preference) {
        state.addresses = std::iter::once(first).chain(others).collect();
    }
    state.network = Some(setup.to_json());
}

fn setup_file(files: &Files) -> PathBuf {
    files.root.join("network.json")
}

impl Cri {
    /// Where a new pod's network namespace is going to be.
    pub(super) async fn fresh_netns(&self) -> Result<PathBuf> {
        let dir = match self.config.runtime.netns_mounts_under_state_dir {
            true => self.engine.state.join("netns"),
            false => PathBuf::from("/var/run/netns"),
        };
        let fresh = move |_: &model::Cx<'_>| net::netns::fresh_path(&dir).map_err(Error::from);
        self.ctx().blocking(Lane::Disk, fresh).await
    }

    /// Makes the pod's namespace and attaches it to the networks.
    pub(super) async fn join_network(
        self: &Arc<Self>,
        pod: &Arc<Pod>,
        netns: &Path,
        undo: &mut Undo,
    ) -> Result<Setup> {
        let (cri, leaving) = (Arc::clone(self), Arc::clone(pod));
        undo.push("destroy the pod's network", move || async move { cri.leave_network(&leaving).await });
        let files = self.pod_files(&pod.record.id);
        let (path, network) = (netns.to_owned(), self.networks_of(&pod.record.runtime_handler));
        let plan = plan(&pod.record)?;
        let userns = UserNamespace::of(&pod.namespaces())?.map(UserNamespace::maps);
        self.ctx()
            .blocking(Lane::Network, move |_| {
                let write = |path: &Path, bytes: &[u8]| {
                    let failed = |error| Error::internal(format!("cannot write {}: {error}", path.display()));
                    fs::write(path, bytes).map_err(failed)
                };
                fault::after("pod netns path")?;
                match userns {
                    None => net::netns::create_at(&path),
                    Some((uid_map, gid_map)) => net::netns::create_owned_at(&path, &uid_map, &gid_map)
                        .and_then(|()| net::netns::keep_owner_at(&path, &files.userns())),
                }
                .map_err(Error::from)?;
                fault::after("pod netns")?;
                let setup = network
                    .0
                    .setup(&plan, Instant::now() + fault::limit("pod network", LIMIT))
                    .map_err(failed)?;
                fault::after("pod attached")?;
                if setup.pod_ips(cni::IpPreference::Cni).is_none() {
                    return Err(Error::internal(
                        "failed to find network info for sandbox: no address of eth0",
                    ));
                }
                let text = serde_json::to_vec(&setup).map_err(|error| Error::internal(error.to_string()))?;
                write(&setup_file(&files), &text)?;
                Ok(setup)
            })
            .await
            .map_err(|error| {
                error.context(format_args!("failed to setup network for sandbox {:?}", pod.record.id))
            })
    }

    /// Detaches the pod from its networks and then removes its namespace. May be repeated.
    ///
    /// # Errors
    /// A plugin failed: the namespace is still there, for the next time.
    pub(super) async fn leave_network(self: &Arc<Self>, pod: &Arc<Pod>) -> Result<()> {
        let Some(netns) = pod.record.netns.clone() else { return Ok(()) };
        if pod.state.borrow().network_released {
            return Ok(());
        }
        // What was refused when the pod was made is in no network.
        let plan = plan(&pod.record).unwrap_or_else(|_| bare_plan(&pod.record));
        // Plugins whose work was cut off may stumble once over what they left half made.
        let tries = if pod.state.borrow().network.is_some() { 1 } else { 2 };
        self.release(self.networks_of(&pod.record.runtime_handler), plan, netns, tries).await?;
        pod.state.send_modify(|state| state.network_released = true);
        Ok(())
    }

    /// The networks of pods that ask for `handler`: the handler's own, else the node's.
    pub(super) fn networks_of(&self, handler: &str) -> Networks {
        let own = self.own_networks.0.get(handler).map(|(_, networks)| networks);
        own.unwrap_or(&self.networks).clone()
    }

    async fn release(
        &self,
        network: Networks,
        mut plan: cni::Pod,
        netns: PathBuf,
        tries: usize,
    ) -> Result<()> {
        self.ctx()
            .blocking(Lane::Network, move |_| {
                // Without it the plugins still give back what they keep elsewhere.
                plan.netns = plan.netns.filter(|path| net::netns::exists(path));
                let deadline = Instant::now() + fault::limit("pod network", LIMIT);
                let mut left = tries;
                loop {
                    left = left.saturating_sub(1);
                    match network.0.teardown(&plan, deadline) {
                        Ok(()) => break,
                        // Nothing is remembered and no network is configured: there is nothing to detach from.
                        Err(error @ cni::NetworkError::NotLoaded(_)) => {
                            tracing::debug!(%error, "no network to detach from");
                            break;
                        }
                        Err(error) => match failed(error) {
                            error if left > 0 && Instant::now() < deadline => {
                                tracing::warn!(id = plan.id, %error, "CNI DEL of a pod that was not attached whole");
                            }
                            error => return Err(error),
                        },
                    }
                }
                net::netns::remove(&netns).map_err(Error::from)
            })
            .await
    }

    /// Gives back the network of a pod that was made and has no record in the store any more.
    pub(crate) async fn release_orphan(&self, id: &str) -> Result<()> {
        let (files, of) = (self.pod_files(id), id.to_owned());
        let read = move |_: &model::Cx<'_>| Ok(draft::read_made(&files, &of));
        let Some(record) = self.ctx().blocking(Lane::Disk, read).await? else { return Ok(()) };
        let Some(netns) = record.netns.clone() else { return Ok(()) };
        let plan = plan(&record).unwrap_or_else(|_| bare_plan(&record));
        self.release(self.networks_of(&record.runtime_handler), plan, netns, 1).await
    }

    /// Gives back attachments whose containers are gone, where the networks can: the node's and then the handlers', so that
    /// nobody who attaches waits for all of them.
    pub(crate) async fn sweep_networks(&self) {
        let own = self.own_networks.each().map(|(_, networks)| networks);
        for network in std::iter::once(&self.networks).chain(own).cloned() {
            let ours: Vec<String> = self.pods.list().iter().map(|pod| pod.record.id.clone()).collect();
            let ctx = self.ctx();
            let swept = ctx.blocking(Lane::Network, move |_| {
                let ours: Vec<&str> = ours.iter().map(String::as_str).collect();
                network.0.gc(&ours, Instant::now() + fault::limit("pod network", SWEEP)).map_err(failed)
            });
            if let Err(error) = swept.await {
                tracing::debug!(%error, "stale attachments stay behind");
            }
        }
    }

    /// Whether pods can be given a network.
    pub(crate) async fn network_status(&self) -> Result<()> {
        let network = self.networks.clone();
        let status = move |_: &model::Cx<'_>| network.0.status(Instant::now() + STATUS).map_err(failed);
        self.ctx().blocking(Lane::Wait, status).await
    }

    /// Writes the network's configuration by the template, unless there is a network.
    pub(crate) async fn write_network(&self, cidrs: &str) -> Result<()> {
        let config = &self.config.runtime.cni;
        let Some(template) = config.conf_template.clone() else { return Ok(()) };
        if self.network_status().await.is_ok() {
            return Ok(());
        }
        let (dir, cidrs, network) = (config.conf_dir.clone(), cidrs.to_owned(), self.networks.clone());
        self.ctx()
            .blocking(Lane::Disk, move |_| {
                let written = cni::template::write(&dir, &template, &cidrs);
                written.map_err(|error| {
                    Error::new(error.kind(), format!("cannot write the network's configuration: {error}"))
                })?;
                // What is wrong with it is the network's status.
                let _status = network.0.reload();
                Ok(())
            })
            .await
    }

    /// Loads the networks anew whenever their directory changes, for as long as the server lives.
    pub(crate) fn watch_networks(self: &Arc<Self>) {
        let node = (self.config.runtime.cni.conf_dir.clone(), self.networks.clone());
        for (dir, networks) in std::iter::once(node).chain(self.own_networks.0.values().cloned()) {
            self.in_background(watch(dir, networks));
        }
    }
}

/// Ends with the server.
async fn watch(dir: PathBuf, networks: Networks) {
    let ctx = Ctx::background();
    loop {
        let (dir, network) = (dir.clone(), networks.clone());
        let opened = ctx.blocking(Lane::Disk, move |_| {
            let watch = Watch::open(&dir).ok();
            // Something may have changed before it was watched.
            let _status = network.0.reload();
            Ok(watch)
        });
        if let Some(watch) = opened.await.unwrap_or_default()
            && let Err(error) = follow(&ctx, watch, &networks).await
        {
            tracing::warn!(%error, "the network's configuration cannot be watched");
        }
        tokio::time::sleep(WATCH_AGAIN).await;
    }
}

/// Loads `networks` anew at each change that `watch` tells of.
#[expect(
    deprecated,
    reason = "its successor is unsafe, for descriptors that close early; a watch owns its own"
)]
async fn follow(ctx: &Ctx, watch: Watch, networks: &Networks) -> io::Result<()> {
    let mut watch = AsyncFd::with_interest(watch, Interest::READABLE)?;
    loop {
        let mut ready = watch.readable_mut().await?;
        // It takes all there is, so that the next event makes it ready again.
        let changed = ready.get_inner_mut().take()?;
        ready.clear_ready();
        if !changed {
            continue;
        }
        let network = networks.clone();
        let reload = ctx.blocking(Lane::Disk, move |_| {
            if let Err(error) = network.0.reload() {
                tracing::warn!(%error, "the network's configuration is not usable");
            }
            Ok(())
        });
        // Only the server's end keeps it from being done.
        let _done = reload.await;
    }
}

/// Puts what an earlier daemon knew of a pod's network into its state.
pub(crate) fn restore(files: &Files, record: &PodRecord, state: &mut PodState, preference: IpPreference) {
    // A pod that was stopped has given its addresses back.
    if !record.netns.as_deref().is_some_and(net::netns::exists) {
        return;
    }
    let known =
        fs::read(setup_file(files)).ok().and_then(|bytes| serde_json::from_slice::<Setup>(&bytes).ok());
    note(state, known, preference);
}

/// The pod as its network's plugins see it.
///
/// # Errors
/// `InvalidArgument`: the bandwidth that its annotations ask for is none.
fn plan(record: &PodRecord) -> Result<cni::Pod> {
    let bandwidth = bandwidth::of(&record.config.annotations)
        .map_err(|error| Error::invalid(format_args!("reading pod bandwidth annotations: {error}")))?;
    Ok(with_limits(record, bandwidth))
}

/// The same without the bandwidth.
pub(super) fn bare_plan(record: &PodRecord) -> cni::Pod {
    with_limits(record, None)
}

/// The same, with limits that are known to be some.
fn with_limits(record: &PodRecord, bandwidth: Option<cni::Bandwidth>) -> cni::Pod {
    let config = &record.config;
    let metadata = config.metadata.clone().unwrap_or_default();
    let dns = config.dns_config.clone().map(|dns| cni::PodDns {
        servers: dns.servers,
        searches: dns.searches,
        options: dns.options,
    });
    cni::Pod {
        id: record.id.clone(),
        netns: record.netns.clone(),
        namespace: metadata.namespace,
        name: metadata.name,
        uid: metadata.uid,
        annotations: config.annotations.clone().into_iter().collect(),
        port_mappings: config.port_mappings.iter().map(port).collect(),
        bandwidth,
        dns,
        cgroup_path: config.linux.as_ref().map(|linux| linux.cgroup_parent.clone()),
        ..cni::Pod::default()
    }
}

fn port(mapping: &v1::PortMapping) -> cni::PortMapping {
    let protocol = match mapping.protocol() {
        v1::Protocol::Tcp => "tcp",
        v1::Protocol::Udp => "udp",
        v1::Protocol::Sctp => "sctp",
    };
    cni::PortMapping {
        host_port: mapping.host_port,
        container_port: mapping.container_port,
        protocol: protocol.into(),
        host_ip: mapping.host_ip.clone(),
    }
}
