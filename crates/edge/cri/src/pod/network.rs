//! A pod's network: its namespace, and what CNI puts into it.
//!
//! ```text
//! <root>/io.containerd.grpc.v1.cri/sandboxes/<id>/netns         where the namespace is, written before it is made
//! <root>/io.containerd.grpc.v1.cri/sandboxes/<id>/network.json  what CNI answered
//! ```
//!
//! Invariant: no namespace is made whose path is not on disk before, so that the next daemon finds what a dead one left.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use ::spec::{Error, HasKind as _};
use api::runtime::v1;
use model::undo::Undo;
use model::{Ctx, Lane, Result};
use net::cni::{self, Network, Settings, Setup, watch::Watch};

use super::files::Files;
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

/// How long the directory of configurations is watched before the server is asked whether it is still there.
const WATCH: Duration = Duration::from_secs(1);

/// The node's networks. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Networks(Arc<Network>);

impl Networks {
    /// The networks that `config` names; that there are none is a state, no failure.
    pub fn open(config: &config::Cni) -> Self {
        Self(Arc::new(Network::open(Settings {
            conf_dir: config.conf_dir.clone(),
            bin_dirs: config.bin_dirs.clone(),
            max_conf_num: config.max_conf_num,
            ..Settings::default()
        })))
    }

    /// The networks as go-cni describes them.
    pub fn describe(&self) -> serde_json::Value {
        self.0.describe()
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

fn netns_file(files: &Files) -> PathBuf {
    files.root.join("netns")
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
        let (path, network, plan) = (netns.to_owned(), self.networks.clone(), plan(&pod.record));
        let userns = UserNamespace::of(&pod.namespaces())?.map(UserNamespace::maps);
        self.ctx()
            .blocking(Lane::Network, move |_| {
                let write = |path: &Path, bytes: &[u8]| {
                    let failed = |error| Error::internal(format!("cannot write {}: {error}", path.display()));
                    fs::write(path, bytes).map_err(failed)
                };
                write(&netns_file(&files), path.as_os_str().as_encoded_bytes())?;
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

    /// Detaches the pod from its networks and removes its namespace. May be repeated.
    pub(super) async fn leave_network(self: &Arc<Self>, pod: &Arc<Pod>) -> Result<()> {
        let Some(netns) = pod.record.netns.clone() else { return Ok(()) };
        if pod.state.borrow().network_released {
            return Ok(());
        }
        self.release(plan(&pod.record), netns).await?;
        pod.state.send_modify(|state| state.network_released = true);
        Ok(())
    }

    async fn release(&self, mut plan: cni::Pod, netns: PathBuf) -> Result<()> {
        let network = self.networks.clone();
        self.ctx()
            .blocking(Lane::Network, move |_| {
                // Without it the plugins still give back what they keep elsewhere.
                plan.netns = plan.netns.filter(|path| net::netns::exists(path));
                let detached =
                    match network.0.teardown(&plan, Instant::now() + fault::limit("pod network", LIMIT)) {
                        // Nothing is remembered and no network is configured: there is nothing to detach from.
                        Err(error @ cni::NetworkError::NotLoaded(_)) => {
                            tracing::debug!(%error, "no network to detach from");
                            Ok(())
                        }
                        outcome => outcome.map_err(failed),
                    };
                let removed = net::netns::remove(&netns).map_err(Error::from);
                detached.and(removed)
            })
            .await
    }

    /// Gives back the network of a pod that was never recorded, by what its directory says.
    pub(crate) async fn release_orphan(&self, id: &str) -> Result<()> {
        use std::os::unix::ffi::OsStringExt as _;
        let file = netns_file(&self.pod_files(id));
        let read = move |_: &model::Cx<'_>| Ok(fs::read(&file).ok());
        let Some(bytes) = self.ctx().blocking(Lane::Disk, read).await? else { return Ok(()) };
        let netns = PathBuf::from(std::ffi::OsString::from_vec(bytes));
        let ours = netns.file_name().is_some_and(|name| name.to_string_lossy().starts_with("cni-"));
        if !ours || !netns.is_absolute() {
            return Ok(());
        }
        let plan = cni::Pod { id: id.to_owned(), netns: Some(netns.clone()), ..cni::Pod::default() };
        self.release(plan, netns).await
    }

    /// Gives back attachments whose containers are gone, where the networks can.
    pub(crate) async fn sweep_networks(&self) {
        let ours: Vec<String> = self.pods.list().iter().map(|pod| pod.record.id.clone()).collect();
        let network = self.networks.clone();
        let ctx = self.ctx();
        let swept = ctx.blocking(Lane::Network, move |_| {
            let ours: Vec<&str> = ours.iter().map(String::as_str).collect();
            network.0.gc(&ours, Instant::now() + fault::limit("pod network", SWEEP)).map_err(failed)
        });
        if let Err(error) = swept.await {
            tracing::debug!(%error, "stale attachments stay behind");
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
        self.in_background(watch(Arc::downgrade(self), self.config.runtime.cni.conf_dir.clone()));
    }
}

async fn watch(cri: Weak<Cri>, dir: PathBuf) {
    let ctx = Ctx::background();
    let mut watching: Option<Watch> = None;
    loop {
        let Some(network) = cri.upgrade().map(|cri| cri.networks.clone()) else { return };
        let (dir, mut watch) = (dir.clone(), watching.take());
        let waited = ctx.blocking(Lane::Wait, move |_| {
            if watch.is_none() {
                watch = Watch::open(&dir).ok();
                // Something may have changed before it was watched.
                let _status = network.0.reload();
            }
            let changed = match &mut watch {
                Some(watch) => watch.wait(WATCH).unwrap_or(true),
                None => false,
            };
            if changed && let Err(error) = network.0.reload() {
                tracing::warn!(%error, "the network's configuration is not usable");
            }
            Ok(watch)
        });
        watching = waited.await.unwrap_or_default();
        if watching.is_none() {
            tokio::time::sleep(WATCH).await;
        }
    }
}

/// Puts what an earlier daemon knew of a pod's network into its state.
pub(crate) fn restore(files: &Files, record: &PodRecord, state: &mut PodState, preference: IpPreference) {
    if record.netns.is_none() {
        return;
    }
    let known =
        fs::read(setup_file(files)).ok().and_then(|bytes| serde_json::from_slice::<Setup>(&bytes).ok());
    note(state, known, preference);
}

/// The pod as its network's plugins see it.
fn plan(record: &PodRecord) -> cni::Pod {
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
        bandwidth: bandwidth(config),
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

/// Limits by the annotations of Kubernetes, in bits a second: `10M`, `1Gi`.
fn bandwidth(config: &v1::PodSandboxConfig) -> Option<cni::Bandwidth> {
    let rate = |way: &str| {
        let text = config.annotations.get(&format!("kubernetes.io/{way}-bandwidth"))?;
        quantity(text)
    };
    let (ingress, egress) = (rate("ingress"), rate("egress"));
    if ingress.is_none() && egress.is_none() {
        return None;
    }
    let burst = |rate: Option<u64>| rate.map_or(0, |_| u64::from(u32::MAX >> 1));
    Some(cni::Bandwidth {
        ingress_rate: ingress.unwrap_or(0),
        ingress_burst: burst(ingress),
        egress_rate: egress.unwrap_or(0),
        egress_burst: burst(egress),
    })
}

/// A quantity of Kubernetes: digits and a suffix.
fn quantity(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let factor: u64 = match &text[digits..] {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_those_of_kubernetes() {
        for (text, number) in
            [("10M", Some(10_000_000)), ("1Ki", Some(1024)), ("7", Some(7)), ("x", None), ("1m", None)]
        {
            assert_eq!(quantity(text), number, "{text}");
        }
        assert_eq!(quantity("99999999999999999999"), None);
        assert_eq!(quantity("18446744073709551615k"), None);
    }
}
